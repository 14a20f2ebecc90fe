"""Compute rows with Ray: on all cores of this machine, or on the machines of a cluster. The process that asked writes the files.

Inputs travel in pieces of a few names each. On machines without GPUs one worker decodes a piece and runs the network over it, so
that no frame travels between processes. Where there are GPUs, CPU workers decode and hand the frames to one worker on each GPU.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from fewframes.batch.output import Job, Rows, RowTable, RowValues, Shard, ShardFolder, ShardWriter, pieces, put_shard
from fewframes.core.text import printable
from fewframes.errors import ConfigError, FewframesError, needed

PIECE_VIDEOS = 16
"""The most videos that go to a worker at once: they are computed again if it dies, and a GPU computes them together."""
PIECES_A_WORKER = 4
"""The least number of pieces for each worker where videos are few, so that all workers end at about the same time."""
TRIES = 3
"""Workers that may die of a piece before its videos are tried one by one."""
ANSWER_S = 10.0
"""Seconds that a cluster has for answering."""
TRIES_ALONE = 2
"""Times that a video may kill a process in which it is alone, before it counts as the cause."""


class Decode(Protocol):
    """The first half of the work, which travels to CPU workers."""

    def __call__(self, sources: Sequence[str]) -> list[Any]:
        """Return for each source what the network needs, or why it cannot be read. All of it can be pickled."""


@runtime_checkable
class SplitWork(Rows, Protocol):
    """Work that can be decoded in another process than the network's."""

    def decoder(self) -> Decode | None:
        """Return the decoding half; None where the settings do not allow it."""

    def rows_of(self, videos: Sequence[Any]) -> Iterable[RowValues]:
        """Run the second half: return a row for each decoded source."""


def check_ray() -> None:
    """Raise MissingDependency where Ray Data is not installed. It is called before any work is done."""
    needed("ray.data", "ray", "--engine ray needs Ray Data")


def run_on_ray(
    folder: ShardFolder,
    job: Job,
    here: RowTable,
    shards: Sequence[Shard],
    *,
    workers: int | None = None,
    decode_apart: bool | None = None,
) -> Iterator[int]:
    """Compute shards on Ray and write them in this process. Yields the number of new rows each time.

    Args:
        folder: Where shards are written.
        job: The job's settings.
        here: The job's work in this process.
        shards: Shards to compute.
        workers, decode_apart: Processes and their parts of the work, as for `rows_on_ray`.
    """
    gather = ShardWriter(shards)
    for piece, rows in rows_on_ray(job, here, shards, workers=workers, decode_apart=decode_apart):
        whole = gather.add(piece, rows)
        if whole is not None:
            put_shard(folder, whole[0], here, whole[1])
        yield len(rows)


