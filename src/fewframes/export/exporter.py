"""Export of a model as graphs for other runtimes. Each graph is run and compared with the live model.

Graphs in float16 and int8 are compared with the live model in float32 too. Files that disagree with the model are removed.
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

from fewframes.core.text import count_of
from fewframes.errors import ConfigError, ExportError, needed
from fewframes.export.graphs import joined, onnx_of, quantised, traced, write_onnx, write_openvino, write_torch
from fewframes.inference.predictor import Predictor
from fewframes.models.files.formats import SUFFIXES, GraphFormat, format_of
from fewframes.models.rejection.judge import text_of
from fewframes.models.stam import STAM
from fewframes.results import Clip
from fewframes.runtime.graphs import Array, Card, Graph, GraphPart, Precision, open_graph
from fewframes.runtime.protocol import scores_of

TOLERANCES: dict[Precision, tuple[float, float]] = {"float32": (1e-4, 1e-4), "float16": (1e-2, 3e-2)}
"""The largest differences of scores and of embeddings that are allowed, as fractions of their largest value."""
LEAST_AGREEMENT = 0.9
"""The smallest fraction of videos for which int8 must name the same action as the model."""
NUM_PANS = 4
"""The number of clips that `pans` makes."""
MOST_CALIBRATION_FRAMES = 128
"""The most frames that int8 is calibrated with."""
TINIEST = 1e-12
"""The smallest divisor of a relative difference, for arrays of zeros."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The agreement of an export with its model.

    Differences are the largest over all videos. Each is relative to the largest value of its video.
    """

    num_videos: int
    """The number of videos that were compared."""
    scores: float
    """The largest difference of scores."""
    embedding: float
    """The largest difference of video embeddings."""
    frame_embeddings: float
    """The largest difference of frame embeddings."""
    top1: float
    """The fraction of videos for which the export and the model name the same action."""

    def __str__(self) -> str:
        same = round(self.top1 * self.num_videos)
        return (
            f"{count_of(self.num_videos, 'video')}: largest difference of scores {self.scores:.1e}, "
            f"embedding {self.embedding:.1e}, frame embeddings {self.frame_embeddings:.1e}, as fractions of the largest "
            f"value; same action for {same}"
        )

    def failure(self, precision: Precision) -> str:
        """Return the reason why the agreement is too small for this precision, or an empty text if it is not."""
        if precision == "int8":
            if self.top1 >= LEAST_AGREEMENT:
                return ""
            return f"it names the same action for only {self.top1:.0%} of the videos; {LEAST_AGREEMENT:.0%} are needed"
        differences = {"scores": self.scores, "embeddings": max(self.embedding, self.frame_embeddings)}
        for (name, largest), limit in zip(differences.items(), TOLERANCES[precision], strict=True):
            if largest > limit:
                return f"{name} differ by {largest:.1e}; the limit for {precision} is {limit:.0e}"
        return ""


@dataclass(frozen=True)
class Export:
    """The result of an export."""

    files: dict[str, int]
    """The size in bytes of each file that was written."""
    agreement: Agreement
    """The agreement of the graphs with the model."""
    checked_on: str
    """The videos that were compared, in words."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values, for JSON."""
        return {"files": self.files, "agreement": asdict(self.agreement), "checked_on": self.checked_on}


