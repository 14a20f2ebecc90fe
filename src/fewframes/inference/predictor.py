"""The front door: `load` makes a `Predictor` from a model's name or file, and a `Predictor` makes a `Prediction` from a video.

Decoding runs ahead in background threads (FFmpeg works outside Python's lock), so that the network seldom waits for a video.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from fewframes.core.arguments import real_number, whole_number
from fewframes.core.process import num_cores, worked_ahead
from fewframes.core.settings import MOST_FRAMES
from fewframes.errors import ConfigError, FewframesError, VideoError
from fewframes.inference.clips import BackendChoice, ClipReader, ClipRequest, DecodedClips, choose_backend
from fewframes.inference.stages.budget import Budget, BudgetReader, StagePlan, stage_plan_of
from fewframes.inference.stages.early_exit import encoded_early, exit_plan_of, filled
from fewframes.inference.unknowns import UnknownChoice, unknown_rule
from fewframes.models.config import ExitPlan
from fewframes.results import BudgetUse, Clip, Failure, Familiarity, Prediction, Timing
from fewframes.runtime.open import DEFAULT_MODEL, RuntimeName, open_runtime
from fewframes.runtime.protocol import DtypeName, Floats, Frames, LabelsClips, Runtime, WindowEncoding, scores_of
from fewframes.sampling import ONE_PASS, Views
from fewframes.video.decode.container import NO_LIMITS, Limits
from fewframes.video.live_settings import StreamConfig
from fewframes.video.source import DEFAULT_FPS, Source

if TYPE_CHECKING:  # only programs that have torch use these
    from fewframes.inference.live.feed import OnEvent
    from fewframes.inference.live.region import LiveRegion
    from fewframes.inference.promise import AlarmPromise
    from fewframes.inference.stream import Stream
    from fewframes.models.files.checkpoint import Checkpoint
    from fewframes.runtime.torch_runtime import TorchRuntime
    from fewframes.video.live_source import LiveSource

DecodedBatch: TypeAlias = "list[tuple[str, DecodedClips | Prediction | FewframesError]]"
"""Videos with what became of each: frames, an answer that came early, or an error."""
GPU_FRAMES = 256
"""Frames of several videos that a GPU takes at once. With those of one video it would wait for Python most of the time."""


class Predictor:
    """A model that labels videos: a runtime that computes, and a reader of the frames that it takes.

    `runtime` is the model; everything about it (labels, view, number of frames, device, precision) stands there.
    """

    def __init__(
        self,
        model: Runtime | Checkpoint,
        *,
        device: str = "auto",
        dtype: DtypeName = "auto",
        backend: BackendChoice = "auto",
        merge: int | None = None,
        name: str = "",
        limits: Limits = NO_LIMITS,
        unknown: UnknownChoice = "auto",
    ) -> None:
        """Make a predictor of a runtime, or of a checkpoint, which torch then runs.

        Args:
            model: the runtime, or the checkpoint.
            device: the device for a checkpoint; so are `dtype`, `merge` and `name`, which `TorchRuntime` explains.
            dtype: the precision of the frame encoder.
            backend: the decoder; `auto` decodes with torchcodec on a GPU where that works, with PyAV elsewhere.
            merge: the patches that each block of a ViT merges away.
            name: the model's name in errors and files.
            limits: the largest videos that are read.
            unknown: `auto` answers `unknown` for videos that seem to show none of the actions, if the model can tell. 95 % of
                the videos of its actions are kept. A number, such as 0.9, keeps another fraction of them. `off` never does.
        """
        if hasattr(model, "embed_frames"):
            self.runtime = cast(Runtime, model)
        else:
            from fewframes.runtime.torch_runtime import TorchRuntime

            self.runtime = TorchRuntime(model, device=device, dtype=dtype, merge=merge, name=name)
        self.unknown, self.unknown_rule = unknown, unknown_rule(self.runtime, unknown)
        device = self.runtime.device
        self.reader = ClipReader(self.runtime.view, choose_backend(backend, device), device, limits)
        self.budget_reader = BudgetReader(self.runtime, self.reader, self._familiarity)

    @property
    def name(self) -> str:
        """Return the name or path of the model."""
        return self.runtime.name

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of the K actions."""
        return self.runtime.labels

    @property
    def num_frames(self) -> int:
        """Return T, the number of frames that the model is built for."""
        return self.runtime.num_frames

    def __repr__(self) -> str:
        runtime = self.runtime
        return f"Predictor({self.name!r}, {len(self.labels)} labels, {runtime.kind} on {runtime.device}, {runtime.precision})"

    def with_runtime(self, runtime: Runtime, limits: Limits = NO_LIMITS) -> Predictor:
        """Return a predictor that reads videos in the same way, up to these limits, and computes with another runtime.

        A server uses it to embed the frames of several videos together.
        """
        return Predictor(runtime, backend=self.reader.backend, limits=limits, unknown=self.unknown)

    @property
    def torch(self) -> TorchRuntime:
        """Return the runtime if torch computes, for what only its network can do. Raises ConfigError for any other runtime."""
        from fewframes.runtime.open import torch_only

        return torch_only(self.runtime)

    def predict(
        self,
        source: Source,
        *,
        num_frames: int | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
        tolerance: float = 0.0,
        early_exit: bool | float = False,
        budget_ms: float | None = None,
        budget_kb: float | None = None,
        fps: float = DEFAULT_FPS,
    ) -> Prediction:
        """Label one video, or the part of it between two times.

        Raises VideoError, and ConfigError where this model cannot stop early.

        Args:
            source: The video, as for `fewframes.open_video`.
            num_frames: Frames to look at; for another number than the model's own, its temporal positions are interpolated.
            start_s, end_s: Seconds at which the part begins and ends; by default the whole video.
            tolerance: A fraction (0-0.5) of the interval between frames, by which each timestamp may move to where decoding is
                cheapest.
            early_exit: Encode a few frames first, and more only while the calibrated confidence is below this number (0-1). True
                takes the threshold that was fitted for this model.
            budget_ms: Milliseconds for the answer, from opening the video. As many frames are looked at as fit; `Prediction.budget`
                says how many, and by how much it is over if even the fewest take longer.
            budget_kb: Thousands of bytes to read of the video, in the same way. Both may be given; then both hold.
            fps: Frame rate of inputs that have none of their own.
        """
        frames = self.frames_of(num_frames)
        request = ClipRequest(one_pass(tolerance), frames, start_s, end_s, fps)
        done = self._way(request, num_frames, early_exit, Budget.of(budget_ms, budget_kb))(source, 0)
        return done if isinstance(done, Prediction) else self.label(done)

    def predict_many(
        self,
        sources: Iterable[str | os.PathLike[str]],
        *,
        num_frames: int | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
        tolerance: float = 0.0,
        early_exit: bool | float = False,
        budget_ms: float | None = None,
        budget_kb: float | None = None,
        workers: int | None = None,
    ) -> Iterator[Prediction | Failure]:
        """Label many videos (paths or URLs), and yield one result for each in their order. An unreadable video gives a `Failure`.

        `workers` videos are decoded at a time, by one thread each (default: one per core). A budget is for each video. The other
        arguments: see `predict`. A GPU takes several videos at once, so their results come together; which ones share a batch
        depends on their order alone.
        """
        if isinstance(sources, str | os.PathLike):
            raise TypeError(f"sources = {sources!r}: needs several; use predict for one")
        workers = whole_number("workers", workers or num_cores(), 1)
        frames = self.frames_of(num_frames)
        request = ClipRequest(one_pass(tolerance), frames, start_s, end_s)
        budget = Budget.of(budget_ms, budget_kb)
        way = self._way(request, num_frames, early_exit, budget)
        paths = (os.fspath(source) for source in sources)
        size = 1 if budget is not None or early_exit is not False else self._videos_at_once(frames)
        ahead = None if size == 1 else size + workers
        with closing(worked_ahead(paths, lambda source: way(source, 1), workers, ahead)) as decoded:
            batches = iter(lambda: list(islice(decoded, size)), [])
            if size > 1:
                yield from self._in_turns(batches)
            for batch in batches:
                yield from self._labelled(batch)

    def _in_turns(self, batches: Iterator[DecodedBatch]) -> Iterator[Prediction | Failure]:
        """Yield the results of batches. While a GPU computes one, a second thread puts the next together and sends it there."""
        with closing(worked_ahead(batches, lambda batch: list(self._labelled(batch)), 2, 2)) as labelled:
            for _, results in labelled:
                if isinstance(results, FewframesError):
                    raise results
                yield from results

    def _videos_at_once(self, num_frames: int) -> int:
        """Return the number of videos that a GPU takes at once, so that it is filled; a CPU takes each by itself."""
        return max(1, GPU_FRAMES // num_frames) if self.runtime.device.startswith("cuda") else 1

    def _labelled(self, batch: DecodedBatch) -> Iterator[Prediction | Failure]:
        """Yield the result of each video of a batch in its order. Only what is decoded goes through the network, together."""
        videos = [done for _, done in batch if isinstance(done, DecodedClips)]
        labelled: Iterator[Prediction] = iter(())
        if len(videos) > 1:
            with suppress(VideoError):  # one video has no answer; each is then labelled by itself
                labelled = iter(self.label_many(videos))
        for source, done in batch:
            try:
                if isinstance(done, FewframesError):
                    yield Failure.of(source, done)
                elif isinstance(done, Prediction):
                    yield done
                else:
                    yield next(labelled, None) or self.label(done)
            except VideoError as error:
                yield Failure.of(source, error)

    def stream(
        self,
        source: LiveSource,
        config: StreamConfig | None = None,
        *,
        on_event: OnEvent | None = None,
        promise: AlarmPromise | None = None,
    ) -> Stream:
        """Label a camera, network stream, file or pipe as it comes: iterate over the result for predictions over the last seconds.

        `source` is that of `LiveSource`; `on_event` is called at once with every event. With a `promise` the stream raises alarms.
        Raises VideoError, and ConfigError for a model whose frames have no embedding of their own, and for a promise that does not
        hold for these settings.
        """
        from fewframes.inference.stream import Stream  # late, because only streams need it

        config = config or StreamConfig()
        return Stream(self, source, config, {self.name: promise} if promise else {}, on_event)

    def live_region(
        self, config: StreamConfig, promises: Mapping[str, AlarmPromise] | None = None, row: int | None = None
    ) -> LiveRegion:
        """Return what watches one region of a live source; `LiveRegion` says what `row` is, `Heads.stream` what `promises` are."""
        from fewframes.inference.live.model import StreamModel
        from fewframes.inference.live.region import LiveRegion

        model = StreamModel(self.runtime, config, self.unknown_rule, (promises or {}).get(self.name))
        return LiveRegion([model], model.judge, config, row)

    def read_clip(
        self,
        source: Source,
        *,
        num_frames: int | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
        fps: float = DEFAULT_FPS,
        threads: int = 1,
    ) -> Clip:
        """Return the frames that `predict` looks at, as the model's view has them; `threads` decode them (0: as many as help)."""
        frames = self.frames_of(num_frames)
        return self.reader.read(source, ClipRequest(ONE_PASS, frames, start_s, end_s, fps), threads=threads).clips[0]

    def read_views(
        self,
        source: Source,
        views: Views,
        *,
        num_frames: int | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
    ) -> tuple[Clip, ...]:
        """Return several views of one video, which is opened once: clip after clip, all crops of each. Raises VideoError, and
        ConfigError where the model's view leaves nothing to crop.
        """
        self.check_views(views)
        frames = self.frames_of(num_frames)
        return self.reader.read(source, ClipRequest(views, frames, start_s, end_s), threads=1).clips

    def check_views(self, views: Views) -> None:
        """Raise ConfigError for views with several crops where the model's view leaves nothing to crop."""
        if views.num_crops > 1 and self.reader.view.fit != "crop":
            raise ConfigError(
                f"{views.num_crops} crops: this model's view ({self.reader.view.fit}) shows the whole picture, so there is "
                "nothing to crop; use 1 crop"
            )

    def frames_of(self, asked: int | None) -> int:
        """Return the number of frames to take. Raises ConfigError if the runtime does not take the number asked for."""
        if asked is None:
            return self.num_frames
        asked = whole_number("num_frames", asked, 1, MOST_FRAMES)
        if asked != self.num_frames and not self.runtime.any_num_frames:
            raise ConfigError(
                f"{asked} frames: {self.name} mixes frames inside its encoder and takes {self.num_frames} only"
            )
        if asked < self.runtime.least_frames:
            raise ConfigError(f"{asked} frames: exported graphs take {self.runtime.least_frames} or more")
        return asked

    def label(self, video: DecodedClips) -> Prediction:
        """Label a decoded video; of several views, the first one."""
        return self.label_many([video])[0]

    def label_many(self, videos: Sequence[DecodedClips]) -> list[Prediction]:
        """Label several decoded videos in one batch. All must have the same number of frames."""
        began = time.perf_counter()
        clips = [video.clips[0] for video in videos]
        embeddings_BTD, encoded = self._label_clips(np.stack([clip.frames for clip in clips]))
        known = self._familiarity(embeddings_BTD)
        predictions = [
            self.prediction(clip, embeddings_TD, encoding, Timing(0.0, 0.0, 0.0), familiarity)
            for clip, embeddings_TD, encoding, familiarity in zip(
                clips, embeddings_BTD, encoded.each(), known, strict=True
            )
        ]
        network_s = (time.perf_counter() - began) / len(videos)
        timings = [Timing(video.decode_s, video.transform_s, network_s) for video in videos]
        return [replace(prediction, timing=timing) for prediction, timing in zip(predictions, timings, strict=True)]

    def _familiarity(self, embeddings_BTD: Floats) -> Sequence[Familiarity | None]:
        """Return the judgement on each video, None if there is no rule for unknown videos."""
        if self.unknown_rule is None:
            return [None] * len(embeddings_BTD)
        return self.unknown_rule.familiarity(embeddings_BTD)

    def _label_clips(self, frames_BTCHW: Frames) -> tuple[Floats, WindowEncoding]:
        """Return the frame embeddings (B, T, D) of whole clips, and their encoding."""
        if isinstance(self.runtime, LabelsClips):
            return self.runtime.label_clips(frames_BTCHW)
        embeddings_BTD = self.runtime.encode_clips(frames_BTCHW)
        return embeddings_BTD, self.runtime.encode_windows(embeddings_BTD, with_attention=True)

    def _way(
        self, request: ClipRequest, num_frames: int | None, early_exit: bool | float, budget: Budget | None
    ) -> Callable[[Source, int], DecodedClips | Prediction]:
        """Return how one video is read and, where it is read in stages, labelled: a function of the source and of the threads."""
        if budget is not None:
            if not self.runtime.embeds_frames:
                exit_plan_of(self.runtime, early_exit, num_frames)  # says why there is none
                return lambda source, threads: self._predict_whole(source, request, budget, threads)
            stages = stage_plan_of(self.runtime, early_exit, num_frames)
            return lambda source, threads: self._predict_within(source, request, stages, budget, threads)
        plan = exit_plan_of(self.runtime, early_exit, num_frames)
        if plan is None:
            return lambda source, threads: self.reader.read(source, request, threads=threads)
        return lambda source, threads: self._predict_early(source, request, plan, threads)

    def _predict_within(
        self, source: Source, request: ClipRequest, plan: StagePlan, budget: Budget, threads: int
    ) -> Prediction:
        """Label one video from as many frames as fit into a budget."""
        found = self.budget_reader.encode(source, request, plan, budget, threads=threads)
        early = found.early
        prediction = self.prediction(early.clip, early.embeddings, early.encoded, early.timing, found.familiarity)
        return replace(prediction, budget=found.use)

    def _predict_whole(self, source: Source, request: ClipRequest, budget: Budget, threads: int) -> Prediction:
        """Label one video with a model whose encoder mixes frames: all frames are the fewest that it can look at."""
        began = time.perf_counter()
        prediction = self.label(self.reader.read(source, request, threads=threads))
        read_bytes = prediction.reading.bytes_read
        use = BudgetUse(
            num_frames=request.num_frames,
            all_frames=request.num_frames,
            took_ms=1000 * (time.perf_counter() - began),
            read_kb=read_bytes / 1000 if read_bytes else None,
            budget_ms=budget.ms,
            budget_kb=budget.kb,
            tolerance=request.views.tolerance,
            is_least=True,
        )
        return replace(prediction, budget=use)

    def _predict_early(self, source: Source, request: ClipRequest, plan: ExitPlan, threads: int) -> Prediction:
        """Label one video stage by stage, until the answer is confident enough."""
        early = encoded_early(self.runtime, self.reader, source, request, plan, threads=threads)
        indices = next(stage for stage in plan.stages if len(stage) == len(early.embeddings))
        familiarity = self._familiarity(filled(early.embeddings[None], indices, plan.num_frames))[0]
        return self.prediction(early.clip, early.embeddings, early.encoded, early.timing, familiarity)

    def prediction(
        self,
        clip: Clip,
        embeddings_TD: Floats,
        encoded: WindowEncoding,
        timing: Timing,
        familiarity: Familiarity | None,
    ) -> Prediction:
        """Return a prediction from the network's outputs for one video (B = 1, with attention), and from its embeddings (T, D).

        Raises VideoError where the outputs are no numbers.
        """
        assert encoded.frame_attention is not None
        scores_K = scores_of(encoded.logits[0], self.runtime.task)
        if not np.isfinite(scores_K).all():
            raise VideoError(no_numbers(clip.source, self.runtime.precision))
        return Prediction(
            source=clip.source,
            labels=self.labels,
            scores=scores_K,
            times_s=clip.times_s.astype(np.float32),
            frame_attention=encoded.frame_attention[0],
            embedding=encoded.embedding[0],
            frame_embeddings=embeddings_TD,
            timing=timing,
            reading=clip.reading,
            steps=clip.steps,
            thresholds=thresholds_of(self.runtime),
            familiarity=familiarity,
        )


def load(
    name_or_path: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    device: str = "auto",
    dtype: DtypeName = "auto",
    backend: BackendChoice = "auto",
    merge: int | None = None,
    runtime: RuntimeName = "auto",
    unknown: UnknownChoice = "auto",
) -> Predictor:
    """Load a `Predictor` by a preset's name (see `fewframes models`), from a model file, or from an exported file.

    Args:
        name_or_path: The model: a name, a folder of training, `.safetensors`, `.onnx`, `.xml` (OpenVINO) or `.pt2` (torch.export);
            or `hf:` and a folder or name of a video classifier of transformers, or `baseline:NAME=FILE`.
        device: `auto` takes CUDA, then Apple's MPS, then the CPU. Runtimes other than torch have the CPU alone.
        dtype: `auto` takes bfloat16 where the device has instructions for it (`fewframes doctor` says), float32 otherwise.
        backend: `auto` decodes with torchcodec on a GPU where that works, with PyAV elsewhere.
        merge: Patches that each block of a ViT merges away; None is the number that the model was trained with.
        runtime: The library that runs a model file: `torch` or `onnxruntime`; `auto` chooses (`fewframes doctor` says why).
        unknown: When the answer is `unknown`, as `Predictor` explains it: `auto`, `off`, or the fraction of videos of the model's
            actions that are kept, such as 0.9.

    Raises:
        WeightsError: the model cannot be found or read.
        ConfigError: an option is wrong, or this kind of model cannot follow it.
        MissingDependency: the library that runs it is not installed.
    """
    opened = open_runtime(name_or_path, device=device, dtype=dtype, merge=merge, runtime=runtime)
    return Predictor(opened, backend=backend, unknown=unknown)


def thresholds_of(runtime: Runtime) -> tuple[float, ...]:
    """Return the score from which each label of a multi-label model counts as present: 0.5 if none were fitted for the model.

    It is empty for models of one action a video.
    """
    return (runtime.thresholds or (0.5,) * len(runtime.labels)) if runtime.task == "multilabel" else ()


def no_numbers(source: str, precision: str) -> str:
    """Return the error text for a video for which the network's answer is NaN."""
    remedy = "; take another dtype, such as float32" if precision == "float16" else ""
    return f"{source}: the network's answers are no numbers{remedy}"


def one_pass(tolerance: float) -> Views:
    """Return the views of `predict`: one clip, whose timestamps may each move by this fraction of the interval between frames."""
    tolerance = real_number("tolerance", tolerance, low=0, high=0.5)
    return Views(tolerance=tolerance) if tolerance else ONE_PASS
