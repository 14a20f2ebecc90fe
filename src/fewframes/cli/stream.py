"""`fewframes stream`: print answers about a live source as they come."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fewframes.cli.clips import (
    AFTER_S,
    BEFORE_S,
    AfterOption,
    BeforeOption,
    ClipsMostOption,
    ClipsOption,
    check_clips,
    keeping,
    recording,
)
from fewframes.cli.console import StageProgress, tell, tell_failures
from fewframes.cli.draw import DrawOption, drawing
from fewframes.cli.heads import describe_all, names_of, open_models, predictors_of
from fewframes.cli.live_page import PageOption, followed, page_address, showing
from fewframes.cli.live_sources import named, open_all
from fewframes.cli.live_view import show_all_until, show_until
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
from fewframes.cli.region_options import DetectorOption, ZoneOption
from fewframes.cli.watch_options import (
    EventsOption,
    MetricsOption,
    MqttOption,
    OnEventOption,
    OnStartOption,
    RulesOption,
    SpoolOption,
    WebhookOption,
    watch_settings,
    watching,
)
from fewframes.cli.words import EncoderOption, LabelsOption, with_words
from fewframes.errors import ConfigError

if TYPE_CHECKING:  # the command line must not load torch before a command needs it
    from fewframes.core.cache import EmbeddingCache
    from fewframes.inference.predictor import Predictor
    from fewframes.inference.promise import AlarmPromise
    from fewframes.video.live_settings import StreamConfig

ANSWERS, ALARMS = "Answers", "Alarms"


def stream(
    source: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]SOURCE...",
            help="camera (or camera:1, camera:NAME, /dev/video0), an rtsp://, http:// or other URL, a file, or - for a video on "
            "standard input. Several are watched in one process, each with a name: door=rtsp://... yard=camera:1.",
        ),
    ] = None,
    sources: Annotated[
        Path | None,
        typer.Option(
            "--sources",
            metavar="FILE.toml",
            help="Read sources from a file, with settings of their own: [sources.door] and source = 'rtsp://...'.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL",
            help="Tell this action; others count as none. May be given several times.",
            show_default="all actions",
            rich_help_panel=ANSWERS,
        ),
    ] = None,
    live: Annotated[
        bool,
        typer.Option("--live", help="Play a file at its own speed, like a camera.", rich_help_panel=INPUT),
    ] = False,
    stall: Annotated[
        float,
        typer.Option(help="Seconds without a frame after which the source counts as stalled.", rich_help_panel=INPUT),
    ] = 5.0,
    reconnects: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Attempts in a row to open a lost camera or address again.",
            show_default="10, or for ever if sources have names",
            rich_help_panel=INPUT,
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--for", help="Stop after this many seconds.", show_default="never", rich_help_panel=INPUT),
    ] = None,
    model: ModelsOption = None,
    labels: LabelsOption = None,
    encoder: EncoderOption = None,
    unknown: UnknownOption = "auto",
    window: Annotated[
        float | None,
        typer.Option(
            help="Seconds that each answer is about. Shorter ones answer sooner.",
            show_default="3.2, or those that the model's alarms were promised for",
            rich_help_panel=ANSWERS,
        ),
    ] = None,
    memory: Annotated[
        Literal["window", "state"],
        typer.Option(
            help="Answer about the last seconds, or about everything since the source began, at one step for each frame (models of "
            "temporal 'recurrent').",
            rich_help_panel=ANSWERS,
        ),
    ] = "window",
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
    spans: Annotated[
        Literal["auto", "learned", "off"],
        typer.Option(
            help="Tell when an action begins and ends, by the model's detector (train --boundaries). auto does so if the model "
            "has one.",
            rich_help_panel=ANSWERS,
        ),
    ] = "auto",
    zone: ZoneOption = None,
    detector: DetectorOption = None,
    count: Annotated[
        bool,
        typer.Option(
            "--count",
            help="Count the repetitions of whatever is repeated, in the same frames.",
            rich_help_panel=ANSWERS,
        ),
    ] = False,
    draw: DrawOption = None,
    rules: RulesOption = None,
    events: EventsOption = None,
    on_event: OnEventOption = None,
    on_start: OnStartOption = None,
    webhook: WebhookOption = None,
    mqtt: MqttOption = None,
    spool: SpoolOption = None,
    metrics: MetricsOption = None,
    clips: ClipsOption = None,
    before: BeforeOption = BEFORE_S,
    after: AfterOption = AFTER_S,
    clips_most: ClipsMostOption = None,
    page: PageOption = None,
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
    Several sources, or sources with names, are tried again and again if they cannot be opened, and do not wait for each other.
    Ctrl-C ends it with a summary.

    Exit codes: 0 ended, 1 the source cannot be opened or is lost, 2 wrong use, 3 some of several sources were lost.
    """
    from fewframes.core.settings import settings_from
    from fewframes.inference.heads import Heads
    from fewframes.inference.stream import Stream
    from fewframes.video.live_settings import StreamConfig

    words = source or []
    is_alone = sources is None and len(words) == 1 and not named(words[0])[0]
    values = {
        **({} if window is None else {"window_s": window}),
        "memory": memory,
        "every_s": every,
        "smooth_s": smooth,
        "enter": enter,
        "leave": leave,
        "alarm_gap_s": alarm_gap,
        "still": still,
        "spans": spans,
        "count": count,
        "max_latency_s": max_latency,
        "drop": drop,
        "live": live,
        "stall_s": stall,
        "only": only or None,
        "zones": zone or [],
        "detector": detector or "",
        "reconnects": 10 if reconnects is None and is_alone else reconnects,
        "open_s": seconds,
    }
    config = settings_from(StreamConfig, values, "stream")
    watched = watch_settings(
        rules=rules, on_event=on_event, on_start=on_start, webhook=webhook, mqtt=mqtt, events=events, spool=spool,
        metrics=metrics, enter=enter, leave=leave, every_s=every or config.window_s,
        has_clips=clips is not None or page is not None,
    )  # fmt: skip
    check_clips(clips, before, after, clips_most)
    if page is not None:
        page_address(page)
    if background and alarms_per_day is None:
        raise ConfigError("--background is footage for thresholds of alarms; say how many a day: --alarms-per-day 1")
    names = names_of(with_words(model, labels, encoder))
    models = open_models(
        names, device=device, dtype=dtype, backend="auto", merge=merge, runtime=runtime, unknown=unknown_of(unknown)
    )
    as_lines, topk = json or events == "-" or not sys.stdout.isatty(), 0 if events == "-" else topk
    tell_event = (lambda event: tell(f"{event.time_s:.2f} s, {event.kind}: {event.words}")) if as_lines else None
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
        with (
            recording(clips, before, after, clips_most, config.window_s, watched) as keeper,
            watching(watched, predictors_of(models), keeper.record if keeper else None) as watch,
            keeping(keeper, watch),
            drawing(draw, words, config, is_alone=is_alone) as drawn,
            showing(page, predictors_of(models), watch, keeper) as board,
        ):
            if is_alone:
                given = keeper.recorded(words[0], window_s=config.window_s) if keeper else words[0]
                with Stream(models, given, config, promises, tell_event, drawn) as answers:
                    show_until(answers, seconds, topk, as_lines, followed(board, answers, watch))
                return
            with open_all(models, words, sources, config, promises, keeper, tells=as_lines) as several:
                show_all_until(several, seconds, topk, as_lines, followed(board, several, watch))
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
