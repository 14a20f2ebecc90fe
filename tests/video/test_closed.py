"""Closed videos give back threads and memory at once, and not when Python happens to collect."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest

from fewframes.errors import VideoError
from fewframes.video.source import open_video
from helpers.forked import lines_of
from helpers.numbered import Numbered

FULL_HD = {"width": 1920, "height": 1080, "times_ms": tuple(range(0, 400, 40))}
KINDS = {
    "mp4": Numbered(**FULL_HD),  # type: ignore[arg-type]
    "interlaced": Numbered(codec="mpeg2video", suffix=".mpg", options={"flags": "+ilme+ildct"}, **FULL_HD),  # type: ignore[arg-type]
    "broken": Numbered(suffix=".ts", format="mpegts", **FULL_HD),  # type: ignore[arg-type]
    "no video": None,
}
"""How each kind of file is written; the broken one is cut afterwards."""

CLOSED = """
import gc, os, sys, time
from contextlib import closing
import fewframes
from fewframes.video.live_settings import StreamConfig
from fewframes.video.live import LiveReader

path, way = sys.argv[1:]
CLASSES = ("av", "fewframes", "PIL")


def use():
    try:
        if way == "live":
            with closing(LiveReader(path, StreamConfig(), 0.1, lambda frame: frame)) as reader:
                while reader.take(9, 0.1) is not None:
                    pass
        else:
            with closing(fewframes.open_video(path)) as video:
                video.frames_at([0.0, 0.2])
                video.steps(), video.check(0.0, 0.2)
    except fewframes.FewframesError:
        pass


def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


for _ in range(4):
    use()
gc.collect()
gc.disable()
threads, before_mb = len(os.listdir("/proc/self/task")), resident_mb()
for _ in range(24):
    use()
more_mb = resident_mb() - before_mb
until = time.monotonic() + 10  # a thread that ends counts until the system has time for it
while (more_threads := len(os.listdir("/proc/self/task")) - threads) > 0 and time.monotonic() < until:
    time.sleep(0.05)
gc.set_debug(gc.DEBUG_SAVEALL)
gc.collect()
left = sorted({type(one).__qualname__ for one in gc.garbage if type(one).__module__.partition(".")[0] in CLASSES})
print(more_threads, "threads,", left)
print("flat" if more_mb < 40 else f"{more_mb:.0f} MB more")
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads and memory are read in /proc")
@pytest.mark.parametrize("way", ["open", "live"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_a_closed_video_waits_for_the_collector(kind: str, way: str, tmp_path: Path) -> None:
    how, path = KINDS[kind], tmp_path / "video.mp4"
    if how is None:
        path.write_bytes(b"no video" * 99)
    else:
        path = how.write(path)
    if kind == "broken":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    # 24 pictures of Full HD kept alive would be 71 MB or more.
    assert lines_of(CLOSED, str(path), way, timeout_s=120) == ["0 threads, []", "flat"]


def test_a_closed_video_of_pictures_lets_them_go() -> None:
    class Held(np.ndarray):  # a plain array takes no weak references
        pass

    pictures = [np.zeros((8, 8, 3), np.uint8).view(Held) for _ in range(3)]
    held = [weakref.ref(picture) for picture in pictures]
    video = open_video(pictures)
    assert video.frames_at([0.0]).frames.shape == (1, 3, 8, 8)
    del pictures
    assert all(ref() is not None for ref in held)
    video.close()
    video.close()
    assert all(ref() is None for ref in held)
    with pytest.raises(VideoError, match="the video is closed"):
        video.frames_at([0.0])
