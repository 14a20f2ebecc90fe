"""Spans: overlaps, repeats and average precision, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewframes.inference.detection.spans import (
    Span,
    average_precision,
    mean_average_precision,
    most_over_time,
    overlap,
    without_repeats,
)


def test_overlap_is_shared_over_union() -> None:
    assert overlap(Span(0, 4, "hug"), Span(2, 6, "kick")) == pytest.approx(2 / 6)
    assert overlap(Span(0, 4, "hug"), Span(4, 6, "hug")) == 0
    assert overlap(Span(0, 4, "hug"), Span(1, 3, "hug")) == pytest.approx(0.5)


def test_average_precision_by_hand() -> None:
    true = [[Span(0, 4, "hug"), Span(10, 14, "hug")], [Span(0, 2, "hug")]]
    found = [
        [Span(0, 4, "hug", 0.9), Span(0, 3.5, "hug", 0.8), Span(10, 13, "hug", 0.6)],
        [Span(5, 7, "hug", 0.7)],
    ]
    # By confidence: right, wrong (found twice), wrong, right: precision 1 and 2/4 at the two of three that are found.
    assert average_precision(found, true, 0.5) == pytest.approx((1 + 0.5) / 3)
    assert average_precision(found, true, 0.8) == pytest.approx(1 / 3)


def test_precision_is_the_best_at_any_higher_recall() -> None:
    true = [[Span(0, 1, "hug"), Span(2, 3, "hug")]]
    found = [[Span(8, 9, "hug", 0.9), Span(0, 1, "hug", 0.8), Span(2, 3, "hug", 0.7)]]
    assert average_precision(found, true, 0.5) == pytest.approx(2 / 3)


def test_mean_is_over_labels_that_are_there() -> None:
    true = [[Span(0, 4, "hug"), Span(5, 9, "kick")]]
    found = [[Span(0, 2, "hug", 0.9), Span(5, 9, "kick", 0.9), Span(5, 9, "push", 1.0)]]
    assert mean_average_precision(found, true) == {0.3: 1.0, 0.4: 1.0, 0.5: 1.0, 0.6: 0.5, 0.7: 0.5}
    assert mean_average_precision([[]], true, (0.5,)) == {0.5: 0.0}


def test_a_moment_has_the_most_of_the_windows_over_it() -> None:
    scores_WK = np.array([[0.2, 0.9], [0.6, 0.1], [np.nan, np.nan], [0.3, 0.4]], np.float32)
    starts_s, times_s = (
        np.array([0.0, 1.0, 1.5, 5.0]),
        np.array([-0.5, 0.5, 1.7, 2.5, 4.0, 5.0]),
    )
    most_NK = most_over_time(scores_WK, starts_s, 2.0, times_s)
    assert np.allclose(most_NK, [[0.0, 0.0], [0.2, 0.9], [0.6, 0.9], [0.6, 0.1], [0.0, 0.0], [0.3, 0.4]])


def test_spans_that_repeat_a_surer_one_of_their_label_go_as_in_torchvision() -> None:
    from torchvision.ops import batched_nms

    generator = torch.Generator().manual_seed(0)
    starts_s = (60 * torch.rand(400, generator=generator)).double()
    ends_s = starts_s + (8 * torch.rand(400, generator=generator) + 0.1)
    confidences = torch.rand(400, generator=generator).mul(50).round() / 50  # many are equally sure
    labels = torch.randint(0, 3, (400,), generator=generator)
    spans = [
        Span(start, end, "abc"[label], confidence)
        for start, end, label, confidence in zip(
            starts_s.tolist(), ends_s.tolist(), labels.tolist(), confidences.tolist(), strict=True
        )
    ]
    boxes = torch.stack([starts_s, torch.zeros(400), ends_s, torch.ones(400)], dim=1)
    for most in (0.0, 0.3, 0.9):
        wanted = batched_nms(boxes, confidences.double(), labels, most).tolist()
        assert without_repeats(spans, most) == [spans[place] for place in wanted]
    assert without_repeats([]) == []
