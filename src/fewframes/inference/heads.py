"""Several models in one pass: each video is decoded once, each frame is encoded once, and every model answers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fewframes.core.cache import EmbeddingCache
from fewframes.core.process import Progress, num_cores, worked_ahead
from fewframes.errors import ConfigError, FewframesError, VideoError, nearest
from fewframes.inference.clips import BackendChoice, ClipRequest, DecodedClips
from fewframes.inference.predictor import Predictor, one_pass
from fewframes.inference.timeline import DEFAULTS, Timeline, TimelineConfig, sweep_models
from fewframes.inference.unknowns import UnknownChoice, known_windows
from fewframes.models.files.names import models_in
from fewframes.models.moments import WindowMoments
from fewframes.results import Failure, Prediction, Timing
from fewframes.runtime.heads.shared import SharedHeads, open_heads
from fewframes.runtime.onnx_file import WINDOWS_AT_ONCE
from fewframes.runtime.open import RuntimeName
from fewframes.runtime.protocol import DtypeName, Floats, Runtime
from fewframes.video.decode.container import NO_LIMITS, Limits
from fewframes.video.live_settings import StreamConfig
from fewframes.video.source import DEFAULT_FPS, Source

if TYPE_CHECKING:
    from fewframes.inference.live.feed import OnEvent
    from fewframes.inference.live.model import EmbeddingRing, Judged
    from fewframes.inference.live.region import LiveRegion
    from fewframes.inference.promise import AlarmPromise
    from fewframes.inference.stream import Stream
    from fewframes.video.live_source import LiveSource


class Heads:
    """Several models over one frame encoder. Each result has the name of its model, in the order of the models.

    Answers are those of each model alone, up to rounding (less than 1e-5 of a score).
    """

    def __init__(
        self,
        shared: SharedHeads,
        *,
        backend: BackendChoice = "auto",
        unknown: UnknownChoice = "auto",
        limits: Limits = NO_LIMITS,
        runtime: Runtime | None = None,
    ) -> None:
        """Make predictors of models that share a frame encoder.

        Args:
            shared: The models.
            backend: The decoder, as for `Predictor`; so are `unknown` and `limits`.
            unknown: When an answer is `unknown`.
            limits: The largest videos that are read.
            runtime: A runtime that embeds frames in place of the models' own; a server's embeds those of several requests together.
        """
        self.shared = shared
        self.runtime = shared.runtimes[0] if runtime is None else runtime
        """The runtime that embeds frames."""
        self.predictors = tuple(
            Predictor(model, backend=backend, limits=limits, unknown=unknown) for model in shared.runtimes
        )
        """A predictor for each model, which answers alone."""
        self._unknown = unknown
        self._reading = Predictor(self.runtime, backend=backend, limits=limits, unknown="off")
        self.reader = self._reading.reader
        """The reader of videos."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the names of the models: what each is loaded by alone."""
        return tuple(predictor.name for predictor in self.predictors)

    @property
    def num_frames(self) -> int:
        """Return T, the number of frames that the models look at."""
        return self._reading.num_frames

    def __len__(self) -> int:
        return len(self.predictors)

    def __getitem__(self, name: str) -> Predictor:
        """Return the predictor of one model. Raises ConfigError if there is no model of that name."""
        if name not in self.names:
            raise ConfigError(f"no model {name!r}; {nearest(name, self.names)}")
        return self.predictors[self.names.index(name)]

    def __repr__(self) -> str:
        return f"Heads({len(self)} models, {self.runtime.kind} on {self.runtime.device}, {self.runtime.precision})"

    def with_runtime(self, runtime: Runtime, limits: Limits = NO_LIMITS) -> Heads:
        """Return the same models with another runtime that embeds frames, and that reads videos up to these limits."""
        return Heads(self.shared, backend=self.reader.backend, unknown=self._unknown, limits=limits, runtime=runtime)

    def predict(
        self,
        source: Source,
        *,
        num_frames: int | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
        tolerance: float = 0.0,
        fps: float = DEFAULT_FPS,
    ) -> tuple[Prediction, ...]:
        """Label one video, or the part of it between two times, by each model. The arguments are those of `Predictor.predict`.

        Raises VideoError.
        """
        frames = self._reading.frames_of(num_frames)
        request = ClipRequest(one_pass(tolerance), frames, start_s, end_s, fps)
        return self.label(self.reader.read(source, request, threads=0))

    def predict_many(
        self,
        sources: Iterable[str | os.PathLike[str]],
        *,
        num_frames: int | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
        tolerance: float = 0.0,
        workers: int | None = None,
    ) -> Iterator[tuple[Prediction, ...] | Failure]:
        """Label many videos by each model. Yields the predictions of one video after the other, in the order of the sources.

        An unreadable video gives one `Failure`. The arguments are those of `Predictor.predict_many`.
        """
        frames = self._reading.frames_of(num_frames)
        request = ClipRequest(one_pass(tolerance), frames, start_s, end_s)
        paths = (os.fspath(source) for source in sources)
        decoding = worked_ahead(
            paths, lambda source: self.reader.read(source, request, threads=1), workers or num_cores(), None
        )
        with closing(decoding) as decoded:
            for source, done in decoded:
                try:
                    if isinstance(done, FewframesError):
                        yield Failure.of(source, done)
                    else:
                        yield self.label(done)
                except VideoError as error:
                    yield Failure.of(source, error)

    def label(self, video: DecodedClips) -> tuple[Prediction, ...]:
        """Label a decoded video by each model; of several views, the first one. Raises VideoError where answers are no numbers."""
        began = time.perf_counter()
        clip = video.clips[0]
        moments = WindowMoments(self.runtime.encode_clips(clip.frames[None]))
        embeddings_1TD = moments.windows_BTD
        encoded = self.shared.encode_windows(moments, with_attention=True)
        nothing = Timing(0.0, 0.0, 0.0)
        predictions = []
        for predictor, encoding in zip(self.predictors, encoded, strict=True):
            rule = predictor.unknown_rule
            known = None if rule is None else rule.familiarity_of(moments)[0]
            predictions.append(predictor.prediction(clip, embeddings_1TD[0], encoding, nothing, known))
        timing = Timing(video.decode_s, video.transform_s, time.perf_counter() - began)
        return tuple(
            replace(prediction, timing=timing, model=name)
            for name, prediction in zip(self.names, predictions, strict=True)
        )

    def timeline(
        self,
        source: Source,
        config: TimelineConfig = DEFAULTS,
        *,
        cache: EmbeddingCache | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
        fps: float = DEFAULT_FPS,
        progress: Progress = lambda stage, done, total: None,
    ) -> tuple[Timeline, ...]:
        """Detect action spans in a long video by each model, by its detector if it has one, or by windows of its own length.

        Frames are read once, as near to each other as the model needs that needs the nearest. It answers as alone; so does each
        model that needs frames at the same interval. Others look at the nearest ones of these frames. The arguments are those of
        `fewframes.timeline`. Raises VideoError.
        """

        def encode(numbers: Sequence[int], windows_WTD: Floats) -> list[Floats]:
            pieces = range(0, len(windows_WTD), WINDOWS_AT_ONCE)
            parts = [self._findings(numbers, windows_WTD[first : first + WINDOWS_AT_ONCE]) for first in pieces]
            return parts[0] if len(parts) == 1 else [np.concatenate(part) for part in zip(*parts, strict=True)]

        timelines = sweep_models(
            self._reading, self.predictors, source, encode, config, cache, start_s, end_s, fps, progress
        )
        return tuple(replace(found, model=name) for name, found in zip(self.names, timelines, strict=True))

    def _findings(self, numbers: Sequence[int], windows_WTD: Floats) -> list[Floats]:
        """Return the logits (W, K) of some models, and how likely each window shows one of their actions (W, 1)."""
        moments, asked = WindowMoments(windows_WTD), [self.predictors[number] for number in numbers]
        return [
            found
            for predictor, encoding in zip(asked, self.shared.encode_windows(moments, numbers), strict=True)
            for found in (encoding.logits, known_windows(predictor.unknown_rule, moments)[:, None])
        ]

    def stream(
        self,
        source: LiveSource,
        config: StreamConfig | None = None,
        *,
        on_event: OnEvent | None = None,
        promises: Mapping[str, AlarmPromise] | None = None,
    ) -> Stream:
        """Label a live source by each model. At each time there is an answer of every model, one after the other.

        With `promises`, by the names of models, these models raise alarms. The other arguments are those of `Predictor.stream`.
        """
        from fewframes.inference.stream import Stream  # late, because only streams need it

        config = config or StreamConfig()
        return Stream(self, source, config, promises or {}, on_event)

    def live_region(
        self, config: StreamConfig, promises: Mapping[str, AlarmPromise] | None = None, row: int | None = None
    ) -> LiveRegion:
        """Return what watches one region of a live source by each model. The arguments are those of `stream` and `LiveRegion`."""
        from fewframes.inference.live.model import StreamModel
        from fewframes.inference.live.region import LiveRegion

        if config.memory != "window":
            raise ConfigError(
                f"memory {config.memory!r}: several models answer about the same window; take memory 'window', or one model"
            )
        promises = promises or {}
        models = [
            StreamModel(predictor.runtime, config, predictor.unknown_rule, promises.get(predictor.name), predictor.name)
            for predictor in self.predictors
        ]
        return LiveRegion(models, self._judged, config, row)

    def _judged(self, ring: EmbeddingRing) -> Judged:
        """Return what each model says of the newest window of a stream."""
        moments = WindowMoments(ring.embeddings_TD[None])
        rules = [predictor.unknown_rule for predictor in self.predictors]
        return [
            (encoding, None if rule is None else rule.familiarity_of(moments)[0])
            for encoding, rule in zip(self.shared.encode_windows(moments), rules, strict=True)
        ]


def load_heads(
    names: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    *,
    device: str = "auto",
    dtype: DtypeName = "auto",
    backend: BackendChoice = "auto",
    merge: int | None = None,
    runtime: RuntimeName = "auto",
    unknown: UnknownChoice = "auto",
) -> Heads:
    """Load several models that share a frame encoder, whose weights are in memory once.

    Args:
        names: Names, files or folders as for `fewframes.load`, or a folder with several of them.
        device: The device; so are the other arguments those of `fewframes.load`.
        dtype: The precision of the frame encoder.
        backend: The decoder.
        merge: Patches that each block of a ViT merges away.
        runtime: The library that computes.
        unknown: When an answer is `unknown`.

    Raises:
        WeightsError: a model cannot be found or read.
        ConfigError: they cannot share one pass (`open_heads` says when), or an option is wrong.
        MissingDependency: the library that runs them is not installed.
    """
    given = [names] if isinstance(names, str | os.PathLike) else names
    found = [model for name in given for model in models_in(os.fspath(name))]
    shared = open_heads(found, device=device, dtype=dtype, merge=merge, runtime=runtime)
    return Heads(shared, backend=backend, unknown=unknown)
