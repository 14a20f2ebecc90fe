"""Programs for phones agree with the model, where the packages that write and run them are installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "export_phone.py"


@pytest.mark.parametrize(("runtime", "package"), [("litert", "litert_torch"), ("executorch", "executorch")])
def test_both_halves_agree(runtime: str, package: str, tiny_model: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} wants another torch; it is tested in an environment of its own (docs/guide/phones.md)")
    command = [sys.executable, str(TOOL), str(tiny_model), "--runtime", runtime, "--output", str(tmp_path / "phone")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "4 clips: largest difference" in done.stdout
    assert len(list((tmp_path / "phone").iterdir())) == 3
