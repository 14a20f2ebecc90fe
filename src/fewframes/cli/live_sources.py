"""The sources that `stream` is given: one, or several with names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fewframes.cli.console import tell
from fewframes.errors import ConfigError

if TYPE_CHECKING:  # the command line must not load what a command does not need
    from fewframes.inference.heads import Heads
    from fewframes.inference.live.streams import Streams, WatchedSource
    from fewframes.inference.predictor import Predictor
    from fewframes.inference.promise import AlarmPromise
    from fewframes.video.live_queue import LiveEvent
    from fewframes.video.live_settings import StreamConfig
    from fewframes.watch.clips.keeper import ClipKeeper

NAMED = re.compile(r"([A-Za-z0-9_.-]+)=(.+)", re.DOTALL)


def watched_sources(words: Sequence[str], file: Path | None, config: StreamConfig) -> list[WatchedSource]:
    """Return the sources that the words and the file name. Those without a name have that of their file, or their number.

    Raises ConfigError if there is none.

    Args:
        words: Sources as for `Predictor.stream`, each with or without NAME= before it.
        file: A file of sources.
        config: Settings of all that are named by words, and of those in the file as far as it says nothing.
    """
    from fewframes.inference.live.source_file import read_sources
    from fewframes.inference.live.streams import WatchedSource

    if not words and file is None:
        raise ConfigError("no source: name a camera, an address or a file, or a file of sources (--sources)")
    found = []
    for number, word in enumerate(words, 1):
        name, source = named(word)
        stem = Path(source).stem if os.path.isfile(source) else ""
        found.append(WatchedSource(name=name or stem or f"source {number}", source=source, config=config))
    return found + ([] if file is None else read_sources(file, config))


def named(word: str) -> tuple[str, str]:
    """Return the name, empty if there is none, and the source of NAME=SOURCE. A file whose name has that form is a source."""
    match = None if os.path.exists(word) else NAMED.fullmatch(word)
    return (match[1], match[2]) if match else ("", word)


def open_all(
    models: Predictor | Heads,
    words: Sequence[str],
    file: Path | None,
    config: StreamConfig,
    promises: Mapping[str, AlarmPromise],
    keeper: ClipKeeper | None,
    *,
    tells: bool,
) -> Streams:
    """Begin to watch several sources.

    Args:
        models: The models.
        words: Sources as `watched_sources` takes them; so are `file` and `config`.
        file: A file of sources.
        config: The settings.
        promises: The promises by which models raise alarms.
        keeper: Keeps clips of events, if anything does.
        tells: True to tell events of the sources on standard error.
    """
    from fewframes.inference.live.streams import Streams

    sources = [
        replace(
            source,
            promises=promises,
            source=keeper.recorded(str(source.source), source.name, source.config.window_s)
            if keeper
            else source.source,
        )
        for source in watched_sources(words, file, config)
    ]

    def on_event(name: str, event: LiveEvent) -> None:
        if tells:
            tell(f"{name}: {event.time_s:.2f} s, {event.kind}: {event.words}")

    return Streams(models, sources, on_event)
