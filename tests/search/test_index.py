"""Indexes of moments: what is in them, what is found, and that nothing is there twice or in part."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
import torch

from fewframes.core.cache import EmbeddingCache, content_key
from fewframes.core.files import held
from fewframes.errors import ConfigError, DataError, MissingDependency
from fewframes.inference import frame_features
from fewframes.inference.detection.spans import Span
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.timeline import TimelineConfig, sweep
from fewframes.models.config import ModelConfig
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.networks import build_model
from fewframes.runtime.protocol import scores_of
from fewframes.search import finding
from fewframes.search import table as moments
from fewframes.search.finding import like
from fewframes.search.index import Index
from fewframes.search.table import IndexSettings, SearchQuery, among, lancedb, schema_of, settings_in
from fewframes.search.table import rows_of as rows_of_video
from fewframes.video.view import ViewConfig
from helpers.numbered import drifting, write_fading


@pytest.fixture(scope="module")
def predictor(tiny_model: Path) -> Predictor:
    return load(tiny_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Films of 6, 5 and 4 s, and clips that are shorter than a window."""
    folder = tmp_path_factory.mktemp("films it's")
    long = [
        drifting(folder / f"film_{number}.mp4", "libx264", frames, gop=25, options={})
        for number, frames in enumerate((150, 125, 100))
    ]
    for number in range(4):
        write_fading(folder / f"clip {number}.mp4", 20 + number, turned=number % 2 == 1)
    return [*long, *(folder / f"clip {number}.mp4" for number in range(4))]


@pytest.fixture
def index(predictor: Predictor, films: list[Path], tmp_path: Path) -> Index:
    index = Index.open(tmp_path / "index", predictor, window_s=2, hop_s=1)
    index.add(films)
    return index


def rows_of(index: Index) -> list[dict[str, Any]]:
    return sorted(index._table.to_arrow().to_pylist(), key=lambda row: (row["source"], row["number"]))


def test_a_row_for_each_window_with_what_the_timeline_and_predict_say(
    index: Index, predictor: Predictor, films: list[Path]
) -> None:
    rows = [row for row in rows_of(index) if row["source"] == str(films[0])]
    assert [row["start_s"] for row in rows] == pytest.approx([0, 1, 2, 3, 4])
    assert [row["end_s"] for row in rows] == pytest.approx([2, 3, 4, 5, 6])
    swept = sweep(predictor, films[0], TimelineConfig(window_s=2, lengths=(1,)))
    scores_WK = scores_of(swept.windows[0].logits, "single")[::2]
    assert [row["label"] for row in rows] == [predictor.labels[place] for place in scores_WK.argmax(1).tolist()]
    said = predictor.predict(films[0], start_s=1, end_s=3)
    wanted = said.embedding / np.linalg.norm(said.embedding)
    np.testing.assert_allclose(rows[1]["embedding"], wanted, rtol=0, atol=1e-4)
    clip = [row for row in rows_of(index) if row["source"] == str(films[3])]
    assert [(row["start_s"], row["end_s"]) for row in clip] == [(0, pytest.approx(0.8, abs=0.05))]


def test_search_is_brute_force_without_the_moment_itself_and_repeats(index: Index, films: list[Path]) -> None:
    query = index.moment(films[0], 1, 3)
    rows = rows_of(index)
    similarity = np.array([row["embedding"] for row in rows]) @ query.vector
    allowed = [
        place
        for place in (-similarity).argsort(kind="stable")
        if not (rows[place]["source"] == str(films[0]) and rows[place]["start_s"] < 3 and rows[place]["end_s"] > 1)  # type: ignore[operator]
    ]
    found = index.search(query, num=50)
    assert found[0].similarity == pytest.approx(float(similarity[allowed[0]]), abs=1e-5)
    assert [hit.similarity for hit in found] == sorted((hit.similarity for hit in found), reverse=True)
    for number, hit in enumerate(found):
        assert not (hit.source == str(films[0]) and hit.start_s < 3 and hit.end_s > 1)
        for other in found[:number]:
            if other.source == hit.source:
                shared_s = min(hit.end_s, other.end_s) - max(hit.start_s, other.start_s)
                assert shared_s / (4 - shared_s) <= 0.3 or shared_s <= 0
    distinct = index.search(query, num=50, distinct=True)
    assert len({hit.source for hit in distinct}) == len(distinct) == len(films)