def export(
    predictor: Predictor,
    output: Path,
    *,
    precision: Precision = "float32",
    calibrate: Sequence[Clip] = (),
    check: Sequence[Clip] = (),
) -> Export:
    """Write a model to `output` as one graph and, beside it, its two halves as graphs of their own.

    Args:
        predictor: the model, in float32 on the CPU.
        output: the file to write. Its ending is .onnx, .xml (OpenVINO) or .pt2 (torch).
        precision: the precision of the frame encoder.
        calibrate: videos that int8 is calibrated with.
        check: videos that the graphs are compared with the model on. If there are none, the videos of `calibrate` are used; if
            there are none of those either, `pans`.

    Raises:
        ExportError: the graphs disagree with the model, or cannot be written. No file is left behind.
        ConfigError: the model cannot be exported in this format and precision.
        MissingDependency: a package that makes or runs the format is not installed.
    """
    kind = checked_format(predictor, output, precision, calibrated=bool(calibrate))
    runtime = predictor.torch
    if runtime.precision != "float32" or runtime.device != "cpu":
        raise ValueError(f"a predictor in {runtime.precision} on {runtime.device}: needs float32 on the CPU")
    clips, checked_on = next(
        (clips, name) for clips, name in ((check, "the videos given"), (calibrate, "the videos it was calibrated with"),
        (pans(predictor), "pans over two photographs")) if clips
    )  # fmt: skip
    with _temporary_folder(output) as folder:
        graphs = _write_parts(predictor, folder / output.name, kind, precision, [clip.frames for clip in calibrate])
        agreement = agreement_of(predictor, {part: open_graph(path) for part, path in graphs.items()}, clips)
        failure = agreement.failure(precision)
        if failure:
            raise ExportError(
                f"{output}: {failure}; no file was written ({agreement})"
                + ("; give more varied --calibrate videos, or take float16" if precision == "int8" else "")
            )
        files = {}
        for path in sorted(folder.iterdir()):
            path.replace(output.parent / path.name)
            files[str(output.parent / path.name)] = (output.parent / path.name).stat().st_size
    return Export(files, agreement, checked_on)


def checked_format(predictor: Predictor, output: Path, precision: Precision, *, calibrated: bool) -> GraphFormat:
    """Return the format that the ending of `output` stands for, if the model can be exported in it.

    Args:
        predictor: the model.
        output: the file to write.
        precision: the precision of the frame encoder.
        calibrated: True if there are videos to calibrate with.

    Raises:
        ConfigError: the ending is unknown, the format does not have this precision, or int8 needs videos to calibrate with.
        MissingDependency: a package that makes or runs the format is not installed.
    """
    kind = format_of(output)
    # `format_of` takes capital letters too, but OpenVINO does not write such files.
    if kind is None or output.suffix not in SUFFIXES:
        raise ConfigError(
            f"{output}: its ending decides the format; take one of {', '.join(SUFFIXES)}, in small letters"
        )
    if precision == "int8" and kind == "torch":
        raise ConfigError("int8 is for .onnx and .xml; for .pt2 take float32 or float16")
    if precision == "int8" and _is_convolutional(predictor.torch.model) and not calibrated:
        raise ConfigError(
            "int8 convolutions must be calibrated with real frames: name some videos like those to be labelled with --calibrate"
        )
    if kind != "torch":
        extra = "export" if kind == "onnx" else kind
        for package in ("onnx", "onnxscript", "onnxruntime", *(["openvino"] if kind == "openvino" else [])):
            needed(package, extra)
    return kind


