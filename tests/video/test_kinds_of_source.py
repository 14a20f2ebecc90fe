"""Every kind of input, right colours, and the oddities of real files."""

from __future__ import annotations

import io
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import fsspec
import numpy as np
import pytest
from av.video.stream import VideoStream
from PIL import Image

from fewframes.data.folders import find_videos
from fewframes.errors import VideoError
from fewframes.sampling import centre_times
from fewframes.video.decode import container, key_frames
from fewframes.video.source import open_video, read_frames
from helpers.numbered import HEIGHT_PX, WIDTH_PX, Numbered, numbers, picture

HALVES = np.array([0.1, 0.9, 1.7])
EXPECTED = [2, 22, 42]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Numbered(bframes=2).write(tmp_path_factory.mktemp("sources") / "video")


# -- kinds of input --------------------------------------------------------------------------------------------------


def test_path_bytes_and_files(video: Path) -> None:
    for source in (video, str(video), video.read_bytes(), io.BytesIO(video.read_bytes())):
        assert numbers(read_frames(source, HALVES).frames) == EXPECTED
    with video.open("rb") as file:
        assert numbers(read_frames(file, HALVES).frames) == EXPECTED
        file.seek(0)  # the caller's file stays open
        assert numbers(read_frames(file, HALVES[::-1]).frames) == EXPECTED[::-1]


def test_file_that_must_be_scanned_as_a_stream(tmp_path: Path) -> None:
    path = Numbered(suffix=".mkv", bframes=2, mux_options={"live": "1"}).write(tmp_path / "live")
    assert numbers(read_frames(io.BytesIO(path.read_bytes()), HALVES).frames) == EXPECTED


def test_object_store_address(video: Path) -> None:
    fsspec.filesystem("memory").pipe("/bucket/video.mp4", video.read_bytes())
    clip = read_frames("memory://bucket/video.mp4", HALVES)
    assert numbers(clip.frames) == EXPECTED
    assert clip.source == "memory://bucket/video.mp4"


def test_lists_arrays_and_tensors_of_frames() -> None:
    import torch  # here, so that the other tests run where it is not installed

    stack_THWC = np.stack([picture(number) for number in range(50)])
    tensor_TCHW = torch.from_numpy(stack_THWC).permute(0, 3, 1, 2)
    images = [Image.fromarray(frame) for frame in stack_THWC]
    grey = [frame[..., 0] for frame in stack_THWC]
    sources: list[Any] = [stack_THWC, list(stack_THWC), tensor_TCHW, images, grey]
    for source in sources:
        clip = read_frames(source, np.array([0.0, 1.05]), fps=20)
        assert numbers(clip.frames) == [0, 21]
        assert clip.times_s.tolist() == [0.0, 1.05]
        assert clip.duration_s == 2.5


def test_folder_of_images(tmp_path: Path) -> None:
    for number in range(30):
        Image.fromarray(picture(number)).save(tmp_path / f"frame_{number:03}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    assert numbers(read_frames(tmp_path, np.array([0.5, 1.1])).frames) == [12, 27]


@pytest.mark.parametrize("pattern", ["frame_{}.png", "f-{}.jpg", "{}.webp", "IMG ({}).PNG", "cam1_{}_left.bmp"])
def test_images_are_in_the_order_of_their_numbers(tmp_path: Path, pattern: str) -> None:
    for number in range(8, 13):
        Image.fromarray(picture(number)).save(tmp_path / pattern.format(number))
    assert numbers(read_frames(tmp_path, np.arange(5) / 25).frames) == [8, 9, 10, 11, 12]


def test_what_systems_leave_among_images_is_passed_over(tmp_path: Path) -> None:
    for number in (9, 10):
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
        (tmp_path / f"._{number}.png").write_bytes(b"\0\x05\x16\x07 a resource fork")
    (tmp_path / "Thumbs.db").write_bytes(b"thumbnails")
    (tmp_path / ".DS_Store").write_bytes(b"positions")
    (tmp_path / "11.png").mkdir()
    with closing(open_video(tmp_path)) as opened:
        assert opened.duration_s == 2 / 25
        assert numbers(opened.frames_at(np.array([0.0, 0.05])).frames) == [9, 10]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["left_1.png", "left_2.png", "right_1.png", "right_2.png"], "4 of its 4 images .* such as left_1.png and right_1.png"),
        (["1.png", "2.png", "1.jpg"], "2 of its 3 images share their number with another one, such as 1.jpg and 1.png"),
    ],
)  # fmt: skip
def test_several_sequences_in_one_folder_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for number, name in enumerate(names):
        Image.fromarray(picture(number)).save(tmp_path / name)
    with pytest.raises(VideoError, match=f"{message}.*: more than one sequence; give each a folder of its own"):
        open_video(tmp_path)


