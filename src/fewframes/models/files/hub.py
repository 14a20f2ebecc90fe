"""Models by name or path, as networks of torch; and the download ("pull") of published weights."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from fewframes.core.files import whole
from fewframes.errors import ConfigError, WeightsError, nearest
from fewframes.models.files.checkpoint import Checkpoint, checkpoint_of
from fewframes.models.files.formats import format_of
from fewframes.models.files.model_file import one_line, read_header, read_model_file
from fewframes.models.files.names import downloaded_path, find_model, hash_path, sha256_of
from fewframes.models.files.release import load_release
from fewframes.models.presets import PRESETS, RELEASE_URL
from fewframes.models.sharing.reach import unreachable


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
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole(target) as part:
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
            hash_path(target).write_text(sha256_of(part) + "\n")
        return target
    except OSError as error:  # a broken connection, a full disk, a folder that is a file
        reason = error.strerror or one_line(error)
        raise WeightsError(f"{file or url}: cannot be fetched and stored as {target} ({reason})") from None


def release_url(name: str) -> str:
    """Return the URL where the authors publish the weights of this preset. Raises WeightsError if they do not."""
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; {nearest(name, PRESETS)}")
    if PRESETS[name].weights != "released":
        pullable = [preset for preset, settings in PRESETS.items() if settings.weights == "released"]
        raise WeightsError(f"{name!r} has no weights to pull; these presets have: {', '.join(pullable)}")
    return RELEASE_URL.format(num_frames=PRESETS[name].model.num_frames)


def _open_weights(name: str, url: str, file: str | None) -> IO[bytes]:
    """Open the file, or the URL if no file is given. Raises WeightsError, with the way out for a machine without a network."""
    if file is not None:
        try:
            return open(file, "rb")
        except OSError as error:
            raise WeightsError(f"{file}: cannot be read ({error.strerror})") from None
    try:
        if dead := unreachable(url):
            raise OSError(dead)
        response: IO[bytes] = urllib.request.urlopen(url, timeout=30)
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise WeightsError(
            f"{url}: cannot be fetched ({reason}); download it on a machine with a network and pull it from the file: "
            f"fewframes models pull {name} --file {url.rsplit('/', 1)[-1]}"
        ) from None
    return response


def load_checkpoint(name_or_path: str | os.PathLike[str]) -> Checkpoint:
    """Return a whole model in eval mode and float32, from the name of a preset or from a file.

    The weights of a preset are in the package or must have been pulled before. A file is one of ours (safetensors) or of the 2021
    release (such as `stam_16.pth`). The output folder of training stands for the model in it. Raises WeightsError.
    """
    path = find_model(os.fspath(name_or_path))
    if format_of(path) is not None:
        raise WeightsError(
            f"{path}: an exported graph, which cannot be trained or exported again; take the model that it was exported from"
        )
    if read_header(path) is None:
        return load_release(path)
    return checkpoint_of(read_model_file(path), path)
