"""Films of parts in which a colour reddens, turns blue or stays, and labelling sessions over them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from fewframes.core.cache import EmbeddingCache
from fewframes.inference.predictor import Predictor
from fewframes.label.session import Session

PART_S = 2
"""Seconds of each part of a film."""
FPS = 10
WINDOW_S = 1.0
"""Seconds of a window: four frames of the tiny model."""
CYCLE = ("redden", "none", "turn blue", "none")


def write_film(path: Path, parts: Sequence[str] = CYCLE, green: int = 60) -> Path:
    """Write a film with a part of each of these names: `redden`, `turn blue`, or another one, in which the colour stays."""
    red = float(next((part for part in parts if part != "none"), "") == "turn blue")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for part in parts:
            last = {"redden": 1.0, "turn blue": 0.0}.get(part, red)
            for share in np.linspace(red, last, PART_S * FPS):
                pixels = np.full((48, 64, 3), [255 * share, green, 255 * (1 - share)], dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            red = last
        container.mux(stream.encode())
    return path


def write_films(folder: Path, num: int, parts: Sequence[str] = CYCLE) -> Path:
    """Write films of different green into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(num):
        write_film(folder / f"film {number}.mp4", parts, green=40 + 15 * number)
    return folder


def opened(videos: Path, project: Path, predictor: Predictor, *merge: Path, model: Path | None = None) -> Session:
    """Open a session over the videos of a folder, and begin to embed them; the notes are thrown away."""
    session = Session.open(
        [str(videos)],
        project,
        predictor,
        model=str(model or ""),
        cache=EmbeddingCache(project.parent / "cache"),
        merge=merge,
        window_s=WINDOW_S,
    )
    session.start()
    return session


def label_parts(session: Session, parts: Sequence[str] = CYCLE, annotator: str = "ada") -> None:
    """Label every part of every film of a session."""
    for video in session.state().videos:
        for number, part in enumerate(parts):
            session.add(video.id, PART_S * number, PART_S * (number + 1), part, annotator)