def pans(predictor: Predictor) -> list[Clip]:
    """Return clips that pan over two photographs from scikit-learn, so that real pictures are compared if no videos are given."""
    # Late, because it is slow to import and most exports are given videos.
    from sklearn.datasets import load_sample_images

    clips = []
    for number in range(NUM_PANS):
        photo_HWC: NDArray[np.uint8] = np.asarray(load_sample_images().images[number % 2])
        side = 240 + 60 * (number // 2)
        last = np.array(photo_HWC.shape[:2]) - side
        steps = np.linspace(0, 1, predictor.num_frames)
        corners = [(last * ((1 - step, step) if number // 2 else (step, step))).astype(int) for step in steps]
        frames = [np.ascontiguousarray(photo_HWC[top : top + side, left : left + side]) for top, left in corners]
        clips.append(predictor.read_clip(frames))
    return clips


def agreement_of(predictor: Predictor, graphs: dict[GraphPart, Graph], clips: Sequence[Clip]) -> Agreement:
    """Compare graphs with the model on these clips.

    The whole graph runs on every clip. The two halves, if there are any, run one after the other on the first two clips.

    Args:
        predictor: the model.
        graphs: the graph of each part.
        clips: the clips, as the model takes them.
    """
    differences = np.zeros(3)
    num_same = 0
    for number, clip in enumerate(clips):
        embeddings_1TD = predictor.runtime.encode_clips(clip.frames[None])
        encoded = predictor.runtime.encode_windows(embeddings_1TD)
        live = [scores_of(encoded.logits, predictor.runtime.task), encoded.embedding, embeddings_1TD]
        frames_1TCHW = np.ascontiguousarray(clip.frames[None])
        answers = [graphs["whole"](frames_1TCHW)]
        if number < 2 and "frames" in graphs:
            exported_1TD = graphs["frames"](frames_1TCHW[0])["frame_embeddings"][None]
            # The graph gets two videos at once, the first one backwards, so that an answer that mixes videos shows.
            both = graphs["time"](np.concatenate([exported_1TD[:, ::-1], exported_1TD]))
            answers.append({"frame_embeddings": exported_1TD, **{name: rows[1:] for name, rows in both.items()}})
        names = ("scores", "embedding", "frame_embeddings")
        for answer in answers:
            largest = [relative_difference(answer[name], expected) for name, expected in zip(names, live, strict=True)]
            differences = np.maximum(differences, largest)
        num_same += all(answer["scores"].argmax() == live[0].argmax() for answer in answers)
    scores, embedding, frame_embeddings = differences.tolist()
    return Agreement(
        num_videos=len(clips),
        scores=scores,
        embedding=embedding,
        frame_embeddings=frame_embeddings,
        top1=num_same / len(clips),
    )


def relative_difference(found: Array, live: Array) -> float:
    """Return the largest difference as a fraction of the largest live value. NaN counts as infinite."""
    difference = float(np.abs(found - live).max() / np.abs(live).max().clip(min=TINIEST))
    return difference if np.isfinite(difference) else np.inf


def _write_parts(
    predictor: Predictor, path: Path, kind: GraphFormat, precision: Precision, calibration: Sequence[Array]
) -> dict[GraphPart, Path]:
    """Write the graph of each part and return their files.

    Args:
        predictor: the model.
        path: the file of the whole graph; the others have `.frames` or `.time` before the ending.
        kind: the format.
        precision: the precision of the frame encoder.
        calibration: the frames (T, C, H, W) of each video that int8 is calibrated with.
    """
    model = copy.deepcopy(predictor.torch.model).to(memory_format=torch.contiguous_format).eval()
    # OpenVINO stores float16 weights by itself, and computes in float32 on a CPU.
    if precision == "float16" and kind != "openvino":
        model.frame_encoder.half()
    parts: tuple[GraphPart, ...] = ("whole", "frames", "time") if predictor.runtime.embeds_frames else ("whole",)
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
    """Return frames (T', C, H, W) of each clip, spread evenly over it, at most `MOST_CALIBRATION_FRAMES` of all clips together."""
    per_clip = max(1, MOST_CALIBRATION_FRAMES // max(1, len(clips)))
    chosen = clips[:: -(-len(clips) // MOST_CALIBRATION_FRAMES)] if clips else []
    return [clip[np.linspace(0, len(clip) - 1, min(per_clip, len(clip))).round().astype(int)] for clip in chosen]


def _card(predictor: Predictor, part: GraphPart, precision: Precision) -> Card:
    """Return the card that is stored in the graph of this part."""
    runtime = predictor.runtime
    return Card(
        part=part,
        name=runtime.name,
        labels=runtime.labels,
        view=runtime.view,
        num_frames=runtime.num_frames,
        any_num_frames=runtime.embeds_frames,
        precision=precision,
        task=runtime.task,
        causal=runtime.causal,
        frame_width=runtime.frame_width,
        video_width=runtime.video_width,
        merge=runtime.merge,
        exits=runtime.exits,
        thresholds=runtime.thresholds,
        rejection=text_of(runtime.rejection) if runtime.rejection is not None and part == "whole" else "",
        boundaries=runtime.boundaries.to_text() if runtime.boundaries is not None and part == "whole" else "",
    )


def _is_convolutional(model: STAM) -> bool:
    """Return True if the work of the frame encoder is in convolutions. A ViT has only one, for its patches."""
    return sum(isinstance(module, nn.Conv2d) for module in model.frame_encoder.modules()) > 1


@contextmanager
def _temporary_folder(output: Path) -> Iterator[Path]:
    """Yield a new folder beside `output`, which is removed with all files that are still in it.

    Raises ExportError if nothing can be written there.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
            yield Path(folder)
    except OSError as error:
        raise ExportError(f"{output}: cannot be written ({error.strerror or error}); take another path") from None
