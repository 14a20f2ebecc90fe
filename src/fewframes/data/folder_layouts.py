"""Read labelled videos from a folder that has a folder for each action, with or without parts of a split above or below them.

A part (`train`, `testing`, `val_set`) is recognised by its name and by the folders of actions in it. A mixture of parts and actions
is refused: a part that is learned as an action would give figures that mean nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fewframes.core.text import count_of
from fewframes.data.folders import (
    BROKEN_LINK,
    HARMLESS,
    HIDDEN,
    IMAGE,
    LOOP,
    SYSTEM,
    FoundVideos,
    IgnoredFile,
    is_clutter,
    is_system_folder,
    leads_up,
    search,
    why_no_video,
)
from fewframes.data.samples import LabelledList, Sample, alike, as_label, is_fold, part_of, parts_of
from fewframes.errors import DataError

WAY_OUT = "write a list with the header path,label,split"
NO_VIDEOS = "a folder without a video"
BESIDE = "a video beside the folders of actions"


def read_folder(root: Path) -> LabelledList:
    """Return the videos of a folder that has a folder for each action.

    Raises DataError if there are none, or if folders of parts and of actions are mixed.
    """
    found = _found_in(root)
    filled = {folder: videos for folder, videos in found.items() if videos.videos}
    left_out = [*_beside(root), *(file for videos in found.values() for file in videos.left_out)]
    if not filled:
        names = ", ".join(folder.name for folder in list(found)[:5]) or "no folders"
        has_images = any(file.reason == IMAGE for file in left_out)
        hint = "; images need a folder for each video: ROOT/<action>/<video>/0001.jpg" if has_images else ""
        why = next((f"; {file.path}: {file.reason}" for file in left_out if not file.is_harmless), "")
        raise DataError(
            f"{root}: no videos in folders of actions (found: {names}); expected {root}/<action>/<video>{hint}{why}"
        )
    _check_linked_twice(root, list(filled))
    part_names = parts_of([folder.name for folder in filled])
    parts = [folder for folder in filled if folder.name in part_names]
    if folds := [folder.name for folder in filled if is_fold(folder.name)]:
        raise DataError(f"{root}: {_listed(folds)} look like folds, not like actions; {WAY_OUT}, one for each fold")
    if parts and len(parts) < len(filled) and any(_by_action(part, filled[part])[0] for part in parts):
        others = [folder.name for folder in filled if folder not in parts]
        raise DataError(
            f"{root}: {_listed([part.name for part in parts])} look like parts of a split, {_listed(others)} like actions; move "
            f"one kind away, or {WAY_OUT}"
        )
    if len(parts) == len(filled):
        samples = []
        for part in parts:
            by_action, direct = _by_action(part, filled[part])
            if not by_action:
                raise DataError(
                    f"{root}: {part.name} is named like a part of a split, but has {count_of(len(direct), 'video')} in it and no "
                    f"folders of actions; expected {part}/<action>/<video>; if {part.name!r} is an action, {WAY_OUT}"
                )
            for action in by_action:
                if part_of(action) or is_fold(action):
                    raise DataError(
                        f"{part}: {action!r} in it looks like a part too; move its actions up, or {WAY_OUT}"
                    )
            left_out += [IgnoredFile(path, BESIDE) for path in direct]
            samples += [
                Sample(path=path, labels=(as_label(action),), split=part_names[part.name])
                for action, paths in by_action.items()
                for path in paths
            ]
        name = "a folder for each action, already split"
        notes = [f"parts: {', '.join(f'{part.name} is {part_names[part.name]}' for part in parts)}"]
    else:
        samples, split = _samples_of_actions(root, filled)
        name = "a folder for each action" + (", parts below them" if split else "")
        notes = [f"{_listed([part.name for part in parts])} taken for actions, not for parts"] if parts else []
    empty = [folder for folder in found if folder not in filled]
    left_out += [IgnoredFile(str(folder), NO_VIDEOS) for folder in empty if _is_lost(found[folder])]
    if name == "a folder for each action" and (same := _names_in_all(filled)):
        notes.append(
            f"folders of the same names in all actions: {_listed(same)}; if these are the actions, write a list: path,label"
        )
    notes += [*notes_of_labels(samples), *_notes_of_files(samples)]
    return LabelledList(tuple(samples), name, notes=tuple(notes), left_out=tuple(left_out))


def _found_in(root: Path) -> dict[Path, FoundVideos]:
    try:
        folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{root}: cannot be read ({error.strerror}); check its owner and mode") from None
    return {
        folder: search(folder, is_action=True)
        for folder in folders
        if not is_system_folder(folder.name) and not leads_up(str(folder), os.path.realpath(folder))
    }


def _beside(root: Path) -> list[IgnoredFile]:
    """Return the files beside the folders of actions. Videos among them are left out, because they have no action."""
    left_out: list[IgnoredFile] = []
    for entry in sorted(root.iterdir()):
        if entry.name.startswith("."):
            left_out += [IgnoredFile(str(entry), HIDDEN)] if not is_clutter(entry.name) else []
        elif is_system_folder(entry.name) and entry.is_dir():
            left_out.append(IgnoredFile(str(entry), SYSTEM))
        elif entry.is_symlink() and not entry.exists():
            left_out.append(IgnoredFile(str(entry), BROKEN_LINK))
        elif entry.is_symlink() and entry.is_dir() and leads_up(str(entry), os.path.realpath(entry)):
            left_out.append(IgnoredFile(str(entry), LOOP))
        elif entry.is_file():
            left_out.append(IgnoredFile(str(entry), why_no_video(str(entry), entry.name) or BESIDE))
    return left_out


def _check_linked_twice(root: Path, folders: Sequence[Path]) -> None:
    """Raise DataError if two names are one folder by a link: its videos would have two actions, or be in two parts."""
    first: dict[str, Path] = {}
    for folder in folders:
        other = first.setdefault(os.path.realpath(folder), folder)
        if other != folder:
            raise DataError(f"{root}: {folder.name} and {other.name} are one folder by a link; remove one of them")


def _by_action(part: Path, found: FoundVideos) -> tuple[dict[str, list[str]], list[str]]:
    """Return the videos of a part by the folder of actions that they lie in, and those that lie in none."""
    by_action: dict[str, list[str]] = {}
    direct = []
    for path in found.videos:
        below = Path(path).relative_to(part).parts
        if len(below) > 1:
            by_action.setdefault(below[0], []).append(path)
        else:
            direct.append(path)
    return by_action, direct


def _samples_of_actions(root: Path, filled: Mapping[Path, FoundVideos]) -> tuple[list[Sample], bool]:
    """Return the samples of folders of actions, and True if parts of a split lie below them (`hug/train/1.mp4`).

    Raises DataError if only some actions have parts, or if there is a single action that itself holds folders of actions.
    """
    samples = []
    below = {}
    for action, found in filled.items():
        by_folder, direct = _by_action(action, found)
        below[action] = [folder for folder in by_folder if part_of(folder)]
        others = len(by_folder) - len(below[action]) + len(direct)
        if below[action] and others:
            raise DataError(
                f"{action}: {_listed(below[action])} looks like a part of a split, but {others} other videos or folders are beside "
                f"it; move them into parts, or {WAY_OUT}"
            )
        samples += [
            Sample(
                path=path,
                labels=(as_label(action.name),),
                split=part_of(Path(path).relative_to(action).parts[0]) if below[action] else "",
            )
            for path in found.videos
        ]
    if any(below.values()) and not all(below.values()):
        with_parts = next(action for action in below if below[action])
        without = next(action for action in below if not below[action])
        raise DataError(f"{root}: {with_parts.name} has parts of a split below it, {without.name} has none; {WAY_OUT}")
    if len(filled) == 1:
        ((only, found),) = filled.items()
        inner = list(_by_action(only, found)[0])
        if inner:
            raise DataError(
                f"{root}: only one action found, {only.name!r} ({count_of(len(found.videos), 'video')}); training needs at least "
                f"two. If the folders in it ({_listed(inner)}) are the actions, or the parts, pass {only}"
            )
    return samples, any(below.values())


def _names_in_all(filled: Mapping[Path, FoundVideos]) -> list[str]:
    """Return the names of subfolders that every folder has, if these are two or more. They may be persons in folders of actions, or
    actions in folders of persons."""
    inner = [set(_by_action(folder, found)[0]) for folder, found in filled.items()]
    same = set.intersection(*inner)
    return sorted(same) if len(same) > 1 else []


def _is_lost(found: FoundVideos) -> bool:
    """Return True if a folder without videos may have been meant for an action: it is empty, or has more than notes in it."""
    return not found.left_out or any(file.reason not in HARMLESS or file.reason == IMAGE for file in found.left_out)


def _notes_of_files(samples: Sequence[Sample]) -> Iterator[str]:
    """Yield a note if a file has several actions by links, and a note if it is in several parts."""
    same: dict[tuple[int, int], list[Sample]] = {}
    for sample in samples:
        status = os.stat(sample.path)
        same.setdefault((status.st_dev, status.st_ino), []).append(sample)
    with_actions = [linked for linked in same.values() if len({sample.labels for sample in linked}) > 1]
    if with_actions:
        example = _listed([sample.path for sample in with_actions[0]])
        yield f"files with several actions, by links: {len(with_actions)}, such as {example}; `data check` leaves them out"
    in_parts = [linked for linked in same.values() if len({sample.split for sample in linked}) > 1]
    if in_parts:
        example = _listed([sample.path for sample in in_parts[0]])
        yield f"files in several parts, by links: {len(in_parts)}, such as {example}; `data check` leaves all but one out"


def notes_of_labels(samples: Sequence[Sample]) -> list[str]:
    """Return a note for each pair of actions that differ only in case, spaces, hyphens or underscores."""
    first: dict[str, str] = {}
    pairs = set()
    for label in sorted({label for sample in samples for label in sample.labels}):
        key = alike(label).replace("_", " ").replace("-", " ")
        if (other := first.setdefault(" ".join(key.split()), label)) != label:
            pairs.add(
                f"the actions {other!r} and {label!r} differ only in case, spaces or hyphens; they count as two actions"
            )
    return sorted(pairs)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
