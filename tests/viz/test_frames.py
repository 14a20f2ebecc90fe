"""Frames on pages: borders by attention, maps, and how the score changes without each."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.colors import to_hex

from fewframes.results import Familiarity
from fewframes.viz.explanation import write_picture
from fewframes.viz.frames import HEAT, frames_of, overlaid
from helpers.explanations import explained


def test_borders_show_the_attention() -> None:
    shown = frames_of(np.zeros((2, 3, 32, 32), np.uint8), [0.0, 1.5], np.array([0.2, 0.8], np.float32))
    assert [frame["colour"] for frame in shown] == [to_hex(HEAT(0.25)), to_hex(HEAT(1.0))]
    assert [(frame["time"], frame["attention"]) for frame in shown] == [("0.00 s", "20.0%"), ("1.50 s", "80.0%")]


def test_many_frames_are_shown_in_equal_steps() -> None:
    def times(num_frames: int) -> list[object]:
        frames_TCHW, attention_T = np.zeros((num_frames, 3, 8, 8), np.uint8), np.ones(num_frames, np.float32)
        return [frame["time"] for frame in frames_of(frames_TCHW, [float(n) for n in range(num_frames)], attention_T)]

    assert times(40) == [f"{time_s}.00 s" for time_s in range(0, 40, 3)]
    assert len(times(16)) == len(times(64)) == 16


def test_heat_lies_where_the_map_is_high() -> None:
    map_hw = np.array([[0, 1], [0, 1]], np.float32)
    mixed = overlaid(np.full((3, 32, 32), 100, np.uint8), map_hw)
    assert (mixed[:, :, :4] == 100).all()
    assert (abs(mixed[:, :, -4:] - 255 * np.array(HEAT(1.0)[:3])[:, None, None] * 0.9 - 10) <= 1).all()


def test_a_page_says_how_the_score_falls_without_each_frame(tmp_path: Path) -> None:
    write_picture(explained(3), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 6  # each frame, and its map over it
    assert re.findall(r">([-+][\d.]+ points)</span>", page) == ["-10 points", "+10 points", "+30 points"]
    assert page.count('class="rise"') == 1
    assert "rollout of all blocks" in page
    assert "$x_ a label of many, many letters, more than there is room for" in page  # whole
    write_picture(explained(3, maps=False), tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("data:image/jpeg;base64,") == 3


def test_a_page_says_that_the_video_is_unknown(tmp_path: Path) -> None:
    found = explained(3)
    for known, words in ((0.1, "<b>unknown: too strange</b>"), (0.9, "<b>unfamiliar: too strange</b>")):
        judged = replace(found.prediction, familiarity=Familiarity(known, 0.5, unfamiliar=True, reason="too strange"))
        write_picture(replace(found, prediction=judged), tmp_path / "page.html")
        assert words in (tmp_path / "page.html").read_text()
