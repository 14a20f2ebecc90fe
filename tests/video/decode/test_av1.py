"""AV1: frames on which no wanted one builds are cut out, and the wanted ones stay as they are."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewframes.video.decode import packets as feed
from fewframes.video.decode.codecs.av1 import ALL_SLOTS, Av1Headers, CodedFrame, CodedPacket, needed
from fewframes.video.decode.decoder import FileVideo
from fewframes.video.decode.passes import UnreliableOutput
from fewframes.video.source import open_video
from helpers.numbered import drifting

NUM_FRAMES, FPS, GOP = 90, 25, 40
KINDS = {
    "random access": (".mp4", {}),
    "webm": (".webm", {}),
    "shallow": (".mp4", {"svtav1-params": "hierarchical-levels=2"}),
    "deep": (".mp4", {"svtav1-params": "hierarchical-levels=5:lookahead=33"}),
    "low delay": (".mp4", {"svtav1-params": "pred-struct=1"}),
    "grain": (".mp4", {"svtav1-params": "film-grain=20:film-grain-denoise=1"}),
    "screen": (".mp4", {"svtav1-params": "scm=1"}),
    "open groups": (".mp4", {"svtav1-params": "irefresh-type=1"}),
    "slow": (".mp4", {"preset": "5"}),
}  # fmt: skip
DEEP = {"random access", "webm", "deep", "grain", "screen"}
"""The kinds with so many layers that few frames lead to a wanted one."""


@pytest.fixture(scope="module", params=KINDS)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, NDArray[np.uint8]]:
    """The kind, the file, and all its frames decoded one after the other (N, H, W, C)."""
    suffix, options = KINDS[request.param]
    path = tmp_path_factory.mktemp("made") / f"video{suffix}"
    drifting(path, "libsvtav1", NUM_FRAMES, gop=GOP, options={"preset": "10"} | options)
    return request.param, path, decoded(path)


def decoded(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == NUM_FRAMES
    return np.stack(frames).astype(np.uint8)


def times(indices: list[int]) -> NDArray[np.float64]:
    return (np.array(indices, np.float64) + 0.5) / FPS


def read(path: Path, indices: list[int], threads: int = 1) -> NDArray[np.uint8]:
    """The frames (N, H, W, C) as they are read; none of them at the second attempt."""
    with closing(open_video(path, threads=threads)) as video:
        assert isinstance(video, FileVideo)
        frames = video.frames_at(times(indices)).frames
        assert not video._session.is_careful
        return frames.transpose(0, 2, 3, 1)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    indices=st.lists(st.integers(0, NUM_FRAMES - 1), min_size=1, max_size=8, unique=True),
    threads=st.sampled_from([1, 2]),
)
def test_wanted_frames_are_those_of_decoding_everything(
    made: tuple[str, Path, NDArray[np.uint8]], indices: list[int], threads: int
) -> None:
    _, path, frames_NHWC = made
    assert np.array_equal(read(path, indices, threads), frames_NHWC[indices])


def test_a_wanted_frame_needs_few_others(made: tuple[str, Path, NDArray[np.uint8]]) -> None:
    """Left out are not only frames on which nothing builds, but also those on which only such build."""
    kind, path, _ = made
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        headers = Av1Headers(bytes(stream.codec_context.extradata or b"")[4:])
        packets = [headers.read(bytes(packet)) for packet in container.demux(stream) if packet.size]
    known = [packet for packet in packets if packet is not None]
    assert len(known) == NUM_FRAMES
    wanted = [index == GOP - 5 for index in range(GOP)]
    kept = needed(known[:GOP], wanted, is_end=True)
    sent = [headers.read(data) for data in kept if data is not None]
    num_sent = sum(len(packet.frames) for packet in sent if packet is not None)
    num_referred = sum(frame.put_in != 0 for packet in known[: GOP - 4] for frame in packet.frames)
    assert 1 < num_sent <= num_referred + 1
    if kind in DEEP:
        assert num_sent < num_referred / 2


def test_more_packets_than_are_held_at_once(
    made: tuple[str, Path, NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path, frames_NHWC = made
    monkeypatch.setattr(feed, "MOST_CHOSEN", 7)
    for indices in ([38], [3, 39, 77], [9, 19, 29, 39, 49, 59, 69, 79, 89]):
        assert np.array_equal(read(path, indices), frames_NHWC[indices])


def test_frames_cut_out_for_some_timestamps_are_there_for_others(
    made: tuple[str, Path, NDArray[np.uint8]],
) -> None:
    _, path, frames_NHWC = made
    with closing(open_video(path, threads=1)) as video:
        for indices in ([10, 37], [38], [39], [11, 12, 13], [88], [87, 89]):
            got_NCHW = video.frames_at(times(indices)).frames
            assert np.array_equal(got_NCHW.transpose(0, 2, 3, 1), frames_NHWC[indices])
        video.check(0.0, NUM_FRAMES / FPS)


def test_ten_bits(tmp_path: Path) -> None:
    path = drifting(
        tmp_path / "v.mp4", "libsvtav1", NUM_FRAMES, gop=GOP, options={"preset": "10"}, pix_fmt="yuv420p10le"
    )
    assert np.array_equal(read(path, [5, 33, 71]), decoded(path)[[5, 33, 71]])


def packet(*frames: tuple[bool, int, int], is_whole: bool = False) -> CodedPacket:
    """A packet of one byte a frame, each given as shown, put in and builds on."""
    coded = [CodedFrame(number, number + 1, *frame) for number, frame in enumerate(frames)]
    return CodedPacket(bytes(range(len(frames))), coded, is_whole)


KEY = packet((True, ALL_SLOTS, 0), is_whole=True)


def test_only_frames_that_lead_to_a_wanted_one_are_kept() -> None:
    packets = [
        KEY,
        packet((False, 0b10, 0b1), (True, 0, 0b11)),  # the hidden frame is needed below, the shown one is not
        packet((True, 0b100, 0b1)),  # replaced before anything builds on it
        packet((True, 0b100, 0b10)),
        packet((True, 0, 0b100)),  # wanted
        packet((True, 0b1, 0b1)),  # behind it
    ]
    wanted = [index == 4 for index in range(6)]
    assert needed(packets, wanted, is_end=True) == [b"\0", b"\0", None, b"\0", b"\0", None]
    # Where more may be wanted later, what lies in a slot at the end stays.
    assert needed(packets, wanted, is_end=False) == [b"\0", b"\0", None, b"\0", b"\0", b"\0"]


def test_a_packet_that_is_not_understood_keeps_all_that_it_may_build_on() -> None:
    packets = [KEY, packet((True, 0b10, 0b1)), packet((True, 0, 0b1)), None, packet((True, 0, 0b1))]
    assert needed(packets, [False] * 5, is_end=True) == [b"\0", b"\0", None, None, None]


def test_parameters_keep_their_packet_whole() -> None:
    packets = [packet((False, 0b1, 0), (True, 0, 0), is_whole=True), packet((True, 0, 0b1))]
    assert needed(packets, [False, True], is_end=True) == [b"\0\1", b"\0"]
    assert needed(packets, [False, False], is_end=True) == [b"\0\1", None]


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Av1Headers, bytes]:
    """The headers of a stream, read up to its first packet, a key frame; and that packet."""
    path = drifting(tmp_path_factory.mktemp("v") / "v.mp4", "libsvtav1", 10, gop=10, options={"preset": "10"})
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        first = bytes(next(container.demux(stream)))
        return Av1Headers(bytes(stream.codec_context.extradata or b"")[4:]), first


def test_a_key_frame_that_was_hidden_resets_all_when_it_is_shown(headers: tuple[Av1Headers, bytes]) -> None:
    """It is put into all slots then, which its own header says and not that of the frame that shows it."""
    read, first = headers
    assert read.read(first) is not None
    shows = bytes([3 << 3 | 2, 1, 1 << 7 | 5 << 4])  # a header with its size, which shows what lies in slot 5
    shown = read.read(shows)
    assert shown is not None
    assert shown.frames == [CodedFrame(0, 3, True, 0, 1 << 5)]
    assert read.read(shows[:2]) is None  # cut off
    assert read.read(shows) is None  # since then anything may lie in the slots
    assert read.read(first) is not None
    assert read.read(shows) is not None


def test_a_stream_without_a_sequence_header_is_not_understood(headers: tuple[Av1Headers, bytes]) -> None:
    _, first = headers
    nothing = Av1Headers(b"")
    assert nothing.read(bytes([3 << 3 | 2, 1, 0])) is None
    assert nothing.read(first) is not None  # it brings one


def test_damaged_packets_are_told(tmp_path: Path) -> None:
    """A frame that is damaged is not shown, and one that does not build on it is."""
    path = drifting(tmp_path / "v.mp4", "libsvtav1", NUM_FRAMES, gop=GOP, options={"preset": "10"})
    frames_NHWC = decoded(path)
    with av.open(str(path)) as container:
        places = [(one.pos, one.size) for one in container.demux(video=0) if one.size]
    content = bytearray(path.read_bytes())
    start, size = places[GOP]  # the second key frame
    assert start is not None
    content[start + size // 2 : start + size] = bytes(size - size // 2)
    path.write_bytes(content)
    with closing(open_video(path, threads=1)) as video:
        got_NCHW = video.frames_at(times([10, 30])).frames
    assert np.array_equal(got_NCHW.transpose(0, 2, 3, 1), frames_NHWC[[10, 30]])


def test_after_a_sign_of_damage_no_frame_is_left_out(
    made: tuple[str, Path, NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame that nobody wants may be the one that shows the damage of another."""
    _, path, frames_NHWC = made
    decode, attempts = FileVideo._decode_into, []

    def failing_once(video: FileVideo, *given: object, **options: object) -> object:
        attempts.append(video._session.is_careful)
        if len(attempts) == 1:
            raise UnreliableOutput("a sign of damage")
        return decode(video, *given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(FileVideo, "_decode_into", failing_once)
    with closing(open_video(path, threads=1)) as video:
        clip = video.frames_at(times([12, 35]))
    assert attempts == [False, True]
    assert clip.reading.frames_left_out == 0
    assert np.array_equal(clip.frames.transpose(0, 2, 3, 1), frames_NHWC[[12, 35]])


def test_a_fresh_packet_keeps_its_times(made: tuple[str, Path, NDArray[np.uint8]]) -> None:
    """Frames that come of packets from which others were cut have the times of these packets."""
    _, path, _ = made
    with closing(open_video(path, threads=1)) as video:
        shown_s = video.frames_at(times([7, 23, 58])).times_s
    assert np.abs(shown_s - np.array([7, 23, 58]) / FPS).max() < 2e-3
