"""A judge that knows words alone: a video is unknown if a phrase for something else fits it better than every label does.

No video was learned from, so nothing is known of how many videos of the labels it keeps, nor of which places are unfamiliar.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from fewframes.errors import ConfigError
from fewframes.models.moments import WindowMoments
from fewframes.models.rejection.rejection import Array, Evidence, Floats, Judgement, check_names

EVEN = 0.5
"""The value of `known` at which the best label and the best of the other phrases fit a video equally well."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PhraseJudge:
    """A judge by phrases. Its arrays travel in the model file."""

    label_vectors: Array
    """The vector of each label (K, D), of length 1."""
    phrase_vectors: Array
    """The vector of each of the other phrases (N, D), of length 1."""
    scale: Array
    """The number that cosines are multiplied by, a single number (1,)."""
    phrases: Array
    """The phrases, one a line, in UTF-8 (bytes, uint8)."""

    @classmethod
    def of(
        cls, label_vectors_KD: Floats, phrase_vectors_ND: Floats, scale: float, phrases: tuple[str, ...]
    ) -> PhraseJudge:
        """Return the judge of these vectors and phrases."""
        return cls(
            label_vectors=np.asarray(label_vectors_KD, np.float32),
            phrase_vectors=np.asarray(phrase_vectors_ND, np.float32),
            scale=np.array([scale], np.float32),
            phrases=np.frombuffer("\n".join(phrases).encode(), np.uint8),
        )

    @property
    def num_actions(self) -> int:
        """Return K, the number of labels."""
        return len(self.label_vectors)

    def threshold(self, kept: float | None = None) -> float:
        """Return the value of `known` below which a video is unknown. Raises ConfigError for a fraction of videos to keep."""
        if kept is not None:
            raise ConfigError(
                f"unknown = {kept}: this model was made from words, so no video of its labels was ever seen, and what fraction of "
                "them is kept is not known; take auto or off, or learn from examples: fewframes train FOLDER --head solved"
            )
        return EVEN

    def judge(self, embeddings_BTD: Floats) -> Judgement:
        """Judge videos by their frame embeddings (B, T, D)."""
        cosines_BN = embeddings_BTD.mean(axis=1) @ np.concatenate([self.label_vectors, self.phrase_vectors]).T
        labels_B = cosines_BN[:, : self.num_actions].max(axis=1)
        phrases_B = cosines_BN[:, self.num_actions :].max(axis=1)
        known_B = 0.5 * (1 + np.tanh(0.5 * self.scale[0] * (labels_B - phrases_B)))
        nothing_B = np.zeros(len(known_B), np.bool_)
        evidence = Evidence(cosines_BN, np.empty((len(known_B), 0), np.float32))
        return Judgement(known=known_B.astype(np.float32), unfamiliar=nothing_B, evidence=evidence, still=nothing_B)

    def judge_moments(self, moments: WindowMoments) -> Judgement:
        """Judge videos by the moments of their frame embeddings, which several models may share."""
        return self.judge(moments.windows_BTD)

    def reason(self, judgement: Judgement, row: int, labels: tuple[str, ...], *, unknown: bool) -> str:
        """Return the phrase that fits an unknown video better than its labels do; an empty text for a known video."""
        if not unknown:
            return ""
        best = int(judgement.evidence.answers[row, len(labels) :].argmax())
        return f"more like {self.names[best]!r} than like any of its labels"

    @property
    def names(self) -> tuple[str, ...]:
        """Return the phrases."""
        return tuple(self.phrases.tobytes().decode().split("\n"))

    def to_arrays(self) -> dict[str, Array]:
        """Return all arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], num_actions: int, width: int | None = None) -> PhraseJudge:
        """Return the judge that `to_arrays` gave. Raises ConfigError if arrays are missing, unknown or do not fit together.

        Args:
            arrays: the arrays by name.
            num_actions: K of the model.
            width: D of the model's frame encoder, if it is known.
        """
        check_names(arrays, {field.name for field in fields(cls)})
        found = cls(**{name: np.asarray(array) for name, array in arrays.items()})
        width = found.label_vectors.shape[-1] if width is None else width
        try:
            num_phrases = len(found.names)
        except UnicodeDecodeError:
            raise ConfigError("its rejection is damaged (phrases that are no text)") from None
        shapes = {"label_vectors": (num_actions, width), "phrase_vectors": (num_phrases, width), "scale": (1,)}
        for name, shape in shapes.items():
            array = getattr(found, name)
            if array.shape != shape or not np.isfinite(array).all():
                raise ConfigError(
                    f"its rejection is damaged ({name} is of shape {array.shape}, not finite numbers {shape})"
                )
        return found
