"""The Python that the documentation shows runs as it stands."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from fewframes.data.dataset import DataConfig
from fewframes.training.config import RunConfig, TrainConfig, run_to_toml

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_training_in_python(
    clips: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(
        r"^```python\n(.*?)^```", (DOCS / "guide" / "train.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert len(blocks) == 1
    shutil.copytree(clips, tmp_path / "clips")
    shutil.copytree(clips, tmp_path / "other-clips")
    run = RunConfig(start=str(tiny_model), data=DataConfig(holdout=0.34), train=TrainConfig(min_steps=2, epochs=2))
    (tmp_path / "run.toml").write_text(run_to_toml(run))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWFRAMES_CACHE", str(tmp_path / "cache"))
    exec(compile(blocks[0], "training.md", "exec"), {"__name__": "__main__"})
    assert re.match(
        r"Report\(12 videos: top-1 .*\) [\d.]+% \(95 % interval .* over 12 groups\)\n", capsys.readouterr().out
    )
    assert (tmp_path / "doors" / "model.safetensors").is_file()
