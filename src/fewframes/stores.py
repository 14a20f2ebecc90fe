"""Disks and object stores: what reaches a path or URL. It loads little, for all workers of a run begin with it."""

from __future__ import annotations

import sys
from typing import Any

import fsspec

from fewframes.errors import MissingDependency

VERSIONS = ("ETag", "etag", "Last-Modified", "LastModified", "last_modified", "mtime", "updated")
"""What servers, object stores and disks call that by which a file's versions are told apart, the surest first."""
EXTRAS = {"http": "http", "https": "http", "s3": "s3", "gs": "gcs", "gcs": "gcs"}
"""The extra of this package that brings what a protocol needs."""
CLIENTS_ERRORS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("gcsfs.retry", "HttpError"),
)
"""What clients of object stores raise beside OSError: where credentials are missing, for example."""


def store_errors() -> tuple[type[Exception], ...]:
    """What may be raised where a disk or object store cannot be reached, or does not do what it should: for `except`."""
    loaded = ((sys.modules.get(module), name) for module, name in CLIENTS_ERRORS)
    return (OSError, ValueError, *(getattr(module, name) for module, name in loaded if module))


def file_system(url: str) -> tuple[Any, str]:
    """What reaches a path or URL, and what it calls it. MissingDependency where its package is not there, ValueError for a
    protocol that nobody knows."""
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        extra = EXTRAS.get(url.split("://", maxsplit=1)[0])
        remedy = f"pip install 'fewframes[{extra}]'" if extra else "pip install the package named there"
        raise MissingDependency(f"{url}: {error}; {remedy}") from None
    return system, path


def version_of(url: str) -> dict[str, str]:
    """The size of the file there, and its ETag or else its date, of those that are told: where one is another, so is the file.
    It is one question. Raises as `file_system` does, and any of `store_errors` where it cannot be reached."""
    system, path = file_system(url)
    about = system.info(path)
    told = [name for name in VERSIONS if about.get(name)][:1]
    return {name: str(about[name]) for name in ("size", *told) if about.get(name) is not None}
