"""Tell whether a GIF is cut short, because FFmpeg's decoder does not notice when the last picture is cut."""

from __future__ import annotations

from typing import IO

HEADER_BYTES, IMAGE_BYTES = 13, 9
"""The lengths of the file's header and of an image's header."""
EXTENSION, IMAGE, END = 0x21, 0x2C, 0x3B
"""The first bytes of the blocks of a GIF."""
CONTROL = 0xF9
"""The label of the extension that says how long the image after it is shown."""
TABLE, TABLE_SIZE = 0x80, 0x07
"""Bits of the flags before a table of colours: whether there is one, and its size n (3 * 2^(n + 1) bytes)."""


def is_cut(file: IO[bytes]) -> bool:
    """Return whether a GIF ends within an image.

    What follows its end mark is ignored, because writers pad with zeros. The mark itself may be missing, because writers forget it.
    The file is read from its start.
    """
    file.seek(0)
    header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or not _pass(file, _table_bytes(header[-3])):
        return True
    awaits_image = True
    while kind := file.read(1):
        if kind[0] == END:
            break
        if kind[0] == EXTENSION:
            label = file.read(1)
            if not label or not _pass_blocks(file):
                return True
            awaits_image = awaits_image or label[0] == CONTROL
        elif kind[0] == IMAGE:
            image = file.read(IMAGE_BYTES)
            whole = len(image) == IMAGE_BYTES and _pass(file, _table_bytes(image[-1]) + 1) and _pass_blocks(file)
            if not whole:
                return True
            awaits_image = False
        elif kind[0] != 0:  # zeros between blocks are padding
            return True
    return awaits_image


def _table_bytes(flags: int) -> int:
    """Return the length of the table of colours that follows a header with these flags."""
    return 3 * 2 ** ((flags & TABLE_SIZE) + 1) if flags & TABLE else 0


def _pass_blocks(file: IO[bytes]) -> bool:
    """Skip the blocks of an image or extension, up to the empty one. Return False if the file ends before."""
    while size := file.read(1):
        if size[0] == 0:
            return True
        if not _pass(file, size[0]):
            return False
    return False


def _pass(file: IO[bytes], num_bytes: int) -> bool:
    """Skip some bytes. Return False if the file ends before."""
    return len(file.read(num_bytes)) == num_bytes
