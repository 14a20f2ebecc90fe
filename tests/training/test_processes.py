"""Several processes share what is to be done, and have the results of all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.training import command

COUNTING = """
import json, sys, torch
from torch.distributed.distributed_c10d import _get_default_group
from fewframes.runtime.torch_runtime import TorchRuntime
encoded, waits, plain = [], set(), TorchRuntime.encode_clips

def counted(self, frames):
    encoded.append(len(frames))
    waits.add(_get_default_group()._get_backend(torch.device("cpu")).options._timeout.total_seconds())
    return plain(self, frames)

TorchRuntime.encode_clips = counted
from fewframes.cli.main import main
try:
    main()
finally:
    import os
    with open(sys.argv[4] + "-rank" + os.environ["RANK"], "w") as file:
        json.dump({"encoded": len(encoded), "longest waits": list(waits)}, file)
"""


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
    ranks = [json.loads((tmp_path / f"out-rank{rank}").read_text()) for rank in (0, 1)]
    # NCCL's own limit of ten minutes would end a run while one process embeds, scores or writes longer than the others.
    assert [rank["longest waits"] for rank in ranks] == [[6 * 3600]] * 2
    counts = [rank["encoded"] for rank in ranks]
    # Twelve videos can be read. Frozen, each view is embedded once: eight training videos, mirrored too, and four held out. Else
    # the four held out are judged in both epochs, to calibrate the chosen and the last model, and at the end.
    assert sum(counts) == {"none": 8 * 2 + 4, "all": 5 * 4}[unfreeze]
    assert min(counts) >= 4
