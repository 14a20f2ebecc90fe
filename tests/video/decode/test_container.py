"""Nothing of a video stays in memory when it is closed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from helpers.numbered import Numbered

READS = """
import ctypes, gc, sys
from contextlib import closing
from fewframes.video.source import open_video

class Figures(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "a b c d mapped f g in_use h i".split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Figures

def read(count):
    for _ in range(count):
        with closing(open_video(sys.argv[1], threads=1)) as video:
            video.frames_at([0.1, 0.5])
    gc.collect()
    figures = libc.mallinfo2()
    return figures.in_use + figures.mapped

before = read(200)
print((read(600) - before) / 600)
"""


def test_memory_is_flat_over_many_videos(tmp_path: Path) -> None:
    video = Numbered(times_ms=range(0, 1000, 40)).write(tmp_path / "v")
    done = subprocess.run([sys.executable, "-c", READS, video], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 60  # bytes a video; a generator that is dropped keeps 150, and a video has several
