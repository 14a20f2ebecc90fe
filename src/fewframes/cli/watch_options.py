"""The options of commands that watch sources: rules for events, and where events go."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewframes.cli.console import tell
from fewframes.errors import ConfigError

if TYPE_CHECKING:  # the command line must not load what a command does not need
    from fewframes.inference.predictor import Predictor
    from fewframes.watch.settings import WatchSettings
    from fewframes.watch.watch import Record, Watch

EVENTS = "Events"

OnEventOption = Annotated[
    list[str] | None,
    typer.Option(
        "--on-event",
        metavar="COMMAND",
        help="Run a command for each event that has ended: --on-event 'notify-send {label} {clip}'. It gets the event as JSON on "
        "standard input, too. No shell reads it. May be given several times.",
        rich_help_panel=EVENTS,
    ),
]
OnStartOption = Annotated[
    list[str] | None,
    typer.Option(
        "--on-start",
        metavar="COMMAND",
        help="Run a command for each event that has started. May be given several times.",
        rich_help_panel=EVENTS,
    ),
]
WebhookOption = Annotated[
    list[str] | None,
    typer.Option(
        "--webhook",
        metavar="URL",
        help="Post events to this address when they start and when they end, as JSON, signed with $FEWFRAMES_WEBHOOK_SECRET. May "
        "be given several times.",
        rich_help_panel=EVENTS,
    ),
]
MqttOption = Annotated[
    str | None,
    typer.Option(
        "--mqtt",
        metavar="URL",
        help="Publish events to a broker, and announce them to Home Assistant: mqtt://[user@]host, or mqtts:// for TLS. The "
        "password is in $FEWFRAMES_MQTT_PASSWORD.",
        rich_help_panel=EVENTS,
    ),
]
EventsOption = Annotated[
    str | None,
    typer.Option(
        "--events",
        metavar="FILE",
        help="Append events to this file as JSON, one object per line. - prints them in place of the answers.",
        rich_help_panel=EVENTS,
    ),
]
RulesOption = Annotated[
    Path | None,
    typer.Option(
        "--rules",
        metavar="FILE.toml",
        help="Read rules for events (labels, thresholds, least length, hours, sequences) and receivers from a file.",
        rich_help_panel=EVENTS,
    ),
]
SpoolOption = Annotated[
    str | None,
    typer.Option(
        "--spool",
        metavar="FOLDER",
        help="Keep events here until they are delivered, so that a restart loses none.",
        show_default="in memory",
        rich_help_panel=EVENTS,
    ),
]
MetricsOption = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        metavar="FILE|PORT",
        help="Write counts of events and deliveries to a file for node_exporter, or serve them on a port, for Prometheus.",
        rich_help_panel=EVENTS,
    ),
]


def watch_settings(
    *,
    rules: Path | None,
    on_event: list[str] | None,
    on_start: list[str] | None,
    webhook: list[str] | None,
    mqtt: str | None,
    events: str | None,
    spool: str | None,
    metrics: str | None,
    enter: float,
    leave: float,
    every_s: float,
    has_clips: bool = False,
) -> WatchSettings | None:
    """Return the settings of a watch: those of the rules file, with what the options add. None if nothing is to be watched.

    Args:
        rules: The rules file.
        on_event: Commands for events that have ended.
        on_start: Commands for events that have started.
        webhook: Addresses to post to.
        mqtt: The address of a broker.
        events: The file for JSON lines.
        spool: The folder in which events wait.
        metrics: The file or the port for counts.
        enter: The smoothed score from which an event begins, unless the file says otherwise.
        leave: The smoothed score below which it ends, unless the file says otherwise.
        every_s: The seconds between two answers.
        has_clips: True if clips of events are kept, or a page shows events, so that they need no receiver.

    Raises:
        ConfigError: A setting cannot be used, or an option has no use because events go nowhere.
    """
    from fewframes.watch.settings import read_watch, watch_of

    values: dict[str, Any] = {} if rules is None else read_watch(rules)
    commands = [{"run": run, "states": ["ended"]} for run in on_event or []]
    commands += [{"run": run, "states": ["started"]} for run in on_start or []]
    values |= _added(values, "commands", commands)
    values |= _added(values, "webhooks", [{"url": url} for url in webhook or []])
    if mqtt is not None:
        values["mqtt"] = {**values.get("mqtt", {}), "url": mqtt}
    values |= {name: value for name, value in (("events", events), ("spool", spool)) if value is not None}
    if metrics is not None:
        values["metrics"] = {"port": int(metrics)} if metrics.isdecimal() else {"file": metrics}
    if not values and not has_clips:
        return None
    if not has_clips and not any(values.get(name) for name in ("commands", "webhooks", "mqtt", "events")):
        raise ConfigError(
            "events go nowhere: name a receiver with --events FILE (- prints them), --on-event, --webhook or --mqtt, or keep "
            "clips of them with --clips FOLDER, or show them with --page PORT"
        )
    defaults = {"enter": enter, "leave": leave, "lost_s": max(10.0, 3 * every_s)}
    return watch_of(defaults | values, "events" if rules is None else str(rules))


def _added(values: dict[str, Any], name: str, more: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the tables of this name with more of them; nothing if there are no more, or if the file has no tables there."""
    given = values.get(name, [])
    return {name: [*given, *more]} if more and isinstance(given, list) else {}


@contextmanager
def watching(
    settings: WatchSettings | None, models: Iterable[Predictor], record: Record | None = None
) -> Iterator[Watch | None]:
    """Watch inside the block, and tell the counts after it. Yield None if there are no settings.

    Args:
        settings: The rules, and where events go.
        models: The models that answer. A rule must be about a label of one of them.
        record: Called with each event before it is delivered, as `Watch` has it.
    """
    if settings is None:
        yield None
        return
    from fewframes.watch.watch import Watch

    predictors = list(models)
    labels = dict.fromkeys(label for predictor in predictors for label in predictor.runtime.labels)
    settings.book.check_labels(tuple(labels), ", ".join(predictor.name for predictor in predictors))
    watch = Watch(settings, tell=tell, record=record, output=sys.stdout)
    try:
        with watch:
            yield watch
    finally:
        tell(f"events: {watch.counts()}")
