"""Every real video is read, and its frames are those of decoding everything."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from fewframes.data.folders import find_videos
from fewframes.sampling import centre_times
from fewframes.video.decode.container import MAX_PIXELS
from fewframes.video.pictures.arrays import frame_of_pixels
from fewframes.video.pictures.display import Display
from fewframes.video.source import open_video


def frames_by_decoding_everything(path: str, times_s: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The slow way: all frames in order of showing, timed by the decode clock in AVI, else by presentation time."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        display = Display(path, MAX_PIXELS)
        display.begin(stream)
        frames = list(container.decode(stream))
        geometries = [display.geometry(frame) for frame in frames]
        stamps = [frame.dts if container.format.name == "avi" else frame.pts for frame in frames]
        known = [stamp for stamp in stamps if stamp is not None]
        rate = 1 / (stream.average_rate or 25)
        starts = [
            float(
                (stamp if stamp is not None else known[-1] + (index - len(known) + 1) * rate / stream.time_base)
                - known[0]
            )
            for index, stamp in enumerate(stamps)
        ]
        starts_s = np.asarray(starts, np.float64) * float(stream.time_base)
    shown = (np.searchsorted(starts_s, times_s + 1e-6, side="right") - 1).clip(min=0)
    return np.stack([frame_of_pixels(display.pixels(frames[index], geometries[index])) for index in shown.tolist()])


@pytest.mark.parametrize("folder", ["clips", "ut_interaction", "fir_rgb"])
def test_frames_are_exact(shared: Path, folder: str) -> None:
    paths = find_videos(shared / "data" / folder)
    assert len(paths) == {"clips": 6, "ut_interaction": 120, "fir_rgb": 288}[folder]
    for path in paths if folder == "clips" else paths[::6]:
        with closing(open_video(path)) as video:
            times_s = centre_times(video.duration_s, 16)
            clip = video.frames_at(times_s)
        assert np.array_equal(clip.frames, frames_by_decoding_everything(path, times_s)), path
        assert (times_s - clip.times_s).max() < 0.6
        assert (times_s - clip.times_s).min() > -1e-6


@pytest.mark.parametrize("folder", ["ut_interaction", "fir_rgb"])
def test_all_can_be_read(shared: Path, folder: str) -> None:
    for path in find_videos(shared / "data" / folder):
        with closing(open_video(path)) as video:
            assert 0.4 < video.duration_s < 60
            assert len(video.frames_at(centre_times(video.duration_s, 4)).frames) == 4
