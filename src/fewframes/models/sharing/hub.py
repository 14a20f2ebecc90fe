"""Push a model file to a model hub, and pull one from it, through huggingface_hub. A mirror is named by its `HF_ENDPOINT`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fewframes.core.files import whole, write_file
from fewframes.errors import ConfigError, WeightsError, needed
from fewframes.models.files.formats import format_of
from fewframes.models.files.model_file import MODEL_FILE, one_line, read_model_file, stored_kinds, write_model_file
from fewframes.models.files.names import REPOSITORY, exported_in, find_model, hash_path, pulled_path, sha256_of
from fewframes.models.sharing.card import LIBRARY, card_of
from fewframes.models.sharing.private import without_paths
from fewframes.models.sharing.reach import check_hub

CARD = "README.md"
LOG_IN = "log in (hf auth login) or set HF_TOKEN"
OWN_FILES = frozenset({".gitattributes", CARD, MODEL_FILE})
"""The files that a repository of ours may have. One with others belongs to something else."""


@dataclass(frozen=True)
class Upload:
    """An upload that is prepared, for the user to see first."""

    repository: str
    """The name, OWNER/NAME."""
    is_new: bool
    """True if the repository is made; False if a new version is added to one that is there."""
    private: bool
    """True if it is made private; a repository that is there stays as it is."""
    sizes: dict[str, int]
    """The files with their sizes in bytes."""
    shortened: tuple[str, ...]
    """The paths and addresses that were taken out of the header."""
    num_marks: int
    """The marks of training videos in the header."""
    has_examples: bool
    """True if the judge of unknown videos is in the file, with compressed embeddings of training frames."""
    card: str
    """The card."""


def push(
    model: str,
    repository: str,
    *,
    private: bool = False,
    licence: str = "",
    confirm: Callable[[Upload], bool] = lambda upload: True,
) -> str:
    """Upload a model file with its card to a repository, which is made if it is missing. Return the address of the new version.

    Args:
        model: The model, as for `fewframes.load`: a file, or a folder of training.
        repository: The name, OWNER/NAME.
        private: Make the repository private, if it is made.
        licence: The licence in the hub's words; by default what the header tells.
        confirm: Called with what is about to be uploaded; nothing is if it returns False.

    Returns:
        The address, or an empty text if `confirm` returned False.

    Raises:
        ConfigError: The name is none of a repository, or the model is an exported graph.
        WeightsError: The model cannot be read; the hub cannot be reached or refuses; or the repository is of another kind.
        MissingDependency: huggingface_hub is not installed.
    """
    _check_name(repository)
    api = _api()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = _prepare(model, repository, folder, private=private, licence=licence)
        check_hub(repository)
        upload = replace(prepared, is_new=_is_new(api, repository))
        if not confirm(upload):
            return ""
        with hub_errors(repository):
            if upload.is_new:
                api.create_repo(repository, private=private, repo_type="model", exist_ok=True)
            add = needed("huggingface_hub", "hub").CommitOperationAdd
            operations = [add(path_in_repo=file, path_or_fileobj=str(folder / file)) for file in upload.sizes]
            try:
                done = api.create_commit(
                    repository, operations, commit_message="A model of fewframes", repo_type="model"
                )
            except ValueError as error:  # the hub does not take the card
                raise ConfigError(f"{repository}: the hub refuses the card ({' '.join(str(error).split())})") from None
            except RuntimeError as error:  # one of the client's for a transfer that broke off
                raise WeightsError(f"{repository}: the upload broke off ({one_line(error)}); push it again") from None
    return str(done.commit_url)


def pull_model(repository: str, *, check: Callable[[Path], object] = lambda path: None) -> Path:
    """Download a model file from a repository and store it in the cache folder, where `--model OWNER/NAME` finds it offline.

    Args:
        repository: OWNER/NAME, or OWNER/NAME@REVISION with a branch, a tag or a commit.
        check: Called with the file before it is stored; it raises WeightsError if it cannot use it.

    Returns:
        The path of the stored file. Its SHA-256 is stored beside it, and checked each time it is used.

    Raises:
        ConfigError: The name is none of a repository.
        WeightsError: The hub cannot be reached or refuses, the repository has no model of ours, or its file is damaged.
        MissingDependency: huggingface_hub is not installed.
    """
    _check_name(repository, with_revision=True)
    name, _, revision = repository.partition("@")
    api = _api()
    check_pull(repository)
    with hub_errors(repository):
        info = api.model_info(name, revision=revision or None, files_metadata=True)
    files = {file.rfilename: file for file in info.siblings or []}
    if MODEL_FILE not in files or not _is_ours(info):
        raise WeightsError(
            f"{repository}: not a fewframes model (no {MODEL_FILE}, or its card does not name the library {LIBRARY}); if it is "
            "one, download its file and give its path"
        )
    target = pulled_path(repository)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole(target) as part:
            with tempfile.TemporaryDirectory(dir=part.parent) as folder:
                with hub_errors(repository):
                    api.hf_hub_download(name, MODEL_FILE, revision=info.sha, local_dir=folder)
                (Path(folder) / MODEL_FILE).replace(part)
            digest = sha256_of(part)
            wanted = getattr(files[MODEL_FILE].lfs, "sha256", None)
            if wanted not in (None, digest):
                raise WeightsError(f"{repository}: {MODEL_FILE} has another SHA-256 than the hub says; pull it again")
            read_model_file(part)
            check(part)
            hash_path(target).write_text(digest + "\n")
        write_file(target.with_suffix(".json"), json.dumps({"repository": name, "commit": info.sha}) + "\n")
    except OSError as error:
        raise WeightsError(f"{target}: cannot be stored ({error.strerror or one_line(error)}); make room") from None
    return target


def check_pull(repository: str) -> None:
    """Raise WeightsError, with the way without a network, if the hub cannot be reached."""
    try:
        check_hub(repository)
    except WeightsError as error:
        raise WeightsError(
            f"{error}. Without a network: fetch {MODEL_FILE} of {repository} on another machine, and give the file: --model FILE"
        ) from None


def _check_name(repository: str, *, with_revision: bool = False) -> None:
    """Raise ConfigError unless a text is the name of a repository."""
    if REPOSITORY.fullmatch(repository) is None or ("@" in repository and not with_revision):
        more = "[@REVISION]" if with_revision else ""
        raise ConfigError(f"{repository!r}: needs OWNER/NAME{more}, in letters, digits and . _ -")


def _api() -> Any:
    """Return the client of the hub, or of the mirror that HF_ENDPOINT names."""
    api: Any = needed("huggingface_hub", "hub", "sharing models needs huggingface_hub").HfApi(
        endpoint=os.environ.get("HF_ENDPOINT"), library_name=LIBRARY
    )
    return api


def _is_ours(info: Any) -> bool:
    """Return True if the card of a repository names this library."""
    card = info.card_data or {}
    return (
        LIBRARY in (info.tags or [])
        or getattr(info, "library_name", None) == LIBRARY
        or card.get("library_name") == LIBRARY
    )


def _is_new(api: Any, repository: str) -> bool:
    """Return True if there is no such repository. Raises WeightsError for one of another kind."""
    from huggingface_hub.errors import RepositoryNotFoundError  # `_api` has imported it

    try:
        with hub_errors(repository, may_be_new=True):
            info = api.model_info(repository)
    except RepositoryNotFoundError:
        return True
    files = {file.rfilename for file in info.siblings or []}
    if files - OWN_FILES or (MODEL_FILE in files and not _is_ours(info)):
        found = ", ".join(sorted(files - OWN_FILES)[:3]) or f"a {MODEL_FILE} of another library"
        raise WeightsError(f"{repository}: holds something else ({found}), which is not overwritten; take another name")
    return False


def _prepare(model: str, repository: str, folder: Path, *, private: bool, licence: str) -> Upload:
    """Write the model file and its card to a folder, without what must not be published."""
    if format_of(exported_in(model)) is not None:
        raise ConfigError(
            f"{model}: an exported graph, which has no card; push the model file that it was exported from"
        )
    path = find_model(model)
    file, shortened = without_paths(read_model_file(path))
    write_model_file(folder / MODEL_FILE, file, stored_as=stored_kinds(path))
    num_bytes = (folder / MODEL_FILE).stat().st_size
    card = card_of(file, repository, num_bytes=num_bytes, licence=licence, interval=_interval_beside(path))
    (folder / CARD).write_text(card, encoding="utf-8")
    marks = file.provenance.get("training_videos") or []
    sizes = {name: (folder / name).stat().st_size for name in (CARD, MODEL_FILE)}
    return Upload(repository, True, private, sizes, shortened, len(marks), file.rejection is not None, card)


def _interval_beside(path: Path) -> str:
    """Return the interval of the measured figure, from the metrics.json that training wrote beside the model; empty without one."""
    try:
        metrics = json.loads((path.parent / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    for part in ("left_out", "held_out"):
        found = metrics.get(part) if isinstance(metrics, dict) else None
        interval = found.get("interval") if isinstance(found, dict) else None
        if isinstance(interval, dict) and {"low", "high", "num_groups"} <= interval.keys():
            return f"95 % interval {interval['low']:.1%} to {interval['high']:.1%} over {interval['num_groups']} groups"
    return ""


@contextmanager
def hub_errors(repository: str, *, may_be_new: bool = False) -> Iterator[None]:
    """Turn the errors of the hub's client into WeightsError, in our words: its own may be long, and name what was sent.

    With `may_be_new` the error for a repository that is not there goes through as it is.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        yield
    except _client_errors() as error:
        if may_be_new and isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError):
            raise
        raise WeightsError(f"{repository}: {_reason_of(error)}") from None


