"""All output of the command line: tables, JSON lines and CSV on standard output; messages and progress on standard error."""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import typer

from fewframes.core.text import count_of, for_csv, json_line, plain

if TYPE_CHECKING:  # the command line must not load torch before a command needs it
    from rich.progress import TaskID

    from fewframes.data.check import Inspection
    from fewframes.data.dataset import VideoSet
    from fewframes.data.layouts import Sample
    from fewframes.inference.explain import Explanation
    from fewframes.inference.predictor import Predictor
    from fewframes.inference.timeline import Timeline
    from fewframes.results import Failure, Prediction
    from fewframes.training.evaluation.results import Evaluation

Shown: TypeAlias = "Prediction | Explanation | Failure"
"""A result of `predict`, as it is printed."""
Results = Iterable["Shown"]
Result = TypeVar("Result")
JUDGED = ("label", "known", "unfamiliar", "reason")
"""The columns of `predict --csv` with the answer, and the judgement whether a video shows one of the actions at all."""
SHOWN_PROBLEMS, SHOWN_ACTIONS = 3, 20
"""The most problems of a kind, and the most actions, that are listed by name; the rest are counted."""


def write_json(results: Results, topk: int) -> Iterator[Prediction | Explanation | Failure]:
    """Print each result as one line of JSON as soon as it is known, and yield it."""
    from fewframes.results import Failure

    for result in results:
        values = result.to_dict() if isinstance(result, Failure) else result.to_dict(topk)
        typer.echo(json_line(values))
        yield result


def write_csv(
    results: Results, topk: int, *, multilabel: bool = False, several: bool = False, named: Sequence[str] = ()
) -> Iterator[Prediction | Explanation | Failure]:
    """Print a CSV row for each video, and yield its result. A row has `topk` pairs of label and score; a failure has its reason.

    Rows of a multi-label model end with the labels that are present, separated by `;`. Where several models answer there is a row
    for each, and a column with its name. `named` are further such columns: `zone`, or `track`.
    """
    from fewframes.results import Failure

    ranks = range(1, topk + 1)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    present = ["present"] if multilabel else []
    names = [f"{what}_{rank}" for rank in ranks for what in ("label", "score")]
    columns = [*(["model"] if several else []), *named]
    writer.writerow(["source", *columns, "error", *names, "distinct_frames", *JUDGED, *present])
    for result in results:
        if isinstance(result, Failure):
            empty = [""] * (2 * topk + 1 + len(JUDGED) + len(present))
            writer.writerow([for_csv(result.source), *([""] * len(columns)), for_csv(result.error), *empty])
        else:
            prediction = prediction_of(result)
            pairs = [cell for label, score in prediction.top(topk) for cell in (for_csv(label), f"{score:.6f}")]
            padding = [""] * (2 * topk - len(pairs))
            judged = judged_cells(prediction)
            there = [for_csv(";".join(label for label, _ in prediction.present))] if present else []
            who = [for_csv(getattr(prediction, column)) for column in columns]
            row = [*who, "", *pairs, *padding, prediction.distinct_frames, *judged, *there]
            writer.writerow([for_csv(prediction.source), *row])
        yield result


def judged_cells(prediction: Prediction) -> list[object]:
    """Return the cells of the columns `JUDGED`, empty where that was not judged."""
    known, unfamiliar = prediction.known, prediction.unfamiliar
    return [
        for_csv(prediction.label),
        "" if known is None else f"{known:.4f}",
        "" if unfamiliar is None else str(unfamiliar).lower(),
        for_csv(prediction.reason),
    ]


def write_table(results: Results, topk: int) -> Iterator[Prediction | Explanation | Failure]:
    """Print a block of text for each video that could be labelled, and yield every result."""
    from fewframes.results import Failure

    for result in results:
        if not isinstance(result, Failure):
            console().print(block(prediction_of(result), topk), highlight=False, markup=False, soft_wrap=True)
        yield result


def prediction_of(result: Prediction | Explanation) -> Prediction:
    """Return the prediction in a result of `predict`, with or without `--explain`."""
    from fewframes.results import Prediction

    return result if isinstance(result, Prediction) else result.prediction


def block(prediction: Prediction, topk: int) -> str:
    """Return a prediction as lines of text: the likeliest actions, the frames the model attended to, and the time it took."""
    top = [(plain(label), score) for label, score in prediction.top(topk)]
    width = max(len(label) for label, _ in top)
    times, attention = prediction.times_s.tolist(), prediction.frame_attention.tolist()
    full, levels = ("█", "▁▂▃▄▅▆▇█") if speaks_unicode() else ("#", "01234567")
    strip = "".join(levels[round(7 * weight / max(attention))] for weight in attention)
    weights = f"attention {strip} most at {times[attention.index(max(attention))]:.2f} s"
    if len(set(attention)) == 1 < len(attention):
        weights = "all weighed alike"
    timing, reading = prediction.timing, prediction.reading
    return "\n".join(
        [
            plain(prediction.source),
            *who_lines(prediction),
            *unknown_lines(prediction),
            *(f"  {label:<{width}} {score:6.1%}  {full * round(30 * score)}" for label, score in top),
            *present_lines(prediction),
            f"  frames from {times[0]:.2f} s to {times[-1]:.2f} s, {weights}",
            f"  decode {timing.decode_s:.3f} s, transform {timing.transform_s:.3f} s, network {timing.network_s:.3f} s; "
            f"{count_of(reading.frames_decoded, 'picture')} decoded, {reading.bytes_read / 1e6:.2g} MB read",
            *([] if prediction.budget is None else [f"  {prediction.budget}"]),
            *(f"  note: {notice}" for notice in prediction.notices),
        ]
    )


