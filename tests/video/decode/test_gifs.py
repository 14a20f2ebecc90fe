"""GIFs that are whole, whatever follows or is missing at their end, and those that are cut."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fewframes.errors import VideoError
from fewframes.video.decode.gifs import is_cut
from fewframes.video.source import read_frames
from helpers.numbered import numbers, picture

TIMES = np.arange(6, dtype=np.float64) / 10 + 0.01


@pytest.fixture(scope="module")
def gif() -> bytes:
    content = io.BytesIO()
    first, *others = [Image.fromarray(picture(number)) for number in range(6)]
    first.save(content, format="gif", save_all=True, append_images=others, duration=100, comment=b"a comment")
    return content.getvalue()


@pytest.mark.parametrize("end", [b"", b"\n", b"\0" * 64, b"<!-- a server's note; -->", b";", b"\0;"])
@pytest.mark.parametrize("marked", [True, False])
def test_bytes_after_the_end_mark_and_none(gif: bytes, end: bytes, marked: bool) -> None:
    if not marked and end.strip(b"\0;"):
        return  # without a mark, only padding is no damage
    content = gif[: len(gif) - (not marked)] + end
    assert not is_cut(io.BytesIO(content))
    assert numbers(read_frames(content, TIMES).frames) == list(range(6))


def test_a_gif_that_ends_within_a_picture_is_cut_wherever_that_is(gif: bytes) -> None:
    last_picture = gif.rindex(b"\x21\xf9\x04")
    for length in (*range(14, 40), *range(last_picture + 1, len(gif) - 1)):
        assert is_cut(io.BytesIO(gif[:length])), length
    with pytest.raises(VideoError, match=r"cut short \(a GIF that ends within a picture\); copy the file again"):
        read_frames(gif[: last_picture + 40], TIMES)
