"""A folder of events: a clip, a picture and a JSON file of each, a page that lists them, and a limit on disk use."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from fewframes.core.files import held, remove_parts, write_file, writing
from fewframes.core.text import count_of, json_line
from fewframes.errors import ConfigError, FewframesError, MissingVideo, OutputError, VideoError
from fewframes.video.recording.recorder import MOST_CLIP_S, ClipRecording, Recorder
from fewframes.video.source import open_video
from fewframes.viz.thumbnails import jpeg_of_height
from fewframes.watch.clips.marks import Mark, MarksFile, Verdict
from fewframes.watch.clips.page import clips_page
from fewframes.watch.event import Event

PAGE = "index.html"
PICTURE_PX = 360
"""The height of pictures in pixels. Smaller ones keep their size."""
DAY = re.compile(r"\d{4}-\d\d-\d\d")
OWN_NAME = re.compile(r"\d{6}-[0-9a-f]{8}\.(?:mp4|mkv|jpg)")
"""The names that clips and pictures have. Other files in the folder are left alone."""


@dataclass(frozen=True)
class StoredEvent:
    """An event with its files in the folder."""

    event: Event
    """The event. The paths of its clip and its picture are relative to the folder, with slashes."""
    file: Path
    """The JSON file."""
    clip_start_s: float | None = None
    """The time of the clip's first picture on the stream's clock; None without a clip."""
    clip_end_s: float | None = None
    """The time of its end."""
    note: str = ""
    """The reason for which there is no clip, or why it is shorter; empty if it is whole."""
    window_s: float | None = None
    """The seconds that each answer of the stream was about; None if that is not known."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values, as the JSON file has them."""
        return {
            **self.event.to_dict(),
            "clip_start_s": None if self.clip_start_s is None else round(self.clip_start_s, 3),
            "clip_end_s": None if self.clip_end_s is None else round(self.clip_end_s, 3),
            "note": self.note,
            "window_s": None if self.window_s is None else round(self.window_s, 3),
        }


@dataclass(eq=False)
class _OpenEvent:
    """An event whose files are not complete yet."""

    event: Event
    stem: Path
    recorder: Recorder
    window_s: float | None = None
    clip: ClipRecording | None = None
    note: str = ""


@dataclass
class ClipCounts:
    """The counts of a folder since it was opened: events written, clips that could not be cut, and events deleted to make room."""

    written: int = 0
    without_clip: int = 0
    deleted: int = 0


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """The settings of clips."""

    before_s: float = 5.0
    """The seconds of a clip before its event."""
    after_s: float = 5.0
    """The seconds of a clip after its event."""
    most_s: float = MOST_CLIP_S
    """The most seconds of a clip. An event that goes on longer is cut there."""
    most_bytes: int | None = None
    """The most bytes of all events. Beyond that the oldest that nobody has marked are deleted; None deletes nothing."""

    def __post_init__(self) -> None:
        for name in ("before_s", "after_s"):
            if not 0 <= getattr(self, name) < self.most_s:
                raise ConfigError(
                    f"{name} {getattr(self, name):g}: needs seconds from 0 up to below {self.most_s:g}, the most of a clip"
                )
        if self.most_bytes is not None and self.most_bytes <= 0:
            raise ConfigError(f"most_bytes {self.most_bytes}: needs a number above 0, or None for no limit")


@dataclass(eq=False)
class _Stock:
    """The events in the folder, the oldest first, and the bytes that each takes."""

    events: list[StoredEvent] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)


