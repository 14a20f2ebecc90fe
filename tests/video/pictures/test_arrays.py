"""Pictures for exported graphs are those that the model sees, up to one level of 255 where pictures are smooth."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fewframes.errors import VideoError
from fewframes.results import Reading
from fewframes.video.pictures.arrays import FrameStack, frame_of_pixels, pixels_of_image
from fewframes.video.source import read_frames
from fewframes.video.view import ViewConfig
from helpers.numbered import numbers, picture

VIEW = ViewConfig(resize_px=36, crop_px=32, mean=(0.485, 0.456, 0.406))


@pytest.mark.parametrize("stacked", [lambda frame: frame, np.ascontiguousarray])
def test_frames_of_a_stack_are_taken_by_torch_as_they_are(stacked: Callable[[Any], Any]) -> None:
    """`torch.from_numpy` warns of read-only arrays and refuses negative strides; warnings are errors here."""
    stack = FrameStack(3, stacked)
    mirrored, read_only = picture(3)[:, ::-1][:, ::-1][::-1], picture(5)
    read_only.flags.writeable = False
    for pixels_HWC in (mirrored, read_only, picture(5, 320, 128)):  # the last one is resized
        stack.add(pixels_HWC)
    for indices in ([0, 1, 2], [2, 0, 0, 1]):
        frames = stack.clip(indices, [0.0] * len(indices), 1.0, "three", Reading(3, 0, 0, 0)).frames
        assert torch.from_numpy(frames).data_ptr() == frames.__array_interface__["data"][0]
        assert frames.shape[-3:] == (3, 64, 160)
        assert numbers(frames.reshape(-1, 3, 64, 160)) == [[3, 5, 5][index] for index in indices]


def test_pictures_of_other_kinds() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert pixels_of_image(grey)[..., 2].tolist() == grey.tolist()
    planes = torch.arange(24, dtype=torch.uint8).reshape(3, 2, 4)
    assert pixels_of_image(planes).tolist() == planes.permute(1, 2, 0).tolist()


# -- what numpy, OpenCV, Pillow and torch hand over ------------------------------------------------------------------

FRAMES = np.random.default_rng(0).integers(0, 255, (5, 24, 40, 3), dtype=np.uint8)
TIMES = torch.tensor([0.0, 0.1, 0.18], dtype=torch.float64)


def rgb_of(source: Any) -> Any:
    """Frames 0, 2 and 4 of a source, (T, H, W, C)."""
    return read_frames(source, TIMES).frames.transpose(0, 2, 3, 1)


class Kind(np.ndarray[Any, Any]):
    """An array of another class."""


@pytest.mark.parametrize(
    "made",
    [
        lambda frames: frames[..., ::-1][..., ::-1],
        lambda frames: frames[::-1].copy()[::-1],
        lambda frames: np.flip(np.flip(frames, 2).copy(), 2),
        lambda frames: [np.flipud(np.flipud(frame).copy()) for frame in frames],
        np.asfortranarray,
        lambda frames: frames.view(Kind),
        lambda frames: np.ma.masked_array(frames, mask=False),
        lambda frames: np.broadcast_to(frames, frames.shape),  # read-only
        lambda frames: np.repeat(frames, 2, axis=2)[:, :, ::2],
        lambda frames: frames.transpose(0, 3, 1, 2),
        torch.from_numpy,
        lambda frames: torch.from_numpy(frames).permute(0, 3, 1, 2),
        lambda frames: torch.from_numpy(frames).flip(0).flip(0),
        lambda frames: list(torch.from_numpy(frames)),
        tuple,
        deque,
        lambda frames: [Image.fromarray(frame) for frame in frames],
        lambda frames: [frames[0], Image.fromarray(frames[1]), torch.from_numpy(frames[2]), *frames[3:]],
        lambda frames: np.concatenate([frames, np.full((5, 24, 40, 1), 255, np.uint8)], axis=-1),
    ],
)
def test_pictures_however_they_lie(made: Callable[[Any], Any]) -> None:
    assert (rgb_of(made(FRAMES)) == FRAMES[::2]).all()


def test_pictures_turned_by_their_strides() -> None:
    """The values, not only the acceptance: blue and red change places, time and rows run backwards."""
    assert (rgb_of(FRAMES[..., ::-1]) == FRAMES[::2][..., ::-1]).all()
    assert (rgb_of(FRAMES[::-1]) == FRAMES[::-1][::2]).all()
    assert (rgb_of(FRAMES[:, ::-1, ::-1]) == FRAMES[::2, ::-1, ::-1]).all()


@pytest.mark.parametrize(
    "made",
    [
        lambda grey: grey,
        lambda grey: grey[..., None],
        lambda grey: grey[:, None],
        lambda grey: torch.from_numpy(grey)[:, None],
        lambda grey: [Image.fromarray(frame) for frame in grey],
    ],
)
def test_grey_pictures(made: Callable[[Any], Any]) -> None:
    grey = FRAMES[..., 0].copy()
    assert (rgb_of(made(grey)) == grey[::2, ..., None]).all()


def test_a_memory_map_is_read_where_it_lies(tmp_path: Path) -> None:
    np.save(tmp_path / "frames.npy", FRAMES)
    assert (rgb_of(np.load(tmp_path / "frames.npy", mmap_mode="r")) == FRAMES[::2]).all()


def test_good_pictures_are_not_copied() -> None:
    for given in (FRAMES[0], torch.from_numpy(FRAMES[0]), FRAMES[0].transpose(2, 0, 1)):
        assert np.shares_memory(pixels_of_image(given), FRAMES)
        assert np.shares_memory(frame_of_pixels(pixels_of_image(given)), FRAMES)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (FRAMES / 255, "dtype float64: needs uint8 values 0-255"),
        (torch.rand(5, 3, 24, 40, requires_grad=True), "dtype torch.float32: needs uint8"),
        (torch.rand(5, 3, 24, 40).half(), "dtype torch.float16: needs uint8"),
        (torch.rand(5, 3, 24, 40).bfloat16(), "dtype torch.bfloat16: cannot be made an array; needs uint8"),
        (torch.zeros(5, 24, 40, 3, dtype=torch.uint8, device="meta"), "dtype torch.uint8: cannot be made an array"),
        (torch.zeros(5, 24, 40, 3, dtype=torch.complex64), "dtype torch.complex64: needs uint8"),
        (FRAMES.astype(np.int64), "dtype int64: needs uint8"),
        (FRAMES.astype(">u2"), "dtype >u2: needs uint8"),
        (FRAMES > 9, "dtype bool: needs uint8"),
        (FRAMES.astype(object), "dtype object: needs uint8"),
        ([[[1, 2], [3]]], "inhomogeneous"),
        ([None, None], "dtype object: needs uint8"),
        (np.ma.masked_less(FRAMES, 9), r"masked in parts: fill these first, with frame\.filled\(0\)"),
        (FRAMES[0], r"an array of shape \(24, 40, 3\): one picture; pass a list of pictures, \[array\]"),
        (FRAMES[0, ..., :1], r"an array of shape \(24, 40, 1\): one picture"),
        (FRAMES[0, ..., 0], r"an array of shape \(24, 40\): one picture"),
        (np.array(7, np.uint8), r"an array of shape \(\): no pictures; needs \(T, H, W, 3\)"),
        (torch.zeros(3, 24, 40, dtype=torch.uint8), r"one picture with its colours first, or three grey ones; pass \[array\]"),
        ([np.zeros((3, 24, 3), np.uint8)], "its colours may be first or last"),
        ([np.zeros((24, 40, 2), np.uint8)], r"shape \(24, 40, 2\): needs \(H, W, 3\)"),
        ([np.zeros((0, 40, 3), np.uint8)], r"shape \(0, 40, 3\): needs"),
        ([np.zeros((1, 24, 40, 3), np.uint8)], r"shape \(1, 24, 40, 3\): needs"),
        (FRAMES[:0], "<0 frames>: no frames in it"),
    ],
)  # fmt: skip
def test_what_is_no_pictures_is_refused(given: Any, message: str) -> None:
    with pytest.raises((ValueError, VideoError), match=message):
        rgb_of(given)


def test_a_generator_is_refused_with_a_way_out() -> None:
    with pytest.raises(TypeError, match=r"a source of type generator: needs a path, bytes, a binary file or frames"):
        read_frames((frame for frame in FRAMES), TIMES)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a source of type Image"):
        read_frames(Image.fromarray(FRAMES[0]), TIMES)  # type: ignore[arg-type]


def test_pictures_of_several_sizes_take_the_first() -> None:
    clip = read_frames([picture(3), picture(5, 320, 128), picture(6)[::-1, :, ::-1]], torch.tensor([0.0, 0.05, 0.1]))
    assert (tuple(clip.frames.shape), numbers(clip.frames)) == ((3, 3, 64, 160), [3, 5, 6])


def test_transparent_arrays_are_over_black() -> None:
    glass = np.full((1, 2, 4), (200, 100, 50, 255), np.uint8)
    glass[0, 1, 3] = 0
    assert pixels_of_image(glass).tolist() == [[[200, 100, 50], [0, 0, 0]]]
