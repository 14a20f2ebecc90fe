"""`fewframes stream`: answers about a live source, as they come. A part of the command line."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fewframes.cli.console import console, describe, speaks_unicode, tell
from fewframes.cli.options import DeviceOption, DtypeOption, MergeOption, ModelOption
from fewframes.core.text import json_line, plain

if TYPE_CHECKING:  # the command line must not load torch before a command needs it
    from fewframes.inference.stream import Stream, StreamPrediction

SHOWN_EVENTS = 5


def stream(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="camera (or camera:1, camera:NAME, /dev/video0), an rtsp://, http:// or other URL, a file, or - for a video on "
            "standard input.",
        ),
    ],
    model: ModelOption = "lite0-16",
    window: Annotated[float, typer.Option(help="Seconds that each answer is about.")] = 3.2,
    every: Annotated[
        float | None, typer.Option(help="Seconds between answers.", show_default="each frame looked at")
    ] = None,
    smooth: Annotated[float, typer.Option(help="Time constant of the smoothed scores in seconds; 0: none.")] = 1.0,
    enter: Annotated[float, typer.Option(help="Smoothed score from which an action becomes the label.")] = 0.5,
    leave: Annotated[float, typer.Option(help="Smoothed score below which the label is given up.")] = 0.3,
    max_latency: Annotated[
        float | None,
        typer.Option(
            help="Seconds that an answer may be late: what is older is dropped for the newest.", show_default="any"
        ),
    ] = None,
    drop: Annotated[
        Literal["auto", "newest", "never"],
        typer.Option(
            help="Behind: keep the newest frames, or never drop any; auto: newest for what is live, never for files."
        ),
    ] = "auto",
    live: Annotated[bool, typer.Option("--live", help="Play a file at its own speed, as if a camera gave it.")] = False,
    stall: Annotated[float, typer.Option(help="Seconds without a picture that are a stall.")] = 5.0,
    reconnects: Annotated[int, typer.Option(min=0, help="Tries in a row to open a lost camera or address again.")] = 10,
    seconds: Annotated[
        float | None, typer.Option("--for", help="End after so many seconds.", show_default="never")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")] = False,
    topk: Annotated[int, typer.Option(min=1, help="Actions to name in each answer.")] = 5,
    merge: MergeOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """Say what happens in a camera, network stream, file or pipe, as it happens.

    Each frame goes through the network once, whatever answers it counts for. On a terminal a live view, elsewhere or with --json
    lines of JSON; what happens to the source goes to standard error. Ctrl-C ends it with a summary. Exit codes: 0 ended, 1 the
    source cannot be opened or is lost, 2 wrong use.
    """
    from fewframes.core.settings import settings_from
    from fewframes.inference.predictor import load
    from fewframes.video.live_settings import StreamConfig

    values = {
        "window_s": window,
        "every_s": every,
        "smooth_s": smooth,
        "enter": enter,
        "leave": leave,
        "max_latency_s": max_latency,
        "drop": drop,
        "live": live,
        "stall_s": stall,
        "reconnects": reconnects,
        "open_s": seconds,
    }
    config = settings_from(StreamConfig, values, "stream")
    predictor = load(model, device=device, dtype=dtype, merge=merge)
    as_lines = json or not sys.stdout.isatty()
    hear = (lambda event: tell(f"{event.time_s:.2f} s, {event.kind}: {event.words}")) if as_lines else None
    try:
        tell(describe(predictor))
        with predictor.stream(source, config, on_event=hear) as answers:
            show_until(answers, seconds, topk, as_lines)
    except KeyboardInterrupt:
        tell("interrupted before the source was open")


def show_until(answers: Stream, seconds: float | None, topk: int, as_lines: bool) -> None:
    """Show the answers until the source ends, somebody interrupts, or the seconds are over; then what it was in all."""
    timer = threading.Timer(seconds or 0.0, answers.close)
    timer.daemon = True
    if seconds is not None:
        timer.start()
    try:
        (write_lines if as_lines else show_live)(answers, topk)
    except KeyboardInterrupt:
        tell("interrupted")
    finally:
        timer.cancel()
        summary = answers.summary()
        if not summary.num_predictions:
            tell("no answer: it ended before a window of it had been seen; a shorter --window answers sooner")
        tell(f"{answers.source}: {summary}")


def write_lines(answers: Stream, topk: int) -> None:
    """One JSON object a line, each as soon as it is known."""
    for answer in answers:
        typer.echo(json_line(answer.to_dict(topk)))


def show_live(answers: Stream, topk: int) -> None:
    """The newest answer in place, with the last events below it."""
    from rich.live import Live
    from rich.text import Text

    with Live(Text(f"{plain(answers.source)}: looking"), console=console(), refresh_per_second=10) as view:
        for answer in answers:
            view.update(Text("\n".join(lines_of(answers, answer, topk))))


def lines_of(answers: Stream, answer: StreamPrediction, topk: int) -> list[str]:
    """One answer for people."""
    from fewframes.results import top_labels

    full = "█" if speaks_unicode() else "#"
    top = [(plain(label), score) for label, score in top_labels(answer.smoothed, answer.labels, topk)]
    width = max(len(label) for label, _ in top)
    events = [
        f"  {event.time_s:.2f} s, {event.kind}: {plain(event.words)}" for event in list(answers.events)[-SHOWN_EVENTS:]
    ]
    return [
        f"{plain(answers.source)}  {answer.end_s:.1f} s: {plain(answer.label or '...')}",
        *(f"  {label:<{width}} {score:6.1%}  {full * round(30 * score)}" for label, score in top),
        f"  over {answer.end_s - answer.start_s:.1f} s, {1e3 * answer.latency_s:.0f} ms late, {answer.num_dropped} dropped",
        *events,
    ]
