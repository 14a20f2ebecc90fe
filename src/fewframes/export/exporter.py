"""`export`: a model as graphs for other runtimes, each of which has been run and compared with the model itself.

A float16 encoder is compared with the live one in float32, as is an int8 one. A file that does not say what the model says is
not left behind.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fewframes.errors import ConfigError, ExportError, needed
from fewframes.export.graphs import joined, onnx_of, quantised, traced, write_onnx, write_openvino, write_torch
from fewframes.export.runtime import Array, Card, Graph, GraphPart, Precision, open_graph
from fewframes.inference.predictor import Predictor
from fewframes.models.formats import SUFFIXES, GraphFormat, format_of
from fewframes.models.stam import STAM
from fewframes.models.token_merging import merged_per_block
from fewframes.results import Clip

TOLERANCES: dict[Precision, tuple[float, float]] = {"float32": (1e-4, 1e-4), "float16": (1e-2, 3e-2)}
"""The largest differences of scores and of embeddings, as shares of their largest value, up to which an export is the model."""
LEAST_AGREEMENT = 0.9
"""Share of videos for which int8 names the action that the model names."""
NUM_PANS = 4
MOST_CALIBRATION_FRAMES = 128
TINIEST = 1e-12
"""What a largest value of 0 counts as."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How near an export comes to the model: largest differences over all videos, each as a share of its video's largest value, and
    the share of videos for which both name the same action."""

    num_videos: int
    scores: float
    embedding: float
    frame_embeddings: float
    top1: float

    def __str__(self) -> str:
        same = round(self.top1 * self.num_videos)
        return (
            f"{self.num_videos} videos: largest difference of scores {self.scores:.1e}, embedding {self.embedding:.1e}, frame "
            f"embeddings {self.frame_embeddings:.1e}, as shares of the largest value; same action for {same}"
        )

    def failure(self, precision: Precision) -> str:
        """Why this is too far away, in words; empty where it is not."""
        if precision == "int8":
            if self.top1 >= LEAST_AGREEMENT:
                return ""
            return f"names the same action for {self.top1:.0%} of the videos only, {LEAST_AGREEMENT:.0%} are needed"
        apart = {"scores": self.scores, "embeddings": max(self.embedding, self.frame_embeddings)}
        for (name, worst), limit in zip(apart.items(), TOLERANCES[precision], strict=True):
            if worst > limit:
                return f"{name} differ by {worst:.1e}, the limit for {precision} is {limit:.0e}"
        return ""


@dataclass(frozen=True)
class Export:
    """What was written, file by file with its bytes, and how near it comes to the model."""

    files: dict[str, int]
    agreement: Agreement
    checked_on: str

    def to_dict(self) -> dict[str, object]:
        """Plain values."""
        return {"files": self.files, "agreement": asdict(self.agreement), "checked_on": self.checked_on}


def export(
    predictor: Predictor,
    output: Path,
    *,
    precision: Precision = "float32",
    calibrate: Sequence[Clip] = (),
    check: Sequence[Clip] = (),
) -> Export:
    """Write a model to `output` (.onnx, .xml for OpenVINO, .pt2 for torch) and, beside it, its halves.

    `predictor` computes in float32 on the CPU. Compared are the frames of `check`, else those of `calibrate`, else pans over two
    photographs. Raises ExportError where the export differs too much, and nothing is left; ConfigError for what cannot be made.
    """
    kind = checked_format(predictor, output, precision, calibrated=bool(calibrate))
    if predictor.dtype != torch.float32 or predictor.device.type != "cpu":
        raise ValueError(f"a predictor in {predictor.dtype} on {predictor.device}: needs float32 on the CPU")
    clips, checked_on = next(
        (clips, name) for clips, name in ((check, "the videos given"), (calibrate, "the videos it was calibrated with"),
        (pans(predictor), "pans over two photographs")) if clips
    )  # fmt: skip
    with _beside(output) as folder:
        graphs = _written(predictor, folder / output.name, kind, precision, [clip.frames.numpy() for clip in calibrate])
        agreement = agreement_of(predictor, {part: open_graph(path) for part, path in graphs.items()}, clips)
        failure = agreement.failure(precision)
        if failure:
            raise ExportError(
                f"{output}: {failure}; nothing was kept ({agreement})"
                + ("; give more varied --calibrate videos, or take float16" if precision == "int8" else "")
            )
        files = {}
        for path in sorted(folder.iterdir()):
            path.replace(output.parent / path.name)
            files[str(output.parent / path.name)] = (output.parent / path.name).stat().st_size
    return Export(files, agreement, checked_on)


def checked_format(predictor: Predictor, output: Path, precision: Precision, *, calibrated: bool) -> GraphFormat:
    """The format by the file's ending. ConfigError where this precision cannot be had in it, or needs videos to calibrate with;
    MissingDependency where a package is missing that makes or runs it."""
    kind = format_of(output)
    if kind is None or output.suffix not in SUFFIXES:  # OpenVINO writes no other ending
        raise ConfigError(f"{output}: its ending says the format; take one of {', '.join(SUFFIXES)}, in small letters")
    if precision == "int8" and kind == "torch":
        raise ConfigError("int8 is for .onnx and .xml; for .pt2 take float32 or float16")
    if precision == "int8" and _is_convolutional(predictor.model) and not calibrated:
        raise ConfigError(
            "int8 convolutions need to see what their numbers span: name some videos like those to be labelled with --calibrate"
        )
    if kind != "torch":
        extra = "export" if kind == "onnx" else kind
        for package in ("onnx", "onnxscript", "onnxruntime", *(["openvino"] if kind == "openvino" else [])):
            needed(package, extra)
    return kind


def pans(predictor: Predictor) -> list[Clip]:
    """Clips that move over two photographs, which scikit-learn brings along: real pictures where no videos were given."""
    from sklearn.datasets import load_sample_images  # late: slow to import, and most exports are given videos

    clips = []
    for number in range(NUM_PANS):
        photo_HWC: NDArray[np.uint8] = np.asarray(load_sample_images().images[number % 2])
        side = 240 + 60 * (number // 2)
        last = np.array(photo_HWC.shape[:2]) - side
        steps = np.linspace(0, 1, predictor.config.num_frames)
        corners = [(last * ((1 - step, step) if number // 2 else (step, step))).astype(int) for step in steps]
        frames = [np.ascontiguousarray(photo_HWC[top : top + side, left : left + side]) for top, left in corners]
        clips.append(predictor.read_clip(frames))
    return clips


def agreement_of(predictor: Predictor, graphs: dict[GraphPart, Graph], clips: Sequence[Clip]) -> Agreement:
    """How near the whole comes to the model on these clips, and its halves, one after the other, on the first two."""
    differences = np.zeros(3)
    num_same = 0
    for number, clip in enumerate(clips):
        frames_1TD = predictor.encode_clips(clip.frames[None])
        encoded = predictor.encode_windows(frames_1TD)
        live = [predictor.model.scores(encoded.logits).numpy(), encoded.embedding.numpy(), frames_1TD.numpy()]
        frames_1TCHW = clip.frames[None].contiguous().numpy()
        answers = [graphs["whole"](frames_1TCHW)]
        if number < 2 and "frames" in graphs:
            frames = graphs["frames"](frames_1TCHW[0])["frame_embeddings"][None]
            twice = graphs["time"](np.concatenate([frames[:, ::-1], frames]))  # two videos at once, the other backwards
            answers.append({"frame_embeddings": frames, **{name: rows[1:] for name, rows in twice.items()}})
        names = ("scores", "embedding", "frame_embeddings")
        for answer in answers:
            apart = [_apart(answer[name], one) for name, one in zip(names, live, strict=True)]
            differences = np.maximum(differences, apart)
        num_same += all(answer["scores"].argmax() == live[0].argmax() for answer in answers)
    scores, embedding, frame_embeddings = differences.tolist()
    return Agreement(
        num_videos=len(clips),
        scores=scores,
        embedding=embedding,
        frame_embeddings=frame_embeddings,
        top1=num_same / len(clips),
    )


def _apart(found: Array, live: Array) -> float:
    """The largest difference as a share of the largest value."""
    difference = float(np.abs(found - live).max() / np.abs(live).max().clip(min=TINIEST))
    return difference if np.isfinite(difference) else np.inf


def _written(
    predictor: Predictor, path: Path, kind: GraphFormat, precision: Precision, calibration: Sequence[Array]
) -> dict[GraphPart, Path]:
    """The files of each part."""
    model = copy.deepcopy(predictor.model).to(memory_format=torch.contiguous_format).eval()
    if precision == "float16" and kind != "openvino":  # which keeps the weights so, and computes in float32 on a CPU
        model.frame_encoder.half()
    parts: tuple[GraphPart, ...] = (
        ("whole", "frames", "time") if predictor.config.layout == "factorised" else ("whole",)
    )
    paths = {part: path if part == "whole" else path.with_suffix(f".{part}{path.suffix}") for part in parts}
    cards = {part: _card(predictor, part, precision) for part in parts}
    if kind == "torch":
        for part in parts:
            write_torch(traced(model, part), cards[part], paths[part])
        return paths
    graphs = {part: onnx_of(traced(model, part), part) for part in parts if part != "whole" or len(parts) == 1}
    if precision == "int8":
        encoder: GraphPart = "frames" if "frames" in graphs else "whole"
        frames = calibration_frames(calibration) if _is_convolutional(model) else []
        with tempfile.TemporaryDirectory(dir=path.parent.parent) as folder:
            graphs[encoder] = quantised(graphs[encoder], Path(folder), frames)
    if "whole" not in graphs:
        graphs["whole"] = joined(graphs["frames"], graphs["time"])
    for part in parts:
        onnx_path = paths[part].with_suffix(".onnx")
        write_onnx(graphs[part], cards[part], onnx_path)
        if kind == "openvino":
            write_openvino(onnx_path, cards[part], paths[part])
            onnx_path.unlink()
    return paths


def calibration_frames(clips: Sequence[Array]) -> list[Array]:
    """Frames spread evenly over the clips, at most `MOST_CALIBRATION_FRAMES` of all."""
    each = max(1, MOST_CALIBRATION_FRAMES // max(1, len(clips)))
    chosen = clips[:: -(-len(clips) // MOST_CALIBRATION_FRAMES)] if clips else []
    return [clip[np.linspace(0, len(clip) - 1, min(each, len(clip))).round().astype(int)] for clip in chosen]


def _card(predictor: Predictor, part: GraphPart, precision: Precision) -> Card:
    return Card(
        part=part,
        name=predictor.name,
        labels=predictor.labels,
        view=predictor.view,
        num_frames=predictor.config.num_frames,
        any_num_frames=predictor.config.layout == "factorised",
        precision=precision,
        merge=merged_per_block(predictor.model.frame_encoder),
    )


def _is_convolutional(model: STAM) -> bool:
    """Whether the frame encoder's work is in convolutions; a ViT has one, for its patches."""
    return sum(isinstance(module, nn.Conv2d) for module in model.frame_encoder.modules()) > 1


@contextmanager
def _beside(output: Path) -> Iterator[Path]:
    """A new folder beside the output, which goes with all that is still in it. ExportError where nothing can be written."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
            yield Path(folder)
    except OSError as error:
        raise ExportError(f"{output}: cannot be written ({error.strerror or error}); take another place") from None
