"""The protocol of judges of unknown videos, and how any judge is read from the arrays of a file."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fewframes.errors import ConfigError
from fewframes.models.moments import WindowMoments
from fewframes.models.rejection.phrases import PhraseJudge
from fewframes.models.rejection.rejection import HALVES, Array, Floats, Judgement, Rejection


class Judge(Protocol):
    """A judge of which videos show none of a model's actions."""

    @property
    def num_actions(self) -> int:
        """Return K, the number of actions."""

    def threshold(self, kept: float | None = None) -> float:
        """Return the value of `known` below which a video is unknown, such that this fraction of known videos is kept.

        None is the judge's own choice. Raises ConfigError for a fraction that it cannot keep.
        """

    def judge(self, embeddings_BTD: Floats) -> Judgement:
        """Judge videos by their frame embeddings (B, T, D)."""

    def judge_moments(self, moments: WindowMoments) -> Judgement:
        """Judge videos by the moments of their frame embeddings, which several models may share."""

    def reason(self, judgement: Judgement, row: int, labels: tuple[str, ...], *, unknown: bool) -> str:
        """Return the reason for the judgement on one video in plain words; an empty text for a known and familiar video."""

    def to_arrays(self) -> dict[str, Array]:
        """Return all arrays by name, as they are stored: whole numbers as they are, others as float32."""


def judge_of(arrays: Mapping[str, Array], num_actions: int, width: int | None = None) -> Judge:
    """Return the judge that `to_arrays` gave. Raises ConfigError if arrays are missing, unknown or do not fit together.

    Args:
        arrays: the arrays by name.
        num_actions: K of the model.
        width: D of the model's frame encoder, if it is known.
    """
    kind = PhraseJudge if "phrases" in arrays else Rejection
    return kind.from_arrays(arrays, num_actions, width)


def text_of(judge: Judge) -> str:
    """Return the arrays of a judge as text, for files that have no place for arrays."""
    stored = {
        name: np.ascontiguousarray(array.astype(np.float16) if name in HALVES else array)
        for name, array in judge.to_arrays().items()
    }
    return b64encode(save(stored)).decode("ascii")


def judge_in(text: str, num_actions: int, width: int) -> Judge:
    """Return the judge that `text_of` gave. Raises ConfigError if the text is damaged.

    Args:
        text: the text.
        num_actions: K of the model.
        width: D of the model's frame encoder.
    """
    try:
        stored = load(b64decode(text, validate=True))
    except (ValueError, SafetensorError) as error:
        raise ConfigError(f"its rejection is damaged ({type(error).__name__})") from None
    arrays = {name: array.astype(np.float32) if name in HALVES else array for name, array in stored.items()}
    return judge_of(arrays, num_actions, width)
