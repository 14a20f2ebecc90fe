"""Write the frame store of a video. Its frames are embedded at a steady rate, or come from the cache, and coded part by part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np

from fewframes.core.arguments import real_number
from fewframes.core.cache import EmbeddingCache, content_key, key_of
from fewframes.core.process import Progress
from fewframes.errors import ConfigError, MissingVideo, VideoError
from fewframes.inference.frame_features import FrameFeatures, features_key
from fewframes.inference.frame_store.quantise import CodedPart, code_part
from fewframes.inference.frame_store.store import (
    FrameStore,
    StoreInfo,
    is_frame_store,
    read_frame_store,
    save_frame_store,
)
from fewframes.inference.predictor import Predictor
from fewframes.runtime.protocol import Floats
from fewframes.sampling import steady_times
from fewframes.video.source import DEFAULT_FPS, STORE_SUFFIX, Source

RATE = 4.0
"""Frames a second. It is the rate at which `timeline` looks at videos by default: 16 frames in 4 s."""
MOST_RATE = 60.0
PART_FRAMES = 4096
"""The most frames that are coded together. Their steps and tables are 0.01 MB."""


def write_frame_store(
    predictor: Predictor,
    source: Source,
    path: str | os.PathLike[str],
    *,
    rate: float = RATE,
    still: float = 0.0,
    cache: EmbeddingCache | None = None,
    fps: float = DEFAULT_FPS,
    progress: Progress = lambda stage, done, total: None,
) -> FrameStore:
    """Write the embeddings of a video's frames to a small file, which takes the place of the video in `timeline`.

    A frame takes at most 444 bytes or so with the packaged model. The file gets its name once it is complete.

    Raises VideoError, OutputError, and ConfigError for a model that mixes frames inside its encoder.

    Args:
        predictor: The model.
        source: The video, as for `Predictor.predict`.
        path: The file, whose name ends in .frames.
        rate: Frames a second. A window of 16 frames lasts 16 / rate seconds, or a multiple of that.
        still: Level of the gate for frames that show nothing new; 0 is exact.
        cache: Where embeddings are cached, if anywhere.
        fps: Frame rate of inputs that have none of their own.
        progress: A callback.
    """
    check_can_store(predictor, rate, still)
    path = Path(path)
    if path.suffix != STORE_SUFFIX:
        raise ConfigError(f"{path}: a frame store needs a name that ends in {STORE_SUFFIX}")
    if is_frame_store(source):
        raise VideoError(f"{source}: is a frame store already; name the video")
    with closing(predictor.reader.open_video(source, fps=fps)) as video:
        times_s = np.asarray(steady_times(0.0, video.duration_s, 1 / rate))
        if not len(times_s):
            raise VideoError(
                f"{video.name}: {video.duration_s:.2f} s long, less than one frame at {rate:g} a second; take a higher rate"
            )
        setting = features_key(predictor, source, fps, "", "") if cache else ""
        features = FrameFeatures(video, predictor, 1 / rate, cache, setting, still)
        parts: list[tuple[int, CodedPart]] = []
        missing: list[int] = []
        progress("frames", 0, len(times_s))
        with closing(features.chunks(times_s)) as chunks:
            for embeddings_ND in _in_parts(chunks, len(times_s)):
                done = sum(num_frames for num_frames, _ in parts)
                missing += (done + np.flatnonzero(~np.isfinite(embeddings_ND).all(axis=1))).tolist()
                parts.append((len(embeddings_ND), code_part(_filled(embeddings_ND))))
                progress("frames", done + len(embeddings_ND), len(times_s))
        if len(missing) == len(times_s):
            raise VideoError(
                features.gaps[0].error
                if features.gaps
                else f"{video.name}: the embeddings of all frames are no numbers"
            )
        info = StoreInfo(
            source=os.path.basename(video.name),
            content=_content(source),
            duration_s=float(video.duration_s),
            rate=float(rate),
            num_frames=len(times_s),
            width=predictor.runtime.frame_width,
            model=os.path.basename(predictor.name),
            encoder=store_key(predictor),
            precision=predictor.runtime.precision,
            still=float(still),
            gaps=tuple(features.gaps),
        )
    save_frame_store(path, info, parts, missing)
    return FrameStore(os.fspath(path), info, parts, np.asarray(missing, np.int64))


def check_can_store(predictor: Predictor, rate: float, still: float) -> None:
    """Raise ConfigError for settings that no store can have, and for a model that mixes frames inside its encoder."""
    real_number("rate", rate, above=0, high=MOST_RATE)
    real_number("still", still, low=0, high=255)
    if not predictor.runtime.embeds_frames:
        raise ConfigError(
            f"{predictor.name} mixes frames inside its encoder, so no frame has an embedding of its own; use a model of the "
            "'factorised' layout"
        )


def is_current(path: Path, predictor: Predictor, source: str, rate: float, still: float) -> bool:
    """Return True if a file holds the store that `write_frame_store` would write, apart from the version that wrote it."""
    content = _content(source)
    if not content:
        return False
    try:
        info = read_frame_store(path).info
    except (MissingVideo, VideoError):  # it is written anew
        return False
    return (info.content, info.encoder, info.rate, info.still) == (content, store_key(predictor), rate, still)


def store_key(predictor: Predictor) -> str:
    """Return a key of the weights, precision and view of a model's frame encoder, whatever decodes the video."""
    return key_of(predictor.runtime.encoder_key(), asdict(predictor.runtime.view))


def _content(source: Source) -> str:
    """Return a hash of a file's content; empty for a source that is no file on this machine."""
    try:
        return content_key(os.fspath(source)) if isinstance(source, str | os.PathLike) else ""
    except OSError:
        return ""


def _in_parts(chunks: Iterator[Floats], num_frames: int) -> Iterator[Floats]:
    """Yield the rows of chunks in parts of at most `PART_FRAMES`, as even as can be."""
    num_parts = -(-num_frames // PART_FRAMES)
    sizes = [(number + 1) * num_frames // num_parts - number * num_frames // num_parts for number in range(num_parts)]
    held: list[Floats] = []
    for chunk_ND in chunks:
        held.append(chunk_ND)
        while sizes and sum(map(len, held)) >= sizes[0]:
            rows_ND = np.concatenate(held)
            yield rows_ND[: sizes[0]]
            held = [rows_ND[sizes.pop(0) :]]


def _filled(embeddings_ND: Floats) -> Floats:
    """Return embeddings with each missing row as the one before it, which costs nothing; zeros if none came before."""
    good_N = np.asarray(np.isfinite(embeddings_ND).all(axis=1))
    if good_N.all():
        return embeddings_ND
    last_N = np.maximum.accumulate(np.where(good_N, np.arange(len(embeddings_ND)), -1))
    filled_ND: Floats = np.where(last_N[:, None] >= 0, embeddings_ND[np.maximum(last_N, 0)], np.float32(0))
    return np.where(np.isfinite(filled_ND), filled_ND, np.float32(0))
