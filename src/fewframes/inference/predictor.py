"""The front door: `load(name_or_path)` -> `Predictor`; a video -> `Prediction`.

Decoding runs ahead in background threads (FFmpeg works outside Python's lock), so that the network does not wait for a
video that could have been ready.
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

from fewframes.core.ahead import worked_ahead
from fewframes.core.arguments import real_number, whole_number
from fewframes.core.devices import auto_dtype, choose_device
from fewframes.errors import ConfigError, FewframesError, MissingDependency, VideoError, nearest
from fewframes.inference.clips import ClipReader, ClipRequest, DecodedClips
from fewframes.inference.early_exit import answer, confidence, stages_of
from fewframes.inference.stream import OnEvent, Stream
from fewframes.inference.threads import num_lanes, side_by_side
from fewframes.models.checkpoint import Checkpoint
from fewframes.models.exit_plan import ExitPlan, check_can_exit
from fewframes.models.hub import load_checkpoint
from fewframes.models.networks import sharing_copy
from fewframes.models.stam import VideoEncoding
from fewframes.models.token_merging import merge_tokens
from fewframes.results import Clip, Failure, Prediction, Timing
from fewframes.video.decode.container import Limits
from fewframes.video.live_settings import StreamConfig
from fewframes.video.live_source import LiveSource
from fewframes.video.sampling import ONE_PASS, Views
from fewframes.video.source import DEFAULT_FPS, BackendName, Source
from fewframes.video.torchcodec import why_not
from fewframes.video.transforms import pixels_of

DEFAULT_MODEL = "lite0-16"
"""The model inside the package."""

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
BackendChoice = Literal["auto", "pyav", "torchcodec"]
BACKENDS = ("auto", "pyav", "torchcodec")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CPU_BYTES_AT_ONCE = 16
"""Frames that a lane takes at once on a CPU, times the bytes of a value: 4 in float32, 8 in bfloat16. With more the activations
of Lite0 outgrow what malloc keeps, and the time goes into fetching pages (docs/decisions.md)."""
FRAMES_AT_ONCE = 256
"""The same elsewhere: the most frames of any preset's clip are 64, and many views of a video must not fill the memory."""
WINDOWS_AT_ONCE = 256
"""Windows of frame embeddings that the temporal half takes at once."""


