"""Choose the settings of a new index, and compare those of an existing one with what a caller asks for."""

from __future__ import annotations

import math
import os

import numpy as np

from fewframes.core.settings import MOST_STILL
from fewframes.errors import ConfigError
from fewframes.inference.frame_store.row import FARTHEST
from fewframes.inference.predictor import Predictor
from fewframes.inference.timeline import SpanMethod, no_detector
from fewframes.search.rows import model_key_of, vectors_of
from fewframes.search.table import IndexSettings, Kind

WINDOW_S, HOP_S = 4.0, 2.0
MOST_FPS, MOST_WINDOW_S = 240, 86_400
"""Limits of a window. With more frames per second than `MOST_FPS`, neighbouring frames of nearly all videos would be one picture
that is encoded again and again. A window of more than a day would hold a whole video, and `MOST_WINDOW_S` does so too.
"""
KIND: Kind = "video"


def new_settings(
    predictor: Predictor,
    window_s: float | None,
    hop_s: float | None,
    embedding: Kind,
    still: float = 0.0,
    spans: SpanMethod = "auto",
) -> IndexSettings:
    """Return the settings of a new index. Raises ConfigError for windows that are too short or too long for the model.

    Args:
        predictor: The model.
        window_s: Seconds of a window; None for `WINDOW_S`, or, with learned spans, for the frames that the detector takes.
        hop_s: Seconds from the start of one window to the next; None for `HOP_S`, or less where windows are shorter.
        embedding: The kind of vector that stands for a window.
        still: Level of the gate for frames that show nothing new; 0 is exact.
        spans: `learned` if the spans of the model's detector are rows too, `windows` if not; `auto` if it can.
    """
    if not 0 <= still <= MOST_STILL:
        raise ConfigError(
            f"still {still:g}: needs a change of brightness from 0 (exact) to {MOST_STILL}; 0 is the default"
        )
    num_frames = predictor.num_frames
    is_learned = _is_learned(predictor, spans, window_s)
    boundaries = predictor.runtime.boundaries
    if window_s is None and is_learned and boundaries is not None:
        window_s = num_frames * boundaries.interval_s  # both take the same frames
        hop_s = window_s / 2 if hop_s is None else hop_s
    window_s = WINDOW_S if window_s is None else float(window_s)
    least_s = math.ceil(1000 * num_frames / MOST_FPS) / 1000
    if not least_s <= window_s <= MOST_WINDOW_S:
        raise ConfigError(
            f"windows of {window_s:g} s: needs at least {least_s:g} s ({num_frames} frames at {MOST_FPS} per second) and at most "
            f"{MOST_WINDOW_S:g} s; leave that out for {WINDOW_S:g} s"
        )
    interval_s = window_s / num_frames
    hop_s = max(interval_s, min(HOP_S, window_s)) if hop_s is None else float(hop_s)
    if not (0 < hop_s <= window_s and round(hop_s / interval_s)):
        raise ConfigError(
            f"windows of {window_s:g} s every {hop_s:g} s: needs a hop of at least {interval_s:.3g} s, the interval between "
            "frames, and at most the window's length"
        )
    # How wide a vector is, is asked of the network itself, with windows of nothing.
    probe_1TD = np.zeros((1, num_frames, predictor.runtime.frame_width), np.float32)
    width = vectors_of(embedding, probe_1TD, np.asarray(predictor.runtime.encode_windows(probe_1TD).embedding)).shape[1]
    # The path is absolute, so that a checkpoint is found again from any folder.
    name = os.path.abspath(predictor.name) if os.path.isfile(predictor.name) else predictor.name
    merge = predictor.runtime.merge
    return IndexSettings(
        name,
        model_key_of(predictor),
        predictor.labels,
        width,
        window_s,
        hop_s,
        embedding,
        merge,
        float(still),
        "learned" if is_learned else "windows",
    )


def _is_learned(predictor: Predictor, spans: SpanMethod, window_s: float | None) -> bool:
    """Return True if the spans of the model's detector are to be rows. Raises ConfigError if they are asked for and cannot be."""
    boundaries = predictor.runtime.boundaries
    if spans == "windows":
        return False
    if boundaries is None:
        if spans == "learned":
            raise no_detector(predictor.runtime)
        return False
    most_s = predictor.num_frames * boundaries.interval_s * FARTHEST
    is_near = window_s is None or window_s <= most_s
    if spans == "learned" and not is_near:
        raise ConfigError(
            f"windows of {window_s:g} s: their frames lie too far apart for the detector of {predictor.name}; take windows of at "
            f"most {most_s:.4g} s, leave the window out, or take spans 'windows'"
        )
    return is_near


def check_same(
    url: str,
    settings: IndexSettings,
    predictor: Predictor | None,
    window_s: float | None,
    hop_s: float | None,
    embedding: Kind | None,
    still: float | None = None,
    spans: SpanMethod = "auto",
) -> None:
    """Raise ConfigError where an index was made with other settings than those asked for, or with another model.

    Args:
        url: The index, for the error.
        settings: Its settings.
        predictor: The model to compare; None for no comparison. So it is with the arguments below.
        window_s: Seconds of a window.
        hop_s: Seconds from the start of one window to the next.
        embedding: The kind of vector that stands for a window.
        still: Level of the gate for frames that show nothing new.
        spans: How spans are found; `auto` for no comparison.
    """
    asked = {
        "window_s": window_s,
        "hop_s": hop_s,
        "embedding": embedding,
        "still": still,
        "spans": None if spans == "auto" else spans,
    }
    for name, value in asked.items():
        there = getattr(settings, name)
        if value is not None and value != there:
            raise ConfigError(
                f"{url}: was made with {name} {there}, not {value}; leave that out, or choose another folder"
            )
    if predictor is not None and model_key_of(predictor) != settings.model_key:
        merge = predictor.runtime.merge
        raise ConfigError(
            f"{url}: was made with the model {settings.model!r} ({len(settings.labels)} labels, embeddings {settings.width} "
            f"wide{_merging(settings.merge)}), and {predictor.name!r}{_merging(merge)} is another or has other weights; use that "
            "model, or choose another folder"
        )


def _merging(merge: int | None) -> str:
    return f", merging {merge} patches a block" if merge else ""
