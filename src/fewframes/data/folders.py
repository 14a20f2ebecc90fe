"""Find the videos below a folder, each file once, and name every file that was left out with the reason.

Every command that searches a folder does it here, so that a labelled folder and one named on the command line give the same files.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fewframes.video.picture_source import IMAGE_SUFFIXES
from fewframes.video.source import VIDEO_SUFFIXES

ARCHIVE_SUFFIXES = frozenset(".7z .bz2 .gz .rar .tar .tgz .xz .zip .zst".split())
NOTE_SUFFIXES = frozenset(
    ".aac .ass .cfg .csv .doc .docx .flac .htm .html .ini .json .jsonl .log .m4a .md .mp3 .npy .npz .parquet .pdf .pkl .pt .py "
    ".rst .safetensors .sh .srt .sub .toml .tsv .txt .url .vtt .wav .xls .xlsx .xml .yaml .yml".split()
)
"""The endings of files that often lie beside videos and are none."""
CLUTTER = frozenset({".ds_store", "thumbs.db", "desktop.ini"})
SYSTEM_FOLDERS = frozenset(
    {
        "__macosx",
        "@eadir",
        "#recycle",
        "@recycle",
        "#snapshot",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "lost+found",
    }
)
"""Folders that systems and network drives keep among people's own: copies, previews, deleted files."""
PREVIEWS = frozenset("thumb thumbs thumbnail thumbnails preview previews poster posters screenshot screenshots".split())
START_BYTES = 4096
"""The number of bytes read of a file whose ending says nothing."""
SIGNATURES = (
    b"\x1aE\xdf\xa3",  # Matroska, WebM
    b"FLV\x01",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF, WMV
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x00\x00\x01\xb3",  # MPEG video
    b".RMF",  # RealMedia
    b"\xb7\xd8\x00\x20\x37\x49\xda\x11",  # recordings of Windows Media Center
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01",  # MXF
    b"DKIF",  # IVF
    b"GIF89a",
)
SOUND_AND_STILL_BRANDS = (b"M4A", b"M4B", b"heic", b"heix", b"mif1", b"avif", b"crx ")
UNREADABLE, BROKEN_LINK, LOOP, AGAIN = (
    "cannot be read",
    "link to nothing",
    "link to a folder above",
    "the same file again",
)
ARCHIVE, HIDDEN, IMAGE, NOTE, UNKNOWN, EMPTY, SPECIAL = (
    "archive, unpack it", "hidden", "image", "no video by its ending", "no video by its content", "empty folder", "pipe or device"
)  # fmt: skip
SYSTEM, BESIDE_VIDEO = "folder of the system", "images of the video beside them"
HARMLESS = frozenset({HIDDEN, IMAGE, NOTE, AGAIN, LOOP, SYSTEM, BESIDE_VIDEO})
"""The reasons that nobody needs to act on."""


@dataclass(frozen=True)
class IgnoredFile:
    """A file or folder that was not taken for a video, with the reason."""

    path: str
    reason: str

    @property
    def is_harmless(self) -> bool:
        """True if the data are complete without it."""
        return self.reason in HARMLESS


@dataclass
class FoundVideos:
    """The videos and folders of images below a folder, sorted, and the files that were left out."""

    videos: list[str] = field(default_factory=list)
    left_out: list[IgnoredFile] = field(default_factory=list)


def find_videos(folder: str | os.PathLike[str]) -> list[str]:
    """Return every video below a folder, sorted. Hidden files are left out.

    If the folder itself holds images and there are no videos, it is a video of frames, and is returned alone.
    """
    return search(folder).videos


