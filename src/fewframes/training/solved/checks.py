"""Checks of a solved run: settings that it does not use, and data that it cannot be solved from."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from fewframes.data.config import DataConfig
from fewframes.data.dataset import VideoSet
from fewframes.errors import ConfigError, DataError
from fewframes.results import Failure
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.config import RunConfig, TrainConfig
from fewframes.training.solved.model import SOLVED_MODEL

MODEL_FIELDS = frozenset(
    "temporal_depth temporal_heads temporal_mlp_width temporal_positions token_dropout temporal_dropout drop_path".split()
) | frozenset(SOLVED_MODEL)
"""The fields of `ModelConfig` that a solved model has no use for."""
OWN = ("head", "seed", "boundaries", "spans_complete")
"""The fields of `TrainConfig` that a solved run uses."""
STEP_AUGMENTS = frozenset({"auto", "cutout", "mixup", "cutmix"})
"""The fields of `AugmentConfig` that only training in steps uses."""


def check_settings(run: RunConfig) -> None:
    """Raise ConfigError if a setting was changed that a solved read-out does not use. It names all of them."""
    unused = [f"train.{name}" for name in _changed(run.train, TrainConfig()) if name not in OWN]
    unused += [f"augment.{name}" for name in _changed(run.augment, AugmentConfig()) if name in STEP_AUGMENTS]
    unused += [f"model.{name}" for name in run.model if name in MODEL_FIELDS]
    if run.keep_temporal:
        unused.append("keep_temporal")
    if run.data.holdout not in (0, DataConfig().holdout):
        unused.append("data.holdout")
    if unused:
        raise ConfigError(
            f"head 'solved' does not use {', '.join(sorted(unused))}: nothing is trained in steps, and every group is left out in "
            "turn; leave these out, or take head 'trained'"
        )


def _changed(settings: Any, defaults: Any) -> list[str]:
    """Return the names of the fields that differ from their defaults."""
    before = asdict(defaults)
    return [name for name, value in asdict(settings).items() if value != before[name]]


def check_groups(data: VideoSet) -> None:
    """Raise DataError if there are fewer than two groups: the scale of the scores is chosen on groups that are left out."""
    groups = sorted(set(data.groups()))
    if len(groups) < 2:
        raise DataError(
            f"{data.name}: all {len(data.samples)} training videos that can be read belong to 1 group ({groups[0]!r}); solving "
            "needs 2, so that one can be left out: name more groups, or give the list no column of groups"
        )


def check_labels(labels: tuple[str, ...], read: VideoSet, failures: tuple[Failure, ...]) -> None:
    """Raise DataError if no training video of a label could be read."""
    absent = sorted(set(labels) - set(read.labels))
    if absent:
        first = f"; the first: {failures[0].error}" if failures else ""
        raise DataError(
            f"{read.name}: no training video of {', '.join(absent)} could be read ({len(failures)} failed{first}); mend them, or "
            "take the label out of the data"
        )


def notes_on_groups(read: VideoSet) -> list[str]:
    """Return notes on labels whose videos are all in one group. If that is left out, nothing is known of them."""
    groups = {
        (label, group) for sample, group in zip(read.samples, read.groups(), strict=True) for label in sample.labels
    }
    counts = Counter(label for label, _ in groups)
    alone = sorted(label for label, count in counts.items() if count == 1)
    if not alone:
        return []
    return [
        f"all videos of {', '.join(alone)} are in one group: with that left out nothing knows them, so the figure counts them as "
        "wrong; add videos of a second group"
    ]
