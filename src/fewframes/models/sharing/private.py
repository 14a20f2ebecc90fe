"""Take out of a model file's header what is nobody else's business: the paths of the machine that it was trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fewframes.models.files.model_file import ModelFile

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)
"""An address, which may hold credentials."""
WHOLE_PATH = re.compile(r"(?:~|\.\.|[A-Za-z]:)?[/\\].*\S")
"""A text that is a path as a whole, blanks among it: from the root, from a home folder, from a drive, or from the folder above."""
PATH = re.compile(r"(?<![\w.)\]/\\-])(?:~|\.\.|[A-Za-z]:)?[/\\](?:[^\s'\"<>,;:()/\\]+[/\\])+[^\s'\"<>,;:()/\\]*")
"""A path inside a longer text, without blanks."""


def without_paths(file: ModelFile) -> tuple[ModelFile, tuple[str, ...]]:
    """Return a model file without the folders and addresses in its header, and the texts that were shortened.

    Of each path the last part is left, such as `list.csv`. Labels and numbers stay as they are. So do the marks of the training
    videos: short digests of the files, from which nobody can tell a video that they do not have.
    """
    header = {"provenance": file.provenance, "metrics": file.metrics, "licences": file.licences}
    whole = sorted({text for text in _texts(header) if WHOLE_PATH.fullmatch(text)}, key=len, reverse=True)
    found: dict[str, None] = {}

    def shortened(text: str) -> str:
        for path in whole:
            if path in text:
                found[path] = None
                text = text.replace(path, last_part(path))

        def short(match: re.Match[str]) -> str:
            own = match.group()
            scheme, is_address, _ = own.partition("://")
            # An address is shown without what may be secret in it.
            found[f"{scheme}://.../{last_part(own)}" if is_address else own] = None
            return last_part(own)

        return PATH.sub(short, ADDRESS.sub(short, text))

    cleaned = {name: _mapped(values, shortened) for name, values in header.items()}
    return replace(file, **cleaned), tuple(found)


def last_part(path: str) -> str:
    """Return the last part of a path or address, without what an address asks for."""
    parts = [part for part in re.split(r"[/\\]", path.split("?", maxsplit=1)[0].rstrip("/\\")) if part]
    return parts[-1] if parts else ""


def _texts(values: Any) -> list[str]:
    """Return all texts in plain values."""
    if isinstance(values, str):
        return [values]
    if isinstance(values, Mapping):
        return [text for value in values.values() for text in _texts(value)]
    return [text for value in values for text in _texts(value)] if isinstance(values, list | tuple) else []


def _mapped(values: Any, change: Any) -> Any:
    """Return plain values with every text changed; keys stay as they are."""
    if isinstance(values, str):
        return change(values)
    if isinstance(values, Mapping):
        return {key: _mapped(value, change) for key, value in values.items()}
    return [_mapped(value, change) for value in values] if isinstance(values, list | tuple) else values