def test_groups_of_images_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(6):
        Image.fromarray(picture(number)).save(tmp_path / f"cam{number // 3}_{number % 3}.png")
    assert numbers(read_frames(tmp_path, np.arange(6) / 25).frames) == [0, 1, 2, 3, 4, 5]
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}: its images are numbered alike in 2 groups, which are read one after the other; where these are several "
        "cameras, give each a folder of its own"
    ]


@pytest.mark.parametrize("ending", ["jp2", "ppm", "jfif"])
def test_all_kinds_of_images_that_are_read_alone_are_read_in_folders(tmp_path: Path, ending: str) -> None:
    for number in range(3):
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.{ending}", format={"jfif": "JPEG"}.get(ending))
    assert numbers(read_frames(tmp_path, np.arange(3) / 25).frames) == [0, 1, 2]


def test_images_that_are_not_read_are_told_or_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(2):
        (tmp_path / f"{number}.HEIC").write_bytes(b"a photograph")
    with pytest.raises(
        VideoError, match=r"2 of its 2 images, such as 0\.HEIC, are of a kind .*; save them as JPEG or PNG"
    ):
        open_video(tmp_path)
    for number in range(2, 5):
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
    assert numbers(read_frames(tmp_path, np.arange(3) / 25).frames) == [2, 3, 4]
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}: 2 images are left out, such as 0.HEIC; save them as JPEG or PNG"
    ]


def test_an_image_without_a_number_among_numbered_ones_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("f1", "f2", "f3", "cover"):
        Image.fromarray(picture(1)).save(tmp_path / f"{name}.png")
    open_video(tmp_path).close()
    assert "1 of its 4 images have no number, such as cover.png, and are frames too" in caplog.text


def test_an_order_that_is_not_clear_is_refused(tmp_path: Path) -> None:
    for name in ("0.0", "0.25", "0.5", "0.75"):
        Image.fromarray(picture(1)).save(tmp_path / f"{name}.png")
    with pytest.raises(
        VideoError, match=r"the order of 0\.25\.png and 0\.5\.png is not clear: .*; write all with equally many"
    ):
        open_video(tmp_path)


def test_an_image_of_a_folder_that_cannot_be_one_is_refused_by_name(tmp_path: Path) -> None:
    images = [Image.fromarray(picture(number)) for number in range(4)]
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.webp", lossless=True)
    images[0].save(tmp_path / "1.webp", save_all=True, append_images=images[1:], duration=100)
    (tmp_path / "2.webp").write_bytes((tmp_path / "0.webp").read_bytes()[:-20])
    with closing(open_video(tmp_path)) as opened:
        assert numbers(opened.frames_at(np.array([0.0, 0.13])).frames) == [0, 3]
        with pytest.raises(
            VideoError, match=r"1\.webp: holds 4 pictures \(a WEBP animation, or pages\), one of 4 images"
        ):
            opened.frames_at(np.array([0.05]))
        with pytest.raises(VideoError, match=r"2\.webp: cannot be read as an image"):
            opened.check(0.08, 0.12)


def test_deep_images_of_a_folder_keep_their_greys(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (32, 1))
    for number in range(2):
        Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / f"{number}.png")
    assert (read_frames(tmp_path, np.array([0.05])).frames[0, 1] == ramp).all()


def test_photographs_turned_by_exif_stand_upright(tmp_path: Path) -> None:
    image = Image.fromarray(picture(5)).rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter to the right to view
    image.save(tmp_path / "a.png", exif=exif)
    assert numbers(read_frames(tmp_path, np.array([0.0])).frames) == [5]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "<0 frames>: no frames in it"),
        ([np.zeros((4, 4, 3))], "dtype float64: needs uint8"),
        ([np.zeros((4, 4, 7), np.uint8)], r"shape \(4, 4, 7\): needs \(H, W, 3\)"),
    ],
)
def test_frames_of_a_wrong_kind(source: list[Any], message: str) -> None:
    with pytest.raises((VideoError, ValueError), match=message):
        read_frames(source, np.array([0.0]))


