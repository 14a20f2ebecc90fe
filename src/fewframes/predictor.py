"""The front door: `load(name_or_path)` -> `Predictor`; a video -> `Prediction`.

Decoding runs ahead in background threads (FFmpeg works outside Python's lock), so that the network does not wait for a
video that could have been ready.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch
from torch import Tensor

from fewframes.clip import Clip, Prediction, Timing
from fewframes.errors import ConfigError, FewframesError, MissingVideo, VideoError, nearest
from fewframes.sampling import centre_times
from fewframes.transforms import fit_frame, pixels_of
from fewframes.video import DEFAULT_FPS, Source, open_video
from fewframes.weights import Checkpoint, load_checkpoint

DEFAULT_MODEL = "lite0-16"
"""The model inside the package."""

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CPU_FRAMES_AT_ONCE = 8
"""Above this many the activations of Lite0 outgrow what malloc keeps, and the time goes into fetching pages (docs/decisions.md)."""
BFLOAT16_GAIN = 1.1
"""How much faster bfloat16 must be found than float32 before it is chosen."""


@dataclass(frozen=True)
class Failure:
    """A video of a batch that could not be labelled, and why."""

    source: str
    error: str
    exit_code: int = 1
    """What a command that was given this video alone ends with."""
    missing: bool = False
    """Whether there is no such video, rather than one that cannot be read."""

    @classmethod
    def of(cls, source: str, error: FewframesError) -> Failure:
        """What went wrong with this video."""
        return cls(source, str(error), error.exit_code, isinstance(error, MissingVideo))

    def to_dict(self) -> dict[str, object]:
        """Plain values, as `fewframes predict --json` writes them."""
        return {"source": self.source, "error": self.error, "missing": self.missing}


def tally(done: int, verb: str, failures: Sequence[Failure]) -> str:
    """`115 evaluated, 3 failed, 2 missing`: what became of many videos."""
    missing = sum(failure.missing for failure in failures)
    return f"{done} {verb}, {len(failures) - missing} failed, {missing} missing"


class Predictor:
    """A model ready to label videos: network, view, labels, on one device in one precision."""

    def __init__(
        self, checkpoint: Checkpoint, *, device: str = "auto", dtype: DtypeName = "auto", name: str = ""
    ) -> None:
        self.name = name
        self.labels = checkpoint.labels
        self.view = checkpoint.view
        self.config = checkpoint.model.config
        self.checkpoint = checkpoint
        self.device = choose_device(device)
        self.model = checkpoint.model.eval().to(self.device).to(memory_format=torch.channels_last)
        fold_norms = getattr(self.model.frame_encoder, "fold_norms", None)
        if fold_norms is not None:
            fold_norms()
        self.dtype = self._choose_dtype(dtype)
        self.model.frame_encoder.to(self.dtype)

    def predict(
        self,
        source: Source,
        *,
        num_frames: int | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
        fps: float = DEFAULT_FPS,
    ) -> Prediction:
        """What happens in one video, or between two moments of it.

        `source` as for `video.open_video`; `num_frames` other than the model's own has its temporal positions
        interpolated; `fps` is for inputs without a rate of their own. Raises VideoError.
        """
        frames = self.config.num_frames if num_frames is None else num_frames
        return self._label(*self._read(source, frames, start_s, end_s, fps, threads=0))

    def predict_many(
        self,
        sources: Iterable[str | os.PathLike[str]],
        *,
        num_frames: int | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
        workers: int | None = None,
    ) -> Iterator[Prediction | Failure]:
        """One result for each source (paths or URLs), in their order; a video that cannot be read gives a `Failure`.

        `workers` videos are decoded at a time, by one thread each (default: one a core).
        """
        if isinstance(sources, str | os.PathLike):
            raise TypeError(f"sources = {sources!r}: needs several; use predict for one")
        workers = workers or torch.get_num_threads()
        frames = self.config.num_frames if num_frames is None else num_frames
        remaining = iter(sources)
        waiting: deque[tuple[str, Future[tuple[Clip, float, float]]]] = deque()
        with ThreadPoolExecutor(workers, thread_name_prefix="fewframes-decode") as pool:
            try:
                while True:
                    for source in islice(remaining, 2 * workers - len(waiting)):
                        future = pool.submit(self._read, source, frames, start_s, end_s, DEFAULT_FPS, threads=1)
                        waiting.append((os.fspath(source), future))
                    if not waiting:
                        return
                    source, future = waiting.popleft()
                    try:
                        read = future.result()
                    except FewframesError as error:
                        yield Failure.of(source, error)
                        continue
                    yield self._label(*read)
            finally:
                for _, future in waiting:
                    future.cancel()

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
        return self._read(source, frames, start_s, end_s, fps, threads=threads)[0]

    def embed_frames(self, frames_TCHW: Tensor) -> Tensor:
        """Frame embeddings f_t (Eq. 10) of frames that fit the view: (T, C, H, W) uint8 -> (T, D) float32, CPU."""
        at_once = CPU_FRAMES_AT_ONCE if self.device.type == "cpu" else len(frames_TCHW)
        embeddings = []
        with torch.inference_mode():
            for part_TCHW in frames_TCHW.split(at_once):
                pixels_TCHW = pixels_of(part_TCHW.to(self.device)).contiguous(memory_format=torch.channels_last)
                embeddings.append(self.model.encode_frames(pixels_TCHW).cpu())
        return torch.cat(embeddings)

    def _read(
        self, source: Source, num_frames: int, start_s: float, end_s: float | None, fps: float, *, threads: int
    ) -> tuple[Clip, float, float]:
        """The frames of one video as the view has them, and the seconds that decoding and resizing took."""
        transform_s = 0.0

        def prepare(frame_CHW: Tensor) -> Tensor:
            nonlocal transform_s
            began = time.perf_counter()
            fitted_CHW = fit_frame(frame_CHW, self.view)
            transform_s += time.perf_counter() - began
            return fitted_CHW

        if num_frames < 1:
            raise ValueError(f"num_frames = {num_frames}: needs at least 1")
        began = time.perf_counter()
        with closing(open_video(source, fps=fps, threads=threads)) as video:
            try:
                times_s = centre_times(video.duration_s, num_frames, start_s=start_s, end_s=end_s)
            except ValueError as error:
                raise VideoError(f"{video.name}: {error}") from None
            clip = video.frames_at(times_s, prepare)
        return clip, time.perf_counter() - began - transform_s, transform_s

    def _label(self, clip: Clip, decode_s: float, transform_s: float) -> Prediction:
        began = time.perf_counter()
        with torch.inference_mode():
            frames_TCHW = clip.frames.to(self.device)
            if self.config.layout == "factorised":
                frames_1TD = self.embed_frames(frames_TCHW)[None]
            else:
                frames_1TD = self.model.encode_clips(pixels_of(frames_TCHW)[None])
            encoded = self.model.encode_video(frames_1TD.to(self.device), with_attention=True)
            scores_K = self.model.scores(encoded.logits).squeeze(0).cpu()
        assert encoded.frame_attention is not None
        return Prediction(
            source=clip.source,
            labels=self.labels,
            scores=scores_K,
            times_s=clip.times_s.float(),
            frame_attention=encoded.frame_attention.squeeze(0).cpu(),
            embedding=encoded.embedding.squeeze(0).cpu(),
            frame_embeddings=frames_1TD.squeeze(0).cpu(),
            timing=Timing(decode_s, transform_s, time.perf_counter() - began),
        )

    def _choose_dtype(self, name: DtypeName) -> torch.dtype:
        if name == "auto":
            return self._fastest_dtype()
        if name not in DTYPES:
            raise ConfigError(f"dtype {name!r}: {nearest(name, ['auto', *DTYPES])}")
        return DTYPES[name]

    def _fastest_dtype(self) -> torch.dtype:
        """bfloat16 where this processor runs this very encoder faster in it, by the clock; float32 otherwise."""
        if self.config.layout != "factorised":
            return torch.float32
        encoder = self.model.frame_encoder
        seconds = {
            dtype: _seconds_a_frame(copy.deepcopy(encoder).to(dtype), self.config.image_size, self.device)
            for dtype in (torch.float32, torch.bfloat16)
        }
        gain = seconds[torch.float32] / seconds[torch.bfloat16]
        return torch.bfloat16 if gain > BFLOAT16_GAIN else torch.float32


def load(
    name_or_path: str | os.PathLike[str] = DEFAULT_MODEL, *, device: str = "auto", dtype: DtypeName = "auto"
) -> Predictor:
    """A `Predictor` from a preset's name (see `fewframes models`) or a checkpoint file.

    `device`: `auto` takes CUDA, then Apple's MPS, then the CPU. `dtype`: `auto` takes bfloat16 where it is measured to
    be faster here, float32 otherwise. Raises WeightsError or ConfigError.
    """
    return Predictor(load_checkpoint(name_or_path), device=device, dtype=dtype, name=os.fspath(name_or_path))


def choose_device(name: str) -> torch.device:
    """The device to compute on; ConfigError for one that is unknown or not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used here ({reason}); take 'auto' or 'cpu'") from None
    return device


def _seconds_a_frame(encoder: torch.nn.Module, image_size: int, device: torch.device) -> float:
    frame_1CHW = torch.rand(1, 3, image_size, image_size, device=device).contiguous(memory_format=torch.channels_last)
    frame_1CHW = frame_1CHW.to(next(encoder.parameters()).dtype)
    best_s = math.inf
    with torch.inference_mode():
        for _ in range(3):  # the first warms up
            began = time.perf_counter()
            encoder(frame_1CHW).float().sum().item()  # reading the value waits for the device
            best_s = min(best_s, time.perf_counter() - began)
    return best_s
