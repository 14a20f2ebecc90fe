"""What a file states about how its pictures are shown is done: orientation, shape of the pixels, transparency."""

from __future__ import annotations

import gc
import math
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from av.video.stream import VideoStream
from numpy.typing import NDArray

from fewframes.errors import TooLarge
from fewframes.inference.detection.spans import Span
from fewframes.video.decode.container import Limits
from fewframes.video.live import LiveReader
from fewframes.video.live_queue import LiveEvent, LiveFrame
from fewframes.video.live_settings import StreamConfig
from fewframes.video.pictures.display import over_black, shown_size
from fewframes.video.source import open_video, read_frames
from fewframes.video.torchcodec import shows_as_stored
from fewframes.video.transforms import fit_frame
from fewframes.video.view import ViewConfig
from fewframes.viz.thumbnails import middle_frames
from helpers.numbered import Numbered

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
NAMES = {(1, 0, 0): "R", (0, 1, 0): "G", (0, 0, 1): "B", (1, 1, 1): "W"}
TIMES = np.array([0.1], np.float64)

MATRICES = [  # a b c d, and the quadrants of "RG BW" as that shows them, row after row
    ((1, 0, 0, 1), "RGBW"),
    ((-1, 0, 0, -1), "WBGR"),
    ((0, 1, -1, 0), "BRWG"),
    ((0, -1, 1, 0), "GWRB"),
    ((-1, 0, 0, 1), "GRWB"),
    ((1, 0, 0, -1), "BWRG"),
    ((0, 1, 1, 0), "RBGW"),
    ((0, -1, -1, 0), "WGBR"),
]


