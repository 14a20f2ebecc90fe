"""Which videos a model has learned from, in few bytes each, so that an evaluation can say when it meets them again."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fewframes.data.layouts import Sample

SPOT_BYTES = 2**16
"""What is read at the start, in the middle and at the end of a file: enough to tell videos apart, little enough for any number."""
MARK_DIGITS = 12


def marks_of(samples: Iterable[Sample]) -> list[str]:
    """Return a mark of each video: of what its file holds, and of the seconds where it is a part of one."""
    return [
        _mark(sample.path) + ("" if _is_whole(sample) else f"@{sample.start_s:g}-{_end_s(sample):g}")
        for sample in samples
    ]


def num_known(samples: Sequence[Sample], marks: Iterable[str]) -> int:
    """Return how many of the videos overlap with one that has a mark among these."""
    parts: dict[str, list[tuple[float, float]]] = {}
    for text in marks:
        mark, _, seconds = text.partition("@")
        start_s, _, end_s = (seconds or "0-inf").partition("-")
        parts.setdefault(mark, []).append((float(start_s), float(end_s)))
    return sum(
        any(sample.start_s < end_s and start_s < _end_s(sample) for start_s, end_s in parts.get(_mark(sample.path), ()))
        for sample in samples
    )


def known_facts(samples: Sequence[Sample], provenance: Mapping[str, Any], fingerprint: str) -> dict[str, Any]:
    """Return from how many of the videos a model has learned (`num_trained_on`, None where it does not say), and whether it has
    from any, or from data of this fingerprint (`trained_on_these`)."""
    marks = provenance.get("training_videos")
    if marks is None:
        return {"num_trained_on": None, "trained_on_these": provenance.get("data_fingerprint") == fingerprint}
    count = num_known(samples, marks)
    return {"num_trained_on": count, "trained_on_these": count > 0}


def known_words(facts: Mapping[str, Any], num_videos: int) -> str:
    """Return the warning that a model has learned from the evaluated videos; empty where it has from none, or nobody knows."""
    if not facts["trained_on_these"]:
        return ""
    count = facts["num_trained_on"]
    which = "these data" if count is None else f"{count} of these {num_videos} videos"
    return f"The model was trained on {which}. It may simply know them: judge it on videos that were held out."


def _is_whole(sample: Sample) -> bool:
    return sample.start_s == 0 and sample.end_s is None


def _end_s(sample: Sample) -> float:
    return math.inf if sample.end_s is None else sample.end_s


def _mark(path: str) -> str:
    """Return a key of a file's size and some of its bytes, of a folder's names, and of the name of what is neither."""
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
