"""The changes that teaching makes to the examples of a model: clips with or without a label, forgotten clips, labels renamed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fewframes.core.settings import Task
from fewframes.core.storage import is_address
from fewframes.data.lists import unlistable
from fewframes.data.samples import Sample, as_label
from fewframes.errors import DataError, nearest
from fewframes.results import is_background

BACKGROUND_LABEL = "background"
"""The label of clips that show none of the actions, if the data have no word of their own for it."""
SPAN = re.compile(r"(?P<path>.+)@(?P<start>[0-9:.]*)-(?P<end>[0-9:.]*)")
"""A clip of a film, such as `film.mp4@12.0-15.5` or `film.mp4@1:02-`."""

Clip = str | Sample
"""A video, a span of one such as `film.mp4@12.0-15.5`, or a sample, whose labels and part of a split do not count."""


@dataclass(frozen=True, kw_only=True)
class TeachChanges:
    """The changes to make, all at once. Labels are renamed and removed first, then clips are forgotten, then examples added."""

    yes: Mapping[str, Sequence[Clip]] = field(default_factory=dict)
    """The clips that show each label. An example of another label is corrected by this."""
    no: Mapping[str, Sequence[Clip]] = field(default_factory=dict)
    """The clips that do not show each label. If a video has one action, they are background: examples of none."""
    forget: Sequence[Clip] = ()
    """The clips that are examples no longer."""
    remove: Sequence[str] = ()
    """The labels to remove, with all examples of each."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """The new names of labels by their old ones. A name that exists merges the two."""
    marked: Sequence[Sample] = ()
    """The clips with all their labels, none for a clip that shows no action. They replace the labels of an example."""
    taken_back: Sequence[Clip] = ()
    """The clips that are examples no longer, if they are any."""

    def __bool__(self) -> bool:
        """Return True if there is anything to change."""
        return any((self.yes, self.no, self.forget, self.remove, self.rename, self.marked, self.taken_back))


def clip_of(clip: Clip, group: str = "") -> Sample:
    """Return a clip as a sample without labels. Raises DataError for a span that is no time range.

    A file whose name has the form of a span is that file.

    Args:
        clip: The clip.
        group: The recording or person that it is of; empty if it is by itself.
    """
    if isinstance(clip, Sample):
        return replace(clip, path=whole_path(clip.path), labels=(), split="")
    found = None if os.path.exists(clip) else SPAN.fullmatch(clip)
    if found is None:
        return Sample(path=whole_path(clip), labels=(), group=group)
    start_s, end_s = _seconds(found["start"], clip), _seconds(found["end"], clip)
    if start_s is None and end_s is None:
        return Sample(path=whole_path(clip), labels=(), group=group)
    if end_s is not None and end_s <= (start_s or 0.0):
        raise DataError(f"{clip}: ends at {end_s:g} s, which is not after its start; write FILE@START-END in seconds")
    return Sample(path=whole_path(found["path"]), labels=(), start_s=start_s or 0.0, end_s=end_s, group=group)


def words_of(sample: Sample) -> str:
    """Return a clip as it is written on the command line."""
    if sample.start_s == 0 and sample.end_s is None:
        return sample.path
    return f"{sample.path}@{sample.start_s:g}-{'' if sample.end_s is None else f'{sample.end_s:g}'}"


def changed_examples(
    samples: Sequence[Sample], changes: TeachChanges, task: Task
) -> tuple[list[tuple[Sample, int | None]], list[str]]:
    """Return the examples after the changes, each with its index among the old ones or None if it is new, and notes.

    Args:
        samples: The examples so far.
        changes: The changes.
        task: One action a video, or any number of them.

    Raises:
        DataError: A label or clip that is to be changed is no example, or a clip is given twice with different labels.
    """
    found = _Examples(samples, task)
    for old, new in changes.rename.items():
        found.rename(as_label(old), as_label(new))
    for label in changes.remove:
        found.remove(as_label(label))
    for clip in changes.forget:
        found.forget(clip_of(clip))
    for clip in changes.taken_back:
        found.rows.pop(_key(clip_of(clip)), None)
    for sample in changes.marked:
        found.settle(sample)
    for label, clip in _pairs(changes.yes):
        found.teach(label, clip)
    for label, clip in _pairs(changes.no):
        found.deny(label, clip)
    return list(found.rows.values()), found.notes


def _pairs(clips: Mapping[str, Sequence[Clip]]) -> Iterable[tuple[str, Sample]]:
    return ((as_label(label), clip_of(clip)) for label, some in clips.items() for clip in some)


class _Examples:
    """The examples of a model by their clips, while they are changed."""

    def __init__(self, samples: Sequence[Sample], task: Task) -> None:
        self.rows: dict[object, tuple[Sample, int | None]] = {
            _key(sample): (sample, row) for row, sample in enumerate(samples)
        }
        self.task = task
        self.notes: list[str] = []
        self._given: dict[object, str] = {}

    def rename(self, old: str, new: str) -> None:
        self._check_label(old)
        self._check_name(new)
        for key, (sample, row) in self.rows.items():
            labels = tuple(sorted({new if label == old else label for label in sample.labels}))
            self.rows[key] = replace(sample, labels=labels), row

    def remove(self, label: str) -> None:
        self._check_label(label)
        for key, (sample, row) in list(self.rows.items()):
            if sample.labels == (label,):
                del self.rows[key]
            elif label in sample.labels:
                self.rows[key] = replace(sample, labels=tuple(name for name in sample.labels if name != label)), row

    def forget(self, clip: Sample) -> None:
        if self.rows.pop(_key(clip), None) is None:
            known = [words_of(sample) for sample, _ in self.rows.values()]
            name = words_of(clip)
            raise DataError(f"{name}: is no example of this model, so it cannot be forgotten; {nearest(name, known)}")

    def teach(self, label: str, clip: Sample) -> None:
        self._check_name(label)
        key = _key(clip)
        sample, row = self.rows.get(key, (clip, None))
        if self.task == "multilabel":
            labels = {*sample.labels, label}
        else:
            if self._given.setdefault(key, label) != label:
                raise DataError(
                    f"{words_of(clip)}: is given as {self._given[key]!r} and as {label!r}, and a video of this model has one "
                    "action; give it one"
                )
            labels = {label}
        self.rows[key] = replace(sample, labels=tuple(sorted(labels))), row

    def deny(self, label: str, clip: Sample) -> None:
        key = _key(clip)
        sample, row = self.rows.get(key, (clip, None))
        if key in self._given and self._given[key] == label:
            raise DataError(f"{words_of(clip)}: is given both as showing {label!r} and as not showing it; give it once")
        if self.task == "multilabel":
            if not label:
                raise DataError(
                    f"{words_of(clip)}: which label does it not show? name it before, as a video may have several"
                )
            labels = tuple(name for name in sample.labels if name != label)
        elif sample.labels not in ((), (label,)):
            other = ", ".join(sample.labels)
            self.notes.append(f"{words_of(clip)}: stays an example of {other}, which is not {label or 'an action'}")
            return
        else:
            labels = (self._background(),)
        self.rows[key] = replace(sample, labels=labels), row

    def settle(self, sample: Sample) -> None:
        """Make a clip an example of exactly its labels, whatever it was before."""
        labels = tuple(sorted({as_label(label) for label in sample.labels}))
        for label in labels:
            self._check_name(label)
        clip = clip_of(sample)
        _, row = self.rows.get(_key(clip), (clip, None))
        if not labels and self.task == "single":
            labels = (self._background(),)
        self.rows[_key(clip)] = replace(clip, labels=labels), row

    def _background(self) -> str:
        """Return the label of clips that show none of the actions."""
        names = sorted({name for sample, _ in self.rows.values() for name in sample.labels if is_background(name)})
        return names[0] if names else BACKGROUND_LABEL

    def _check_label(self, label: str) -> None:
        labels = {name for sample, _ in self.rows.values() for name in sample.labels}
        if label not in labels:
            raise DataError(f"{label!r}: is no label of this model; {nearest(label, labels)}")

    def _check_name(self, label: str) -> None:
        if not label:
            raise DataError("a label without a name; name it, such as --label 'door slams'")
        if reason := unlistable(Sample(path="", labels=(label,)), multilabel=self.task == "multilabel"):
            raise DataError(f"{label!r}: {reason}")


def _key(sample: Sample) -> object:
    """Return what makes two clips the same: the file and the times."""
    return sample.path, sample.start_s, sample.end_s


def whole_path(path: str) -> str:
    """Return the path of the file itself, whatever folder or link it was named by."""
    return path if is_address(path) else os.path.realpath(path)


def _seconds(text: str, clip: str) -> float | None:
    """Return the seconds of `12.5` or `1:02.5`; None for an empty text. Raises DataError for anything else."""
    if not text:
        return None
    try:
        seconds = 0.0
        for part in text.split(":"):
            seconds = 60 * seconds + float(part)
    except ValueError:
        raise DataError(
            f"{clip}: {text!r} is no time; write FILE@START-END in seconds, such as film.mp4@12.0-15.5"
        ) from None
    return seconds