class ClipsFolder:
    """A folder of events that is written to by one process. Use it with `with`.

    The JSON file of an event is written last, and the page lists events with a JSON file only. So an event whose process was
    killed is not listed; what is left of it is removed when the folder is opened again.
    """

    def __init__(
        self,
        folder: Path,
        settings: ClipSettings | None = None,
        *,
        on_note: Callable[[str], None] | None = None,
        on_done: Callable[[Event], None] | None = None,
    ) -> None:
        """Open or make a folder.

        Args:
            folder: The folder.
            settings: The settings of clips.
            on_note: Called with a line about what could not be written, and about what was deleted.
            on_done: Called once the files of an event are written, or have failed, with their absolute paths in it; in another
                thread.

        Raises:
            ConfigError: Another process writes to the folder.
            DataError: The file of marks is damaged.
            OutputError: The folder cannot be written to.
        """
        self.folder, self.settings = folder.absolute(), settings or ClipSettings()
        self.counts = ClipCounts()
        self._on_note, self._on_done = on_note or (lambda _: None), on_done
        self._lock = threading.RLock()
        self._open: dict[str, _OpenEvent] = {}
        self._stock = _Stock()
        self._marked_now: set[str] = set()
        """Ids of events whose marks are on their way to the disk."""
        self._told_full = False
        with ExitStack() as stack:
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(self.folder))
            self.marks = MarksFile(self.folder)
            with writing(self.folder):
                self._read_stock()
            self._make_room()
            self._write_page()
            self._held = stack.pop_all()

    def __enter__(self) -> ClipsFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, event: Event, recorder: Recorder, window_s: float | None = None) -> None:
        """Begin the clip of an event that has started, and let the clip end after an event that has ended. One that is withdrawn is
        not kept.

        An event without a clip, because none can be cut, is written all the same, with the reason.

        Args:
            event: The event. It is given twice, when it has started and when it has ended.
            recorder: The recorder of its source.
            window_s: The seconds that each answer of its stream is about.
        """
        with self._lock:
            own = self._open.get(event.id)
            if own is None:
                own = self._open[event.id] = self._begin(event, recorder)
                own.window_s = window_s
            own.event = event
            if event.end_s is None:
                return
            if own.clip is not None:
                recorder.set_end(own.clip, event.end_s + self.settings.after_s)
            if own.clip is None or own.clip.is_done:
                self._finish(own)

    def mark(self, event_id: str, verdict: Verdict, label: str = "") -> Mark:
        """Write what a person says of an event. It is on the disk when this returns. May be called from any thread.

        A marked event is not deleted to make room.

        Args:
            event_id: The id of an event, which may still go on.
            verdict: The verdict; `none` takes the mark back.
            label: The label of an event that is another action.

        Raises:
            MissingVideo: There is no such event in the folder.
            DataError: The label cannot be one.
            OutputError: The disk is full, or the folder cannot be written to.
        """
        with self._lock:
            told = [stored.event.label for stored in self._stock.events if stored.event.id == event_id]
            told += [own.event.label for own in self._open.values() if own.event.id == event_id]
            if not told:
                raise MissingVideo(
                    f"event {event_id[:8]}: is not in {self.folder.name}; older ones are deleted to make room"
                )
            mark = Mark.of(event_id, told[0], verdict, label)
            self._marked_now.add(event_id)
        try:
            self.marks.add(mark)
        finally:
            with self._lock:
                self._marked_now.discard(event_id)
        return mark

    def close(self) -> None:
        """Write what is known of events that have not ended, and release the folder. Recorders are closed before."""
        with self._lock:
            for own in list(self._open.values()):
                self._finish(own)
        self._held.close()

    @property
    def events(self) -> list[StoredEvent]:
        """Return the events in the folder, the oldest first."""
        with self._lock:
            return list(self._stock.events)

    @property
    def unfinished(self) -> list[Event]:
        """Return the events that go on, or whose files are being written."""
        with self._lock:
            return [own.event for own in self._open.values()]

    @property
    def num_bytes(self) -> int:
        """Return the bytes of all events in the folder, and of clips that are being written."""
        with self._lock:
            going_on = sum(own.clip.num_bytes for own in self._open.values() if own.clip is not None)
            return sum(self._stock.sizes.values()) + going_on

    def _begin(self, event: Event, recorder: Recorder) -> _OpenEvent:
        """Begin the clip of an event."""
        day, _, clock = event.started_at.partition("T")
        stem = self.folder / day / f"{clock[:8].replace(':', '')}-{event.id[:8]}"
        own = _OpenEvent(event, stem, recorder)
        try:
            with writing(self.folder):
                stem.parent.mkdir(exist_ok=True)
            own.clip = recorder.cut(
                stem,
                event.start_s,
                self.settings.before_s,
                end_s=None if event.end_s is None else event.end_s + self.settings.after_s,
                most_s=self.settings.most_s,
                on_done=lambda clip: self._clip_done(event.id),
            )
        except (VideoError, OutputError) as error:
            own.note = str(error)
            self._on_note(str(error))
        return own

    def _clip_done(self, event_id: str) -> None:
        """Write the files of an event once its clip is written; if it has not ended yet, that waits for its end."""
        with self._lock:
            own = self._open.get(event_id)
            if own is not None and own.event.end_s is not None:
                self._finish(own)

    def _finish(self, own: _OpenEvent) -> None:
        """Complete the files of an event, and tell that it is done. A failure is told, because others go on."""
        self._open.pop(own.event.id, None)
        try:
            is_none = own.event.withdrawn and not self._is_marked(own.event.id)
            told = self._withdrawn(own) if is_none else self._listed(own)
        except FewframesError as error:
            self._on_note(f"event {own.event.id[:8]} ({own.event.label}): {error}")
            told = replace(own.event, clip="", picture="")
        if self._on_done is not None:
            clip, picture = (str(self.folder / name) if name else "" for name in (told.clip, told.picture))
            self._on_done(replace(told, clip=clip, picture=picture))

    def _listed(self, own: _OpenEvent) -> Event:
        """Write the files of an event, and list it; return it with its clip and its picture."""
        stored = self._stored(own)
        with writing(self.folder):
            write_file(stored.file, json_line(stored.to_dict(), indent=1) + "\n")
            self._stock.sizes[stored.event.id] = _size_of(self.folder, stored)
        self._stock.events.append(stored)
        self.counts.written += 1
        self._make_room()
        self._write_page()
        return stored.event

    def _withdrawn(self, own: _OpenEvent) -> Event:
        """Delete the clip of an event that was none after all; return the event without it."""
        with writing(self.folder):
            if own.clip is not None:
                own.clip.path.unlink(missing_ok=True)
            _remove_if_empty(own.stem.parent)
        return replace(own.event, clip="", picture="")

    def _stored(self, own: _OpenEvent) -> StoredEvent:
        """Write the picture of an event, and return the event with its files."""
        clip, file = own.clip, own.stem.with_name(own.stem.name + ".json")
        if clip is None or not clip.is_done or clip.error:
            self.counts.without_clip += 1
            note = own.note or (clip.error if clip is not None else "") or "its clip was not finished"
            if not own.note:
                self._on_note(note)
            return StoredEvent(replace(own.event, clip="", picture=""), file, note=note, window_s=own.window_s)
        picture = self._write_picture(own.event, clip, own.stem.with_name(own.stem.name + ".jpg"))
        shown = "" if picture is None else self._relative(picture)
        event = replace(own.event, clip=self._relative(clip.path), picture=shown)
        return StoredEvent(event, file, clip.start_s, clip.end_s, clip.shortened, own.window_s)

    def _write_picture(self, event: Event, clip: ClipRecording, path: Path) -> Path | None:
        """Write the picture in the middle of an event, as far as it is in the clip. Return None if it cannot be decoded."""
        last_s = clip.end_s if clip.end_s is not None else event.start_s
        middle_s = (event.start_s + min(last_s, event.end_s if event.end_s is not None else last_s)) / 2
        try:
            with closing(open_video(clip.path, threads=1)) as video:
                wanted_s = min(max(0.0, middle_s - clip.start_s), max(0.0, video.duration_s - 0.1))
                frame_CHW = video.frames_at([wanted_s]).frames[0]
        except VideoError as error:
            self._on_note(str(error))
            return None
        write_file(path, jpeg_of_height(frame_CHW, PICTURE_PX))  # type: ignore[arg-type]
        return path

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _make_room(self) -> None:
        """Delete the oldest events until the rest is below the limit. Marked ones, and clips that are being written, stay."""
        limit, num_deleted = self.settings.most_bytes, 0
        while limit is not None and self.num_bytes > limit:
            oldest = next((stored for stored in self._stock.events if not self._is_marked(stored.event.id)), None)
            if oldest is None:
                self._tell_full(limit)
                break
            self._stock.events.remove(oldest)
            self._stock.sizes.pop(oldest.event.id, None)
            with writing(self.folder):
                _delete(self.folder, oldest)
            num_deleted += 1
        if num_deleted and limit is not None:
            self.counts.deleted += num_deleted
            self._on_note(f"{count_of(num_deleted, 'event')} deleted, the oldest, to stay below {limit / 1e6:.4g} MB")

    def _is_marked(self, event_id: str) -> bool:
        return event_id in self._marked_now or event_id in self.marks

    def _tell_full(self, limit: int) -> None:
        """Tell once that nothing but marked events is left to delete."""
        if self._stock.events and not self._told_full:
            self._told_full = True
            self._on_note(
                f"{self.folder}: marked events alone take more than {limit / 1e6:.4g} MB, and are not deleted; allow more, or "
                "teach a model with them and take marks back"
            )

    def _write_page(self) -> None:
        write_file(
            self.folder / PAGE, clips_page(self.folder.name, [stored.to_dict() for stored in self._stock.events])
        )

    def _read_stock(self) -> None:
        """Read the events of earlier runs, and remove what a killed process left unfinished."""
        for day in _days(self.folder):
            remove_parts(day)
        for stored in stored_events(self.folder, self._on_note):
            self._stock.events.append(stored)
            self._stock.sizes[stored.event.id] = _size_of(self.folder, stored)
        listed = {name for stored in self._stock.events for name in (stored.event.clip, stored.event.picture)}
        for path in (path for day in _days(self.folder) for path in day.iterdir()):
            if OWN_NAME.fullmatch(path.name) and self._relative(path) not in listed:
                path.unlink()
        self._stock.events.sort(key=lambda stored: stored.event.started_at)


