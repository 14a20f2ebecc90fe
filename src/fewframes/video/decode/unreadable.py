"""Why a file is no video that can be read: by its first bytes, the boxes of an MP4, and its name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

ReadAt = Callable[[int, int], bytes]
"""(offset, size) -> at most so many bytes of the file from there."""

SHOWN_BYTES, SNIFFED_BYTES = 16, 4096
MOST_BOXES = 10_000
"""Boxes of an MP4 that are stepped over; a long fragmented recording has two a second."""
BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"sidx", b"moof", b"pnot", b"emsg"})
"""What an MP4 begins with."""
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
    (0, b"\x00\x05\x16\x07", "what macOS keeps beside a file (AppleDouble), without a video; name the file without ._"),
    (0, b"bplist00", "a property list of macOS, such as iCloud's placeholder; open the file there to download it"),
    (0, b"Salted__", "encrypted by OpenSSL; decrypt it first"),
)
"""What other kinds of files begin with: where, the bytes, and what to say."""
PARTS = "give the files that it names"
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
    (r"\[internetshortcut\]|https?://\S+\s*$", "an address as text, not the video; name the address itself"),
    (r"#EXTM3U", f"an HLS or M3U playlist, and files open no others; {PARTS}, or `fewframes stream` its http address"),
    (r"ffconcat version|(#.*\n\s*)*file\s+['\"]?\S", f"a list of FFmpeg's (concat), and files open no others; {PARTS}"),
    (r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<mpd[\s>]", "a DASH manifest, and files open no others; give a whole video"),
    (r"v=0\r?\no=", "a session description (SDP) of a network stream; `fewframes stream` its rtsp:// address"),
    (r"\[playlist\]|\[reference\]|<asx|<smil|(<\?xml[^>]*>\s*)?<playlist", f"a playlist; {PARTS}"),
    (r"webvtt|\d+\r?\n\d\d:\d\d:\d\d,\d{3} -->|\[script info\]", "subtitles without pictures; name the video"),
)
"""What texts begin with, upper case or lower, and what to say."""
STILLS = (b"heic", b"heix", b"mif1", b"avif")
"""Brands of single pictures in the container of MP4."""
UNFINISHED = frozenset(".part .crdownload .download .opdownload .partial .!qb .!ut .aria2 .tmp".split())
"""Endings that programs give to what they have not wholly downloaded."""


def why_unreadable(read: ReadAt, size_bytes: int, name: str) -> str:
    """Return what kind of file this is instead of a video, and what helps; empty where nothing is known of it."""
    start = read(0, SNIFFED_BYTES)
    if not start:
        return "empty (0 bytes); copy or download it again"
    if os.path.splitext(name)[1].lower() in UNFINISHED:
        return "by its ending not wholly downloaded; wait for its end, or download it again"
    if start[4:8] in BOXES:
        return _why_no_mp4(read, size_bytes)
    if not start.strip(b"\0"):
        return (
            f"nothing but zeros at its start ({size_bytes} bytes): never written to its end, or the placeholder of a cloud "
            "folder; download it, or copy it again"
        )
    known = [words for offset, signature, words in SIGNATURES if start[offset:].startswith(signature)]
    if known:
        return known[0]
    text = _text_of(start).lstrip()
    return next((words for pattern, words in TEXTS if re.match(pattern, text, re.IGNORECASE | re.DOTALL)), "")


def looks_like(read: ReadAt, size_bytes: int) -> str:
    """Return how a file begins, for what is not known."""
    start = read(0, 64)
    text = _text_of(start)
    readable = sum(character.isprintable() or character.isspace() for character in text) > 0.95 * len(text)
    kind = "text" if readable and "\ufffd" not in text[:-1] else "data"
    return f"{size_bytes} bytes of {kind} that begin {start[:SHOWN_BYTES]!r}"


def _why_no_mp4(read: ReadAt, size_bytes: int) -> str:
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
    """Return the names of the outermost boxes of an MP4, and where the last one ends by its own word."""
    names: set[str] = set()
    end = 0
    for _ in range(MOST_BOXES):
        head = read(end, 16)
        if len(head) < 8:
            break
        size = int.from_bytes(head[:4], "big")
        size = {0: size_bytes - end, 1: int.from_bytes(head[8:16], "big")}.get(size, size)
        if size < 8:
            break
        names.add(head[4:8].decode("latin-1"))
        end += size
    return names, end


def _text_of(start: bytes) -> str:
    """Return the text that these bytes are, or whatever is like it."""
    encoding = "utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    return start.decode(encoding, errors="replace")