def test_numbers_of_numpy_and_names_with_marks(predictor: Predictor, films: list[Path], tmp_path: Path) -> None:
    index = Index.open(tmp_path / "index", predictor, window_s=2, hop_s=1)
    odd = [tmp_path / name for name in ("it's 100%_a.mp4", "it's 100%xa.mp4", "back\\slash\"'.mp4")]
    for path in odd:
        path.write_bytes(films[3].read_bytes())
    index.add([films[0], *odd])
    index.optimize(indexed_from=1)
    one, three = np.float32(1), np.float32(3)
    query, numbers = index.moment(films[0], 1, 3), index.moment(films[0], one, three)  # type: ignore[arg-type]
    assert index.search(numbers, num=9) == index.search(query, num=9)
    by_hand = SearchQuery(query.vector, query.content, one, three)  # type: ignore[arg-type]
    assert index.search(by_hand, num=9) == index.search(query, num=9)
    for path in odd:
        assert [hit.source for hit in index.search(query, videos=f"*{path.name}", num=9)] == [str(path)]
        assert [hit.source for hit in index.search(query, videos=str(path), num=9)] == [str(path)]
    assert {hit.source for hit in index.search(query, num=9, distinct=True)} == {str(films[0]), *map(str, odd)}
    with pytest.raises(ValueError, match=r"num = 0"):
        index.search(query, num=0)
    with pytest.raises(DataError, match=r"no such row"):
        index.row("it's\\")
    assert index.remove(odd) == 3


def test_a_notebook_shows_hits_as_a_table(index: Index, films: list[Path]) -> None:
    found = index.search(index.moment(films[0], 0, 2), num=3)
    shown = found._repr_html_()
    assert ">3 results</caption>" in shown
    for hit in found:
        assert f">{hit.id}</td>" in shown
        assert f"> {hit.similarity:.3f}</td>" in shown
    assert not found[:0]


def test_filters_and_labels(index: Index, films: list[Path]) -> None:
    row = index.search(index.moment(films[0], 0, 2), num=1)[0]
    query = index.row(row.id)
    assert {hit.source for hit in index.search(query, videos="*film_1*", num=50)} == {str(films[1])}
    assert not index.search(query, videos="*filmx1*", num=50)
    assert like("*a_b%") == "%a\\_b\\%"
    assert all(hit.start_s > 1 for hit in index.search(query, where="start_s > 1 OR start_s > 2", num=50))
    label = row.label
    by_score = index.search(label, num=50)
    assert {hit.label for hit in by_score} == {label}
    assert [hit.similarity for hit in by_score] == sorted((hit.score for hit in by_score), reverse=True)
    with pytest.raises(DataError, match=r"No field named foo"):
        index.search(query, where="foo = 1")
    with pytest.raises(DataError, match=r"sql parser error"):
        index.search(query, where="label = 'a'; x")
    with pytest.raises(DataError, match=r"did you mean 'kick'"):
        index.search("kik")
    with pytest.raises(DataError, match=r"no such row"):
        index.row("x-1")


def test_added_once_changed_replaced_gone_forgotten(predictor: Predictor, films: list[Path], tmp_path: Path) -> None:
    index = Index.open(tmp_path / "index", predictor, window_s=2, hop_s=1)
    copy, other = tmp_path / "copy.mp4", tmp_path / "other.mp4"
    copy.write_bytes(films[0].read_bytes())
    other.write_bytes(films[1].read_bytes())
    added = index.add([copy, other, copy, tmp_path / "missing.mp4"])
    assert (added.num_added, added.num_kept, added.num_rows, len(added.failures)) == (2, 0, 9, 1)
    again = index.add([copy, other])
    assert (again.num_added, again.num_kept, index.num_rows) == (0, 2, 9)
    copy.write_bytes(films[2].read_bytes())
    assert index.add([copy]).num_added == 1
    assert [(row["source"], row["number"]) for row in rows_of(index)] == [
        *((str(copy), number) for number in range(3)),
        *((str(other), number) for number in range(4)),
    ]
    copy.unlink()
    assert index.prune() == 1
    assert index.remove([other]) == 1
    assert index.num_rows == 0
    with pytest.raises(DataError, match=r"not in the index"):
        index.remove([other])


