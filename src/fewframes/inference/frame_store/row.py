"""Read windows' frames from a frame store instead of a video."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fewframes.errors import ConfigError, VideoError
from fewframes.inference.frame_features import Gap, Indices, Times
from fewframes.inference.frame_store.store import FrameStore
from fewframes.inference.frame_store.write import store_key
from fewframes.inference.predictor import Predictor
from fewframes.runtime.protocol import Floats
from fewframes.sampling import centre_times
from fewframes.video.decode.packets import SAME_S
from fewframes.video.times import checked_range

FARTHEST = 1.5
"""The most by which the seconds between frames may differ from those asked for, as a factor."""


@dataclass(frozen=True, eq=False)
class StoredRow:
    """Frames of a store between two times, at a multiple of its own interval."""

    store: FrameStore
    range_s: tuple[float, float]
    """The start and end in seconds."""
    indices: Indices
    """The indices (N,) of the frames in the store, ascending."""
    interval_s: float
    """Seconds from one to the next."""
    num_encoded: int = 0
    """No frame of a store is encoded, and so none is reused."""
    num_reused: int = 0

    @property
    def duration_s(self) -> float:
        """Return the length of the video, in seconds."""
        return self.store.info.duration_s

    @property
    def times_s(self) -> Times:
        """Return the timestamps (N,) of the frames."""
        return self.store.times_s[self.indices]

    @property
    def num_missing(self) -> int:
        """Return the number of frames that could not be decoded when the store was written."""
        return int(np.isin(self.indices, self.store.missing).sum())

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Return the gaps that reach into the range."""
        start_s, end_s = self.range_s
        return tuple(gap for gap in self.store.info.gaps if gap.start_s < end_s and gap.end_s > start_s)

    def chunks(self) -> Iterator[Floats]:
        """Yield the embeddings (n, D) of the frames, NaN for those that could not be decoded."""
        return self.store.chunks(self.indices)


def stored_row(
    store: FrameStore, predictor: Predictor, interval_of: Callable[[float], float], start_s: float, end_s: float | None
) -> StoredRow:
    """Return the frames of a store that lie as far apart as windows of the model need, as nearly as its rate allows.

    Where less than a window lies in the range, the frames are the stored ones nearest to those of `predict`.

    Raises ConfigError for a model of another frame encoder, and for windows far from what the rate allows; VideoError for a range
    outside of the video.

    Args:
        store: The store.
        predictor: The model.
        interval_of: Returns the seconds between frames that are wanted for a part of this many seconds.
        start_s: The start of the range, in seconds.
        end_s: The end of the range; None is the end of the video.
    """
    info, num_frames = store.info, predictor.num_frames
    _check_encoder(store, predictor)
    try:
        start_s, end_s = checked_range(info.duration_s, start_s, end_s)
    except ValueError as error:
        raise VideoError(f"{store.path}: {error}") from None
    wanted_s = interval_of(end_s - start_s)
    step = max(1, round(wanted_s * info.rate))
    interval_s = step / info.rate
    if not 1 / FARTHEST <= interval_s / wanted_s <= FARTHEST:
        raise ConfigError(
            f"{store.path}: has {info.rate:g} frames a second, so windows of {num_frames} frames last {num_frames / info.rate:g} s "
            f"or more, and {wanted_s * num_frames:g} s were asked for; take longer windows, or write the store with --rate "
            f"{1 / wanted_s:g}"
        )
    times_s = store.times_s
    edge_s = interval_s / 2 - SAME_S
    whole = np.arange(step // 2, len(times_s), step)
    inside = whole[(times_s[whole] >= start_s + edge_s) & (times_s[whole] <= end_s - edge_s)]
    if len(inside) >= num_frames:
        return StoredRow(store, (start_s, end_s), inside, interval_s)
    centres_s = np.asarray(centre_times(info.duration_s, num_frames, start_s=start_s, end_s=end_s))
    nearest = np.clip(np.floor(centres_s * info.rate), 0, len(times_s) - 1).astype(np.int64)
    return StoredRow(store, (start_s, end_s), nearest, (end_s - start_s) / num_frames)


def _check_encoder(store: FrameStore, predictor: Predictor) -> None:
    """Raise ConfigError if the model has another frame encoder than the one that made the store."""
    info = store.info
    if info.encoder == store_key(predictor):
        return
    if info.precision != predictor.runtime.precision:
        raise ConfigError(
            f"{store.path}: its frames were embedded in {info.precision}, and {predictor.name} computes in "
            f"{predictor.runtime.precision}; take --dtype {info.precision}, or write the store again"
        )
    raise ConfigError(
        f"{store.path}: its frames were embedded by another frame encoder (that of {info.model!r}) than that of "
        f"{predictor.name!r}; take a model that was trained from the same encoder and left it as it was, or write the store again"
    )
