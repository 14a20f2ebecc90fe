"""The front door: `load` makes a `Predictor` from a model's name or file, and a `Predictor` makes a `Prediction` from a video.

Decoding runs ahead in background threads (FFmpeg works outside Python's lock), so that the network seldom waits for a video.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from fewframes.core.arguments import real_number, whole_number
from fewframes.core.devices import auto_dtype, choose_device
from fewframes.core.process import worked_ahead
from fewframes.errors import ConfigError, FewframesError, MissingDependency, VideoError, nearest
from fewframes.inference.clips import ClipReader, ClipRequest, DecodedClips
from fewframes.inference.early_exit import answer, confidence, stages_of
from fewframes.inference.stream import OnEvent, Stream
from fewframes.inference.threads import num_threads, side_by_side
from fewframes.models.exit_plan import ExitPlan, check_can_exit
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.networks import sharing_copy
from fewframes.models.layers import pixels_of
from fewframes.models.stam import VideoEncoding
from fewframes.models.token_merging import merge_tokens
from fewframes.results import Clip, Failure, Prediction, Timing
from fewframes.sampling import ONE_PASS, Views
from fewframes.video.decode.container import Limits
from fewframes.video.live_settings import StreamConfig
from fewframes.video.live_source import LiveSource
from fewframes.video.source import DEFAULT_FPS, BackendName, Source
from fewframes.video.torchcodec import why_not

DEFAULT_MODEL = "lite0-16"
"""The model inside the package."""

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
BackendChoice = Literal["auto", "pyav", "torchcodec"]
BACKENDS = ("auto", "pyav", "torchcodec")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CPU_BYTES_AT_ONCE = 16
"""Frames that a thread embeds at once on a CPU, times the bytes of a value: 4 frames in float32, 8 in bfloat16. With more frames
the activations of Lite0 outgrow what malloc holds on to, and the time goes into fetching pages (docs/decisions).
"""
FRAMES_AT_ONCE = 256
"""Frames embedded at once on other devices. A preset's clip has at most 64; many views of a video must not fill the memory."""
WINDOWS_AT_ONCE = 256
"""Windows of frame embeddings that the temporal half takes at once."""


