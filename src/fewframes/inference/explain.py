"""Explain one answer: which frames it rests on (the paper's Figure 2), where in them, and whether leaving a frame out changes the
score as much as the attention claims.

>>> explanation = explain(fewframes.load(), "clip.mp4")
>>> explanation.occlusion, explanation.spearman
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fewframes.errors import ConfigError, nearest
from fewframes.inference.clips import ClipRequest
from fewframes.inference.predictor import Predictor
from fewframes.inference.stages.early_exit import filled
from fewframes.models.config import MapChoice, MapMethod
from fewframes.results import UNKNOWN, Prediction
from fewframes.runtime.protocol import DrawsMaps, Floats, Frames, Runtime, scores_of
from fewframes.sampling import ONE_PASS
from fewframes.video.source import DEFAULT_FPS, Source

SAME = 1e-5
"""The largest difference of embeddings that are taken for the same, as a fraction of the largest number. Processors round equal
frames differently by where they stand in a batch."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """An explanation of one video's prediction.

    `frames` (T, C, H, W) uint8 are the frames that the model saw, as its view has them. `maps` (T, h, w) say where in them, made by
    `map_method`; both are None where no maps were asked for. `occlusion` (T,) is how much the score (0-1) of `label` falls when a
    frame is left out, below 0 where it rises. `spearman` and `pearson` (-1 to 1) are the correlations of occlusion with the frame
    attention, None where one of the two is equal for all frames.
    """

    prediction: Prediction
    frames: Frames
    label: str
    occlusion: Floats
    spearman: float | None
    pearson: float | None
    map_method: MapMethod | None = None
    maps: Floats | None = None

    @property
    def source(self) -> str:
        """The video's path or URL."""
        return self.prediction.source

    @property
    def score(self) -> float:
        """The score (0-1) of the label that is explained."""
        return float(self.prediction.scores[self.prediction.labels.index(self.label)])

    @property
    def judgement(self) -> str:
        """The words that the video is unknown or unfamiliar, with the reason; an empty text if it is neither."""
        prediction = self.prediction
        if not prediction.reason:
            return ""
        return f"{UNKNOWN if prediction.label == UNKNOWN else 'unfamiliar'}: {prediction.reason}"

    def agreement(self) -> str:
        """Describe in one line how attention and occlusion correlate, and what chance alone would give.

        The line also names the largest fall of the score. Where it is small, no single frame matters and little can correlate.
        """
        num_frames = len(self.occlusion)
        if self.spearman is None or self.pearson is None:
            return f"attention against occlusion: no correlation ({num_frames} frames, one of the two is constant)"
        by_chance = min(1.0, 1.96 / math.sqrt(num_frames - 1))
        return (
            f"attention against occlusion: Spearman {self.spearman:+.2f}, Pearson {self.pearson:+.2f} over {num_frames} frames, "
            f"largest fall {100 * float(self.occlusion.max()):.2g} points (chance reaches ±{by_chance:.2f} once in twenty videos)"
        )

    def to_dict(self, topk: int = 5) -> dict[str, object]:
        """Return the prediction's plain values, with those of the explanation under the key `explanation`."""
        return {
            **self.prediction.to_dict(topk),
            "explanation": {
                "label": self.label,
                "occlusion": [round(change, 6) for change in self.occlusion.tolist()],
                "spearman": None if self.spearman is None else round(self.spearman, 4),
                "pearson": None if self.pearson is None else round(self.pearson, 4),
                "map": self.map_method,
            },
        }

    def __repr__(self) -> str:
        return f"Explanation({self.source!r}: {self.label} {self.score:.1%}; {self.agreement()})"


