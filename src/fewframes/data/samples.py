"""Describe a labelled video, and find the file of one that is named in a list."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from fewframes.core.storage import as_path, is_address
from fewframes.data.folders import IgnoredFile, is_video_name

SPLITS = {
    "train": "train", "training": "train", "trn": "train", "trainval": "train", "val": "val", "valid": "val", "validation": "val",
    "validate": "val", "dev": "val", "devel": "val", "development": "val", "eval": "val", "evaluation": "val", "test": "test",
    "testing": "test", "tests": "test", "tst": "test", "holdout": "test", "heldout": "test", "tr": "train",
    "te": "test",
}  # fmt: skip
"""Words for the parts of a split, and the part that each means."""
FILLERS = frozenset(
    {"set", "sets", "split", "splits", "data", "dataset", "videos", "video", "clips", "part", "subset", ""}
)
"""Words that may stand beside those, as in `val_set` or `train_split1`."""
FOLD = re.compile(r"(cv|k)?[ _.-]*(fold|split|part)s?[ _.-]*\d+|\d+[ _.-]*fold")
FIRST_ENDINGS = (".mp4", ".mkv", ".webm", ".avi")
"""The commonest endings of videos, in the order in which they count where a list leaves them out."""
WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/]|\\\\")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A labelled video, or the part of it between two times."""

    path: str
    labels: tuple[str, ...]
    """Exactly one for most data; any number if the data are multi-label."""
    start_s: float = 0.0
    end_s: float | None = None
    """None for the end of the video."""
    split: str = ""
    """`train`, `val` or `test`; empty if the data name none."""
    group: str = ""
    """Name shared by videos that must stay on one side of a split: a recording, a person. Empty if the video is by itself."""

    @property
    def held_out(self) -> bool:
        """Return True if the data mark the video as `val` or `test`."""
        return self.split in ("val", "test")


@dataclass(frozen=True)
class LabelledList:
    """The labelled videos of a folder or a list."""

    samples: tuple[Sample, ...]
    name: str
    """Name of the layout that was recognised."""
    multilabel: bool = False
    """True if a sample may have any number of labels."""
    notes: tuple[str, ...] = ()
    """Notes for users on how it was read."""
    left_out: tuple[IgnoredFile, ...] = ()
    """Files and folders that were not taken for videos."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """The options for reading a folder or a list, with counts of how its paths were found."""

    videos: Path | None = None
    """Folder of the videos, if their paths are not relative to the list."""
    group_column: str = "group"
    split_number: int = 1
    """Number of the official split, if the data have several."""
    label_separator: str = ""
    """Separator of several labels in one cell; empty if a cell holds a single label."""
    found_by: Counter[str] = field(default_factory=Counter, compare=False)
    """Number of paths that were not found as written, by the way in which they were found."""
    listings: dict[str, dict[str, str]] = field(default_factory=dict, compare=False)
    """Names in the folders searched so far, by the form in which they are compared (`alike`)."""

    stems: dict[str, dict[str, str]] = field(default_factory=dict, compare=False)
    """Names of the videos in the folders looked into so far, by their names without an ending."""

    def labels(self, text: str) -> tuple[str, ...]:
        """Return the labels in one cell."""
        parts = text.split(self.label_separator) if self.label_separator else [text]
        return tuple(sorted({as_label(part) for part in parts if part.strip()}))

    def find(self, source: Path, *names: str) -> str:
        """Return the path of the first of these names that exists, relative to the folder of the videos or to the list.

        If none exists, the path is returned at which the first is expected.
        """
        bases = [self.videos] if self.videos is not None else [source.parent, source.parent / "videos"]
        candidates = [os.path.normpath(base / name) for base in bases for name in names]
        return next((path for path in candidates if _exists(path)), candidates[0])

    def find_stem(self, source: Path, *stems: str) -> str:
        """Return the path of the first video that is named so without its ending; with .mp4, as expected, if there is none.

        Each folder is listed once, however many videos are looked for in it.
        """
        bases = [self.videos] if self.videos is not None else [source.parent, source.parent / "videos"]
        paths = [os.path.normpath(base / stem) for base in bases for stem in stems]
        for path in paths:
            folder, stem = os.path.split(path)
            if folder not in self.stems:
                self.stems[folder] = _videos_by_stem(folder or ".")
            if name := self.stems[folder].get(stem):
                return os.path.join(folder, name)
        return f"{paths[0]}.mp4"

    def find_written(self, source: Path, name: str) -> str:
        """Return the path of a file named in a list, however it was written; the path where it is expected if it is nowhere.

        Lists are made on other machines: paths may have the separators, the home folder, the case or the accents of those.
        """
        name = as_path(name)
        if is_address(name):
            return name
        path = self.find(source, name)
        if _exists(path):
            return path
        bases = [self.videos] if self.videos is not None else [source.parent, source.parent / "videos"]
        ways = {
            "with / for \\": name.replace("\\", "/"),
            "with ~ for the home folder": os.path.expanduser(name),
            "with percent signs decoded": unquote(name),
        }
        for way, other in ways.items():
            if other != name and _exists(at := self.find(source, other)):
                self.found_by[f"found {way}"] += 1
                return at
        if self.videos is None and _exists(name):
            self.found_by["relative to the working folder, not to the list"] += 1
            return os.path.normpath(name)
        for base in bases:
            if alike := self._alike(os.path.normpath(base / ways["with / for \\"])):
                self.found_by["found by a name that differs in case, accents or ending"] += 1
                return alike
        if WINDOWS_PATH.match(name):
            self.found_by[
                "of a Windows drive, which this machine does not have; write them relative, and name their folder with --videos"
            ] += 1
            return name if os.name != "nt" and "/" not in name else path
        self.found_by["not found"] += 1
        return path

    def notes(self) -> list[str]:
        """Return a line for each way in which paths were found that were not found as written."""
        return [f"paths {way}: {count}" for way, count in self.found_by.items()]

    def _alike(self, path: str) -> str:
        """Return the only path that differs from this one in case, accents or a video's ending alone; empty if there is not exactly
        one. Folders above it may differ as well."""
        parent, name = os.path.split(path)
        if not name or parent == path:
            return ""
        if not os.path.isdir(parent or ".") and not (parent := self._alike(parent)):
            return ""
        if parent not in self.listings:
            self.listings[parent] = _likenesses(parent or ".")
        match = self.listings[parent].get(alike(name), "")
        return os.path.join(parent, match) if match else ""


def absolute(path: str) -> str:
    """Return the absolute path of a video; a URL is returned as it is."""
    path = as_path(path)
    return path if is_address(path) else os.path.abspath(path)


def is_text(name: str) -> bool:
    """Return True if a name is UTF-8, as lists and tables are. Names of files need not be."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_label(text: str) -> str:
    """Return a label without spaces around it and with composed accents (NFC), so that equal names are one action."""
    return unicodedata.normalize("NFC", text.strip())


