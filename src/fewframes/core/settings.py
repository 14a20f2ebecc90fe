"""The base of all settings classes: they are frozen and typed, and are checked when they are made.

A run file (TOML) has the keys and tables of `RunConfig`. An unknown key is an error that names the nearest known key.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from fewframes.errors import ConfigError, nearest

Task = Literal["single", "multilabel"]
"""The kind of labels: one action a video, or any number of them."""
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
"""A fraction below 1."""

Pixels = Annotated[int, Field(ge=1, le=8192)]
"""The side of a picture. A larger value is a mistake or a damaged file, and would fill the memory."""
MOST_STILL = 255
"""The largest change of brightness that there is."""
StillLevel = Annotated[float, Field(ge=0, le=MOST_STILL, allow_inf_nan=False)]
"""The largest change of brightness (0-255) up to which a frame shows nothing new. 0 is exact: the same pixels only."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
MOST_FRAMES = 4096
"""The most frames of one video that a network takes at once: 600 MB of pixels at 224 px."""
NumFrames = Annotated[int, Field(ge=1, le=MOST_FRAMES)]
MOST_SHOWN = 200
"""The most characters of a wrong value that an error message shows."""

STRICT = ConfigDict(extra="forbid", strict=True)
"""The pydantic configuration of all settings classes: no unknown keys, and no conversion of types."""


def cache_dir() -> Path:
    """Return the folder for downloads and cached frame embeddings.

    It is $FEWFRAMES_CACHE, or else `fewframes` in the user's cache folder.
    """
    if given := os.environ.get("FEWFRAMES_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fewframes"


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the values of a TOML file. Raises ConfigError if it cannot be read, or is no TOML."""
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise ConfigError(f"{path}: not TOML: {error}") from None


T = TypeVar("T")


def settings_from(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Make an instance of a settings class from plain values (TOML, JSON). Lists become tuples.

    Args:
        cls: the settings class.
        values: the value of each field; a field that is left out has its default.
        where: the file or table that the values come from, for the error message.

    Raises:
        ConfigError: a key is unknown (the message has the nearest known key), or a value is not allowed (the message has the
            field, its value and the values that are allowed).
    """
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    unknown = next((key for key in values if key not in known), None)
    if unknown is not None:
        raise ConfigError(f"{where}: unknown setting {unknown!r}; {nearest(unknown, known)}")
    try:
        # In strict mode pydantic turns lists into tuples only when it reads JSON.
        return TypeAdapter(cls).validate_json(json.dumps(values))
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """Return a pydantic error in one line: each field, its value, and the values that are allowed."""
    parts = []
    for problem in error.errors(include_url=False):
        name = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        given = repr(problem["input"])
        given = given if len(given) <= MOST_SHOWN else f"{given[:MOST_SHOWN]}..."
        parts.append(f"{name} = {given}: {message}" if name else message)
    return "; ".join(parts)
