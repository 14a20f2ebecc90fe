"""Take the marks of a folder of events as examples: what people said was right, wrong, or another action."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fewframes.core.text import count_of
from fewframes.data.samples import Sample
from fewframes.errors import DataError
from fewframes.video.live_settings import StreamConfig
from fewframes.watch.clips.folder import StoredEvent, stored_events
from fewframes.watch.clips.marks import MARKS_FILE, read_marks


@dataclass(frozen=True)
class MarkedEvents:
    """The marked events of a folder, as changes of a model's examples."""

    samples: tuple[Sample, ...]
    """The parts of clips that show the events, with the labels that people gave them; none for an event that was wrong. Events of a
    source and a day are one group."""
    taken_back: tuple[Sample, ...]
    """The parts of clips of events whose marks were taken back."""
    notes: tuple[str, ...]
    """Notes for users on marks that cannot be used."""


def read_marked(folder: str | Path) -> MarkedEvents:
    """Return the marked events of a folder that `fewframes stream --clips` wrote. It may go on writing meanwhile.

    Raises:
        DataError: The folder has no marks, or they are damaged.
    """
    folder = Path(folder).absolute()
    if not (folder / MARKS_FILE).is_file():
        raise DataError(
            f"{folder}: has no marks of events ({MARKS_FILE}); make some on the page: "
            f"fewframes stream SOURCE --clips {folder} --page 8123"
        )
    marks = read_marks(folder)
    samples, taken_back, seen, num_without, num_zones = [], [], set(), 0, 0
    notes: list[str] = []
    for stored in stored_events(folder, notes.append):
        mark = marks.get(stored.event.id)
        if mark is None:
            continue
        seen.add(mark.event)
        sample = _sample(folder, stored, mark.label)
        if mark.verdict == "none":
            taken_back += [] if sample is None else [sample]
        elif sample is None:
            num_without += 1
        else:
            samples.append(sample)
            num_zones += bool(stored.event.zone or stored.event.track)
    num_gone = sum(mark.verdict != "none" for event, mark in marks.items() if event not in seen)
    for count, words in (
        (num_without, "without a clip, so nothing can be learned from it"),
        (num_gone, "whose files are gone; examples that were made of it before stay"),
        (num_zones, "of a zone or a person, and the whole picture is learned from"),
    ):
        notes += [f"{folder}: {count_of(count, 'marked event')} {words}"] if count else []
    return MarkedEvents(tuple(samples), tuple(taken_back), tuple(notes))


def _sample(folder: Path, stored: StoredEvent, label: str) -> Sample | None:
    """Return the part of a clip that shows an event; None if there is no clip.

    Unless a detector has placed its ends, an event begins and ends with the ends of windows. So the part reaches from the middle of
    its first window to the middle of its last one. It is at least as long as a window.
    """
    event, clip_start_s, clip_end_s = stored.event, stored.clip_start_s, stored.clip_end_s
    if not event.clip or clip_start_s is None or clip_end_s is None:
        return None
    window_s = stored.window_s or StreamConfig().window_s
    last_s = clip_end_s if event.end_s is None else event.end_s
    middle_s = (event.start_s + last_s - (0.0 if event.detected else window_s)) / 2
    half_s = max(window_s, last_s - event.start_s) / 2
    start_s, end_s = max(clip_start_s, middle_s - half_s), min(clip_end_s, middle_s + half_s)
    if end_s <= start_s:
        return None
    return Sample(
        path=str(folder / event.clip),
        labels=(label,) if label else (),
        start_s=round(start_s - clip_start_s, 3),
        end_s=round(end_s - clip_start_s, 3),
        group=f"{event.source} {event.started_at[:10]}",
    )