def test_one_process_writes_and_what_two_stored_is_mended(
    predictor: Predictor, films: list[Path], tmp_path: Path
) -> None:
    index = Index.open(tmp_path / "index", predictor, window_s=2, hop_s=1)
    index.add(films[:2])
    once = rows_of(index)
    with held(tmp_path / "index"), pytest.raises(ConfigError, match=r"index: process \d+ on .* is writing to it"):
        Index.open(tmp_path / "index", predictor).add(films)
    index._table.add(index._table.to_arrow())
    assert index.num_rows == 2 * len(once)
    assert index.add(films[:2]).num_added == 2
    assert rows_of(index) == once


def test_another_model_window_or_place_is_refused(index: Index, predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"window_s 2.* not 3"):
        Index.open(index.url, predictor, window_s=3)
    config = ModelConfig(image_size=32, patch_size=8, width=48, depth=1, heads=3, temporal_depth=1, temporal_heads=4, num_frames=4, num_classes=3)  # fmt: skip  # noqa: E501
    view = ViewConfig(resize_px=36, crop_px=32)
    torch.manual_seed(1)
    other = Predictor(
        Checkpoint(build_model(config, view), view, ("hug", "kick", "push")), device="cpu", dtype="float32"
    )
    with pytest.raises(ConfigError, match=r"is another or has other weights"):
        Index.open(index.url, other)
    with pytest.raises(DataError, match=r"no index there; make one with"):
        Index.open(tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"at most the window's length"):
        Index.open(tmp_path / "new", predictor, window_s=2, hop_s=3)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"file: "):
        Index.open(tmp_path / "file")


@pytest.mark.parametrize("window_s", [0.0, -1.0, 0.01, 1e6, float("inf"), float("nan")])
def test_windows_that_nothing_can_be_seen_in_are_refused_and_nothing_is_made(
    predictor: Predictor, tmp_path: Path, window_s: float
) -> None:
    # Four frames at 240 a second.
    with pytest.raises(
        ConfigError, match=r"windows of \S+ s: needs at least 0\.017 s .* at most 86400 s; leave that out"
    ):
        Index.open(tmp_path / "new", predictor, window_s=window_s)
    with pytest.raises(ConfigError, match=r"needs a hop of at least 0\.5 s"):
        Index.open(tmp_path / "new", predictor, window_s=2, hop_s=0.01 * min(0.5, window_s))
    assert not (tmp_path / "new").exists()
    assert Index.open(tmp_path / "new", predictor, window_s=0.017).settings.hop_s == 0.017


def test_opening_what_is_not_there_makes_nothing(tmp_path: Path) -> None:
    for place in (f"{tmp_path}/typo", f"file://{tmp_path}/typo", f"file:{tmp_path}/typo"):
        with pytest.raises(DataError, match=r"typo: no index there; make one with: fewframes index VIDEOS --index"):
            Index.open(place)
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_not_text_is_a_failure_and_the_rest_is_indexed(
    predictor: Predictor, films: list[Path], tmp_path: Path
) -> None:
    bad = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4")
    Path(bad).write_bytes(films[3].read_bytes())
    gone = os.fsdecode(os.fsencode(tmp_path) + b"/\xfe.mp4")
    index = Index.open(tmp_path / "index", predictor)
    added = index.add([bad, gone, "a\0b.mp4", films[3]])
    assert added.failures[0].error == f"{bad}: its name is not UTF-8, and an index holds text only; rename the file"
    assert [failure.missing for failure in added.failures] == [False, True, False]
    assert list(index.videos()) == [str(films[3])]


def test_a_video_elsewhere_is_looked_at_again_when_it_has_changed(
    predictor: Predictor, films: list[Path], tmp_path: Path
) -> None:
    url = "memory://test_retrieve/film.mp4"
    fsspec.filesystem("memory").pipe_file("/test_retrieve/film.mp4", films[3].read_bytes())
    index = Index.open(tmp_path / "index", predictor)
    assert index.add([url]).num_added == 1
    assert index.add([url]).num_kept == 1
    fsspec.filesystem("memory").pipe_file("/test_retrieve/film.mp4", films[0].read_bytes())
    assert (index.add([url]).num_added, {row["duration_s"] for row in rows_of(index)}) == (1, {6.0})
    fsspec.filesystem("memory").rm("/test_retrieve/film.mp4")
    assert [failure.missing for failure in index.add([url]).failures] == [True]
    assert index.num_rows  # as long as nobody says --remove


