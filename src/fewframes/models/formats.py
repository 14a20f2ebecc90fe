"""Kinds of model files, told by their endings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

GraphFormat = Literal["onnx", "openvino", "torch"]
SUFFIXES: dict[str, GraphFormat] = {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch"}
"""Endings of exported files. OpenVINO keeps the weights beside the graph, in a file that ends in .bin."""


def format_of(path: str | os.PathLike[str]) -> GraphFormat | None:
    """The format of an exported file by its name; None for what is none."""
    return SUFFIXES.get(Path(path).suffix.lower())
