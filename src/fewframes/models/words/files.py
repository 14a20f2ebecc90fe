"""Model files that are made from words: written where they are asked for, or kept in the cache folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from fewframes.core.arguments import whole_number
from fewframes.core.cache import key_of
from fewframes.core.files import writing
from fewframes.core.settings import MOST_FRAMES, cache_dir
from fewframes.errors import ConfigError, WeightsError
from fewframes.models.config import CLIP
from fewframes.models.files.checkpoint import Checkpoint, save_checkpoint
from fewframes.models.files.model_file import ModelFile
from fewframes.models.words.encoders import DEFAULT_ENCODER
from fewframes.models.words.image_text import ImageText, encoder_source, open_image_text
from fewframes.models.words.model import NUM_FRAMES, words_checkpoint
from fewframes.models.words.phrases import BACKGROUND, TEMPLATES, phrases_of, word_labels

MOST_KEPT = 8
"""The models made from words that stay in the cache folder: those that were used last. Each holds its encoder."""


def words_model(
    labels: str | Sequence[str],
    output: str | os.PathLike[str],
    *,
    encoder: str = DEFAULT_ENCODER,
    weights: str | os.PathLike[str] | None = None,
    background: str | Sequence[str] = BACKGROUND,
    num_frames: int = NUM_FRAMES,
) -> Path:
    """Write a model whose labels are words, and return its path. `fewframes.load` takes it.

    Args:
        labels: The labels: one text, separated by `;`, or a text for each. `NAME=PHRASE|PHRASE` gives a label several phrasings.
        output: The file to write.
        encoder: The image-text encoder: a name such as `clip:ViT-B-16/openai`, or a folder.
        weights: A file with the encoder's weights; None fetches them by the name.
        background: The phrases that stand for videos that show none of the labels.
        num_frames: T, the frames that are looked at in a video.

    Raises:
        ConfigError: the labels, the background or the encoder's name are wrong.
        WeightsError: the weights cannot be fetched or read.
        MissingDependency: open_clip is not installed.
    """
    path = Path(output)
    checkpoint = _made(labels, encoder, weights, background, num_frames)
    with writing(path):
        save_checkpoint(path, checkpoint)
    return path


def kept_words_model(labels: str, encoder: str = DEFAULT_ENCODER) -> Path:
    """Return the model file of these labels in the cache folder. It is made if it is not there.

    The arguments and errors are those of `words_model`. Of the files that were used longest ago, only some stay.
    """
    named, source = word_labels(labels), encoder_source(encoder)
    key = key_of(*map(repr, named), source.name, *_stamps(encoder), *TEMPLATES, *BACKGROUND)
    path = cache_dir() / "words" / f"{key}.safetensors"
    if not path.is_file():
        words_model(labels, path, encoder=encoder)
    with suppress(OSError):  # a cache that cannot be written to serves what it has
        _keep_newest(path)
    return path


def _keep_newest(path: Path) -> None:
    """Mark a kept model as the one that was used last, and remove those that were used longest ago."""
    path.touch()
    by_use = sorted(path.parent.glob("*.safetensors"), key=lambda file: file.stat().st_mtime, reverse=True)
    for old in by_use[MOST_KEPT:]:
        old.unlink(missing_ok=True)


def encoder_of(file: ModelFile, name: str, encoder: str | None = None) -> ImageText:
    """Return the image-text model whose image half a model has as its frame encoder.

    Args:
        file: The content of the model file.
        name: Its name or path, for errors.
        encoder: The name or folder of the image-text model; None is the one that the model was made with.

    Raises:
        ConfigError: the model has no image half of an image-text model.
        WeightsError: the image-text model cannot be opened, or has other weights than the model.
    """
    if file.config.tower is None:
        raise ConfigError(
            f"{name} knows no words: its frame encoder is {file.config.encoder!r}, which learned from pictures alone; make a model "
            "that does (fewframes words LABELS -o FILE), and use that"
        )
    facts = file.provenance
    record = facts.get("words") or facts.get("encoder") or facts.get("started_from", {}).get("text_encoder", {})
    found = known_encoder(file.config.encoder, str(record.get("weights", "")), encoder)
    for key, tensor in found.frame_encoder.state_dict().items():
        own = file.tensors.get(f"frame_encoder.{key}")
        if own is None or not np.array_equal(own, tensor.numpy()):
            raise WeightsError(
                f"{found.name}: its image half has other weights than the frame encoder of {name} ({file.config.encoder}), so its "
                "words cannot be compared with that model's frames; name the encoder that the model was made with: --encoder"
            )
    return found


def known_encoder(name: str, weights: str, encoder: str | None = None) -> ImageText:
    """Return an image-text model that was used before. Raises WeightsError if it is not where it was, and as `open_image_text`.

    Args:
        name: Its name, `clip:ARCHITECTURE/TAG` or `clip:` and the name of a folder.
        weights: The file or folder of its weights; empty if they are fetched by its name.
        encoder: The name or folder where it is now; None is where it was.
    """
    if encoder is not None or not weights:
        return open_image_text(encoder or name)
    if os.path.isdir(weights):
        return open_image_text(weights)
    if not os.path.isfile(weights):
        raise WeightsError(
            f"{weights}: the image-text encoder {name} was read from there, and there is nothing now; say where it is: --encoder "
            "NAME|FOLDER"
        )
    return open_image_text(name, weights)


def _made(
    labels: str | Sequence[str],
    encoder: str,
    weights: str | os.PathLike[str] | None,
    background: str | Sequence[str],
    num_frames: int,
) -> Checkpoint:
    """Return the model of words. The arguments are those of `words_model`."""
    named = word_labels(labels)
    phrases = phrases_of(background)
    num_frames = whole_number("num_frames", num_frames, 1, MOST_FRAMES)
    return words_checkpoint(named, open_image_text(encoder, weights), background=phrases, num_frames=num_frames)


def _stamps(encoder: str) -> list[str]:
    """Return a text for each file of an encoder in a folder that changes if the file does; none for an encoder by name."""
    folder = Path(encoder.removeprefix(CLIP))
    if not folder.is_dir():
        return []
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
