"""The view of live answers: lines of JSON, or a picture on the terminal that is redrawn in place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from fewframes.cli.console import console, speaks_unicode, tell
from fewframes.core.text import count_of, json_line, plain
from fewframes.errors import EXIT_SOME_FAILED

if TYPE_CHECKING:
    from fewframes.inference.live.results import StreamPrediction, StreamSummary
    from fewframes.inference.live.spans import LiveSpan
    from fewframes.inference.live.streams import Streams
    from fewframes.inference.stream import Stream
    from fewframes.watch.watch import Watcher

SHOWN_EVENTS = 5
"""Events of the source that the live view shows, the newest ones."""


def show_until(answers: Stream, seconds: float | None, topk: int, as_lines: bool, watch: Watcher | None = None) -> None:
    """Show answers until the source ends, the user interrupts, or the time is over; then print a summary.

    Args:
        answers: The stream of answers.
        seconds: Seconds after which to stop; None does not stop.
        topk: Number of actions to name in each answer; 0 shows no answers.
        as_lines: True prints lines of JSON, False a live view.
        watch: Makes events of the answers.
    """

    def summarise() -> None:
        summary = answers.summary()
        if not summary.num_predictions:
            nobody = ", or nobody was followed for so long" if summary.num_persons is not None else ""
            tell(f"no answer: the source ended before the first window was complete{nobody}; try a shorter --window")
        tell(f"{answers.source}: {summary}")

    with _ended_by_time_or_user(answers, seconds, summarise):
        (write_lines if as_lines else show_live)(answers, topk, watch)


def show_all_until(
    answers: Streams, seconds: float | None, topk: int, as_lines: bool, watch: Watcher | None = None
) -> None:
    """Show answers of several sources, and then a summary of each. The arguments are those of `show_until`.

    Raises typer.Exit with 1 if all sources were lost, and with 3 if some were.
    """

    def summarise() -> None:
        for name, summary in answers.summary().items():
            tell(f"{name}: {summary}")

    with _ended_by_time_or_user(answers, seconds, summarise):
        (write_lines if as_lines else show_all_live)(answers, topk, watch)
    for name, error in answers.failures.items():
        tell(f"{name}: {error}")
    if answers.failures:
        raise typer.Exit(1 if len(answers.failures) == len(answers.summary()) else EXIT_SOME_FAILED)


@contextmanager
def _ended_by_time_or_user(
    answers: Stream | Streams, seconds: float | None, summarise: Callable[[], None]
) -> Iterator[None]:
    """Close the answers after so many seconds, if any, and let an interruption end the block; summarise however it ends."""
    timer = threading.Timer(seconds or 0.0, answers.close)
    timer.daemon = True
    if seconds is not None:
        timer.start()
    try:
        yield
    except KeyboardInterrupt:
        tell("interrupted")
    finally:
        timer.cancel()
        summarise()


def watched_answers(answers: Stream | Streams, watch: Watcher | None) -> Iterator[StreamPrediction]:
    """Yield each answer after the events that end and start with it were handed over for delivery."""
    for answer in answers:
        if watch is not None and answer.is_last:
            watch.end(answer.source, zone=answer.zone, track=answer.track)
        elif watch is not None:
            watch.step(answer.source, answer, zone=answer.zone, track=answer.track)
        yield answer


def source_counts(answers: Stream | Streams) -> dict[str, tuple[StreamSummary, float]]:
    """Return the counts of each source, and the seconds since its last picture."""
    summary, silent_s = answers.summary(), answers.silent_s()
    return {
        name: (summary[name] if isinstance(summary, dict) else summary, seconds) for name, seconds in silent_s.items()
    }


def write_lines(answers: Stream | Streams, topk: int, watch: Watcher | None = None) -> None:
    """Print each answer as a line of JSON as soon as it is known; nothing if it is to name no action."""
    from fewframes.inference.live.streams import Streams

    with_source = isinstance(answers, Streams)
    for answer in watched_answers(answers, watch):
        if topk:
            typer.echo(json_line(answer.to_dict(topk, with_source=with_source)))


def show_live(answers: Stream, topk: int, watch: Watcher | None = None) -> None:
    """Show the newest answer on the terminal, redrawn in place, with the last events below it."""
    from rich.live import Live
    from rich.text import Text

    from fewframes.inference.live.going_on import GoingOn, with_spans

    with Live(Text(f"{plain(answers.source)}: looking"), console=console(), refresh_per_second=10) as view:
        shown: dict[str, list[str]] = {}
        going_on: GoingOn = {}
        for answer in watched_answers(answers, watch):
            key = f"{answer.model} {answer.zone} {answer.track}"
            shown[key] = lines_of(answers, answer, topk, with_spans(going_on, answer))
            if answer.is_last:
                del shown[key]
            view.update(Text("\n".join(line for lines in shown.values() for line in lines)))


def show_all_live(answers: Streams, topk: int, watch: Watcher | None = None) -> None:
    """Show a line for the newest answer of each source on the terminal, redrawn in place, and its last event."""
    from rich.live import Live
    from rich.text import Text

    from fewframes.inference.live.going_on import GoingOn, with_spans
    from fewframes.results import top_labels

    with Live(Text("looking"), console=console(), refresh_per_second=10) as view:
        shown: dict[str, str] = {}
        going_on: GoingOn = {}
        for answer in watched_answers(answers, watch):
            top = top_labels(answer.smoothed, answer.labels, topk)
            words = [f"{plain(label)} {score:.0%}" for label, score in top] + [f"{1e3 * answer.latency_s:.0f} ms late"]
            words += [f"{answer.num_dropped} dropped"] if answer.num_dropped else []
            words += [f"since {span.start_s:.1f} s: {plain(span.label)}" for span in with_spans(going_on, answer)]
            words += [f"{event.kind}: {plain(event.words)}" for event in answers.events[answer.source][-1:]]
            name = " ".join(plain(part) for part in (answer.source, place_of(answer), answer.model) if part)
            shown[name] = f"{name}  {answer.end_s:.1f} s: {plain(answer.label or '...')} ({', '.join(words)})"
            if answer.is_last:
                del shown[name]
            view.update(Text("\n".join(shown.values())))


def place_of(answer: StreamPrediction) -> str:
    """Return the zone or the person that an answer is about; empty for the whole picture."""
    return f"person {answer.track}" if answer.track else answer.zone


def lines_of(answers: Stream, answer: StreamPrediction, topk: int, going_on: Sequence[LiveSpan] = ()) -> list[str]:
    """Return an answer as lines of text: the label, actions that go on, the likeliest ones, how late it is, and the last events."""
    from fewframes.results import top_labels

    full = "█" if speaks_unicode() else "#"
    top = [(plain(label), score) for label, score in top_labels(answer.smoothed, answer.labels, topk)]
    width = max(len(label) for label, _ in top)
    events = [
        f"  {event.time_s:.2f} s, {event.kind}: {plain(event.words)}" for event in list(answers.events)[-SHOWN_EVENTS:]
    ]
    alarms = [
        f"  alarm {alarm.number}: {plain(alarm.label)} at {alarm.time_s:.1f} s, score {alarm.score:.4f}"
        for alarm in list(answers.alarms)[-SHOWN_EVENTS:]
    ]
    name = " ".join(filter(None, (answer.model, place_of(answer)))) or answers.source
    return [
        f"{plain(name)}  {answer.end_s:.1f} s: {plain(answer.label or '...')}",
        *(f"  since {span.start_s:.1f} s: {plain(span.label)}" for span in going_on),
        *([] if answer.repetitions is None else [f"  {count_of(answer.repetitions.count, 'repetition')}"]),
        *(f"  {label:<{width}} {score:6.1%}  {full * round(30 * score)}" for label, score in top),
        f"  over {answer.end_s - answer.start_s:.1f} s, {1e3 * answer.latency_s:.0f} ms late, {answer.num_dropped} dropped",
        *alarms,
        *events,
    ]
