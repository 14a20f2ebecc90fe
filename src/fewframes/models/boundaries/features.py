"""Features of frames for the detector: directions of content and of change, and how much changes over one, two and four frames.

Each frame embedding is projected once, so that everything that follows is narrow. Sizes of changes are measured on a random sketch
of the embedding, which keeps distances.

Letters in shapes: N frames in the order of time, D width of a frame embedding, C directions of content, M directions of change,
S width of a sketch, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

NUM_CONTENT, NUM_CHANGE, SKETCH = 48, 24, 64
"""The directions of content and of change, and the numbers of a sketch."""
LAGS = (1, 2, 4)
"""The distances in frames over which changes are measured, to both sides."""
NUM_FEATURES = NUM_CONTENT + NUM_CHANGE + 4 * len(LAGS)
"""F: each of two sketches is compared over each lag with the frames before and after."""
LEAST_CHANGE = 0.02
"""A change, as a fraction of the size of an embedding, below which nothing counts as moving."""
MOST = 6.0
"""The largest size of a standardised feature."""
SPREAD = 1e-3
MOST_ROWS = 6000
"""The most frames from which directions are fitted."""


def fit_projection(
    clips: Sequence[Floats], content_width: int, generator: np.random.Generator
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return what frames are projected with, fitted to training clips.

    Args:
        clips: Embeddings (n, D) of the frames of each clip, in the order of time.
        content_width: The first numbers of an embedding, which describe the whole frame; the others describe its parts.
        generator: The source of random numbers.

    Returns:
        The mean frame (D,), the projection (D, C + M + 2 S), and the mean and the spread (2, 4 L) of changes over L lags.
    """
    rows_ND = _some(np.concatenate(clips), generator)
    steps_ND = _some(np.concatenate([np.diff(clip_ND, axis=0) for clip_ND in clips]), generator)
    mean_D, spread_D = rows_ND.mean(axis=0), rows_ND.std(axis=0) + SPREAD
    width = rows_ND.shape[1]
    sketches = np.zeros((2, width, SKETCH), np.float32)
    for number, part in enumerate((slice(0, content_width), slice(content_width, width))):
        size = float(np.linalg.norm(rows_ND[:, part], axis=1).mean()) or 1.0
        drawn = generator.normal(size=(rows_ND[:, part].shape[1], SKETCH))
        sketches[number, part] = drawn / np.sqrt(SKETCH) / size
    projection = np.concatenate(
        [
            _directions((rows_ND - mean_D) / spread_D, NUM_CONTENT) / spread_D[:, None],
            _directions(steps_ND / spread_D, NUM_CHANGE) / spread_D[:, None],
            *sketches,
        ],
        axis=1,
    )
    changes = np.concatenate([changes_of((clip_ND - mean_D) @ projection) for clip_ND in clips])
    standard = np.stack([changes.mean(axis=0), changes.std(axis=0) + SPREAD])
    return mean_D, projection, standard[0], standard[1]


def _some(rows_ND: Floats, generator: np.random.Generator) -> Floats:
    """Return at most `MOST_ROWS` of these rows, drawn at random."""
    if len(rows_ND) <= MOST_ROWS:
        return rows_ND
    return rows_ND[np.sort(generator.choice(len(rows_ND), MOST_ROWS, replace=False))]


def _directions(rows_ND: Floats, count: int) -> Floats:
    """Return the directions (D, `count`) in which rows differ most, scaled so that rows vary by one."""
    values, vectors = np.linalg.eigh((rows_ND @ rows_ND.T).astype(np.float64) / len(rows_ND))
    order = np.argsort(values)[::-1][:count]
    kept = order[values[order] > 1e-6 * max(float(values.max()), 1e-12)]
    directions = np.zeros((rows_ND.shape[1], count), np.float32)
    # A direction is rows' @ vector / sqrt(N value), and the rows vary by sqrt(value) along it.
    directions[:, : len(kept)] = rows_ND.T @ vectors[:, kept] / (np.sqrt(len(rows_ND)) * values[kept])
    return directions


def changes_of(projected: Floats) -> Floats:
    """Return the logarithms (N, 4 L) of how much each frame differs from those before and after it.

    Args:
        projected: Projected frames (N, C + M + 2 S).
    """
    found = []
    for number in range(2):
        first = NUM_CONTENT + NUM_CHANGE + number * SKETCH
        sketch_NS = projected[:, first : first + SKETCH]
        for lag in LAGS:
            sizes = np.linalg.norm(sketch_NS[lag:] - sketch_NS[:-lag], axis=1)
            # The first frames have nothing before them, and the last ones nothing after.
            edge = np.zeros(min(lag, len(projected)), sizes.dtype)
            found += [np.concatenate([edge, sizes]), np.concatenate([sizes, edge])]
    return np.log(np.stack(found, axis=1) + LEAST_CHANGE)


def features_of(projected: Floats, change_mean: Floats, change_spread: Floats) -> NDArray[np.float32]:
    """Return the features (N, F) of projected frames (N, C + M + 2 S) that follow each other in time."""
    directions = projected[:, NUM_CONTENT : NUM_CONTENT + NUM_CHANGE]
    steps = np.diff(directions, axis=0, prepend=directions[:1])
    changes = (changes_of(projected) - change_mean) / change_spread
    features = np.concatenate([projected[:, :NUM_CONTENT], steps, changes], axis=1)
    return features.clip(-MOST, MOST).astype(np.float32)
