"""Several processes share what is to be done, and have the results of all."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fewframes.training.config import TrainConfig
from fewframes.training.processes import start_processes
from helpers.training import command

COUNTING = """
import sys
from fewframes.runtime.torch_runtime import TorchRuntime
encoded, plain = [], TorchRuntime.encode_clips

def counted(self, frames):
    encoded.append(len(frames))
    return plain(self, frames)

TorchRuntime.encode_clips = counted
from fewframes.cli.main import main
try:
    main()
finally:
    import os
    with open(sys.argv[4] + "-rank" + os.environ["RANK"], "w") as file:
        file.write(f"{len(encoded)}")
"""


def test_a_process_is_waited_for_longer_than_a_run_embeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL's own limit of ten minutes would end a run while one process embeds, scores or writes longer than the others."""
    given: list[Any] = []
    monkeypatch.setattr("accelerate.Accelerator", lambda **settings: given.extend(settings["kwargs_handlers"]))
    start_processes("cpu", TrainConfig())
    (handler,) = given
    assert handler.timeout >= timedelta(hours=6)


@pytest.mark.parametrize("unfreeze", ["none", "all"])
def test_two_processes_share_embedding_and_judging(
    clips: Path, tiny_model: Path, tmp_path: Path, unfreeze: str
) -> None:
    """Each video goes through the network of one of them, without a cache on disk too, and the figures are of all videos."""
    (tmp_path / "counting.py").write_text(COUNTING)
    _, *lines = command(clips, tiny_model, tmp_path / "out", "--unfreeze", unfreeze, epochs=2, keep="best")
    lines += ["--set", "augment.cutmix=0", "--set", "augment.views=0"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, str(tmp_path / "counting.py"), *lines], capture_output=True, text=True, check=False, timeout=300
    )
    assert "held-out videos: " in done.stdout, done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["processes"], metrics["held_out"]["evaluated"], len(metrics["failed"])) == (2, 4, 1)
    counts = [int((tmp_path / f"out-rank{rank}").read_text()) for rank in (0, 1)]
    # Twelve videos can be read. Frozen, each view is embedded once: eight training videos, mirrored too, and four held out. Else
    # the four held out are judged in both epochs, to calibrate the chosen and the last model, and at the end.
    assert sum(counts) == {"none": 8 * 2 + 4, "all": 5 * 4}[unfreeze]
    assert min(counts) >= 4
