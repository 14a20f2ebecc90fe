"""Comparing two timelines: what counts as the same span, and which properties every comparison has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from fewframes.errors import ConfigError
from fewframes.inference.detection.changes import (
    CHANGED,
    CSV_COLUMNS,
    MIRRORED,
    ChangesConfig,
    VideoSpans,
    compare_archives,
    compare_timelines,
    matched,
    same_place,
)
from fewframes.inference.detection.spans import MOST_OVERLAP, Span, overlap
from fewframes.results import Failure

# Quarters of a second and few values of confidence, so that ties and equal spans are common.
SPANS = st.builds(
    lambda start, length, label, confidence: Span(start / 4, (start + length) / 4, label, confidence / 8),
    st.integers(0, 60),
    st.integers(1, 20),
    st.sampled_from(["hug", "kick", "push"]),
    st.integers(0, 8),
)
LISTS = st.lists(SPANS, max_size=12)


def video(*spans: Span, range_s: tuple[float, float] = (0.0, 30.0), **about: object) -> VideoSpans:
    return replace(VideoSpans(source="a.mp4", range_s=range_s, spans=spans), **about)  # type: ignore[arg-type]


def kinds(before: VideoSpans, after: VideoSpans, config: ChangesConfig | None = None) -> list[str]:
    return [change.kind for change in compare_timelines(before, after, config or ChangesConfig()).changes]


def test_what_becomes_of_a_span() -> None:
    hug = Span(4, 8, "hug", 0.8)
    for after, kind in (
        (hug, "unchanged"),
        (replace(hug, start_s=4.5, confidence=0.71), "unchanged"),  # no more than half a second, less than 0.1
        (replace(hug, start_s=4.6), "moved"),
        (replace(hug, end_s=9, confidence=0.2), "moved"),
        (replace(hug, confidence=0.95), "surer"),
        (replace(hug, confidence=0.65), "less sure"),
        (replace(hug, label="kick", start_s=4.7), "relabelled"),
    ):
        assert kinds(video(hug), video(after)) == [kind]
    assert kinds(video(hug), video()) == ["gone"]
    assert kinds(video(), video(hug)) == ["new"]
    # An overlap of 1 s in 7 s is another action; 2 s in 6 s is the same one.
    assert kinds(video(hug), video(replace(hug, start_s=7, end_s=11))) == ["gone", "new"]
    assert kinds(video(hug), video(replace(hug, start_s=6, end_s=10))) == ["moved"]
    assert kinds(video(hug), video(replace(hug, start_s=6)), ChangesConfig(shift_s=2)) == ["unchanged"]


def test_one_label_goes_before_two() -> None:
    hug, kick = Span(0, 4, "hug"), Span(0, 4, "kick")
    assert kinds(video(hug, kick), video(kick, hug)) == ["unchanged", "unchanged"]
    # The kick is the same kick, moved by 1.5 s, though the hug overlaps it more.
    found = compare_timelines(video(kick), video(hug, Span(1.5, 5.5, "kick")))
    assert [(change.kind, change.labels) for change in found.changes] == [("new", ("hug",)), ("moved", ("kick",))]


def test_seconds_whose_answer_is_another() -> None:
    hug = Span(4, 8, "hug", 0.8)
    for after, seconds in (
        ((), 4.0),
        ((replace(hug, start_s=5, end_s=10),), 3.0),  # 4-5 is no longer a hug, 8-10 is one now
        ((replace(hug, label="kick", start_s=3),), 5.0),
        ((replace(hug, confidence=0.1),), 0.0),
    ):
        assert compare_timelines(video(hug), video(*after)).changed_s == seconds


def test_where_the_other_did_not_look() -> None:
    early, late = Span(2, 6, "hug"), Span(20, 24, "kick")
    whole, half = video(early, late), video(early, range_s=(0.0, 10.0))
    assert kinds(whole, half) == ["unchanged", "unseen"]
    assert kinds(half, whole) == ["unchanged", "unseen"]
    assert kinds(whole, video(early, gaps=((19.0, 23.0),))) == ["unchanged", "unseen"]
    assert kinds(whole, video(early, gaps=((23.0, 24.0),))) == ["unchanged", "gone"]


@settings(deadline=None)
@given(LISTS)
def test_a_timeline_is_unchanged_from_itself(spans: list[Span]) -> None:
    found = compare_timelines(video(*spans), video(*spans))
    assert found.counts() == {**dict.fromkeys(found.counts(), 0), "unchanged": len(spans)}
    assert found.changed_s == 0
    assert compare_archives({"a.mp4": video(*spans)}, {"a.mp4": video(*spans)}).videos == (found,)


@settings(deadline=None)
@given(LISTS, LISTS)
def test_swapping_mirrors_the_kinds(before: list[Span], after: list[Span]) -> None:
    there = compare_timelines(video(*before), video(*after, range_s=(0.0, 9.0)))
    back = compare_timelines(video(*after, range_s=(0.0, 9.0)), video(*before))
    assert {MIRRORED.get(kind, kind): number for kind, number in there.counts().items()} == back.counts()
    assert there.changed_s == pytest.approx(back.changed_s)


@settings(deadline=None)
@given(LISTS, LISTS)
def test_every_span_is_in_exactly_one_change(before: list[Span], after: list[Span]) -> None:
    found = compare_timelines(video(*before), video(*after)).changes
    order = repr
    assert sorted([c.before for c in found if c.before is not None], key=order) == sorted(before, key=order)
    assert sorted([c.after for c in found if c.after is not None], key=order) == sorted(after, key=order)


@settings(deadline=None)
@given(LISTS, LISTS)
def test_pairs_overlap_and_no_free_pair_is_left(before: list[Span], after: list[Span]) -> None:
    pairs = matched(before, after)
    assert all(overlap(before[old], after[new]) > MOST_OVERLAP for old, new in pairs)
    old_free = [span for index, span in enumerate(before) if index not in {old for old, _ in pairs}]
    new_free = [span for index, span in enumerate(after) if index not in {new for _, new in pairs}]
    assert all(overlap(one, other) <= MOST_OVERLAP for one in old_free for other in new_free)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_pairs_are_those_of_an_assignment_where_spans_are_shifted_a_little(seed: int) -> None:
    # Spans as a timeline has them: those of one label hardly overlap. Then the best sum of overlaps has the same pairs.
    draw = np.random.default_rng(seed)
    before = [Span(5 * number, 5 * number + float(draw.uniform(2, 6)), "hug") for number in range(20)]
    after = [
        Span(span.start_s + float(draw.uniform(-0.7, 0.7)), span.end_s + float(draw.uniform(-0.7, 0.7)), "hug")
        for span in before
        if draw.random() < 0.8
    ]
    overlaps = np.array([[overlap(one, other) for other in after] for one in before]).reshape(len(before), len(after))
    rows, columns = linear_sum_assignment(np.where(overlaps > MOST_OVERLAP, overlaps, 0), maximize=True)
    best = {
        (int(row), int(column))
        for row, column in zip(rows, columns, strict=True)
        if overlaps[row, column] > MOST_OVERLAP
    }
    assert set(matched(before, after)) == best


def test_windows_are_paired_by_their_place() -> None:
    before = [Span(2 * number, 2 * number + 4, "AB"[number % 2]) for number in range(4)]
    after = [Span(2 * number, 2 * number + 4, "BA"[number % 2]) for number in (0, 1, 3)]
    assert same_place(before, after) == [(0, 0), (1, 1), (3, 2)]
    # By overlap each window would be the next one, which has its label and lies 2 s later.
    assert matched(before, after) != same_place(before, after)


def test_videos_that_cannot_be_compared_are_told_apart() -> None:
    there, failed = video(Span(0, 4, "hug")), VideoSpans.of(Failure("a.mp4", "a.mp4: the file is empty"))
    before = {"both": there, "old": there, "broken": failed, "lost": there, "never": failed}
    after = {"both": video(), "broken": there, "lost": failed, "never": failed, "young": there}
    found = compare_archives(before, after)
    assert [found.videos[0].source, found.videos[0].counts()["gone"]] == ["both", 1]
    assert {video.source: video.status for video in found.videos} == {
        "both": "compared",
        "old": "only before",
        "young": "only after",
        "broken": "failed before",
        "lost": "failed after",
        "never": "failed twice",
    }
    assert sum(found.counts().values()) == 1
    assert found.summary() == (
        "1 video compared, 1 only before, 1 only after, 1 failed before, 1 failed after, 1 failed twice: 1 of 1 span changed "
        "(0 new, 1 gone, 0 relabelled, 0 moved); 0 surer, 0 less sure, 0 unchanged; another answer for 0:04 of 0:30"
    )
    rows = [row for video in found.videos for row in video.to_rows()]
    assert all(tuple(row) == CSV_COLUMNS for row in rows)
    assert "the file is empty" in str(next(row for row in rows if row["source"] == "lost")["error"])


def test_labels_have_spans_and_seconds_before_and_after() -> None:
    before = video(Span(0, 4, "hug"), Span(10, 12, "hug"), Span(20, 24, "kick"))
    after = video(Span(0, 4, "hug"), Span(10, 12, "kick"), Span(20, 24, "kick"))
    hug, kick = sorted(compare_archives({"a": before}, {"a": after}).labels(), key=lambda label: label.label)
    assert (hug.num_before, hug.before_s, hug.num_after, hug.after_s) == (2, 6, 1, 4)
    assert (kick.num_before, kick.before_s, kick.num_after, kick.after_s) == (1, 4, 2, 6)
    assert hug.counts["relabelled"] == kick.counts["relabelled"] == 1
    assert sum(hug.counts[kind] for kind in CHANGED) == 1


def test_two_videos_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"a\.mp4 and b\.mp4: two videos"):
        compare_timelines(video(), replace(video(), source="b.mp4"))
