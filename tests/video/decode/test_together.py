"""Several decoders share the timestamps of one file: the same frames, times and errors as one decoder has."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fewframes.errors import VideoError
from fewframes.video.decode.container import ContainerIndex
from fewframes.video.decode.decoder import FileVideo
from fewframes.video.decode.key_frames import KeyFrames
from fewframes.video.source import open_video
from helpers.numbered import drifting

NUM_FRAMES, GOP, SIZE_PX = 250, 25, 160
TIMES_T = np.random.default_rng(0).permutation((np.arange(25) + 0.9) * 0.4)
"""In no order; one timestamp near the end of each group of pictures or its middle, so that nearly all are decoded."""


@pytest.fixture(
    scope="module", params=[("libx264", ".mp4"), ("libvpx-vp9", ".webm"), ("libx264", ".avi")], ids=lambda of: of[1]
)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    codec, suffix = request.param
    options = {"deadline": "realtime", "cpu-used": "8"} if "vp9" in codec else {}
    return drifting(
        tmp_path_factory.mktemp("together") / f"v{suffix}", codec, NUM_FRAMES, gop=GOP, options=options, size=SIZE_PX
    )


@pytest.mark.parametrize("threads", [2, 3])
def test_several_decoders_have_the_frames_of_one(path: Path, threads: int) -> None:
    with closing(open_video(path, threads=1)) as video:
        alone = video.frames_at(TIMES_T, lambda frame: frame[:, ::2, ::2])
    with closing(open_video(path, threads=threads)) as video:
        assert isinstance(video, FileVideo)
        parts = video._parts(sorted(TIMES_T.tolist()))
        assert len(parts) == threads
        assert [time_s for part in parts for time_s in part] == sorted(TIMES_T.tolist())
        for _ in range(2):
            together = video.frames_at(TIMES_T, lambda frame: frame[:, ::2, ::2])
            assert np.array_equal(together.frames, alone.frames)
            assert together.frames.strides == alone.frames.strides
            assert together.times_s.tolist() == alone.times_s.tolist()
        assert video.frames_at([0.1, 0.1]).frames.shape[0] == 2  # one decoder again


def test_all_decoders_end_with_the_video(path: Path) -> None:
    with closing(open_video(path, threads=3)) as video:
        video.frames_at(TIMES_T)
        assert isinstance(video, FileVideo)
        sessions = [twin._session for twin in video._twins.values()]
        assert len(sessions) == 3
        assert all("source" in vars(session) for session in sessions)
    assert not any("source" in vars(session) for session in sessions)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fewframes-decode")]


def test_a_picture_that_is_damaged_is_named_as_with_one_decoder(tmp_path: Path) -> None:
    path = drifting(tmp_path / "v.mp4", "libx264", NUM_FRAMES, gop=GOP, options={}, size=SIZE_PX)
    data = bytearray(path.read_bytes())
    middle = len(data) * 6 // 10
    data[middle : middle + 3000] = bytes(3000)
    path.write_bytes(data)
    said = []
    for threads in (1, 2):
        with closing(open_video(path, threads=threads)) as video, pytest.raises(VideoError) as error:
            video.frames_at(TIMES_T)
        said.append(str(error.value))
    assert said[0] == said[1]
    assert "is damaged" in said[0]


def test_what_cannot_be_divided_has_one_decoder(path: Path, tmp_path: Path) -> None:
    def num_parts(video: object, times_s: list[float]) -> int:
        assert isinstance(video, FileVideo)
        return len(video._parts(times_s))

    everything = sorted(TIMES_T.tolist())
    with closing(open_video(path, threads=4)) as video:
        assert num_parts(video, everything) == 4
        assert num_parts(video, everything[:2]) == 1  # few pictures
        assert num_parts(video, everything[-1:]) == 1  # one run
    with closing(open_video(path, threads=1)) as video:
        assert num_parts(video, everything) == 1
    with open(path, "rb") as file, closing(open_video(file, threads=4)) as video:
        assert num_parts(video, everything) == 1  # it has one position
    one_key = drifting(
        tmp_path / "v.mp4", "libx264", NUM_FRAMES, gop=NUM_FRAMES, options={"sc_threshold": "0"}, size=SIZE_PX
    )
    cheap = drifting(tmp_path / "cheap.mp4", "mpeg4", NUM_FRAMES, gop=GOP, options={}, size=SIZE_PX)
    for one in (one_key, cheap):
        with closing(open_video(one, threads=4)) as video:
            assert num_parts(video, everything) == 1


def test_no_decoder_is_left_with_nothing() -> None:
    """Two long runs may lie around the share of a decoder, which then has none. Seen with eight decoders."""
    works_s, frame_s = [1.3, 1.3, 1.3, 1.0, 1.0, 1.0, 0.55, 0.55], 0.04
    keys_s = [10.0 * number for number in range(len(works_s))]
    times_s = [key_s + work_s - frame_s for key_s, work_s in zip(keys_s, works_s, strict=True)]
    source = SimpleNamespace(tick_s=0.001, frame_s=frame_s)
    keys = KeyFrames(ContainerIndex(0.0, keys_s, 90.0, 0.1), source, 0.0, [])  # type: ignore[arg-type]
    parts = keys.parts(times_s, 8, 64)
    assert [time_s for part in parts for time_s in part] == times_s
    assert [len(part) for part in parts] == [1, 1, 1, 1, 1, 1, 2]