def explain(
    predictor: Predictor,
    source: Source,
    *,
    label: str | None = None,
    maps: MapChoice = "auto",
    num_frames: int | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    fps: float = DEFAULT_FPS,
) -> Explanation:
    """Explain the prediction for one video: score changes without each frame, and maps over the frames.

    Raises VideoError, and ConfigError for an unknown label, fewer than two frames, or a map that this model does not have.

    Args:
        predictor: The model.
        source: The video, as for `Predictor.predict`; so are the arguments that are not listed here.
        label: The label to explain; by default the likeliest.
        maps: The kind of map. `auto` takes the first that the frame encoder has: for a ViT `rollout`, then `attention`; for a
            convolutional encoder `grad-cam`. `none` makes none.
    """
    frames = predictor.num_frames if num_frames is None else num_frames
    if frames < 2:
        raise ConfigError(
            f"{frames} frame: an explanation leaves out one frame at a time, so it needs at least 2 frames"
        )
    if label is not None and label not in predictor.labels:
        raise ConfigError(f"the model has no label {label!r}; {nearest(label, predictor.labels)}")
    method = map_method(predictor.runtime, maps)
    read = predictor.reader.read(source, ClipRequest(ONE_PASS, frames, start_s, end_s, fps), threads=0)
    prediction, clip = predictor.label(read), read.clips[0]
    label = prediction.top(1)[0].label if label is None else label
    index = predictor.labels.index(label)
    drops_T = score_drops(predictor.runtime, prediction.frame_embeddings, clip.frames, index)
    spearman, pearson = correlations(prediction.frame_attention, drops_T)
    plain = Explanation(prediction, clip.frames, label, drops_T, spearman, pearson)
    if method is None:
        return plain
    assert isinstance(predictor.runtime, DrawsMaps)  # it has the method
    return replace(plain, map_method=method, maps=predictor.runtime.frame_maps(clip.frames, method, index))


def map_method(runtime: Runtime, asked: MapChoice) -> MapMethod | None:
    """Return the method for maps of this model, or None for no maps. A runtime other than torch draws none with `auto`.

    Raises ConfigError if the model or its runtime does not have the method asked for.
    """
    if isinstance(runtime, DrawsMaps):
        return runtime.map_method(asked)
    if asked not in ("auto", "none"):
        raise ConfigError(
            f"map {asked!r}: {runtime.kind} runs {runtime.name}, and only torch can look inside a network; load a model file with "
            f"runtime 'torch' (pip install 'fewframes[train]'), or take map 'none'"
        )
    return None


def score_drops(runtime: Runtime, embeddings_TD: Floats, frames_TCHW: Frames, label: int) -> Floats:
    """Return how much the score of one label falls when each frame is left out: (T,) float32.

    Positions are tied to T frames, and the change between frames is a feature itself. So no frame is taken away, which would move
    all others in time: it is replaced by what lies between its neighbours, the first and the last by what is next to them. Early
    exit does the same with timestamps that it has not encoded. In the factorised layout the embeddings are filled in, at next to no
    cost. Where a layout mixes frames inside the encoder, the pixels are filled in and the encoder runs T times more. A frame that
    is what lies between its neighbours, but for rounding, changes nothing.

    Args:
        runtime: The model.
        embeddings_TD: Frame embeddings of the video.
        frames_TCHW: Its frames (uint8), needed by layouts that mix frames.
        label: Index of the label.
    """
    if runtime.embeds_frames:
        windows_BTD = np.stack([embeddings_TD, *(without(embeddings_TD, frame) for frame in range(len(embeddings_TD)))])
    else:
        shown = (
            without(frames_TCHW.reshape(len(frames_TCHW), -1).astype(np.float32), frame)
            .round()
            .astype(np.uint8)
            .reshape(frames_TCHW.shape)
            for frame in range(len(frames_TCHW))
        )
        windows_BTD = np.concatenate([embeddings_TD[None], *(runtime.encode_clips(clip[None]) for clip in shown)])
    # In float64: near a score of 1, float32 has too few digits to show a change.
    scores_B = scores_of(runtime.encode_windows(windows_BTD).logits.astype(np.float64), runtime.task)[:, label]
    changes_T = np.abs(windows_BTD[1:] - windows_BTD[0]).max(axis=(1, 2))
    is_same_T = changes_T <= SAME * np.abs(windows_BTD[0]).max()
    return np.where(is_same_T, 0, scores_B[0] - scores_B[1:]).astype(np.float32)


def without(embeddings_TD: Floats, frame: int) -> Floats:
    """Return the embeddings with one frame's replaced by what lies between its neighbours."""
    others = [index for index in range(len(embeddings_TD)) if index != frame]
    return filled(embeddings_TD[None, others], others, len(embeddings_TD))[0]


def correlations(attention_T: Floats, drops_T: Floats) -> tuple[float | None, float | None]:
    """Return Spearman's and Pearson's correlation of attention and occlusion; None, None where one is equal for all frames."""
    rows = attention_T.astype(np.float64), drops_T.astype(np.float64)
    if any(row.max() - row.min() <= 1e-12 for row in rows):
        return None, None
    one, other = rows
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1]), float(np.corrcoef(one, other)[0, 1])


def _ranks(values_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rank of each value from 1; equal values share the mean of their ranks."""
    _, inverse_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[inverse_N]
