"""Propose groups for data that name none: one for each scene. Clips of one camera then stand on one side of a split.

One frame of each video is decoded, its middle one. Nothing is proposed where it would leave nothing to measure with: if all videos
show one scene, or each action has a scene of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fewframes.core.process import Progress, num_cores, worked_ahead
from fewframes.core.storage import is_address
from fewframes.core.text import count_of
from fewframes.data.config import DataConfig
from fewframes.data.dataset import VideoSet, grouped, hold_out
from fewframes.data.samples import Sample
from fewframes.data.scenes.likeness import SIZE_PX, join, scenes_of, thumbnail_of
from fewframes.errors import DataError, FewframesError
from fewframes.video.pictures.display import Pixels
from fewframes.video.source import OpenVideo, open_video
from fewframes.video.times import checked_range

LEAST_SCENES = 5
"""The fewest scenes that are proposed as groups. With fewer, whatever is left out is too much to leave out."""
MOST_OF_ONE = 0.5
"""The largest fraction of the videos that may show one scene. Above it, what is left out says little about the others."""
MOST_VIDEOS = 20_000
"""The most videos that are looked at. Comparing all pairs takes a minute for so many, and grows with their square."""
STAGE = "scenes"
"""The name of this work in reports of progress."""
TURN_OFF = "--scenes off (data.scenes) makes each video its own group"


@dataclass(frozen=True)
class Scenes:
    """The scenes of labelled videos."""

    of_rows: tuple[int, ...]
    """The scene of each video, as the index of its first video. Videos of one file are of one scene."""
    num_unseen: int
    """Number of videos that were not looked at: they cannot be read, or are behind a URL. Each file counts as its own scene."""

    @property
    def sizes(self) -> dict[int, int]:
        """The number of videos of each scene, largest first."""
        return dict(Counter(self.of_rows).most_common())

    def subset(self, rows: Sequence[int]) -> Scenes:
        """Return the scenes of these videos alone, in this order."""
        first: dict[int, int] = {}
        for number, row in enumerate(rows):
            first.setdefault(self.of_rows[row], number)
        return Scenes(tuple(first[self.of_rows[row]] for row in rows), self.num_unseen)

    def to_dict(self, samples: Sequence[Sample], notes: Sequence[str]) -> dict[str, object]:
        """Return the number of scenes, what they mean, and the videos and group of each scene that has several."""
        together = [[samples[row] for row in rows] for rows in grouped(range(len(samples)), self.of_rows.__getitem__)]
        return {
            "found": len(self.sizes),
            "not_looked_at": self.num_unseen,
            "notes": list(notes),
            "of_several_videos": [
                {"groups": sorted({sample.group for sample in same} - {""}), "paths": [sample.path for sample in same]}
                for same in together
                if len(same) > 1
            ],
        }


def with_scenes(
    data: VideoSet, config: DataConfig, fraction: float, progress: Progress = lambda stage, done, total: None
) -> VideoSet:
    """Return the data with a group for each scene, and a note that says so; as they are if they name groups, or scenes are off.

    Args:
        data: The labelled videos. They are looked at once: their `scenes_sought` says that it was done.
        config: The settings of the data.
        fraction: Fraction of each action's videos that will be held out.
        progress: Called with the number of videos looked at.
    """
    if config.scenes == "off" or data.scenes_sought or any(sample.group for sample in data.samples):
        return data
    if note := too_many(len(data.samples)):
        return replace(data, scenes_sought=True, notes=(*data.notes, f"{note}; each file is its own group"))
    thumbnails: list[Pixels | None] = []
    for found in thumbnails_of(data):
        if isinstance(found, int):
            progress(STAGE, found, len(data.samples))
        else:
            thumbnails = found
    return grouped_by(data, find_scenes(data, thumbnails), fraction)


def too_many(num_videos: int) -> str:
    """Return words that say that scenes are not looked for in so many videos, and what to do instead; empty if they are."""
    if num_videos <= MOST_VIDEOS:
        return ""
    return (
        f"scenes are looked for in at most {MOST_VIDEOS:,} videos, and there are {num_videos:,}: name groups in the list "
        "if clips share a camera or a recording"
    )


def thumbnails_of(data: VideoSet, workers: int | None = None) -> Iterator[int | list[Pixels | None]]:
    """Decode the middle frame of each video. Yields the number of videos done after each file, and the thumbnails at the end.

    There is none of a video that cannot be read, or is behind a URL.
    """
    rows_by_file = grouped(range(len(data.samples)), lambda row: data.samples[row].path)
    thumbnails: list[Pixels | None] = [None] * len(data.samples)
    done = 0

    def look(rows: list[int]) -> list[Pixels | None]:
        path = data.samples[rows[0]].path
        if is_address(path):
            return [None] * len(rows)
        try:
            with closing(open_video(path, threads=1)) as video:
                return [middle_of(video, data.samples[row]) for row in rows]
        except (FewframesError, OSError, ValueError):  # whoever needs the video names the error
            return [None] * len(rows)

    with closing(worked_ahead(rows_by_file, look, workers or num_cores())) as found:
        for rows, of_file in found:
            if isinstance(of_file, FewframesError):
                raise of_file
            for row, thumbnail in zip(rows, of_file, strict=True):
                thumbnails[row] = thumbnail
            done += len(rows)
            yield done
    yield thumbnails


def middle_of(video: OpenVideo, sample: Sample) -> Pixels | None:
    """Return a thumbnail of the frame in the middle of a sample; None if the frame cannot be decoded."""
    try:
        start_s, end_s = checked_range(video.duration_s, sample.start_s, sample.end_s)
        frames = video.frames_at(np.array([(start_s + end_s) / 2]), _as_picture).frames
    except (FewframesError, ValueError):
        return None
    thumbnail: Pixels = np.asarray(frames)[0, 0]
    return thumbnail


def _as_picture(frame_CHW: Pixels) -> Pixels:
    return thumbnail_of(frame_CHW)[None]


def find_scenes(data: VideoSet, thumbnails: Sequence[Pixels | None]) -> Scenes:
    """Return the scenes of videos with these thumbnails. A video without one is of the scene of its file, or by itself."""
    seen = [row for row, thumbnail in enumerate(thumbnails) if thumbnail is not None]
    stacked = [thumbnail for thumbnail in thumbnails if thumbnail is not None]
    of_seen = scenes_of(np.stack(stacked) if stacked else np.empty((0, SIZE_PX, SIZE_PX), np.uint8))
    scene_B = np.arange(len(data.samples))
    scene_B[seen] = np.array(seen, np.intp)[of_seen]
    for rows in grouped(range(len(data.samples)), lambda row: data.samples[row].path):
        join(scene_B, rows)
    return Scenes(tuple(scene_B.tolist()), len(data.samples) - len(seen))


def grouped_by(data: VideoSet, scenes: Scenes, fraction: float) -> VideoSet:
    """Return the data with their scenes as groups, or as they are where that leaves nothing to measure with. A note says which.

    A split that the data name stays. A scene on both of its sides is a group on each, and a note warns of it.
    """
    data = replace(data, scenes_sought=True)
    notes = [crossing] if (crossing := words_on_parts(data, scenes)) else []
    background = data.background_rows()
    learned = [row for row, sample in enumerate(data.samples) if not sample.held_out and row not in background]
    named = _named(data, scenes)
    if len({*named.groups()}) == len({sample.path for sample in data.samples}):
        return replace(data, notes=(*data.notes, *notes))  # nothing to propose: no two files show one scene
    reason = why_not(named.subset(learned), scenes.subset(learned), fraction)
    if reason:
        return replace(data, notes=(*data.notes, *notes, reason))
    notes.append(
        f"the data name no groups, so {count_of(len(scenes.sizes), 'scene')} found in {count_of(len(data.samples), 'video')} "
        f"are taken: no scene is on both sides of a split; {TURN_OFF}"
    )
    if alone := _alone(named.subset(learned)):
        notes.append(
            f"all videos of {', '.join(alone)} show one scene: nothing tells the action from the place; add videos of another"
        )
    return replace(named, notes=(*data.notes, *notes))


def why_not(named: VideoSet, scenes: Scenes, fraction: float) -> str:
    """Return the reason why scenes are not taken as groups, with what that means; empty if they can be.

    Args:
        named: The videos of actions to learn from, with their scenes as groups.
        scenes: The scenes of these videos.
        fraction: Fraction of each action's videos that will be held out.
    """
    num_videos, sizes = len(named.samples), scenes.sizes
    meaning = "so each video is its own group, and figures hold for these scenes only: expect less from another camera"
    if len(sizes) < LEAST_SCENES:
        return (
            f"{count_of(num_videos, 'video')} show {count_of(len(sizes), 'scene')}, too few to leave one out; {meaning}"
        )
    largest = next(iter(sizes.values()))
    if largest > MOST_OF_ONE * num_videos:
        return f"{largest} of {num_videos} videos show one scene, too many to leave it out; {meaning}"
    if len(_alone(named)) == len(named.labels):
        return f"each action has a scene of its own, which a model may learn instead of the action; {meaning}"
    try:
        hold_out(replace(named, samples=tuple(replace(it, split="") for it in named.samples)), fraction, 0)
    except DataError:
        return (
            f"of {len(sizes)} scenes none can be held out without far more than {fraction:.0%} of the videos; {meaning}"
        )
    return ""


def words_on_parts(data: VideoSet, scenes: Scenes) -> str:
    """Return a warning of held-out videos whose scene is in training too; empty if there are none, or the data are not split."""
    held = [row for row, sample in enumerate(data.samples) if sample.held_out]
    learned = {scenes.of_rows[row] for row in set(range(len(data.samples))) - set(held)}
    crossing = [row for row in held if scenes.of_rows[row] in learned]
    if not crossing:
        return ""
    example = _name(data.samples[crossing[0]])
    return (
        f"{len(crossing)} of {count_of(len(held), 'held-out video')} show a scene of the training videos, such as {example}: "
        "figures on them are kinder than on another camera; `data split --again` parts by scenes"
    )


def words_on_groups(data: VideoSet, scenes: Scenes) -> str:
    """Return a warning of scenes that the data divide into several groups; empty if there are none."""
    groups: dict[int, dict[str, str]] = {}
    for sample, group, scene in zip(data.samples, data.groups(), scenes.of_rows, strict=True):
        groups.setdefault(scene, {}).setdefault(group, _name(sample))
    divided = [found for found in groups.values() if len(found) > 1]
    if not divided:
        return ""
    first, second, *_ = divided[0].values()
    return (
        f"{count_of(len(divided), 'scene')} found in several groups, such as {first} and {second}: if they are of one camera, "
        "give them one group"
    )


def examples_of(data: VideoSet, scenes: Scenes, most: int) -> list[str]:
    """Return lines on the largest scenes: their videos, and the names of the first three."""
    lines = []
    for scene, size in list(scenes.sizes.items())[:most]:
        rows = [row for row, other in enumerate(scenes.of_rows) if other == scene]
        if size > 1:
            names = ", ".join(_name(data.samples[row]) for row in rows[:3])
            lines.append(f"{count_of(size, 'video')} of one scene: {names}{', ...' if size > 3 else ''}")
    return lines


def _named(data: VideoSet, scenes: Scenes) -> VideoSet:
    """Return the data with groups: a name for each scene, and in data that are split for each scene of a part. Scenes of one file
    need no name: a file is a group."""
    files: dict[int, set[str]] = {}
    for sample, scene in zip(data.samples, scenes.of_rows, strict=True):
        files.setdefault(scene, set()).add(sample.path)
    numbers = {scene: number for number, scene in enumerate(sorted(files), 1)}
    samples = []
    for sample, scene in zip(data.samples, scenes.of_rows, strict=True):
        part = f" in {sample.split}" if sample.held_out else ""
        samples.append(replace(sample, group=f"scene {numbers[scene]}{part}" if len(files[scene]) > 1 else ""))
    return replace(data, samples=tuple(samples))


def _alone(data: VideoSet) -> list[str]:
    """Return the actions of several videos that are all of one group."""
    groups: dict[str, set[str]] = {}
    for sample, group in zip(data.samples, data.groups(), strict=True):
        for label in sample.labels:
            groups.setdefault(label, set()).add(group)
    counts = data.counts()
    return sorted(label for label, found in groups.items() if len(found) == 1 and counts[label] > 1)


def _name(sample: Sample) -> str:
    return Path(sample.path).name