def quarters(width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """Red and green above blue and white."""
    pixels_HWC = np.zeros((height, width, 3), np.uint8)
    for colour, top, left in ((RED, 0, 0), (GREEN, 0, 1), (BLUE, 1, 0), (WHITE, 1, 1)):
        pixels_HWC[top * height // 2 :][: height // 2, left * width // 2 :][:, : width // 2] = colour
    return pixels_HWC


def write(
    path: Path,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    aspect: Fraction | None = None,
    matrix: tuple[float, float, float, float] | None = None,
    first: int = 0,
    options: dict[str, str] | None = None,
    picture: NDArray[np.uint8] | None = None,
) -> Path:
    """Half a second of the quarters, or of another picture (H, W, 3) or (H, W, 4)."""
    picture = quarters() if picture is None else picture
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=20, options=options or {})
        assert isinstance(stream, VideoStream)
        (stream.height, stream.width), stream.pix_fmt = picture.shape[:2], pix_fmt
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if matrix is not None:
            a, b, c, d = (round(value * 2**16) for value in matrix)
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 2**30])
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24" if picture.shape[-1] == 3 else "rgba")
            frame.pts, frame.time_base = first + number, Fraction(1, 20)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def seen(frame_CHW: NDArray[np.uint8]) -> str:
    """The four quarters of a picture by name."""
    height, width = frame_CHW.shape[-2:]
    bright = (frame_CHW > 128).astype(int)
    return "".join(
        NAMES[int(bright[0, y, x]), int(bright[1, y, x]), int(bright[2, y, x])]
        for y in (height // 4, 3 * height // 4)
        for x in (width // 4, 3 * width // 4)
    )


def live_picture(path: Path) -> NDArray[np.uint8]:
    """The first picture of the file as a stream."""
    reader = LiveReader(str(path), StreamConfig(), 0.1, lambda picture: picture)
    with closing(reader):
        while True:
            for item in reader.take(1, 1.0) or []:
                if isinstance(item, LiveFrame):
                    return item.picture


@pytest.mark.parametrize(("matrix", "wanted"), MATRICES)
def test_all_turns_and_mirrors(tmp_path: Path, matrix: tuple[int, int, int, int], wanted: str) -> None:
    path = write(tmp_path / "turned.mp4", matrix=matrix)
    size = (96, 64) if matrix[0] == 0 else (64, 96)
    frame_CHW = read_frames(path, TIMES).frames[0]
    assert (seen(frame_CHW), frame_CHW.shape[1:]) == (wanted, size)
    assert seen(live_picture(path)) == wanted
    with closing(open_video(path)) as video:
        view = ViewConfig(resize_px=32, crop_px=32, fit="squash")
        array = video.frames_at([0.1], lambda frame: fit_frame(frame, view)).frames[0]
    assert seen(array) == wanted


@pytest.mark.parametrize(
    ("stated", "wanted"),
    [("rotate=90", "GWRB"), ("flip=vertical", "BWRG"), ("flip=horizontal", "GRWB"), ("rotate=180", "WBGR")],
)
def test_what_h264_states_holds_until_another_is_stated(tmp_path: Path, stated: str, wanted: str) -> None:
    plain, turned = write(tmp_path / "plain.ts", options={"g": "6"}), tmp_path / "turned.ts"
    with av.open(str(plain)) as source, av.open(str(turned), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        stating = BitStreamFilterContext(f"h264_metadata=display_orientation=insert:{stated}", stream)
        for packet in source.demux(stream):
            for changed in stating.filter(packet) if packet.dts is not None else ():
                changed.stream = copy
                target.mux(changed)
    with closing(open_video(turned)) as video:
        frames = [video.frames_at(np.array([time_s])).frames[0] for time_s in (0.12, 0.0, 0.48, 0.32)]
    assert [seen(frame_CHW) for frame_CHW in frames] == [wanted] * 4
    assert seen(live_picture(turned)) == wanted


def turn(degrees: float, size: float = 1.0) -> tuple[float, float, float, float]:
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return size * cosine, size * sine, -size * sine, size * cosine


@pytest.mark.parametrize(
    ("matrix", "wanted", "is_said"),
    [
        (turn(90.5), "BRWG", False),
        (turn(80), "BRWG", True),
        (turn(-30), "RGBW", True),
        (turn(180, size=3.0), "WBGR", False),
        ((1, 0, 0.3, 1), "RGBW", True),
        ((0, 0, 0, 0), "RGBW", False),
    ],
)
def test_matrices_that_are_no_quarter_turn_take_the_nearest_and_say_so(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    matrix: tuple[float, float, float, float],
    wanted: str,
    is_said: bool,
) -> None:
    path = write(tmp_path / "odd.mp4", matrix=matrix)
    with closing(open_video(path)) as video:
        found = [seen(video.frames_at(TIMES + later).frames[0]) for later in (0.0, 0.2)]
    assert found == [wanted, wanted]
    assert [("is no quarter turn" in record.message) for record in caplog.records] == ([True] if is_said else [])


WIDE = Fraction(16, 9) / Fraction(96, 64)
"""Pixels of 96x64 that make a picture of 16:9, one of the shapes that MPEG-2 knows."""


@pytest.mark.parametrize(
    ("suffix", "codec", "aspect", "size"),
    [
        (".mp4", "libx264", Fraction(3, 2), (64, 144)),
        (".mp4", "libx264", Fraction(1, 2), (128, 96)),
        (".mkv", "libx264", Fraction(3, 2), (64, 144)),
        (".avi", "mpeg4", Fraction(1, 2), (128, 96)),
        (".ts", "mpeg2video", WIDE, (64, 114)),
        (".flv", "libx264", Fraction(8, 9), (72, 96)),
    ],
)
def test_pixels_become_square(tmp_path: Path, suffix: str, codec: str, aspect: Fraction, size: tuple[int, int]) -> None:
    path = write(tmp_path / f"long{suffix}", codec=codec, aspect=aspect)
    clip = read_frames(path, TIMES)
    assert clip.frames.shape[2:] == size
    assert seen(clip.frames[0]) == "RGBW"
    assert live_picture(path).shape[1:] == size


def test_what_is_enlarged_is_smooth_and_in_place(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.linspace(40, 200, 96).astype(np.uint8)[None, :, None], (64, 96, 3))
    path = write(tmp_path / "ramp.mp4", aspect=Fraction(2), picture=np.ascontiguousarray(ramp), options={"crf": "4"})
    row_W = read_frames(path, TIMES).frames[0, 0, 30].astype(float)
    wanted_W = np.interp((np.arange(192) + 0.5) / 2 - 0.5, np.arange(96), ramp[0, :, 0])
    assert np.abs(row_W - wanted_W).max() < 4


def test_a_turn_is_made_of_square_pixels(tmp_path: Path) -> None:
    path = write(tmp_path / "both.mp4", aspect=Fraction(2), matrix=(0, 1, -1, 0))
    frame_CHW = read_frames(path, TIMES).frames[0]
    assert (frame_CHW.shape[1:], seen(frame_CHW)) == ((192, 64), "BRWG")


def test_the_container_goes_before_the_codec(tmp_path: Path) -> None:
    # As FFmpeg reads an MP4: a matrix of other lengths is a shape of the pixels.
    path = write(tmp_path / "both.mp4", aspect=None, matrix=(3, 0, 0, 2), options={"x264-params": "sar=1/4"})
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.sample_aspect_ratio, stream.codec_context.sample_aspect_ratio) == (
            Fraction(3, 2),
            Fraction(1, 4),
        )
    assert read_frames(path, TIMES).frames.shape[2:] == (64, 144)


def test_a_broadcast_that_changes_its_shape_midway(tmp_path: Path) -> None:
    narrow = Fraction(4, 3) / Fraction(96, 64)
    first = write(tmp_path / "a.ts", codec="mpeg2video", aspect=narrow, options={"bf": "0"})
    second = write(tmp_path / "b.ts", codec="mpeg2video", aspect=WIDE, first=10, options={"bf": "0"})
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    with closing(open_video(joined)) as video:
        frames = [video.frames_at(np.array([time_s])).frames for time_s in (0.1, 0.9, 0.1)]
    assert [tuple(shown.shape[2:]) for shown in frames] == [(72, 96), (64, 114), (72, 96)]
    reader, events = LiveReader(str(joined), StreamConfig(), 0.1, lambda picture: picture), []
    with closing(reader):
        while (items := reader.take(8, 1.0)) is not None:
            events += [item.words for item in items if isinstance(item, LiveEvent)]
    assert "its pictures are 114x64 px now, not 96x72" in events


@pytest.mark.parametrize("aspect", [Fraction(30), Fraction(1, 50)])
def test_impossible_shapes_are_told_and_taken_for_square(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, aspect: Fraction
) -> None:
    path = write(tmp_path / "impossible.mp4", aspect=aspect)
    assert read_frames(path, TIMES).frames.shape[2:] == (64, 96)
    (record,) = caplog.records
    assert record.message.startswith(f"{path}: its pixels are stated to be {float(aspect):.4g} times as wide as high")


def test_limits_are_of_what_is_shown(tmp_path: Path) -> None:
    path = write(tmp_path / "long.mp4", aspect=Fraction(4))
    with (
        closing(open_video(path, limits=Limits(max_pixels=96 * 64 * 3))) as video,
        pytest.raises(TooLarge, match=r"frames of 384x64 px; the limit is 0\.0184 million pixels"),
    ):
        video.frames_at(TIMES)
    with closing(open_video(path, limits=Limits(max_pixels=96 * 64 * 4))) as video:
        assert video.frames_at(TIMES).frames.shape[2:] == (64, 384)


def test_sizes_are_rounded_and_never_shrink() -> None:
    assert shown_size(720, 576, Fraction(64, 45)) == (1024, 576)
    assert shown_size(720, 480, Fraction(8, 9)) == (720, 540)
    assert shown_size(720, 480, Fraction(32, 27)) == (853, 480)
    assert shown_size(719, 575, Fraction(1)) == (719, 575)


@pytest.mark.parametrize(("suffix", "codec", "pix_fmt"), [(".mov", "qtrle", "argb"), (".mkv", "ffv1", "yuva444p")])
def test_transparent_parts_are_black(tmp_path: Path, suffix: str, codec: str, pix_fmt: str) -> None:
    picture = np.full((64, 96, 4), (200, 100, 50, 255), np.uint8)
    picture[:, 32:64, 3] = 128
    picture[:, 64:, 3] = 0
    path = write(tmp_path / f"glass{suffix}", codec=codec, pix_fmt=pix_fmt, picture=picture)
    frame_CHW = read_frames(path, TIMES).frames[0].astype(int)
    for column, wanted in ((10, (200, 100, 50)), (48, (100, 50, 25)), (80, (0, 0, 0))):
        assert frame_CHW[:, 30, column].tolist() == pytest.approx(wanted, abs=3)


def test_a_fourth_byte_that_is_empty_everywhere_means_nothing() -> None:
    pixels = np.full((2, 2, 4), 90, np.uint8)
    pixels[..., 3] = 0
    assert over_black(pixels).tolist() == pixels[..., :3].tolist()
    pixels[0, 0, 3] = 255
    assert over_black(pixels)[..., 1].tolist() == [[90, 0], [0, 0]]


def test_thumbnails_have_the_shape_of_what_is_shown(tmp_path: Path) -> None:
    path = write(tmp_path / "both.mp4", aspect=Fraction(2), matrix=(-1, 0, 0, 1))
    (small_CHW,) = middle_frames(str(path), [Span(0.0, 0.4, "hug", 1.0)], width_px=96)
    assert (small_CHW.shape, seen(small_CHW)) == ((3, 32, 96), "GRWB")


def test_torchcodec_is_left_what_is_shown_as_it_is_decoded(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.mp4")
    with plain.open("rb") as file:
        file.seek(7)
        assert shows_as_stored(file, "plain", plain.stat().st_size)
        assert file.tell() == 7
    for name, path in {
        "turned": write(tmp_path / "turned.mp4", matrix=(1, 0, 0, -1)),
        "long": write(tmp_path / "long.mp4", aspect=Fraction(2)),
        "glass": write(tmp_path / "glass.mkv", codec="ffv1", pix_fmt="yuva444p"),
    }.items():
        assert not shows_as_stored(str(path), name, path.stat().st_size)


def test_hdr_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "pq.mkv", options={"x264-params": "transfer=smpte2084"})
    read_frames(path, TIMES)
    assert [record.message for record in caplog.records] == [
        f"{path}: HDR (PQ): its brightness is shown without tone mapping, flatter than players do"
    ]


def test_decoded_frames_are_let_go_at_once(tmp_path: Path) -> None:
    """Asked for its side data, a frame of PyAV lies in a cycle: a long video of large pictures then fills the memory."""
    height = 96  # of these frames alone: a source that another test has left may still hold some of its own
    path = Numbered(bframes=0, gop=60, height=height).write(tmp_path / "v")
    gc.collect()
    gc.disable()
    try:
        with closing(open_video(path, threads=1)) as video:
            video.frames_at(np.array([2.3], np.float64))
            num_left = sum(type(one) is av.VideoFrame and one.height == height for one in gc.get_objects())
    finally:
        gc.enable()
    assert num_left < 10
