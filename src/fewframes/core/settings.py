"""Settings: frozen, typed, checked when made.

A run file (TOML) has the keys and tables of `RunConfig`. An unknown key is refused and the nearest one named.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from fewframes.errors import ConfigError, nearest

Task = Literal["single", "multilabel"]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]

Pixels = Annotated[int, Field(ge=1, le=8192)]
"""A side of a picture; more is a damaged file or a slip, and would fill the memory."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
MOST_FRAMES = 4096
"""Frames of one video that a network takes at once: 600 MB of pixels at 224 px."""
NumFrames = Annotated[int, Field(ge=1, le=MOST_FRAMES)]
MOST_SHOWN = 200
"""Characters of a wrong value that an error shows."""

STRICT = ConfigDict(extra="forbid", strict=True)


def cache_dir() -> Path:
    """Where downloads and cached frame embeddings go: $FEWFRAMES_CACHE, or fewframes in the user's cache folder."""
    if given := os.environ.get("FEWFRAMES_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fewframes"


T = TypeVar("T")


def settings_from(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """An instance of the settings class `cls` from plain values (TOML, JSON): lists become tuples.

    Raises ConfigError naming `where`, the field, its value and what it takes; an unknown key with the nearest known.
    """
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    unknown = next((key for key in values if key not in known), None)
    if unknown is not None:
        raise ConfigError(f"{where}: unknown setting {unknown!r}; {nearest(unknown, known)}")
    try:
        return TypeAdapter(cls).validate_json(json.dumps(values))
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """A pydantic error in one line: each field, its value and what it takes."""
    parts = []
    for problem in error.errors(include_url=False):
        name = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        given = repr(problem["input"])
        given = given if len(given) <= MOST_SHOWN else f"{given[:MOST_SHOWN]}..."
        parts.append(f"{name} = {given}: {message}" if name else message)
    return "; ".join(parts)
