"""Text and boxes over pictures can be read on light and dark ones, whatever their size and letters."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from PIL import ImageFont

from fewframes.viz.overlay import FONT, Box, Overlay, clock_of, drawn, font_for, shortened
from fewframes.viz.overlay import _font_file as font_file


def contrast(first: float, second: float) -> float:
    """The ratio of two grey levels (0-255) by which WCAG judges text; 4.5 is what it asks for."""

    def luminance(level: float) -> float:
        share = level / 255
        return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

    brighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("ground", [0, 128, 255])
def test_text_stands_out_from_any_ground(ground: int) -> None:
    picture = np.full((240, 320, 3), ground, np.uint8)
    found = drawn(picture, Overlay(("87 % walk", "0:03.2")))
    panel = found[:40, :100]
    assert panel.max() > 250  # the letters
    darkest = panel.min()
    assert contrast(255, float(darkest)) > 4.5
    assert (found[100:] == ground).all()  # nothing else changed
    assert (picture == ground).all()


@pytest.mark.parametrize(("height", "width"), [(240, 320), (17, 33), (16, 16), (1, 1), (600, 120), (2160, 3840)])
def test_pictures_of_any_size_take_text_and_boxes(height: int, width: int) -> None:
    boxes = (Box(0.1, 0.2, 0.5, 0.9, "person 3", "#101010"), Box(-1, -1, 2, 2), Box(0.9, 0.9, 0.1, 0.1, "upside down"))
    found = drawn(
        np.full((height, width, 3), 90, np.uint8),
        Overlay(("12 % a label that is far too long for it", "0:00.0"), boxes),
    )
    assert found.shape == (height, width, 3)
    assert found.dtype == np.uint8


def test_a_box_is_drawn_where_its_fractions_say() -> None:
    found = drawn(np.zeros((101, 201, 3), np.uint8), Overlay(boxes=(Box(0.25, 0.5, 0.75, 0.8, "", "#ff0000"),)))
    rows, columns = np.nonzero(found[..., 0] == 255)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (50, 80, 50, 150)


def test_long_labels_are_shortened_and_keep_their_beginning() -> None:
    font = ImageFont.truetype(str(FONT), 20)
    found = shortened("99 % playing the accordion under water", font, 120)
    assert found.startswith("99 % p")
    assert found.endswith("…")
    assert font.getlength(found) <= 120
    assert shortened("99 % hug", font, 120) == "99 % hug"


def test_letters_of_europe_and_the_near_east_are_there(caplog: pytest.LogCaptureFixture) -> None:
    for label in ("фехтование ёж", "ξιφασκία", "přetlačování", "مصافحة", "naïve – “x” €"):
        assert font_file(frozenset(label)) == str(FONT)
    assert not caplog.records


def test_letters_that_no_font_has_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fewframes"):
        for size_px in (10, 20, 10):
            font_for("hug \U000e0fff", size_px)  # a code point that no font has
    assert [record.getMessage() for record in caplog.records] == [
        "no font here has the letters \U000e0fff; install one, such as Noto Sans CJK, to see them"
    ]


def test_labels_with_control_characters_stay_one_line() -> None:
    picture = np.zeros((60, 200, 3), np.uint8)
    found = drawn(picture, Overlay(("a\nb\x1b[31m\u202e",)))
    assert (found == drawn(picture, Overlay(("a\\nb\\x1b[31m\\u202e",)))).all()


@pytest.mark.parametrize(
    ("time_s", "words"),
    [(0, "0:00.0"), (7.34, "0:07.3"), (59.99, "0:59.9"), (0.3, "0:00.3"), (60, "1:00.0"), (3723.05, "1:02:03.0")],
)
def test_times_are_those_of_the_tenth_that_has_begun(time_s: float, words: str) -> None:
    assert clock_of(time_s) == words
