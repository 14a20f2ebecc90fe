"""What is left out of a video when some of its frames are wanted: never what they build on, and never more than is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewframes.video.decode.codecs.unused import Test, left_out_test
from fewframes.video.decode.session import DecoderSession
from fewframes.video.source import open_video, read_frames
from helpers.numbered import drifting

NUM_FRAMES, FPS = 75, 25
KINDS = {
    "h264": ("libx264", ".mp4", {"preset": "veryfast", "bf": "3"}),
    "h264-annexb": ("libx264", ".ts", {"preset": "veryfast", "bf": "2"}),
    "h264-open-gop": ("libx264", ".mkv", {"preset": "veryfast", "bf": "3", "x264-params": "open-gop=1"}),
    "hevc": ("libx265", ".mp4", {"preset": "ultrafast", "x265-params": "bframes=4:log-level=none"}),
    "hevc-layers": ("libx265", ".mkv", {"preset": "ultrafast", "x265-params": "bframes=4:temporal-layers=3:log-level=none"}),
    "hevc-annexb": ("libx265", ".ts", {"preset": "ultrafast", "x265-params": "bframes=4:log-level=none"}),
    "av1": ("libsvtav1", ".mp4", {"preset": "10"}),
    "mpeg4": ("mpeg4", ".mp4", {"bf": "2"}),
    "mpeg2": ("mpeg2video", ".ts", {"bf": "2"}),
    "vp9": ("libvpx-vp9", ".webm", {"cpu-used": "8", "deadline": "realtime"}),
}  # fmt: skip
READ_AGAIN = {"h264-open-gop": 35}
"""Pictures of groups that are read again from the key frame before it: behind a jump into it FFmpeg misses what it gives up."""
NOTHING_LEFT_OUT = {"vp9"}
TOLD_BY_REFERENCES = {"av1"}
"""Of these no packet tells by itself whether it can be left out; test_av1.py has more."""


@pytest.fixture(scope="module", params=KINDS)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, NDArray[np.uint8]]:
    """The kind, the file, and all its frames decoded one after the other (N, C, H, W)."""
    codec, suffix, options = KINDS[request.param]
    path = drifting(tmp_path_factory.mktemp("made") / f"video{suffix}", codec, NUM_FRAMES, gop=25, options=options)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == NUM_FRAMES
    return request.param, path, np.stack(frames).astype(np.uint8).transpose(0, 3, 1, 2)


def times(indices: list[int]) -> NDArray[np.float64]:
    return (np.array(indices, np.float64) + 0.5) / FPS


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(indices=st.lists(st.integers(0, NUM_FRAMES - 1), min_size=1, max_size=12), threads=st.sampled_from([1, 2]))
def test_the_same_frames_as_when_all_are_decoded(
    made: tuple[str, Path, NDArray[np.uint8]], indices: list[int], threads: int
) -> None:
    _, path, frames_NCHW = made
    with closing(open_video(path, threads=threads)) as video:
        clip = video.frames_at(times(indices))
        again = video.frames_at(times(indices[::-1]))  # with the file where the first reading left it
    assert np.array_equal(clip.frames, frames_NCHW[indices])
    assert np.array_equal(again.frames, frames_NCHW[indices[::-1]])
    expected_s = np.array(indices, np.float64) / FPS
    assert np.abs(clip.times_s - expected_s).max() < 2e-3


def test_what_nothing_builds_on_is_left_out_and_nothing_after_the_last_is_decoded(
    made: tuple[str, Path, NDArray[np.uint8]],
) -> None:
    kind, path, _ = made
    reading = read_frames(path, times([0, 40])).reading
    assert reading.frames_decoded + reading.frames_left_out <= 41 + 8 + READ_AGAIN.get(
        kind, 0
    )  # some lie before the last
    if kind in NOTHING_LEFT_OUT:
        assert reading.frames_left_out == 0
    else:
        assert reading.frames_left_out >= 3


def test_all_pictures_when_all_are_wanted(made: tuple[str, Path, NDArray[np.uint8]]) -> None:
    kind, path, frames_NCHW = made
    with closing(open_video(path, threads=1)) as video:
        clip = video.frames_at(times(list(range(NUM_FRAMES))))
    assert np.array_equal(clip.frames, frames_NCHW)
    most = NUM_FRAMES + 25 + READ_AGAIN.get(kind, 0)  # a key frame that is shown late may cost that once
    assert clip.reading.frames_decoded <= most


def test_a_packet_that_can_be_left_out_changes_nothing_else(made: tuple[str, Path, NDArray[np.uint8]]) -> None:
    """All that the test allows to go is dropped at once; what is left is as it was."""
    kind, path, frames_NCHW = made
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        unused = left_out_test(stream)
        kept = [packet for packet in container.demux(stream) if unused is None or not unused(bytes(packet))]
        frames = [frame for packet in kept for frame in packet.decode()]
        origin = min(frame.pts for frame in frames if frame.pts is not None)
        indices = [round(float((frame.pts - origin) * stream.time_base) * FPS) for frame in frames]  # type: ignore[operator]
    assert (len(indices) < NUM_FRAMES) == (kind not in NOTHING_LEFT_OUT | TOLD_BY_REFERENCES)
    got_NCHW = np.stack([frame.to_ndarray(format="rgb24") for frame in frames]).transpose(0, 3, 1, 2)
    assert np.array_equal(got_NCHW, frames_NCHW[indices])


def test_promises_that_are_not_kept_lead_to_decoding_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test that lets needed pictures go gives wrong frames only if nobody compares."""
    path = drifting(tmp_path / "v.mp4", "libx264", NUM_FRAMES, gop=25, options={"bf": "3"})
    expected = read_frames(path, times([7, 33, 60])).frames
    wrong = DecoderSession._decode

    def losing(self: DecoderSession, *, from_start: bool) -> Iterator[object]:
        frames = wrong(self, from_start=from_start)
        return (shown for number, shown in enumerate(frames) if not self.wanted_s or number % 3)

    monkeypatch.setattr(DecoderSession, "_decode", losing)
    clip = read_frames(path, times([7, 33, 60]))
    assert np.array_equal(clip.frames, expected)


