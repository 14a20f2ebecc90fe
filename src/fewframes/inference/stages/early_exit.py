"""Early exit: encode a few frames spread over the whole video first, and stop once the answer is confident enough.

Frame embeddings do not depend on each other, so frames may be encoded in any order and no embedding is computed twice. The stages
are nested subsets of the model's own uniform timestamps, coarse first. After each stage, the embeddings of the timestamps that are
still missing are interpolated in time between their neighbours. The temporal half then answers as always: no part of it knows of
early exits, and after the last stage the answer equals that of the plain model to the last bit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.core.arguments import real_number
from fewframes.core.metrics import fit_temperature
from fewframes.errors import ConfigError
from fewframes.inference.clips import ClipReader, ClipRequest
from fewframes.models.config import ExitPlan, check_can_exit
from fewframes.results import Clip, Timing
from fewframes.runtime.protocol import Floats, Runtime, WindowEncoding, scores_of
from fewframes.video.source import Source

FIRST_FRAMES = 4
"""Frames of the first stage. Fewer frames do not show what changes."""
PERMITTED_LOSS = 0.005
"""The fraction of right answers that may be lost compared with encoding every frame."""
LEAST_THRESHOLD = 0.92
"""The lowest confidence at which a fitted plan stops, however good the fit. Videos from other sources are less reliable than their
confidence says (docs/explanation/performance.md).
"""
MOST_THRESHOLDS = 1000
"""The most thresholds that `fit_plan` tries."""
NEVER = 2.0
"""A threshold that no confidence reaches."""


@dataclass(frozen=True, eq=False)
class ExitResult:
    """The stage at which each video stops (B,), its logits there (B, K), and the number of frames encoded until then (B,)."""

    stages: NDArray[np.int64]
    logits: Floats
    num_frames: NDArray[np.int64]


@dataclass(frozen=True)
class ExitFigures:
    """The figures of a plan over `num_videos` videos: mean frames encoded, accuracy (0-1), and accuracy with every frame (0-1)."""

    num_videos: int
    mean_frames: float
    top1: float
    top1_all_frames: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "num_videos": self.num_videos,
            "mean_frames": round(self.mean_frames, 2),
            "top1": round(self.top1, 4),
            "top1_all_frames": round(self.top1_all_frames, 4),
        }


def stages_of(num_frames: int) -> tuple[tuple[int, ...], ...]:
    """Return nested frame indices, coarse first: 4 of `num_frames`, then 8, 16, ... and at last all.

    They are symmetrical about the middle, so that a video played backwards is seen at the same timestamps. Each stage adds pairs of
    indices, always the pair that is farthest from those chosen already.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames = {num_frames}: needs at least 1")
    sizes, size = [], FIRST_FRAMES
    while size < num_frames:
        sizes.append(size)
        size *= 2
    return stages_by_size(num_frames, sizes)


