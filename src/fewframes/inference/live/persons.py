"""The persons in a live source: found by a detector, followed, and each judged by his own last frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fewframes.inference.live.region import LiveRegion
from fewframes.inference.regions.detect import checked
from fewframes.runtime.protocol import Frames
from fewframes.video.live_queue import LiveEvent, LiveFrame
from fewframes.video.live_settings import StreamConfig
from fewframes.video.regions.boxes import Box, Floats64, Track
from fewframes.video.regions.tracker import Detector, Tracker
from fewframes.video.regions.zone import fit_region
from fewframes.video.view import ViewConfig

TELL_AGAIN_S = 60.0
"""Seconds after which it is told again that more persons are there than are judged."""
SAME_TIME = 1e-6
"""A part of the interval between two looks of the detector that rounding may take away."""


@dataclass(eq=False)
class _Person:
    """A person who is judged: his number, his region, and the index of the first frame of it."""

    name: str
    region: LiveRegion
    first_index: int
    shown: tuple[Frames, Frames] | None = None
    """The picture of the source that was cut last, and what was cut out of it."""


@dataclass(frozen=True, eq=False)
class PersonView:
    """A person in a picture: his number, his region, his part of the picture as a frame, and his box in pixels (4,)."""

    name: str
    region: LiveRegion
    frame: LiveFrame
    box: Floats64


@dataclass(frozen=True, eq=False)
class Scene:
    """The persons of a picture, and those judged before it who have gone since."""

    persons: tuple[PersonView, ...]
    gone: tuple[tuple[str, LiveRegion], ...]
    events: tuple[LiveEvent, ...] = ()


class LivePersons:
    """The persons in a source. A person who is not found for a second has gone, and all that was remembered of him goes too."""

    def __init__(
        self, make_region: Callable[[], LiveRegion], detector: Detector, view: ViewConfig, config: StreamConfig
    ) -> None:
        """Begin to follow.

        Args:
            make_region: Returns what judges one person.
            detector: The detector of this source; it sees its pictures in the order of time.
            view: The view of the model.
            config: Settings of the stream.
        """
        self._make_region, self._detector, self._view, self._config = make_region, detector, view, config
        self._least_s = 1 / config.detections_per_s
        self._persons: dict[str, _Person] = {}
        self._told_s = -np.inf
        self.num_persons = self.num_detections = 0
        self.detect_s = 0.0
        """Seconds that the detector took."""
        self._num_encoded = self._num_reused = 0  # those of persons who have gone
        self._restart(0)

    @property
    def num_encoded(self) -> int:
        """Return the number of pictures of persons that were encoded."""
        return self._num_encoded + sum(person.region.gate.num_embedded for person in self._persons.values())

    @property
    def num_reused(self) -> int:
        """Return the number of pictures of persons that showed nothing new."""
        return self._num_reused + sum(person.region.gate.num_reused for person in self._persons.values())

    def _restart(self, stretch: int) -> None:
        self._stretch, self._tracker, self._looked_s = stretch, Tracker(), -np.inf
        self._seen: Frames | None = None

    def look(self, sample: LiveFrame) -> Scene:
        """Find and follow the persons in one more picture, which is whole. Raises ConfigError if the detector returns no boxes."""
        gone = self.leave() if sample.stretch != self._stretch else ()
        if sample.stretch != self._stretch:
            self._restart(sample.stretch)
        is_new = (
            sample.picture is not self._seen
        )  # the same picture again, as of a source with fewer pictures, shows no more
        if is_new and sample.time_s - self._looked_s >= self._least_s * (1 - SAME_TIME):
            self._tracker.update(sample.time_s, self._boxes(sample))
            self._looked_s = sample.time_s
        self._seen = sample.picture
        height, width = sample.picture.shape[-2:]
        tracks = {
            track.name: track
            for track in self._tracker.now(sample.time_s, self._least_s)
            if _is_inside(track.boxes[-1], height, width)
        }
        gone += tuple(self._leave(name) for name in [name for name in self._persons if name not in tracks])
        room = self._config.most_persons - len(self._persons)
        for name in [name for name in tracks if name not in self._persons][:room]:
            self._persons[name] = _Person(name, self._make_region(), sample.index)
            self.num_persons += 1
        views = tuple(self._view_of(person, tracks[name], sample) for name, person in self._persons.items())
        return Scene(views, gone, self._crowd(len(tracks), sample.time_s))

    def leave(self) -> tuple[tuple[str, LiveRegion], ...]:
        """Let all persons go; return them."""
        return tuple(self._leave(name) for name in list(self._persons))

    def _leave(self, name: str) -> tuple[str, LiveRegion]:
        region = self._persons.pop(name).region
        self._num_encoded += region.gate.num_embedded
        self._num_reused += region.gate.num_reused
        return name, region

    def _boxes(self, sample: LiveFrame) -> Sequence[Box]:
        began = time.monotonic()
        found = checked(self._detector.boxes, sample.picture.transpose(1, 2, 0), sample.time_s)
        self.detect_s += time.monotonic() - began
        self.num_detections += 1
        height, width = sample.picture.shape[-2:]
        return [box for box in found if _is_inside(np.array(box[:4]), height, width)]

    def _view_of(self, person: _Person, track: Track, sample: LiveFrame) -> PersonView:
        if person.shown is None or person.shown[0] is not sample.picture:
            rectangle = track.rectangle(sample.time_s, *sample.picture.shape[-2:])
            person.shown = sample.picture, fit_region(sample.picture, rectangle, self._view)
        frame = replace(sample, picture=person.shown[1], index=sample.index - person.first_index)
        return PersonView(person.name, person.region, frame, track.boxes[-1])

    def _crowd(self, num_tracks: int, time_s: float) -> tuple[LiveEvent, ...]:
        """Return an event if more persons are there than are judged, unless that was told a short time ago."""
        if num_tracks <= self._config.most_persons or 0 <= time_s - self._told_s < TELL_AGAIN_S:
            return ()
        self._told_s = time_s
        words = f"{num_tracks} persons, of whom {self._config.most_persons} are judged; allow more with most_persons"
        return (LiveEvent("crowd", time_s, words),)


def _is_inside(box: Floats64, height: int, width: int) -> bool:
    """Return True if the middle of a box is in the picture."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return bool(0 <= x < width and 0 <= y < height)
