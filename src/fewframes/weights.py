"""Networks and their weights: build, start from image weights, save, load, pull.

One file is a whole model: safetensors whose header carries architecture, view, sampling, labels, training provenance,
metrics and licences. Loading is strict: keys that are missing, unknown or of another shape are listed and refused.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from fewframes.backbones import TimmFrameEncoder, timm_frame_encoder
from fewframes.config import ModelConfig, RunConfig, Task, ViewConfig, cache_dir, settings_from
from fewframes.errors import ConfigError, WeightsError, nearest
from fewframes.exits import ExitPlan
from fewframes.exported import format_of
from fewframes.model import STAM, SpatialEncoder
from fewframes.networks import build_model as build_model  # noqa: PLC0414 (whoever loads models takes it from here)
from fewframes.networks import check_fit, planned_model
from fewframes.networks import load_strictly as load_strictly  # noqa: PLC0414
from fewframes.presets import PLAIN_PIXELS, PRESETS, RELEASE, RELEASE_URL
from fewframes.tensor_files import one_line, read_header, read_shapes, read_tensors

MODEL_FILE = "model.safetensors"
"""What training calls the model in its output folder; the folder's name stands for it."""
FORMAT = 1
"""Version of the header; a file with a higher one was written by a newer fewframes."""
HEADER_KEY = "fewframes"
HEADER_FIELDS = {"format", "sampling", "model", "view", "labels", "provenance", "metrics", "licences"}
SAMPLING = "uniform"
"""How frames are chosen, the only way there is: the centre of each of T equal parts of the whole video."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole model: the network with its weights, its input, its labels, and where it comes from."""

    model: STAM
    view: ViewConfig
    labels: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained: data, fingerprint, settings, versions."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """What was measured, with the protocol."""
    licences: Mapping[str, str] = field(default_factory=dict)
    """Licence of the code, the weights it started from, and the data."""
    exits: ExitPlan | None = None
    """When to stop looking at a video, where that was fitted."""


def start_model(config: ModelConfig, view: ViewConfig, init: str) -> STAM:
    """A new model whose frame encoder starts from image weights; the temporal part is random.

    `init` is one of our own models (a preset that has weights, a file, or training's output folder), whose frame encoder is
    taken; a file of weights under timm's key names; or a timm name with its tag, which is downloaded.
    """
    model = build_model(config, view)
    if init not in PRESETS and (Path(init) / MODEL_FILE).is_file():
        init = str(Path(init) / MODEL_FILE)
    if init in PRESETS or (Path(init).is_file() and read_header(Path(init), HEADER_KEY) is not None):
        state = load_checkpoint(init).model.frame_encoder.state_dict()
    elif Path(init).is_file():
        state = _without_classifier(read_tensors(Path(init)))
        if isinstance(model.frame_encoder, TimmFrameEncoder):
            state = {f"backbone.{key}": tensor for key, tensor in state.items()}
    else:
        state = _download_timm(config, init)
    _load_frame_encoder(model, state, init)
    return model


def start_run(run: RunConfig, *, num_classes: int, task: Task = "single") -> tuple[STAM, ViewConfig, Mapping[str, str]]:
    """A new model for a run, its view, and the licences of what it starts from: the start's frame encoder (or that of
    `init`), the rest random."""
    preset = PRESETS.get(run.start)
    if preset is not None:
        model, view = preset.model, preset.view
        init = run.init or (run.start if preset.weights else preset.init)
        licences = {"frame encoder": f"{preset.licence} ({init})"}
    else:
        started = load_checkpoint(run.start)
        model, view, init = started.model.config, started.view, run.init or run.start
        licences = {name: text for name, text in started.licences.items() if name != "data"}
    if run.init:
        licences = {"frame encoder": f"that of {run.init}"}
    config = settings_from(
        ModelConfig, {**asdict(model), **run.model, "num_classes": num_classes, "task": task}, f"{run.start}: model"
    )
    view = settings_from(ViewConfig, {**asdict(view), **run.view}, f"{run.start}: view")
    return start_model(config, view, init), view, licences


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint, *, dtype: torch.dtype | None = None) -> None:
    """Write a whole model to one file, all at once or not at all; `dtype` stores its real numbers narrower."""
    path = Path(path)
    model = checkpoint.model
    if len(checkpoint.labels) != model.config.num_classes:
        raise ValueError(f"{len(checkpoint.labels)} labels for {model.config.num_classes} classes")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ConfigError(f"dtype = {dtype}: needs a type of real numbers, such as torch.float16")
    header = {
        "format": FORMAT,
        "sampling": SAMPLING,
        "model": asdict(model.config),
        "view": asdict(checkpoint.view),
        "labels": list(checkpoint.labels),
        "provenance": dict(checkpoint.provenance),
        "metrics": dict(checkpoint.metrics),
        "licences": dict(checkpoint.licences),
        **({} if checkpoint.exits is None else {"exits": checkpoint.exits.to_dict()}),
    }
    tensors = {
        key: tensor.to(dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype).contiguous()
        for key, tensor in model.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")  # two writers do not meet in one
    try:
        part.touch()
        mode = part.stat().st_mode  # safetensors' own files can be read by their owner alone
        save_file(tensors, part, metadata={HEADER_KEY: json.dumps(header)})
        part.chmod(mode)
        part.replace(path)
    except SafetensorError as error:  # a full disk, among others
        raise OSError(f"{path}: cannot be written ({one_line(error)})") from None
    finally:
        part.unlink(missing_ok=True)


def load_checkpoint(name_or_path: str | os.PathLike[str]) -> Checkpoint:
    """A whole model in eval mode, float32, from a preset's name (pulled if need be) or from a file.

    Files are our own (safetensors) or the 2021 release's (`stam_16.pth` and its like). Raises WeightsError.
    """
    path = _find(os.fspath(name_or_path))
    if format_of(path) is not None:
        raise WeightsError(
            f"{path}: an exported graph, which `fewframes predict` alone runs; take what it was exported from"
        )
    header = read_header(path, HEADER_KEY)
    if header is None:
        return load_release(path)
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
    return _from_header(path, header)


def _from_header(path: Path, header: Mapping[str, Any]) -> Checkpoint:
    """Return the model of a safetensors file. Its head is checked, and its shapes compared, before a network is built."""
    objects = {name: header[name] for name in ("model", "view", "provenance", "metrics", "licences")}
    wrong = next((name for name, value in objects.items() if not isinstance(value, dict)), None)
    if wrong is not None:
        raise WeightsError(f"{path}: its header is damaged ({wrong} is {type(objects[wrong]).__name__}, not an object)")
    try:
        config = settings_from(ModelConfig, header["model"], f"{path}: model")
        view = settings_from(ViewConfig, header["view"], f"{path}: view")
        exits = ExitPlan.from_dict(header["exits"], f"{path}: exits") if "exits" in header else None
        labels = _labels(header["labels"], config.num_classes, path)
        planned = planned_model(config, view)
        check_fit(planned, read_shapes(path), str(path))
        if exits is not None:
            exits.check(planned)
        model = build_model(config, view)
    except (ConfigError, RecursionError) as error:
        raise WeightsError(
            str(error) if str(path) in str(error) else f"{path}: its header is damaged ({error})"
        ) from None
    load_strictly(model, read_tensors(path), str(path))
    return Checkpoint(model.eval(), view, labels, header["provenance"], header["metrics"], header["licences"], exits)


def _labels(values: object, num_classes: int, path: Path) -> tuple[str, ...]:
    """Return the labels of a header; WeightsError where they are not one word for each class."""
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise WeightsError(f"{path}: its header is damaged (labels are no list of words)")
    if len(values) != num_classes:
        raise WeightsError(f"{path}: its header is damaged ({len(values)} labels for {num_classes} classes)")
    return tuple(values)


def load_release(path: str | os.PathLike[str], *, heads: int | None = None) -> Checkpoint:
    """A checkpoint of the paper's authors (key layout of `stam_16.pth`), in eval mode.

    The architecture is read from the shapes; `heads`, which no shape tells, is one for each 64 of the width.
    """
    path = Path(path)
    state = {_release_key(key): tensor for key, tensor in read_tensors(path).items()}
    needed = {  # with how many axes
        "frame_encoder.cls_token": 3,
        "frame_encoder.pos_embed": 3,
        "frame_encoder.patch_embed.proj.weight": 4,
        "temporal_encoder.pos_embed": 3,
        "head.weight": 2,
    }
    absent = [key for key in needed if key not in state]
    if absent:
        raise WeightsError(f"{path}: neither a fewframes model nor a STAM release: no {', '.join(absent)}")
    wrong = next(
        (key for key, num_axes in needed.items() if state[key].ndim != num_axes or not state[key].numel()), None
    )
    if wrong is not None:
        raise WeightsError(f"{path}: no STAM release: {wrong} has the shape {tuple(state[wrong].shape)}")
    width = state["frame_encoder.cls_token"].shape[-1]
    patch_size = state["frame_encoder.patch_embed.proj.weight"].shape[-1]
    grid = round((state["frame_encoder.pos_embed"].shape[1] - 1) ** 0.5)
    found = {
        "image_size": grid * patch_size,
        "patch_size": patch_size,
        "width": width,
        "depth": _num_blocks(state, "frame_encoder"),
        "heads": heads or max(1, width // 64),
        "qkv_bias": "frame_encoder.blocks.0.attn.qkv.bias" in state,
        "temporal_depth": _num_blocks(state, "temporal_encoder"),
        "num_frames": state["temporal_encoder.pos_embed"].shape[1] - 1,
        "num_classes": len(state["head.weight"]),
    }
    try:
        config = settings_from(ModelConfig, {**asdict(RELEASE), **found}, str(path))
    except ConfigError as error:
        raise WeightsError(f"{error} (read from the shapes of its tensors)") from None
    view = replace(PLAIN_PIXELS, crop_px=config.image_size, resize_px=round(config.image_size * 256 / 224))
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    check_fit(planned_model(config, view), shapes, str(path))
    model = build_model(config, view)
    load_strictly(model, state, str(path))
    return Checkpoint(
        model=model.eval(),
        view=view,
        labels=kinetics_labels(config.num_classes),
        provenance={"source": "2021 release of the paper's authors (Alibaba-MIIL/STAM)", "data": "Kinetics-400"},
        licences={"weights": "Apache-2.0 (Alibaba-MIIL/STAM)"},
    )


def pull(name: str, *, file: str | None = None, progress: Callable[[int, int], None] | None = None) -> Path:
    """Fetch the published weights of a preset (or take them from `file`), check that they load, and keep them.

    The hash is remembered beside them and checked on each later use. `progress` is called with bytes done and all.
    """
    url = release_url(name)
    target = downloaded_path(name)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _open_weights(name, url, file) as source, part.open("wb") as out:
            total = int(getattr(source, "length", None) or 0)
            while block := source.read(2**20):
                out.write(block)
                if progress is not None:
                    progress(out.tell(), total)
        loaded = load_release(part).model.config.num_frames
        wanted = PRESETS[name].model.num_frames
        if loaded != wanted:
            raise WeightsError(f"{file or url}: built for {loaded} frames; {name!r} has {wanted}")
        _hash_path(target).write_text(_sha256(part) + "\n")
        part.replace(target)
        return target
    except OSError as error:  # a line that breaks off, a full disk, a folder that is none
        reason = error.strerror or one_line(error)
        raise WeightsError(f"{file or url}: cannot be fetched and kept as {target} ({reason})") from None
    finally:
        if part.parent.is_dir():
            part.unlink(missing_ok=True)


def release_url(name: str) -> str:
    """Where the authors publish the weights of this preset; WeightsError when they do not."""
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; {nearest(name, PRESETS)}")
    if PRESETS[name].weights != "released":
        pullable = [preset for preset, settings in PRESETS.items() if settings.weights == "released"]
        raise WeightsError(f"{name!r} has no weights to pull; these have: {', '.join(pullable)}")
    return RELEASE_URL.format(num_frames=PRESETS[name].model.num_frames)


def downloaded_path(name: str) -> Path:
    """Where `pull` keeps the weights of this preset."""
    return cache_dir() / "weights" / f"{name}.pth"


def packaged_path(name: str) -> Path:
    """Where the package itself carries the weights of this preset."""
    return Path(__file__).parent / "assets" / f"{name}.safetensors"


def _find(name: str) -> Path:
    preset = PRESETS.get(name)
    if preset is None:
        if _is_file(Path(name) / MODEL_FILE):
            return Path(name) / MODEL_FILE
        if not _is_file(Path(name)):
            found = f"a folder without {MODEL_FILE}" if Path(name).is_dir() else "no such file"
            raise WeightsError(f"{name}: {found}, and no preset of that name; {nearest(name, PRESETS)}")
        return Path(name)
    if preset.weights == "packaged":
        path = packaged_path(name)
        if not path.is_file():
            raise WeightsError(f"{path}: not there, though the package carries it; install fewframes anew")
        return path
    if preset.weights != "released":
        raise WeightsError(
            f"{name!r} is an architecture without trained weights; train it: fewframes train FOLDER --model {name}"
        )
    path = downloaded_path(name)
    if not path.is_file():
        raise WeightsError(f"the weights of {name!r} are not here yet; get them: fewframes models pull {name}")
    if not _hash_path(path).is_file() or _hash_path(path).read_text().strip() != _sha256(path):
        raise WeightsError(
            f"{path}: not the file that was pulled (SHA-256 differs or is missing); fewframes models pull {name}, or hand it over: "
            f"fewframes models pull {name} --file FILE"
        )
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _open_weights(name: str, url: str, file: str | None) -> IO[bytes]:
    if file is not None:
        try:
            return open(file, "rb")
        except OSError as error:
            raise WeightsError(f"{file}: cannot be read ({error.strerror})") from None
    try:
        response: IO[bytes] = urllib.request.urlopen(url, timeout=30)
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise WeightsError(
            f"{url}: cannot be fetched ({reason}); fetch it on a machine with a network and hand it over: "
            f"fewframes models pull {name} --file {url.rsplit('/', 1)[-1]}"
        ) from None
    return response


def _hash_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _release_key(key: str) -> str:
    """The release's name of a tensor -> ours."""
    if key.startswith("head."):
        return key
    if not key.startswith("aggregate."):
        return f"frame_encoder.{key}"
    for theirs, ours in (
        ("aggregate.", "temporal_encoder."),
        ("transformer_enc.layers.", "blocks."),
        ("transformer_enc.norm.", "norm."),
        ("self_attn.in_proj_", "attn.qkv."),
        ("self_attn.out_proj.", "attn.proj."),
        ("linear1.", "mlp.fc1."),
        ("linear2.", "mlp.fc2."),
    ):
        key = key.replace(theirs, ours)
    return key


