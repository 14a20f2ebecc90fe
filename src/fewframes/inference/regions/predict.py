"""Label the regions of a video, each by itself, from frames that are decoded once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fewframes.core.process import num_cores, worked_ahead
from fewframes.errors import FewframesError, VideoError
from fewframes.inference.clips import ClipRequest, DecodedClips
from fewframes.inference.predictor import Predictor, one_pass
from fewframes.results import Clip, Failure, Prediction
from fewframes.video.regions.frames import whole_pictures
from fewframes.video.regions.zone import Region, fit_region
from fewframes.video.source import DEFAULT_FPS, Source, range_in

LABELLED_TOGETHER = 16
"""The most regions whose clips go through the network together."""


def predict_regions(
    predictor: Predictor,
    source: Source,
    regions: Sequence[Region],
    *,
    num_frames: int | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    tolerance: float = 0.0,
    fps: float = DEFAULT_FPS,
) -> list[Prediction]:
    """Label each region of one video by itself. The frames are decoded once for all of them.

    A zone is looked at in the whole range; a track only while it is there, and one that is not there at all has no answer. The
    seconds of decoding are divided equally. Raises VideoError.

    Args:
        predictor: The model.
        source: The video, as for `Predictor.predict`; so are the arguments that are not listed here.
        regions: Zones, or tracks.
        num_frames: Frames to look at in each region.
        start_s, end_s: Seconds at which the part of the video begins and ends.
        tolerance: A fraction (0-0.5) of the interval between frames, by which timestamps may move; tracks do not use it.
        fps: Frame rate of inputs that have none of their own.
    """
    request = ClipRequest(one_pass(tolerance), predictor.frames_of(num_frames), start_s, end_s, fps)
    return _labelled(predictor, _read(predictor, source, regions, request, threads=0))


def predict_regions_many(
    predictor: Predictor,
    sources: Iterable[str | os.PathLike[str]],
    regions: Sequence[Region],
    *,
    num_frames: int | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    tolerance: float = 0.0,
    workers: int | None = None,
) -> Iterator[tuple[Prediction, ...] | Failure]:
    """Label the regions of many videos. Yield the answers of one video after the other; an unreadable video gives a `Failure`.

    The arguments are those of `predict_regions` and `Predictor.predict_many`.
    """
    request = ClipRequest(one_pass(tolerance), predictor.frames_of(num_frames), start_s, end_s)
    paths = (os.fspath(source) for source in sources)
    decoding = worked_ahead(
        paths, lambda source: _read(predictor, source, regions, request, threads=1), workers or num_cores()
    )
    with closing(decoding) as decoded:
        for source, done in decoded:
            try:
                if isinstance(done, FewframesError):
                    yield Failure.of(source, done)
                else:
                    yield tuple(_labelled(predictor, done))
            except VideoError as error:
                yield Failure.of(source, error)


def _labelled(predictor: Predictor, found: Sequence[tuple[Region, DecodedClips]]) -> list[Prediction]:
    """Label the clips of regions, several at a time."""
    predictions: list[Prediction] = []
    for first in range(0, len(found), LABELLED_TOGETHER):
        together = found[first : first + LABELLED_TOGETHER]
        answers = predictor.label_many([clips for _, clips in together])
        predictions += [
            replace(answer, zone=region.name) if region.kind == "zone" else replace(answer, track=region.name)
            for (region, _), answer in zip(together, answers, strict=True)
        ]
    return predictions


def _read(
    predictor: Predictor, source: Source, regions: Sequence[Region], request: ClipRequest, *, threads: int
) -> list[tuple[Region, DecodedClips]]:
    """Decode the clip of each region that is there. The frames of zones are those of the whole picture, cut out."""
    zones = tuple(region for region in regions if region.kind == "zone")
    tracks = [region for region in regions if region.kind == "track"]
    found: list[tuple[Region, DecodedClips]] = []
    if zones:
        read = replace(predictor.reader, regions=zones).read(source, request, threads=threads)
        found += zip(zones, _each(read.clips, read.decode_s, read.transform_s), strict=True)
    if tracks:
        found += _read_tracks(predictor, source, tracks, request, threads)
    return found


def _each(clips: Sequence[Clip], decode_s: float, transform_s: float) -> list[DecodedClips]:
    """Return each clip by itself, with its part of the seconds of all."""
    return [DecodedClips((clip,), decode_s / len(clips), transform_s / len(clips)) for clip in clips]


def _read_tracks(
    predictor: Predictor, source: Source, tracks: Sequence[Region], request: ClipRequest, threads: int
) -> list[tuple[Region, DecodedClips]]:
    """Decode the clip of each track that is there in the range: frames spread evenly over the seconds in which it is."""
    began, transform_s, view = time.perf_counter(), 0.0, predictor.reader.view
    with closing(predictor.reader.open_video(source, fps=request.fps, threads=threads)) as video:
        start_s, end_s = range_in(video, request.start_s, request.end_s)
        times = {
            number: times_within(stretches, request.num_frames).tolist()
            for number, track in enumerate(tracks)
            if (stretches := track.stretches(start_s, end_s))
        }
        wanting: dict[float, list[int]] = {}
        for number, times_s in times.items():
            for time_s in times_s:
                wanting.setdefault(time_s, []).append(number)
        squares: dict[int, list[NDArray[np.uint8]]] = {number: [] for number in times}
        shown: dict[int, list[float]] = {number: [] for number in times}
        whole: Clip | None = None
        for asked_s, whole in whole_pictures(video, np.array(sorted(wanting))):
            cutting = time.perf_counter()
            for time_s, frame_CHW, shown_s in zip(asked_s.tolist(), whole.frames, whole.times_s.tolist(), strict=True):
                for number in wanting[time_s]:
                    box = tracks[number].rectangle(time_s, *frame_CHW.shape[-2:])
                    squares[number].append(fit_region(frame_CHW, box, view))
                    shown[number].append(shown_s)
            transform_s += time.perf_counter() - cutting
    if whole is None:
        return []
    clips = [
        replace(whole, frames=np.stack(squares[number]), times_s=np.array(shown[number], np.float64))
        for number in times
    ]
    decode_s = time.perf_counter() - began - transform_s
    return list(zip([tracks[number] for number in times], _each(clips, decode_s, transform_s), strict=True))


def times_within(stretches: Sequence[tuple[float, float]], num_frames: int) -> NDArray[np.float64]:
    """Return the centres of equal parts of stretches that are joined: (T,) seconds, ascending."""
    lengths_s = np.array([end_s - start_s for start_s, end_s in stretches])
    ends_s = np.cumsum(lengths_s)
    along_T = (np.arange(num_frames) + 0.5) * ends_s[-1] / num_frames
    which_T = np.minimum(np.searchsorted(ends_s, along_T, side="right"), len(stretches) - 1)
    starts_s = np.array([start_s for start_s, _ in stretches])
    times_T: NDArray[np.float64] = starts_s[which_T] + along_T - (ends_s - lengths_s)[which_T]
    return times_T