def search(folder: str | os.PathLike[str], *, is_action: bool = False) -> FoundVideos:
    """Return the videos below a folder, and the files that were left out.

    Links are followed, and each file is taken once. A folder of two or more images is a video of frames if no video file lies in it
    or below.

    Args:
        folder: The folder to search.
        is_action: True for the folder of an action. Its own images are pictures of the action, not the frames of one video. Without
            it, the folder itself is a video of frames even if it holds a single image.
    """
    top = os.fspath(folder)
    walk = _Walk()
    walk.run(top)
    walk.take_frames(top, fewest=sys.maxsize if is_action else 1)
    walk.found.videos.sort(key=_parts)
    return walk.found


def counted_reasons(left_out: Iterable[IgnoredFile]) -> str:
    """Return a line such as `3 no video by its ending (.txt 2, .json 1), 1 hidden`; empty if nothing was left out."""
    reasons: dict[str, list[str]] = {}
    for file in left_out:
        reasons.setdefault(file.reason, []).append(file.path)
    return ", ".join(f"{len(paths)} {reason}{_examples(reason, paths)}" for reason, paths in reasons.items())


def is_video_name(name: str) -> bool:
    """Return True if a file name ends like that of a video."""
    return _ending(name) in VIDEO_SUFFIXES


def _examples(reason: str, paths: Sequence[str]) -> str:
    if reason in (NOTE, UNKNOWN):
        endings = Counter(_ending(path) or "no ending" for path in paths).most_common(4)
        return f" ({', '.join(f'{ending} {count}' for ending, count in endings)})"
    return "" if reason in (HIDDEN, IMAGE) else f" ({paths[0]}{', ...' if len(paths) > 1 else ''})"


class _Walk:
    """A search for videos. Folders wait in a list, not on the call stack, because trees may be deep."""

    def __init__(self) -> None:
        self.found = FoundVideos()
        self._images: dict[str, list[str]] = {}
        self._files: set[tuple[int, int]] = set()
        self._folders: set[str] = set()
        self._waiting: list[str] = []

    def run(self, top: str) -> None:
        """Find the video files and the images in `top` and each folder below it."""
        self._waiting = [top]
        while self._waiting:
            folder = self._waiting.pop()
            real = os.path.realpath(folder)
            if leads_up(folder, real):  # following it would never end
                self._leave(folder, LOOP)
            elif real in self._folders:
                self._leave(folder, AGAIN)
            else:
                self._folders.add(real)
                self._search_folder(folder)

    def _search_folder(self, folder: str) -> None:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            self._leave(folder, UNREADABLE)
            return
        if not entries:
            self._leave(folder, EMPTY)
        for entry in entries:
            if is_clutter(entry.name):
                continue
            if entry.name.startswith("."):
                self._leave(entry.path, HIDDEN)
            elif is_system_folder(entry.name) and _is_folder(entry):
                self._leave(entry.path, SYSTEM)
            elif _is_folder(entry):
                self._waiting.append(entry.path)
            elif not (reason := _why_not(entry, self._files)):
                self.found.videos.append(entry.path)
            elif reason == IMAGE:
                self._images.setdefault(folder, []).append(entry.path)
            else:
                self._leave(entry.path, reason)

    def take_frames(self, top: str, fewest: int) -> None:
        """Add the folders of images that are videos of frames, and leave out the images of all others.

        No video file lies in such a folder or below it, and the folder lies in no other one that was added. It has two or more
        images, and no video file of its name lies beside it; `top` has `fewest` or more.
        """
        stems = {os.path.splitext(path)[0] for path in self.found.videos}
        beside = {os.path.dirname(path) for path in self.found.videos}
        with_videos = {parent for path in self.found.videos for parent in _parents(path, top)}
        taken: set[str] = set()
        below = [folder for folder in self._images if folder != top]
        for folder in sorted(below, key=_parts):  # a folder comes before those in it
            parent, name = os.path.split(folder)
            if folder in stems or (name.lower() in PREVIEWS and parent in beside):
                self._leave(folder, BESIDE_VIDEO)
                continue
            enough = len(self._images[folder]) >= 2 and folder not in with_videos
            if enough and not taken.intersection(_parents(folder, top)):
                taken.add(folder)
                self.found.videos.append(folder)
            else:
                for path in self._images[folder]:
                    self._leave(path, IMAGE)
        if images := self._images.get(top):
            if len(images) >= fewest and not self.found.videos:
                self.found.videos.append(top)
            else:
                for path in images:
                    self._leave(path, IMAGE)

    def _leave(self, path: str, reason: str) -> None:
        self.found.left_out.append(IgnoredFile(path, reason))