def _num_blocks(state: Mapping[str, Tensor], part: str) -> int:
    prefix = f"{part}.blocks."
    return len({key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)})


def kinetics_labels(num_classes: int) -> tuple[str, ...]:
    """Kinetics-400's names in the order of its sorted class folders, the order the release was trained in."""
    if num_classes != 400:
        return tuple(f"class {index}" for index in range(num_classes))
    from torchvision.models.video import R3D_18_Weights  # late: torchvision is slow to import

    return tuple(R3D_18_Weights.KINETICS400_V1.meta["categories"])


def _download_timm(config: ModelConfig, name: str) -> dict[str, Tensor]:
    """The weights of a timm model without its classifier, under the names of our frame encoder."""
    from timm import is_model, list_models  # late: timm is slow to import

    if not is_model(name.split(".", maxsplit=1)[0]):
        close = difflib.get_close_matches(name, list_models(), n=1)
        raise WeightsError(
            f"{name}: no such file, and timm has no network of that name"
            + (f"; did you mean {close[0]!r}?" if close else "")
        )
    try:
        backbone = timm_frame_encoder(name, image_size=config.image_size, pretrained=True)
    except (OSError, RuntimeError, urllib.error.URLError) as error:
        raise WeightsError(
            f"{name}: timm could not fetch its weights ({str(error).splitlines()[0]}); pass a file with timm's keys"
        ) from None
    state = backbone.state_dict()
    if config.encoder.startswith("timm:"):
        return dict(state)
    return {key.removeprefix("backbone."): tensor for key, tensor in state.items()}


