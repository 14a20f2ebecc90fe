"""Learned spans in an index: rows of their own, with the start, the end and the label that the timeline has."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from fewframes.cli.main import app
from fewframes.core.cache import EmbeddingCache
from fewframes.errors import ConfigError
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.timeline import TimelineConfig, sweep
from fewframes.models.files.model_file import ModelFile, write_model_file
from fewframes.search.index import Index
from fewframes.search.rows import LEAST_CONFIDENCE
from fewframes.search.table import is_window
from helpers.heads import solved_head, with_detector
from helpers.numbered import drifting

LABELS = ("hug", "kick", "background")
INTERVAL_S = 0.125


def written(file: ModelFile, path: Path) -> Predictor:
    write_model_file(path, file)
    return load(path, device="cpu", dtype="float32", runtime="onnxruntime")


def named(seed: int) -> ModelFile:
    return replace(solved_head(seed, 3), labels=LABELS)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A model with a detector of drawn weights for frames 0.125 s apart."""
    return written(with_detector(named(1), INTERVAL_S), tmp_path_factory.mktemp("model") / "learned.safetensors")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return written(named(1), tmp_path_factory.mktemp("model") / "plain.safetensors")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Films of 8 and 6 s, and one that is too short for the detector."""
    folder = tmp_path_factory.mktemp("films")
    return [
        drifting(folder / f"{number}.mp4", "libx264", frames, gop=25, options={})
        for number, frames in enumerate((200, 150, 30))
    ]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingCache:
    return EmbeddingCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def index(predictor: Predictor, films: list[Path], cache: EmbeddingCache, tmp_path: Path) -> Index:
    index = Index.open(tmp_path / "index", predictor)
    index.add(films, cache=cache)
    return index


def rows_of(index: Index) -> list[dict[str, Any]]:
    return sorted(index._table.to_arrow().to_pylist(), key=lambda row: (row["source"], row["number"]))


def test_spans_are_those_of_the_timeline_and_have_vectors_of_their_frames(
    index: Index, predictor: Predictor, films: list[Path], cache: EmbeddingCache
) -> None:
    assert (index.settings.spans, index.settings.window_s, index.settings.hop_s) == ("learned", 2.0, 1.0)
    found = sweep(predictor, films[0], TimelineConfig(threshold=LEAST_CONFIDENCE), cache=cache)
    assert (found.method, found.num_encoded) == ("learned", 0)  # both take the same frames
    rows = [row for row in rows_of(index) if row["source"] == str(films[0])]
    spans = [row for row in rows if row["kind"] == "span"]
    assert len(spans) == len(found.spans) > 3
    for row, span in zip(spans, found.spans, strict=True):
        assert (row["start_s"], row["end_s"], row["label"]) == (span.start_s, span.end_s, span.label)
        assert row["score"] == pytest.approx(span.confidence, abs=1e-5)
        assert np.linalg.norm(row["embedding"]) == pytest.approx(1, abs=1e-5)
        assert not is_window(row["id"])
    assert "background" not in {row["label"] for row in spans}
    windows = [row for row in rows if row["kind"] == "window"]
    assert [row["start_s"] for row in windows] == pytest.approx([0, 1, 2, 3, 4, 5, 6])
    assert all(is_window(row["id"]) for row in windows)
    longest = max(spans, key=lambda row: row["end_s"] - row["start_s"])
    alone = predictor.predict(films[0], start_s=longest["start_s"], end_s=longest["end_s"]).embedding
    assert np.dot(longest["embedding"], alone / np.linalg.norm(alone)) > 0.98


def test_labels_find_spans_and_background_finds_windows(index: Index, films: list[Path]) -> None:
    found = index.search("kick", num=50)
    whole = {row["id"]: row for row in rows_of(index)}
    assert {whole[hit.id]["kind"] for hit in found} == {"span"}
    assert [hit.similarity for hit in found] == sorted((hit.score for hit in found), reverse=True)
    short = [row for row in whole.values() if row["source"] == str(films[2])]
    assert [(row["number"], row["kind"], is_window(row["id"])) for row in short] == [(0, "span", True)]
    assert short[0]["label"] in LABELS
    windows = [row["id"] for row in whole.values() if row["label"] == "background"]
    assert {hit.id for hit in index.search("background", num=50)} <= set(windows)
    only = index.search("kick", where="kind = 'window'", num=50)
    assert only == ()
    query = index.row(found[0].id)
    assert (query.start_s, query.end_s) == (found[0].start_s, found[0].end_s)
    assert index.search(query, num=5)


def test_an_index_of_windows_stays_one_and_has_no_spans(
    predictor: Predictor, plain: Predictor, films: list[Path], cache: EmbeddingCache, tmp_path: Path
) -> None:
    asked = Index.open(tmp_path / "asked", predictor, spans="windows", window_s=2, hop_s=1)
    asked.add(films[:1], cache=cache)
    other = Index.open(tmp_path / "other", plain, window_s=2, hop_s=1)
    other.add(films[:1], cache=cache)
    for index in (asked, other):
        assert index.settings.spans == "windows"
        assert "kind" not in index._table.schema.names
        assert {is_window(row["id"]) for row in rows_of(index)} == {True}
        assert {hit.label for hit in index.search("kick")} <= {"kick"}
    again = Index.open(tmp_path / "asked", predictor)
    assert again.settings.spans == "windows"
    with pytest.raises(ConfigError, match="was made with spans windows, not learned"):
        Index.open(tmp_path / "asked", predictor, spans="learned")
    with pytest.raises(ConfigError, match="has no detector; train one"):
        Index.open(tmp_path / "new", plain, spans="learned")


def test_windows_whose_frames_are_too_far_apart_for_the_detector(predictor: Predictor, tmp_path: Path) -> None:
    assert Index.open(tmp_path / "far", predictor, window_s=4).settings.spans == "windows"
    assert Index.open(tmp_path / "near", predictor, window_s=3).settings.spans == "learned"
    assert Index.open(tmp_path / "nearer", predictor, window_s=0.5).settings.spans == "learned"
    with pytest.raises(ConfigError, match=r"windows of 4 s: .*take windows of at most 3 s, leave the window out"):
        Index.open(tmp_path / "new", predictor, window_s=4, spans="learned")
    assert not (tmp_path / "new").exists()


def test_relabelled_indexes_compare_spans_if_both_have_them(
    index: Index, predictor: Predictor, plain: Predictor, films: list[Path], cache: EmbeddingCache, tmp_path: Path
) -> None:
    other = written(with_detector(named(7), INTERVAL_S), tmp_path / "other.safetensors")
    spans = [row["id"] for row in rows_of(index) if row["kind"] == "span" and row["source"] != str(films[2])]
    windows = [row["id"] for row in rows_of(index) if row["kind"] == "window"]
    index.teach("wave", yes=[spans[0], *windows[:2]], no=windows[4:5])
    newer = Index.open(tmp_path / "newer", other)
    added = newer.relabel(index, cache=cache)
    assert (added.num_added, added.num_embedded, added.failures) == (3, 0, ())
    assert added.num_spans == sum(not is_window(row["id"]) for row in rows_of(newer)) > 0
    there = {row["id"] for row in rows_of(newer)}
    assert set(newer.taught()["wave"].yes) == {spans[0], *windows[:2]} & there
    found = newer.changes_since(index)
    own = [row for row in rows_of(newer) if row["kind"] == "span"]
    counts = found.counts()
    assert len(own) == sum(counts.values()) - counts["gone"]
    assert (
        index.changes_since(index).counts()["unchanged"] == len(spans) + 1
    )  # the short film's window stands for a span
    older = Index.open(tmp_path / "older", plain, window_s=2, hop_s=1)
    older.add(films, cache=cache)
    mixed = index.changes_since(older).counts()
    assert mixed["unchanged"] == older.num_rows == sum(mixed.values())  # windows alone, and the head is the same


def test_the_commands_say_and_find_spans(
    predictor: Predictor, films: list[Path], cache: EmbeddingCache, tmp_path: Path
) -> None:
    where = str(tmp_path / "index")
    words = ["index", *map(str, films[:2]), "--index", where, "--model", predictor.name, "--cache", str(cache.folder)]
    run = CliRunner()
    made = run.invoke(app, words, catch_exceptions=False)
    assert made.exit_code == 0, made.output
    assert "0 there already; 12 windows and " in made.output
    found = run.invoke(app, ["search", "--label", "kick", "--index", where, "--json"], catch_exceptions=False)
    hits = [json.loads(line) for line in found.stdout.splitlines()]
    assert hits
    assert all(hit["label"] == "kick" and not is_window(hit["id"]) for hit in hits)
    refused = run.invoke(app, [*words, "--spans", "windows"])
    assert refused.exit_code == 2
    assert "was made with spans learned, not windows" in refused.output
    taught = run.invoke(
        app,
        ["search", "--teach", "ours", "--yes", hits[0]["id"], "--index", where, "--csv"],
        catch_exceptions=False,
    )
    assert taught.exit_code == 0, taught.output
    assert next(csv.DictReader(io.StringIO(taught.stdout)))["id"]
