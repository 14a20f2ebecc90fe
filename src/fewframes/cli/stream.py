"""`fewframes stream`: print answers about a live source as they come."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fewframes.cli.console import StageProgress, console, speaks_unicode, tell, tell_failures
from fewframes.cli.heads import describe_all, names_of, open_models, predictors_of
from fewframes.cli.options import (
    INPUT,
    OUTPUT,
    SPEED,
    CacheOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    MergeOption,
    ModelsOption,
    NoCacheOption,
    RuntimeOption,
    StillOption,
    UnknownOption,
    embedding_cache,
    unknown_of,
)
from fewframes.core.text import json_line, plain
from fewframes.errors import ConfigError

if TYPE_CHECKING:  # the command line must not load torch before a command needs it
    from fewframes.core.cache import EmbeddingCache
    from fewframes.inference.predictor import Predictor
    from fewframes.inference.promise import AlarmPromise
    from fewframes.inference.stream import Stream, StreamPrediction
    from fewframes.video.live_settings import StreamConfig

ANSWERS, ALARMS = "Answers", "Alarms"
SHOWN_EVENTS = 5
"""Events of the source that the live view shows, the newest ones."""


def stream(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="camera (or camera:1, camera:NAME, /dev/video0), an rtsp://, http:// or other URL, a file, or - for a video on "
            "standard input.",
        ),
    ],
    live: Annotated[
        bool,
        typer.Option("--live", help="Play a file at its own speed, like a camera.", rich_help_panel=INPUT),
    ] = False,
    stall: Annotated[
        float,
        typer.Option(help="Seconds without a frame after which the source counts as stalled.", rich_help_panel=INPUT),
    ] = 5.0,
    reconnects: Annotated[
        int,
        typer.Option(min=0, help="Attempts in a row to open a lost camera or address again.", rich_help_panel=INPUT),
    ] = 10,
    seconds: Annotated[
        float | None,
        typer.Option("--for", help="Stop after this many seconds.", show_default="never", rich_help_panel=INPUT),
    ] = None,
    model: ModelsOption = None,
    unknown: UnknownOption = "auto",
    window: Annotated[
        float | None,
        typer.Option(
            help="Seconds that each answer is about. Shorter ones answer sooner.",
            show_default="3.2, or those that the model's alarms were promised for",
            rich_help_panel=ANSWERS,
        ),
    ] = None,
    every: Annotated[
        float | None,
        typer.Option(
            help="Seconds between answers.", show_default="one for each frame looked at", rich_help_panel=ANSWERS
        ),
    ] = None,
    smooth: Annotated[
        float,
        typer.Option(
            help="Seconds over which scores are smoothed, so that labels do not flicker. 0 smooths nothing.",
            rich_help_panel=ANSWERS,
        ),
    ] = 1.0,
    enter: Annotated[
        float,
        typer.Option(help="Smoothed score from which an action becomes the label.", rich_help_panel=ANSWERS),
    ] = 0.5,
    leave: Annotated[
        float, typer.Option(help="Smoothed score below which the label ends.", rich_help_panel=ANSWERS)
    ] = 0.3,
    alarms_per_day: Annotated[
        float | None,
        typer.Option(
            help="Raise an alarm for each happening, with a threshold that keeps false alarms below this many a day. It comes from "
            "--background, or from the model if it was trained with this option.",
            show_default="no alarms",
            rich_help_panel=ALARMS,
        ),
    ] = None,
    background: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER|VIDEO",
            help="Footage of this camera in which nothing of interest happens: 24 hours for 1 alarm a day. May be given several "
            "times.",
            rich_help_panel=ALARMS,
        ),
    ] = None,
    alarm_gap: Annotated[
        float,
        typer.Option(help="Seconds up to which answers above the threshold are one alarm.", rich_help_panel=ALARMS),
    ] = 30.0,
    json: JsonOption = False,
    topk: Annotated[
        int, typer.Option(min=1, help="Number of actions to name in each answer.", rich_help_panel=OUTPUT)
    ] = 5,
    max_latency: Annotated[
        float | None,
        typer.Option(
            help="Seconds that an answer may be late. Frames that would be later are dropped for newer ones.",
            show_default="no limit",
            rich_help_panel=SPEED,
        ),
    ] = None,
    drop: Annotated[
        Literal["auto", "newest", "never"],
        typer.Option(
            help="When frames come faster than they are looked at: keep the newest, or never drop any. auto keeps the newest of "
            "live sources, and all frames of files.",
            rich_help_panel=SPEED,
        ),
    ] = "auto",
    still: StillOption = 0.0,
    merge: MergeOption = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    runtime: RuntimeOption = "auto",
) -> None:
    """Name the action in a camera, network stream, file or pipe, as it happens.

    Each frame goes through the network once, however many answers it is part of.
    A terminal shows a live view; elsewhere, or with --json, each answer is a line of JSON.
    Events of the source (stalls, reconnections) go to standard error.
    With --alarms-per-day, what is promised is told first, and each happening above the threshold is one alarm.
    Ctrl-C ends it with a summary.

    Exit codes: 0 ended, 1 the source cannot be opened or is lost, 2 wrong use.
    """
    from fewframes.core.settings import settings_from
    from fewframes.inference.heads import Heads
    from fewframes.video.live_settings import StreamConfig

    values = {
        **({} if window is None else {"window_s": window}),
        "every_s": every,
        "smooth_s": smooth,
        "enter": enter,
        "leave": leave,
        "alarm_gap_s": alarm_gap,
        "still": still,
        "max_latency_s": max_latency,
        "drop": drop,
        "live": live,
        "stall_s": stall,
        "reconnects": reconnects,
        "open_s": seconds,
    }
    config = settings_from(StreamConfig, values, "stream")
    if background and alarms_per_day is None:
        raise ConfigError("--background is footage for thresholds of alarms; say how many a day: --alarms-per-day 1")
    models = open_models(
        names_of(model), device=device, dtype=dtype, backend="auto", merge=merge, runtime=runtime, unknown=unknown_of(unknown)
    )  # fmt: skip
    as_lines = json or not sys.stdout.isatty()
    on_event = (lambda event: tell(f"{event.time_s:.2f} s, {event.kind}: {event.words}")) if as_lines else None
    try:
        tell(describe_all(models))
        promises = {}
        if alarms_per_day is not None:
            store = embedding_cache(cache, unused=no_cache)
            for predictor in predictors_of(models):
                name = predictor.name if isinstance(models, Heads) else ""
                promises[predictor.name] = _promise(predictor, alarms_per_day, background, config, store, name)
            if window is None:
                config = replace(config, window_s=_window_s(promises))
        answers = (
            models.stream(source, config, on_event=on_event, promises=promises)
            if isinstance(models, Heads)
            else models.stream(source, config, on_event=on_event, promise=promises.get(models.name))
        )
        with answers:
            show_until(answers, seconds, topk, as_lines)
    except KeyboardInterrupt:
        tell("interrupted before the source was open")


def _window_s(promises: Mapping[str, AlarmPromise]) -> float:
    """Return the seconds of the windows that all promises were made for. Raises ConfigError if they differ."""
    windows_s = {promise.window_s: name for name, promise in promises.items()}
    if len(windows_s) > 1:
        lengths = ", ".join(f"{window_s:g} s ({name})" for window_s, name in windows_s.items())
        raise ConfigError(
            f"the models' alarms were promised for windows of {lengths}, and one stream has one length; run these models one by one"
        )
    return next(iter(windows_s))


def _promise(
    predictor: Predictor,
    alarms_per_day: float,
    footage: list[str] | None,
    config: StreamConfig,
    cache: EmbeddingCache | None,
    name: str = "",
) -> AlarmPromise:
    """Return the promise that the footage allows, or that of the model without any, and tell what is promised.

    `name` is that of the model where there are several.
    """
    from fewframes.inference.alarms import stored_promise
    from fewframes.inference.footage import alarm_promise

    if footage:
        with StageProgress() as progress:
            promise, failures = alarm_promise(
                predictor, footage, alarms_per_day, config, cache=cache, progress=progress.show
            )
        tell_failures(failures)
    else:
        promise = stored_promise(predictor.runtime, alarms_per_day)
    for line in promise.lines():
        tell(f"{name}: {line}" if name else line)
    return promise


def show_until(answers: Stream, seconds: float | None, topk: int, as_lines: bool) -> None:
    """Show answers until the source ends, the user interrupts, or the time is over; then print a summary.

    Args:
        answers: The stream of answers.
        seconds: Seconds after which to stop; None does not stop.
        topk: Number of actions to name in each answer.
        as_lines: True prints lines of JSON, False a live view.
    """
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
            tell("no answer: the source ended before the first window was complete; try a shorter --window")
        tell(f"{answers.source}: {summary}")


def write_lines(answers: Stream, topk: int) -> None:
    """Print each answer as a line of JSON as soon as it is known."""
    for answer in answers:
        typer.echo(json_line(answer.to_dict(topk)))


def show_live(answers: Stream, topk: int) -> None:
    """Show the newest answer on the terminal, redrawn in place, with the last events below it."""
    from rich.live import Live
    from rich.text import Text

    with Live(Text(f"{plain(answers.source)}: looking"), console=console(), refresh_per_second=10) as view:
        shown: dict[str, list[str]] = {}
        for answer in answers:
            shown[answer.model] = lines_of(answers, answer, topk)
            view.update(Text("\n".join(line for lines in shown.values() for line in lines)))


def lines_of(answers: Stream, answer: StreamPrediction, topk: int) -> list[str]:
    """Return an answer as lines of text: the label, the likeliest actions, how late it is, and the last events."""
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
    return [
        f"{plain(answer.model or answers.source)}  {answer.end_s:.1f} s: {plain(answer.label or '...')}",
        *(f"  {label:<{width}} {score:6.1%}  {full * round(30 * score)}" for label, score in top),
        f"  over {answer.end_s - answer.start_s:.1f} s, {1e3 * answer.latency_s:.0f} ms late, {answer.num_dropped} dropped",
        *alarms,
        *events,
    ]
