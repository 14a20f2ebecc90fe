"""Options that several commands take, each written once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fewframes.cli.console import tell
from fewframes.errors import ConfigError, FewframesError

if TYPE_CHECKING:
    from fewframes.core.cache import EmbeddingCache

SourcesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Videos, folders, globs, URLs, a .txt file with one of these a line, or - to read such lines.",
    ),
]
FramesOption = Annotated[int | None, typer.Option(min=1, help="Frames to look at; default: the model's own.")]
StartOption = Annotated[float, typer.Option(min=0, help="Look from this second on.")]
EndOption = Annotated[float | None, typer.Option(min=0, help="Look up to this second; default: the end.")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Videos decoded at a time; default: one a core.")]
ModelOption = Annotated[str, typer.Option(help="A preset (see `fewframes models`) or a checkpoint file.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
DtypeOption = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="auto (measured here), float32, bfloat16, float16."),
]
EarlyExitOption = Annotated[
    str | None,
    typer.Option(
        metavar="auto|0-1",
        help="Stop looking at a video once the answer's confidence is this high; auto: as fitted by `train --early-exit`.",
        show_default=False,
    ),
]
BackendOption = Annotated[
    Literal["auto", "pyav", "torchcodec"],
    typer.Option(help="What decodes: auto (torchcodec on a GPU that can, else pyav), pyav, torchcodec."),
]
MergeOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Patches that look alike, so many of them, merged away in each block of a ViT.",
        show_default="the model's own, 0 unless trained otherwise",
    ),
]
ToleranceOption = Annotated[
    float,
    typer.Option(
        min=0,
        max=0.5,
        help="Move each moment by up to this share of the frames' spacing to where decoding is cheapest.",
    ),
]
DataArgument = Annotated[str, typer.Argument(metavar="FOLDER|LIST", help="Labelled videos, as for `train`.")]
TaskOption = Annotated[
    Literal["auto", "single", "multilabel"],
    typer.Option(help="One action a video, or any number of them (in one cell, parted by ;)."),
]
GroupOption = Annotated[str, typer.Option(help="Column of what must not be split (recording, person).")]
VideosOption = Annotated[str, typer.Option("--videos", help="Folder of the videos.")]
OfficialOption = Annotated[int, typer.Option(min=1, help="Which official split (UCF101, HMDB51).")]
CacheOption = Annotated[Path | None, typer.Option(help="Folder of frame embeddings; default: the user's cache.")]
NoCacheOption = Annotated[bool, typer.Option("--no-cache", help="Neither read nor keep frame embeddings.")]


def named_videos(sources: list[str]) -> list[str]:
    """Return every video that the sources stand for, in their order; at least one."""
    from fewframes.cli.sources import expand  # late: it loads torch

    named = list(expand(sources, note=tell))
    if not named:
        raise FewframesError("no videos were named; pass files, folders, globs, URLs or a list of them")
    num_distinct = len({os.path.normpath(path) if os.path.exists(path) else path for path in named})
    if num_distinct < len(named):  # an answer for each, as they were asked for
        tell(f"{len(named) - num_distinct} of {len(named)} videos are named again")
    return named


def embedding_cache(folder: Path | None, *, unused: bool) -> EmbeddingCache | None:
    """The frame embeddings in that folder, or in the user's cache; None where they are not to be used."""
    from fewframes.core.cache import EmbeddingCache  # late: it loads torch
    from fewframes.core.settings import cache_dir

    return None if unused else EmbeddingCache(folder or cache_dir() / "embeddings")


def frame_counts(text: str, option: str) -> tuple[int, ...]:
    """`4,8,16` as numbers."""
    try:
        counts = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        counts = (0,)
    if any(count < 1 for count in counts):
        raise typer.BadParameter(f"{option} {text!r}: needs numbers of frames, such as 4,8,16")
    return counts


def exit_at(text: str | None) -> bool | float:
    """`auto` or a confidence, as `Predictor.predict` takes it."""
    if text is None or text == "auto":
        return text is not None
    try:
        threshold = float(text)
    except ValueError:
        threshold = -1.0
    if not 0 < threshold <= 1:
        raise typer.BadParameter(f"--early-exit {text!r}: needs auto, or a confidence above 0 and up to 1, such as 0.9")
    return threshold


def make_folder(folder: Path) -> None:
    """The folder, before minutes of work and not after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: not a folder that can be written to ({error.strerror}); take another") from None
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"{folder}: not a folder that can be written to (no permission); take another")


def check_writable(path: Path, option: str) -> None:
    """That a file can be written, before minutes of work and not after; its folder is made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        was_there = path.exists()
        with path.open("ab"):
            pass
        if not was_there:
            path.unlink()
    except OSError as error:
        raise ConfigError(f"{option} {path}: cannot be written ({error.strerror or error}); take another") from None
