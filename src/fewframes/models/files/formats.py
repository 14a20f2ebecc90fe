"""The formats of exported model files, which the ending of a file's name decides."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

GraphFormat = Literal["onnx", "openvino", "torch"]
SUFFIXES: dict[str, GraphFormat] = {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch"}
"""The format for each ending. OpenVINO writes the weights to a second file beside the graph, which ends in .bin."""


def format_of(path: str | os.PathLike[str]) -> GraphFormat | None:
    """Return the format of an exported file by the ending of its name, or None for any other file."""
    return SUFFIXES.get(Path(path).suffix.lower())