def who_lines(found: Prediction | Timeline) -> list[str]:
    """Return lines that name the model, the zone or the track of an answer, where there are several of them."""
    names = {"model": found.model, "zone": found.zone, "track": found.track}
    return [f"  {what} {plain(name)}" for what, name in names.items() if name]


def present_lines(prediction: Prediction) -> list[str]:
    """Return a line with the actions that a multi-label model says are in the video; none for models of one action a video."""
    if not prediction.thresholds:
        return []
    return [f"  present: {', '.join(plain(label) for label, _ in prediction.present) or 'none of the actions'}"]


def unknown_lines(prediction: Prediction) -> list[str]:
    """Return a line that says that a video is unknown and why; none for a video that is not."""
    from fewframes.results import UNKNOWN

    if prediction.label != UNKNOWN:
        return []
    known = "" if prediction.known is None else f" (one of the actions at all: {prediction.known:.0%})"
    return [f"  {UNKNOWN}: {plain(prediction.reason)}{known}; the nearest actions are"]


def speaks_unicode() -> bool:
    """Return True if the encoding of standard output has the characters that bars are drawn with."""
    try:
        "█".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def evaluation_lines(evaluation: Evaluation) -> list[str]:
    """Return the figures of an evaluation as text: accuracy, the effect of frame order, other numbers of frames, cost."""
    order = evaluation.order
    lines = [f"{evaluation.provenance['protocol']}: {evaluation.interval}", *evaluation.report.lines()]
    if evaluation.official is not None:
        lines.append(f"official subset: {evaluation.official}")
    if evaluation.early_exit is not None:
        lines.append(f"early exit: {evaluation.early_exit}")
    if evaluation.unknown is not None:
        lines += evaluation.unknown.lines()
    if order is not None:
        lines.append(f"frames backwards {order.backwards:.1%}, in random order {order.shuffled:.1%}")
    if evaluation.calibration is not None:
        lines.append(str(evaluation.calibration))
    lines += [f"{count_of(num_frames, 'frame')} {value:.1%}" for num_frames, value in evaluation.sweep.items()]
    return lines + evaluation.work.lines()


def print_lines(lines: Iterable[str]) -> None:
    """Print lines of text on standard output."""
    console().print("\n".join(map(plain, lines)), highlight=False, markup=False, soft_wrap=True)


def is_first_process() -> bool:
    """Return True in the process that prints. Where torchrun started several processes, only the first one does."""
    return os.environ.get("RANK", "0") == "0"


def tell_data(source: str, videos: VideoSet) -> None:
    """Print what labelled videos were found, and how the first three rows of the list were understood."""
    if not is_first_process():
        return
    found = f"{count_of(len(videos.samples), 'video')} of {count_of(len(videos.labels), 'action')}"
    tell(f"{source}: {videos.layout}; {found}: {counted(videos.counts())}")
    tell(f"  fingerprint of {count_of(len(videos.samples), 'video')}: {videos.fingerprint()}")
    for sample in videos.samples[:3]:
        tell(f"  {parsed(sample)}")
    for note in videos.notes:
        tell(f"  {note}")
    if videos.left_out:
        from fewframes.data.folders import counted_reasons

        tell(f"  left out: {counted_reasons(videos.left_out)}")


