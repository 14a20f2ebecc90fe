"""Recognise the videos that a model was trained on, by a short key of each, so that an evaluation can warn of them."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fewframes.core.text import count_of
from fewframes.data.layouts import Sample

SPOT_BYTES = 2**16
"""The number of bytes read at the start, in the middle and at the end of a file: enough to tell videos apart, and little enough for
any number of files."""
TEXT_ENCODER = ("encoder", "weights")
"""The parts of the record of a model made from words that say which image-text model its frame encoder is a half of."""
MARK_DIGITS = 12
"""The number of hexadecimal digits in a key."""


def marks_of(samples: Iterable[Sample]) -> list[str]:
    """Return a key of each video: a digest of its file, and `@start-end` in seconds if it is a part of one."""
    return [
        _digest(sample.path) + ("" if _is_whole(sample) else f"@{sample.start_s:g}-{_end_s(sample):g}")
        for sample in samples
    ]


def content_of(sample: Sample) -> str:
    """Return a key of the bytes and the range of a video, the same wherever the file lies; empty if there is no local file.

    Embeddings are cached under it. Videos behind a URL are not cached. A missing file fails later, where it is read.
    """
    from fewframes.core.cache import content_key, key_of  # late: today it loads torch

    try:
        content = content_key(sample.path)
    except OSError:
        return ""
    return key_of(content, {"start_s": sample.start_s, "end_s": sample.end_s})


def num_known(samples: Sequence[Sample], marks: Iterable[str]) -> int:
    """Return how many of the videos overlap in time with one whose key is among `marks`."""
    ranges: dict[str, list[tuple[float, float]]] = {}
    for mark in marks:
        digest, _, seconds = mark.partition("@")
        start_s, _, end_s = (seconds or "0-inf").partition("-")
        ranges.setdefault(digest, []).append((float(start_s), float(end_s)))
    return sum(
        any(
            sample.start_s < end_s and start_s < _end_s(sample)
            for start_s, end_s in ranges.get(_digest(sample.path), ())
        )
        for sample in samples
    )


def lineage(name: str, provenance: Mapping[str, Any], kept: Sequence[str]) -> dict[str, Any]:
    """Return the record of the model that a new one starts from, for the new one's provenance.

    Args:
        name: its name.
        provenance: its own record of how it was made.
        kept: the parts that the new model takes over: "frame encoder", "temporal encoder".

    Returns:
        Its name, data and kept parts, `encoder_learned` (True if its frame encoder was trained on videos), and `training_videos`:
        the keys of the videos that a kept part may have learned from. If its frame encoder is the image half of an image-text
        model, `text_encoder` says which one, and where its weights were.
    """
    earlier = provenance.get("started_from", {})
    learned = provenance.get("run", {}).get("train", {}).get("unfreeze", "none") != "none"
    encoder_learned = learned or bool(earlier.get("encoder_learned", False))
    knows_videos = "temporal encoder" in kept or encoder_learned
    text = provenance.get("words") or _pulled(provenance.get("encoder", {})) or earlier.get("text_encoder")
    marks = [*(provenance.get("training_videos") or []), *earlier.get("training_videos", [])] if knows_videos else []
    return {
        "model": name,
        "kept": list(kept),
        **{key: provenance[key] for key in ("source", "data", "data_fingerprint") if key in provenance},
        "encoder_learned": encoder_learned,
        **({"text_encoder": {part: text[part] for part in TEXT_ENCODER if part in text}} if text else {}),
        "training_videos": list(dict.fromkeys(marks)),
    }


def _pulled(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of an image-text model that was pulled, as `text_encoder` has it; empty for other frame encoders."""
    name = str(record.get("name", ""))
    return {"encoder": name, "weights": record.get("weights", "")} if name.startswith("clip:") else {}


def without_marks(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's record without the keys of videos, which only a program can read."""
    facts = {name: fact for name, fact in provenance.items() if name != "training_videos"}
    if "started_from" in facts:
        facts["started_from"] = without_marks(facts["started_from"])
    return facts


def known_facts(samples: Sequence[Sample], provenance: Mapping[str, Any], fingerprint: str) -> dict[str, Any]:
    """Return what a model's provenance tells of its training on these videos.

    Args:
        samples: The videos of an evaluation.
        provenance: The record in the model's file of how it was made.
        fingerprint: The fingerprint of the evaluated data.

    Returns:
        `num_trained_on`: the number of these videos that the model was trained on, or a part of it that it took over from another
            model; None if its file does not name them.
        `trained_on_these`: True if that is any, or if the model was trained on data of this fingerprint.
    """
    marks = provenance.get("training_videos")
    earlier = provenance.get("started_from", {}).get("training_videos", [])
    if marks is None:
        return {"num_trained_on": None, "trained_on_these": provenance.get("data_fingerprint") == fingerprint}
    count = num_known(samples, [*marks, *earlier])
    return {"num_trained_on": count, "trained_on_these": count > 0}


def known_words(facts: Mapping[str, Any], num_videos: int) -> str:
    """Return a warning if a model was trained on the evaluated videos; empty if it was not, or if that is unknown."""
    if not facts["trained_on_these"]:
        return ""
    count = facts["num_trained_on"]
    which = "these data" if count is None else f"{count} of {count_of(num_videos, 'video')}"
    return f"The model was trained on {which}. It may simply know them: evaluate it on videos that were held out."


def _is_whole(sample: Sample) -> bool:
    return sample.start_s == 0 and sample.end_s is None


def _end_s(sample: Sample) -> float:
    return math.inf if sample.end_s is None else sample.end_s


def _digest(path: str) -> str:
    """Return a digest of a file's size and some of its bytes, of the names and sizes in a folder, or else of the path itself."""
    digest = hashlib.blake2b(digest_size=MARK_DIGITS // 2)
    try:
        if os.path.isdir(path):
            for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
                digest.update(f"{entry.name} {entry.stat().st_size}\n".encode(errors="surrogateescape"))
        else:
            size_bytes = os.path.getsize(path)
            digest.update(str(size_bytes).encode())
            with open(path, "rb") as file:
                for start in (0, size_bytes // 2, max(0, size_bytes - SPOT_BYTES)):
                    file.seek(start)
                    digest.update(file.read(SPOT_BYTES))
    except OSError:  # an address, or a file that cannot be read now
        digest.update(path.encode(errors="surrogateescape"))
    return digest.hexdigest()