class Predictor:
    """A model that is ready to label videos: its network, view and labels, on one device in one precision.

    The checkpoint is not changed: it can be saved, or trained, afterwards. Weights that need no cast are shared with it.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str = "auto",
        dtype: DtypeName = "auto",
        backend: BackendChoice = "auto",
        merge: int | None = None,
        name: str = "",
    ) -> None:
        """Put a checkpoint's model on a device. `name` is shown in errors and in files; `load` explains the other arguments."""
        if not isinstance(checkpoint, Checkpoint):
            raise TypeError(f"checkpoint = {checkpoint!r}: needs a Checkpoint; fewframes.load takes names and paths")
        self.name = name
        self.labels = checkpoint.labels
        self.view = checkpoint.view
        self.config = checkpoint.model.config
        self.checkpoint = checkpoint
        self.device = choose_device(device)
        self.reader = ClipReader(self.view, choose_backend(backend, self.device), str(self.device))
        self.model = sharing_copy(checkpoint.model).eval().to(self.device).to(memory_format=torch.channels_last)
        fold_norms = getattr(self.model.frame_encoder, "fold_norms", None)
        if fold_norms is not None:
            fold_norms()
        merge_tokens(self.model.frame_encoder, self.config.merge if merge is None else whole_number("merge", merge, 0))
        self._embed_elsewhere: Callable[[Tensor], Tensor] | None = None
        self.dtype = choose_dtype(dtype, self.device)
        self.model.frame_encoder.to(self.dtype)

    def __repr__(self) -> str:
        precision = str(self.dtype).removeprefix("torch.")
        return f"Predictor({self.name!r}, {len(self.labels)} labels, {self.device}, {precision})"

    def through(self, embed: Callable[[Tensor], Tensor], limits: Limits) -> Predictor:
        """Return a copy that embeds frames with `embed`, (T, C, H, W) uint8 to (T, D), and refuses videos above `limits`.

        A server uses it to embed the frames of several videos together.
        """
        other = copy.copy(self)
        other.reader, other._embed_elsewhere = replace(self.reader, limits=limits), embed
        return other

    def predict(
        self,
        source: Source,
        *,
        num_frames: int | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
        tolerance: float = 0.0,
        early_exit: bool | float = False,
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
            fps: Frame rate of inputs that have none of their own.
        """
        frames = self.config.num_frames if num_frames is None else num_frames
        request = ClipRequest(one_pass(tolerance), frames, start_s, end_s, fps)
        plan = self.exit_plan(early_exit, num_frames)
        return (
            self.label(self.reader.read(source, request, threads=0))
            if plan is None
            else self._predict_early(source, request, plan, 0)
        )

    def predict_many(
        self,
        sources: Iterable[str | os.PathLike[str]],
        *,
        num_frames: int | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
        tolerance: float = 0.0,
        early_exit: bool | float = False,
        workers: int | None = None,
    ) -> Iterator[Prediction | Failure]:
        """Label many videos (paths or URLs), and yield one result for each in their order. An unreadable video gives a `Failure`.

        `workers` videos are decoded at a time, by one thread each (default: one per core). The other arguments: see `predict`.
        """
        if isinstance(sources, str | os.PathLike):
            raise TypeError(f"sources = {sources!r}: needs several; use predict for one")
        workers = whole_number("workers", workers or torch.get_num_threads(), 1)
        frames = self.config.num_frames if num_frames is None else num_frames
        request, plan = ClipRequest(one_pass(tolerance), frames, start_s, end_s), self.exit_plan(early_exit, num_frames)

        def work(source: str | os.PathLike[str]) -> DecodedClips | Prediction:
            return (
                self.reader.read(source, request, threads=1)
                if plan is None
                else self._predict_early(source, request, plan, 1)
            )

        for source, done in worked_ahead(sources, work, workers):
            if isinstance(done, FewframesError):
                yield Failure.of(source, done)
                continue
            try:
                yield done if isinstance(done, Prediction) else self.label(done)
            except VideoError as error:
                yield Failure.of(source, error)

    def stream(
        self, source: LiveSource, config: StreamConfig | None = None, *, on_event: OnEvent | None = None
    ) -> Stream:
        """Label a camera, network stream, file or pipe as it comes: iterate over the result for predictions over the last seconds.

        `source` is that of `LiveSource`; `on_event` is called at once with every event. Raises VideoError, and ConfigError for a
        model whose frames have no embedding of their own.
        """
        return Stream(self, source, config or StreamConfig(), on_event)

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
        frames = self.config.num_frames if num_frames is None else num_frames
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
        frames = self.config.num_frames if num_frames is None else num_frames
        return self.reader.read(source, ClipRequest(views, frames, start_s, end_s), threads=1).clips

    def check_views(self, views: Views) -> None:
        """Raise ConfigError for views with several crops where the model's view leaves nothing to crop."""
        if views.num_crops > 1 and self.view.fit != "crop":
            raise ConfigError(
                f"{views.num_crops} crops: this model's view ({self.view.fit}) shows the whole picture, so there is nothing to "
                "crop; use 1 crop"
            )

    def encode_clips(self, frames_VTCHW: Tensor) -> Tensor:
        """Return frame embeddings f_t (Eq. 10) in any layout: clips (V, T, C, H, W) uint8 to (V, T, D) float32 on the CPU."""
        if self.config.layout == "factorised":
            return self.embed_frames(frames_VTCHW.flatten(0, 1)).unflatten(0, frames_VTCHW.shape[:2])
        with torch.inference_mode():
            clips = [self.model.encode_clips(pixels_of(clip[None].to(self.device))).cpu() for clip in frames_VTCHW]
        return torch.cat(clips)

    def embed_frames(self, frames_TCHW: Tensor) -> Tensor:
        """Return frame embeddings f_t (Eq. 10) of frames that fit the view: (T, C, H, W) uint8 to (T, D) float32 on the CPU."""
        if self._embed_elsewhere is not None:
            return self._embed_elsewhere(frames_TCHW)
        if self.device.type != "cpu":
            return torch.cat([self._embed(part_TCHW) for part_TCHW in frames_TCHW.split(FRAMES_AT_ONCE)])
        evenly = -(-len(frames_TCHW) // num_threads())
        at_once = max(1, min(evenly, CPU_BYTES_AT_ONCE // self.dtype.itemsize))
        return torch.cat(side_by_side(self._embed, frames_TCHW.split(at_once)))

    def _embed(self, frames_TCHW: Tensor) -> Tensor:
        with torch.inference_mode():
            pixels_TCHW = pixels_of(frames_TCHW.to(self.device)).contiguous(memory_format=torch.channels_last)
            return self.model.encode_frames(pixels_TCHW).cpu()

    def encode_windows(
        self, windows_BTD: Tensor, *, with_attention: bool = False, cached_BT2W: Tensor | None = None
    ) -> VideoEncoding:
        """Run the temporal half on many windows of frame embeddings (B, T, D). All fields of the result are float32 on the CPU.

        `predict`, streams and timelines all answer through this method, so they cannot disagree. `cached_BT2W` holds what
        `motion_cache` returned for each frame, where it is known.
        """
        num_parts = -(-len(windows_BTD) // WINDOWS_AT_ONCE)
        cached = [None] * num_parts if cached_BT2W is None else cached_BT2W.split(WINDOWS_AT_ONCE)
        with torch.inference_mode():
            parts = [
                self.model.encode_video(
                    part_BTD.to(self.device),
                    with_attention=with_attention,
                    cached_BT2W=None if part_BT2W is None else part_BT2W.to(self.device),
                )
                for part_BTD, part_BT2W in zip(windows_BTD.split(WINDOWS_AT_ONCE), cached, strict=True)
            ]
        attention = [part.frame_attention.cpu() for part in parts if part.frame_attention is not None]
        return VideoEncoding(
            torch.cat([part.logits for part in parts]).cpu(),
            torch.cat([part.embedding for part in parts]).cpu(),
            torch.cat(attention) if attention else None,
        )

    def motion_cache(self, before_D: Tensor, embedding_D: Tensor) -> Tensor | None:
        """Return the part of a frame's motion token that no window changes, computed once (`MotionTokens.cacheable_parts`).

        Takes the embeddings (D,) of the frame before and of the frame. Returns (2, W) on the CPU, or None without motion tokens.
        """
        motion = self.model.temporal_encoder.motion
        if motion is None:
            return None
        with torch.inference_mode():
            return motion.cacheable_parts(before_D[None].to(self.device), embedding_D[None].to(self.device))[0].cpu()

    def exit_plan(self, early_exit: bool | float, num_frames: int | None = None) -> ExitPlan | None:
        """Return the plan of an early exit; None where every frame is encoded. Raises ConfigError where an early exit is
        impossible.
        """
        if early_exit is False:
            return None
        if early_exit is not True:
            real_number("early_exit", early_exit, above=0, high=1)
        check_can_exit(self.model)
        own = self.config.num_frames
        if num_frames is not None and num_frames != own:
            raise ConfigError(
                f"{num_frames} frames with early exit: its stages are made for this model's {own} frames; leave one of the two out"
            )
        plan = self.checkpoint.exits
        if plan is None and early_exit is True:
            raise ConfigError(
                f"{self.name}: no early exit was fitted for this model; train with --early-exit, or pass the confidence from which "
                "an answer is given, such as 0.9"
            )
        if plan is None:
            # Nothing was fitted: the scores as they are, and the caller's confidence as the threshold.
            stages = stages_of(own)
            plan = ExitPlan(stages=stages, temperatures=(1.0,) * len(stages), threshold=1.0)
        plan.check(self.model)
        return plan if early_exit is True else replace(plan, threshold=float(early_exit))

    def _predict_early(self, source: Source, request: ClipRequest, plan: ExitPlan, threads: int) -> Prediction:
        """Label one video stage by stage, until the answer is confident enough."""
        network_s, began = 0.0, time.perf_counter()
        times_N, embeddings_ND = torch.empty(0), torch.empty(0)
        with self.reader.opened(source, request, threads=threads) as video:
            for stage, indices in enumerate(plan.stages):
                new = plan.new_positions(stage)
                clip = video.decode_more(new) if stage else video.decode_first(new)
                decoded_at = time.perf_counter()
                new_ND = self.embed_frames(torch.from_numpy(clip.frames).squeeze(1))
                # Rows lie in the order in which frames were encoded; the temporal half needs them in the order of time.
                encoded_so_far = [*(plan.stages[stage - 1] if stage else ()), *new]
                order = [encoded_so_far.index(index) for index in indices]
                embeddings_ND = (torch.cat([embeddings_ND, new_ND]) if stage else new_ND)[order]
                times_N = torch.cat([times_N, torch.from_numpy(clip.times_s).float()])[order]
                encoded, weights_TN = answer(self.model, embeddings_ND[None].to(self.device), indices)
                sure = float(confidence(encoded.logits, plan.temperatures[stage])) >= plan.threshold
                network_s += time.perf_counter() - decoded_at
                if sure:
                    break
        decode_s = time.perf_counter() - began - network_s - video.transform_s
        timing = Timing(decode_s, video.transform_s, network_s)
        prediction = self._prediction(replace(clip, times_s=times_N), embeddings_ND, encoded, timing)
        # Attention lies on T filled-in timestamps; each passes its own on to the frames that it was filled in from.
        return replace(prediction, frame_attention=prediction.frame_attention @ weights_TN.cpu())

    def label(self, video: DecodedClips) -> Prediction:
        """Label a decoded video; of several views, the first one."""
        return self.label_many([video])[0]

    def label_many(self, videos: Sequence[DecodedClips]) -> list[Prediction]:
        """Label several decoded videos in one batch. All must have the same number of frames."""
        began = time.perf_counter()
        clips = [video.clips[0] for video in videos]
        embeddings_BTD = self.encode_clips(torch.stack([torch.from_numpy(clip.frames) for clip in clips]))
        encoded = self.encode_windows(embeddings_BTD, with_attention=True)
        predictions = [
            self._prediction(clip, embeddings_TD, encoding, Timing(0.0, 0.0, 0.0))
            for clip, embeddings_TD, encoding in zip(clips, embeddings_BTD, encoded.each(), strict=True)
        ]
        network_s = (time.perf_counter() - began) / len(videos)
        timings = [Timing(video.decode_s, video.transform_s, network_s) for video in videos]
        return [replace(prediction, timing=timing) for prediction, timing in zip(predictions, timings, strict=True)]

    def _prediction(self, clip: Clip, embeddings_TD: Tensor, encoded: VideoEncoding, timing: Timing) -> Prediction:
        """Return a prediction from the network's outputs for one video. Raises VideoError where they are no numbers."""
        assert encoded.frame_attention is not None
        with torch.inference_mode():
            scores_K = self.model.scores(encoded.logits).squeeze(0).cpu()
        if not scores_K.isfinite().all():
            raise VideoError(no_numbers(clip.source, self.dtype))
        return Prediction(
            source=clip.source,
            labels=self.labels,
            scores=scores_K,
            times_s=torch.as_tensor(clip.times_s).float(),
            frame_attention=encoded.frame_attention.squeeze(0).cpu(),
            embedding=encoded.embedding.squeeze(0).cpu(),
            frame_embeddings=embeddings_TD,
            timing=timing,
            reading=clip.reading,
            steps=clip.steps,
        )


def load(
    name_or_path: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    device: str = "auto",
    dtype: DtypeName = "auto",
    backend: BackendChoice = "auto",
    merge: int | None = None,
) -> Predictor:
    """Load a `Predictor` by a preset's name (see `fewframes models`) or from a checkpoint file. Raises WeightsError or ConfigError.

    Args:
        name_or_path: The model.
        device: `auto` takes CUDA, then Apple's MPS, then the CPU.
        dtype: `auto` takes bfloat16 where the device has instructions for it (`fewframes doctor` says), float32 otherwise.
        backend: `auto` decodes with torchcodec on a GPU where that works, with PyAV elsewhere.
        merge: Patches that each block of a ViT merges away; None is the number that the model was trained with.
    """
    checkpoint = load_checkpoint(name_or_path)
    name = os.fspath(name_or_path)
    return Predictor(checkpoint, device=device, dtype=dtype, backend=backend, merge=merge, name=name)


def choose_dtype(name: DtypeName, device: torch.device) -> torch.dtype:
    """Return the precision of the frame encoder; for `auto` it follows from the device (`auto_dtype`). Raises ConfigError."""
    if name == "auto":
        return auto_dtype(device)[0]
    if name not in DTYPES:
        raise ConfigError(f"dtype {name!r}: {nearest(str(name), ['auto', *DTYPES])}")
    return DTYPES[name]


def no_numbers(source: str, dtype: torch.dtype) -> str:
    """Return the error text for a video for which the network's answer is NaN."""
    remedy = "; take another dtype, such as float32" if dtype == torch.float16 else ""
    return f"{source}: the network's answers are no numbers{remedy}"


def name_of(dtype: torch.dtype) -> DtypeName:
    """Return the name of a precision, as `load` takes it."""
    names: dict[torch.dtype, DtypeName] = {
        torch.float32: "float32",
        torch.bfloat16: "bfloat16",
        torch.float16: "float16",
    }
    return names[dtype]


def choose_backend(name: BackendChoice, device: torch.device) -> BackendName:
    """Return the decoder to use. Raises ConfigError, and MissingDependency where torchcodec is asked for and cannot be used."""
    if name not in BACKENDS:
        raise ConfigError(f"backend {name!r}: {nearest(str(name), BACKENDS)}")
    if name == "pyav" or (name == "auto" and device.type != "cuda"):
        return "pyav"  # it decodes fewer frames for the same request than torchcodec (docs/explanation/performance.md)
    reason = why_not(str(device))
    if reason and name == "torchcodec":
        raise MissingDependency(f"the backend torchcodec cannot be used on {device} ({reason}); take 'auto' or 'pyav'")
    return "pyav" if reason else "torchcodec"


def one_pass(tolerance: float) -> Views:
    """Return the views of `predict`: one clip, whose timestamps may each move by this fraction of the interval between frames."""
    tolerance = real_number("tolerance", tolerance, low=0, high=0.5)
    return Views(tolerance=tolerance) if tolerance else ONE_PASS