def stored_events(folder: Path, on_note: Callable[[str], None] = lambda _: None) -> Iterator[StoredEvent]:
    """Yield the events in a folder, day by day.

    Args:
        folder: The folder.
        on_note: Called with a line about each file that is none of an event.
    """
    for file in (file for day in _days(folder) for file in sorted(day.glob("*.json"))):
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            yield StoredEvent(
                Event.from_dict(values),
                file,
                values["clip_start_s"],
                values["clip_end_s"],
                str(values["note"]),
                values.get("window_s"),
            )
        except (ValueError, KeyError, TypeError) as error:
            on_note(f"{file}: not the file of an event ({error}); left alone and not listed")


def _days(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and DAY.fullmatch(path.name))


def _files_of(folder: Path, stored: StoredEvent) -> list[Path]:
    """Return the files of an event, the JSON file first: what is not listed may be gone, but not the other way round."""
    names = [name for name in (stored.event.clip, stored.event.picture) if name]
    return [stored.file, *(folder / name for name in names)]


def _size_of(folder: Path, stored: StoredEvent) -> int:
    return sum(path.stat().st_size for path in _files_of(folder, stored) if path.exists())


def _delete(folder: Path, stored: StoredEvent) -> None:
    """Delete the files of an event, and the folder of its day if that is empty then."""
    for path in _files_of(folder, stored):
        path.unlink(missing_ok=True)
    _remove_if_empty(stored.file.parent)


def _remove_if_empty(day: Path) -> None:
    """Remove the folder of a day if nothing is in it."""
    if day.is_dir() and not any(day.iterdir()):
        day.rmdir()
