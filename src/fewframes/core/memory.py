"""Settings of the memory allocator of this process."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""The numbers of two parameters of mallopt, from malloc.h."""


def keep_memory() -> None:
    """Let malloc keep memory that the network frees, instead of fetching zeroed memory again for each layer (docs/decisions).

    Only processes of the command may call this, because they are its own; a library must not change the allocator. Without
    glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    # Older versions of glibc refuse more than 2**25.
    mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
