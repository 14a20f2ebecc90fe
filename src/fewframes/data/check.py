"""Check a data set before hours of training go into it: find what is wrong with it, and the videos that are usable.

Each file is opened once. The frames that a model would see are decoded, and the last one. Then the videos are compared: the same
content twice or on both sides of a split, groups on both sides, actions with too few videos. Nothing is changed or written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np

from fewframes.core.cache import content_key
from fewframes.core.process import num_cores, worked_ahead
from fewframes.core.storage import is_address
from fewframes.core.text import count_of
from fewframes.data.config import DataConfig
from fewframes.data.copies.footprint import Footprint, footprint_of
from fewframes.data.copies.found import Copy, lines_on
from fewframes.data.copies.matching import copies_among
from fewframes.data.dataset import VideoSet, grouped, part_counts
from fewframes.data.layouts import Sample
from fewframes.data.lists import unlistable
from fewframes.data.scenes.groups import (
    Scenes,
    examples_of,
    find_scenes,
    grouped_by,
    middle_of,
    too_many,
    words_on_groups,
    words_on_parts,
)
from fewframes.errors import FewframesError, MissingVideo, VideoError
from fewframes.sampling import centre_times
from fewframes.video.pictures.display import Pixels
from fewframes.video.source import OpenVideo, open_video, recorded_frames
from fewframes.video.times import checked_range

HELD_OUT = DataConfig().holdout
"""The fraction of the videos that `train` holds out; scenes are proposed as groups if that can be done with them."""
SHOWN_SCENES = 5
"""The number of scenes that are named."""
NUM_FRAMES = 16
"""The number of frames that the packaged model takes from a video."""
LAST_S = 1e-3
"""The time before the end of a video at which its last frame is asked for, in seconds."""
PROBLEMS = {
    "missing": "no such file",
    "failed": "cannot be decoded",
    "name": "name that a list cannot store",
    "short": "too short",
    "contradiction": "same video with another label",
    "leak": "same video in another part of the split",
    "copied leak": "copy of footage in another part of the split",
    "duplicate": "same video again",
    "copy": "copy of footage in the same part",
    "group leak": "group in another part of the split",
    "lost action": "action without a usable video",
    "untrained action": "action held out, but not in training",
    "left out": "file among the videos that is not one",
    "single group": "action with a single group: cannot be held out",
}
"""The kinds of problems, worst first, with their descriptions for people."""
RANKS = {"test": 2, "val": 1}
"""The ranks of the parts of a split; training has rank 0. If two parts have the same video, the one of higher rank keeps it."""


@dataclass(frozen=True, kw_only=True)
class SampleCheck:
    """The result of decoding a sample: its range in seconds and what was found, or the error."""

    start_s: float = 0.0
    end_s: float = 0.0
    num_distinct: int = 0
    """Number of distinct frames that a model would see."""
    content: str = ""
    """Key of the file's bytes; the address itself for a URL."""
    error: str = ""
    """The reason why the sample cannot be decoded; empty if it can."""
    missing: bool = False
    """True if the error is that there is no such file."""
    footprint: Footprint | None = field(default=None, compare=False, repr=False)
    """A footprint by which copies are found; None if they are not looked for."""
    thumbnail: Pixels | None = field(default=None, compare=False, repr=False)
    """A thumbnail of the middle frame, by which scenes are found; None if they are not looked for."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem with a video (`row` is its index in the data) or with an action (no row and no path)."""

    kind: str
    label: str
    reason: str
    path: str = ""
    start_s: float = 0.0
    end_s: float | None = None
    row: int | None = None
    kept: bool = False
    """True if the video stays in the cleaned list all the same."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {name: value for name, value in vars(self).items() if name != "row"}


@dataclass(frozen=True)
class Inspection:
    """The result of checking a data set: the data, the problems found, and the videos that are usable."""

    data: VideoSet
    usable: VideoSet
    problems: tuple[Problem, ...]
    num_frames: int
    thorough: bool
    scenes: Scenes | None = None
    """The scenes of the usable videos; None if they were not looked for."""
    scene_notes: tuple[str, ...] = ()
    """Notes on what the scenes mean for a split."""
    copies: tuple[Copy, ...] | None = None
    """The pairs of videos, by their rows in `data`, that show the same footage; None if they were not compared."""
    copies_sought: bool = False
    """True if they were to be compared."""

    def copy_lines(self) -> list[str]:
        """Return lines for people on copies: how many pairs were found, or that there was too much to compare."""
        return lines_on(self.copies, sought=self.copies_sought)

    def scene_lines(self) -> list[str]:
        """Return lines for people on the scenes: how many there are, the largest, and what they mean for a split."""
        if self.scenes is None:
            return list(self.scene_notes)
        found = f"{count_of(len(self.scenes.sizes), 'scene')} in {count_of(len(self.usable.samples), 'usable video')}"
        unseen = f" ({self.scenes.num_unseen} not looked at)" if self.scenes.num_unseen else ""
        examples = [f"  {line}" for line in examples_of(self.usable, self.scenes, SHOWN_SCENES)]
        return [found + unseen, *examples, *(f"  {note}" for note in self.scene_notes)]

    @property
    def is_sound(self) -> bool:
        """Return True if nothing needs to be mended. Copies of footage in one part of a split are told, and harm no measurement."""
        return all(problem.kind == "copy" for problem in self.problems)

    @property
    def counts(self) -> dict[str, int]:
        """The number of problems of each kind that was found, worst first."""
        found = Counter(problem.kind for problem in self.problems)
        return {kind: found[kind] for kind in PROBLEMS if found[kind]}

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
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
            "scenes": None if self.scenes is None else self.scenes.to_dict(self.usable.samples, self.scene_notes),
            "copies": None if self.copies is None else [copy.to_dict(self.data.samples) for copy in self.copies],
            "notes": [*self.data.notes, *(self.scene_notes if self.scenes is None else ())],
            "left_out": [vars(file) for file in self.data.left_out],
            "problems": [problem.to_dict() for problem in self.problems],
        }


def inspect(
    data: VideoSet,
    *,
    num_frames: int = NUM_FRAMES,
    min_s: float = 0.0,
    thorough: bool = False,
    drop_short: bool = False,
    scenes: bool = False,
    copies: bool = False,
    workers: int | None = None,
) -> Iterator[int | Inspection]:
    """Check every video of a data set. Yields the number of videos done after each file, and the result at the end.

    Args:
        data: The labelled videos.
        num_frames: Frames that a model takes. A video is too short if one of them would be seen twice.
        min_s: A video is also too short if it lasts less than this many seconds.
        thorough: Decode every frame of each video.
        drop_short: Count videos that are too short as unusable.
        scenes: Find the videos of one scene too. They are proposed as groups if the data name none. In too many videos nothing is
            looked for, and a note says so.
        copies: Find videos that show the same footage too: encoded anew, cut, or mirrored. It decodes ten frames a second of each.
        workers: Number of files decoded at a time; by default one per core.
    """
    rows_by_file = grouped(range(len(data.samples)), lambda row: data.samples[row].path)
    checks = [SampleCheck()] * len(data.samples)
    done = 0
    note = too_many(len(data.samples)) if scenes else ""
    sought = scenes and not note

    def check_rows(rows: list[int]) -> list[SampleCheck]:
        samples = [data.samples[row] for row in rows]
        return check_file(samples, num_frames, thorough=thorough, scenes=sought, copies=copies)

    with closing(worked_ahead(rows_by_file, check_rows, workers or num_cores())) as found:
        for rows, checks_of_file in found:
            if isinstance(checks_of_file, FewframesError):
                raise checks_of_file
            for row, check in zip(rows, checks_of_file, strict=True):
                checks[row] = check
            done += len(rows)
            yield done
    found_all = inspection_of(
        data, checks, num_frames=num_frames, min_s=min_s, thorough=thorough, drop_short=drop_short, copies=copies
    )
    yield with_found_scenes(found_all, checks) if sought else replace(found_all, scene_notes=(note,) if note else ())


def check_file(
    samples: Sequence[Sample], num_frames: int, *, thorough: bool, scenes: bool = False, copies: bool = False
) -> list[SampleCheck]:
    """Decode the samples of one file, and return a check of each. A file that cannot be read gives the error of each.

    Args:
        samples: Samples of one file.
        num_frames: Frames that a model takes from each.
        thorough: Decode every frame of each sample.
        scenes: Keep a thumbnail of each sample's middle frame.
        copies: Keep a footprint of each sample.
    """
    path = samples[0].path
    try:
        with closing(open_video(path, threads=1)) as video:
            checks = [_check_sample(video, sample, num_frames, thorough=thorough, copies=copies) for sample in samples]
            if scenes:
                checks = [
                    check if check.error else replace(check, thumbnail=middle_of(video, sample))
                    for check, sample in zip(checks, samples, strict=True)
                ]
        content = path if is_address(path) else content_key(path)
    except VideoError as error:
        return [_failed(path, error)] * len(samples)
    except OSError as error:
        return [SampleCheck(error=f"cannot be read ({error.strerror or error})")] * len(samples)
    return [replace(check, content=content) for check in checks]


def _check_sample(video: OpenVideo, sample: Sample, num_frames: int, *, thorough: bool, copies: bool) -> SampleCheck:
    try:
        start_s, end_s = checked_range(video.duration_s, sample.start_s, sample.end_s)

        def choose(length_s: float, first_s: float, last_s: float | None) -> list[float]:
            centres_s: list[float] = centre_times(length_s, num_frames, start_s=first_s, end_s=last_s).tolist()
            # The last frame too: a file that was cut short fails at its end, which no centre reaches.
            return [*centres_s, max(centres_s[-1], (last_s or length_s) - LAST_S)]

        clip = recorded_frames(video, choose, start_s, end_s, _one_pixel)
        if thorough:
            video.check(start_s, end_s)
        footprint = footprint_of(video, start_s, end_s) if copies else None
    except ValueError as error:
        return SampleCheck(error=str(error))
    except VideoError as error:
        return _failed(sample.path, error)
    num_distinct = len(np.unique(clip.times_s[:num_frames]))
    return SampleCheck(start_s=start_s, end_s=end_s, num_distinct=num_distinct, footprint=footprint)


def _failed(path: str, error: VideoError) -> SampleCheck:
    return SampleCheck(error=str(error).removeprefix(f"{path}: "), missing=isinstance(error, MissingVideo))


def _one_pixel(frame_CHW: Pixels) -> Pixels:
    """Return one pixel of a frame. Frames are decoded whole, but none is held in memory."""
    return frame_CHW[:, :1, :1].copy()


def inspection_of(
    data: VideoSet,
    checks: Sequence[SampleCheck],
    *,
    num_frames: int = NUM_FRAMES,
    min_s: float = 0.0,
    thorough: bool = False,
    drop_short: bool = False,
    copies: bool = False,
) -> Inspection:
    """Return the problems of a data set and its usable videos, from a check of each sample. No file is read.

    The arguments after `checks` are those of `inspect`.
    """
    # Each kind of problem is looked for among the videos that those before have left: a file is not called a duplicate of one
    # that cannot be read.
    problems = list(_unreadable(data, checks))
    problems += _too_short(data, checks, _remaining(data, problems), num_frames, min_s, kept=not drop_short)
    problems += _repeated(data, checks, _remaining(data, problems))
    rows = _remaining(data, problems)
    footprints = {row: checks[row].footprint for row in rows} if copies else {}
    found = copies_among(footprints, [check.content for check in checks]) if copies else None
    problems += _copied(data, found or ())
    problems += _leaking_groups(data, _remaining(data, problems))
    usable = data.subset(_remaining(data, problems))
    problems += _actions(data, usable)
    problems += [
        Problem(kind="left out", label="", path=file.path, reason=file.reason)
        for file in data.left_out
        if not file.is_harmless
    ]
    order = list(PROBLEMS)
    problems.sort(key=lambda problem: order.index(problem.kind))
    return Inspection(data, usable, tuple(problems), num_frames, thorough, copies=found, copies_sought=copies)


def with_found_scenes(inspection: Inspection, checks: Sequence[SampleCheck]) -> Inspection:
    """Return the inspection with the scenes of its usable videos, and these as their groups if the data name none."""
    usable = inspection.usable
    rows = _remaining(inspection.data, inspection.problems)
    scenes = find_scenes(usable, [checks[row].thumbnail for row in rows])
    if any(sample.group for sample in usable.samples):
        notes = [note for note in (words_on_groups(usable, scenes), words_on_parts(usable, scenes)) if note]
        return replace(inspection, scenes=scenes, scene_notes=tuple(notes))
    grouped = grouped_by(replace(usable, notes=()), scenes, HELD_OUT)
    usable = replace(usable, samples=grouped.samples)
    return replace(inspection, usable=usable, scenes=scenes, scene_notes=grouped.notes)


def _remaining(data: VideoSet, problems: Iterable[Problem]) -> list[int]:
    """Return the rows of the videos that no problem has made unusable."""
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


def _unreadable(data: VideoSet, checks: Sequence[SampleCheck]) -> Iterator[Problem]:
    for row, (sample, check) in enumerate(zip(data.samples, checks, strict=True)):
        if check.error:
            yield _problem(data, row, "missing" if check.missing else "failed", check.error)
        elif reason := unlistable(sample, multilabel=data.multilabel):
            yield _problem(data, row, "name", reason)


def _too_short(
    data: VideoSet, checks: Sequence[SampleCheck], rows: Iterable[int], num_frames: int, min_s: float, *, kept: bool
) -> Iterator[Problem]:
    for row in rows:
        check = checks[row]
        if check.num_distinct < num_frames:
            reason = f"{count_of(check.num_distinct, 'distinct frame')}, but a model takes {num_frames}"
        elif check.end_s - check.start_s < min_s:
            reason = f"{check.end_s - check.start_s:.2f} s, less than {min_s:g} s"
        else:
            continue
        yield _problem(data, row, "short", reason, kept=kept)


def _repeated(data: VideoSet, checks: Sequence[SampleCheck], rows: Iterable[int]) -> Iterator[Problem]:
    """Yield the videos whose content is in the data more than once.

    The part of the highest rank keeps the content, and within it the first video. If the labels within that part disagree, nobody
    can tell which is right, and all of them are dropped. A part of lower rank loses other times of the same file too.
    """

    def times(row: int) -> Hashable:
        return round(checks[row].start_s, 3), round(checks[row].end_s, 3)

    for same_file in grouped(rows, lambda row: checks[row].content):
        best, lower = _by_rank(data, same_file)
        for row in lower:
            twins = [other for other in best if times(other) == times(row)]
            other = data.samples[(twins or best)[0]]
            differ = twins and other.labels != data.samples[row].labels
            what = "the same as" if twins else "other times of"
            yield _problem(data, row, "contradiction" if differ else "leak", f"{what} {_described(other)}")
        for same in grouped(best, times):
            differ = len({data.samples[row].labels for row in same}) > 1
            for row in same if differ else same[1:]:
                other = data.samples[same[1] if row == same[0] else same[0]]
                kind = "contradiction" if differ else "duplicate"
                yield _problem(data, row, kind, f"the same as {_described(other)}")


def _copied(data: VideoSet, copies: Iterable[Copy]) -> Iterator[Problem]:
    """Yield the videos that show footage of another. The part of lower rank loses a leak; within a part nothing is lost."""
    told: set[tuple[int, str]] = set()
    for copy in copies:
        best, lower = _by_rank(data, [copy.first, copy.second])
        row, other = (lower[0], best[0]) if lower else (copy.second, copy.first)
        kind = "copied leak" if lower else "copy"
        if (row, kind) not in told:
            told.add((row, kind))
            yield _problem(data, row, kind, copy.words(_described(data.samples[other])), kept=not lower)


def _leaking_groups(data: VideoSet, rows: Iterable[int]) -> Iterator[Problem]:
    """Yield the videos whose group is in a part of higher rank too."""
    for same_group in grouped((row for row in rows if data.samples[row].group), lambda row: data.samples[row].group):
        best, lower = _by_rank(data, same_group)
        for row in lower:
            other = data.samples[best[0]]
            reason = f"in {data.samples[row].split or 'train'}, but its group {other.group!r} is in {other.split} too"
            yield _problem(data, row, "group leak", reason)


def _actions(data: VideoSet, usable: VideoSet) -> Iterator[Problem]:
    """Yield the actions that cannot be learned, or not be evaluated."""
    counts = part_counts(usable)
    for label in data.labels:
        parts = counts.get(label)
        if parts is None:
            yield Problem(kind="lost action", label=label, reason="none of its videos is usable")
        elif parts.get("train") == 0:
            reason = f"{parts['videos']} videos held out, but none in training"
            yield Problem(kind="untrained action", label=label, reason=reason, kept=True)
        elif parts["groups"] < 2:
            reason = f"{parts['videos']} videos of a single group"
            yield Problem(kind="single group", label=label, reason=reason, kept=True)


def _described(sample: Sample) -> str:
    part = f" ({sample.split})" if sample.split else ""
    return f"{sample.path}{part}, {', '.join(sample.labels)}"


def _by_rank(data: VideoSet, rows: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the rows whose part has the highest rank among these, and the other rows."""
    ranks = [RANKS.get(data.samples[row].split, 0) for row in rows]
    best = [row for row, rank in zip(rows, ranks, strict=True) if rank == max(ranks)]
    return best, [row for row in rows if row not in best]