def test_wrong_python_arguments() -> None:
    with pytest.raises(TypeError, match="a source of type int"):
        open_video(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fps = 0"):
        open_video([picture(0)], fps=0)


def test_find_videos(tmp_path: Path, video: Path) -> None:
    assert find_videos(tmp_path) == []
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    assert find_videos(tmp_path) == [str(tmp_path)]
    for name in ("b.MP4", "sub/a.webm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert find_videos(tmp_path) == [str(tmp_path / "b.MP4"), str(tmp_path / "sub/a.webm")]


# -- lengths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".webm", ".gif"])
@pytest.mark.parametrize("num_frames", [1, 2])
def test_very_short_videos(tmp_path: Path, suffix: str, num_frames: int) -> None:
    codec, pix_fmt = {".webm": ("libvpx-vp9", "yuv420p"), ".gif": ("gif", "rgb8"), ".avi": ("mpeg4", "yuv420p")}.get(
        suffix, ("libx264", "yuv420p")
    )
    recipe = Numbered(codec=codec, suffix=suffix, pix_fmt=pix_fmt, times_ms=range(0, 40 * num_frames, 40))
    path = recipe.write(tmp_path / "short")
    with closing(open_video(path)) as opened:
        assert 0 < opened.duration_s < 0.3
        shown = numbers(opened.frames_at(centre_times(opened.duration_s, 8)).frames)
    assert sorted(set(shown)) == list(range(num_frames))
    assert shown == sorted(shown)


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".ts", ".flv"])
def test_large_files_are_not_scanned_and_stay_exact(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "SCAN_LIMIT_BYTES", 0)
    monkeypatch.setattr(key_frames, "JUMP_S", 0.3)
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    path = Numbered(codec=codec, suffix=suffix).write(tmp_path / "large")
    times_s = np.random.default_rng(0).uniform(0, 2.3, 30)
    with closing(open_video(path)) as opened:
        assert opened.duration_s == pytest.approx(2.4, abs=0.05)
        assert numbers(opened.frames_at(times_s).frames) == np.floor(times_s / 0.04).astype(int).tolist()


def test_edit_list_hides_the_first_frames(tmp_path: Path) -> None:
    path = Numbered(bframes=2, times_ms=range(-400, 1600, 40)).write(tmp_path / "edited")
    with closing(open_video(path)) as opened:
        assert opened.duration_s == pytest.approx(1.6, abs=0.05)
        assert numbers(opened.frames_at(np.array([0.0, 0.5, 1.0])).frames) == [10, 22, 35]


def test_sound_that_outlasts_the_pictures(tmp_path: Path) -> None:
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        sound = container.add_stream("pcm_s16le", rate=8000)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 160, 64, "yuv420p"
        for number in range(25):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 40000), np.int16), format="s16", layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = 8000, 0, Fraction(1, 8000)
        container.mux(sound.encode(samples))  # type: ignore[arg-type, union-attr]
    with closing(open_video(path)) as opened:
        assert opened.duration_s == pytest.approx(1.0, abs=0.05)
        assert numbers(opened.frames_at(centre_times(opened.duration_s, 5)).frames) == [2, 7, 12, 17, 22]


def test_recording_cut_in_the_middle_starts_at_its_first_key_frame(tmp_path: Path) -> None:
    whole = Numbered(suffix=".ts", bframes=2).write(tmp_path / "whole")
    with av.open(str(whole)) as source, av.open(str(tmp_path / "cut.ts"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if number >= 5 and packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    with closing(open_video(tmp_path / "cut.ts")) as opened:
        assert numbers(opened.frames_at(np.array([0.0, 0.2, 1.0])).frames) == [12, 17, 37]


def test_a_second_video_stream_of_an_unknown_codec_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as written:
        streams = [written.add_stream(codec, rate=25) for codec in ("libx264", "mpeg4")]
        for stream in streams:
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for number in range(10):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
                frame.pts = number
                written.mux(stream.encode(frame))
        for stream in streams:
            written.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"mp4v", b"none"))
    assert numbers(read_frames(path, np.array([0.2])).frames) == [5]


def test_size_that_changes_midway_takes_the_first(tmp_path: Path) -> None:
    small = Numbered(suffix=".ts", bframes=0, times_ms=range(0, 1000, 40)).write(tmp_path / "a")
    large = Numbered(suffix=".ts", bframes=0, width=320, height=128, times_ms=range(1000, 2000, 40)).write(
        tmp_path / "b"
    )
    (tmp_path / "both.ts").write_bytes(small.read_bytes() + large.read_bytes())
    clip = read_frames(tmp_path / "both.ts", np.array([0.1, 1.5]))
    assert clip.frames.shape == (2, 3, 64, 160)
    assert numbers(clip.frames) == [2, 12]


