"""Watch several sources in one process: one model in memory, one batch of pictures at a time, each source with its own settings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from fewframes.errors import ConfigError, FewframesError
from fewframes.inference.live.feed import Feed, FeedItem, answers_together
from fewframes.inference.live.opening import LiveModel, Promises, open_feed
from fewframes.inference.live.results import StreamPrediction, StreamSummary
from fewframes.video.live import POLL_S
from fewframes.video.live_queue import LiveEvent
from fewframes.video.live_settings import StreamConfig
from fewframes.video.live_source import LiveSource


@dataclass(frozen=True, kw_only=True)
class WatchedSource:
    """A source with its name in answers, its own settings, and the promises by which models raise alarms, by their names."""

    name: str
    source: LiveSource
    config: StreamConfig = field(default_factory=StreamConfig)
    promises: Promises = field(default_factory=dict)


class Streams:
    """An iterator over the predictions of several sources, as they come. `close` it, or use `with`, to end early.

    Each source has a thread that decodes. Pictures of all sources go through the frame encoder together. In each round every source
    gives at most one picture, so that none waits for another. Where the model is behind, each source drops its own oldest pictures.
    A camera or network stream that cannot be opened is tried again, as often as its settings say; the others go on meanwhile. A
    source that is lost for good is named in `failures`.
    """

    def __init__(
        self,
        model: LiveModel,
        sources: Sequence[WatchedSource],
        on_event: Callable[[str, LiveEvent], None] = lambda name, event: None,
    ) -> None:
        """Begin to read sources.

        Args:
            model: The model.
            sources: The sources.
            on_event: Called with the name of a source at once with every event of it.

        Raises:
            ConfigError: There is no source, or two have the same name.
            MissingVideo: A file does not exist.
        """
        names = [source.name for source in sources]
        if not names or len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ConfigError(
                f"two sources have the name {twice[0]!r}; give each its own: NAME=SOURCE"
                if twice
                else "no source to watch"
            )
        self._embed, self._woken = model.runtime.embed_frames, threading.Event()
        self.failures: dict[str, FewframesError] = {}
        """The errors of sources that were lost for good, by their names."""
        self._feeds: dict[str, Feed] = {}
        try:
            for source in sources:
                self._feeds[source.name] = open_feed(
                    model,
                    source.source,
                    source.config,
                    source.promises,
                    name=source.name,
                    on_event=partial(on_event, source.name),
                    waits=False,
                    wake=self._woken.set,
                )
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[StreamPrediction]:
        watched = list(self._feeds.values())
        with self:
            while watched:
                self._woken.clear()
                came = []
                for feed in list(watched):
                    items = self._taken(feed)
                    if items is None:
                        watched.remove(feed)
                        yield from feed.finish()
                    elif items:
                        came.append((feed, items))
                if came:
                    yield from answers_together(came, self._embed)
                elif watched:
                    self._woken.wait(POLL_S)

    def _taken(self, feed: Feed) -> list[FeedItem] | None:
        """Return what has come from a source, with at most one picture; None if it has ended or is lost."""
        try:
            return feed.take(1, 0.0)
        except FewframesError as error:
            self.failures[feed.name] = error
            return None

    def __enter__(self) -> Streams:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release all sources."""
        if self._feeds:
            with ThreadPoolExecutor(len(self._feeds)) as pool:
                list(pool.map(lambda feed: feed.reader.close(), self._feeds.values()))

    @property
    def feeds(self) -> Mapping[str, Feed]:
        """The sources by their names."""
        return self._feeds

    @property
    def events(self) -> dict[str, list[LiveEvent]]:
        """The latest events of each source, at most a thousand."""
        return {name: list(feed.events) for name, feed in self._feeds.items()}

    def silent_s(self) -> dict[str, float]:
        """Return the seconds since the last picture came from each source."""
        return {name: feed.reader.silent_s for name, feed in self._feeds.items()}

    def summary(self) -> dict[str, StreamSummary]:
        """Return the counts and latencies of each source so far."""
        return {name: feed.summary() for name, feed in self._feeds.items()}
