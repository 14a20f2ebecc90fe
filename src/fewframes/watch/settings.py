"""The settings of a watch: its rules, where its events go, and where they wait."""

from __future__ import annotations

import dataclasses
import os
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from fewframes.core.settings import STRICT, Positive, read_toml, settings_from
from fewframes.errors import ConfigError, nearest
from fewframes.watch.event import State
from fewframes.watch.rules import Name, Rule, RuleBook, Sequence

Port = Annotated[int, Field(ge=1, le=65_535)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CommandSettings:
    """A command that is run for events."""

    run: Name
    """The command, with names of values in braces, such as `notify-send {label} {clip}`."""
    states: tuple[State, ...] = ("ended",)
    """The states of an event with which it is run."""
    timeout_s: Positive = 60.0
    """The seconds after which it is ended."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WebhookSettings:
    """An address that events are posted to."""

    url: Name
    secret_file: str = ""
    """The file with the secret that signs messages; empty for the environment variable FEWFRAMES_WEBHOOK_SECRET."""
    token_file: str = ""
    """The file with a bearer token; empty for the environment variable FEWFRAMES_WEBHOOK_TOKEN."""
    timeout_s: Positive = 10.0
    """The seconds without an answer after which a message is sent again."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MqttSettings:
    """A broker that events are published to."""

    url: Name
    """The address: `mqtt://[user@]host[:port]`, or `mqtts://` for TLS."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "fewframes"
    """The first part of all topics, and the name of the device in Home Assistant."""
    discovery: Annotated[str, Field(pattern=r"^[^#+]*$")] = "homeassistant"
    """The first part of the topics on which Home Assistant learns of the sensors; empty announces none."""
    password_file: str = ""
    """The file with the password; empty for the environment variable FEWFRAMES_MQTT_PASSWORD."""
    ca_file: str = ""
    """The certificate of the broker's authority, for `mqtts://`; empty for those that the machine trusts."""
    timeout_s: Positive = 10.0
    """The seconds without an acknowledgement after which a message is published again."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MetricsSettings:
    """Counts for Prometheus."""

    file: str = ""
    """The file that is written every 15 seconds, for the textfile collector of node_exporter; empty writes none."""
    port: Port | None = None
    """The port on which they are served; None serves none."""
    host: Name = "127.0.0.1"
    """The address of this machine on which they are served."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WatchSettings:
    """All settings of a watch."""

    book: RuleBook = RuleBook()
    """The rules."""
    events: str = ""
    """The file that events are appended to as JSON lines; `-` is standard output, and empty is none."""
    commands: tuple[CommandSettings, ...] = ()
    webhooks: tuple[WebhookSettings, ...] = ()
    mqtt: MqttSettings | None = None
    metrics: MetricsSettings = MetricsSettings()
    spool: str = ""
    """The folder in which messages wait; empty keeps them in memory, where a restart loses them."""
    spool_mb: Annotated[float, Field(gt=0, le=10_000)] = 64.0
    """The most megabytes (10^6 bytes) of waiting messages. Above them, the oldest are dropped."""
    close_s: Annotated[float, Field(ge=0, le=3600)] = 10.0
    """The most seconds that the end waits for messages to be delivered."""


TABLES = {
    "rules": Rule,
    "sequences": Sequence,
    "commands": CommandSettings,
    "webhooks": WebhookSettings,
    "mqtt": MqttSettings,
    "metrics": MetricsSettings,
}
"""The tables of a rules file, and the settings in each."""
SECRETS = ("password", "secret", "token")
"""Names that somebody may write a secret after."""


def read_watch(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the values of a rules file (TOML), with the settings of the rules and of all else as `watch_of` takes them.

    Raises ConfigError, which names the file.
    """
    return read_toml(path)


def watch_of(values: dict[str, Any], where: str) -> WatchSettings:
    """Return the settings of plain values, in which those of the rules stand beside the others.

    Args:
        values: The values by their names.
        where: The file that they come from, for error messages.

    Raises:
        ConfigError: A name is unknown, or a value is not allowed.
    """
    of_rules, others = names_of(RuleBook), [name for name in names_of(WatchSettings) if name != "book"]
    check_names(values, [*of_rules, *others], where)
    for name, table in TABLES.items():
        given = values.get(name, [])
        for each in given if isinstance(given, list) else [given]:
            if not isinstance(each, dict):
                raise ConfigError(f"{where}: {name} needs a table, [{name}], or several, [[{name}]]")
            check_names(each, names_of(table), f"{where}: {name}")
    book = {key: value for key, value in values.items() if key in of_rules}
    settings_from(RuleBook, book, where)  # so that an error names the rule
    return settings_from(WatchSettings, {**{key: values[key] for key in others if key in values}, "book": book}, where)


def names_of(cls: type) -> list[str]:
    """Return the names of the settings of a class."""
    return [field.name for field in dataclasses.fields(cls)]


def check_names(values: dict[str, Any], known: list[str], where: str) -> None:
    """Raise ConfigError for an unknown name. The message does not have the value, which may be a secret."""
    for name in values:
        if name in SECRETS:
            files = [f"{each} = FILE" for each in known if each.endswith("_file")]
            raise ConfigError(
                f"{where}: {name}: secrets have no place in this file; write {' or '.join(files) or 'none'}, or set the "
                "environment variable"
            )
        if name not in known:
            raise ConfigError(f"{where}: unknown setting {name!r}; {nearest(name, known)}")
