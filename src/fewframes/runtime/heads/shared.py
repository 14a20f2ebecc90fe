"""Several models over one frame encoder, which is in memory once. Solved read-outs become one matrix product."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from fewframes.errors import ConfigError
from fewframes.models.config import ModelConfig
from fewframes.models.files.formats import format_of
from fewframes.models.files.model_file import Array, ModelFile, read_model_file
from fewframes.models.files.names import exported_in, find_model
from fewframes.models.moments import MomentSet, WindowMoments
from fewframes.runtime.file_graphs import WEIGHTS_OF, has_time_graph
from fewframes.runtime.heads.read_out import HEAD, Linear, read_out_of
from fewframes.runtime.keys import ADDED_LATER, WITHOUT_EFFECT
from fewframes.runtime.onnx_file import OnnxFileRuntime
from fewframes.runtime.open import RuntimeName, open_runtime, torch_only
from fewframes.runtime.protocol import DtypeName, Floats, Runtime, WindowEncoding

ENCODER = WEIGHTS_OF["frames"]


@dataclass(frozen=True)
class _Columns:
    """The columns of a stacked read-out that belong to one model."""

    head: slice | None
    """The columns of the read-out of the video embedding; None if it is zero, as in a solved model."""
    moment_head: slice | None
    moments: MomentSet


class SharedHeads:
    """Several models with the same frame encoder. Frames are embedded by any of them, and windows answered by all.

    The logits of models without a temporal encoder, as solved ones are, come from one matrix product for all of them; moments are
    computed once. They differ from those of each model alone by rounding, less than 1e-5 of a score. Other models run one by one.
    """

    def __init__(self, runtimes: Sequence[Runtime], files: Sequence[ModelFile]) -> None:
        """Stack the read-outs of models. `open_heads` makes this from names."""
        self.runtimes = tuple(runtimes)
        self._columns: dict[int, _Columns] = {}
        stacked: dict[str, list[Linear]] = {}
        frame_width = runtimes[0].frame_width
        for number, (runtime, file) in enumerate(zip(runtimes, files, strict=True)):
            if has_time_graph(file.config):
                continue
            own = read_out_of(file, runtime.name, frame_width, frame_width)
            is_zero = own.moment_head is not None and not own.head.weights.any() and not own.head.bias.any()
            self._columns[number] = _Columns(
                None if is_zero else _added(stacked.setdefault(HEAD, []), own.head),
                None if own.moment_head is None else _added(stacked.setdefault(own.moments, []), own.moment_head),
                own.moments,
            )
        self._stacked = {
            name: Linear(*map(np.concatenate, zip(*parts, strict=True))) for name, parts in stacked.items()
        }

    def encode_windows(
        self, moments: WindowMoments, numbers: Sequence[int] | None = None, *, with_attention: bool = False
    ) -> list[WindowEncoding]:
        """Return what `Runtime.encode_windows` does, for each model, from windows of frame embeddings and their moments.

        Args:
            moments: The windows.
            numbers: The models that are asked, by their place; None for all.
            with_attention: Return the attention too.
        """
        windows_BTD = moments.windows_BTD
        mean_BD = windows_BTD.mean(axis=1)
        attention_BT = np.full(windows_BTD.shape[:2], 1 / windows_BTD.shape[1], np.float32) if with_attention else None
        products = {
            name: linear(mean_BD if name == HEAD else moments.of(name))  # type: ignore[arg-type]
            for name, linear in self._stacked.items()
        }
        return [
            WindowEncoding(_logits(self._columns[number], products), mean_BD, attention_BT)
            if number in self._columns
            else runtime.encode_windows(windows_BTD, with_attention=with_attention)
            for number, runtime in enumerate(self.runtimes)
            if numbers is None or number in numbers
        ]


def _added(parts: list[Linear], own: Linear) -> slice:
    """Add a read-out to those that are stacked, and return its columns in their product."""
    first = sum(len(part.bias) for part in parts)
    parts.append(own)
    return slice(first, first + len(own.bias))


def _logits(columns: _Columns, products: Mapping[str, Floats]) -> Floats:
    """Return the logits (B, K) of one model from the products of all."""
    parts = [
        products[name][:, own]
        for name, own in ((HEAD, columns.head), (columns.moments, columns.moment_head))
        if own is not None
    ]
    return np.ascontiguousarray(parts[0] if len(parts) == 1 else parts[0] + parts[1])


def open_heads(
    names: Sequence[str],
    *,
    device: str = "auto",
    dtype: DtypeName = "auto",
    merge: int | None = None,
    runtime: RuntimeName = "auto",
) -> SharedHeads:
    """Open several models that share a frame encoder. The other arguments are those of `fewframes.load`.

    Raises:
        WeightsError: a model cannot be found or read.
        ConfigError: a model is given twice, is an exported graph, or has another frame encoder, view or number of frames than the
            first one.
        MissingDependency: the library that runs them is not installed.
    """
    if len(names) < 2:
        raise ConfigError(f"{len(names)} models: needs two or more; open one with fewframes.load")
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{name} is given twice; name each model once")
        if format_of(exported_in(name)) is not None:
            raise ConfigError(
                f"{name}: an exported graph has its frame encoder inside, so it cannot share one; give the model file that it was "
                "exported from, or run it alone"
            )
    base = open_runtime(names[0], device=device, dtype=dtype, merge=merge, runtime=runtime)
    first = base.file if isinstance(base, OnnxFileRuntime) else read_model_file(find_model(names[0]))
    files = [first, *_sharing(first, names, ignore_merge=merge is not None)]
    if not base.embeds_frames:
        raise ConfigError(
            f"{names[0]} mixes frames inside its encoder, so its frame embeddings cannot be shared; run it alone"
        )
    others = [_with_head(base, file, name) for file, name in zip(files[1:], names[1:], strict=True)]
    return SharedHeads([base, *others], files)


def _sharing(first: ModelFile, names: Sequence[str], *, ignore_merge: bool) -> Iterator[ModelFile]:
    """Yield the files of the other models, with the frame encoder's weights of the first in place of their own.

    Files are read one after the other, so that the memory holds two encoders at most. Raises ConfigError if a model cannot share
    the encoder of the first.
    """
    for name in names[1:]:
        file = read_model_file(find_model(name))
        reason = _difference(first, file, ignore_merge=ignore_merge)
        if reason:
            raise ConfigError(
                f"{name} and {names[0]} cannot share one pass: {reason}; give models that were trained from the same frame encoder "
                "and left it as it was, or run them one by one"
            )
        yield replace(file, tensors={**_encoder_of(first), **_own_of(file)})


def _difference(first: ModelFile, other: ModelFile, *, ignore_merge: bool) -> str:
    """Return the reason why two models cannot share frame embeddings; an empty text if they can."""
    if first.view != other.view:
        return "they see frames in another size or normalisation"
    if first.config.num_frames != other.config.num_frames:
        return f"they look at {other.config.num_frames} and {first.config.num_frames} frames"
    own, others = _encoder_settings(first.config), _encoder_settings(other.config)
    changed = [name for name in own if own[name] != others.get(name)]
    if changed:
        return f"their frame encoders differ ({changed[0]} {others.get(changed[0])!r} and {own[changed[0]]!r})"
    if first.config.merge != other.config.merge and not ignore_merge:
        return f"they merge {other.config.merge} and {first.config.merge} patches; --merge gives all the same number"
    weights, other_weights = _encoder_of(first), _encoder_of(other)
    same = weights.keys() == other_weights.keys() and all(
        np.array_equal(array, other_weights[key]) for key, array in weights.items() if array.dtype.kind == "f"
    )
    return "" if same else "the weights of their frame encoders differ"


def _encoder_settings(config: ModelConfig) -> dict[str, object]:
    """Return the settings that decide the embedding of a frame."""
    return {
        name: value
        for name, value in asdict(config).items()
        if name not in WITHOUT_EFFECT and (name, value) not in ADDED_LATER
    }


def _encoder_of(file: ModelFile) -> dict[str, Array]:
    return {key: array for key, array in file.tensors.items() if key.startswith(ENCODER)}


def _own_of(file: ModelFile) -> dict[str, Array]:
    return {key: array for key, array in file.tensors.items() if not key.startswith(ENCODER)}


def _with_head(base: Runtime, file: ModelFile, name: str) -> Runtime:
    """Return a runtime for another model with the frame encoder of an opened one."""
    if isinstance(base, OnnxFileRuntime):
        return OnnxFileRuntime(file, name=name, encoder=base)
    return torch_only(base).with_head(file, name)
