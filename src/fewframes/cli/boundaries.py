"""The last part of `fewframes train`: the detector of where actions begin and end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fewframes.cli.console import StageProgress, tell, tell_failures
from fewframes.errors import EXIT_SOME_FAILED, ConfigError, DataError, MissingDependency

if TYPE_CHECKING:
    from fewframes.core.cache import EmbeddingCache
    from fewframes.data.dataset import VideoSet
    from fewframes.runtime.protocol import DtypeName
    from fewframes.training.config import RunConfig


def check_boundaries(run: RunConfig) -> None:
    """Raise an error if boundaries are asked for and cannot be trained into a solved model, before minutes of work."""
    from fewframes.models.files.formats import format_of
    from fewframes.models.files.names import exported_in
    from fewframes.runtime.open import has_torch

    if run.train.boundaries != "on":
        return
    if not has_torch():
        raise MissingDependency("--boundaries needs torch, which is not installed; pip install 'fewframes[train]'")
    if format_of(exported_in(run.start)) is not None:
        raise ConfigError(
            f"--boundaries: {run.start} is an exported file, which has no place for them; start from a .safetensors model"
        )


def finish_with_boundaries(
    videos: VideoSet,
    output: Path,
    run: RunConfig,
    are_whole: bool,
    *,
    cache: EmbeddingCache | None,
    device: str,
    dtype: DtypeName,
) -> None:
    """Train the detector if it is wanted, and tell how to use the model. Ends with exit code 3 if videos could not be read.

    Args:
        videos: The labelled videos.
        output: The folder of the trained model.
        run: The settings of the run.
        are_whole: True if all videos could be read so far.
        cache: Where embeddings are cached.
        device: The device that embeds frames.
        dtype: The precision of the frame encoder.
    """
    are_whole &= _trained(videos, output, run, cache, device, dtype)
    tell(f"use it: fewframes predict VIDEO --model {output}")
    if not are_whole:
        raise typer.Exit(EXIT_SOME_FAILED)


def _trained(
    videos: VideoSet, output: Path, run: RunConfig, cache: EmbeddingCache | None, device: str, dtype: DtypeName
) -> bool:
    """Train the detector if it is asked for, or if parts of videos are labelled. Return False if videos could not be read."""
    from fewframes.data.dataset import has_spans
    from fewframes.models.files.model_file import MODEL_FILE
    from fewframes.runtime.open import has_torch

    is_wanted = run.train.boundaries == "on" or (run.train.boundaries == "auto" and has_spans(videos))
    if not is_wanted or not (output / MODEL_FILE).is_file():
        return True
    if not has_torch():
        tell("boundaries of actions were not trained: that needs torch; pip install 'fewframes[train]'")
        return True
    from fewframes.training.boundaries.train import train_boundaries

    try:
        with StageProgress() as progress:
            found = train_boundaries(
                videos, output, run, cache=cache, device=device, dtype=dtype, progress=progress.show
            )
    except (ConfigError, DataError) as error:
        if run.train.boundaries == "on":
            raise
        tell(f"boundaries of actions were not trained: {error}")  # nobody asked for them, and the model is there
        return True
    tell_failures(found.failures)
    tell(str(found))
    return not found.failures
