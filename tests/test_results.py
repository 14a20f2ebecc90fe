"""Results: predictions print, sort and serialise."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from fewframes.results import Clip, Prediction, Reading, Timing


@pytest.fixture
def prediction() -> Prediction:
    return Prediction(
        source="a.mp4",
        labels=("hug", "kick", "push"),
        scores=np.array([0.2, 0.7, 0.1], np.float32),
        times_s=np.array([0.5, 1.5], np.float32),
        frame_attention=np.array([0.25, 0.75], np.float32),
        embedding=np.zeros(4, np.float32),
        frame_embeddings=np.zeros((2, 4), np.float32),
        timing=Timing(0.1, 0.02, 0.3),
        reading=Reading(frames_decoded=7, frames_left_out=5, jumps=1, bytes_read=900),
    )


def test_top_is_sorted_and_cut(prediction: Prediction) -> None:
    assert [label for label, _ in prediction.top(5)] == ["kick", "hug", "push"]
    assert prediction.top(1)[0].label == "kick"
    assert prediction.top(1)[0].score == pytest.approx(0.7)
    with pytest.raises(ValueError, match="k = 0"):
        prediction.top(0)


def test_json_is_what_the_command_promises(prediction: Prediction) -> None:
    values = json.loads(prediction.to_json(2))
    assert values == {
        "source": "a.mp4",
        "label": "kick",
        "known": None,
        "unknown_below": None,
        "unfamiliar": None,
        "reason": "",
        "top": [{"label": "kick", "score": 0.7}, {"label": "hug", "score": 0.2}],
        "times_s": [0.5, 1.5],
        "frame_attention": [0.25, 0.75],
        "distinct_frames": 2,
        "notices": [],
        "timing_s": {"decode": 0.1, "transform": 0.02, "network": 0.3},
        "reading": {"frames_decoded": 7, "frames_left_out": 5, "jumps": 1, "bytes_read": 900},
    }


def test_they_print_well(prediction: Prediction) -> None:
    assert repr(prediction) == "Prediction('a.mp4': kick 70.0%, hug 20.0%, push 10.0%; 2 frames, 0.42 s)"
    clip = Clip(np.zeros((4, 3, 20, 30), np.uint8), np.zeros(4), 2.5, "a.mp4", Reading(4, 0, 0, 0))
    assert repr(clip) == "Clip('a.mp4', 4 frames of 30x20 px out of 2.50 s)"


def test_the_likeliest_action_by_name(prediction: Prediction) -> None:
    assert prediction.label == "kick"
    assert prediction.score == pytest.approx(0.7)


def test_a_notebook_shows_a_table_with_bars(prediction: Prediction) -> None:
    odd = replace(prediction, source="<script>.mp4", labels=('hug & "hold"', "<b>kick</b>", "push"))
    shown = odd._repr_html_()
    assert "<script>" not in shown
    assert "<b>" not in shown
    assert ">&lt;script&gt;.mp4: 2 frames, 0.42 s</caption>" in shown
    rows = re.findall(r"<tr><td[^>]*>(.*?)</td>.*?width: (\d+)px.*?</span> ([\d.]+%)</td>\s*</tr>", shown)
    assert rows == [
        ("&lt;b&gt;kick&lt;/b&gt;", "84", "70.0%"),
        ("hug &amp; &#34;hold&#34;", "24", "20.0%"),
        ("push", "12", "10.0%"),
    ]
    marks = re.findall(r'title="([^"]*)" style="[^"]*left: ([\d.]+)%; width: ([\d.]+)%; height: ([\d.]+)%', shown)
    assert [(title, float(left)) for title, left, _, _ in marks] == [("0.50 s: 25.0%", 0), ("1.50 s: 75.0%", 50)]
    assert [float(height) for *_, height in marks] == pytest.approx([100 / 3, 100])
    assert "attention to each frame, from 0.50 s to 1.50 s; at most 75.0%" in shown