class Predictor:
    """A model ready to label videos: network, view, labels, on one device in one precision.

    The checkpoint stays as it is: it can be saved, or trained, afterwards. Weights that need no cast are shared with it.
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

    def through(self, embed: Callable[[Tensor], Tensor], limits: Limits) -> Predictor:
        """The same model, whose frames go through `embed`, (T, C, H, W) uint8 -> (T, D), where those of several videos can be
        embedded together, and which reads no videos above `limits`."""
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
        """What happens in one video, or between two moments of it.

        `source` as for `video.open_video`; `num_frames` other than the model's own has its temporal positions
        interpolated; `tolerance` (0-0.5) lets each moment move by that share of the frames' spacing to where decoding is
        cheapest; `early_exit` looks at a few frames first and at more only while the answer's calibrated confidence is below
        that number (0-1), or, when True, below what was fitted for this model; `fps` is for inputs without a rate of their
        own. Raises VideoError, and ConfigError where this model cannot stop early.
        """
        frames = self.config.num_frames if num_frames is None else num_frames
        part = ClipRequest(one_pass(tolerance), frames, start_s, end_s, fps)
        plan = self.exit_plan(early_exit, num_frames)
        return (
            self.label(self.reader.read(source, part, threads=0))
            if plan is None
            else self._glance(source, part, plan, 0)
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
        """One result for each source (paths or URLs), in their order; a video that cannot be read gives a `Failure`.

        `workers` videos are decoded at a time, by one thread each (default: one a core). The other arguments as for `predict`.
        """
        if isinstance(sources, str | os.PathLike):
            raise TypeError(f"sources = {sources!r}: needs several; use predict for one")
        workers = whole_number("workers", workers or torch.get_num_threads(), 1)
        frames = self.config.num_frames if num_frames is None else num_frames
        part, plan = ClipRequest(one_pass(tolerance), frames, start_s, end_s), self.exit_plan(early_exit, num_frames)

        def work(source: str | os.PathLike[str]) -> DecodedClips | Prediction:
            return self.reader.read(source, part, threads=1) if plan is None else self._glance(source, part, plan, 1)

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
        """The answers over the last seconds of a camera, network stream, file or pipe, as they come: iterate over it.

        `source` as for `live.LiveSource`; `on_event` hears at once of what happens to the stream. Raises VideoError, and
        ConfigError for a model whose frames have no embedding of their own.
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
        """The frames that `predict` looks at, as the model's view has them; `threads` decode (0: as many as help)."""
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
        """Several views of one video, which is opened once: clip after clip, of each its crops. Raises VideoError, and
        ConfigError where the model's view leaves nothing to crop."""
        self.check_views(views)
        frames = self.config.num_frames if num_frames is None else num_frames
        return self.reader.read(source, ClipRequest(views, frames, start_s, end_s), threads=1).clips

    def check_views(self, views: Views) -> None:
        """ConfigError where the model's view leaves nothing to crop."""
        if views.num_crops > 1 and self.view.fit != "crop":
            raise ConfigError(
                f"{views.num_crops} crops: this model's view ({self.view.fit}) shows the whole picture, so there is nothing to "
                "crop; take 1"
            )

    def encode_clips(self, frames_VTCHW: Tensor) -> Tensor:
        """Frame embeddings f_t (Eq. 10) whatever the layout: clips (V, T, C, H, W) uint8 -> (V, T, D) float32, CPU."""
        if self.config.layout == "factorised":
            return self.embed_frames(frames_VTCHW.flatten(0, 1)).unflatten(0, frames_VTCHW.shape[:2])
        with torch.inference_mode():
            clips = [self.model.encode_clips(pixels_of(clip[None].to(self.device))).cpu() for clip in frames_VTCHW]
        return torch.cat(clips)

    def embed_frames(self, frames_TCHW: Tensor) -> Tensor:
        """Frame embeddings f_t (Eq. 10) of frames that fit the view: (T, C, H, W) uint8 -> (T, D) float32, CPU."""
        if self._embed_elsewhere is not None:
            return self._embed_elsewhere(frames_TCHW)
        if self.device.type != "cpu":
            return torch.cat([self._embed(part_TCHW) for part_TCHW in frames_TCHW.split(FRAMES_AT_ONCE)])
        evenly = -(-len(frames_TCHW) // num_lanes())
        at_once = max(1, min(evenly, CPU_BYTES_AT_ONCE // self.dtype.itemsize))
        return torch.cat(side_by_side(self._embed, frames_TCHW.split(at_once)))

    def _embed(self, frames_TCHW: Tensor) -> Tensor:
        with torch.inference_mode():
            pixels_TCHW = pixels_of(frames_TCHW.to(self.device)).contiguous(memory_format=torch.channels_last)
            return self.model.encode_frames(pixels_TCHW).cpu()

    def encode_windows(
        self, windows_BTD: Tensor, *, with_attention: bool = False, kept_BT2W: Tensor | None = None
    ) -> VideoEncoding:
        """What the temporal half says of many windows of frame embeddings (B, T, D): each field float32, CPU.

        `predict`, streams and timelines all answer through it, so they cannot disagree. `kept_BT2W`: what `keep` said of each
        frame.
        """
        num_parts = -(-len(windows_BTD) // WINDOWS_AT_ONCE)
        kept = [None] * num_parts if kept_BT2W is None else kept_BT2W.split(WINDOWS_AT_ONCE)
        with torch.inference_mode():
            parts = [
                self.model.encode_video(
                    part_BTD.to(self.device),
                    with_attention=with_attention,
                    cached_BT2W=None if part_BT2W is None else part_BT2W.to(self.device),
                )
                for part_BTD, part_BT2W in zip(windows_BTD.split(WINDOWS_AT_ONCE), kept, strict=True)
            ]
        attention = [part.frame_attention.cpu() for part in parts if part.frame_attention is not None]
        return VideoEncoding(
            torch.cat([part.logits for part in parts]).cpu(),
            torch.cat([part.embedding for part in parts]).cpu(),
            torch.cat(attention) if attention else None,
        )

    def keep(self, before_D: Tensor, frame_D: Tensor) -> Tensor | None:
        """What of a frame's token every window shares (`MotionTokens.kept`): two embeddings (D,) -> (2, W), CPU; None for a model
        without motion tokens."""
        motion = self.model.temporal_encoder.motion
        if motion is None:
            return None
        with torch.inference_mode():
            return motion.cacheable_parts(before_D[None].to(self.device), frame_D[None].to(self.device))[0].cpu()

    def exit_plan(self, early_exit: bool | float, num_frames: int | None = None) -> ExitPlan | None:
        """When to stop looking; None for not at all before the end. ConfigError where this model cannot stop early."""
        if early_exit is False:
            return None
        if early_exit is not True:
            real_number("early_exit", early_exit, above=0, high=1)
        check_can_exit(self.model)
        own = self.config.num_frames
        if num_frames is not None and num_frames != own:
            raise ConfigError(
                f"{num_frames} frames with early exit, whose stages are of this model's {own}; leave one of the two out"
            )
        plan = self.checkpoint.exits
        if plan is None and early_exit is True:
            raise ConfigError(
                f"{self.name}: when it may stop early was not fitted for this model; train with --early-exit, or name the "
                "confidence from which on an answer is given, such as 0.9"
            )
        if plan is None:
            stages = stages_of(own)
            plan = ExitPlan(stages=stages, temperatures=(1.0,) * len(stages), threshold=1.0)
        plan.check(self.model)
        return plan if early_exit is True else replace(plan, threshold=float(early_exit))

    def _glance(self, source: Source, part: ClipRequest, plan: ExitPlan, threads: int) -> Prediction:
        """Frames stage by stage, until the answer is sure enough."""
        network_s, began = 0.0, time.perf_counter()
        times_N, frames_ND = torch.empty(0), torch.empty(0)
        with self.reader.opened(source, part, threads=threads) as video:
            for stage, places in enumerate(plan.stages):
                new = plan.new_positions(stage)
                clip = video.look_again(new) if stage else video.look_first(new)
                met = time.perf_counter()
                new_ND = self.embed_frames(clip.frames.squeeze(1))
                looked_at = [*(plan.stages[stage - 1] if stage else ()), *new]
                order = [looked_at.index(place) for place in places]
                frames_ND = (torch.cat([frames_ND, new_ND]) if stage else new_ND)[order]
                times_N = torch.cat([times_N, clip.times_s.float()])[order]
                encoded, shares_TN = answer(self.model, frames_ND[None].to(self.device), places)
                sure = float(confidence(encoded.logits, plan.temperatures[stage])) >= plan.threshold
                network_s += time.perf_counter() - met
                if sure:
                    break
        decode_s = time.perf_counter() - began - network_s - video.transform_s
        timing = Timing(decode_s, video.transform_s, network_s)
        prediction = self._prediction(replace(clip, times_s=times_N), frames_ND, encoded, timing)
        return replace(prediction, frame_attention=prediction.frame_attention @ shares_TN.cpu())

    def label(self, read: DecodedClips) -> Prediction:
        """What happens in a video whose frames have been read; of several views, the first's."""
        return self.label_many([read])[0]

    def label_many(self, reads: Sequence[DecodedClips]) -> list[Prediction]:
        """The same of videos with equally many frames, which go through the network together."""
        began = time.perf_counter()
        clips = [read.clips[0] for read in reads]
        frames_BTD = self.encode_clips(torch.stack([clip.frames for clip in clips]))
        encoded = self.encode_windows(frames_BTD, with_attention=True)
        found = [
            self._prediction(clip, frames_TD, said, Timing(0.0, 0.0, 0.0))
            for clip, frames_TD, said in zip(clips, frames_BTD, encoded.each(), strict=True)
        ]
        network_s = (time.perf_counter() - began) / len(reads)
        timings = [Timing(read.decode_s, read.transform_s, network_s) for read in reads]
        return [replace(one, timing=timing) for one, timing in zip(found, timings, strict=True)]

    def _prediction(self, clip: Clip, frames_TD: Tensor, encoded: VideoEncoding, timing: Timing) -> Prediction:
        """What the network said of one video, for the caller."""
        assert encoded.frame_attention is not None
        with torch.inference_mode():
            scores_K = self.model.scores(encoded.logits).squeeze(0).cpu()
        if not scores_K.isfinite().all():
            raise VideoError(no_numbers(clip.source, self.dtype))
        return Prediction(
            source=clip.source,
            labels=self.labels,
            scores=scores_K,
            times_s=clip.times_s.float(),
            frame_attention=encoded.frame_attention.squeeze(0).cpu(),
            embedding=encoded.embedding.squeeze(0).cpu(),
            frame_embeddings=frames_TD,
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
    """A `Predictor` from a preset's name (see `fewframes models`) or a checkpoint file.

    `device`: `auto` takes CUDA, then Apple's MPS, then the CPU. `dtype`: `auto` takes bfloat16 where the device has
    instructions for it (`fewframes doctor` says), float32 otherwise. `backend`: `auto` decodes with torchcodec on a GPU on
    which that works, with PyAV elsewhere. `merge`: patches that each block of a ViT merges away; None is what the model was
    trained with. Raises WeightsError or ConfigError.
    """
    checkpoint = load_checkpoint(name_or_path)
    name = os.fspath(name_or_path)
    return Predictor(checkpoint, device=device, dtype=dtype, backend=backend, merge=merge, name=name)


def choose_dtype(name: DtypeName, device: torch.device) -> torch.dtype:
    """Return the precision of the frame encoder; `auto` is a rule (machine.auto_dtype). ConfigError for an unknown name."""
    if name == "auto":
        return auto_dtype(device)[0]
    if name not in DTYPES:
        raise ConfigError(f"dtype {name!r}: {nearest(str(name), ['auto', *DTYPES])}")
    return DTYPES[name]


def no_numbers(source: str, dtype: torch.dtype) -> str:
    """Return what to say where the network's answer for a video is NaN."""
    remedy = "; take another dtype, such as float32" if dtype == torch.float16 else ""
    return f"{source}: the network's answers are no numbers{remedy}"


def name_of(dtype: torch.dtype) -> DtypeName:
    """The name of a precision, as `load` takes it."""
    names: dict[torch.dtype, DtypeName] = {
        torch.float32: "float32",
        torch.bfloat16: "bfloat16",
        torch.float16: "float16",
    }
    return names[dtype]


def choose_backend(name: BackendChoice, device: torch.device) -> BackendName:
    """Return what decodes videos. Raises MissingDependency where torchcodec is asked for and cannot be used, and ConfigError."""
    if name not in BACKENDS:
        raise ConfigError(f"backend {name!r}: {nearest(str(name), BACKENDS)}")
    if name == "pyav" or (name == "auto" and device.type != "cuda"):
        return "pyav"  # which decodes less for the same frames (docs/explanation/performance.md)
    reason = why_not(str(device))
    if reason and name == "torchcodec":
        raise MissingDependency(f"the backend torchcodec cannot be used on {device} ({reason}); take 'auto' or 'pyav'")
    return "pyav" if reason else "torchcodec"


def one_pass(tolerance: float) -> Views:
    """What `predict` looks at, each moment moved by up to this share of the frames' spacing."""
    tolerance = real_number("tolerance", tolerance, low=0, high=0.5)
    return Views(tolerance=tolerance) if tolerance else ONE_PASS
