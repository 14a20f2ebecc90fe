"""Names of models: the files that the names of presets, paths and training folders stand for."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from fewframes.core.settings import cache_dir
from fewframes.errors import ConfigError, WeightsError, nearest
from fewframes.models.config import CLIP, TIMM
from fewframes.models.files.formats import format_of
from fewframes.models.files.model_file import MODEL_FILE
from fewframes.models.presets import PRESETS

REPOSITORY = re.compile(r"(?=[^/]{1,96}/)[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]{0,95}(@[A-Za-z0-9][\w.-]*)?", re.ASCII)
"""The name of a model on the hub: OWNER/NAME, with a revision if wanted."""
HF_PREFIX = "hf:"
"""The beginning of the name of a video classifier of the library transformers: hf:FOLDER or hf:OWNER/NAME."""
BASELINE_PREFIX = "baseline:"
"""The beginning of the name of a system of the comparison with its weights: baseline:NAME=FILE."""
ENCODER = re.compile(r"(timm|clip):[A-Za-z0-9][\w.+-]*(/[A-Za-z0-9][\w.-]*)?(@[a-z+]+)?", re.ASCII)
"""The name of a frame encoder: timm:NAME, timm:NAME@POOLING or clip:ARCHITECTURE/TAG."""
UNNAMED = "unnamed"
"""The label of a model that is a frame encoder alone: it names no action."""
GRAPH_FILE = "model.onnx"
"""The name of an exported model in a training folder: the result of a run that started from one."""


def find_model(name: str) -> Path:
    """Return the model file that a preset's name, a file or a training folder stands for. Raises WeightsError if there is none."""
    preset = PRESETS.get(name)
    if preset is None:
        return _find_file(name)
    if preset.weights == "packaged":
        path = packaged_path(name)
        if not path.is_file():
            raise WeightsError(f"{path}: this file of the package is missing; reinstall fewframes")
        return path
    if preset.weights != "released":
        raise WeightsError(
            f"{name!r} is an architecture without trained weights; train it: fewframes train FOLDER --model {name}"
        )
    path = downloaded_path(name)
    if not path.is_file():
        raise WeightsError(f"the weights of {name!r} are not downloaded yet; get them: fewframes models pull {name}")
    again = f"fewframes models pull {name}, or from a file that you have: fewframes models pull {name} --file FILE"
    return _checked(path, again)


def _find_file(name: str) -> Path:
    """Return the model file that a path or a name of the hub stands for. Raises WeightsError if there is none."""
    if name.startswith((HF_PREFIX, BASELINE_PREFIX)):
        raise WeightsError(
            f"{name}: a model of another library, which predict, evaluate, embed, serve, mcp and bench run as it is; nothing "
            "else can be done with it"
        )
    if name.startswith((TIMM, CLIP)) and not os.path.lexists(name):
        return _find_encoder(name)
    if _is_file(Path(name) / MODEL_FILE):
        return Path(name) / MODEL_FILE
    if not os.path.lexists(name) and REPOSITORY.fullmatch(name) is not None and _is_file(pulled_path(name)):
        return _checked(pulled_path(name), f"fewframes models pull {name}")
    if not _is_file(Path(name)):
        found = f"a folder without {MODEL_FILE}" if os.path.isdir(name) else "no such file"
        if not os.path.lexists(name) and REPOSITORY.fullmatch(name) is not None:
            raise WeightsError(
                f"{name}: no such file, and no model of that name was pulled; if it is on the hub: fewframes models pull {name}"
            )
        raise WeightsError(f"{name}: {found}, and no preset of that name; {nearest(name, PRESETS)}")
    return Path(name)


def _find_encoder(name: str) -> Path:
    """Return the stored model file of a frame encoder. Raises WeightsError if it was not pulled, ConfigError if it is no name."""
    path = encoder_path(name)
    if not _is_file(path):
        raise WeightsError(
            f"{name}: this encoder was not fetched yet; fetch it: fewframes models pull {name}; without a network, from a file or "
            f"folder that you have: fewframes models pull {name} --file FILE"
        )
    return _checked(path, f"fewframes models pull {name}")


def is_encoder_name(name: str) -> bool:
    """Return True if the text has the form of a frame encoder's name: timm:NAME, timm:NAME@POOLING or clip:ARCHITECTURE/TAG."""
    return ENCODER.fullmatch(name) is not None


def encoder_path(name: str) -> Path:
    """Return the path under which a frame encoder is stored. Raises ConfigError if the text cannot be the name of one."""
    if not is_encoder_name(name):
        raise ConfigError(
            f"{name}: not the name of a frame encoder; write timm:NAME or clip:ARCHITECTURE/TAG, as `fewframes models --encoders` "
            "lists them"
        )
    return cache_dir() / "encoders" / name.replace(":", "/", 1) / MODEL_FILE


def _checked(path: Path, again: str) -> Path:
    """Return the path of a pulled file. Raises WeightsError, which names the command that pulls it again, if it was changed."""
    if not hash_path(path).is_file() or hash_path(path).read_text().strip() != sha256_of(path):
        raise WeightsError(
            f"{path}: not the file that was pulled (its SHA-256 differs or is missing); pull it again: {again}"
        )
    return path


def exported_in(name: str) -> str:
    """Return the exported model of a training folder that has one instead of a model file, or else the name as it is."""
    folder = Path(name)
    if name not in PRESETS and not _is_file(folder / MODEL_FILE) and _is_file(folder / GRAPH_FILE):
        return str(folder / GRAPH_FILE)
    return name


def models_in(name: str) -> tuple[str, ...]:
    """Return the models that a name stands for: the name itself, or, for a folder of models, each model in it by its path.

    A folder of models holds model files (`.safetensors`), output folders of training, or exported graphs. Hidden files, and files
    that are no models, are left out.
    """
    folder = Path(name)
    is_one = name in PRESETS or _is_file(folder / MODEL_FILE) or _is_file(folder / GRAPH_FILE)
    if is_one or not os.path.isdir(folder):
        return (name,)
    found = [
        str(path)
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
        and (
            (path.is_file() and (path.suffix == ".safetensors" or format_of(path) is not None))
            or _is_file(path / MODEL_FILE)
            or _is_file(path / GRAPH_FILE)
        )
    ]
    return tuple(found) or (name,)


def downloaded_path(name: str) -> Path:
    """Return the path under which `pull` stores the weights of this preset."""
    return cache_dir() / "weights" / f"{name}.pth"


def pulled_path(repository: str) -> Path:
    """Return the path under which a model of the hub is stored, OWNER/NAME or OWNER/NAME@REVISION."""
    return cache_dir() / "pulled" / repository / MODEL_FILE


def packaged_path(name: str) -> Path:
    """Return the path of the weights of this preset inside the package."""
    return Path(__file__).parent / "assets" / f"{name}.safetensors"


def hash_path(path: Path) -> Path:
    """Return the path of the file beside the weights that holds their hash."""
    return path.with_suffix(".sha256")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_file(path: Path) -> bool:
    """Return True if the path is a file; False also for a name that the system does not allow."""
    try:
        return path.is_file()
    except OSError:  # the name is too long
        return False
