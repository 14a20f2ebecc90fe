"""Model files: one file holds a whole model, and is read and written here with numpy alone.

The file is safetensors. Its metadata has a header (architecture, view, sampling, labels, training provenance, metrics and licences)
and may have graphs, which ONNX Runtime runs with the tensors of the file as their weights. Tensors with the prefix `rejection.` are
no weights of the network: they judge which videos show none of its actions. Tensors with the prefix `boundaries.` are those of the
detector of spans in long videos.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from fewframes.core.files import whole
from fewframes.core.settings import settings_from
from fewframes.errors import ConfigError, WeightsError
from fewframes.models.boundaries.boundaries import Boundaries, is_half
from fewframes.models.config import ExitPlan, ModelConfig
from fewframes.models.rejection.judge import Judge, judge_of
from fewframes.models.rejection.rejection import HALVES
from fewframes.video.view import ViewConfig

MODEL_FILE = "model.safetensors"
"""The name of the model in the output folder of training. The path of that folder stands for it."""
FORMAT = 5
"""The newest version of the header. A file with a higher version was written by a newer fewframes. A file is written
in the lowest version that has all it needs: 2 brought the rejection, 3 the detector, 4 image-text encoders, 5 several tokens a
frame and the recurrence over time."""
WITHOUT_FIELD = frozenset({("tower", None), ("cell_tokens", False)})
"""The settings of a model, and their values, that are left out of the header. Older versions of fewframes do not know them."""
HEADER_KEY = "fewframes"
"""The key of the header in the metadata of a safetensors file."""
GRAPH_PREFIX = "graph."
"""The prefix of the keys of graphs in the metadata: `graph.frames` and `graph.time`, each compressed and in base 64."""
REJECTION_PREFIX = "rejection."
"""The prefix of the keys of the arrays of a rejection."""
BOUNDARIES_PREFIX = "boundaries."
"""The prefix of the keys of the arrays of a detector."""
MOST_GRAPH_BYTES = 64 * 2**20
"""The largest graph. A few damaged bytes could claim more than the memory holds."""
WITHOUT_GRAPHS = frozenset(
    "num_classes task moment_head moments temporal_positions token_dropout temporal_dropout drop_path".split()
)
"""The settings of a model that change none of its graphs: they belong to the heads, to training, or to the first weights."""
HEADER_FIELDS = {"format", "sampling", "model", "view", "labels", "provenance", "metrics", "licences"}
"""The fields that every header has."""
SAMPLING = "uniform"
"""The only rule for choosing frames: the centre of each of T equal parts of the whole video."""
MOST_REASON = 300
"""The most characters of another package's error message that ours repeats."""
NUMBERS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "I16": "int16",
    "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