def is_clutter(name: str) -> bool:
    """Return True if operating systems put files of this name into people's folders."""
    return name.lower() in CLUTTER or name.startswith("._")


def is_system_folder(name: str) -> bool:
    """Return whether systems keep folders of this name among people's."""
    return name.lower() in SYSTEM_FOLDERS


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _why_not(entry: os.DirEntry[str], seen: set[tuple[int, int]]) -> str:
    """Return the reason to leave a file out; empty if it is a video, which is then added to `seen` (device and inode)."""
    try:
        status = os.stat(entry.path)
    except OSError:
        return BROKEN_LINK if entry.is_symlink() else UNREADABLE
    if not os.path.isfile(entry.path):
        return SPECIAL
    if reason := why_no_video(entry.path, entry.name):
        return reason
    if (status.st_dev, status.st_ino) in seen:
        return AGAIN
    seen.add((status.st_dev, status.st_ino))
    return ""


def why_no_video(path: str, name: str) -> str:
    """Return the reason why a file is no video, by its ending or, if that says nothing, by its first bytes; empty if it is one."""
    ending = _ending(name)
    if ending in VIDEO_SUFFIXES - {".ogg"}:
        return ""  # a file that is named like a video and cannot be read as one fails later, with the decoder's reason
    if ending in ARCHIVE_SUFFIXES:
        return ARCHIVE
    if ending in NOTE_SUFFIXES:
        return NOTE
    if ending in IMAGE_SUFFIXES - {".avif", ".webp"}:  # which may be animations
        return IMAGE
    try:
        with open(path, "rb") as file:
            start = file.read(START_BYTES)
    except OSError:
        return UNREADABLE
    if ending == ".webp":
        return "" if start[12:16] == b"VP8X" and start[20] & 2 else IMAGE
    return "" if looks_like_video(start) else UNKNOWN


def looks_like_video(start: bytes) -> bool:
    """Return True if a file's first bytes are those of a video."""
    if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return not start[8:12].startswith(SOUND_AND_STILL_BRANDS)
    if start.startswith(b"RIFF"):
        return start[8:12] == b"AVI "
    if start.startswith(b"OggS"):
        return b"theora" in start or b"OVP80" in start
    if start.startswith(b"\x89PNG"):
        return b"acTL" in start  # an animated PNG
    if start.startswith(b"YUV4MPEG2 "):
        return True
    # Packets of an MPEG transport stream are 188 bytes long and begin with 0x47. On Blu-ray 4 bytes of time stand before each.
    is_transport = len(start) > 376 and all(start[at] == 0x47 for at in (0, 188, 376))
    is_blu_ray = len(start) > 388 and all(start[at] == 0x47 for at in (4, 196, 388))
    return is_transport or is_blu_ray or start.startswith(SIGNATURES)


def leads_up(folder: str, real: str) -> bool:
    """Return True if a folder is a link to one above itself. `real` is the folder's real path."""
    parent = os.path.realpath(os.path.dirname(folder) or ".")
    return os.path.islink(folder) and (parent == real or parent.startswith(real.rstrip(os.sep) + os.sep))


def _parents(path: str, top: str) -> list[str]:
    """Return the folders above a path, up to and with `top`."""
    parents = []
    while path != top and (path := os.path.dirname(path)):
        parents.append(path)
    return parents


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _parts(path: str) -> list[str]:
    return path.split(os.sep)
