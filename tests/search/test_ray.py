"""`index --engine ray`: the rows of the local engine, failures with reasons, and nothing done twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewframes.batch import ray as ray_shards
from fewframes.batch.output import Shard, pieces
from fewframes.inference.predictor import load
from fewframes.search.index import Index
from fewframes.search.ray import EncodeOnRay
from fewframes.search.rows import WindowEncoder, WindowJob
from helpers.numbered import write_fading

ray: Any = pytest.importorskip("ray", reason="Ray is not installed: pip install 'fewframes[ray]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own, of every kind


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One Ray for the whole file: it takes long to start."""
    with ray_shards.cluster(2):
        yield


def rows_of(index: Index) -> list[dict[str, Any]]:
    return sorted(index._table.to_arrow().to_pylist(), key=lambda row: (row["source"], row["number"]))


def test_the_rows_of_the_local_engine_and_only_what_is_new(tiny_model: Path, tmp_path: Path) -> None:
    films = [tmp_path / f"{number}.mp4" for number in range(4)]
    for number, film in enumerate(films):
        write_fading(film, 16 + 8 * number, turned=number % 2 == 1)
    missing, unnamed = tmp_path / "0 none.mp4", tmp_path / os.fsdecode(b"\xff.mp4")
    unnamed.write_bytes(films[0].read_bytes())
    predictor = load(tiny_model, device="cpu", dtype="float32")
    here, there = (Index.open(tmp_path / name, predictor, window_s=0.4, hop_s=0.2) for name in ("here", "there"))
    local = here.add([missing, *films, unnamed])
    job = WindowJob(model=str(tiny_model), settings=there.settings, device="cpu")
    look = EncodeOnRay(job, predictor, workers=1)
    added = there.add([missing, *films, unnamed], encode=look)
    assert added == local
    assert [failure.source for failure in added.failures] == [str(missing), str(unnamed)]
    for row, same in zip(rows_of(here), rows_of(there), strict=True):
        assert {**row, "embedding": 0, "score": 0} == {**same, "embedding": 0, "score": 0}
        np.testing.assert_allclose(same["embedding"], row["embedding"], rtol=0, atol=1e-5)
        assert same["score"] == pytest.approx(row["score"], abs=1e-5)
    write_fading(films[1], 30, turned=False)
    again = there.add([films[0], films[1]], encode=look)
    assert (again.num_kept, again.num_added) == (1, 1)
    assert len([row for row in rows_of(there) if row["source"] == str(films[1])]) == again.num_rows


def test_a_video_that_kills_is_a_failure(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = load(tiny_model, device="cpu", dtype="float32")
    index = Index.open(tmp_path / "index", predictor, window_s=0.4, hop_s=0.2)
    write_fading(tmp_path / "a.mp4", 16, turned=False)
    whole = WindowEncoder(predictor, index.settings, None)

    def rows(*_: object, **__: object) -> Iterator[Any]:
        for piece in pieces(everything, 1):
            name = piece.sources[0]
            killed = {"source": name, "error": f"{name}: killed the process that read it"}
            yield piece, [killed] if "deadly" in name else list(whole.rows(piece.sources))

    paths = [str(tmp_path / "deadly.mp4"), str(tmp_path / "a.mp4")]
    everything = pieces([Shard(0, 0, tuple(paths))], 2)
    monkeypatch.setattr("fewframes.search.ray.rows_on_ray", rows)
    job = WindowJob(model=str(tiny_model), settings=index.settings, device="cpu")
    added = index.add(paths, encode=EncodeOnRay(job, predictor))
    assert [failure.error for failure in added.failures] == [f"{paths[0]}: killed the process that read it"]
    assert list(index.videos()) == [paths[1]]
