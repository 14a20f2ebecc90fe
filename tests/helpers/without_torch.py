"""The command line without the packages of training, as after `pip install fewframes`."""

from __future__ import annotations

import subprocess
from pathlib import Path

from helpers.commands import run

ABSENT = (
    "torch", "torchvision", "timm", "accelerate", "tensorboard", "onnx", "onnxscript", "scipy", "sklearn", "openvino", "torchcodec",
)  # fmt: skip
CODE = f"""
import sys
for name in {ABSENT}:
    sys.modules[name] = None
from fewframes.cli.main import main
main()
"""


def run_without_torch(*arguments: str | Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return run(*arguments, code=CODE, stdin=stdin, **environment)
