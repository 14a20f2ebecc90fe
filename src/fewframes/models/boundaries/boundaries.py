"""The detector that lives in a model file: its arrays, what it says of frames, and how sure a detected span is.

Letters in shapes: N frames, D width of a frame embedding, P detected spans, K actions.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fewframes.errors import ConfigError
from fewframes.models.boundaries.features import LAGS, NUM_CHANGE, NUM_CONTENT, NUM_FEATURES, SKETCH, features_of
from fewframes.models.boundaries.network import run_network, shapes_of

Floats = NDArray[np.floating[Any]]

LEAST_HAPPENING = 0.05
"""The least probability of an action going on at the middle of a detected span."""
SAME_SPAN = 0.6
"""The overlap (tIoU) from which two detected spans, whatever their actions, count as one."""
LEAST_FRAMES = 2.0
"""The shortest detected span, in frames."""
WEIGHT_HAPPENING, WEIGHT_SCORE, WEIGHT_LABEL = 1.0, 0.5, 0.5
"""The weights of the logarithms of three probabilities in the evidence for a span showing an action: of an action going on, of the
model's own score of the span, and of the detector's score of the action (docs/decisions/2026-11-29-boundaries.md)."""
LEAST_LOG = -12.0
WEIGHTS = "weight."
"""The prefix of the keys of the network's weights."""
HALVES = ("mean", "projection")
"""The arrays that are stored as float16 beside the network's weights. Their numbers are rounded when they are fitted."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Detected spans (P,) of whatever action, the likeliest first, in frames from the first one."""

    starts: Floats
    """The starts (P,)."""
    ends: Floats
    """The ends (P,)."""
    happening: Floats
    """The logits (P,) of an action going on."""
    labels: Floats
    """The logits (P, K) of each action, by the detector alone."""
    times: Floats
    """The times (P,) at which they were detected, which lie inside of them."""

    def of(self, rows: NDArray[np.int64]) -> Candidates:
        """Return those with these indices."""
        return Candidates(self.starts[rows], self.ends[rows], self.happening[rows], self.labels[rows], self.times[rows])


