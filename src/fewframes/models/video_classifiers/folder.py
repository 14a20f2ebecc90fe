"""The files of a video classifier: from a folder, from the hub's cache, or from the hub. Weights are safetensors alone."""

from __future__ import annotations

import os
from pathlib import Path

from fewframes.errors import WeightsError, needed
from fewframes.models.files.model_file import one_line
from fewframes.models.files.names import HF_PREFIX, REPOSITORY
from fewframes.models.sharing.hub import hub_errors
from fewframes.models.sharing.reach import check_hub

CONFIG, CARD = "config.json", "README.md"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
"""The weights in one file, or the list of the files that they are in."""
PROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json")
"""The files that may say how frames are resized, cropped and normalised."""
FETCHED = (CONFIG, CARD, *PROCESSORS, "model*.safetensors", WEIGHTS[1])
"""The files that are fetched from the hub: no pickles, and no code."""
EXTRA = "baselines"
"""The extra that installs transformers."""


def classifier_folder(name: str) -> Path:
    """Return the folder with the files of a video classifier. A repository that is not in the hub's cache is downloaded.

    Args:
        name: `hf:` and a folder, or `hf:` and OWNER/NAME or OWNER/NAME@REVISION of the hub.

    Raises:
        WeightsError: There is no such folder or repository, the hub cannot be reached, or a file is missing.
        MissingDependency: huggingface_hub is not installed.
    """
    given = name.removeprefix(HF_PREFIX)
    folder = Path(given) if os.path.isdir(given) else _of_hub(name, given)
    missing = _missing(folder)
    if missing:
        raise WeightsError(f"{name}: {folder} {missing}")
    return folder


def licence_of(folder: Path) -> str:
    """Return the licence that the model's card names, or an empty text. Raises WeightsError for a card that cannot be read."""
    card = folder / CARD
    if not card.is_file():
        return ""
    from huggingface_hub import metadata_load  # transformers needs it, so it is there

    try:
        facts = metadata_load(card) or {}
    except (OSError, ValueError) as error:
        raise WeightsError(f"{card}: its card cannot be read ({one_line(error)}); repair it, or remove it") from None
    return str(facts.get("license_name") or facts.get("license") or "")


def _of_hub(name: str, repository: str) -> Path:
    """Return the folder of a repository in the hub's cache; one that is not there whole is downloaded."""
    if REPOSITORY.fullmatch(repository) is None:
        raise WeightsError(
            f"{name}: no folder {repository!r}, and no name of the hub; give hf:FOLDER, hf:OWNER/NAME or hf:OWNER/NAME@REVISION"
        )
    hub = needed("huggingface_hub", EXTRA, "video classifiers need huggingface_hub")
    from huggingface_hub.errors import LocalEntryNotFoundError

    repo, _, revision = repository.partition("@")
    asked = {
        "revision": revision or None,
        "allow_patterns": list(FETCHED),
        "endpoint": os.environ.get("HF_ENDPOINT"),
    }
    try:
        found = Path(hub.snapshot_download(repo, local_files_only=True, **asked))
    except LocalEntryNotFoundError:
        found = Path()
    if found.name and not _missing(found):
        return found
    try:
        check_hub(name)
        with hub_errors(name):
            return Path(hub.snapshot_download(repo, **asked))
    except WeightsError as error:
        raise WeightsError(
            f"{error}. Without a network: copy {CONFIG}, {PROCESSORS[1]} and {WEIGHTS[0]} into a folder and give hf:FOLDER"
        ) from None


def _missing(folder: Path) -> str:
    """Return what a folder lacks, in words, with the way out; an empty text if it has everything."""
    if not (folder / CONFIG).is_file():
        return f"has no {CONFIG}; it needs {CONFIG}, {PROCESSORS[1]} and {WEIGHTS[0]}"
    if not any((folder / weights).is_file() for weights in WEIGHTS):
        others = sorted(
            path.name for path in folder.iterdir() if path.suffix in {".bin", ".pt", ".pth", ".h5", ".msgpack"}
        )
        found = f" but {others[0]}" if others else ""
        return (
            f"has no {WEIGHTS[0]}{found}; other formats are not read, because a pickle can run code: load it where you trust it "
            "and save it anew with transformers' save_pretrained"
        )
    if not any((folder / processor).is_file() for processor in PROCESSORS):
        return f"has no {PROCESSORS[1]}, so nobody knows how it sees frames; copy it from where the model is from"
    return ""
