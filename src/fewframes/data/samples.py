"""A labelled video, and where one named in a list lies."""

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
"""Words for parts, and what they stand for."""
FILLERS = frozenset(
    {"set", "sets", "split", "splits", "data", "dataset", "videos", "video", "clips", "part", "subset", ""}
)
"""Words beside those, as in `val_set` or `train_split1`."""
FOLD = re.compile(r"(cv|k)?[ _.-]*(fold|split|part)s?[ _.-]*\d+|\d+[ _.-]*fold")
WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/]|\\\\")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Describe a labelled video, or the part of it between two times."""

    path: str
    labels: tuple[str, ...]
    """One for most data; any number where `Layout.multilabel`."""
    start_s: float = 0.0
    end_s: float | None = None
    split: str = ""
    group: str = ""
    """What must not be torn apart: a recording, a person; each video for itself when empty."""


@dataclass(frozen=True)
class LabelledList:
    """Hold what was read: the samples, the name of the layout they were in, whether a sample may have any number of
    labels, what users should know of how it was read, and what was left out."""

    samples: tuple[Sample, ...]
    name: str
    multilabel: bool = False
    notes: tuple[str, ...] = ()
    left_out: tuple[IgnoredFile, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Say where to look: the folder of the videos when it is not the list's, the column of groups, which of several official
    splits, and how labels are written."""

    videos: Path | None = None
    group_column: str = "group"
    split_number: int = 1
    label_mark: str = ""
    """What parts several labels in one cell; empty where a cell holds one."""
    found_by: Counter[str] = field(default_factory=Counter, compare=False)
    """How often a path was found otherwise than as it is written, by how."""
    listings: dict[str, dict[str, str]] = field(default_factory=dict, compare=False)
    """Names in folders that were looked into, by their likeness."""

    def labels(self, text: str) -> tuple[str, ...]:
        """Return the labels in one cell."""
        parts = text.split(self.label_mark) if self.label_mark else [text]
        return tuple(sorted({as_label(part) for part in parts if part.strip()}))

    def find(self, source: Path, *names: str) -> str:
        """Return the first of these names that exists, relative to the videos' folder or the list; else where the first should
        be."""
        bases = [self.videos] if self.videos is not None else [source.parent, source.parent / "videos"]
        candidates = [os.path.normpath(base / name) for base in bases for name in names]
        return next((path for path in candidates if _exists(path)), candidates[0])

    def find_written(self, source: Path, name: str) -> str:
        """Return where the file of a list is, however its path was written; where it should be if it is nowhere."""
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
                "of a Windows drive, not on this machine; write them relative, and name their folder by --videos"
            ] += 1
            return name if os.name != "nt" and "/" not in name else path
        self.found_by["not found"] += 1
        return path

    def notes(self) -> list[str]:
        """Return a line for each way in which paths were found."""
        return [f"paths {way}: {count}" for way, count in self.found_by.items()]

    def _alike(self, path: str) -> str:
        """Return the only path like this one, by letters in either case, composed or not, with or without a video's ending."""
        parent, name = os.path.split(path)
        if not name or parent == path:
            return ""
        if not os.path.isdir(parent or ".") and not (parent := self._alike(parent)):
            return ""
        if parent not in self.listings:
            self.listings[parent] = _likenesses(parent or ".")
        match = self.listings[parent].get(alike(name), "")
        return os.path.join(parent, match) if match else ""


def as_label(text: str) -> str:
    """Return a label without spaces around it, its accents composed: equal names are one action."""
    return unicodedata.normalize("NFC", text.strip())


def alike(name: str) -> str:
    """Return what names have in common that differ in case or in how accents are written."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def part_of(name: str) -> str:
    """Return the part that a folder or a cell names (`train`, `val` or `test`), as in `Training`, `val_set`, `test1`."""
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
    """Return whether a folder is named as a fold of a cross-validation."""
    return FOLD.fullmatch(name.strip().lower()) is not None


def _exists(path: str) -> bool:
    try:
        return os.path.exists(path)
    except ValueError:  # a null character in the name
        return False


def _likenesses(folder: str) -> dict[str, str]:
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