# -- pixels ----------------------------------------------------------------------------------------------------------


def write_colour(
    path: Path, rgb: tuple[int, int, int], *, pix_fmt: str, size: tuple[int, int] = (64, 64), **flags: Any
) -> Path:
    """A video of one colour, its conversion to YUV written out by hand from the flags."""
    matrix, full = flags.get("matrix", 601), flags.get("full", False)
    bits = 10 if "10" in pix_fmt else 8
    kr, kb = {601: (0.299, 0.114), 709: (0.2126, 0.0722), 2020: (0.2627, 0.0593)}[matrix]
    red, green, blue = (value / 255 for value in rgb)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)
    top, scale = (1 << bits) - 1, 1 << bits - 8
    planes = (
        (luma * top, cb * top + 128 * scale, cr * top + 128 * scale)
        if full
        else ((16 + 219 * luma) * scale, (128 + 224 * cb) * scale, (128 + 224 * cr) * scale)
    )
    codec = "ffv1"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        if flags.get("tagged", True):
            stream.codec_context.colorspace = {601: 5, 709: 1, 2020: 9}[matrix]
        stream.codec_context.color_range = 2 if full else 1
        for number in range(3):
            frame = av.VideoFrame(*size, pix_fmt)
            for plane, value in zip(frame.planes, planes, strict=True):
                dtype = np.uint16 if bits == 10 else np.uint8
                plane.update(np.full(plane.buffer_size // dtype().itemsize, round(value), dtype).tobytes())
            frame.pts, frame.time_base = number, Fraction(1, 25)
            frame.color_range = 2 if full else 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


COLOURS = [(200, 60, 40), (30, 180, 90), (50, 70, 220), (255, 255, 255), (0, 0, 0), (128, 128, 128)]


@pytest.mark.parametrize("rgb", COLOURS)
@pytest.mark.parametrize(
    ("pix_fmt", "flags"),
    [
        ("yuv420p", {"matrix": 601}),
        ("yuv420p", {"matrix": 709}),
        ("yuv420p", {"matrix": 2020}),
        ("yuv422p", {"matrix": 709}),
        ("yuv444p", {"matrix": 601}),
        ("yuv420p10le", {"matrix": 709}),
        ("yuv420p10le", {"matrix": 2020}),
        ("yuv422p10le", {"matrix": 601}),
        ("yuv420p", {"matrix": 709, "full": True}),
        ("yuv420p", {"matrix": 601, "full": True}),
        ("yuv420p", {"matrix": 601, "tagged": False}),
        ("yuv420p", {"matrix": 709, "tagged": False, "size": (1280, 720)}),
    ],
)
def test_colours_come_out_right(tmp_path: Path, rgb: tuple[int, int, int], pix_fmt: str, flags: dict[str, Any]) -> None:
    path = write_colour(tmp_path / "colour.mkv", rgb, pix_fmt=pix_fmt, **flags)
    frame_CHW = read_frames(path, np.array([0.05])).frames[0]
    assert frame_CHW[:, 20, 20].tolist() == pytest.approx(rgb, abs=4)
    assert (frame_CHW.std(axis=(1, 2)) < 1).all()


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied(tmp_path: Path, degrees: int) -> None:
    path = tmp_path / "turned.mp4"
    turned = np.ascontiguousarray(np.rot90(picture(9), -degrees // 90))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = turned.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.set_display_rotation(degrees)
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(turned, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    clip = read_frames(path, np.array([0.1]))
    assert clip.frames.shape == (1, 3, 64, 160)
    assert numbers(clip.frames) == [9]


def test_interlaced_pictures_are_not_combed(tmp_path: Path) -> None:
    path = tmp_path / "fields.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"x264-params": "tff=1"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for number in range(8):
            pixels_HWC = np.zeros((96, 160, 3), np.uint8)
            pixels_HWC[0::2, number * 8 : number * 8 + 40] = 255  # a bar that moves between the two fields
            pixels_HWC[1::2, number * 8 + 12 : number * 8 + 52] = 255
            frame = av.VideoFrame.from_ndarray(pixels_HWC, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frame_HW = read_frames(path, np.array([0.1])).frames[0, 0].astype(float)
    assert frame_HW.max() > 200
    assert np.abs(np.diff(frame_HW, axis=0)).mean() < 2  # combed: about 20
