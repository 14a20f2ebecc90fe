"""Explain why a file cannot be read as a video, by its first bytes, the boxes of an MP4, and its name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

ReadAt = Callable[[int, int], bytes]
"""A function of (offset, size) that returns at most `size` bytes of the file from `offset` on."""

SHOWN_BYTES, SNIFFED_BYTES = 16, 4096
MOST_BOXES = 10_000
"""The most boxes of an MP4 that are stepped over. A long fragmented recording has two a second."""
BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"sidx", b"moof", b"pnot", b"emsg"})
"""The boxes that an MP4 may begin with."""
SIGNATURES = (
    (0, b"PK\x03\x04", "a ZIP archive; unpack it, and name the video inside"),
    (0, b"\x1f\x8b", "a gzip archive; unpack it, and name the video inside"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it, and name the video inside"),
    (0, b"Rar!\x1a\x07", "a RAR archive; unpack it, and name the video inside"),
    (0, b"\xfd7zXZ\x00", "an xz archive; unpack it, and name the video inside"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive; unpack it, and name the video inside"),
    (257, b"ustar", "a tar archive; unpack it, and name the videos inside"),
    (0, b"%PDF", "a PDF document; name a video"),
    (0, b"\x93NUMPY", "an array of NumPy; load it with numpy.load, and pass the frames in Python"),
    (0, b"\x00\x05\x16\x07", "metadata of macOS (AppleDouble), not the video; name the file without ._"),
    (0, b"bplist00", "a property list of macOS, such as iCloud's placeholder; open the file there to download it"),
    (0, b"Salted__", "encrypted by OpenSSL; decrypt it first"),
)
"""The first bytes of other kinds of files: the offset, the bytes, and what the error says."""
PARTS = "pass the files that it names"
TEXTS = (
    (
        r"(<!--.*?-->\s*)*<(!doctype html|html|head|body|title|script)\b",
        "a web page (HTML), not the video: its download may need a login; download it again",
    ),
    (r"version https://git-lfs", "a pointer of Git LFS, not the video; fetch it with: git lfs pull"),
    (r"(\.\./)*(\.git)?/annex/objects/", "a pointer of git-annex, not the video; fetch it with: git annex get"),
    (
        r"(<\?xml[^>]*>\s*)?<error\b|\{\s*\"",
        "the answer of a server (XML or JSON), not the video; read it, and download it again",
    ),
    (r"\[internetshortcut\]|https?://\S+\s*$", "an address as text, not the video; pass the address itself"),
    (
        r"#EXTM3U",
        f"an HLS or M3U playlist, which is not followed; {PARTS}, or run `fewframes stream` on its http address",
    ),
    (
        r"ffconcat version|(#.*\n\s*)*file\s+['\"]?\S",
        f"a list of files for FFmpeg (concat), which is not followed; {PARTS}",
    ),
    (r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<mpd[\s>]", "a DASH manifest, which is not followed; pass a whole video"),
    (r"v=0\r?\no=", "a session description (SDP) of a network stream; run `fewframes stream` on its rtsp:// address"),
    (r"\[playlist\]|\[reference\]|<asx|<smil|(<\?xml[^>]*>\s*)?<playlist", f"a playlist; {PARTS}"),
    (r"webvtt|\d+\r?\n\d\d:\d\d:\d\d,\d{3} -->|\[script info\]", "subtitles without pictures; name the video"),
)
"""Regular expressions for how text files begin, in any case of letters, and what the error says."""
STILLS = (b"heic", b"heix", b"mif1", b"avif")
"""Brands of single pictures in the container of MP4."""
UNFINISHED = frozenset(".part .crdownload .download .opdownload .partial .!qb .!ut .aria2 .tmp".split())
"""File name endings that programs give to downloads that are not complete."""


def why_unreadable(read: ReadAt, size_bytes: int, name: str) -> str:
    """Return what kind of file this is instead of a video, and what helps; empty if its kind is not known.

    Args:
        read: a function that reads the file.
        size_bytes: the size of the file.
        name: the name of the file.
    """
    start = read(0, SNIFFED_BYTES)
    if not start:
        return "empty (0 bytes); copy or download it again"
    if os.path.splitext(name)[1].lower() in UNFINISHED:
        return "an unfinished download by its ending; wait until it is complete, or download it again"
    if start[4:8] in BOXES:
        return _why_no_mp4(read, size_bytes)
    if not start.strip(b"\0"):
        return (
            f"nothing but zeros at its start ({size_bytes} bytes): it was never fully written, or is the placeholder of a "
            "cloud folder; download it, or copy it again"
        )
    known = [words for offset, signature, words in SIGNATURES if start[offset:].startswith(signature)]
    if known:
        return known[0]
    text = _text_of(start).lstrip()
    return next((words for pattern, words in TEXTS if re.match(pattern, text, re.IGNORECASE | re.DOTALL)), "")


def looks_like(read: ReadAt, size_bytes: int) -> str:
    """Return how a file of an unknown kind begins: as text or data, and its first bytes."""
    start = read(0, 64)
    text = _text_of(start)
    readable = sum(character.isprintable() or character.isspace() for character in text) > 0.95 * len(text)
    kind = "text" if readable and "\ufffd" not in text[:-1] else "data"
    return f"{size_bytes} bytes of {kind} that begin {start[:SHOWN_BYTES]!r}"


def _why_no_mp4(read: ReadAt, size_bytes: int) -> str:
    """Return what is missing of an MP4, and what helps; empty if no box is missing."""
    if read(4, 8).startswith(tuple(b"ftyp" + brand for brand in STILLS)):
        return "a picture (HEIC or AVIF), not a video; save it as JPEG or PNG"
    boxes, end = _boxes(read, size_bytes)
    if "moov" in boxes:
        if end > size_bytes:
            return f"an MP4 that is cut short ({size_bytes} bytes of the {end} that it announces); copy it again"
        return ""
    if boxes & {"moof", "styp", "sidx"}:
        return (
            "a fragment of an MP4 without its beginning (no moov box); put its initialisation segment before it: "
            "cat init.mp4 segments > whole.mp4"
        )
    return (
        f"an MP4 without its index (no moov box in {size_bytes} bytes): the recording was never closed, or the file is cut "
        "short; copy it again, or repair it with a tool such as untrunc"
    )


def _boxes(read: ReadAt, size_bytes: int) -> tuple[set[str], int]:
    """Return the names of the outermost boxes of an MP4, and the offset at which the last one ends by its own size."""
    names: set[str] = set()
    end = 0
    for _ in range(MOST_BOXES):
        head = read(end, 16)
        if len(head) < 8:
            break
        size = int.from_bytes(head[:4], "big")
        # The size 0 stands for "to the end of the file", and 1 for a longer number behind the name.
        size = {0: size_bytes - end, 1: int.from_bytes(head[8:16], "big")}.get(size, size)
        if size < 8:
            break
        names.add(head[4:8].decode("latin-1"))
        end += size
    return names, end


def _text_of(start: bytes) -> str:
    """Return these bytes as text; bytes that are no text become replacement characters."""
    encoding = "utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    return start.decode(encoding, errors="replace")
