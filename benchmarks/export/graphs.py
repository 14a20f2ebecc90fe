"""What exported graphs cost in accuracy and gain in time, size, start-up and memory: the packaged model on real videos.

    python -m benchmarks.export.graphs ../shared/data > benchmarks/export/graphs.json

Int8 is calibrated with eight of UT-Interaction's videos and scored on all 120 and on 60 daily movements (every second one), beside
torch in float32 on the same frames, 16 uniform ones. The packaged weights have learned from these videos, so `top1` says what an
export loses, not how good the model is. `embedding_error` is the norm of the difference of frame embeddings over their norm.

Network seconds are the processor's, one thread, 16 frames, in turn; a ratio is of two neighbouring runs. Start-up: the whole
command on one clip in processes of their own, in turn: processor seconds, peak memory.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import ROOT, interleaved, least_median_most, ratios, write_result
from fewframes.export.exporter import export
from fewframes.inference.predictor import Predictor, load
from fewframes.results import Clip
from fewframes.runtime.graphs import Array, open_graph
from fewframes.runtime.protocol import scores_of
from runs.packaged import DARK, rows_of

EXPORTS = {
    "onnx float32": ("float32.onnx", "float32"),
    "onnx float16": ("float16.onnx", "float16"),
    "onnx int8": ("int8.onnx", "int8"),
    "openvino float32": ("float32.xml", "float32"),
    "openvino int8": ("int8.xml", "int8"),
}
SCORED = ("onnx int8", "openvino int8")
TURNS, STARTS, NUM_CALIBRATION, NUM_DAILY = 5, 3, 8, 60
COMMAND = "from fewframes.cli.main import main; main()"
LAUNCHER = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
assert status == 0, sys.argv
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""


def clips_of(predictor: Predictor, folder: Path, rows: list[dict[str, str]]) -> tuple[list[Clip], list[str]]:
    clips = []
    for number, row in enumerate(rows):
        clips.append(predictor.read_clip(str(folder / row["path"])))
        if number % 20 == 19:
            print(f"{folder.name}: {number + 1}/{len(rows)} read", file=sys.stderr)
    return clips, [row["label"] for row in rows]


def scored(predictor: Predictor, paths: dict[str, Path], clips: list[Clip], labels: list[str]) -> dict[str, object]:
    """Right answers of the live model and of each graph, and how far the graphs are from the model."""
    graphs = {name: open_graph(path, threads=1) for name, path in paths.items()}
    live_right, right, same = 0, dict.fromkeys(graphs, 0), dict.fromkeys(graphs, 0)
    errors: dict[str, list[float]] = {name: [] for name in graphs}
    largest, known = dict.fromkeys(graphs, 0.0), set(labels) <= set(predictor.labels)
    for number, (clip, label) in enumerate(zip(clips, labels, strict=True)):
        frames_1TD = predictor.runtime.encode_clips(clip.frames[None])
        live = scores_of(predictor.runtime.encode_windows(frames_1TD).logits, predictor.runtime.task)[0]
        live_right += predictor.labels[int(live.argmax())] == label
        for name, graph in graphs.items():
            said = graph(np.ascontiguousarray(clip.frames[None]))
            best = int(said["scores"][0].argmax())
            right[name] += predictor.labels[best] == label
            same[name] += best == int(live.argmax())
            largest[name] = max(largest[name], float(np.abs(said["scores"][0] - live).max()))
            errors[name].append(_error(said["frame_embeddings"], frames_1TD))
        if number % 20 == 19:
            print(f"scored {number + 1}/{len(clips)}", file=sys.stderr)
    return {
        "videos": len(clips),
        **({"torch float32 right": live_right} if known else {}),
        **{
            name: {
                **({"right": right[name]} if known else {}),
                "same_action": same[name],
                "largest_difference_of_scores": round(largest[name], 4),
                "embedding_error": least_median_most(errors[name]),
            }
            for name in graphs
        },
    }


def network_s(predictor: Predictor, paths: dict[str, Path], clip: Clip) -> dict[str, object]:
    """Processor seconds for 16 frames, and how many times as fast as torch in float32."""
    given: Array = np.ascontiguousarray(clip.frames[None])
    runs: dict[str, Callable[[], object]] = {
        "torch float32": lambda: predictor.runtime.encode_windows(predictor.runtime.encode_clips(clip.frames[None]))
    }
    for name, path in paths.items():
        graph = open_graph(path, threads=1)
        runs[name] = lambda graph=graph: graph(given)  # type: ignore[misc]
    seconds = interleaved(runs, TURNS)
    plain = seconds["torch float32"]
    return {
        name: {
            "seconds": least_median_most(values),
            "times_as_fast": least_median_most(ratios(plain, values)),
        }
        for name, values in seconds.items()
    }


def start(model: str, video: Path) -> tuple[float, float]:
    """Processor seconds and peak MB of `fewframes predict`."""
    command = [sys.executable, "-c", COMMAND, "predict", str(video), "--model", model]
    # By way of a small process: a child's peak begins with its parent's.
    done = subprocess.run([sys.executable, "-S", "-c", LAUNCHER, *command], capture_output=True, text=True, check=True)
    seconds, kilobytes = done.stdout.split()
    return float(seconds), int(kilobytes) / 1000


def starts(paths: dict[str, Path], video: Path) -> dict[str, object]:
    models = {"torch": "lite0-16", **{name: str(path) for name, path in paths.items()}}
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for _ in range(STARTS):
        for name, model in models.items():
            measured[name].append(start(model, video))
    return {
        name: {
            "processor_s": least_median_most([seconds for seconds, _ in values]),
            "peak_MB": round(statistics.median(megabytes for _, megabytes in values)),
        }
        for name, values in measured.items()
    }


def _error(found: Array, live: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(found - live) / np.linalg.norm(live))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("build/export"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    predictor = load(device="cpu", dtype="float32", runtime="torch")
    folder = options.data / "ut_interaction"
    interactions, interaction_labels = clips_of(predictor, folder, rows_of(folder))
    daily_rows = [row for row in rows_of(options.data / "fir_rgb") if float(row["mean_luma"]) > DARK]
    daily_rows = daily_rows[:: max(1, len(daily_rows) // NUM_DAILY)][:NUM_DAILY]
    daily, daily_labels = clips_of(predictor, options.data / "fir_rgb", daily_rows)
    calibration = interactions[:: len(interactions) // NUM_CALIBRATION]
    files, paths = {}, {}
    for name, (file, precision) in EXPORTS.items():
        paths[name] = options.folder / file
        began = time.process_time()
        done = export(predictor, paths[name], precision=precision, calibrate=calibration)  # type: ignore[arg-type]
        sizes = {Path(path).name: round(size / 1e6, 2) for path, size in done.files.items()}
        files[name] = {
            "MB": sizes,
            "export_processor_s": round(time.process_time() - began, 1),
            **done.to_dict()["agreement"],  # type: ignore[dict-item]
        }
        print(name, files[name], file=sys.stderr)
    some = {name: paths[name] for name in SCORED}
    video = ROOT / "examples" / "hug.mp4"
    write_result(
        versions={name: version(name) for name in ("onnx", "onnxruntime", "openvino")},
        exports=files,
        **{
            "network, 16 frames, one thread": network_s(predictor, paths, interactions[0]),
            "predict examples/hug.mp4": starts({name: paths[name] for name in ("onnx float32", "onnx int8")}, video),
        },
        ut=scored(predictor, some, interactions, interaction_labels),
        daily=scored(predictor, some, daily, daily_labels),
    )


if __name__ == "__main__":
    main()
