"""An index made from the cached embeddings of an older one: no video is read, and what changed is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fewframes.core.cache import EmbeddingCache
from fewframes.errors import ConfigError
from fewframes.inference.detection.changes import KINDS
from fewframes.inference.predictor import Predictor, load
from fewframes.search.index import Index
from helpers.models import write_reheaded
from helpers.numbered import drifting


@pytest.fixture(scope="module")
def other(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A model with the frame encoder of the tiny one, and another head."""
    path = write_reheaded(tiny_model, tmp_path_factory.mktemp("other") / "other.safetensors")
    return load(path, device="cpu", dtype="float32")


@pytest.fixture
def films(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "films"
    folder.mkdir()
    return [drifting(folder / f"{number}.mp4", "libx264", 100 + 25 * number, gop=25, options={}) for number in range(3)]


def test_the_videos_may_be_gone(predictor: Predictor, other: Predictor, films: list[Path], tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "cache")
    older = Index.open(tmp_path / "older", predictor, window_s=1, hop_s=0.5)
    older.add(films, cache=cache)
    fresh = Index.open(tmp_path / "fresh", other, window_s=1, hop_s=0.5)
    fresh.add(films, cache=cache)
    shutil.rmtree(films[0].parent)

    newer = Index.open(tmp_path / "newer", other, window_s=1, hop_s=0.5)
    added = newer.relabel(older, cache=cache)
    assert (added.num_added, added.failures, added.num_embedded, added.num_rows) == (3, (), 0, older.num_rows)
    assert rows_of(newer) == rows_of(fresh)
    again = newer.relabel(older, cache=cache)
    assert (again.num_added, again.num_kept, newer.num_rows) == (0, 3, older.num_rows)

    before, after = rows_of(older), rows_of(newer)
    found = newer.changes_since(older)
    counts = found.counts()
    assert counts["relabelled"] == sum(old[-2] != new[-2] for old, new in zip(before, after, strict=True)) > 0
    assert sum(counts.values()) == older.num_rows
    assert sum(counts[kind] for kind in KINDS if kind not in ("relabelled", "surer", "less sure", "unchanged")) == 0
    assert older.changes_since(older).counts()["unchanged"] == older.num_rows


def test_what_is_not_cached_is_a_failure_and_the_others_are_taken_over(
    predictor: Predictor, other: Predictor, films: list[Path], tmp_path: Path
) -> None:
    cache = EmbeddingCache(tmp_path / "cache")
    older = Index.open(tmp_path / "older", predictor, window_s=1, hop_s=0.5)
    older.add(films[:2], cache=cache)
    older.add(films[2:])
    newer = Index.open(tmp_path / "newer", other, window_s=1, hop_s=0.5)
    added = newer.relabel(older, cache=cache)
    (failure,) = added.failures
    assert (added.num_added, failure.source) == (2, str(films[2]))
    assert "are not in the cache; index the video itself" in failure.error
    found = newer.changes_since(older, failures=added.failures)
    assert [video.source for video in found.videos if video.status == "failed after"] == [str(films[2])]
    newer.add(films, cache=cache)
    assert newer.changes_since(older).statuses() == {"compared": 3}


def test_taught_labels_are_taught_again_from_the_same_windows(
    predictor: Predictor, other: Predictor, films: list[Path], tmp_path: Path
) -> None:
    cache = EmbeddingCache(tmp_path / "cache")
    older = Index.open(tmp_path / "older", predictor, window_s=1, hop_s=0.5)
    older.add(films, cache=cache)
    ids = [str(row["id"]) for row in older._table.to_arrow().sort_by("id").to_pylist()]
    older.teach("wave", yes=ids[:3], no=ids[5:6])
    newer = Index.open(tmp_path / "newer", other, window_s=1, hop_s=0.5)
    newer.relabel(older, cache=cache)
    label = newer.taught()["wave"]
    assert (set(label.yes), set(label.no)) == (set(ids[:3]), set(ids[5:6]))
    with pytest.raises(ConfigError, match="opened without a model"):
        Index.open(tmp_path / "newer").relabel(older, cache=cache)


def rows_of(index: Index) -> list[tuple[object, ...]]:
    columns = ("source", "number", "start_s", "end_s", "id", "embedding", "label", "score")
    rows = index._table.to_arrow().to_pylist()
    return sorted(tuple(tuple(v) if isinstance(v := row[name], list) else v for name in columns) for row in rows)