def _client_errors() -> tuple[type[Exception], ...]:
    """Return the errors of the hub's client, and of the package by which it sends requests."""
    from huggingface_hub import errors

    kinds: list[type[Exception]] = [
        errors.HfHubHTTPError,
        errors.LocalTokenNotFoundError,
        errors.LocalEntryNotFoundError,
        errors.OfflineModeIsEnabled,
        ConnectionError,
    ]
    for package, kind in (("httpx", "HTTPError"), ("httpx2", "HTTPError"), ("requests", "RequestException")):
        if package in sys.modules:
            kinds.append(getattr(sys.modules[package], kind))
    return tuple(kinds)


def _reason_of(error: Exception) -> str:
    """Return the reason for an error of the hub's client, and the way out."""
    from huggingface_hub import errors

    kinds = (
        (errors.GatedRepoError, f"its owner grants access one by one; ask for it on its page, then {LOG_IN}"),
        (
            errors.RepositoryNotFoundError,
            f"no such model, or a private one; check the name, and {LOG_IN} if it is private",
        ),
        (errors.RevisionNotFoundError, "no such revision; check what stands after the @"),
        (errors.LocalTokenNotFoundError, f"nobody is logged in; {LOG_IN}"),
    )
    reason = next((words for kind, words in kinds if isinstance(error, kind)), "")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if reason:
        return reason
    if status in (401, 403):
        return f"the hub refuses it (HTTP {status}); {LOG_IN} with the right to do this"
    if status is not None:
        return f"the hub answered HTTP {status}; try again later"
    return (
        f"the hub cannot be reached ({one_line(error)}); check the network, HF_ENDPOINT and HF_HUB_OFFLINE; "
        "HF_HUB_DISABLE_XET=1 is for mirrors without Xet"
    )