def stages_by_size(num_frames: int, sizes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Return nested frame indices as `stages_of` does, of at least each of these ascending sizes in turn, and at last all."""
    if num_frames <= FIRST_FRAMES:
        return (tuple(range(num_frames)),)
    # The centres of equal parts of the first half, the middle one first; the second half mirrors them.
    centres = [((2 * part + 1) * num_frames - FIRST_FRAMES) // (2 * FIRST_FRAMES) for part in range(FIRST_FRAMES // 2)]
    indices: set[int] = set()
    stages: list[tuple[int, ...]] = []
    for size in sizes:
        while len(indices) < size:
            free = [index for index in range((num_frames + 1) // 2) if index not in indices]
            far = centres.pop() if centres else max(free, key=lambda index: min(abs(index - one) for one in indices))
            indices |= {far, num_frames - 1 - far}
        if len(indices) < num_frames:
            stages.append(tuple(sorted(indices)))
    return (*stages, tuple(range(num_frames)))


def filled(embeddings_BND: Floats, indices: Sequence[int], num_frames: int) -> Floats:
    """Fill in the embeddings of all T timestamps from those of N frames: (B, N, D) to (B, T, D).

    Known embeddings stay as they are, to the last bit. Between them, embeddings are interpolated in time; before the first and
    after the last known one they are repeated.

    Args:
        embeddings_BND: Embeddings of the frames that were encoded.
        indices: Their N positions among the T timestamps, ascending.
        num_frames: T.
    """
    if embeddings_BND.shape[1] != len(indices):
        raise ValueError(f"{embeddings_BND.shape[1]} embeddings for {len(indices)} indices: needs one for each")
    if not indices or list(indices) != sorted(set(indices)) or indices[0] < 0 or indices[-1] >= num_frames:
        raise ValueError(f"indices {tuple(indices)}: needs at least one, ascending, from 0 to {num_frames - 1}")
    known_N, all_T = np.array(indices), np.arange(num_frames)
    # A known index is its own neighbour on both sides, so it is copied bit for bit.
    after_T = np.searchsorted(known_N, all_T).clip(max=len(indices) - 1)
    before_T = (np.searchsorted(known_N, all_T, side="right") - 1).clip(min=0)
    gap_T = (known_N[after_T] - known_N[before_T]).clip(min=1)
    fraction_T = ((all_T - known_N[before_T]) / gap_T).clip(0, 1).astype(embeddings_BND.dtype)
    before_BTD, after_BTD = (np.take(embeddings_BND, indices_T, axis=1) for indices_T in (before_T, after_T))
    return before_BTD + fraction_T[:, None] * (after_BTD - before_BTD)


def with_stages(embeddings_BVTD: Floats, stages: Sequence[Sequence[int]], num_views: int) -> Floats:
    """Add views as a model sees them when it stops early: (B, V, T, D) to (B, V + num_views x S', D), for training.

    Each of the first `num_views` views is added once for every stage but the last, `filled` from the frames of that stage. A model
    trained without them is right with four frames far less often (docs/decisions).

    Args:
        embeddings_BVTD: Frame embeddings of V views of each video.
        stages: Frame indices of each stage, as `stages_of` returns them.
        num_views: Views to which stages are added.
    """
    few = [
        filled(embeddings_BVTD[:, view][:, list(indices)], indices, embeddings_BVTD.shape[2])[:, None]
        for indices in stages[:-1]
        for view in range(min(num_views, embeddings_BVTD.shape[1]))
    ]
    return np.concatenate([embeddings_BVTD, *few], axis=1)


def answer(
    runtime: Runtime, embeddings_BND: Floats, indices: Sequence[int], num_frames: int | None = None
) -> tuple[WindowEncoding, Floats]:
    """Run the temporal half on the frames encoded so far, with attention.

    Returns the encoding, and the weight (T, N) of each of the N frames in each of the T timestamps; rows sum to 1.

    Args:
        runtime: The model.
        embeddings_BND: Embeddings of the frames that were encoded.
        indices: Their N positions among the T uniform timestamps, ascending.
        num_frames: T; by default the model's own.
    """
    num_frames = num_frames or runtime.num_frames
    encoded = runtime.encode_windows(filled(embeddings_BND, indices, num_frames), with_attention=True)
    return encoded, filled(np.eye(len(indices), dtype=np.float32)[None], indices, num_frames)[0]


def stage_logits(runtime: Runtime, embeddings_BTD: Floats, stages: Sequence[Sequence[int]]) -> Floats:
    """Return the logits of every stage (S, B, K) from the embeddings (B, T, D) of all frames."""
    num_frames = runtime.num_frames
    known = (filled(embeddings_BTD[:, list(indices)], indices, num_frames) for indices in stages)
    return np.stack([runtime.encode_windows(stage_BTD).logits for stage_BTD in known])


@dataclass(frozen=True, eq=False)
class EncodedFrames:
    """The N frames of a video that were encoded so far, in the order of time."""

    indices: tuple[int, ...] = ()
    """The positions among the timestamps."""
    times_s: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """The timestamps (N,): when each is first shown."""
    embeddings: Floats = field(default_factory=lambda: np.empty((0, 0), np.float32))
    """The embeddings (N, D)."""

    def plus(self, indices: Sequence[int], times_s: NDArray[np.float64], embeddings: Floats) -> EncodedFrames:
        """Return these frames and others."""
        together = [*self.indices, *indices]
        order = sorted(range(len(together)), key=together.__getitem__)
        embeddings_ND = np.concatenate([self.embeddings, embeddings]) if self.indices else embeddings
        times_N = np.concatenate([self.times_s, times_s])
        return EncodedFrames(tuple(sorted(together)), times_N[order], embeddings_ND[order])


@dataclass(frozen=True, eq=False)
class EarlyEncoding:
    """The encoding of a video that may have stopped early: its frames (N,), their embeddings (N, D), and the times of the steps."""

    clip: Clip
    embeddings: Floats
    encoded: WindowEncoding
    timing: Timing


def encoded_early(
    runtime: Runtime, reader: ClipReader, source: Source, request: ClipRequest, plan: ExitPlan, *, threads: int
) -> EarlyEncoding:
    """Encode one video stage by stage, until the answer is confident enough.

    Args:
        runtime: The model.
        reader: The reader of videos for this model.
        source: The video.
        request: The frames of all stages.
        plan: The stages, and the confidence that is enough.
        threads: The number of threads that decode; 0 is as many as help.
    """
    network_s, began = 0.0, time.perf_counter()
    seen = EncodedFrames()
    with reader.opened(source, request, threads=threads) as video:
        for stage, indices in enumerate(plan.stages):
            new = plan.new_positions(stage)
            clip = video.decode_more(new) if stage else video.decode_first(new)
            decoded_at = time.perf_counter()
            seen = seen.plus(new, clip.times_s, runtime.embed_frames(clip.frames[:, 0]))
            encoded, weights_TN = answer(runtime, seen.embeddings[None], indices)
            sure = float(confidence(encoded.logits, plan.temperatures[stage])[0]) >= plan.threshold
            network_s += time.perf_counter() - decoded_at
            if sure:
                break
    decode_s = time.perf_counter() - began - network_s - video.transform_s
    assert encoded.frame_attention is not None
    # Attention lies on T filled-in timestamps; each passes its own on to the frames that it was filled in from.
    encoded = replace(encoded, frame_attention=encoded.frame_attention @ weights_TN)
    timing = Timing(decode_s, video.transform_s, network_s)
    return EarlyEncoding(replace(clip, times_s=seen.times_s), seen.embeddings, encoded, timing)


def exit_plan_of(runtime: Runtime, early_exit: bool | float, num_frames: int | None = None) -> ExitPlan | None:
    """Return the plan of an early exit, or None if every frame is encoded.

    Args:
        runtime: The model.
        early_exit: False, the confidence that is enough, or True for the plan that was fitted for this model.
        num_frames: The number of frames asked for; None is the model's own.

    Raises:
        ConfigError: this model cannot stop early, no plan was fitted for it, or another number of frames is asked for.
    """
    if early_exit is False:
        return None
    if early_exit is not True:
        real_number("early_exit", early_exit, above=0, high=1)
    check_can_exit(embeds_frames=runtime.embeds_frames, task=runtime.task)
    own, plan = runtime.num_frames, runtime.exits
    if num_frames is not None and num_frames != own:
        raise ConfigError(
            f"{num_frames} frames with early exit: its stages are made for this model's {own} frames; leave one of the two out"
        )
    if plan is None and early_exit is True:
        raise ConfigError(
            f"{runtime.name}: no early exit was fitted for this model; train with --early-exit, or pass the confidence from which "
            "an answer is given, such as 0.9"
        )
    if plan is None:
        # Nothing was fitted: the scores as they are, and the caller's confidence as the threshold.
        stages = stages_of(own)
        plan = ExitPlan(stages=stages, temperatures=(1.0,) * len(stages), threshold=1.0)
    plan.check_frames(own)
    return plan if early_exit is True else replace(plan, threshold=float(early_exit))


def confidence(logits_BK: Floats, temperature: float) -> Floats:
    """Return the calibrated score (0-1) of the likeliest action: (B, K) to (B,)."""
    return scores_of(logits_BK / np.float32(temperature), "single").max(axis=1)


def leave(plan: ExitPlan, logits_SBK: Floats) -> ExitResult:
    """Return where each video stops: at the first stage whose confidence reaches the threshold, at the latest at the last one."""
    sure_SB = _confidences(logits_SBK, plan.temperatures) >= plan.threshold
    sure_SB[-1] = True  # there is no later stage to wait for
    stages_B = sure_SB.argmax(axis=0)
    sizes_S = np.array([len(indices) for indices in plan.stages])
    return ExitResult(stages_B, logits_SBK[stages_B, np.arange(len(stages_B))], sizes_S[stages_B])


def figures_of(plan: ExitPlan, logits_SBK: Floats, targets_B: NDArray[np.int64]) -> ExitFigures:
    """Measure a plan on labelled videos: logits of every stage (S, B, K), index of the true label (B,)."""
    left = leave(plan, logits_SBK)
    return ExitFigures(
        num_videos=len(targets_B),
        mean_frames=float(left.num_frames.mean()),
        top1=float((left.logits.argmax(axis=1) == targets_B).mean()),
        top1_all_frames=float((logits_SBK[-1].argmax(axis=1) == targets_B).mean()),
    )


def fit_plan(
    stages: Sequence[Sequence[int]],
    logits_SBK: Floats,
    targets_B: NDArray[np.int64],
    permitted_loss: float = PERMITTED_LOSS,
    least_threshold: float = LEAST_THRESHOLD,
) -> ExitPlan:
    """Fit the plan that encodes the fewest frames and loses at most `permitted_loss` of the right answers on these videos.

    The videos must not be among those that the model was trained on. Right answers that only an early stage gives do not make up
    for lost ones. The chosen threshold is the lowest above which every other threshold keeps to the permitted loss too. Both would
    otherwise be luck that does not carry over to other videos (docs/decisions).

    Args:
        stages: Frame indices of each stage, as `stages_of` returns them.
        logits_SBK: Logits of every stage.
        targets_B: Index of the true label of each video.
        permitted_loss: The fraction (0-1) of right answers that may be lost.
        least_threshold: The threshold is never below this confidence.
    """
    if len(targets_B) == 0 or logits_SBK.shape[:2] != (len(stages), len(targets_B)):
        raise ValueError(
            f"logits {tuple(logits_SBK.shape)} for {len(stages)} stages of {len(targets_B)} videos: needs (S, B, K)"
        )
    if not 0 <= permitted_loss < 1:
        raise ConfigError(
            f"permitted loss {permitted_loss}: needs a fraction from 0 to below 1, such as {PERMITTED_LOSS}"
        )
    temperatures = tuple(fit_temperature(logits_BK, targets_B) for logits_BK in logits_SBK)
    plan = ExitPlan(stages=tuple(map(tuple, stages)), temperatures=temperatures, threshold=NEVER)
    if len(stages) == 1:
        return plan
    sure = np.unique(_confidences(logits_SBK[:-1], temperatures[:-1]))  # ascending
    some = np.linspace(0, len(sure) - 1, min(len(sure), MOST_THRESHOLDS)).round().astype(int)
    right_B = logits_SBK[-1].argmax(axis=1) == targets_B
    # From the highest threshold down, and no further than the first that loses too much: see the docstring.
    for threshold in reversed(sure[some].tolist()):
        lower = replace(plan, threshold=threshold)
        lost_B = right_B & (leave(lower, logits_SBK).logits.argmax(axis=1) != targets_B)
        if int(lost_B.sum()) > permitted_loss * len(targets_B):
            break
        plan = lower
    return replace(plan, threshold=max(plan.threshold, least_threshold))


def _confidences(logits_SBK: Floats, temperatures: Sequence[float]) -> Floats:
    return np.stack([confidence(logits_BK, t) for logits_BK, t in zip(logits_SBK, temperatures, strict=True)])
