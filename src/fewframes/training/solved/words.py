"""Start a solved read-out from words: the vectors of labels are added to what the examples say, as far as that helps.

The mean of the frames is the first of the moments, so a text vector is a part of the weights of the read-out. The model file is
that of any solved model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fewframes.models.files.model_file import ModelFile
from fewframes.models.moments import Floats
from fewframes.models.read_out.solve import GAINS, Loss, SolvedMoments

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""The shares of the text's own logits that are tried."""
UNMEASURED = (1.0, 5)
"""The share and the scale if no label has examples in two groups, so that nothing says which are good."""


def words_start(file: ModelFile, labels: tuple[str, ...], *, multilabel: bool) -> NDArray[np.float32] | None:
    """Return the weights of these labels (K, D) in a model that was made from words; None if it is another kind of model.

    Args:
        file: The model that the run starts from.
        labels: Names of the K labels of the run.
        multilabel: True if a video may have several labels. The text says which label fits best, not which are there.
    """
    words = Words.of(file)
    return None if multilabel or words is None or words.absent(labels) else words.rows(labels)


def absent_words(file: ModelFile, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the labels that a model made from words does not have; none for another kind of model."""
    words = Words.of(file)
    return () if words is None else words.absent(labels)


@dataclass(frozen=True, eq=False)
class Words:
    """The vectors of labels in words, kept with the examples of a model that started from them."""

    labels: tuple[str, ...]
    """The K labels."""
    vectors: NDArray[np.float32]
    """Their weights on the mean of the frames (K, D)."""

    @classmethod
    def of(cls, file: ModelFile) -> Words | None:
        """Return the words of a model that was made from words; None for another kind of model."""
        return cls(file.labels, file.tensors["head.weight"]) if "words" in file.provenance else None

    def renamed(self, names: Mapping[str, str]) -> Words:
        """Return the words under other names of labels. A name that has words keeps its own."""
        old = [names.get(label, label) for label in self.labels]
        own = [row for row, label in enumerate(self.labels) if old[row] == label]
        kept = {self.labels[row]: row for row in own}
        for row, label in enumerate(old):
            kept.setdefault(label, row)
        return Words(tuple(kept), self.vectors[list(kept.values())])

    def absent(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Return the labels that have no words."""
        return tuple(label for label in labels if label not in self.labels)

    def rows(self, labels: tuple[str, ...]) -> NDArray[np.float32]:
        """Return the vectors (K, D) of labels that all have words."""
        return self.vectors[[self.labels.index(label) for label in labels]]


def words_note(absent: tuple[str, ...], share: float) -> list[str]:
    """Return a note on labels without words, or on how much of the words was taken; none if nothing was.

    Args:
        absent: The labels without words, because of which no words were taken.
        share: The share of the text's own logits that was added.
    """
    if absent:
        return [
            f"{', '.join(absent)}: not among the words of the model that this run starts from, so all labels are learned from "
            "examples alone; make a model of these words first: fewframes words"
        ]
    return [f"{share:.0%} of what the words say was added"] * bool(share)


def with_words(
    solved: SolvedMoments,
    text_KD: NDArray[np.float32],
    embeddings_BVTD: Floats,
    targets_BK: Floats,
    groups_B: NDArray[np.integer],
    loss: Loss,
) -> SolvedMoments:
    """Return a read-out with as much of the text added as does best on left-out groups.

    The share of the text and the scale of the examples are chosen together.

    Args:
        solved: The read-out of the examples.
        text_KD: The weights of the labels' words.
        embeddings_BVTD: Frame embeddings of all videos.
        targets_BK: The targets of all videos.
        groups_B: The group of each video.
        loss: The loss of logits for targets.
    """
    text_NVK = embeddings_BVTD[solved.indices].mean(axis=2) @ text_KD.T
    return with_text(solved, text_KD, text_NVK, targets_BK, groups_B, loss)


def with_text(
    solved: SolvedMoments,
    text_KD: NDArray[np.float32],
    text_NVK: Floats,
    targets_BK: Floats,
    groups_B: NDArray[np.integer],
    loss: Loss,
) -> SolvedMoments:
    """Return a read-out with as much of the text added as does best, as `with_words` does, by the logits of the text.

    Args:
        solved: The read-out of the examples.
        text_KD: The weights of the labels' words.
        text_NVK: The products of these weights with the means of the frames, for each view of the videos that were left out.
        targets_BK: The targets of all videos.
        groups_B: The group of each video.
        loss: The loss of logits for targets.
    """
    raw_NVK = solved.left_out / solved.gain
    targets_NK = targets_BK[solved.indices]
    # With its only group left out, the examples know nothing of a label, so such videos say nothing about how good they are.
    num_groups_K = np.array([len(np.unique(groups_B[targets_B > 0])) for targets_B in targets_BK.T])
    rows = np.flatnonzero((targets_NK[:, num_groups_K > 1] > 0).any(axis=1))
    share, gain = UNMEASURED
    if len(rows):
        repeated = targets_NK[rows].repeat(text_NVK.shape[1], axis=0)

        def loss_of(choice: tuple[float, int]) -> float:
            logits_NVK = choice[0] * text_NVK[rows] + choice[1] * raw_NVK[rows]
            return loss(logits_NVK.reshape(len(repeated), -1), repeated)

        share, gain = min(((share, gain) for share in SHARES for gain in GAINS), key=loss_of)
    scaled = solved.divided(solved.gain / gain)
    weight_KP = scaled.weight.copy()
    weight_KP[:, : text_KD.shape[1]] += np.float32(share) * text_KD
    left_out = (scaled.left_out + share * text_NVK).astype(np.float32)
    return replace(scaled, weight=weight_KP, left_out=left_out, share_of_text=share)
