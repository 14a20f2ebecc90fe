"""Labels in words: how they are written, the sentences that stand for each, and the phrases that stand for everything else."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewframes.errors import ConfigError

TEMPLATES = ("{}", "a video of {}", "a photo of {}", "a frame of a video that shows {}")
"""The sentences that each phrasing is put into. A label's vector is the mean over all of them."""
BACKGROUND = (
    "an empty room",
    "an empty street",
    "a person standing still",
    "a person sitting",
    "a person walking",
    "people talking to each other",
    "a face in front of a camera",
    "a crowd of people",
    "a landscape",
    "a building",
    "a vehicle",
    "an animal",
    "a screen with text",
    "a close-up of an object",
    "a dark picture",
    "a blurred picture",
)
"""The phrases that stand for videos that show none of the labels, unless others are given."""
MOST_LABELS = 4096
SEPARATOR, NAMED, OR = ";", "=", "|"


@dataclass(frozen=True)
class WordLabel:
    """A label in words."""

    name: str
    """The name that answers have."""
    phrasings: tuple[str, ...]
    """The ways to say it, one or more."""

    def sentences(self) -> list[str]:
        """Return every phrasing in every template."""
        return [template.format(phrasing) for phrasing in self.phrasings for template in TEMPLATES]


def word_labels(labels: str | Sequence[str]) -> tuple[WordLabel, ...]:
    """Return the labels of a text, of a file, or of several texts.

    Each label is a phrase, `NAME=PHRASE`, or several phrasings of one label: `NAME=PHRASE|PHRASE`. In one text labels are separated
    by `;`. A text that is the path of a file stands for its lines, one label each.

    Raises ConfigError if there are none, or one of them is empty or given twice.
    """
    texts = _texts(labels)
    found = tuple(_label(text) for text in texts if text.strip())
    if not found:
        raise ConfigError(
            "labels: none were named; write phrases, such as 'a person opens a door; a person closes a door'"
        )
    if len(found) > MOST_LABELS:
        raise ConfigError(f"{len(found)} labels: needs at most {MOST_LABELS}")
    names = [label.name for label in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"label {twice!r} is named twice; write it once, with its phrasings: {twice}=PHRASE|PHRASE")
    return found


def phrases_of(phrases: str | Sequence[str]) -> tuple[str, ...]:
    """Return the phrases of a text, of a file, or of several texts, as labels are given. Raises ConfigError if there are none."""
    found = tuple(dict.fromkeys(phrase.strip() for phrase in _texts(phrases) if phrase.strip()))
    if not found:
        raise ConfigError("background: no phrases; write some, such as 'an empty room; a parked car', or leave it out")
    return found


def _texts(labels: str | Iterable[str]) -> list[str]:
    """Return the text of each label. Raises ConfigError for a file that is no text."""
    if not isinstance(labels, str):
        return list(labels)
    if SEPARATOR in labels or not os.path.isfile(labels):
        return labels.split(SEPARATOR)
    try:
        return Path(labels).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{labels}: cannot be read as lines of text ({error}); name a file with one label a line"
        ) from None


def _label(text: str) -> WordLabel:
    """Return the label of one text. Raises ConfigError if a part of it is empty."""
    name, named, rest = text.partition(NAMED)
    phrasings = tuple(part.strip() for part in (rest if named else text).split(OR))
    name = name.strip() if named else phrasings[0]
    if not name or not all(phrasings):
        raise ConfigError(f"label {text.strip()!r}: a part of it is empty; write PHRASE or NAME=PHRASE|PHRASE")
    return WordLabel(name, phrasings)