def rows_on_ray(
    job: Job,
    here: Rows,
    shards: Sequence[Shard],
    *,
    workers: int | None = None,
    decode_apart: bool | None = None,
    most: int = PIECE_VIDEOS,
) -> Iterator[tuple[Shard, list[RowValues]]]:
    """Yield (piece, rows) for every piece of at most `most` videos, in any order.

    Each piece is yielded exactly once, even if workers die. Work runs on the cluster that RAY_ADDRESS names, or on this machine. An
    error that a worker raises ends the run.

    Args:
        job: The job's settings, which are sent to the workers.
        here: The job's work in this process; workers must agree with it.
        shards: Shards to compute.
        workers: Worker processes (default: one per core). Each does all of a piece unless decoding is apart.
        decode_apart: Let these workers only decode, and one worker for each GPU do the rest (default: where there are GPUs and the
            work can be split).
        most: The largest piece.
    """
    if not shards:
        return
    with cluster(workers):
        workers = workers or max(1, _num_resources("CPU"))
        num_inputs = sum(len(shard.sources) for shard in shards)
        most = min(most, max(1, num_inputs // (PIECES_A_WORKER * workers)))
        todo = dict(enumerate(pieces(shards, most)))
        decode = None
        if decode_apart or (decode_apart is None and _num_resources("GPU")):
            decode = here.decoder() if isinstance(here, SplitWork) else None
        for number, rows in _compute_pieces(job, here.about, todo, workers, decode):
            piece = todo.pop(number, None)
            if piece is not None:  # a piece that was computed twice counts once
                yield piece, rows
        for piece in todo.values():  # pieces whose workers died again and again
            yield piece, _one_by_one(job, here.about, piece)


class RetryWorker:
    """A process that counts how often pieces were begun, because Ray gives a piece to worker after worker for ever."""

    def __init__(self, most: int) -> None:
        self._most, self._begun = most, Counter[tuple[str, int]]()

    def begin(self, stage: str, number: int) -> bool:
        """Count one more try of a piece, and return whether it may run."""
        self._begun[stage, number] += 1
        return self._begun[stage, number] <= self._most


class Worker:
    """A process that computes: it loads the model once, then does piece after piece."""

    def __init__(self, job: Job, about: Mapping[str, str], tries: Any = None) -> None:
        """Load the job's work, and compare it with `about`, the description of the work in the process that asked."""
        self._error, self._tries = b"", tries
        try:
            self._work = job.start()
            own = self._work.about
            if differing := ", ".join(sorted(name for name in about if about[name] != own.get(name))):
                raise ConfigError(
                    f"a worker on {os.uname().nodename} differs in {differing}; give all machines the same model and release"
                )
        except FewframesError as error:
            # It travels as a value, so that it is raised as this run's error and not wrapped in one of Ray's.
            self._error = pickle.dumps(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the rows of a piece, or the error that ends the run; neither where the piece has been tried too often."""
        if self._error or not row["given"] or not _may_try(self._tries, "rows", row["number"]):
            return {"number": row["number"], "rows": b"", "error": self._error}
        try:
            given = pickle.loads(row["given"])
            rows = list(self._work.rows_of(given) if row["decoded"] else self._work.rows(given))  # type: ignore[attr-defined]
        except FewframesError as error:
            return {"number": row["number"], "rows": b"", "error": pickle.dumps(error)}
        return {"number": row["number"], "rows": pickle.dumps(rows), "error": b""}


class DecodeWorker:
    """A process that decodes."""

    def __init__(self, decode: Decode, tries: Any) -> None:
        self._decode, self._tries = decode, tries

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a piece with its decoded videos in place of their names; with nothing where it has been tried too often."""
        if not _may_try(self._tries, "decode", row["number"]):
            return {"number": row["number"], "given": b"", "decoded": True}
        read = self._decode(pickle.loads(row["given"]))
        return {"number": row["number"], "given": pickle.dumps(read, protocol=5), "decoded": True}


def _may_try(tries: Any, stage: str, number: int) -> bool:
    import ray

    return tries is None or bool(ray.get(tries.begin.remote(stage, number)))


def _compute_pieces(
    job: Job, about: Mapping[str, str], todo: Mapping[int, Shard], workers: int, decode: Decode | None
) -> Iterator[tuple[int, list[RowValues]]]:
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    counting: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(RetryWorker)
    tries = counting.remote(TRIES)
    gpus = _num_resources("GPU")
    items = [
        {"number": number, "given": pickle.dumps(piece.sources), "decoded": False} for number, piece in todo.items()
    ]
    dataset = ray.data.from_items(items, override_num_blocks=len(items))
    if decode is not None:
        dataset = dataset.map(
            DecodeWorker,
            fn_constructor_args=(decode, tries),
            compute=ActorPoolStrategy(size=min(len(items), workers), max_tasks_in_flight_per_actor=1),
            num_cpus=1,
        )
    actors = gpus or (1 if decode else workers)
    # Beside decoders the network's worker asks for no core, because on a machine of one core both must fit.
    cores = 0 if decode else max(1, workers // gpus) if gpus else 1
    done = dataset.map(
        Worker,
        fn_constructor_args=(job, about, tries),
        compute=ActorPoolStrategy(size=min(len(items), actors), max_tasks_in_flight_per_actor=2 if decode else 1),
        num_cpus=cores,
        num_gpus=min(1, gpus),
    )
    for row in done.iter_rows():
        if row["error"]:
            raise pickle.loads(row["error"])
        if row["rows"]:
            yield int(row["number"]), pickle.loads(row["rows"])


def _one_by_one(job: Job, about: Mapping[str, str], piece: Shard) -> list[RowValues]:
    """Compute a piece whose every worker died, one video at a time. A video that kills its worker gets a row that says so."""
    import ray

    def new_actor() -> Any:
        remote: Any = ray.remote(num_cpus=1, num_gpus=min(1, _num_resources("GPU")), max_restarts=0)(Worker)
        actor = remote.remote(job, about)
        ray.get(actor.__ray_ready__.remote())  # a worker that cannot even load is no video's fault, and raises here
        return actor

    actor = new_actor()
    rows: list[RowValues] = []
    for source in piece.sources:
        for left in reversed(range(TRIES_ALONE)):
            try:
                given = {"number": 0, "given": pickle.dumps((source,)), "decoded": False}
                found = ray.get(actor.__call__.remote(given))
                if found["error"]:
                    raise pickle.loads(found["error"])
                rows += pickle.loads(found["rows"])
                break
            except ray.exceptions.RayActorError:
                actor = new_actor()
                if not left:
                    name = printable(source)
                    rows.append({"source": name, "error": f"{name}: killed the process that read it"})
    ray.kill(actor)
    return rows


def _num_resources(what: str) -> int:
    import ray

    return int(ray.cluster_resources().get(what, 0))


@contextmanager
def cluster(workers: int | None) -> Iterator[None]:
    """Connect to the caller's Ray, to the cluster that RAY_ADDRESS names, or to one started on this machine.

    Raises ConfigError where no cluster answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    check_ray()
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "")
    if address:
        _check_answers(address)
    # Ray reads RAY_ADDRESS itself; only a cluster of its own takes these settings.
    own: dict[str, Any] = {} if address else {"num_cpus": workers, "include_dashboard": False}
    try:
        with _quiet():
            ray.init(**own, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"Ray: {' '.join(str(error).split())[:200]}; repair that, or use --engine local") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise ConfigError where nobody listens; Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
        except OSError as error:
            raise ConfigError(
                f"RAY_ADDRESS={address}: no cluster answers ({error.strerror or error}); correct it, or unset it to work here"
            ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Ray's C++ part prints about its own settings. Errors are raised all the same."""
    sys.stderr.flush()
    stderr, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nothing)
