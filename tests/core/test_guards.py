"""Open videos in the hands of several threads and processes, and after they are closed."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewframes.core.guards import Guard, keep_in_forks
from fewframes.errors import VideoError
from fewframes.video.source import open_video

TIMES_S = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)


@pytest.fixture(scope="module", params=["video", "animation"])
def source(request: pytest.FixtureRequest, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "video":
        return videos / "a.mp4"
    path = tmp_path_factory.mktemp("animation") / "a.webp"
    first, *others = (Image.new("RGB", (32, 32), (20 * number, 0, 0)) for number in range(12))
    first.save(path, save_all=True, append_images=others, duration=100, lossless=True)
    return path


def test_threads_that_share_a_video_see_its_frames(source: Path) -> None:
    with closing(open_video(source)) as video, ThreadPoolExecutor(4) as pool:
        alone = video.frames_at(TIMES_S).frames
        together = pool.map(lambda _: video.frames_at(TIMES_S).frames, range(24))
        assert all(np.array_equal(frames, alone) for frames in together)


def test_a_video_is_closed_under_a_thread_that_reads_it(source: Path) -> None:
    video, begun, said = open_video(source), threading.Event(), list[str]()

    def read_on() -> None:
        try:
            while True:
                video.frames_at(TIMES_S)
                begun.set()
        except VideoError as error:
            said.append(str(error))

    reading = threading.Thread(target=read_on)
    reading.start()
    begun.wait(30)
    video.close()
    video.close()
    reading.join(30)
    assert said == [f"{source}: the video is closed; open it again"]


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_a_video_is_not_read_in_a_forked_process(source: Path) -> None:
    with closing(open_video(source)) as video:
        alone = video.frames_at(TIMES_S).frames
        child = os.fork()
        if child == 0:
            try:
                video.frames_at(TIMES_S)
            except VideoError as error:
                video.close()
                os._exit("opened by another process, before a fork; open it again" not in str(error))
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert np.array_equal(video.frames_at(TIMES_S).frames, alone)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forks_beside_threads_that_open_videos() -> None:
    """What a fork copies must not change under it: neither here nor in the child is anything said or left locked."""
    enough = threading.Event()

    def open_on() -> None:
        while not enough.is_set():
            keep_in_forks(Guard("a.mp4"))

    opening = [threading.Thread(target=open_on) for _ in range(3)]
    for thread in opening:
        thread.start()
    codes = []
    for _ in range(20):
        child = os.fork()
        if child == 0:
            keep_in_forks(Guard("b.mp4"))
            os._exit(0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    enough.set()
    for thread in opening:
        thread.join()
    assert codes == [0] * 20
