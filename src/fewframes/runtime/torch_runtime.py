"""The runtime for networks of torch. It takes a whole model, or a checkpoint file, and runs it on any device of torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewframes.core.arguments import whole_number
from fewframes.errors import ConfigError, nearest
from fewframes.models.attention_maps import choose_method, frame_maps
from fewframes.models.config import MapChoice, MapMethod
from fewframes.models.devices import auto_dtype, choose_device, float32_products
from fewframes.models.files.checkpoint import Checkpoint, checkpoint_of
from fewframes.models.files.model_file import ModelFile
from fewframes.models.files.networks import sharing_copy
from fewframes.models.layers import pixels_of
from fewframes.models.stam import STAM, VideoEncoding
from fewframes.models.temporal import RecurrentState
from fewframes.models.token_merging import merge_tokens, merged_per_block
from fewframes.runtime.keys import encoder_key, model_key
from fewframes.runtime.protocol import DtypeName, Floats, Frames, WindowEncoding
from fewframes.runtime.threads import num_threads, side_by_side

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CPU_BYTES_AT_ONCE = 16
"""Frames that a thread embeds at once on a CPU, times the bytes of a value: 4 frames in float32, 8 in bfloat16. With more frames
the activations of Lite0 outgrow what malloc holds on to, and the time goes into fetching pages (docs/decisions).
"""
FRAMES_AT_ONCE = 256
"""Frames embedded at once on other devices. A preset's clip has at most 64; many views of a video must not fill the memory."""
WINDOWS_AT_ONCE = 256
"""Windows of frame embeddings that the temporal half takes at once."""


