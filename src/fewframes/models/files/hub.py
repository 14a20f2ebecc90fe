"""Models by name or path: a file on disk, weights inside the package, or weights that were downloaded ("pulled") before."""

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
from fewframes.models.files.checkpoint import HEADER_KEY, MODEL_FILE, Checkpoint, from_header
from fewframes.models.files.formats import format_of
from fewframes.models.files.release import load_release
from fewframes.models.files.tensor_files import one_line, read_header
from fewframes.models.presets import PRESETS, RELEASE_URL


def pull(name: str, *, file: str | None = None, progress: Callable[[int, int], None] | None = None) -> Path:
    """Download the published weights of a preset, check that they load, and store them in the cache folder.

    Their hash is stored beside them and checked each time they are used.

    Args:
        name: the name of the preset.
        file: a file that has the weights already, instead of a download.
        progress: called after each block with the number of bytes that are done and of all bytes (0 if it is unknown).

    Returns:
        The path of the stored file.

    Raises:
        ConfigError: there is no preset of that name.
        WeightsError: the preset has no published weights, or they cannot be fetched, read or stored.
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
    except OSError as error:  # a broken connection, a full disk, a folder that is a file
        reason = error.strerror or one_line(error)
        raise WeightsError(f"{file or url}: cannot be fetched and stored as {target} ({reason})") from None
    finally:
        if part.parent.is_dir():  # below a file `unlink` raises NotADirectoryError
            part.unlink(missing_ok=True)


def release_url(name: str) -> str:
    """Return the URL where the authors publish the weights of this preset. Raises WeightsError if they do not."""
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; {nearest(name, PRESETS)}")
    if PRESETS[name].weights != "released":
        pullable = [preset for preset, settings in PRESETS.items() if settings.weights == "released"]
        raise WeightsError(f"{name!r} has no weights to pull; these presets have: {', '.join(pullable)}")
    return RELEASE_URL.format(num_frames=PRESETS[name].model.num_frames)


def downloaded_path(name: str) -> Path:
    """Return the path under which `pull` stores the weights of this preset."""
    return cache_dir() / "weights" / f"{name}.pth"


def packaged_path(name: str) -> Path:
    """Return the path of the weights of this preset inside the package."""
    return Path(__file__).parent / "assets" / f"{name}.safetensors"


def _find(name: str) -> Path:
    """Return the model file that a preset's name, a file or a training folder stands for. Raises WeightsError if there is none."""
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
            raise WeightsError(f"{path}: this file of the package is missing; reinstall fewframes")
        return path
    if preset.weights != "released":
        raise WeightsError(
            f"{name!r} is an architecture without trained weights; train it: fewframes train FOLDER --model {name}"
        )
    path = downloaded_path(name)
    if not path.is_file():
        raise WeightsError(f"the weights of {name!r} are not downloaded yet; get them: fewframes models pull {name}")
    if not _hash_path(path).is_file() or _hash_path(path).read_text().strip() != _sha256(path):
        raise WeightsError(
            f"{path}: not the file that was pulled (its SHA-256 differs or is missing); pull it again: "
            f"fewframes models pull {name}, or from a file that you have: fewframes models pull {name} --file FILE"
        )
    return path


def _is_file(path: Path) -> bool:
    """Return True if the path is a file; False also for a name that the system does not allow."""
    try:
        return path.is_file()
    except OSError:  # the name is too long
        return False


def _open_weights(name: str, url: str, file: str | None) -> IO[bytes]:
    """Open the file, or the URL if no file is given. Raises WeightsError, with the way out for a machine without a network."""
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
            f"{url}: cannot be fetched ({reason}); download it on a machine with a network and pull it from the file: "
            f"fewframes models pull {name} --file {url.rsplit('/', 1)[-1]}"
        ) from None
    return response


def _hash_path(path: Path) -> Path:
    """Return the path of the file beside the weights that holds their hash."""
    return path.with_suffix(".sha256")


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_checkpoint(name_or_path: str | os.PathLike[str]) -> Checkpoint:
    """Return a whole model in eval mode and float32, from the name of a preset or from a file.

    The weights of a preset are in the package or must have been pulled before. A file is one of ours (safetensors) or of the 2021
    release (such as `stam_16.pth`). The output folder of training stands for the model in it. Raises WeightsError.
    """
    path = _find(os.fspath(name_or_path))
    if format_of(path) is not None:
        raise WeightsError(
            f"{path}: an exported graph, which cannot be trained or exported again; take the model that it was exported from"
        )
    header = read_header(path, HEADER_KEY)
    if header is None:
        return load_release(path)
    return from_header(path, header)
