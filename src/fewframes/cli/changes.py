"""`fewframes changes`: compare two results of `timeline`; and what `timeline` and `index` print when they compare."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fewframes.cli.console import print_lines, tell
from fewframes.cli.options import OUTPUT, CsvOption, JsonOption, check_writable
from fewframes.core.files import check_not_read, write_file
from fewframes.core.text import count_of, for_csv, json_line, plain
from fewframes.errors import EXIT_SOME_FAILED, DataError, VideoError

if TYPE_CHECKING:
    from fewframes.inference.detection.changes import ArchiveChanges, Change, ChangesConfig, VideoChanges, VideoSpans
    from fewframes.inference.timeline import Timeline
    from fewframes.results import Failure

COMPARISON = "Comparison"
SHOWN_VIDEOS, SHOWN_CHANGES = 20, 10
"""The most changed videos that the table has, and the changes of each; --json, --csv and the page have them all."""
PICTURES, PICTURE_PX = 60, 240
"""Pictures on the page, and their width."""
FAILED = ("failed before", "failed after", "failed twice")
Form = Literal["json", "csv", "table"]

ShiftOption = Annotated[
    float,
    typer.Option(
        "--least-shift",
        min=0,
        help="Seconds by which a start or an end must differ, and more, to count as moved.",
        rich_help_panel=COMPARISON,
    ),
]
ConfidenceOption = Annotated[
    float,
    typer.Option(
        "--least-change",
        min=0,
        max=1,
        help="Difference of confidence beyond which a span counts as surer or less sure.",
        rich_help_panel=COMPARISON,
    ),
]
PageOption = Annotated[
    Path | None,
    typer.Option(
        "--changes-page",
        metavar="FILE.html",
        help="Write an HTML page of the changes: two tracks for each video, a list to filter, pictures where the videos are there.",
        rich_help_panel=COMPARISON,
    ),
]

AgainstOption = Annotated[
    str | None,
    typer.Option(
        metavar="RESULT",
        help="Print what changed since an earlier result: a file of --json, or a folder of --engine.",
        rich_help_panel=COMPARISON,
    ),
]
AgainstModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Print what changed since an earlier model with the same frame encoder. Both answer in one pass.",
        rich_help_panel=COMPARISON,
    ),
]


def changes(
    before: Annotated[
        str,
        typer.Argument(
            metavar="BEFORE",
            help="The earlier result: a file of `timeline --json`, or a folder of `timeline --engine`.",
        ),
    ],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="The later result.")],
    least_shift: ShiftOption = 0.5,
    least_change: ConfidenceOption = 0.1,
    json: JsonOption = False,
    as_csv: CsvOption = False,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page",
            metavar="FILE.html",
            help="Write an HTML page: two tracks for each video, a list to filter, pictures where the videos are there.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
) -> None:
    """Compare two results of `timeline`: which spans are new, gone, relabelled or moved.

    Spans that stayed are surer, less sure or unchanged.
    Nothing is run, and no video is read but for the pictures of --page.

    Exit codes: 0 compared, 1 a result cannot be read or no video is in both, 2 wrong use, 3 some videos failed in one of them.
    """
    form = form_of(json=json, as_csv=as_csv)
    from fewframes.batch.timelines import read_timelines
    from fewframes.inference.detection.changes import compare_archives

    check_page(page, [before, after])
    config = comparison(least_shift, least_change)
    found = compare_archives(read_timelines(before), read_timelines(after), config)
    if all(video.status in ("only before", "only after") for video in found.videos):
        raise DataError(
            f"{before} and {after}: none of {count_of(len(found.videos), 'video')} is in both; give results of videos at the "
            "same paths"
        )
    if finish(found, form, page):
        raise typer.Exit(EXIT_SOME_FAILED)


@dataclass(frozen=True)
class Against:
    """The comparison with an earlier result or model, if one was asked for."""

    result: str | None
    model: str | None
    page: Path | None
    config: ChangesConfig

    @property
    def is_asked(self) -> bool:
        """Return True if something is compared."""
        return self.result is not None or self.model is not None

    def read(self, sources: Sequence[str]) -> dict[str, VideoSpans] | None:
        """Return the earlier result, if there is one, before any work is done. Raises DataError and ConfigError."""
        if self.is_asked:
            check_page(self.page, [*sources, *([self.result] if self.result else [])])
        if self.result is None:
            return None
        from fewframes.batch.timelines import read_timelines

        return read_timelines(self.result)

    def show(
        self,
        found: Iterable[tuple[Timeline, ...] | Failure],
        names: Sequence[str],
        before: dict[str, VideoSpans] | None,
        form: Form,
    ) -> bool:
        """Print the changes of these timelines. Return True if no video failed and all parts could be decoded.

        Args:
            found: The timelines of each video, of the model and then of the earlier one, or the failure.
            names: The names of these models.
            before: The earlier result; None if the second model has the earlier timelines.
            form: The form of the output.
        """
        from fewframes.data.samples import absolute
        from fewframes.inference.detection.changes import VideoSpans
        from fewframes.results import Failure

        sides: list[dict[str, VideoSpans]] = [{} for _ in names]
        all_whole = True
        for video in found:
            is_whole = not isinstance(video, Failure) and all(gap.is_pause for gap in video[0].gaps)
            all_whole = all_whole and is_whole
            timelines: Sequence[Timeline | Failure] = [video] * len(names) if isinstance(video, Failure) else video
            for side, name, one in zip(sides, names, timelines, strict=True):
                spans = VideoSpans.of(one)
                source = absolute(spans.source)
                side[source] = replace(spans, source=source, model=name)
        return not self.finish(sides[1] if before is None else before, sides[0], form) and all_whole

    def finish(self, before: dict[str, VideoSpans], after: dict[str, VideoSpans], form: Form) -> bool:
        """Compare two results, and print and write what changed. Return True if videos failed."""
        from fewframes.inference.detection.changes import compare_archives

        return finish(compare_archives(before, after, self.config), form, self.page)


def form_of(*, json: bool, as_csv: bool) -> Form:
    """Return the form of the output. Raises BadParameter if two are asked for."""
    if json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    return "json" if json else "csv" if as_csv else "table"


def comparison(least_shift: float, least_change: float) -> ChangesConfig:
    """Return the settings of a comparison. Raises ConfigError."""
    from fewframes.core.settings import settings_from
    from fewframes.inference.detection.changes import ChangesConfig

    return settings_from(ChangesConfig, {"shift_s": least_shift, "confidence": least_change}, "changes")


def check_page(page: Path | None, sources: Sequence[str]) -> None:
    """Check that the page can be written, and replaces nothing that is read. Raises ConfigError."""
    if page is not None:
        check_writable(page, "the page")
        check_not_read(page, sources)


def finish(found: ArchiveChanges, form: Form, page: Path | None) -> bool:
    """Print the changes, their summary and every failure, and write the page. Return True if videos failed."""
    show(found, form)
    failed = [video for video in found.videos if video.status in FAILED]
    for video in failed:
        tell(f"{video.status}: {video.error}")
    tell(found.summary())
    if page is not None:
        write_page(found, page)
    return bool(failed)


def show(found: ArchiveChanges, form: Form) -> None:
    """Print the changes on standard output."""
    from fewframes.inference.detection.changes import CSV_COLUMNS

    if form == "json":
        for video in found.videos:
            typer.echo(json_line(video.to_dict()))
    elif form == "csv":
        writer = csv.DictWriter(sys.stdout, CSV_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for video in found.videos:
            writer.writerows({name: for_csv(cell) for name, cell in row.items()} for row in video.to_rows())
    else:
        print_lines(_table(found))


def _table(found: ArchiveChanges) -> list[str]:
    """Return the most changed videos with their changes, and then the labels, as lines of text."""
    from fewframes.inference.detection.changes import CHANGED

    changed = [video for video in found.videos if any(change.kind in CHANGED for change in video.changes)]
    lines = [line for video in changed[:SHOWN_VIDEOS] for line in _block(video)]
    if len(changed) > SHOWN_VIDEOS:
        lines.append(
            f"... and {count_of(len(changed) - SHOWN_VIDEOS, 'more video')} with changes; --json, --csv and a page list all"
        )
    kinds = [kind for kind, number in found.counts().items() if number]
    if kinds:
        width = max(len(plain(label.label)) for label in found.labels())
        lines += [
            *([""] if lines else []),
            f"{'label':<{width}}  before   after" + "".join(f"{kind:>11}" for kind in kinds),
        ]
    for label in found.labels():
        counts = "".join(f"{label.counts[kind]:>11}" for kind in kinds)
        lines.append(f"{plain(label.label):<{width}} {label.num_before:>7} {label.num_after:>7}{counts}")
    return lines


def _block(video: VideoChanges) -> list[str]:
    """Return the lines of one video: its name, and its changes in the order of time, those that change the most seconds."""
    from fewframes.inference.detection.changes import CHANGED
    from fewframes.inference.detection.spans import clock

    changed = [change for change in video.changes if change.kind in CHANGED]
    most = sorted(changed, key=lambda change: -change.changed_s)[:SHOWN_CHANGES]
    lines = [
        f"{video.source}  {len(changed)} of {count_of(len(video.changes), 'span')} changed, {clock(video.changed_s)}"
    ]
    lines += [
        f"  {change.kind:<10} {clock(change.start_s):>8} - {clock(change.end_s):<8} {_words(change)}"
        for change in changed
        if change in most
    ]
    if len(changed) > len(most):
        lines.append(f"  ... and {len(changed) - len(most)} smaller")
    return lines


def _words(change: Change) -> str:
    """Return the labels and confidences of a change, and the seconds of both spans where they moved."""
    if change.before is None or change.after is None:
        span = change.before or change.after
        return "" if span is None else f"{span.label} {span.confidence:.0%}"
    old, new = change.before, change.after
    if change.kind != "moved":
        return f"{old.label} {old.confidence:.0%} -> {new.label} {new.confidence:.0%}"
    return f"{new.label}, {old.start_s:.1f} - {old.end_s:.1f} s -> {new.start_s:.1f} - {new.end_s:.1f} s"


def write_page(found: ArchiveChanges, page: Path) -> None:
    """Write the page. Its pictures are read from the videos; a video that cannot be read is shown without."""
    from fewframes.inference.detection.spans import Span
    from fewframes.viz.changes import changes_page, pictured
    from fewframes.viz.thumbnails import jpeg, middle_frames

    changes_of = {video.source: video.changes for video in found.videos}
    pictures: dict[tuple[str, int], bytes] = {}
    for source, indices in pictured(found, PICTURES).items():
        spans = [Span(one.start_s, one.end_s, "") for one in (changes_of[source][index] for index in indices)]
        try:
            for index, frame_CHW in zip(indices, middle_frames(source, spans, width_px=PICTURE_PX), strict=True):
                pictures[source, index] = jpeg(frame_CHW)
        except VideoError as error:
            tell(f"no picture: {error}")
    write_file(page, changes_page(found, pictures))
    tell(f"open {page} to see the changes")
