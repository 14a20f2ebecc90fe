"""Words beside the vectors of a model that knows none: what is stored, what survives, and what is found."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewframes.core.cache import EmbeddingCache
from fewframes.errors import ConfigError, VideoError, WeightsError
from fewframes.inference.predictor import Predictor, load
from fewframes.models.files.model_file import write_model_file
from fewframes.models.words.files import words_model
from fewframes.search.encoders import words_beside
from fewframes.search.index import Index
from fewframes.search.rows import WindowEncoder
from fewframes.search.table import Hit
from fewframes.video.decode.decoder import FileVideo
from fewframes.video.source import open_video
from helpers.heads import solved_head, with_detector
from helpers.words import OTHERS, RED_AND_BLUE, write_parts, write_video

pytest.importorskip("open_clip")
NAMES = ("red circle", "blue square", "green cross", "yellow circle", "stripes")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("films")
    return [
        *(write_video(folder / f"{name}.mp4", name) for name in NAMES),
        write_parts(folder / "film.mp4", ["an empty picture", "green square", "stripes"], seconds=4),
    ]


@pytest.fixture(scope="module")
def predictor(tiny_model: Path) -> Predictor:
    return load(tiny_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingCache:
    return EmbeddingCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def index(
    predictor: Predictor,
    image_text: Path,
    films: list[Path],
    cache: EmbeddingCache,
    tmp_path_factory: pytest.TempPathFactory,
) -> Index:
    found = Index.open(
        tmp_path_factory.mktemp("index") / "moments", predictor, window_s=2.0, hop_s=1.0, words=str(image_text)
    )
    assert not found.add(films, cache=cache).failures
    return found


def rows_of(index: Index) -> list[dict[str, Any]]:
    return sorted(index._table.to_arrow().to_pylist(), key=lambda row: (row["source"], row["number"]))


def column(index: Index, name: str) -> np.ndarray:
    return np.array([row[name] for row in rows_of(index)], np.float32)


def names_of(found: tuple[Hit, ...]) -> list[str]:
    return [Path(hit.source).stem for hit in found]


def test_what_the_words_say_comes_first(index: Index) -> None:
    assert index.knows_words
    for text, name in (("a red circle", "red circle"), ("a green cross|green cross", "green cross")):
        assert names_of(index.search(index.text(text), num=1)) == [name]
    found = index.search(index.text("a green square"), num=1)[0]
    assert Path(found.source).name == "film.mp4"
    assert 3.5 <= found.start_s <= 6.5


def test_both_vectors_are_those_of_each_encoder_alone(
    index: Index, predictor: Predictor, image_text: Path, films: list[Path], tmp_path: Path
) -> None:
    alone = Index.open(tmp_path / "alone", predictor, window_s=2.0, hop_s=1.0)
    alone.add(films)
    assert np.array_equal(column(index, "embedding"), column(alone, "embedding"))
    assert [row["label"] for row in rows_of(index)] == [row["label"] for row in rows_of(alone)]
    path = words_model(
        RED_AND_BLUE,
        tmp_path / "words.safetensors",
        encoder=str(image_text),
        background=OTHERS,
        num_frames=predictor.num_frames,
    )
    seen = Index.open(tmp_path / "seen", load(path, device="cpu", dtype="float32"), window_s=2.0, hop_s=1.0)
    seen.add(films)
    assert np.abs(column(index, "words") - column(seen, "embedding")).max() < 1e-3  # stored as float16


def test_frames_are_decoded_once_for_both_and_none_that_is_cached(
    predictor: Predictor, image_text: Path, films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    decode = FileVideo.frames_at

    def counted(video: FileVideo, times_s: Any, *rest: Any) -> Any:
        asked.append(len(times_s))
        return decode(video, times_s, *rest)

    monkeypatch.setattr(FileVideo, "frames_at", counted)
    cache = EmbeddingCache(tmp_path / "cache")
    options: dict[str, Any] = {"window_s": 2.0, "hop_s": 1.0}
    first = Index.open(tmp_path / "first", predictor, **options).add(films[-1:], cache=cache)
    once = list(asked)
    both = Index.open(tmp_path / "both", predictor, **options, words=str(image_text))
    added = both.add(films[-1:], cache=cache)
    assert (asked, added.num_embedded) == (once * 2, first.num_embedded)  # the model's own were cached
    Index.open(tmp_path / "again", predictor, **options, words=both.settings.words).add(films[-1:], cache=cache)
    assert asked == once * 2  # and now all were
    Index.open(tmp_path / "no cache", predictor, **options, words=str(image_text)).add(films[-1:])
    assert asked == once * 3


def test_what_cannot_be_decoded_is_left_out_for_both(
    predictor: Predictor, image_text: Path, index: Index, films: list[Path], cache: EmbeddingCache
) -> None:
    class Broken:
        """A video in which nothing between 4 and 6 s can be decoded."""

        def __init__(self) -> None:
            self._video = open_video(films[-1])

        def frames_at(self, times_s: Any, *rest: Any) -> Any:
            if ((np.asarray(times_s) > 4) & (np.asarray(times_s) < 6)).any():
                raise VideoError("damaged there")
            return self._video.frames_at(times_s, *rest)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._video, name)

    beside = words_beside(index.open_encoder(), predictor)
    broken: Any = Broken()
    found = WindowEncoder(predictor, index.settings, None, beside=beside).windows(str(films[-1]), "x", broken)
    assert [gap.error for gap in found.gaps] == ["damaged there"]
    whole = {row["start_s"]: row for row in rows_of(index) if row["source"] == str(films[-1])}
    rows = found.rows.to_pylist()
    assert 2 < len(rows) < len(whole)
    for row in rows:
        assert np.allclose(row["words"], whole[row["start_s"]]["words"], atol=2e-3)
        assert np.allclose(row["embedding"], whole[row["start_s"]]["embedding"], atol=1e-5)


def test_more_videos_get_words_too_and_a_changed_one_gets_new_ones(
    predictor: Predictor, image_text: Path, tmp_path: Path
) -> None:
    film = write_video(tmp_path / "a.mp4", "red circle")
    Index.open(tmp_path / "index", predictor, window_s=2.0, words=str(image_text)).add([film])
    write_video(film, "blue square", seed=1)
    again = Index.open(tmp_path / "index", predictor)
    assert again.add([film, write_video(tmp_path / "b.mp4", "green cross")]).num_added == 2
    reopened = Index.open(tmp_path / "index")
    assert asdict(reopened.settings) == asdict(again.settings)
    for text, name in (("a blue square", "a"), ("a green cross", "b")):
        assert names_of(reopened.search(reopened.text(text), num=1)) == [name]
    assert reopened.remove([film]) == 1
    assert names_of(reopened.search(reopened.text("a blue square"), num=2)) == ["b"]


def test_an_index_of_cached_embeddings_has_the_words_of_the_older_one(
    index: Index, predictor: Predictor, cache: EmbeddingCache, films: list[Path], tmp_path: Path
) -> None:
    away = films[0].parent.rename(tmp_path / "away")
    try:
        newer = Index.open(tmp_path / "newer", predictor, window_s=2.0, hop_s=1.0, words=index.settings.words)
        added = newer.relabel(index, cache=cache)
    finally:
        away.rename(films[0].parent)
    assert (added.num_added, added.failures) == (len(films), ())
    assert rows_of(newer) == rows_of(index)
    without = Index.open(tmp_path / "without", predictor, window_s=2.0, hop_s=1.0, words=index.settings.words)
    missed = without.relabel(index, cache=EmbeddingCache(tmp_path / "empty"))
    assert len(missed.failures) == len(films)


def test_learned_spans_have_words_of_their_own_frames(image_text: Path, films: list[Path], tmp_path: Path) -> None:
    write_model_file(tmp_path / "learned.safetensors", with_detector(solved_head(1, 3), 0.125))
    predictor = load(tmp_path / "learned.safetensors", device="cpu", dtype="float32", runtime="onnxruntime")
    found = Index.open(tmp_path / "index", predictor, words=str(image_text))
    added = found.add(films)
    assert added.num_spans > 0
    plain = Index.open(tmp_path / "plain", predictor)
    plain.add(films)
    ours, theirs = rows_of(found), rows_of(plain)
    assert [row["id"] for row in ours] == [row["id"] for row in theirs]
    assert np.allclose(column(found, "embedding"), column(plain, "embedding"), atol=1e-5)
    striped = found.text("stripes").vector
    spans = [row for row in ours if row["kind"] == "span" and row["source"] == str(films[-1])]
    for row in spans:
        is_striped, is_other = row["start_s"] >= 8, row["end_s"] <= 8
        if is_striped or is_other:
            assert (np.array(row["words"]) @ striped > 0.6) == is_striped
    assert len(spans) > 1


def test_another_encoder_is_refused_by_name(
    index: Index, predictor: Predictor, image_text: Path, tmp_path: Path
) -> None:
    import open_clip
    from safetensors.torch import save_file

    from helpers.words import MODEL

    other = tmp_path / "others"
    shutil.copytree(image_text, other)
    weights = open_clip.CLIP(**MODEL).state_dict()
    save_file({key: tensor.contiguous() for key, tensor in weights.items()}, other / "open_clip_model.safetensors")
    words = "its words are those of clip:shapes, and clip:others has other weights"
    with pytest.raises(WeightsError, match=words):
        Index.open(index.url).text("stripes", encoder=str(other))
    with pytest.raises(WeightsError, match=words):
        Index.open(index.url, predictor, words=str(other))
    moved = tmp_path / "moved"
    shutil.copytree(image_text, moved)
    assert names_of(index.search(Index.open(index.url).text("stripes", encoder=str(moved)), num=1)) == ["stripes"]


def test_an_encoder_that_is_gone_and_an_index_without_words_say_what_to_do(
    predictor: Predictor, image_text: Path, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    shutil.copytree(image_text, gone)
    Index.open(tmp_path / "index", predictor, window_s=2.0, words=str(gone))
    shutil.rmtree(gone)
    with pytest.raises(WeightsError, match="clip:gone was read from there, and there is nothing now"):
        Index.open(tmp_path / "index").text("stripes")
    plain = Index.open(tmp_path / "plain", predictor, window_s=2.0)
    assert not plain.knows_words
    with pytest.raises(ConfigError, match="knows no words; make an index with words beside its vectors"):
        plain.text("stripes")
    with pytest.raises(ConfigError, match="was made without words"):
        Index.open(tmp_path / "plain", predictor, words=str(image_text))


def test_an_example_and_a_text_are_fused_by_rank(index: Index, films: list[Path]) -> None:
    """The circle in words and a square as an example: what fits both is above what fits one."""
    example, text = index.moment(films[1]), index.text("a red circle")
    found = index.search([example, text], num=5, distinct=True)
    assert all([part.part for part in hit.parts] == ["example", "text"] for hit in found)
    best = next(hit for hit in found if Path(hit.source).stem == "red circle")
    assert best.parts[1].rank == 1
    assert "blue square" not in names_of(found)  # the example itself
    for hit in found:
        ranks = [part.rank for part in hit.parts]
        assert hit.similarity == pytest.approx(np.mean([61 / (60 + rank) for rank in ranks]))
    assert [hit.similarity for hit in found] == sorted((hit.similarity for hit in found), reverse=True)
    both = index.search([index.text("a red circle"), index.text("something red")], num=1)[0]
    assert (both.similarity, Path(both.source).stem) == (1.0, "red circle")
    assert found[0].to_dict()["parts"].keys() == {"example", "text"}  # type: ignore[attr-defined]
    assert "parts" not in index.search(text, num=1)[0].to_dict()


def test_a_label_keeps_its_moments_alone(index: Index) -> None:
    labels = {row["label"] for row in rows_of(index)}
    for label in labels:
        found = index.search(index.text("stripes"), label=label)
        assert found
        assert {hit.label for hit in found} == {label}
    nothing = next(iter({*index.settings.labels} - labels), None)
    if nothing is not None:
        assert index.search(index.text("stripes", not_text="a cross"), label=nothing) == ()
    striped = index.search(index.text("stripes"), num=2, distinct=True)
    index.teach("striped", [hit.id for hit in striped])
    head = index.taught()["striped"]
    taught = {row["id"] for row in rows_of(index) if np.dot(row["embedding"], head.weights) + head.bias >= 0}
    kept = {hit.id for hit in index.search(index.text("a green square"), label="striped", num=50)}
    assert {hit.id for hit in striped} <= taught
    assert kept
    assert kept <= taught < {row["id"] for row in rows_of(index)}


def test_what_is_more_like_other_words_is_left_out(index: Index) -> None:
    found = names_of(index.search(index.text("a circle"), num=3, distinct=True))
    assert {"red circle", "yellow circle"} <= set(found)
    without = names_of(index.search(index.text("a circle", not_text="a yellow circle"), num=20, distinct=True))
    assert "red circle" in without
    assert "yellow circle" not in without
