"""Open a live source for a model: its reader, and a region for all of its picture, for each zone, or for each person."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from fewframes.core.hours import Clock, utc_now
from fewframes.errors import ConfigError
from fewframes.inference.live.feed import Feed, OnEvent, OnPicture
from fewframes.inference.live.persons import LivePersons
from fewframes.inference.live.region import LiveRegion
from fewframes.inference.promise import AlarmPromise
from fewframes.inference.regions.detect import detector_of
from fewframes.runtime.protocol import Frames, Runtime
from fewframes.video.live import LiveReader
from fewframes.video.live_settings import StreamConfig
from fewframes.video.live_source import LiveSource
from fewframes.video.regions.zone import fit_regions, zones_of
from fewframes.video.transforms import fit_frame

Promises = Mapping[str, AlarmPromise]


class LiveModel(Protocol):
    """A model that watches live sources: a `Predictor`, or `Heads`."""

    @property
    def runtime(self) -> Runtime:
        """The runtime that embeds frames."""

    def live_region(self, config: StreamConfig, promises: Promises | None = None, row: int | None = None) -> LiveRegion:
        """Return what watches one region of a source."""


def open_feed(
    model: LiveModel,
    source: LiveSource,
    config: StreamConfig,
    promises: Promises,
    *,
    name: str = "",
    on_event: OnEvent | None = None,
    waits: bool = True,
    wake: Callable[[], None] = lambda: None,
    now: Clock = utc_now,
    on_picture: OnPicture | None = None,
) -> Feed:
    """Begin to watch a source.

    Args:
        model: The model.
        source: The source.
        config: Settings of the stream.
        promises: The promises by which models raise alarms, by their names.
        name: The name of the source in answers; empty if it is its address.
        on_event: Called at once with every event.
        waits, wake: Those of `LiveReader`.
        now: The clock for the hours of the source.
        on_picture: Called with every picture that is looked at, whole, after its answers.

    Raises:
        ConfigError: Settings do not fit the model, zones or the detector are wrong, or alarms are asked of zones or persons.
        MissingDependency: A package is missing that the detector needs.
        VideoError: The source cannot be opened.
    """
    zones, view = zones_of(config.zones), model.runtime.view
    if config.detector and promises:
        raise ConfigError(
            "alarms were promised for the whole picture, not for persons; leave the detector out, or make events by rules"
        )
    if zones and promises:
        raise ConfigError(
            f"alarms were promised for the whole picture, not for the {len(zones)} zones; leave zones out, or make events by rules"
        )
    regions = {zone.name: model.live_region(config, None, row) for row, zone in enumerate(zones)}
    if not zones:
        regions = {"": model.live_region(config, promises)}

    persons = None
    if config.detector:
        persons = LivePersons(partial(model.live_region, config), detector_of(config.detector), view, config)

    def fit(frame_CHW: Frames) -> Frames:
        return fit_regions(frame_CHW, 0.0, zones, view) if zones else fit_frame(frame_CHW, view)

    # Whole pictures wait for the model where they are drawn, or where persons are cut out, whose places are not known before.
    is_whole = persons is not None or on_picture is not None
    interval_s = next(iter(regions.values())).interval_s
    reader = LiveReader(source, config, interval_s, _whole if is_whole else fit, waits=waits, wake=wake)
    return Feed(
        regions,
        reader,
        config,
        name or reader.address.name,
        on_event,
        persons,
        now,
        fit if is_whole else None,
        on_picture,
    )


def _whole(frame_CHW: Frames) -> Frames:
    return frame_CHW
