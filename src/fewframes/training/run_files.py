"""Names of the files in the output folder of a run. This module imports no torch."""

from __future__ import annotations

RUN_FILE, METRICS_FILE, HISTORY_FILE, PREDICTIONS_FILE = "run.toml", "metrics.json", "history.csv", "predictions.csv"
CURVES_FILE, CONFUSION_FILE, LAST_FILE = "curves.png", "confusion.png", "last.safetensors"
MODEL_FILE = "model.safetensors"
GRAPH_FILES = ("model.frames.onnx", "model.time.onnx", "model.onnx")
"""The files of a solved model whose run started from an exported file. They take the place of the model file."""
TEACHING_FILE, EXAMPLES_FILE = "teaching.safetensors", "examples.csv"
"""The files of a solved model from which it is taught further: what is kept of its examples, and the list of them.
Training leaves such a list alone, because it may be the one that it reads."""
STATE_FILE, BEST_FILE, STEPS_FILE = "state.pt", "best.safetensors", "history.part.csv"
OUTPUT_FILES = (
    RUN_FILE, HISTORY_FILE, METRICS_FILE, PREDICTIONS_FILE, CURVES_FILE, CONFUSION_FILE, LAST_FILE, TEACHING_FILE,
    MODEL_FILE, *GRAPH_FILES,
)  # fmt: skip
"""The files that a finished run leaves. The model is written last, so that a folder with a model is complete."""
