"""A long video in one sweep: each frame is encoded once, windows of several lengths slide over the embeddings, and what happens
comes out as scores over time and as spans.

Frames are taken at a steady rate and embedded chunk by chunk; each chunk is kept in the cache at once, so an interrupted sweep
goes on where it stopped, and other windows over the same moments encode nothing. Only the frames that a window still needs are
in memory.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from fewframes.core.arguments import check_time_range
from fewframes.core.cache import EmbeddingCache, content_key, key_of
from fewframes.core.settings import STRICT, Positive
from fewframes.core.text import for_csv
from fewframes.errors import ConfigError, VideoError
from fewframes.inference.frame_features import FrameFeatures, Gap, encoder_key
from fewframes.inference.predictor import Predictor
from fewframes.inference.spans import Span, most_over_time, subtitles, without_repeats
from fewframes.video.decode.packets import SAME_S
from fewframes.video.sampling import centre_times, steady_times, window_indices
from fewframes.video.source import DEFAULT_FPS, Source, range_in

HOPS = 8
"""Windows begun while one lasts."""
BACKGROUND = ("background", "none", "no action", "nothing")
"""Labels of a model that mean that none of its actions is seen: they have scores and no spans."""
STEEP, TINY = 8.0, 1e-6
LIVELY_SHARE = 0.9
"""Share of windows that change less than what a video's own changes are measured by."""
CSV_COLUMNS = ("source", "start_s", "end_s", "label", "confidence")

Progress = Callable[[str, int, int], None]
"""Told the stage, how many frames are done, of how many."""