@dataclass(frozen=True, eq=False, kw_only=True)
class Boundaries:
    """A trained detector. It takes frame embeddings at a steady rate."""

    mean: Floats
    """The mean frame embedding (D,)."""
    projection: Floats
    """The directions and sketches (D, C + M + 2 S) of features.py."""
    change_mean: Floats
    """The mean of each change (4 L,)."""
    change_spread: Floats
    """The spread of each change (4 L,)."""
    weights: Mapping[str, Floats]
    """The weights of the network, by the names of `network.shapes_of`."""
    coefficients: Floats
    """The factor of the evidence (`evidence_of`) and a constant (2,): they give the logit of a span being right."""
    interval_s: float
    """Seconds between the frames that it was trained on."""
    threshold: float
    """The confidence (0-1) from which spans count."""

    def candidates(self, embeddings_ND: Floats) -> Candidates:
        """Detect spans of any action in the embeddings (N, D) of frames that follow each other in time."""
        return self.candidates_of(self.projected(embeddings_ND), (0, len(embeddings_ND)))

    def projected(self, embeddings_ND: Floats) -> Floats:
        """Return embeddings (N, D) as the few numbers of each frame that the detector looks at: (N, C + M + 2 S).

        What comes after the first D numbers of a row is not looked at.
        """
        return np.asarray((embeddings_ND[:, : len(self.mean)] - self.mean) @ self.projection)

    def candidates_of(self, projected: Floats, range_: tuple[float, float]) -> Candidates:
        """Detect spans of any action in projected frames.

        Args:
            projected: Frames (N, C + M + 2 S) that follow each other in time, which may be a part of a video.
            range_: The start and the end of the video, in frames from the first of these. Spans are cut to it.
        """
        features_NF = features_of(projected, self.change_mean, self.change_spread)
        return candidates_in(features_NF, self.weights, range_)

    def confidence(self, happening: Floats, scores: Floats, labels: Floats) -> NDArray[np.float32]:
        """Return how sure it is (P, K) that spans show each action.

        Args:
            happening: The logits (P,) of an action going on.
            scores: The model's scores (P, K) of the spans, 0-1.
            labels: The detector's logits (P, K) of the actions.
        """
        factor, constant = self.coefficients
        logits_PK = factor * evidence_of(happening, scores, labels) + constant
        return (0.5 * (1 + np.tanh(0.5 * logits_PK))).astype(np.float32)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that a model file stores."""
        return {
            "mean": self.mean.astype(np.float32),
            "projection": self.projection.astype(np.float32),
            "change": np.stack([self.change_mean, self.change_spread]).astype(np.float32),
            "coefficients": self.coefficients.astype(np.float32),
            "settings": np.array([self.interval_s, self.threshold], np.float64).astype(np.float32),
            **{f"{WEIGHTS}{name}": np.asarray(array, np.float32) for name, array in self.weights.items()},
        }

    def to_text(self) -> str:
        """Return the detector as text, for files that have no place for arrays."""
        halved = {
            name: array.astype(np.float16) if is_half(name) else array for name, array in self.to_arrays().items()
        }
        return b64encode(save(halved)).decode("ascii")

    @classmethod
    def from_text(cls, text: str, num_labels: int, width: int) -> Boundaries:
        """Return the detector that `to_text` gave. Raises ConfigError if the text is damaged.

        Args:
            text: The text.
            num_labels: K of the model.
            width: D of the model's frame encoder.
        """
        try:
            stored = load(b64decode(text, validate=True))
        except (ValueError, SafetensorError) as error:
            raise ConfigError(f"its detector is damaged ({type(error).__name__})") from None
        return cls.from_arrays({name: array.astype(np.float32) for name, array in stored.items()}, num_labels, width)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], num_labels: int, width: int | None = None) -> Boundaries:
        """Return the detector that `to_arrays` gave. Raises ConfigError if arrays are missing, unknown or do not fit together.

        Args:
            arrays: The arrays by name.
            num_labels: K of the model.
            width: D of the model's frame encoder, if it is known.
        """
        mean = np.asarray(arrays.get("mean", np.zeros(0)))
        shapes: dict[str, tuple[int, ...]] = {
            "mean": (width or len(mean),),
            "projection": (width or len(mean), NUM_CONTENT + NUM_CHANGE + 2 * SKETCH),
            "change": (2, 4 * len(LAGS)),
            "coefficients": (2,),
            "settings": (2,),
            **{f"{WEIGHTS}{name}": shape for name, shape in shapes_of(NUM_FEATURES, num_labels).items()},
        }
        if set(shapes) != set(arrays):
            raise ConfigError(
                f"its detector has other arrays than expected: {', '.join(sorted(set(shapes) ^ set(arrays)))}"
            )
        wrong = [name for name, shape in shapes.items() if arrays[name].shape != shape]
        broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
        if wrong or broken:
            problem = (
                f"{wrong[0]} is of shape {arrays[wrong[0]].shape}, not {shapes[wrong[0]]}"
                if wrong
                else f"{broken[0]} has values that are no numbers"
            )
            raise ConfigError(f"its detector is damaged ({problem})")
        interval_s, threshold = (float(value) for value in arrays["settings"])
        if not (interval_s > 0 and 0 <= threshold <= 1):
            raise ConfigError(f"its detector is damaged (frames {interval_s:g} s apart, threshold {threshold:g})")
        return cls(
            mean=mean,
            projection=arrays["projection"],
            change_mean=arrays["change"][0],
            change_spread=arrays["change"][1],
            weights={name.removeprefix(WEIGHTS): array for name, array in arrays.items() if name.startswith(WEIGHTS)},
            coefficients=arrays["coefficients"],
            interval_s=interval_s,
            threshold=threshold,
        )


def is_half(name: str) -> bool:
    """Return True if the array of this name is stored as float16."""
    return name in HALVES or name.startswith(WEIGHTS)


def candidates_in(features_NF: Floats, weights: Mapping[str, Floats], range_: tuple[float, float]) -> Candidates:
    """Return the spans that the network detects in frames with these features, without repeats.

    Args:
        features_NF: The features.
        weights: The weights of the network.
        range_: The frames, from the first one, between which spans lie; they are cut to it.
    """
    starts, ends, happening, labels, times = [], [], [], [], []
    least = float(np.log(LEAST_HAPPENING / (1 - LEAST_HAPPENING)))
    for level in run_network(features_NF, weights):
        rows = np.flatnonzero(level.happening > least)
        centres = (rows + 0.5) * level.stride
        starts.append(np.maximum(range_[0], centres - level.distances[rows, 0]))
        ends.append(np.minimum(range_[1], centres + level.distances[rows, 1]))
        happening.append(level.happening[rows])
        labels.append(level.labels[rows])
        times.append(centres)
    found = Candidates(*(np.concatenate(parts) for parts in (starts, ends, happening, labels, times)))
    long_enough = found.ends - found.starts >= LEAST_FRAMES
    order = np.argsort(-found.happening, kind="stable")
    kept = without_same(found.starts, found.ends, order[long_enough[order]].tolist())
    return found.of(np.asarray(kept, np.int64))


def without_same(starts: Floats, ends: Floats, order: Sequence[int]) -> list[int]:
    """Return the indices of spans that overlap none before them in `order` by `SAME_SPAN` (tIoU) or more."""
    left, kept = np.asarray(order, np.int64), []
    while len(left):
        best, left = int(left[0]), left[1:]
        kept.append(best)
        shared = np.minimum(ends[best], ends[left]) - np.maximum(starts[best], starts[left])
        whole = np.maximum(ends[best], ends[left]) - np.minimum(starts[best], starts[left])
        left = left[shared < SAME_SPAN * whole]
    return kept


def evidence_of(happening: Floats, scores: Floats, labels: Floats) -> Floats:
    """Return the evidence (P, K) for spans showing each action. The arguments are those of `Boundaries.confidence`."""
    logs = (
        WEIGHT_HAPPENING * -np.logaddexp(0, -happening)[:, None]
        + WEIGHT_SCORE * np.log(np.maximum(scores, np.exp(LEAST_LOG)))
        - WEIGHT_LABEL * np.logaddexp(0, -labels)
    )
    return np.asarray(logs)
