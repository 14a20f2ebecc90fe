"""Take one turn of one system in a process of its own: count its cost, time it, decode a clip, evaluate it."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from fewframes.bench.results import Measurement
from fewframes.bench.stopwatch import Energy, Memory, RunMode, Runner
from fewframes.core.metrics import Report, score
from fewframes.core.settings import settings_from
from fewframes.data.dataset import VideoSet
from fewframes.errors import DataError, VideoError
from fewframes.inference.predictor import Predictor, load
from fewframes.models.baselines.catalogue import BASELINES, OURS, baseline_of, has_weights
from fewframes.models.baselines.systems import NUM_CLASSES, Baseline, BaselineNetwork, build, load_weights
from fewframes.models.cost import Cost, count_cost
from fewframes.models.devices import choose_device, matrix_flops_s
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.names import HF_PREFIX
from fewframes.models.files.release import kinetics_labels
from fewframes.models.stam import STAM, SpatialEncoder
from fewframes.models.token_merging import merge_tokens
from fewframes.runtime.torch_runtime import DTYPES
from fewframes.sampling import Views
from fewframes.training.evaluation.labels import indices_of, targets_for
from fewframes.training.evaluation.scoring import score_videos
from fewframes.video.source import open_video
from fewframes.video.transforms import crops_of

RATE_SIDES = {"cpu": 4096, "cuda": 8192}
"""Rows and columns of the matrices whose products give the rate of a device."""


@dataclass(frozen=True)
class Shortcuts:
    """The shortcuts that make our models cheaper; other systems run without any."""

    tolerance: float = 0.0  # fraction of the interval between frames by which timestamps may move
    merge: int = 0  # patches that each block of a ViT merges

    def baseline(self, name: str) -> Baseline:
        """Return the baseline of this name; if it is ours, its timestamps have the tolerance."""
        baseline = baseline_of(name)
        if not self.tolerance or (name in BASELINES and name not in OURS):
            return baseline
        views = settings_from(Views, {**vars(baseline.views), "tolerance": self.tolerance}, "bench")
        return replace(baseline, views=views)

    def merged(self, network: nn.Module) -> int:
        """Return the patches to merge in each block of this network: 0 unless it is a ViT of ours."""
        return self.merge if isinstance(getattr(network, "frame_encoder", None), SpatialEncoder) else 0


NO_SHORTCUTS = Shortcuts()


def costs_of(name: str, shortcuts: Shortcuts) -> tuple[Cost, Cost]:
    """Return the cost of one view by the whole network, and as it is run; nothing is computed."""
    baseline = baseline_of(name)
    with torch.device("meta"):  # only a file of ours, and a folder of transformers, come with their weights
        network = build(baseline)
    if isinstance(network, BaselineNetwork):
        network = network.to("meta")
    whole = count_cost(network, baseline.frames_a_pass, baseline.size_px)
    if not isinstance(network, STAM):
        return whole, whole
    merge_tokens(network.eval().frame_encoder, shortcuts.merged(network))
    return whole, count_cost(network, baseline.frames_a_pass, baseline.size_px)


def take_turn(
    name: str,
    device_name: str,
    seconds: float,
    mode: RunMode | None,
    clip: str | None,
    shortcuts: Shortcuts = NO_SHORTCUTS,
) -> Measurement:
    """Take one turn of a system: build it, warm up, and measure.

    Args:
        name: The system.
        device_name: Name of the device.
        seconds: Approximate seconds of the turn.
        mode: The mode of an earlier turn; None looks for the best one first.
        clip: Video to decode; None does not measure decoding.
        shortcuts: Applied if the system is ours.
    """
    device = torch.device(device_name)
    memory = Memory(device)
    baseline = shortcuts.baseline(name)
    network = build(baseline)
    runner = Runner(network, baseline, device, shortcuts.merged(network))
    if mode is None:
        mode = runner.best_mode(seconds / 4)
    runner.take(mode)
    for batch in {1, mode.batch}:
        runner.seconds_of(batch, 0)  # warm-up
    with memory, Energy(device) as energy:
        pass_s = runner.seconds_of(mode.batch, seconds)
    view_s = pass_s if mode.batch == 1 else runner.seconds_of(1, seconds / 2)
    return Measurement(
        mode=mode,
        pass_s=tuple(pass_s),
        view_s=tuple(view_s),
        decode_s=None if clip is None else decoding_s(baseline, clip),
        memory_bytes=memory.peak_bytes,
        joules=energy.joules,
        matrix_flops_s=matrix_flops_s(
            DTYPES[mode.dtype], device, side=RATE_SIDES.get(device.type, 4096), seconds=min(seconds, 1.0)
        ),
        tried=runner.tried,
    )


def report_on(
    name: str, data: VideoSet, weights: str | None, device: str, shortcuts: Shortcuts = NO_SHORTCUTS
) -> Report | None:
    """Return the accuracy of a system by its own protocol; None if it has no weights.

    Models of ours are evaluated as `fewframes evaluate` does it; other systems run in float32, with the labels of Kinetics-400.
    `weights` is a file of weights with the names of the system's library; None takes the weights of a model of ours. Raises
    DataError for a video that cannot be read: accuracies over different videos cannot be compared.
    """
    if weights is None:
        if not has_weights(name):
            return None
        predictor = _predictor(name, device, shortcuts)
        scored = score_videos(data, predictor, views=Views(tolerance=shortcuts.tolerance))
        if scored.failures:
            raise DataError(f"{len(scored.failures)} videos cannot be read, the first: {scored.failures[0].error}")
        return score(scored.logits, targets_for(data, predictor).argmax(axis=1), predictor.labels)
    baseline, labels = baseline_of(name), kinetics_labels(NUM_CLASSES)
    class_indices = np.array(indices_of(data.labels, labels, f"{data.name}: {name}"))
    network = build(baseline)
    assert isinstance(network, BaselineNetwork)
    load_weights(network, baseline, weights)
    runner = Runner(network, baseline, choose_device(device))
    scores = [runner.scores(read_views(baseline, sample.path, sample.start_s, sample.end_s)) for sample in data.samples]
    return score(torch.stack(scores).log().numpy(), class_indices[data.multi_hot().argmax(axis=1)], labels)


def _predictor(name: str, device: str, shortcuts: Shortcuts) -> Predictor:
    """Return a predictor of a model that has weights: one of ours with the shortcuts, or one of transformers as it is."""
    if name.startswith(HF_PREFIX):
        return load(name, device=device, dtype="float32")
    checkpoint = load_checkpoint(name)
    merge = shortcuts.merged(checkpoint.model) or None
    return Predictor(checkpoint, device=device, merge=merge, name=name)


def decoding_s(baseline: Baseline, clip: str) -> float:
    """Return the seconds to open a video and read the frames of all views of a baseline, resized and cropped."""
    began = time.perf_counter()
    read_views(baseline, clip)
    return time.perf_counter() - began


def read_views(baseline: Baseline, path: str, start_s: float = 0.0, end_s: float | None = None) -> Tensor:
    """Return all views of a video by the baseline's protocol: (V, T, C, H, W) uint8, clip after clip, each with its crops."""
    num_crops = baseline.views.num_crops
    with closing(open_video(path, threads=0)) as video:
        try:
            times_s = baseline.views.times(video.duration_s, baseline.frames, start_s=start_s, end_s=end_s)
            tolerance_s = baseline.views.tolerance_s(video.duration_s, baseline.frames, start_s=start_s, end_s=end_s)
        except ValueError as error:
            raise VideoError(f"{video.name}: {error}") from None
        frames_NSCHW = video.frames_at(
            times_s.flatten(), lambda frame: crops_of(frame, baseline.view, num_crops), tolerance_s
        ).frames
    frames_GTSCHW = torch.as_tensor(frames_NSCHW).unflatten(0, (-1, baseline.frames_a_pass))
    return frames_GTSCHW.transpose(1, 2).flatten(0, 1)