def _without_classifier(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    heads = ("head.", "head_dist.", "fc.", "classifier.", "pre_logits.")
    return {key: tensor for key, tensor in state.items() if not key.startswith(heads)}


def _load_frame_encoder(model: STAM, state: dict[str, Tensor], source: str) -> None:
    encoder = model.frame_encoder
    own = encoder.state_dict()
    positions = state.get("pos_embed")
    if isinstance(encoder, SpatialEncoder) and positions is not None and _is_other_grid(positions, own["pos_embed"]):
        from timm.layers.pos_embed import resample_abs_pos_embed  # late: timm is slow to import

        grid = encoder.image_size_px // encoder.patch_embed.proj.kernel_size[0]
        state = {**state, "pos_embed": resample_abs_pos_embed(positions, [grid, grid], num_prefix_tokens=1)}
    # Attention over time inside the frame encoder has no counterpart in image weights.
    untrained = {key: tensor for key, tensor in own.items() if "time_" in key}
    load_strictly(encoder, {**untrained, **state}, source)


def _is_other_grid(positions: Tensor, own: Tensor) -> bool:
    """Return whether positions are those of a square of patches of another size, and not merely of another network."""
    if positions.ndim != 3 or positions.shape == own.shape or positions.shape[-1] != own.shape[-1]:
        return False
    return math.isqrt(positions.shape[1] - 1) ** 2 == positions.shape[1] - 1 if positions.shape[1] > 1 else False
