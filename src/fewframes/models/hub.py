"""Names of models -> files: those in the package, those that were pulled, and image weights."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from fewframes.core.settings import cache_dir
from fewframes.errors import ConfigError, WeightsError, nearest
from fewframes.models.checkpoint import HEADER_KEY, MODEL_FILE, Checkpoint, from_header
from fewframes.models.formats import format_of
from fewframes.models.presets import PRESETS, RELEASE_URL
from fewframes.models.release import load_release
from fewframes.models.tensor_files import one_line, read_header


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
            found = f"a folder without {MODEL_FILE}" if os.path.isdir(name) else "no such file"
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
    return from_header(path, header)
