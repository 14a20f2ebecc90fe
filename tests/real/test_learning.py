"""The main job on real videos: the packaged model names them, and learns the six interactions from a list."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

from fewframes.inference.predictor import load

MOVEMENTS = {"standup": "stand up", "sitdown": "sit down", "falling": "fall", "lying": "lie down", "walk": "walk"}


def test_what_it_learned_it_knows(shared: Path) -> None:
    model = load(device="cpu", dtype="float32")
    right = {
        "ut_interaction": [
            model.predict(path).top(1)[0].label == path.parent.name
            for path in sorted((shared / "data" / "ut_interaction").glob("*/*.avi"))[::4]
        ],
        "fir_rgb": [
            model.predict(path).top(1)[0].label == MOVEMENTS[path.parent.name]
            for path in sorted((shared / "data" / "fir_rgb").glob("*/*.mp4"))[::8]
            if path.parent.name in MOVEMENTS
        ],
    }
    shares = {name: sum(named) / len(named) for name, named in right.items()}
    assert shares["ut_interaction"] > 0.95
    assert shares["fir_rgb"] > 0.85  # wrong labels and dark clips among them


def test_it_learns_one_place_and_knows_another(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "ut_interaction"
    with (folder / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    lines = ["path,label,split,sequence"]
    lines += [
        f"{folder / row['path']},{row['label']},{'train' if row['set'] == '1' else 'test'},{row['sequence']}"
        for row in rows
    ]
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "fewframes.cli", "train", "list.csv", "--output", "out", "--group", "sequence"]
    command += ["--cache", "cache"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "120 videos of 6 actions" in done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["num_videos"] == {"training": 60, "held_out": 60, "chosen_by": 0, "unread": 0}
    assert metrics["held_out"]["report"]["top1"] > 0.75
    again = subprocess.run(
        [*command, "--overwrite"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600
    )
    assert "120 from the cache" in again.stderr