@settings(frozen=True, kw_only=True, config=STRICT)
class TimelineConfig:
    """How a long video is looked at, and what counts as something that happens."""

    window_s: Positive = 4.0
    """Seconds of the shortest windows, each of the model's number of frames: about what an action lasts."""
    lengths: tuple[Annotated[int, Field(ge=1, le=16)], ...] = (1, 2)
    """Windows of so many times `window_s`, from the same frames: every second, every fourth of them."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Confidence from which something is said to happen (docs/guide/timeline.md says how it was chosen)."""
    temperature: Positive = 2.0
    """What logits are divided by before they become scores: windows need not begin and end with an action, as clips do."""
    still_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Where embeddings change less, within a window, than this share of what they do in the liveliest tenth of the windows,
    confidence falls away: where nothing moves nothing happens. 0 is for actions that are seen in one frame."""

    @model_validator(mode="after")
    def _from_one_up(self) -> TimelineConfig:
        if list(self.lengths) != sorted({1, *self.lengths}):
            raise ValueError(f"lengths {self.lengths}: needs ascending numbers, 1 the first")
        return self


DEFAULTS = TimelineConfig()


@dataclass(frozen=True, eq=False)
class WindowScores:
    """What the model says of windows of one length: window w looks at `starts_s[w]` (W,) up to `length_s` later, and its
    `logits` (W, K) are those of `predict` there, NaN where a frame could not be decoded. `changes` (W,) say how much the
    embeddings change from frame to frame, as a share of their size.

    Longer windows than the shortest, of every second frame or fewer, may begin or end just outside of the video."""

    length_s: float
    starts_s: Tensor
    logits: Tensor
    changes: Tensor


@dataclass(frozen=True, eq=False)
class Timeline:
    """What happens in a video between `start_s` and `end_s`.

    `scores` (N, K), in the order of `labels`, at the moments `times_s` (N,): the most confidence of the windows over a moment,
    so that a span stands where its label passes `threshold`; 0 in `gaps`. `spans` in the order of time. `windows`, of each
    length, are what all this was made of.
    Of the N frames `num_encoded` were encoded now and `num_missing` could not be decoded; the others came from the cache.
    """

    source: str
    duration_s: float
    start_s: float
    end_s: float
    labels: tuple[str, ...]
    threshold: float
    times_s: Tensor
    scores: Tensor
    spans: tuple[Span, ...]
    gaps: tuple[Gap, ...]
    windows: tuple[WindowScores, ...]
    num_encoded: int
    num_missing: int

    def to_dict(self) -> dict[str, object]:
        """Plain values, as `fewframes timeline --json` writes them; scores of the labels that have spans."""
        seen = {span.label for span in self.spans}
        return {
            "source": self.source,
            "duration_s": round(self.duration_s, 3),
            "start_s": round(self.start_s, 3),
            "end_s": round(self.end_s, 3),
            "threshold": self.threshold,
            "spans": [span.to_dict() for span in self.spans],
            "gaps": [gap.to_dict() for gap in self.gaps],
            "times_s": [round(time_s, 3) for time_s in self.times_s.tolist()],
            "scores": {
                label: [round(score, 3) for score in scores_N]
                for label, scores_N in zip(self.labels, self.scores.T.tolist(), strict=True)
                if label in seen
            },
        }

    def to_rows(self) -> list[dict[str, object]]:
        """One flat row for each span, for a data frame or CSV."""
        return [{"source": self.source, **span.to_dict()} for span in self.spans]

    def to_csv(self, *, header: bool = True) -> str:
        """`to_rows` as CSV."""
        file = io.StringIO()
        writer = csv.DictWriter(file, CSV_COLUMNS, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows({name: for_csv(cell) for name, cell in row.items()} for row in self.to_rows())
        return file.getvalue()

    def to_vtt(self) -> str:
        """The spans as subtitles (WebVTT), for any player."""
        return subtitles(self.spans)

    def __repr__(self) -> str:
        return f"Timeline({self.source!r}: {len(self.spans)} spans in {self.end_s - self.start_s:.1f} s)"


def sweep(
    predictor: Predictor,
    source: Source,
    config: TimelineConfig = DEFAULTS,
    *,
    cache: EmbeddingCache | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    fps: float = DEFAULT_FPS,
    progress: Progress = lambda stage, done, total: None,
) -> Timeline:
    """What happens when, from one look at each frame: (N frames, `num_frames` every `window_s`).

    A video, or part, that is shorter than `window_s` is one window, as for `predict`. What cannot be decoded is left out and
    named in `gaps`. Raises VideoError, also where nothing can be decoded, and ConfigError for a model that mixes frames
    inside its encoder.
    """

    def encode(windows_WTD: Tensor) -> Tensor:
        return torch.cat([predictor.encode_windows(windows_WTD).logits, _changes(windows_WTD)[:, None]], dim=1)

    hops = [max(1, predictor.config.num_frames * stride // HOPS) for stride in config.lengths]
    swept = look(
        predictor,
        source,
        encode,
        window_s=config.window_s,
        strides=config.lengths,
        hops=hops,
        cache=cache,
        start_s=start_s,
        end_s=end_s,
        fps=fps,
        progress=progress,
    )
    windows = tuple(
        WindowScores(length_s, starts_s, found_WK[:, :-1], found_WK[:, -1])
        for length_s, starts_s, found_WK in swept.windows
    )
    return _timeline(predictor, swept, windows, config)


@dataclass(frozen=True, eq=False)
class VideoScores:
    """One look at each frame of a video between `range_s`, at the moments `times_s` (N,), and what was found in windows over
    them: for each length that has any, seconds that it lasts, where they start (W,), and what was said of each (W, ...).

    What could not be decoded is named in `gaps` and NaN in its windows."""

    source: str
    duration_s: float
    range_s: tuple[float, float]
    times_s: Tensor
    windows: tuple[tuple[float, Tensor, Tensor], ...]
    gaps: tuple[Gap, ...]
    num_encoded: int
    num_missing: int

    def nothing_seen(self) -> VideoError:
        """What to say where no window has an answer."""
        return VideoError(self.gaps[0].error if self.gaps else f"{self.source}: the network's answers are no numbers")


def look(
    predictor: Predictor,
    source: Source,
    encode: Callable[[Tensor], Tensor],
    *,
    window_s: float,
    strides: Sequence[int] = (1,),
    hops: Sequence[int],
    cache: EmbeddingCache | None = None,
    encoder: str = "",
    content: str = "",
    start_s: float = 0.0,
    end_s: float | None = None,
    fps: float = DEFAULT_FPS,
    progress: Progress = lambda stage, done, total: None,
) -> VideoScores:
    """What `encode`, (W, T, D) -> (W, ...), says of the windows of a video, of which one begins every `hops` frames of each length.

    `encoder`, `content` (of a file): their keys, where they are at hand; those of large ones take a while. Raises VideoError, and
    ConfigError for a model that mixes frames inside its encoder.
    """
    if predictor.config.layout != "factorised":
        raise ConfigError(
            f"layout {predictor.config.layout!r} mixes frames inside the encoder, so none can be encoded once for all windows; "
            "take a model of the 'factorised' layout"
        )
    num_frames = predictor.config.num_frames
    check_time_range(start_s, end_s, fps)
    with closing(predictor.reader.open_video(source, fps=fps)) as video:
        start_s, end_s = range_in(video, start_s, end_s)
        grid = _grid(video.duration_s, start_s, end_s, window_s, num_frames)
        setting = _setting(predictor, source, fps, encoder, content) if cache else ""
        row = FrameFeatures(video, predictor, grid.spacing_s, cache, setting)

        def chunks(found: Iterator[Tensor]) -> Iterator[Tensor]:
            done = 0
            progress("frames", done, len(grid.times_s))
            for chunk_ND in found:
                done += len(chunk_ND)
                yield chunk_ND
                progress("frames", done, len(grid.times_s))

        parts: list[list[tuple[Tensor, Tensor]]] = [[] for _ in strides]
        with closing(row.chunks(grid.times_s, grid.first)) as read:  # whose thread ends before the video is closed
            for found in slide(chunks(read), encode, num_frames, strides, hops):
                for number, part in enumerate(found):
                    parts[number].extend([part] if len(part[0]) else [])
    windows = tuple(
        _placed(part, grid, stride, num_frames)
        for part, stride in zip(parts, strides, strict=True)
        if part  # a short video has no windows of the longer lengths
    )
    return VideoScores(
        video.name,
        video.duration_s,
        (start_s, end_s),
        grid.times_s,
        windows,
        tuple(row.gaps),
        row.num_encoded,
        row.num_missing,
    )


@dataclass(frozen=True, eq=False)
class _Grid:
    """The moments that are looked at: `times_s` (N,), `spacing_s` apart; the first is number `first` of the video's whole row,
    or 0 of one of its own."""

    times_s: Tensor
    spacing_s: float
    first: int


def _grid(duration_s: float, start_s: float, end_s: float, window_s: float, num_frames: int) -> _Grid:
    """The part of the whole video's row that lies inside, so that parts and the whole share what is cached; where that is
    less than a window, the moments of `predict`."""
    spacing_s = window_s / num_frames
    whole_s = steady_times(0.0, duration_s, spacing_s)
    edge_s = spacing_s / 2 - SAME_S
    inside = ((whole_s >= start_s + edge_s) & (whole_s <= end_s - edge_s)).nonzero()[:, 0]
    if len(inside) >= num_frames:
        return _Grid(whole_s[inside], spacing_s, int(inside[0]))
    return _Grid(centre_times(duration_s, num_frames, start_s=start_s, end_s=end_s), (end_s - start_s) / num_frames, 0)


def _setting(predictor: Predictor, source: Source, fps: float, encoder: str, content: str) -> str:
    """The cache's key of the content, the encoder and its view; empty for what is no file here."""
    if not isinstance(source, str | os.PathLike):
        return ""
    try:
        content = content or content_key(os.fspath(source))
    except OSError:
        return ""
    return key_of(
        content,
        encoder or encoder_key(predictor),
        {"steady": 1, "fps": fps},
    )


