"""A data set, before hours of training go into it -> what is wrong with it, and which videos are usable.

Each file is opened once and the frames decoded that a model would look at, with the last one. Then the videos are compared:
the same content twice, or on both sides of a split; groups on both sides; actions with too few videos.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewframes.core.cache import content_key
from fewframes.core.storage import is_address
from fewframes.data.dataset import VideoSet, part_counts
from fewframes.data.layouts import Sample
from fewframes.data.lists import unlistable
from fewframes.errors import MissingVideo, VideoError
from fewframes.video.sampling import centre_times
from fewframes.video.source import OpenVideo, open_video
from fewframes.video.times import checked_range

NUM_FRAMES = 16
"""How many frames the packaged model looks at."""
LAST_S = 1e-3
"""The last frame is the one shown this long before the end."""
PROBLEMS = {
    "missing": "no such file",
    "failed": "cannot be decoded",
    "name": "name that a list cannot hold",
    "short": "too short",
    "contradiction": "same video, other label",
    "leak": "same video in another part of the split",
    "duplicate": "same video again",
    "group leak": "group in another part of the split",
    "lost action": "action without a usable video",
    "untrained action": "action held out, but not in training",
    "left out": "lies among the videos and is not one",
    "single group": "action of one group only: cannot be held out",
}
"""What can be found, worst first, and what people read."""
RANKS = {"test": 2, "val": 1}
"""Of two parts that share a video the one with the higher rank keeps it; all else is training, 0."""


@dataclass(frozen=True, kw_only=True)
class SampleCheck:
    """What looking at a sample showed: its moments in seconds, how many distinct frames a model would see, the key of its
    file's content; or why it could not be looked at."""

    start_s: float = 0.0
    end_s: float = 0.0
    num_distinct: int = 0
    content: str = ""
    error: str = ""
    missing: bool = False


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something wrong with a video (`row` is its place in the data) or with an action (no row, no path)."""

    kind: str
    label: str
    reason: str
    path: str = ""
    start_s: float = 0.0
    end_s: float | None = None
    row: int | None = None
    kept: bool = False
    """Whether it is in the cleaned list all the same."""

    def to_dict(self) -> dict[str, object]:
        """Plain values."""
        return {name: value for name, value in vars(self).items() if name != "row"}


@dataclass(frozen=True)
class Inspection:
    """The data, what is wrong with them, and what is left to use."""

    data: VideoSet
    usable: VideoSet
    problems: tuple[Problem, ...]
    num_frames: int
    thorough: bool

    @property
    def counts(self) -> dict[str, int]:
        """How many problems of each kind there are, of the kinds there are."""
        found = Counter(problem.kind for problem in self.problems)
        return {kind: found[kind] for kind in PROBLEMS if found[kind]}

    def to_dict(self) -> dict[str, object]:
        """Plain values."""
        num_videos = len(self.data.samples)
        usable = part_counts(self.usable)
        missing, failed = (self.counts.get(kind, 0) for kind in ("missing", "failed"))
        return {
            "data": self.data.name,
            "layout": self.data.layout,
            "multilabel": self.data.multilabel,
            "num_videos": num_videos,
            "fingerprint": self.data.fingerprint(),
            "looked_at": "every frame" if self.thorough else f"{self.num_frames} uniform frames and the last",
            "readable": num_videos - missing - failed,
            "failed": failed,
            "missing": missing,
            "counts": self.counts,
            "usable": {"num_videos": len(self.usable.samples), "fingerprint": self.usable.fingerprint()},
            "actions": {
                label: {"listed": count, **usable.get(label, {"videos": 0, "groups": 0})}
                for label, count in self.data.counts().items()
            },
            "notes": list(self.data.notes),
            "left_out": [vars(left) for left in self.data.left_out],
            "problems": [problem.to_dict() for problem in self.problems],
        }


def inspect(
    data: VideoSet,
    *,
    num_frames: int = NUM_FRAMES,
    min_s: float = 0.0,
    thorough: bool = False,
    drop_short: bool = False,
    workers: int | None = None,
) -> Iterator[int | Inspection]:
    """Look at every video; yields how many are done as it goes, at last the result.

    A video is too short when a model that looks at `num_frames` would see a frame twice, or when it lasts less than `min_s`;
    it stays usable unless `drop_short`. `thorough` decodes every frame. `workers` files are decoded at a time (default: one a
    core).
    """
    rows_of = together(range(len(data.samples)), lambda row: data.samples[row].path)
    looks = [SampleCheck()] * len(data.samples)
    pool = ThreadPoolExecutor(workers or torch.get_num_threads(), thread_name_prefix="fewframes-inspect")
    done = 0
    try:
        files = [[data.samples[row] for row in rows] for rows in rows_of]
        found = pool.map(lambda samples: look_at(samples, num_frames, thorough=thorough), files)
        for rows, looked in zip(rows_of, found, strict=True):
            for row, look in zip(rows, looked, strict=True):
                looks[row] = look
            done += len(rows)
            yield done
    finally:
        pool.shutdown(cancel_futures=True)
    yield judge(data, looks, num_frames=num_frames, min_s=min_s, thorough=thorough, drop_short=drop_short)


def look_at(samples: Sequence[Sample], num_frames: int, *, thorough: bool) -> list[SampleCheck]:
    """One look for each sample of a file."""
    path = samples[0].path
    try:
        with closing(open_video(path, threads=1)) as video:
            looks = [_look(video, sample, num_frames, thorough=thorough) for sample in samples]
        content = path if is_address(path) else content_key(path)
    except VideoError as error:
        return [_failed(path, error)] * len(samples)
    except OSError as error:
        return [SampleCheck(error=f"cannot be read ({error.strerror or error})")] * len(samples)
    return [replace(look, content=content) for look in looks]


def _look(video: OpenVideo, sample: Sample, num_frames: int, *, thorough: bool) -> SampleCheck:
    try:
        start_s, end_s = checked_range(video.duration_s, sample.start_s, sample.end_s)
        centres_T = centre_times(video.duration_s, num_frames, start_s=start_s, end_s=end_s)
        last_1 = centres_T[-1:].clamp(min=end_s - LAST_S)
        clip = video.frames_at(torch.cat([centres_T, last_1]), _one_pixel)
        if thorough:
            video.check(start_s, end_s)
    except ValueError as error:
        return SampleCheck(error=str(error))
    except VideoError as error:
        return _failed(sample.path, error)
    return SampleCheck(start_s=start_s, end_s=end_s, num_distinct=len(clip.times_s[:num_frames].unique()))


def _failed(path: str, error: VideoError) -> SampleCheck:
    return SampleCheck(error=str(error).removeprefix(f"{path}: "), missing=isinstance(error, MissingVideo))


def _one_pixel(frame_CHW: Tensor) -> Tensor:
    """Whole frames are decoded but not piled up."""
    return frame_CHW[:, :1, :1].clone()


def judge(
    data: VideoSet,
    looks: Sequence[SampleCheck],
    *,
    num_frames: int = NUM_FRAMES,
    min_s: float = 0.0,
    thorough: bool = False,
    drop_short: bool = False,
) -> Inspection:
    """What is wrong with the data after one look at each sample; pure."""
    problems = list(_unreadable(data, looks))
    problems += _too_short(data, looks, _left(data, problems), num_frames, min_s, kept=not drop_short)
    problems += _repeated(data, looks, _left(data, problems))
    problems += _torn_groups(data, _left(data, problems))
    usable = data.subset(_left(data, problems))
    problems += _actions(data, usable)
    problems += [
        Problem(kind="left out", label="", path=left.path, reason=left.reason)
        for left in data.left_out
        if not left.is_harmless
    ]
    order = list(PROBLEMS)
    problems.sort(key=lambda problem: order.index(problem.kind))
    return Inspection(data, usable, tuple(problems), num_frames, thorough)


def _left(data: VideoSet, problems: Iterable[Problem]) -> list[int]:
    """The rows that no problem has thrown out."""
    dropped = {problem.row for problem in problems if not problem.kept}
    return [row for row in range(len(data.samples)) if row not in dropped]


def _problem(data: VideoSet, row: int, kind: str, reason: str, *, kept: bool = False) -> Problem:
    sample = data.samples[row]
    return Problem(
        kind=kind,
        label=", ".join(sample.labels),
        reason=reason,
        path=sample.path,
        start_s=sample.start_s,
        end_s=sample.end_s,
        row=row,
        kept=kept,
    )


def _unreadable(data: VideoSet, looks: Sequence[SampleCheck]) -> Iterator[Problem]:
    for row, (sample, look) in enumerate(zip(data.samples, looks, strict=True)):
        if look.error:
            yield _problem(data, row, "missing" if look.missing else "failed", look.error)
        elif reason := unlistable(sample, multilabel=data.multilabel):
            yield _problem(data, row, "name", reason)


def _too_short(
    data: VideoSet, looks: Sequence[SampleCheck], rows: Iterable[int], num_frames: int, min_s: float, *, kept: bool
) -> Iterator[Problem]:
    for row in rows:
        look = looks[row]
        if look.num_distinct < num_frames:
            reason = f"{look.num_distinct} distinct frames where a model looks at {num_frames}"
        elif look.end_s - look.start_s < min_s:
            reason = f"{look.end_s - look.start_s:.2f} s, less than {min_s:g} s"
        else:
            continue
        yield _problem(data, row, "short", reason, kept=kept)


def _repeated(data: VideoSet, looks: Sequence[SampleCheck], rows: Iterable[int]) -> Iterator[Problem]:
    """Content that stands there more than once. The part of the highest rank keeps it, there the first; where the labels
    disagree within that part nobody can tell which is right, and all go."""

    def moments(row: int) -> Hashable:
        return round(looks[row].start_s, 3), round(looks[row].end_s, 3)

    for same_file in together(rows, lambda row: looks[row].content):
        best, lower = _by_rank(data, same_file)
        for row in lower:
            twins = [other for other in best if moments(other) == moments(row)]
            other = data.samples[(twins or best)[0]]
            differ = twins and other.labels != data.samples[row].labels
            what = "the same as" if twins else "other moments of"
            yield _problem(data, row, "contradiction" if differ else "leak", f"{what} {_told(other)}")
        for same in together(best, moments):
            differ = len({data.samples[row].labels for row in same}) > 1
            for row in same if differ else same[1:]:
                other = data.samples[same[1] if row == same[0] else same[0]]
                kind = "contradiction" if differ else "duplicate"
                yield _problem(data, row, kind, f"the same as {_told(other)}")


def _torn_groups(data: VideoSet, rows: Iterable[int]) -> Iterator[Problem]:
    """Videos whose group stands in a part of higher rank too."""
    for same_group in together((row for row in rows if data.samples[row].group), lambda row: data.samples[row].group):
        best, lower = _by_rank(data, same_group)
        for row in lower:
            other = data.samples[best[0]]
            reason = f"{data.samples[row].split or 'train'}, while its group {other.group!r} is in {other.split} too"
            yield _problem(data, row, "group leak", reason)


def _actions(data: VideoSet, usable: VideoSet) -> Iterator[Problem]:
    """Actions that cannot be learned, or not be judged."""
    counts = part_counts(usable)
    for label in data.labels:
        parts = counts.get(label)
        if parts is None:
            yield Problem(kind="lost action", label=label, reason="none of its videos is usable")
        elif parts.get("train") == 0:
            reason = f"{parts['videos']} videos held out, none to learn from"
            yield Problem(kind="untrained action", label=label, reason=reason, kept=True)
        elif parts["groups"] < 2:
            reason = f"{parts['videos']} videos of 1 group"
            yield Problem(kind="single group", label=label, reason=reason, kept=True)


def _told(sample: Sample) -> str:
    part = f" ({sample.split})" if sample.split else ""
    return f"{sample.path}{part}, {', '.join(sample.labels)}"


def _by_rank(data: VideoSet, rows: Sequence[int]) -> tuple[list[int], list[int]]:
    """The rows of the highest rank, and the others."""
    ranks = [RANKS.get(data.samples[row].split, 0) for row in rows]
    best = [row for row, rank in zip(rows, ranks, strict=True) if rank == max(ranks)]
    return best, [row for row in rows if row not in best]


def together(rows: Iterable[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    """The rows that have the same key, in the order of the first of them."""
    found: dict[Hashable, list[int]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return list(found.values())
