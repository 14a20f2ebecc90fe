"""The page of changes: which videos and pictures it has, and how spans lie in a track."""

from __future__ import annotations

import pytest

from fewframes.inference.detection.changes import ArchiveChanges, VideoSpans, compare_archives
from fewframes.inference.detection.spans import Span
from fewframes.viz import changes
from fewframes.viz.changes import changes_page, drawn, pictured, rows_of


def archive(*numbers: int) -> ArchiveChanges:
    """Videos with so many spans of 2 to 4 s that are gone, and one that is unchanged."""
    before = {
        str(video): VideoSpans(
            source=str(video),
            range_s=(0, 100),
            spans=(*(Span(5 * n, 5 * n + 2 + n % 3, "hug") for n in range(number)), Span(90, 95, "kick")),
        )
        for video, number in enumerate(numbers)
    }
    after = {source: VideoSpans(source=source, range_s=(0, 100), spans=(Span(90, 95, "kick"),)) for source in before}
    return compare_archives(before, after)


def test_spans_that_overlap_stand_in_rows_of_their_own() -> None:
    spans = [Span(0, 4, "a"), Span(6, 9, "a"), Span(2, 7, "b"), Span(3, 5, "c"), Span(9, 10, "a")]
    assert rows_of(spans) == [0, 0, 1, 2, 0]
    assert rows_of([]) == []


def test_the_most_changed_videos_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    found = archive(2, 9, 5)
    assert [video.source for video in drawn(found)] == ["1", "2", "0"]
    monkeypatch.setattr(changes, "MOST_CHANGES", 16)
    assert [video.source for video in drawn(found)] == ["1", "2"]
    assert "Drawn here: the 2 most changed of 3 videos." in changes_page(found, {})
    monkeypatch.setattr(changes, "MOST_CHANGES", 3)
    assert [video.source for video in drawn(found)] == ["1"]


def test_pictures_are_of_the_longest_changes_of_the_most_changed_videos() -> None:
    found = archive(2, 9)
    assert pictured(found, 100) == {"1": list(range(9)), "0": [0, 1]}
    assert pictured(found, 3) == {"1": [2, 5, 8]}
    page = changes_page(found, {("1", 2): b"jpeg"})
    assert page.count("data:image/jpeg;base64,anBlZw==") == 1