def alike(name: str) -> str:
    """Return the form in which names are compared: it is the same for names that differ only in case or in how accents are
    written."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def part_of(name: str) -> str:
    """Return the part of a split that a folder or a cell names: `train` for `Training`, `val` for `val_set`, `test` for `test1`.

    Empty if it names none.
    """
    words = [word for word in re.split(r"[^a-z]+", name.strip().lower()) if word not in FILLERS]
    if words in (["held", "out"], ["hold", "out"]):
        return "test"
    if len(words) == 1:
        for ending in ("", "set", "split", "data"):
            if words[0].endswith(ending) and (word := words[0].removesuffix(ending)) in SPLITS:
                return SPLITS[word]
    return ""


def parts_of(names: Collection[str]) -> dict[str, str]:
    """Return the parts that names stand for, of those that name one; what all names have in common, as in `ucf_train` and
    `ucf_test`, is passed over where all name parts then."""
    parts = {name: part for name in names if (part := part_of(name))}
    words = {name: re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()) for name in names}
    common = set.intersection(*map(set, words.values())) if words else set()
    bare = {name: part_of(" ".join(word for word in words[name] if word not in common)) for name in names}
    return bare if len(parts) < len(bare) and len(set(bare.values())) > 1 and all(bare.values()) else parts


def is_fold(name: str) -> bool:
    """Return True if a folder is named like a fold of a cross-validation."""
    return FOLD.fullmatch(name.strip().lower()) is not None


def _exists(path: str) -> bool:
    try:
        return os.path.exists(path)
    except ValueError:  # a null character in the name
        return False


def _videos_by_stem(folder: str) -> dict[str, str]:
    """Return the names of the videos in a folder by their names without an ending; of several, the commonest ending counts."""
    try:
        names = [name for name in os.listdir(folder) if is_video_name(name)]
    except OSError:
        return {}
    rank = {ending: number for number, ending in enumerate(FIRST_ENDINGS)}
    names.sort(key=lambda name: rank.get(os.path.splitext(name)[1].lower(), len(rank)), reverse=True)
    return {os.path.splitext(name)[0]: name for name in names}


def _likenesses(folder: str) -> dict[str, str]:
    """Return the names in a folder by the form in which they are compared. Names that are alike are left out: which is meant?"""
    found: dict[str, list[str]] = {}
    try:
        names = os.listdir(folder)
    except OSError:
        return {}
    for name in names:
        found.setdefault(alike(name), []).append(name)
        if is_video_name(name):
            found.setdefault(alike(os.path.splitext(name)[0]), []).append(name)
    return {key: same[0] for key, same in found.items() if len(same) == 1}