def test_content_is_hashed_once(
    predictor: Predictor, films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def counting(path: str) -> str:
        hashed.append(path)
        return content_key(path)

    for room in (moments, frame_features):
        monkeypatch.setattr(room, "content_key", counting)
    cache = EmbeddingCache(tmp_path / "cache")
    Index.open(tmp_path / "index", predictor).add([films[3]], cache=cache)
    assert hashed == [str(films[3])]
    assert sweep(predictor, films[3], TimelineConfig(lengths=(1,)), cache=cache).num_encoded == 0  # under the same key


def test_merged_patches_are_kept_in_the_settings(
    predictor: Predictor, tiny_model: Path, films: list[Path], tmp_path: Path
) -> None:
    merging = load(tiny_model, device="cpu", dtype="float32", merge=2)
    index = Index.open(tmp_path / "index", merging)
    assert index.settings.merge == 2
    with pytest.raises(ConfigError, match=r"wide, merging 2 patches a block"):
        Index.open(tmp_path / "index", predictor)
    before = {name: value for name, value in asdict(index.settings).items() if name != "merge"}
    assert (
        settings_in("", SimpleNamespace(schema=pa.schema([], metadata={"fewframes": json.dumps(before)}))).merge is None
    )
    newer = SimpleNamespace(schema=pa.schema([], metadata={"fewframes": json.dumps({**before, "colour": 1})}))
    with pytest.raises(DataError, match=r"moments: made by a newer fewframes \(colour not known here\)"):
        settings_in("moments", newer)


def test_the_same_index_in_another_precision(index: Index, tiny_model: Path) -> None:
    assert Index.open(index.url, load(tiny_model, device="cpu", dtype="bfloat16")).num_rows == index.num_rows


def test_a_taught_label_finds_its_kind_and_learns_on(index: Index, films: list[Path]) -> None:
    ids = {Path(str(row["source"])).name: str(row["id"]) for row in rows_of(index)}
    taught = index.teach("reddens", [ids["clip 0.mp4"]], [ids["clip 1.mp4"]])
    assert (len(taught.yes), len(taught.no), taught.num_gone) == (1, 1, 0)
    found = [Path(hit.source).name for hit in Index.open(index.url).search("reddens")]
    assert found.index("clip 2.mp4") < found.index("clip 1.mp4")
    more = index.teach("reddens", [ids["clip 2.mp4"], ids["clip 1.mp4"]])
    assert ({*more.yes}, more.no) == ({ids["clip 0.mp4"], ids["clip 1.mp4"], ids["clip 2.mp4"]}, ())
    index.remove([films[3]])
    assert index.teach("reddens", [ids["clip 2.mp4"]]).num_gone == 1
    with pytest.raises(DataError, match=r"no such row"):
        index.teach("reddens", ["x-1"])
    with pytest.raises(DataError, match=r"at least one row"):
        index.teach("other", [], [ids["clip 1.mp4"]])
    with pytest.raises(DataError, match=r"surrogates not allowed"):
        index.teach(os.fsdecode(b"\xff"), [ids["clip 2.mp4"]])


KILLED = """
import sys
from fewframes.inference.predictor import load
from fewframes.search.index import Index
from fewframes.inference.detection.spans import Span
index = Index.open(sys.argv[1], load(sys.argv[2], device="cpu", dtype="float32"), window_s=2, hop_s=1)
index.add(sys.argv[3:], commit_s=0)
"""


def test_killed_at_any_moment_it_holds_whole_videos_and_goes_on(
    predictor: Predictor, tiny_model: Path, films: list[Path], tmp_path: Path
) -> None:
    copies = [tmp_path / f"{number}.mp4" for number in range(14)]
    for number, copy in enumerate(copies):
        copy.write_bytes(films[number % 3].read_bytes())
    place, names = tmp_path / "killed", [str(copy) for copy in copies]
    worker = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(place), str(tiny_model), *names], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(list(place.glob("windows.lance/_versions/*.manifest"))) < 4:
        assert worker.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    whole = Index.open(tmp_path / "whole", predictor, window_s=2, hop_s=1)
    whole.add(names)
    wanted = rows_of(whole)
    index = Index.open(place, predictor)
    left = index.videos()
    assert 0 < len(left) < len(copies)
    assert [row["id"] for row in rows_of(index)] == [row["id"] for row in wanted if row["source"] in left]
    added = index.add(names)
    assert (added.num_kept, added.num_added) == (len(left), len(copies) - len(left))
    resumed = rows_of(index)
    assert [row["id"] for row in resumed] == [row["id"] for row in wanted]
    ours, theirs = ([row["embedding"] for row in rows] for rows in (resumed, wanted))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def drawn_index(folder: Path, count: int) -> tuple[Index, np.ndarray]:
    """An index of unit vectors, each a video of its own."""
    settings = IndexSettings("drawn", "", ("none",), 16, 4.0, 2.0, "video")
    table = lancedb().connect(folder).create_table("windows", schema=schema_of(settings))
    Index.open(folder).optimize(indexed_from=1)  # of an empty table
    vectors = np.random.default_rng(0).standard_normal((count, 16), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    add_rows(table, vectors, 0)
    return Index.open(folder), vectors


def add_rows(table: Any, vectors: np.ndarray, first: int) -> None:
    paths = [f"/{number}.mp4" for number in range(first, first + len(vectors))]
    videos = [
        rows_of_video(table.schema, (path, path, 4.0), [Span(0, 4, "none")], vector[None])
        for path, vector in zip(paths, vectors, strict=True)
    ]
    table.add(pa.concat_tables(videos))


def test_above_a_number_of_rows_a_vector_index_finds_the_same(tmp_path: Path) -> None:
    index, vectors = drawn_index(tmp_path / "drawn", 300)
    index.optimize(indexed_from=301)
    assert not index._table.list_indices()
    query = SearchQuery(vectors[7] + 0.3 * vectors[8])
    exact = index.search(query, num=10)
    index.optimize(indexed_from=300)
    assert {one.columns[0]: one.index_type for one in index._table.list_indices()} == {
        "embedding": "IvfSq",
        "id": "BTree",
        "source": "BTree",
        "label": "Bitmap",
    }
    plan = index._table.search(query.vector, vector_column_name="embedding").distance_type("cosine").explain_plan()
    assert "ANN" in plan
    near = index.search(query, num=10)
    assert [hit.id for hit in near] == [hit.id for hit in exact]
    assert [hit.similarity for hit in near] == pytest.approx([hit.similarity for hit in exact], abs=1e-5)
    # What comes later is found before the index knows of it, and after.
    add_rows(index._table, query.vector[None] / np.linalg.norm(query.vector), 300)
    assert index.search(query, num=1)[0].source == "/300.mp4"
    index.optimize(indexed_from=300)
    assert index.search(query, num=1)[0].source == "/300.mp4"


def test_one_video_of_many_windows_does_not_crowd_out_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "MOST_FETCHED", 64)
    index, vectors = drawn_index(tmp_path / "drawn", 20)
    crowd = np.repeat(vectors[:1], 200, axis=0)
    spans = [Span(4.0 * number, 4.0 * number + 4, "none", 1.0) for number in range(200)]
    index._table.add(rows_of_video(index._table.schema, ("/it's.mp4", "x", 800.0), spans, crowd))
    index = Index.open(index.url)
    by_likeness = [f"/{place}.mp4" for place in (-(vectors @ vectors[0])).argsort(kind="stable")]
    found = index.search(SearchQuery(vectors[0]), num=20, distinct=True)
    assert {hit.source for hit in found[:2]} == {"/it's.mp4", "/0.mp4"}
    assert [hit.source for hit in found if hit.source != "/it's.mp4"] == by_likeness[:19]
    assert len(index.search(SearchQuery(vectors[0]), num=50, distinct=True)) == 21
    assert len(index.search("none", num=50, distinct=True)) == 21


def test_a_narrow_condition_is_looked_for_in_all_parts_of_the_vector_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "PROBES", 1)
    index, vectors = drawn_index(tmp_path / "drawn", 600)
    index._table.create_index("embedding", config=lancedb().index.IvfSq(distance_type="cosine", num_partitions=8))
    index = Index.open(index.url)
    paths = [f"/{number}.mp4" for number in range(0, 600, 30)]
    found = index.search(SearchQuery(vectors[7]), where=among("source", paths), num=20)
    assert {hit.source for hit in found} == {*paths}


def test_without_lancedb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(MissingDependency, match=r"fewframes\[search\]"):
        Index.open(tmp_path)
