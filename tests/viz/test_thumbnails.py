"""Small pictures for people."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from fewframes.inference.detection.spans import Span
from fewframes.viz.thumbnails import data_url, jpeg, middle_frames
from helpers.numbered import Numbered, numbers


def test_the_frame_in_the_middle_of_each_span_in_their_order(tmp_path: Path) -> None:
    recipe = Numbered()
    path = recipe.write(tmp_path / "film")
    spans = [Span(1.0, 2.02, "late"), Span(0.22, 0.62, "early")]
    found = np.stack(list(middle_frames(str(path), spans, width_px=recipe.width)))
    assert numbers(found) == [37, 10]  # 1.51 s and 0.42 s at 25 a second


def test_what_cannot_be_decoded_is_black(tmp_path: Path) -> None:
    path = Numbered().write(tmp_path / "film")
    frames = list(middle_frames(str(path), [Span(0.0, 1.0, "there"), Span(50.0, 52.0, "behind the end")], width_px=64))
    assert frames[0].max() > 0
    assert frames[1].shape == frames[0].shape
    assert frames[1].max() == 0


def test_a_jpeg_in_an_address() -> None:
    picture = jpeg(np.full((3, 24, 40), 200, np.uint8), 16)
    assert Image.open(io.BytesIO(picture)).size == (16, 16)
    assert Image.open(io.BytesIO(jpeg(np.zeros((3, 24, 40), np.uint8)))).size == (40, 24)
    assert data_url(picture).startswith("data:image/jpeg;base64,/9j/")
