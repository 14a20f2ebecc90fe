"""Match the labels of data to those of a model by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewframes.data.dataset import VideoSet
from fewframes.errors import DataError, nearest
from fewframes.inference.predictor import Predictor
from fewframes.runtime.protocol import Floats


def targets_for(data: VideoSet, predictor: Predictor) -> Floats:
    """Return targets (B, K) in the order of the model's labels. Names are compared without case, and with _ for a space. Raises
    DataError if the model lacks a label, or differs from the data in how many actions a video may have."""
    if data.multilabel != (predictor.runtime.task == "multilabel"):
        kinds = {True: "any number of actions per video", False: "one action per video"}
        task = "multilabel" if data.multilabel else "single"
        raise DataError(
            f"{data.name}: the data have {kinds[data.multilabel]}, but the model names {kinds[not data.multilabel]}; use a model "
            f"trained with --task {task}"
        )
    targets_KB = np.zeros((len(predictor.labels), len(data.samples)), np.float32)
    indices = indices_of(data.labels, predictor.labels, f"{data.name}: the model")
    np.maximum.at(targets_KB, indices, data.multi_hot().T)  # two labels of the data may be one of the model
    return np.ascontiguousarray(targets_KB.T)


def indices_of(labels: Sequence[str], known: Sequence[str], whose: str) -> list[int]:
    """Return the index of each label among the known ones. Names are compared without case, and with _ for a space.

    Raises DataError if a label is not known; its text begins with `whose`, such as `teacher 'x'`.
    """
    index = {plain(label): number for number, label in enumerate(known)}
    unknown = [label for label in labels if plain(label) not in index]
    if unknown:
        raise DataError(
            f"{whose} has no {unknown[0]!r} ({len(unknown)} of {len(labels)} labels are unknown to it); "
            f"{nearest(unknown[0], known)}"
        )
    return [index[plain(label)] for label in labels]


def plain(label: str) -> str:
    """Return a label in the form in which names are compared: lower case, with single spaces and no underscores."""
    return " ".join(label.replace("_", " ").casefold().split())
