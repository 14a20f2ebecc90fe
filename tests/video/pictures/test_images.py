"""Image files: the pixels that a viewer shows, whatever their depth, colours and orientation; pages and animations."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import fsspec
import numpy as np
import pytest
from PIL import Image, features

from fewframes.errors import TooLarge, Unreachable, VideoError
from fewframes.video.decode.container import Limits
from fewframes.video.pictures.images import pixels_of_pil
from fewframes.video.source import open_video, read_frames
from helpers.numbered import numbers, picture

RAMP = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (32, 1))
"""(32, 64) grey, dark at the left."""


def first(source: Any) -> np.ndarray[Any, Any]:
    """The first picture, (H, W, C)."""
    return read_frames(source, np.array([0.0])).frames[0].transpose(1, 2, 0)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, format=form, **options)
    return content.getvalue()


def animation(form: str, num_frames: int = 6, **options: Any) -> bytes:
    images = [Image.fromarray(picture(number)) for number in range(num_frames)]
    return saved(images[0], form, save_all=True, append_images=images[1:], **options)


@pytest.mark.parametrize("form", ["png", "tiff"])
def test_sixteen_bits_of_grey_are_shown_as_eight(form: str) -> None:
    content = saved(Image.fromarray(RAMP.astype(np.uint16) * 257), form)
    assert (first(content) == RAMP[..., None]).all()


def test_sixteen_bits_of_colour_are_shown_as_eight(tmp_path: Path) -> None:
    deep = np.stack([RAMP, RAMP[:, ::-1], RAMP // 2], axis=-1).astype(np.uint16) * 257
    context = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 64, 32, "rgb48be", 1  # type: ignore[attr-defined, assignment]
    packets = context.encode(av.VideoFrame.from_ndarray(deep, format="rgb48le").reformat(format="rgb48be"))  # type: ignore[attr-defined]
    (tmp_path / "deep.png").write_bytes(bytes(packets[0]))
    assert np.abs(first(tmp_path / "deep.png").astype(int) - (deep // 257).astype(int)).max() <= 1


def test_a_tiff_in_which_zero_is_white() -> None:
    deep = Image.fromarray(RAMP.astype(np.uint16) * 257)
    content = saved(deep, "tiff", tiffinfo={262: 0})
    assert Image.open(io.BytesIO(content)).tag_v2[262] == 0  # type: ignore[attr-defined]
    assert (first(content)[..., 0] == 255 - RAMP).all()


@pytest.mark.parametrize(("dtype", "kind"), [(np.int32, "whole numbers"), (np.float32, "floats")])
def test_values_without_a_white_are_refused(dtype: type, kind: str) -> None:
    image = Image.fromarray(RAMP.astype(dtype))
    with pytest.raises(
        VideoError, match=f"cannot be read as an image .a picture of 32-bit {kind}, which do not say what"
    ):
        first(saved(image, "tiff"))
    with pytest.raises(ValueError, match=f"a picture of 32-bit {kind}"):
        first([image])


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV"])
def test_all_of_pillows_colours(mode: str) -> None:
    image = Image.fromarray(np.repeat((RAMP // 128 * 255)[..., None], 3, axis=2)).convert(mode)
    assert np.abs(first([image]).astype(int)[..., 1] - RAMP // 128 * 255).max() <= 1
    if mode in ("1", "L", "P", "RGB", "CMYK"):
        assert np.abs(first(saved(image, "tiff")).astype(int)[..., 1] - RAMP // 128 * 255).max() <= 1


@pytest.mark.parametrize("form", ["png", "webp", "tiff"])
def test_transparent_parts_are_black(form: str) -> None:
    pixels = np.full((32, 64, 4), (200, 100, 50, 255), np.uint8)
    pixels[:, 32:, 3] = 128
    pixels[16:, :, 3] = 0
    options = {"lossless": True, "exact": True} if form == "webp" else {}
    found = first(saved(Image.fromarray(pixels), form, **options))
    assert found[0, 0].tolist() == [200, 100, 50]
    assert found[0, 40].tolist() == [100, 50, 25]
    assert found[20, 0].tolist() == [0, 0, 0]


def test_a_transparent_colour_of_a_palette_is_black() -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    assert first(saved(image, "png", transparency=1)).tolist() == [[[255, 0, 0], [0, 0, 0]]]


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_stands_upright(form: str, orientation: int) -> None:
    methods = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    upright = np.zeros((64, 96, 3), np.uint8)
    upright[:32, :48] = 255  # white at the top left, grey at the top right
    upright[:32, 48:] = 128
    image = Image.fromarray(upright)
    method = methods[orientation]
    image = image if method is None else image.transpose(method)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = first(saved(image, form, exif=exif))
    assert found.shape == (64, 96, 3)
    assert [int(found[y, x, 0]) // 32 for y in (10, 50) for x in (10, 80)] == [7, 4, 0, 0] or form in ("jpeg", "webp")
    assert np.abs(found.astype(int) - upright).mean() < 4


def test_a_deep_picture_is_turned_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved(
        Image.fromarray(RAMP.astype(np.uint16) * 257).transpose(Image.Transpose.ROTATE_90), "png", exif=exif
    )
    assert (first(content) == RAMP[..., None]).all()


def test_a_broken_exif_is_passed_over() -> None:
    content = saved(Image.fromarray(picture(5)), "webp", exif=b"Exif\0\0no header", lossless=True)
    assert numbers(first(content).transpose(2, 0, 1)[None]) == [5]


# -- animations and pages --------------------------------------------------------------------------------------------

FORMS = ["webp", "png", *(["avif"] if features.check("avif") else [])]


@pytest.mark.parametrize("form", FORMS)
def test_animations_are_videos_of_their_own_times(tmp_path: Path, form: str) -> None:
    durations_ms = [100, 300, 100, 100, 200, 100]
    options = {"lossless": True} if form == "webp" else {"quality": 95} if form == "avif" else {}
    content = animation(form, duration=durations_ms, **options)
    path = tmp_path / f"moving.{form}"
    path.write_bytes(content)
    for source in (content, path, io.BytesIO(content)):
        clip = read_frames(source, np.array([0.85, 0.05, 0.35, 0.45, 5.0]))
        assert numbers(clip.frames) == [5, 0, 1, 2, 5]
        assert clip.times_s.tolist() == pytest.approx([0.8, 0.0, 0.1, 0.4, 0.8])
        assert clip.duration_s == pytest.approx(0.9)


def test_frames_without_a_time_take_a_tenth_of_a_second() -> None:
    clip = read_frames(animation("webp", duration=0, lossless=True), np.array([0.25, 0.55]))
    assert numbers(clip.frames) == [2, 5]
    assert clip.duration_s == pytest.approx(0.6)


def test_a_png_that_begins_with_a_picture_for_others() -> None:
    others = [Image.fromarray(picture(number)) for number in range(1, 4)]
    content = saved(
        Image.fromarray(picture(99)), "png", save_all=True, append_images=others, duration=100, default_image=True
    )
    assert numbers(read_frames(content, np.array([0.0, 0.15, 0.25])).frames) == [1, 2, 3]


def test_what_a_frame_leaves_of_the_one_before_it() -> None:
    base = Image.fromarray(np.full((32, 32, 4), (200, 0, 0, 255), np.uint8))
    patch = np.zeros((32, 32, 4), np.uint8)
    patch[8:16, 8:16] = (0, 200, 0, 255)
    for disposal, wanted in ((0, [200, 0, 0]), (1, [0, 0, 0])):  # kept, or cleared
        content = saved(
            base, "png", save_all=True, append_images=[Image.fromarray(patch)], duration=100, disposal=disposal, blend=1
        )
        frames = read_frames(content, np.array([0.0, 0.15])).frames
        assert frames[1, :, 10, 10].tolist() == [0, 200, 0]
        assert frames[1, :, 0, 0].tolist() == wanted


def test_pages_are_frames_at_a_steady_rate(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    path.write_bytes(animation("tiff"))
    clip = read_frames(path, np.array([0.0, 0.35, 0.55]), fps=10)
    assert (numbers(clip.frames), clip.duration_s) == ([0, 3, 5], 0.6)


def test_a_small_copy_in_a_tiff_is_no_page() -> None:
    large, small = Image.fromarray(picture(3)), Image.fromarray(picture(3, 80, 32))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    clip = read_frames(saved(large, "tiff", save_all=True, append_images=[small]), np.array([0.0]))
    assert (tuple(clip.frames.shape), clip.duration_s) == ((1, 3, 64, 160), 0.04)


def test_a_photograph_with_more_behind_it_is_one_picture() -> None:
    first_, second = (Image.fromarray(picture(number)) for number in (3, 4))
    clip = read_frames(saved(first_, "mpo", save_all=True, append_images=[second]), np.array([0.0, 0.1]))
    assert (numbers(clip.frames), clip.duration_s) == ([3, 3], 0.04)


def test_jpegs_one_after_the_other_are_a_video(tmp_path: Path) -> None:
    content = b"".join(saved(Image.fromarray(picture(number)), "jpeg", quality=95) for number in range(10))
    (tmp_path / "camera.mjpeg").write_bytes(content)
    for source in (content, tmp_path / "camera.mjpeg"):
        assert numbers(read_frames(source, np.array([0.02, 0.3])).frames) == [0, 7]


@pytest.mark.parametrize("form", ["jpeg", "png", "bmp", "tiff", "webp"])
def test_a_still_is_a_video_of_one_picture(tmp_path: Path, form: str) -> None:
    path = tmp_path / "named without an ending"
    path.write_bytes(saved(Image.fromarray(picture(7)), form))
    clip = read_frames(path, np.array([0.0, 3.0]))
    assert (numbers(clip.frames), clip.duration_s) == ([7, 7], 0.04)


# -- damage and limits -----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read", "ignore:Possibly corrupt EXIF")
@pytest.mark.parametrize("form", ["jpeg", "png", "bmp", "tiff", "webp"])
def test_a_cut_picture_is_refused_with_its_name(tmp_path: Path, form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    content = saved(Image.fromarray(noise), form)
    path = tmp_path / "cut.img"
    for length in (20, len(content) // 3, len(content) - len(content) // 5):
        path.write_bytes(content[:length])
        with pytest.raises(VideoError, match=r"cut\.img: (cannot be read as an image|not a video)"):
            first(path)


@pytest.mark.parametrize("form", FORMS)
def test_a_cut_animation_is_refused_with_its_name(tmp_path: Path, form: str) -> None:
    content = animation(form, duration=100)
    path = tmp_path / "cut.img"
    for length in range(30, len(content) - 12, 41):
        path.write_bytes(content[:length])
        with pytest.raises(VideoError, match=r"cut\.img: (cannot be read as an image|not a video|no video|cut short)"):
            read_frames(path, np.array([0.05, 0.55]))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("form", ["AVIF", "TIFF"])
def test_a_damaged_picture_is_refused_whatever_pillow_raises(form: str) -> None:
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow here reads no AVIF")
    content = animation(form)
    rest = len(content) // 4
    damaged = content[:-rest] + bytes(rest) if form == "AVIF" else content[: len(content) // 2]
    with pytest.raises(VideoError, match="cannot be read as an image"):
        read_frames(damaged, np.arange(6) / 25)


def test_limits_hold_for_images() -> None:
    still, moving = saved(Image.fromarray(picture(0)), "png"), animation("webp", duration=1000)
    with pytest.raises(TooLarge, match=r"<\d+ bytes>: frames of 160x64 px; the limit is 0.01 million pixels"):
        open_video(still, limits=Limits(max_pixels=10_000))
    with pytest.raises(TooLarge, match=r"<\d+ bytes>: 3\.0 s long; the limit is 2 s"):
        open_video(moving, limits=Limits(max_s=2.0))


def test_pixels_keep_what_pillow_gives() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert pixels_of_pil(Image.fromarray(pixels)).tolist() == pixels.tolist()


class Breaking(io.BytesIO):
    """A file elsewhere that fails after so many bytes, as `stores.FarFile` does."""

    failure: Unreachable | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        if self.tell() <= 600:
            return content
        self.failure = Unreachable("far.webp: cannot be read to its end")
        return b""


def test_a_store_that_fails_is_not_taken_for_damage() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for form in ("png", "tiff", "bmp"):
        with pytest.raises(Unreachable, match=r"far\.webp: cannot be read to its end"):
            first(Breaking(saved(Image.fromarray(noise), form)))


def test_images_by_address() -> None:
    fsspec.filesystem("memory").pipe("/images/moving.webp", animation("webp", duration=100, lossless=True))
    assert numbers(read_frames("memory://images/moving.webp", np.array([0.05, 0.35])).frames) == [0, 3]
