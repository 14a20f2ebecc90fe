"""Sessions of labelling over films that tests draw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fewframes.core.cache import EmbeddingCache
from fewframes.inference.predictor import Predictor
from fewframes.label.session import Session
from helpers.served import until


def opened(films: Path, project: Path, predictor: Predictor) -> Session:
    """A session over all films of a folder, whose embeddings are cached beside it."""
    videos = [str(path) for path in sorted(films.iterdir()) if path.suffix != ".cache"]
    cache = EmbeddingCache(films.parent / "embeddings")
    session = Session.open(videos, project, predictor, model=predictor.name, cache=cache, note=lambda words: None)
    session.start()
    return session


def ready(state: Callable[[], dict[str, Any]]) -> None:
    """Waits until every video is embedded."""
    until(lambda: all(video["status"] in ("ready", "failed") for video in state()["videos"]))
