"""Rows computed by Ray: on all cores of this machine, or on the machines of a cluster. The process that asked writes the files.

Inputs travel in pieces, a few names each. On machines without GPUs one worker decodes a piece and runs the network over it, so that
no picture travels between processes. Where there are GPUs, CPU workers decode and hand pictures to one worker on each GPU.
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
"""At most so many videos go to a worker at once: what is done again when it dies, and what a GPU computes together."""
PIECES_A_WORKER = 4
"""Of few videos each worker gets at least so many pieces, so that all end at about the same time."""
TRIES = 3
"""How many workers may die of a piece before its videos are taken one by one."""
ANSWER_S = 10.0
"""What a cluster has for answering."""
TRIES_ALONE = 2
"""How often a video may kill a process in which it is alone, before it is the one to blame."""


class Decode(Protocol):
    """The first half of the work, which travels to CPU workers."""

    def __call__(self, sources: Sequence[str]) -> list[Any]:
        """Of each source what the network needs, or why it cannot be read; all of it can be pickled."""


@runtime_checkable
class SplitWork(Rows, Protocol):
    """Work whose decoding can be done elsewhere."""

    def decoder(self) -> Decode | None:
        """That part; None where these settings do not allow it."""

    def rows_of(self, read: Sequence[Any]) -> Iterable[RowValues]:
        """The second half: a row for each thing that was read."""


def check_ray() -> None:
    """MissingDependency where Ray Data is not there: before the work, not after."""
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
    """Compute shards on Ray and write them here; yields how many rows are new each time. Arguments as for `rows_on_ray`."""
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
    """Pieces of these shards, of at most so many videos, with their rows, in any order, each exactly once whatever dies.

    On the cluster that RAY_ADDRESS names, or on this machine, `workers` processes (default: one a core) do all of a piece;
    with `decode_apart` (default: where there are GPUs and the work can be parted) they decode, and one for each GPU does the
    rest. `here` is the job's own work, in this process. What a worker raises ends the run.
    """
    if not shards:
        return
    with cluster(workers):
        workers = workers or max(1, _have("CPU"))
        num_inputs = sum(len(shard.sources) for shard in shards)
        most = min(most, max(1, num_inputs // (PIECES_A_WORKER * workers)))
        todo = dict(enumerate(pieces(shards, most)))
        decode = None
        if decode_apart or (decode_apart is None and _have("GPU")):
            decode = here.decoder() if isinstance(here, SplitWork) else None
        for number, rows in _together(job, here.about, todo, workers, decode):
            piece = todo.pop(number, None)
            if piece is not None:  # what was done twice counts once
                yield piece, rows
        for piece in todo.values():  # those whose workers died again and again
            yield piece, _one_by_one(job, here.about, piece)


class RetryWorker:
    """What runs in a process of its own and counts, for Ray gives a piece to worker after worker for ever."""

    def __init__(self, most: int) -> None:
        self._most, self._begun = most, Counter[tuple[str, int]]()

    def begin(self, stage: str, number: int) -> bool:
        """Whether this piece may be tried once more."""
        self._begun[stage, number] += 1
        return self._begun[stage, number] <= self._most


class Worker:
    """What runs in a process that computes: loads once, then does piece after piece."""

    def __init__(self, job: Job, about: Mapping[str, str], tries: Any = None) -> None:
        """`about` is what the process that asked says of the work."""
        self._error, self._tries = b"", tries
        try:
            self._work = job.start()
            own = self._work.about
            if differing := ", ".join(sorted(name for name in about if about[name] != own.get(name))):
                raise ConfigError(
                    f"a worker on {os.uname().nodename} has other {differing}; give all machines the same model and release"
                )
        except FewframesError as error:  # told as this run's own, not as Ray's
            self._error = pickle.dumps(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The rows of a piece, or what ends the run; neither where it has been tried too often."""
        if self._error or not row["given"] or not _may_try(self._tries, "rows", row["number"]):
            return {"number": row["number"], "rows": b"", "error": self._error}
        try:
            given = pickle.loads(row["given"])
            rows = list(self._work.rows_of(given) if row["decoded"] else self._work.rows(given))  # type: ignore[attr-defined]
        except FewframesError as error:
            return {"number": row["number"], "rows": b"", "error": pickle.dumps(error)}
        return {"number": row["number"], "rows": pickle.dumps(rows), "error": b""}


class DecodeWorker:
    """What runs in a process that decodes."""

    def __init__(self, decode: Decode, tries: Any) -> None:
        self._decode, self._tries = decode, tries

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """What was read of a piece, in the place of its names; nothing where it has been tried too often."""
        if not _may_try(self._tries, "decode", row["number"]):
            return {"number": row["number"], "given": b"", "decoded": True}
        read = self._decode(pickle.loads(row["given"]))
        return {"number": row["number"], "given": pickle.dumps(read, protocol=5), "decoded": True}


def _may_try(tries: Any, stage: str, number: int) -> bool:
    import ray

    return tries is None or bool(ray.get(tries.begin.remote(stage, number)))


def _together(
    job: Job, about: Mapping[str, str], todo: Mapping[int, Shard], workers: int, decode: Decode | None
) -> Iterator[tuple[int, list[RowValues]]]:
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    counting: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(RetryWorker)
    tries = counting.remote(TRIES)
    gpus = _have("GPU")
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
    # Beside decoders the network's worker asks for no core: on one core both must find a place.
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
    """A piece whose every worker died: each video alone, and the one that kills is a row that says so."""
    import ray

    def another() -> Any:
        remote: Any = ray.remote(num_cpus=1, num_gpus=min(1, _have("GPU")), max_restarts=0)(Worker)
        actor = remote.remote(job, about)
        ray.get(actor.__ray_ready__.remote())  # one that cannot even load is no video's fault, and raises here
        return actor

    actor = another()
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
                actor = another()
                if not left:
                    name = printable(source)
                    rows.append({"source": name, "error": f"{name}: killed the process that read it"})
    ray.kill(actor)
    return rows


def _have(what: str) -> int:
    import ray

    return int(ray.cluster_resources().get(what, 0))


@contextmanager
def cluster(workers: int | None) -> Iterator[None]:
    """Connected to the caller's Ray, to the cluster that RAY_ADDRESS names, or to one of this machine's own. ConfigError where no
    cluster answers there."""
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
    own: dict[str, Any] = {} if address else {"num_cpus": workers, "include_dashboard": False}
    try:
        with _quiet():
            ray.init(**own, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"Ray: {' '.join(str(error).split())[:200]}; mend that, or take --engine local") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """ConfigError where nobody listens: Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
        except OSError as error:
            raise ConfigError(
                f"RAY_ADDRESS={address}: no cluster answers ({error.strerror or error}); mend it, or unset it for this machine"
            ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Ray's part in C++ says of its own settings; what goes wrong is raised."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