def print_inspection(inspection: Inspection) -> None:
    """Print how many problems of each kind were found and left out, and the usable videos of each action."""
    from rich.table import Table

    from fewframes.data.check import PROBLEMS

    if inspection.problems:
        table = Table("problem", "found", "left out", box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for kind, found in inspection.counts.items():
            left_out = sum(problem.kind == kind and not problem.kept for problem in inspection.problems)
            table.add_row(PROBLEMS[kind], str(found), str(left_out))
        console().print(table)
        console().print()
    print_parts(inspection.usable)


def tell_problems(inspection: Inspection) -> None:
    """Print the first few problems of each kind by name, and count the rest."""
    from fewframes.data.check import PROBLEMS

    for kind, found in inspection.counts.items():
        tell(f"{PROBLEMS[kind]}:")
        named = [problem for problem in inspection.problems if problem.kind == kind]
        for problem in named[:SHOWN_PROBLEMS]:
            what = (
                f"{problem.path} ({problem.label})" if problem.path and problem.label else problem.path or problem.label
            )
            tell(f"  {what}: {problem.reason}")
        if found > SHOWN_PROBLEMS:
            tell(f"  ... and {found - SHOWN_PROBLEMS} more, all in the report")


def print_parts(videos: VideoSet) -> None:
    """Print a table of the videos and groups of each action in each part. Of many actions only the rarest are listed."""
    from rich.table import Column, Table
    from rich.text import Text

    from fewframes.data.dataset import part_counts

    counts = part_counts(videos)
    rarest = sorted(sorted(counts, key=lambda label: counts[label]["videos"])[:SHOWN_ACTIONS])
    columns = list(counts[rarest[0]]) if rarest else []
    table = Table("action", *(Column(Text(plain(column))) for column in columns), box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for label in rarest:
        table.add_row(Text(plain(label)), *(str(counts[label][column]) for column in columns))
    console().print(table)
    if len(counts) > SHOWN_ACTIONS:
        print_lines([f"... and {count_of(len(counts) - SHOWN_ACTIONS, 'action')} with more videos"])


def parsed(sample: Sample) -> str:
    """Return one line that says how a row of a list was understood: path, time range, labels, split and group."""
    part = f" from {sample.start_s:g} s" if sample.start_s else ""
    part += f" to {sample.end_s:g} s" if sample.end_s is not None else ""
    marks = "".join(f", {name} {value}" for name, value in (("split", sample.split), ("group", sample.group)) if value)
    return f"{sample.path}{part}: {', '.join(sample.labels)}{marks}"


def counted(counts: dict[str, int]) -> str:
    """Return the labels with their numbers of videos as text; only the first twelve if there are more."""
    shown = [f"{label} {count}" for label, count in list(counts.items())[:12]]
    return ", ".join(shown) + (", ..." if len(counts) > 12 else "")


def describe(predictor: Predictor) -> str:
    """Return one line that names the model, its number of actions, the runtime, the device and the precision."""
    runtime = predictor.runtime
    line = f"{runtime.name}: {count_of(len(runtime.labels), 'action')}, {runtime.kind} on {runtime.device} in {runtime.precision}"
    if runtime.kind not in ("transformers", "baseline"):
        return line
    licence = runtime.provenance["licence"] or "unknown (its card names none)"
    return f"{line}; licence {licence}; it cannot tell unknown videos, so each gets one of its labels"


def summary(results: list[Prediction | Explanation | Failure], seconds: float) -> str:
    """Return one line with the numbers of labelled, failed and missing videos, and the speed."""
    from fewframes.results import Failure, tally

    failures = [result for result in results if isinstance(result, Failure)]
    labelled = len(results) - len(failures)
    return f"{tally(labelled, 'labelled', failures)} in {seconds:.1f} s ({labelled / seconds:.1f} videos/s)"


def with_progress(results: Iterable[Result], total: int, doing: str) -> Iterable[Result]:
    """Return the results with a progress bar on standard error. There is no bar for a single result, or without a terminal."""
    if total < 2 or not sys.stderr.isatty():
        return results
    from rich.progress import track

    return track(results, description=doing, total=total, console=console(stderr=True))


class StageProgress:
    """A display of progress on standard error: a bar for each stage on a terminal, a line every `PAUSE_S` seconds elsewhere."""

    PAUSE_S = 10.0

    def __enter__(self) -> StageProgress:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[words]}", markup=False),
            console=console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self.bars.start()
        self.tasks: dict[str, TaskID] = {}
        self.last_line_s = time.monotonic()
        return self

    def show(self, stage: str, done: int, total: int, words: str = "") -> None:
        """Show that `done` of `total` items of a stage are done. The first call for a stage starts its bar."""
        words = plain(words)
        if stage not in self.tasks:
            self.tasks[stage] = self.bars.add_task(stage, total=total, words=words)
        self.bars.update(self.tasks[stage], completed=done, words=words)
        if self.bars.disable and time.monotonic() - self.last_line_s > self.PAUSE_S:
            self.last_line_s = time.monotonic()
            tell(f"{stage} {done} of {total}" + (f", {words}" if words else ""))

    def __exit__(self, *_: object) -> None:
        self.bars.stop()


def console(*, stderr: bool = False):  # type: ignore[no-untyped-def]
    """Return the rich console of standard output, or of standard error."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    # Without a terminal rich assumes 80 columns, which would wrap the tables in files and pipes.
    return Console(stderr=stderr, width=None if stream.isatty() or "COLUMNS" in os.environ else 180)


def tell(message: str) -> None:
    """Print a message for people on standard error."""
    typer.echo(plain(message), err=True)


def tell_notes(*words: str) -> None:
    """Print a note on standard error for each of these texts that is not empty."""
    for text in filter(None, words):
        tell(f"note: {text}")


def tell_failures(failures: Sequence[Failure]) -> None:
    """Print each video that could not be used, with its reason, in the words of the tally: missing or failed."""
    for failure in failures:
        tell(f"{'missing' if failure.missing else 'failed'}: {failure.error}")
