"""Label a live source at a chosen pace over the last seconds; each frame goes through the frame encoder once.

The last T frame embeddings are cached in one (T, D) tensor, and a prediction is one pass of the temporal half over them. The
timestamps are those of `sampling.steady_times`, so that a prediction equals that of `predict` for the same seconds of a file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from fewframes.inference.alarms import Alarm
from fewframes.inference.live.feed import Feed, OnEvent, OnPicture, answers_together
from fewframes.inference.live.opening import LiveModel, Promises, open_feed
from fewframes.inference.live.results import StreamPrediction, StreamSummary
from fewframes.video.live import POLL_S
from fewframes.video.live_queue import WAITING, LiveEvent
from fewframes.video.live_settings import StreamConfig
from fewframes.video.live_source import LiveSource


class Stream:
    """An iterator over the predictions of a stream (`for prediction in stream`). `close` it, or use `with`, to end early.

    Several models answer one after the other at each time. Raises VideoError where the source cannot be opened, or is lost for
    good.
    """

    def __init__(
        self,
        model: LiveModel,
        source: LiveSource,
        config: StreamConfig,
        promises: Promises,
        on_event: OnEvent | None = None,
        on_picture: OnPicture | None = None,
    ) -> None:
        """Open a stream. `Predictor.stream` and `Heads.stream` are the way in, and `open_feed` says what the arguments are."""
        self._embed = model.runtime.embed_frames
        self._feed = open_feed(model, source, config, promises, on_event=on_event, on_picture=on_picture)
        self._reader, self.source = self._feed.reader, self._feed.name

    def __iter__(self) -> Iterator[StreamPrediction]:
        # A live source is answered frame by frame, so that none is late; a file by as many as wait, so that no core idles.
        most = 1 if self._reader.is_live else WAITING
        feed = self._feed
        with self:
            while (items := feed.take(most, POLL_S)) is not None:
                yield from answers_together([(feed, items)], self._embed)
            yield from feed.finish()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the source."""
        self._reader.close()

    @property
    def feeds(self) -> Mapping[str, Feed]:
        """The source by its name."""
        return {self.source: self._feed}

    @property
    def every_s(self) -> float:
        """Seconds between predictions, rounded to the grid of frames."""
        return self._feed.every_frames * self._feed.interval_s

    @property
    def events(self) -> deque[LiveEvent]:
        """The latest thousand events."""
        return self._feed.events

    @property
    def alarms(self) -> deque[Alarm]:
        """The latest thousand alarms."""
        return self._feed.alarms

    def silent_s(self) -> dict[str, float]:
        """Return the seconds since the last picture came from the source, by its name."""
        return {self.source: self._reader.silent_s}

    def summary(self) -> StreamSummary:
        """Return the counts and latencies so far."""
        return self._feed.summary()