"""The kinds of numbers: their names in safetensors, and in numpy and torch."""
CODES = {name: code for code, name in NUMBERS.items()}

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class ModelFile:
    """The content of a model file."""

    config: ModelConfig
    """The architecture."""
    view: ViewConfig
    """The size and normalisation of the frames that the network takes."""
    labels: tuple[str, ...]
    """The names of the K actions."""
    tensors: Mapping[str, Array]
    """The weights by their keys in the network, real numbers as float32."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """The training that made the model: data, fingerprint, settings, versions."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """The measurements of the model, with their protocol."""
    licences: Mapping[str, str] = field(default_factory=dict)
    """The licences of the code, of the weights that training started from, and of the data."""
    exits: ExitPlan | None = None
    """The plan of an early exit, if one was fitted."""
    graphs: Mapping[str, bytes] = field(default_factory=dict)
    """The ONNX graphs without weights: `frames` is the frame encoder, `time` the temporal encoder. Empty if none were made."""
    thresholds: tuple[float, ...] = ()
    """The score from which each label of a multi-label model counts as present; empty if none were fitted."""
    rejection: Judge | None = None
    """The judge of videos that show none of the actions, if one was fitted."""
    boundaries: Boundaries | None = None
    """The detector of spans in long videos, if one was trained."""


def read_model_file(path: str | os.PathLike[str]) -> ModelFile:
    """Return the content of a model file.

    The header is checked here. Its architecture is compared with the tensors by those who build the network or run the graphs.
    Raises WeightsError if the file is damaged, or is no model file.
    """
    path = Path(path)
    metadata = read_metadata(path)
    header = None if metadata is None else header_in(metadata, HEADER_KEY, path)
    if metadata is None or header is None:
        raise WeightsError(f"{path}: not a fewframes model (a safetensors file with a header)")
    _check_header(header, path)
    try:
        config = settings_from(ModelConfig, header["model"], f"{path}: model")
        view = settings_from(ViewConfig, header["view"], f"{path}: view")
        exits = ExitPlan.from_dict(header["exits"], f"{path}: exits") if "exits" in header else None
        if config.image_size != view.crop_px:
            raise ConfigError(f"the model takes frames of {config.image_size} px but the view makes {view.crop_px} px")
        if exits is not None:
            exits.check(config)
    except (ConfigError, RecursionError) as error:  # the file is at fault here, not a setting of the caller
        raise damaged(path, error) from None
    arrays = _read_arrays(path)
    return ModelFile(
        config=config,
        view=view,
        labels=_labels(header["labels"], config.num_classes, path),
        tensors={
            key: array for key, array in arrays.items() if not key.startswith((REJECTION_PREFIX, BOUNDARIES_PREFIX))
        },
        provenance=header["provenance"],
        metrics=header["metrics"],
        licences=header["licences"],
        exits=exits,
        graphs={
            key.removeprefix(GRAPH_PREFIX): _unpacked(text, key, path)
            for key, text in metadata.items()
            if key.startswith(GRAPH_PREFIX)
        },
        thresholds=_thresholds(header.get("thresholds", []), config, path),
        rejection=_rejection(arrays, config.num_classes, path),
        boundaries=_boundaries(arrays, config.num_classes, path),
    )


def write_model_file(
    path: str | os.PathLike[str], file: ModelFile, *, stored_as: Mapping[str, str] | None = None
) -> None:
    """Write a model file, all at once or not at all. Its folder is made if it is missing.

    Args:
        path: the file to write.
        file: the content.
        stored_as: the kind of number, such as `float16`, for the tensors that are not stored as they are.

    Raises:
        ValueError: the number of labels is not the number of classes.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if len(file.labels) != file.config.num_classes:
        raise ValueError(f"{len(file.labels)} labels for {file.config.num_classes} classes")
    header = {
        "format": _version_of(file),
        "sampling": SAMPLING,
        "model": {name: value for name, value in asdict(file.config).items() if (name, value) not in WITHOUT_FIELD},
        "view": asdict(file.view),
        "labels": list(file.labels),
        "provenance": dict(file.provenance),
        "metrics": dict(file.metrics),
        "licences": dict(file.licences),
        **({} if file.exits is None else {"exits": file.exits.to_dict()}),
        **({"thresholds": list(file.thresholds)} if file.thresholds else {}),
    }
    metadata = {HEADER_KEY: json.dumps(header)}
    metadata |= {f"{GRAPH_PREFIX}{part}": _packed(graph) for part, graph in sorted(file.graphs.items())}
    tensors, kinds = dict(file.tensors), dict(stored_as or {})
    if file.rejection is not None:
        tensors |= {f"{REJECTION_PREFIX}{name}": array for name, array in file.rejection.to_arrays().items()}
        kinds |= {f"{REJECTION_PREFIX}{name}": "float16" for name in HALVES}
    if file.boundaries is not None:
        arrays = file.boundaries.to_arrays()
        tensors |= {f"{BOUNDARIES_PREFIX}{name}": array for name, array in arrays.items()}
        kinds |= {f"{BOUNDARIES_PREFIX}{name}": "float16" for name in arrays if is_half(name)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        write_safetensors(part, tensors, kinds, metadata)


def _version_of(file: ModelFile) -> int:
    """Return the lowest version that has all that a file needs."""
    if file.config.cell_tokens or file.config.temporal == "recurrent":
        return 5
    if file.config.tower is not None:
        return 4
    return 3 if file.boundaries is not None else 1 if file.rejection is None else 2


def stored_kinds(path: Path) -> dict[str, str]:
    """Return the kind of number, such as `float16`, in which each tensor of a sound safetensors file is stored."""
    with safe_open(path, framework="np") as file:
        return {key: NUMBERS[file.get_slice(key).get_dtype()] for key in file.keys()}  # noqa: SIM118 (not a dict)


def graph_settings(config: ModelConfig, view: ViewConfig) -> dict[str, Any]:
    """Return all settings that decide the graphs of a model. Models for which they are equal have the same graphs."""
    settings = {name: value for name, value in asdict(config).items() if name not in WITHOUT_GRAPHS}
    return settings | {"mean": view.mean, "std": view.std}


def read_metadata(path: Path) -> dict[str, str] | None:
    """Return the metadata of a safetensors file, or None for any other kind of file. Raises WeightsError if it cannot be read."""
    try:
        with safe_open(path, framework="np") as file:
            return dict(file.metadata() or {})
    except SafetensorError:
        return None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from None


def header_in(metadata: Mapping[str, str], key: str, path: Path) -> dict[str, Any] | None:
    """Return the JSON object under `key` in the metadata of a file, or None if there is none. Raises WeightsError for damage."""
    if key not in metadata:
        return None
    try:
        header = json.loads(metadata[key])
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: its header is damaged ({type(error).__name__}: not JSON)") from None
    if not isinstance(header, dict):
        raise WeightsError(f"{path}: its header is damaged ({type(header).__name__}, not an object)")
    return header


def read_header(path: Path) -> dict[str, Any] | None:
    """Return the header of a model file, or None for any other kind of file. Raises WeightsError if it is damaged."""
    metadata = read_metadata(path)
    return None if metadata is None else header_in(metadata, HEADER_KEY, path)


def damaged(path: Path, error: Exception) -> WeightsError:
    """Return the error for a file with a header that another function refused."""
    return WeightsError(str(error) if str(path) in str(error) else f"{path}: its header is damaged ({error})")


def one_line(error: Exception) -> str:
    """Return the first line of an error message, or the name of the error if it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0][:MOST_REASON] if lines else type(error).__name__


def _check_header(header: Mapping[str, Any], path: Path) -> None:
    """Raise WeightsError unless a header has all fields, and was written by this version or an older one."""
    version = header.get("format")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise WeightsError(f"{path}: its header is damaged (format {version!r})")
    if version > FORMAT or header.get("sampling") != SAMPLING:
        raise WeightsError(
            f"{path}: header format {version}, sampling {header.get('sampling')!r}; this fewframes reads "
            f"format {FORMAT}, sampling {SAMPLING!r}: install a newer one"
        )
    if HEADER_FIELDS - set(header):
        raise WeightsError(f"{path}: its header is damaged; missing: {', '.join(sorted(HEADER_FIELDS - set(header)))}")
    for name in ("model", "view", "provenance", "metrics", "licences"):
        if not isinstance(header[name], dict):
            raise WeightsError(
                f"{path}: its header is damaged ({name} is {type(header[name]).__name__}, not an object)"
            )


def _labels(values: object, num_classes: int, path: Path) -> tuple[str, ...]:
    """Return the labels of a header. Raises WeightsError unless they are one text for each class."""
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise WeightsError(f"{path}: its header is damaged (labels are not a list of texts)")
    if len(values) != num_classes:
        raise WeightsError(f"{path}: its header is damaged ({len(values)} labels for {num_classes} classes)")
    return tuple(values)


def _thresholds(values: object, config: ModelConfig, path: Path) -> tuple[float, ...]:
    """Return the thresholds of a header. Raises WeightsError unless they are none, or one between 0 and 1 for each class."""
    if values == []:
        return ()
    if not isinstance(values, list) or not all(isinstance(value, float) and 0 < value < 1 for value in values):
        raise WeightsError(f"{path}: its header is damaged (thresholds are not a list of numbers between 0 and 1)")
    if config.task != "multilabel" or len(values) != config.num_classes:
        raise WeightsError(
            f"{path}: its header is damaged ({len(values)} thresholds for {config.num_classes} classes of a {config.task} model)"
        )
    return tuple(values)


def _rejection(arrays: Mapping[str, Array], num_classes: int, path: Path) -> Judge | None:
    """Return the rejection among the arrays of a file, or None if there is none. Raises WeightsError if it is damaged."""
    found = {
        key.removeprefix(REJECTION_PREFIX): array for key, array in arrays.items() if key.startswith(REJECTION_PREFIX)
    }
    try:
        return judge_of(found, num_classes) if found else None
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}; take another copy of the file") from None


def _boundaries(arrays: Mapping[str, Array], num_classes: int, path: Path) -> Boundaries | None:
    """Return the detector among the arrays of a file, or None if there is none. Raises WeightsError if it is damaged."""
    found = {
        key.removeprefix(BOUNDARIES_PREFIX): array for key, array in arrays.items() if key.startswith(BOUNDARIES_PREFIX)
    }
    try:
        return Boundaries.from_arrays(found, num_classes) if found else None
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}; take another copy of the file") from None


def _read_arrays(path: Path) -> dict[str, Array]:
    """Return all tensors of a sound safetensors file, real numbers as float32. numpy has no bfloat16, so bytes are read here."""
    arrays = {}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        for key, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
            name, (start, end) = NUMBERS.get(entry["dtype"]), entry["data_offsets"]
            if name is None:
                raise WeightsError(f"{path}: {key} is in {entry['dtype']}; needs one of {', '.join(NUMBERS)}")
            kind = np.dtype(np.uint16 if name == "bfloat16" else name).newbyteorder("<")
            file.seek(8 + length + start)
            array: Array = np.fromfile(file, kind, (end - start) // kind.itemsize)
            if name == "bfloat16":  # the upper half of a float32
                array = (array.astype(np.uint32) << 16).view(np.float32)
            arrays[key] = array.astype(np.float32 if "float" in name else name, copy=False).reshape(entry["shape"])
    return arrays


def write_safetensors(
    path: Path, tensors: Mapping[str, Array], stored_as: Mapping[str, str], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file with these tensors, those of the largest numbers first."""
    names = {key: stored_as.get(key, array.dtype.name) for key, array in tensors.items()}
    sizes = {key: 2 if name == "bfloat16" else np.dtype(name).itemsize for key, name in names.items()}
    keys = sorted(tensors, key=lambda key: (-sizes[key], key))
    head: dict[str, Any] = {"__metadata__": dict(metadata)}
    start = 0
    for key in keys:
        end = start + tensors[key].size * sizes[key]
        head[key] = {"dtype": CODES[names[key]], "shape": list(tensors[key].shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers are aligned
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key in keys:
            file.write(_bytes_of(tensors[key], names[key]))


def _bytes_of(array: Array, name: str) -> bytes:
    """Return the numbers of an array as little-endian bytes in this kind of number."""
    if name != "bfloat16":
        with np.errstate(over="ignore"):  # as torch does, numbers that are too large become infinite
            return array.astype(np.dtype(name).newbyteorder("<")).tobytes()
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)  # to the nearest, and to the even one of two
    upper = np.where(np.isnan(array), 0x7FC0, rounded >> 16)
    return upper.astype("<u2").tobytes()


def _packed(graph: bytes) -> str:
    """Return a graph as a text for the metadata."""
    return base64.b64encode(zlib.compress(graph, 9)).decode("ascii")


def _unpacked(text: str, key: str, path: Path) -> bytes:
    """Return the graph that `_packed` made a text of. Raises WeightsError if the text is damaged."""
    try:
        unpacking = zlib.decompressobj()
        graph = unpacking.decompress(base64.b64decode(text, validate=True), MOST_GRAPH_BYTES)
    except (ValueError, zlib.error) as error:
        raise WeightsError(f"{path}: {key} is damaged ({one_line(error)}); take another copy of the file") from None
    if not unpacking.eof:
        raise WeightsError(f"{path}: {key} is damaged (cut short or too large); take another copy of the file")
    return graph
