"""How this process holds memory."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt, from malloc.h."""


def keep_memory() -> None:
    """Let malloc keep what the network frees, instead of fetching it zeroed again for each layer (docs/decisions.md).

    The command owns its process and may; a library may not. Without glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)  # older glibc refuses more
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
