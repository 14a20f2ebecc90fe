"""Ray: workers are killed and every input still has exactly one row; a video that kills is named; the rows are the local ones."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from numpy.testing import assert_allclose
from pyarrow import parquet

from fewframes.batch import ray as ray_shards
from fewframes.batch.output import begin, count, cut, remaining, run_here
from fewframes.batch.ray import Worker, check_ray, run_on_ray
from fewframes.batch.rows import VideoJob
from fewframes.errors import ConfigError, MissingDependency

ray: Any = pytest.importorskip("ray", reason="Ray is not installed: pip install 'fewframes[ray]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own, of every kind


@dataclass(frozen=True)
class Marked:
    """A job, and a work, whose workers leave their number in a file for each video; one named so kills its process."""

    marks: str
    pause_s: float = 0.0

    def start(self) -> Marked:
        return self

    @property
    def about(self) -> dict[str, str]:
        return {"weights": "w"}

    @property
    def columns(self) -> dict[str, Any]:
        import pyarrow

        return {"source": pyarrow.string(), "error": pyarrow.string()}

    def rows(self, sources: Sequence[str]) -> Iterator[dict[str, object]]:
        for source in sources:
            (Path(self.marks) / f"{source}-{os.getpid()}").touch()
            time.sleep(self.pause_s)
            if source == "kills":
                os._exit(1)
            if source == "full":
                raise ConfigError("the disk is full")
            yield {"source": source}

    def decoder(self) -> Any:
        return lambda sources: list(self.rows(sources))

    def rows_of(self, videos: Sequence[Any]) -> Sequence[Any]:
        return videos


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One Ray for the whole file: it takes long to start."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with ray_shards.cluster(2):
        yield


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]


def test_killed_workers_lose_and_double_nothing(tmp_path: Path) -> None:
    job, sources = Marked(str(tmp_path), pause_s=0.3), [f"video-{number}" for number in range(12)]
    shards, out = cut(sources, 2), tmp_path / "out"
    folder = begin(str(out), job.about, shards)
    killed: list[int] = []

    def kill_one() -> None:
        while not (marks := list(tmp_path.glob("video-*"))):
            time.sleep(0.02)
        killed.append(int(marks[0].name.rsplit("-", maxsplit=1)[-1]))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    assert sum(run_on_ray(folder, job, job, shards, workers=1)) == 12
    killer.join()
    twice = [len(list(tmp_path.glob(f"{source}-*"))) for source in sources]
    assert max(twice) > 1, "nothing was done again, so nothing was killed in time"
    assert [(row["row"], row["source"], row["error"]) for row in rows_in(out)] == [
        (number, source, None) for number, source in enumerate(sources)
    ]


def test_a_video_that_kills_is_a_row_and_an_error_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_shards, "TRIES", 1)  # each try starts a process, which takes seconds
    monkeypatch.setattr(ray_shards, "TRIES_ALONE", 1)
    job, sources = Marked(str(tmp_path)), ["a", "b", "kills", "c"]
    shards = cut(sources, 2)
    folder = begin(str(tmp_path / "out"), job.about, shards)
    assert sum(run_on_ray(folder, job, job, shards, workers=1, decode_apart=True)) == 4
    assert count(folder, shards).num_failed == 1
    reason = "kills: killed the process that read it"
    assert [row["error"] for row in rows_in(tmp_path / "out")] == [None, None, reason, None]
    full = cut(["a", "full"], 1)
    folder = begin(str(tmp_path / "full"), job.about, full)
    with pytest.raises(ConfigError, match="the disk is full"):
        list(run_on_ray(folder, job, job, full, workers=1))
    assert len(remaining(folder, full)) >= 1


@pytest.mark.parametrize("decode_apart", [False, True])
def test_the_same_rows_as_the_local_engine(tiny_model: Path, videos: Path, tmp_path: Path, decode_apart: bool) -> None:
    job = VideoJob(columns="embeddings", model=str(tiny_model), device="cpu", per_frame=True)
    work = job.start()
    shards = cut([str(videos / name) for name in ("a.mp4", "none.mp4", "sub/c.mp4")], 2)
    here = begin(str(tmp_path / "here"), work.about, shards)
    assert sum(run_here(here, work, shards)) == 3
    there = begin(str(tmp_path / "there"), work.about, shards)
    assert sum(run_on_ray(there, job, work, shards, workers=1, decode_apart=decode_apart)) == 3
    assert not remaining(there, shards)
    local, other = rows_in(tmp_path / "here"), rows_in(tmp_path / "there")
    assert [row["error"] is None for row in local] == [True, False, True]
    for row, same in zip(local, other, strict=True):
        for name in ("row", "source", "label", "times_s", "error"):
            assert row[name] == same[name]
        for name in ("score", "embedding", "frame_embeddings"):
            if row[name] is not None:
                assert_allclose(same[name], row[name], rtol=0, atol=1e-5)


def test_a_worker_with_another_model_says_so(tmp_path: Path) -> None:
    worker = Worker(Marked(str(tmp_path)), {"weights": "of another day"})
    found = worker({"number": 0, "given": pickle.dumps(("a",)), "decoded": False})
    with pytest.raises(ConfigError, match="differs in weights; give all machines the same model and release"):
        raise pickle.loads(found["error"])
    assert not list(tmp_path.iterdir())


def test_no_cluster_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ConfigError, match="RAY_ADDRESS=127.0.0.1:1: no cluster answers"), ray_shards.cluster(1):
        pass


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingDependency, match=r"pip install 'fewframes\[ray\]'"):
        check_ray()
