"""Short training runs by the command line."""

from __future__ import annotations

from pathlib import Path

TRAINING = ["--holdout", "0.34", "--unfreeze", "all", "--device", "cpu", "--dtype", "float32", "--no-cache"]
SETTINGS = {
    "train.epochs": 10, "train.min_steps": 1, "train.batch_size": 2, "train.workers": 0, "train.ema_decay": 0.9,
    "augment.auto": "imagenet", "augment.cutmix": 1.0, "model.temporal_dropout": 0.1,
}  # fmt: skip


def command(clips: Path, model: Path, output: Path, *more: str, **settings: object) -> list[str]:
    # `module` instead of `script` so that torchrun can start it too
    chosen = SETTINGS | {f"train.{name}": value for name, value in settings.items()}
    sets = [part for name, value in chosen.items() for part in ("--set", f"{name}={str(value).lower()}")]
    return ["fewframes.cli", "train", str(clips), "-o", str(output), "--model", str(model), *TRAINING, *sets, *more]
