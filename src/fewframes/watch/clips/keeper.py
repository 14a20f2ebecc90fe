"""Keep clips of the events of a watch: record its sources, and hold back the end of an event until its clip is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fewframes.video.live_source import Address, Recordable, Recorded
from fewframes.video.recording.recorder import MOST_BYTES, Recorder
from fewframes.watch.clips.folder import ClipSettings, ClipsFolder
from fewframes.watch.event import Event
from fewframes.watch.rules import RuleBook
from fewframes.watch.watch import Watch

MARGIN_S = 15.0
"""The seconds that are kept of a source beyond those that are known to be needed: frames wait, and answers are late."""


def kept_s(settings: ClipSettings, window_s: float, book: RuleBook) -> float:
    """Return the seconds that a source's packets have to be kept: an event is told some time after it began.

    Args:
        settings: The settings of clips.
        window_s: The seconds that each answer of the stream is about.
        book: The rules of events, which may wait before they tell one.
    """
    waits_s = max((rule.min_s for rule in book.rules), default=0.0)
    return settings.before_s + window_s + waits_s + MARGIN_S


class ClipKeeper:
    """Clips of the events of a watch. `record` goes to the `Watch`, which is given to `keeping` while it watches."""

    def __init__(
        self,
        folder: Path,
        settings: ClipSettings,
        keep_s: float,
        tell: Callable[[str], None],
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """Open the folder of events.

        Args:
            folder: The folder.
            settings: The settings of clips.
            keep_s: The seconds that are kept of each source (see `kept_s`).
            tell: Called with messages for the user, by any thread.
            most_bytes: The most bytes that are kept of each source, in memory.

        Raises:
            ConfigError: Another process writes to the folder.
            OutputError: The folder cannot be written to.
        """
        self._keep_s, self._tell, self._most_bytes = keep_s, tell, most_bytes
        self._recorders: dict[str, Recorder] = {}
        self._windows_s: dict[str, float | None] = {}
        self._watch: Watch | None = None
        self.folder = ClipsFolder(folder, settings, on_note=tell, on_done=self._deliver)

    def __enter__(self) -> ClipKeeper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def recorded(self, source: Recordable, name: str = "", window_s: float | None = None) -> Recorded:
        """Return a source whose packets are kept while it is read.

        Args:
            source: The source.
            name: Its name in events; empty if it is its address.
            window_s: The seconds that each answer about it is about, for the files of its events.
        """
        name = name or Address.of(source).name
        recorder = Recorder(self._keep_s, self._most_bytes, lambda words: self._tell(f"{name}: {words}"))
        self._recorders[name], self._windows_s[name] = recorder, window_s
        return Recorded(source, recorder)

    def record(self, event: Event) -> Event | None:
        """Begin or end the clip of an event. Return the event if it has started; None if it has ended, which is told later."""
        self.folder.add(event, self._recorders[event.source], self._windows_s[event.source])
        return event if event.end_s is None else None

    @contextmanager
    def keeping(self, watch: Watch) -> Iterator[None]:
        """Deliver events with their clips by a watch inside the block. After it, end the events and finish their clips."""
        self._watch = watch
        try:
            yield
        finally:
            watch.end()
            self.close()

    def close(self) -> None:
        """Finish all clips, and release the folder. A second call does nothing."""
        for recorder in self._recorders.values():
            recorder.close()
        self.folder.close()

    def _deliver(self, event: Event) -> None:
        if self._watch is not None and event.end_s is not None:
            self._watch.deliver(event)
