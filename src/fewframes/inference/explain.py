"""Why a model says what it says of one video: which frames it looked at (the paper's Figure 2), where in them, and whether
leaving a frame out changes the answer as much as the attention claims.

>>> explanation = explain(fewframes.load(), "clip.mp4")
>>> explanation.occlusion, explanation.spearman
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from scipy.stats import pearsonr, spearmanr
from torch import Tensor

from fewframes.errors import ConfigError, nearest
from fewframes.inference.clips import ClipRequest
from fewframes.inference.early_exit import filled
from fewframes.inference.predictor import Predictor
from fewframes.models.attention_maps import MapChoice, Method, choose_method, frame_maps
from fewframes.results import Prediction
from fewframes.video.sampling import ONE_PASS
from fewframes.video.source import DEFAULT_FPS, Source
from fewframes.video.transforms import pixels_of


@dataclass(frozen=True, eq=False)
class Explanation:
    """One video's answer and what it rests on.

    `frames` (T, C, H, W) uint8 are those looked at, as the model's view has them; `maps` (T, h, w) say where in them, made by
    `map_method` (both None where none were asked for). `occlusion` (T,) is how much the score (0-1) of `label` falls when a
    frame is left out: below 0 where it rises. `spearman` and `pearson` (-1 to 1) are its correlations with the frame
    attention; None where one of the two is the same for all frames. All tensors are on the CPU.
    """

    prediction: Prediction
    frames: Tensor
    label: str
    occlusion: Tensor
    spearman: float | None
    pearson: float | None
    map_method: Method | None = None
    maps: Tensor | None = None

    @property
    def source(self) -> str:
        """The video."""
        return self.prediction.source

    @property
    def score(self) -> float:
        """The score (0-1) of the label that is explained."""
        return float(self.prediction.scores[self.prediction.labels.index(self.label)])

    def agreement(self) -> str:
        """The correlations in words, what chance alone would give, and whether there is much to correlate: where no single frame
        matters, the largest fall of the score is small."""
        num_frames = len(self.occlusion)
        if self.spearman is None or self.pearson is None:
            return f"attention against occlusion: no correlation ({num_frames} frames, one of the two is constant)"
        by_chance = min(1.0, 1.96 / math.sqrt(num_frames - 1))
        return (
            f"attention against occlusion: Spearman {self.spearman:+.2f}, Pearson {self.pearson:+.2f} over {num_frames} frames, "
            f"largest fall {100 * float(self.occlusion.max()):.2g} points (chance reaches ±{by_chance:.2f} once in twenty videos)"
        )

    def to_dict(self, topk: int = 5) -> dict[str, object]:
        """The prediction's plain values, and under `explanation` those that are added."""
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
    """What the answer for one video rests on; of `label` where it is not about the likeliest.

    `maps`: `auto` takes the first that the frame encoder has: a ViT `rollout`, then `attention`; a convolutional one
    `grad-cam`; `none` makes none. The other arguments as for `Predictor.predict`. Raises VideoError, and ConfigError for an
    unknown label, fewer than two frames, or a map that this model does not have.
    """
    frames = predictor.config.num_frames if num_frames is None else num_frames
    if frames < 2:
        raise ConfigError(f"{frames} frame: nothing is left to compare with when it is left out; look at 2 at least")
    if label is not None and label not in predictor.labels:
        raise ConfigError(f"the model has no {label!r}; {nearest(label, predictor.labels)}")
    method = choose_method(predictor.model.frame_encoder, maps)
    read = predictor.reader.read(source, ClipRequest(ONE_PASS, frames, start_s, end_s, fps), threads=0)
    prediction, clip = predictor.label(read), read.clips[0]
    label = prediction.top(1)[0].label if label is None else label
    index = predictor.labels.index(label)
    drops_T = score_drops(predictor, prediction.frame_embeddings, clip.frames, index)
    spearman, pearson = correlations(prediction.frame_attention, drops_T)
    plain = Explanation(prediction, clip.frames.cpu(), label, drops_T, spearman, pearson)
    if method is None:
        return plain
    pixels_TCHW = pixels_of(clip.frames.to(predictor.device))
    return replace(plain, map_method=method, maps=frame_maps(predictor.model, pixels_TCHW, method, index))


def score_drops(predictor: Predictor, frames_TD: Tensor, pictures_TCHW: Tensor, label: int) -> Tensor:
    """How much the score of one label (its place among the labels) falls when each frame is left out: (T,) float32.

    Positions are tied to T frames and what changes between them is a feature itself, so none is taken away, which would move all
    others in time: it becomes what lies between its neighbours, and the first and the last what is next to them. That is what
    early exit does with moments it has not looked at. Embeddings are filled in, at next to no cost; where a layout mixes frames
    inside the encoder the pictures are, and the encoder runs T times more.
    """
    if predictor.config.layout == "factorised":
        windows_BTD = torch.stack([frames_TD, *(without(frames_TD, frame) for frame in range(len(frames_TD)))])
    else:
        shown = (
            without(pictures_TCHW.flatten(1).float(), frame).round().to(torch.uint8).view_as(pictures_TCHW)
            for frame in range(len(pictures_TCHW))
        )
        windows_BTD = torch.cat([frames_TD[None], *(predictor.encode_clips(clip[None]) for clip in shown)])
    with torch.inference_mode():  # in float64: near 1, float32 has too few digits for changes
        scores_B = predictor.model.scores(predictor.encode_windows(windows_BTD).logits.double())[:, label]
    return (scores_B[0] - scores_B[1:]).float()


def without(frames_TD: Tensor, frame: int) -> Tensor:
    """The same frames with this one filled in from its neighbours."""
    others = [place for place in range(len(frames_TD)) if place != frame]
    return filled(frames_TD[None, others], others, len(frames_TD))[0]


def correlations(attention_T: Tensor, drops_T: Tensor) -> tuple[float | None, float | None]:
    """Spearman's and Pearson's correlation of two rows; None, None where one is the same everywhere."""
    rows = attention_T.double().numpy(), drops_T.double().numpy()
    if any(row.max() - row.min() <= 1e-12 for row in rows):
        return None, None
    return float(spearmanr(*rows).statistic), float(pearsonr(*rows).statistic)