def test_a_picture_other_than_promised_leads_to_decoding_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder that loses a wanted picture would have the one before it taken for it."""
    path = drifting(tmp_path / "v.mp4", "libx264", NUM_FRAMES, gop=25, options={"bf": "0"})
    expected = read_frames(path, times([7, 33, 60])).frames
    decode = DecoderSession._decode

    def losing(self: DecoderSession, *, from_start: bool) -> Iterator[object]:
        frames = decode(self, from_start=from_start)
        return (shown for shown in frames if not self.wanted_s or abs(shown.start_s - 33 / FPS) > 0.01)

    monkeypatch.setattr(DecoderSession, "_decode", losing)
    for threads in (1, 2):
        with closing(open_video(path, threads=threads)) as video:
            assert np.array_equal(video.frames_at(times([7, 33, 60])).frames, expected)


def packets_of(kind: str, folder: Path) -> tuple[Test, list[bytes]]:
    """The test for a stream of this kind, and what its packets hold."""
    codec, suffix, options = KINDS[kind]
    path = drifting(folder / f"v{suffix}", codec, 30, gop=25, options=options)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        unused = left_out_test(stream)
        assert unused is not None
        return unused, [bytes(packet) for packet in container.demux(stream) if packet.size]


def test_hevc_pictures_of_a_lower_layer_stay(tmp_path: Path) -> None:
    """That their own layer does not refer to them says nothing of the layers above."""
    unused, packets = packets_of("hevc-layers", tmp_path)
    data = next(data for data in packets if unused(data))
    assert data[5] & 7 == 3  # behind four bytes of length and one with the type: the highest layer, counted from one
    for layer, can_go in ((1, False), (2, False), (3, True)):
        assert unused(data[:5] + bytes([data[5] & 0xF8 | layer]) + data[6:]) == can_go


def test_two_mpeg4_pictures_in_a_packet_stay(tmp_path: Path) -> None:
    """A packed bitstream has a B-picture in the packet of the one it builds on, in AVI files of DivX and Xvid."""
    unused, packets = packets_of("mpeg4", tmp_path)
    b_picture = next(data for data in packets if unused(data))
    p_picture = next(data for data in packets[1:] if not unused(data))
    assert not unused(p_picture + b_picture)
    assert not unused(b_picture + b_picture)


@pytest.mark.parametrize("kind", ["h264", "hevc", "mpeg4", "vp9"])
def test_key_frames_are_what_a_tolerance_of_half_takes(kind: str, tmp_path: Path) -> None:
    """Even where the index has the times of decoding and key frames are shown later than these."""
    codec, suffix, options = KINDS[kind]
    path = drifting(tmp_path / f"v{suffix}", codec, NUM_FRAMES, gop=15, options=options)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        keys = [packet.pts for packet in container.demux(stream) if packet.is_keyframe and packet.pts is not None]
        keys_s = [float((pts - keys[0]) * (stream.time_base or 0)) for pts in keys]
    times_T = np.array([0.3, 0.9, 1.5, 2.1, 2.7])
    clip = read_frames(path, times_T, tolerance_s=0.3)
    for wanted_s, shown_s in zip(times_T.tolist(), clip.times_s.tolist(), strict=True):
        assert min(abs(shown_s - key_s) for key_s in keys_s) < 0.002, (wanted_s, shown_s, keys_s)
        assert abs(shown_s - wanted_s) <= 0.3 + 0.04
    assert clip.reading.frames_decoded <= 5 + 6  # at the beginning some are decoded before it is known what is wanted


def test_two_times_may_move_to_the_same_key_frame(tmp_path: Path) -> None:
    path = drifting(tmp_path / "v.mp4", "libx264", NUM_FRAMES, gop=25, options={"bf": "0"})
    times_T = np.array([1.75, 0.9, 1.1, 0.2])
    clip = read_frames(path, times_T, tolerance_s=0.3)
    assert clip.times_s.tolist() == [2.0, 1.0, 1.0, 0.0]
    assert np.array_equal(clip.frames[1], clip.frames[2])


@pytest.mark.parametrize(("gop", "tolerance_s"), [(NUM_FRAMES, 0.09), (25, 0.02)])
@pytest.mark.parametrize("kind", ["h264", "mpeg4", "vp9"])
def test_nothing_moves_where_little_would_be_saved(kind: str, gop: int, tolerance_s: float, tmp_path: Path) -> None:
    """A clip with one key frame, and one whose key frames are out of reach, are read as without a tolerance."""
    codec, suffix, options = KINDS[kind]
    path = drifting(tmp_path / f"v{suffix}", codec, NUM_FRAMES, gop=gop, options=options)
    times_T = (np.arange(16) + 0.5) * NUM_FRAMES / FPS / 16
    exact, near = read_frames(path, times_T), read_frames(path, times_T, tolerance_s=tolerance_s)
    assert near.times_s.tolist() == exact.times_s.tolist()
    assert near.reading == exact.reading
    assert np.array_equal(near.frames, exact.frames)
