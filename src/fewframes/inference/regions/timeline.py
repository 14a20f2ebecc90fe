"""Detect action spans in the regions of a long video, each by itself, from frames that are decoded once."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from fewframes.core.arguments import check_time_range
from fewframes.core.cache import EmbeddingCache
from fewframes.core.process import Progress
from fewframes.errors import ConfigError
from fewframes.inference.detection.frame_row import frames_in
from fewframes.inference.detection.known_video import open_known
from fewframes.inference.frame_features import encoder_key, features_key, with_still
from fewframes.inference.frame_store.store import is_frame_store
from fewframes.inference.predictor import Predictor
from fewframes.inference.regions.embed import RegionEmbedder, RegionRow
from fewframes.inference.timeline import DEFAULTS, Timeline, TimelineConfig, interval_for, sweep
from fewframes.video.regions.zone import Region
from fewframes.video.source import DEFAULT_FPS, Source, range_in


def sweep_regions(
    predictor: Predictor,
    source: Source,
    regions: Sequence[Region],
    config: TimelineConfig = DEFAULTS,
    *,
    cache: EmbeddingCache | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    fps: float = DEFAULT_FPS,
    progress: Progress = lambda stage, done, total: None,
) -> list[Timeline]:
    """Detect action spans in each region of a long video by itself. A file on this machine is decoded once for all of them.

    A zone has a timeline of the whole range. A track has one for each stretch in which it is there. The answers are those of
    `sweep` for a film of the region alone. The arguments and errors are those of `sweep`, and `regions` are zones, or tracks.
    """
    if is_frame_store(source):
        raise ConfigError(
            f"{os.fspath(source)}: a frame store has embeddings of whole pictures and none of their parts; name the video"
        )
    check_time_range(start_s, end_s, fps)
    readers = [region_predictor(predictor, region) for region in regions]
    with ExitStack() as stack:
        # Without a cache of the user's, the embeddings of all regions are in one that goes with this call.
        store = cache or EmbeddingCache(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fewframes-"))))
        video, content = open_known(predictor.reader, source, fps, store)
        with closing(video):
            start_s, end_s = range_in(video, start_s, end_s)
            stretches = [
                (number, *stretch)
                for number, region in enumerate(regions)
                for stretch in region.stretches(start_s, end_s)
            ]
            rows: list[RegionRow] = []
            for number, first_s, last_s in stretches:
                setting = features_key(readers[number], source, fps, encoder_key(readers[number]), content)
                interval_s = interval_for(predictor, config, last_s - first_s)
                frames, first = frames_in(video.duration_s, first_s, last_s, interval_s, predictor.num_frames)
                rows.append(RegionRow(regions[number], frames.times_s, first, with_still(setting, config.still)))
            embedder = RegionEmbedder(predictor.runtime, predictor.reader.view, rows, config.still)
            if rows and rows[0].setting:  # what is no file has no key; each region then decodes it again
                embedder.fill(video, store, progress)
        timelines = []
        for row, (number, first_s, last_s) in enumerate(stretches):
            found_line = sweep(readers[number], source, config, cache=store, start_s=first_s, end_s=last_s, fps=fps)
            timelines.append(_counted(found_line, regions[number], embedder, row))
        return timelines


def region_predictor(predictor: Predictor, region: Region) -> Predictor:
    """Return a predictor whose frames at a steady rate, those of timelines, show one region of each picture."""
    found = copy.copy(predictor)
    found.reader = replace(predictor.reader, regions=(region,))
    return found


def _counted(found: Timeline, region: Region, embedder: RegionEmbedder, row: int) -> Timeline:
    """Return a timeline with the name of its region, and with the frames that were embedded before it was made."""
    return replace(
        found,
        zone=region.name if region.kind == "zone" else "",
        track=region.name if region.kind == "track" else "",
        num_encoded=found.num_encoded + embedder.num_encoded(row),
        num_reused=found.num_reused + embedder.num_reused(row),
    )
