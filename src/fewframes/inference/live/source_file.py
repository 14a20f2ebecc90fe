"""Read the sources to watch from a file: a name, an address and settings for each."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from fewframes.core.settings import read_toml, settings_from
from fewframes.errors import ConfigError, nearest
from fewframes.inference.live.streams import WatchedSource
from fewframes.video.live_settings import StreamConfig

TABLES = ("stream", "sources")


def read_sources(path: str | os.PathLike[str], common: StreamConfig | None = None) -> list[WatchedSource]:
    """Return the sources in a TOML file.

    The table `stream` has settings of all sources (the fields of `StreamConfig`). Each table `sources.NAME` has `source`, an
    address as for `Predictor.stream`, and settings of this source alone.

    Args:
        path: The file.
        common: Settings of all sources that the file says nothing about.

    Raises:
        ConfigError: The file cannot be read, a setting is unknown or wrong, or a source has no address.
    """
    values = read_toml(path)
    for name in values:
        if name not in TABLES:
            raise ConfigError(f"{path}: unknown table {name!r}; {nearest(name, TABLES)}")
    sources = _table(values, "sources", str(path))
    if not sources:
        raise ConfigError(f"{path}: names no source; add [sources.NAME] with source = 'rtsp://...'")
    usual = {} if common is None else dataclasses.asdict(common)
    shared = usual | _table(values, "stream", str(path))
    settings_from(StreamConfig, shared, f"{path}: stream")
    found = []
    for name in sources:
        own, where = dict(_table(sources, name, f"{path}: sources")), f"{path}: sources.{name}"
        source = own.pop("source", None)
        if not isinstance(source, str) or not source:
            raise ConfigError(f"{where}: has no source; add source = 'rtsp://...', 'camera:0' or a file")
        found.append(WatchedSource(name=name, source=source, config=settings_from(StreamConfig, shared | own, where)))
    return found


def _table(values: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    table = values.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: {name} = {table!r}: needs a table, [{name}]")
    return table
