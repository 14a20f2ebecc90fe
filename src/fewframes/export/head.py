"""A solved head for an exported frame encoder: its graph is made, joined with the encoder's graph as it is, and compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fewframes.core.settings import Task
from fewframes.errors import ExportError, needed
from fewframes.export.exporter import TOLERANCES, relative_difference
from fewframes.export.graphs import joined, onnx_of, traced, write_onnx
from fewframes.models.config import ModelConfig
from fewframes.models.moments import SOLVED_MOMENTS, Floats, moment_features
from fewframes.models.rejection.judge import Judge, text_of
from fewframes.models.stam import STAM
from fewframes.runtime.graph_runtime import GraphRuntime
from fewframes.runtime.graphs import GraphPart
from fewframes.runtime.protocol import scores_of


def write_with_head(
    start: GraphRuntime,
    output: Path,
    weight_KP: Floats,
    bias_K: Floats,
    labels: tuple[str, ...],
    task: Task,
    thresholds: tuple[float, ...] = (),
    rejection: Judge | None = None,
) -> None:
    """Write an exported model again with a head on moments, as three ONNX files. The graph of its frame encoder stays as it is.

    Args:
        start: the exported model, of ONNX files.
        output: the file of the whole model to write; its halves are written beside it.
        weight_KP: the weights of the head.
        bias_K: the bias of the head.
        labels: the names of the K actions.
        task: one action a video, or any number of them.
        thresholds: the score from which each label of a multi-label model counts as present.
        rejection: the judge of videos that show none of the actions; None if there is none.

    Raises:
        ExportError: the new files do not say what the encoder and the head say.
        MissingDependency: a package that makes the graphs is not installed.
    """
    model = _head_alone(start, weight_KP, bias_K, task)
    path = Path(start.name)
    frames = needed("onnx", "train").load(path.with_suffix(f".frames{path.suffix}"))
    time = onnx_of(traced(model, "time"), "time")
    card = replace(
        start.card,
        name=output.stem,
        labels=labels,
        task=task,
        causal=False,
        video_width=start.frame_width,
        exits=None,
        thresholds=thresholds,
    )
    parts: tuple[GraphPart, ...] = ("whole", "frames", "time")
    for part, graph in zip(parts, (joined(frames, time), frames, time), strict=True):
        file = output if part == "whole" else output.with_suffix(f".{part}{output.suffix}")
        text = text_of(rejection) if rejection is not None and part == "whole" else ""
        write_onnx(graph, replace(card, part=part, rejection=text), file)
    difference = _disagreement(GraphRuntime(output), start, weight_KP, bias_K)
    limit, _ = TOLERANCES["float32"]
    if not difference <= limit:
        raise ExportError(
            f"{output}: its answers differ from those of the encoder and the head by {difference:.1e}; the limit is {limit:.0e}, "
            "so no file was written"
        )


def _head_alone(start: GraphRuntime, weight_KP: Floats, bias_K: Floats, task: Task) -> STAM:
    """Return a network that has the head, and the mean of the frames as its video embedding, but no frame encoder."""
    config = ModelConfig(
        encoder="lite0",  # is not built
        image_size=start.view.crop_px,
        temporal="mean",
        moment_head=True,
        moments=SOLVED_MOMENTS,
        num_frames=start.num_frames,
        num_classes=len(bias_K),
        task=task,
    )
    model = STAM(config, start.view, nn.Identity(), start.frame_width)
    assert model.moment_head is not None
    linear = model.moment_head.linear
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
        linear.weight.copy_(_tensor(weight_KP))
        linear.bias.copy_(_tensor(bias_K))
    return model.eval()


def _disagreement(written: GraphRuntime, start: GraphRuntime, weight_KP: Floats, bias_K: Floats) -> float:
    """Return the largest difference of scores from those that numpy computes, on random frames, as a fraction of the largest value.

    Each graph is compared on the embeddings that it has itself. The frame encoders are compared too.
    """
    draw, size = np.random.default_rng(0), start.view.crop_px
    frames_1TCHW = draw.integers(0, 256, (1, start.num_frames, 3, size, size), dtype=np.uint8)
    live_1TD = start.embed_frames(frames_1TCHW[0])[None]
    embeddings_1TD = written.embed_frames(frames_1TCHW[0])[None]
    whole_1TD, whole = written.label_clips(frames_1TCHW)
    found = ((embeddings_1TD, written.encode_windows(embeddings_1TD)), (whole_1TD, whole))
    differences = [relative_difference(embeddings_1TD, live_1TD)]
    for own_1TD, encoding in found:
        logits_1K = np.asarray(moment_features(own_1TD, SOLVED_MOMENTS) @ weight_KP.T + bias_K, np.float32)
        expected_1K = scores_of(logits_1K, written.task)
        differences.append(relative_difference(scores_of(encoding.logits, written.task), expected_1K))
    return max(differences)


def _tensor(array: Floats) -> Tensor:
    return torch.from_numpy(np.asarray(array, np.float32))
