"""The option `--draw`: a copy of the video with the answers drawn over its pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from fewframes.cli.console import Shown, StageProgress, tell
from fewframes.cli.options import OUTPUT, check_writable
from fewframes.core.files import check_not_read
from fewframes.core.text import count_of

if TYPE_CHECKING:
    from fewframes.inference.detection.spans import Span
    from fewframes.inference.live.feed import LivePicture
    from fewframes.inference.live.results import StreamPrediction
    from fewframes.inference.timeline import Timeline
    from fewframes.results import Prediction
    from fewframes.video.live_settings import StreamConfig
    from fewframes.video.regions.zone import Region
    from fewframes.viz.overlay import Box, Overlay
    from fewframes.viz.overlay_video import GrowingVideo

MOST_LINES = 4
"""The most labels that are drawn at the same time; the surest ones."""
DrawOption = Annotated[
    Path | None,
    typer.Option(
        "--draw",
        metavar="FILE.mp4",
        help="Write a copy of the video with label, confidence and time drawn over it to this file (.mp4 or .mkv).",
        rich_help_panel=OUTPUT,
    ),
]


def check_draw(target: Path | None, paths: Sequence[str]) -> None:
    """Check that the video can be drawn, before minutes of work. Raises BadParameter and ConfigError."""
    if target is None:
        return
    from fewframes.viz.overlay_video import check_target

    if len(paths) != 1:
        raise typer.BadParameter(f"--draw takes one video, and {len(paths)} are given; name one, or leave it out")
    check_target(target, "--draw")
    check_writable(target, "--draw")
    check_not_read(target, paths)


def draw_predictions(
    found: Sequence[Shown], target: Path, start_s: float, end_s: float | None, regions: Sequence[Region] = ()
) -> None:
    """Write the video of an answer with its labels over every picture, or of the answers about regions, each beside its region.

    A video that failed is left out.
    """
    from fewframes.inference.explain import Explanation
    from fewframes.results import Failure

    answers = [each.prediction if isinstance(each, Explanation) else each for each in found]
    predictions = [answer for answer in answers if not isinstance(answer, Failure)]
    if not predictions:
        return
    if regions:
        lines = {(answer.zone, answer.track): _lines_of(answer) for answer in predictions}
        boxes = regions_over(predictions[0].source, regions, lambda key, _: lines.get(key, ())[:1])
        _write(predictions[0].source, target, lambda time_s: _overlay((), time_s, boxes(time_s)), start_s, end_s)
        return
    lines_of_all = _lines_of(predictions[0])
    _write(predictions[0].source, target, lambda time_s: _overlay(lines_of_all, time_s), start_s, end_s)


def _lines_of(prediction: Prediction) -> tuple[str, ...]:
    """Return the labels of an answer with their confidences, the surest first."""
    from fewframes.results import UNKNOWN

    if prediction.thresholds:  # any number of labels
        return tuple(line_of(label, score) for label, score in prediction.present[:MOST_LINES])
    return (UNKNOWN if prediction.label == UNKNOWN else line_of(*prediction.top(1)[0]),)


def draw_timelines(
    found: Sequence[Timeline], target: Path, start_s: float, end_s: float | None, regions: Sequence[Region] = ()
) -> None:
    """Write the video of a timeline with the labels of the spans over their pictures, or beside the regions that they are of."""

    def lines_at(spans: Iterable[Span], time_s: float) -> tuple[str, ...]:
        now = sorted((span for span in spans if span.start_s <= time_s < span.end_s), key=lambda span: -span.confidence)
        return tuple(line_of(span.label, span.confidence) for span in now[:MOST_LINES])

    if regions:
        spans: dict[tuple[str, str], list[Span]] = {}
        for own in found:  # a track has a timeline of each stretch in which it is there
            spans.setdefault((own.zone, own.track), []).extend(own.spans)
        boxes = regions_over(found[0].source, regions, lambda key, time_s: lines_at(spans.get(key, ()), time_s)[:1])
        _write(found[0].source, target, lambda time_s: _overlay((), time_s, boxes(time_s)), start_s, end_s)
        return
    _write(found[0].source, target, lambda time_s: _overlay(lines_at(found[0].spans, time_s), time_s), start_s, end_s)


def regions_over(
    source: str, regions: Sequence[Region], words_at: Callable[[tuple[str, str], float], tuple[str, ...]]
) -> Callable[[float], tuple[Box, ...]]:
    """Return a function of a time that returns the boxes of the regions that are there, named and labelled.

    Args:
        source: The video.
        regions: Zones, or tracks.
        words_at: Returns the labels of a region, which is told by its zone and track, at a time.
    """
    from fewframes.video.regions.boxes import Track
    from fewframes.video.source import read_frames
    from fewframes.viz.overlay import box_over

    height, width = read_frames(source, [0.0]).frames.shape[-2:]

    def boxes(time_s: float) -> Iterator[Box]:
        for number, region in enumerate(regions):
            sides = region.box_at(time_s) if isinstance(region, Track) else region.rectangle(time_s, height, width)
            if sides is None:
                continue
            key = ("", region.name) if region.kind == "track" else (region.name, "")
            in_pixels = not isinstance(region, Track) or region.in_pixels
            size = (width, height) if in_pixels else (1, 1)
            yield box_over(sides, size, (region.name, *words_at(key, time_s)), number)

    return lambda time_s: tuple(boxes(time_s))


@contextmanager
def drawing(
    target: Path | None, sources: Sequence[str], config: StreamConfig, *, is_alone: bool
) -> Iterator[StreamDrawing | None]:
    """Yield what draws the pictures of a stream, and end its file after the block; None if no file is named.

    Args:
        target: The file.
        sources: The sources, which the file must not replace.
        config: Settings of the source.
        is_alone: True if there is one source, without a name.

    Raises:
        BadParameter: There are several sources.
        FewframesError: The file cannot be written.
    """
    if target is None:
        yield None
        return
    from fewframes.viz.overlay_video import GrowingVideo

    if not is_alone:
        raise typer.BadParameter("--draw shows one source without a name; watch it by itself, or leave --draw out")
    check_draw(target, sources)
    video = GrowingVideo(target, tell)
    drawn = StreamDrawing(video, config)
    try:
        yield drawn
    finally:
        video.close()
        tell(f"drawn: {target}, {count_of(video.num_pictures, 'picture')}")


class StreamDrawing:
    """Draws each picture of a stream with the newest answers, as it comes."""

    def __init__(self, video: GrowingVideo, config: StreamConfig) -> None:
        """Prepare to draw.

        Args:
            video: The video that is written.
            config: Settings of the source.
        """
        from fewframes.video.regions.zone import zones_of

        self._video, self._zones = video, zones_of(config.zones)
        self._has_regions = bool(config.zones or config.detector)
        self._lines: dict[tuple[str, str], dict[str, str]] = {}

    def __call__(self, picture: LivePicture) -> None:
        """Draw a picture."""
        from fewframes.viz.overlay import box_over, drawn

        for answer in picture.answers:
            lines = self._lines.setdefault((answer.zone, answer.track), {})
            lines[answer.model] = _live_line(answer)
            if answer.is_last:
                del self._lines[answer.zone, answer.track]
        height, width = picture.pixels.shape[:2]
        boxes = [
            box_over(
                zone.rectangle(0.0, height, width), (width, height), (zone.name, *self._words(zone.name, "")), number
            )
            for number, zone in enumerate(self._zones)
        ]
        boxes += [
            box_over(sides.tolist(), (width, height), (name, *self._words("", name)), int(name))
            for name, sides in picture.persons.items()
        ]
        overlay = _overlay(self._words("", ""), picture.time_s, tuple(boxes) if self._has_regions else None)
        self._video.add(drawn(np.ascontiguousarray(picture.pixels), overlay), picture.time_s, picture.shown_s)

    def _words(self, zone: str, track: str) -> tuple[str, ...]:
        """Return what the models say of a zone, a person or the whole picture."""
        return tuple(filter(None, self._lines.get((zone, track), {}).values()))


def _live_line(answer: StreamPrediction) -> str:
    """Return the label of an answer with its confidence; empty while there is none."""
    if answer.label is None:
        return ""
    words = answer.label
    if answer.label in answer.labels:
        words = line_of(answer.label, float(answer.smoothed[answer.labels.index(answer.label)]))
    return f"{answer.model}: {words}" if answer.model else words


def line_of(label: str, score: float) -> str:
    """Return a label with its confidence, which comes first because long labels are shortened."""
    return f"{score:.0%} {label}"


def _overlay(lines: tuple[str, ...], time_s: float, boxes: tuple[Box, ...] | None = None) -> Overlay:
    """Return lines of text and the time, with the boxes of regions if there may be any."""
    from fewframes.viz.overlay import Overlay, clock_of

    return Overlay((*lines, clock_of(time_s)), boxes or (), is_below=boxes is not None)


def _write(
    source: str, target: Path, overlay_at: Callable[[float], Overlay], start_s: float, end_s: float | None
) -> None:
    from fewframes.viz.overlay_video import write_overlay

    with StageProgress() as progress:
        write_overlay(
            source,
            target,
            overlay_at,
            start_s=start_s,
            end_s=end_s,
            progress=lambda done_s, all_s: progress.show("drawing", round(done_s), round(all_s), "seconds"),
        )
    tell(f"drawn: {target}")
