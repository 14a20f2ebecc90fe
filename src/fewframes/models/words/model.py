"""The model that labels in words become: an image-text encoder, and a head whose weights are the vectors of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fewframes.errors import ConfigError
from fewframes.models.config import ModelConfig
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.rejection.phrases import PhraseJudge
from fewframes.models.stam import STAM
from fewframes.models.words.image_text import ImageText
from fewframes.models.words.phrases import BACKGROUND, TEMPLATES, WordLabel

NUM_FRAMES = 16
SAME = 0.95
"""The cosine of a phrase to a label from which the two say the same, so that the phrase cannot stand for something else."""


def words_checkpoint(
    labels: Sequence[WordLabel],
    encoder: ImageText,
    *,
    background: Sequence[str] = BACKGROUND,
    num_frames: int = NUM_FRAMES,
) -> Checkpoint:
    """Return the model whose labels are these words.

    Its video embedding is the mean of the frame embeddings, so it is blind to their order. Its logits are the products of that mean
    with the vector of each label, times the scale that the image-text model has learned. A video is unknown if one of the other
    phrases fits it better than every label does.

    Args:
        labels: the labels.
        encoder: the image-text model.
        background: the phrases that stand for everything else. Those that say the same as a label are left out.
        num_frames: T, the frames that are looked at.

    Raises:
        ConfigError: every phrase of the background says the same as a label.
    """
    vectors_KD = text_vectors(encoder, labels)
    others_ND = text_vectors(encoder, [WordLabel(phrase, (phrase,)) for phrase in background])
    kept = np.flatnonzero((others_ND @ vectors_KD.T).max(axis=1) < SAME).tolist()
    if not kept:
        raise ConfigError(
            f"background: each of {len(background)} phrases says the same as a label; name some that stand for something else"
        )
    model = _network(encoder, num_frames, len(labels))
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(encoder.scale * vectors_KD))
        model.head.bias.zero_()
    phrases = tuple(background[number] for number in kept)
    return Checkpoint(
        model=model.eval(),
        view=encoder.view,
        labels=tuple(label.name for label in labels),
        provenance={"words": _record(labels, encoder, phrases)},
        licences={"frame encoder": encoder.licence.line(encoder.name)},
        rejection=PhraseJudge.of(vectors_KD, others_ND[kept], encoder.scale, phrases),
    )


def frames_checkpoint(encoder: ImageText) -> Checkpoint:
    """Return a model that embeds frames by the image half of an image-text model, and whose one label says nothing.

    No text is embedded for it.
    """
    return Checkpoint(
        model=_network(encoder, NUM_FRAMES, 1).eval(),
        view=encoder.view,
        labels=("anything",),
        licences={"frame encoder": encoder.licence.line(encoder.name)},
    )


def _network(encoder: ImageText, num_frames: int, num_labels: int) -> STAM:
    config = ModelConfig(
        encoder=encoder.name,
        tower=encoder.tower,
        image_size=encoder.view.crop_px,
        temporal="mean",
        num_frames=num_frames,
        num_classes=num_labels,
    )
    return STAM(config, encoder.view, encoder.frame_encoder, encoder.frame_encoder.width)


def _record(labels: Sequence[WordLabel], encoder: ImageText, phrases: Sequence[str]) -> dict[str, Any]:
    """Return how the model was made, as plain values."""
    return {
        "encoder": encoder.name,
        "weights": encoder.weights,
        "labels": {label.name: list(label.phrasings) for label in labels},
        "templates": list(TEMPLATES),
        "background": list(phrases),
        "versions": {"open_clip_torch": version("open_clip_torch")},
    }


def text_vectors(encoder: ImageText, labels: Sequence[WordLabel]) -> NDArray[np.float32]:
    """Return the vector of each label: the mean over its sentences, divided by its length (K, D)."""
    means_KD = np.stack([encoder.embed_texts(label.sentences()).mean(axis=0) for label in labels])
    vectors_KD: NDArray[np.float32] = means_KD / np.linalg.norm(means_KD, axis=1, keepdims=True)
    return vectors_KD