class TorchRuntime:
    """A network of torch that is ready to run, on one device in one precision. It implements `Runtime` and every ability.

    The checkpoint is not changed: it can be saved, or trained, afterwards. Weights that need no cast are shared with it.
    """

    kind = "torch"
    least_frames = 1
    torch_device: torch.device
    model: STAM
    merge: int
    dtype: torch.dtype
    precision: str

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str = "auto",
        dtype: DtypeName = "auto",
        merge: int | None = None,
        name: str = "",
        encoder: TorchRuntime | None = None,
    ) -> None:
        """Put a checkpoint's network on a device.

        Args:
            checkpoint: the model.
            device: the name of a device of torch; `auto` takes CUDA, then Apple's MPS, then the CPU.
            dtype: the precision of the frame encoder; `auto` takes bfloat16 where the device has instructions for it. On a GPU
                the rest is computed in float32 with TF32, and without it if this is float32.
            merge: the patches that each block of a ViT merges away; None is the number that the model was trained with.
            name: the model's name in errors and files.
            encoder: a runtime with the same frame encoder, which this one uses too; device, dtype and merge are those of it.

        Raises:
            ConfigError: the device cannot be used, or there is no such precision.
        """
        if not isinstance(checkpoint, Checkpoint):
            raise TypeError(f"checkpoint = {checkpoint!r}: needs a Checkpoint; fewframes.load takes names and paths")
        self.name, self.checkpoint = name, checkpoint
        self.config = config = checkpoint.model.config
        self.provenance = checkpoint.provenance
        self.labels, self.view, self.exits = checkpoint.labels, checkpoint.view, checkpoint.exits
        self.thresholds = checkpoint.thresholds
        self.rejection = checkpoint.rejection
        self.boundaries = checkpoint.boundaries
        self.num_frames, self.task = config.num_frames, config.task
        self.embeds_frames = config.layout == "factorised"
        self.any_num_frames = True
        self.causal = config.is_causal
        self.torch_device = choose_device(device) if encoder is None else encoder.torch_device
        self.device = str(self.torch_device)
        kept = {} if encoder is None else {checkpoint.model.frame_encoder: encoder.model.frame_encoder}
        self.model = sharing_copy(checkpoint.model, kept).eval().to(self.torch_device)
        self.model.to(memory_format=torch.channels_last)
        # With its index: `cuda` alone is another GPU in a thread that begins later, if torch.cuda.set_device was called.
        self.torch_device = next(self.model.parameters()).device
        self.frame_width, self.video_width = self.model.frame_width, self.model.temporal_encoder.width
        if encoder is not None:
            self.merge, self.dtype, self.precision = encoder.merge, encoder.dtype, encoder.precision
            return
        fold_norms = getattr(self.model.frame_encoder, "fold_norms", None)
        if fold_norms is not None:
            fold_norms()
        merge_tokens(self.model.frame_encoder, config.merge if merge is None else whole_number("merge", merge, 0))
        self.merge = merged_per_block(self.model.frame_encoder)
        self.dtype = choose_dtype(dtype, self.torch_device)
        self.precision = str(self.dtype).removeprefix("torch.")
        self.model.frame_encoder.to(self.dtype)

    def with_head(self, file: ModelFile, name: str) -> TorchRuntime:
        """Return a runtime for another model with the same frame encoder, whose weights are in memory once. Raises WeightsError."""
        checkpoint = checkpoint_of(file, Path(name), frame_encoder=self.checkpoint.model.frame_encoder)
        return TorchRuntime(checkpoint, name=name, encoder=self)

    def encoder_key(self) -> str:
        """Return a key of the frame encoder's weights, as they are in the model file, and of its precision."""
        weights = _arrays(self.checkpoint.model.frame_encoder)
        return encoder_key(weights, self.checkpoint.model.config, precision=self.precision, merge=self.merge)

    def model_key(self) -> str:
        """Return a key of all weights of the model, as they are in the model file."""
        return model_key(_arrays(self.checkpoint.model))

    def embed_frames(self, frames_TCHW: Frames) -> Floats:
        """Return frame embeddings f_t (Eq. 10): (T, C, H, W) uint8 -> (T, D)."""
        frames = _tensor(frames_TCHW)
        if self.torch_device.type != "cpu":
            # Fetched once, at the end: while the GPU computes a part, the next is copied to it.
            parts = [
                embedded for part_TCHW in frames.split(FRAMES_AT_ONCE) for embedded in self._embed_fitting(part_TCHW)
            ]
            return _array(torch.cat(parts).cpu())
        evenly = -(-len(frames) // num_threads())
        at_once = max(1, min(evenly, CPU_BYTES_AT_ONCE // self.dtype.itemsize))
        return _array(torch.cat(side_by_side(self._embed, frames.split(at_once))))

    def _embed_fitting(self, frames_TCHW: Tensor) -> list[Tensor]:
        """Return the embeddings of some frames, in as many parts as the memory of the device needs."""
        try:
            return [self._embed(frames_TCHW)]
        except torch.OutOfMemoryError:
            if len(frames_TCHW) == 1:
                raise
        return [embedded for half in frames_TCHW.chunk(2) for embedded in self._embed_fitting(half)]

    def _embed(self, frames_TCHW: Tensor) -> Tensor:
        """Return the embeddings of some frames, on the device."""
        there_TCHW = sent(frames_TCHW, self.torch_device)
        with self._computing():
            return self.model.encode_frames(pixels_of(there_TCHW).contiguous(memory_format=torch.channels_last))

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Run the block without gradients; on a GPU with TF32 in what is float32, unless all of it was to be float32."""
        with torch.inference_mode(), float32_products(self.torch_device, tf32=self.dtype != torch.float32):
            yield

    def encode_clips(self, frames_BTCHW: Frames) -> Floats:
        """Return frame embeddings of whole clips, in any layout: (B, T, C, H, W) uint8 -> (B, T, D)."""
        if self.embeds_frames:
            num_videos, num_frames = frames_BTCHW.shape[:2]
            return self.embed_frames(frames_BTCHW.reshape(-1, *frames_BTCHW.shape[2:])).reshape(
                num_videos, num_frames, -1
            )
        with self._computing():
            pixels = (pixels_of(sent(_tensor(clip)[None], self.torch_device)) for clip in frames_BTCHW)
            embeddings_BTD = torch.cat([self.model.encode_clips(pixels_1TCHW) for pixels_1TCHW in pixels])
        return _array(embeddings_BTD.cpu())

    def encode_windows(self, embeddings_BTD: Floats, *, with_attention: bool = False) -> WindowEncoding:
        """Return logits, video embeddings and, if asked for, frame attention of windows of frame embeddings (B, T, D)."""
        parts = _tensor(embeddings_BTD).split(WINDOWS_AT_ONCE)
        with self._computing():
            encoded = [
                self.model.encode_video(sent(part_BTD, self.torch_device), with_attention=with_attention)
                for part_BTD in parts
            ]
        return _joined(encoded)

    def map_method(self, asked: MapChoice) -> MapMethod | None:
        """Return the method for maps over frames; None for `none`. Raises ConfigError if the model lacks the one asked for."""
        return choose_method(self.model.frame_encoder, asked)

    def frame_maps(self, frames_TCHW: Frames, method: MapMethod, label: int) -> Floats:
        """Return the maps (T, h, w) of the frames of one video (T, C, H, W) uint8 for the action of this index."""
        pixels_TCHW = pixels_of(_tensor(frames_TCHW).to(self.torch_device))
        with float32_products(self.torch_device, tf32=self.dtype != torch.float32):
            return _array(frame_maps(self.model, pixels_TCHW, method, label))

    def motion_cache(self, before_D: Floats, embedding_D: Floats) -> Floats | None:
        """Return two parts (2, W) of a frame's motion token that no window changes (`MotionTokens.cacheable_parts`), or None."""
        motion = self.model.temporal_encoder.motion
        if motion is None:
            return None
        before_1D, embedding_1D = (_tensor(row)[None].to(self.torch_device) for row in (before_D, embedding_D))
        with self._computing():
            parts_2W = motion.cacheable_parts(before_1D, embedding_1D)[0]
        return _array(parts_2W.cpu())

    def encode_cached(self, embeddings_BTD: Floats, cached_BT2W: Floats) -> WindowEncoding:
        """Return what `encode_windows` does, for less work, given the `motion_cache` of each frame."""
        embeddings, cached = (_tensor(array).to(self.torch_device) for array in (embeddings_BTD, cached_BT2W))
        with self._computing():
            encoded = self.model.encode_video(embeddings, cached_BT2W=cached)
        return _joined([encoded])

    def step(self, embedding_D: Floats, state: RecurrentState | None) -> tuple[WindowEncoding, RecurrentState]:
        """Return the encoding of all frames of a stream so far (B = 1), given one more (D,), and the new state."""
        with self._computing():
            encoded, state = self.model.step_video(_tensor(embedding_D)[None].to(self.torch_device), state)
        return _joined([encoded]), state


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Return values on the device. To a GPU they go by way of pinned memory, while it computes; Python does not wait for them."""
    if device.type != "cuda":
        return values.to(device)
    copies, computing = _copies(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(copies):
        there = values.pin_memory().to(device, non_blocking=True)  # torch reuses pinned memory only after the copy
    computing.wait_stream(copies)
    there.record_stream(computing)  # its memory is that of the other stream, which must not reuse it too early
    return there


@cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    """Return the stream on which values are copied to a GPU."""
    return torch.cuda.Stream(device)


def choose_dtype(name: DtypeName, device: torch.device) -> torch.dtype:
    """Return the precision of the frame encoder; for `auto` it follows from the device (`auto_dtype`). Raises ConfigError."""
    if name == "auto":
        return auto_dtype(device)[0]
    if name not in DTYPES:
        raise ConfigError(f"dtype {name!r}: {nearest(str(name), ['auto', *DTYPES])}")
    return DTYPES[name]


def _joined(parts: list[VideoEncoding]) -> WindowEncoding:
    """Return the encodings of several batches as one, in arrays."""
    attention = [part.frame_attention for part in parts if part.frame_attention is not None]
    return WindowEncoding(
        _array(torch.cat([part.logits for part in parts]).cpu()),
        _array(torch.cat([part.embedding for part in parts]).cpu()),
        _array(torch.cat(attention).cpu()) if attention else None,
    )


def _arrays(module: torch.nn.Module) -> dict[str, NDArray[Any]]:
    """Return the weights of a module as arrays."""
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def _array(tensor: Tensor) -> NDArray[np.float32]:
    """Return a tensor on the CPU as an array in the same memory."""
    array: NDArray[np.float32] = tensor.numpy()
    return array


def _tensor(array: NDArray[Any]) -> Tensor:
    """Return an array as a tensor, in the same memory where torch takes that: it does not take read-only memory."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