def slide(
    chunks: Iterable[Tensor],
    encode: Callable[[Tensor], Tensor],
    window_frames: int,
    strides: Sequence[int],
    hops: Sequence[int],
) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Windows over a row of embeddings that comes in chunks (n, D): after each chunk, and once after the last, for each stride
    the first places (W,) of the windows that have become whole and what `encode`, (W, T, D) -> (W, ...), says of them.

    A window begins every so many frames of the row as `hops` has for its stride; the last one ends with the row. Only the
    frames that are still needed are kept.
    """
    starts, first, held_ND = [0] * len(strides), 0, torch.empty(0)

    def whole(number: int, hop: int) -> tuple[Tensor, Tensor]:
        offset = starts[number] - first
        places_WT = window_indices(len(held_ND) - offset, window_frames, stride=strides[number], interval=hop) + offset
        starts[number] += len(places_WT) * hop
        return places_WT[:, 0] + first, encode(held_ND[places_WT]) if len(places_WT) else torch.empty(0)

    most_held = max((window_frames - 1) * stride + 1 for stride in strides)
    for chunk_ND in chunks:
        held_ND = torch.cat([held_ND, chunk_ND]) if len(held_ND) else chunk_ND
        yield [whole(number, hop) for number, hop in enumerate(hops)]
        done = len(held_ND) - max(most_held, len(held_ND) + first - min(starts))
        held_ND, first = held_ND[max(0, done) :], first + max(0, done)
    rest = []
    for number, stride in enumerate(strides):
        last = first + len(held_ND) - (window_frames - 1) * stride - 1
        is_left = last >= 0 and starts[number] - hops[number] < last
        starts[number] = last if is_left else starts[number]
        rest.append(whole(number, 1) if is_left else (torch.empty(0).long(), torch.empty(0)))
    yield rest


def _changes(windows_WTD: Tensor) -> Tensor:
    """How much each window changes (W,): the mean step from frame to frame as a share of the mean size; NaN for one frame."""
    steps_W = (windows_WTD[:, 1:] - windows_WTD[:, :-1]).norm(dim=-1).mean(dim=1)
    return steps_W / windows_WTD.norm(dim=-1).mean(dim=1).clamp(min=TINY)


def _placed(
    parts: list[tuple[Tensor, Tensor]], grid: _Grid, stride: int, window_frames: int
) -> tuple[float, Tensor, Tensor]:
    """All windows of one length: how long they last, where they start, and what was said of them."""
    places_W, found_W = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    # A frame stands for the `stride` parts around it, so that T of them are the centres of T equal parts of the window.
    starts_s = grid.times_s[places_W] - stride * grid.spacing_s / 2
    return window_frames * stride * grid.spacing_s, starts_s, found_W


def confidences(
    windows: Sequence[WindowScores], config: TimelineConfig, scores: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """How far each window of each length is to be trusted to show each action: (W, K) in 0-1, NaN where it could not be decoded.

    Softened scores, times a factor that is small where a window changes little for this video."""
    changes_W = windows[0].changes[~windows[0].changes.isnan()]
    lively = float(changes_W.quantile(LIVELY_SHARE)) if len(changes_W) else 0.0
    found = []
    for one in windows:
        scores_WK = scores(one.logits / config.temperature)
        if config.still_share and len(changes_W):
            scores_WK = scores_WK * ((one.changes / max(lively, TINY) - config.still_share) * STEEP).sigmoid()[:, None]
        found.append(scores_WK)
    return found


def spans_of(
    windows: Sequence[WindowScores],
    found: Sequence[Tensor],
    labels: Sequence[str],
    range_s: tuple[float, float],
    least: float,
) -> tuple[Span, ...]:
    """Windows that are sure enough of an action, of those that repeat each other the surest, in the order of time."""
    candidates = [
        Span(
            max(range_s[0], float(one.starts_s[place])),
            min(range_s[1], float(one.starts_s[place]) + one.length_s),
            labels[label],
            float(confidences_WK[place, label]),
        )
        for one, confidences_WK in zip(windows, found, strict=True)
        for place, label in (confidences_WK >= least).nonzero().tolist()
        if labels[label].casefold() not in BACKGROUND
    ]
    return tuple(sorted(without_repeats(candidates), key=lambda span: (span.start_s, span.end_s)))


def _timeline(
    predictor: Predictor, swept: VideoScores, windows: tuple[WindowScores, ...], config: TimelineConfig
) -> Timeline:
    """Scores and spans of what the windows said. Raises VideoError where nothing could be decoded."""
    if all(bool(one.logits.isnan().any(dim=-1).all()) for one in windows):
        raise swept.nothing_seen()
    found = confidences(windows, config, predictor.model.scores)
    scores_LNK = torch.stack(
        [
            most_over_time(confidences_WK, one.starts_s, one.length_s, swept.times_s)
            for one, confidences_WK in zip(windows, found, strict=True)
        ]
    )
    return Timeline(
        source=swept.source,
        duration_s=swept.duration_s,
        start_s=swept.range_s[0],
        end_s=swept.range_s[1],
        labels=predictor.labels,
        threshold=config.threshold,
        times_s=swept.times_s,
        scores=scores_LNK.amax(dim=0),
        spans=spans_of(windows, found, predictor.labels, swept.range_s, config.threshold),
        gaps=swept.gaps,
        windows=windows,
        num_encoded=swept.num_encoded,
        num_missing=swept.num_missing,
    )
