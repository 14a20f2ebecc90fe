"""Disks and object stores: what reaches a path or URL. It loads little, for all workers of a run begin with it."""

from __future__ import annotations

import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any
from urllib.request import url2pathname

import fsspec

from fewframes.errors import MissingDependency, MissingVideo, Unreachable, VideoError

VERSIONS = ("ETag", "etag", "Last-Modified", "LastModified", "last_modified", "mtime", "updated")
"""What servers, object stores and disks call that by which a file's versions are told apart, the surest first."""
EXTRAS = {"http": "http", "https": "http", "s3": "s3", "gs": "gcs", "gcs": "gcs"}
"""The extra of this package that brings what a protocol needs."""
CLIENTS_ERRORS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("gcsfs.retry", "HttpError"),
    ("aiohttp.client_exceptions", "ClientError"),
)
"""What clients of object stores raise beside OSError: where credentials are missing, a connection breaks."""
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:(//|:.*://)", re.IGNORECASE)
"""What an address begins with: `s3://`, and fsspec's `simplecache::s3://`."""
LOCAL = "file://"
NO_FILE = (None, 404, 410)
"""What HTTP servers answer of a file that is not there; None is no answer of one."""


def is_address(text: str) -> bool:
    """Return whether a text is an address such as s3://bucket/a.mp4. A path that exists is a path, whatever its name."""
    return ADDRESS.match(text) is not None and not os.path.lexists(text)


def as_path(text: str) -> str:
    """Return the path that a file:// address stands for; any other text as it is."""
    if text[: len(LOCAL)].lower() != LOCAL or os.path.lexists(text):
        return text
    path = text[len(LOCAL) :]
    path = path.removeprefix("localhost") if path.startswith("localhost/") and not os.path.lexists(path) else path
    return path if os.path.lexists(path) else url2pathname(path)  # %20 is a blank, unless a name has it


def with_plain_scheme(address: str) -> str:
    """Return an address that begins in lower case: HTTP:// is http://."""
    scheme, separator, rest = address.partition(":")
    return scheme.lower() + separator + rest


def store_errors() -> tuple[type[Exception], ...]:
    """What may be raised where a disk or object store cannot be reached, or does not do what it should: for `except`."""
    loaded = ((sys.modules.get(module), name) for module, name in CLIENTS_ERRORS)
    return (OSError, ValueError, zipfile.BadZipFile, *(getattr(module, name) for module, name in loaded if module))


def file_system(url: str) -> tuple[Any, str]:
    """What reaches a path or URL, and what it calls it. MissingDependency where its package is not there, ValueError for a
    protocol that nobody knows."""
    url = with_plain_scheme(url) if is_address(url) else url
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        extra = EXTRAS.get(url.split("://", maxsplit=1)[0])
        remedy = f"pip install 'fewframes[{extra}]'" if extra else "pip install the package named there"
        raise MissingDependency(f"{url}: {error}; {remedy}") from None
    except (TypeError, AttributeError) as error:  # protocols that need more than an address
        raise ValueError(f"{url}: no address of a file ({error})") from None
    return system, path


def version_of(url: str) -> dict[str, str]:
    """The size of the file there, and its ETag or else its date, of those that are told: where one is another, so is the file.
    It is one question. Raises as `file_system` does, and any of `store_errors` where it cannot be reached."""
    system, path = file_system(url)
    about = system.info(path)
    told = [name for name in VERSIONS if about.get(name)][:1]
    return {name: str(about[name]) for name in ("size", *told) if about.get(name) is not None}


class FarFile:
    """A file in a store, to read. Where that fails it ends: what FFmpeg's callbacks raise does not always arrive (`unbroken`)."""

    def __init__(self, file: IO[bytes], url: str) -> None:
        self._file, self._url = file, url
        self.seek, self.tell, self.close = file.seek, file.tell, file.close
        self.failure: Unreachable | None = None

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        if self.failure is not None:
            return b""
        try:
            return self._file.read(size)
        except store_errors() as error:
            words = str(error) or type(error).__name__
            self.failure = Unreachable(
                f"{self._url}: cannot be read to its end ({words}); check the network, and try again"
            )
            return b""


@contextmanager
def unbroken(file: object) -> Iterator[None]:
    """Whatever came of it, the `failure` of a file that has one: it ended before its end, as a `FarFile` does."""
    try:
        yield
    except VideoError:
        if (failure := getattr(file, "failure", None)) is not None:
            raise failure from None
        raise
    if (failure := getattr(file, "failure", None)) is not None:
        raise failure


def open_far(url: str, block_bytes: int) -> tuple[IO[bytes], Callable[[], int] | None]:
    """A file in a store, fetched in blocks, and what tells how many bytes that were; None for one in memory or on this machine's
    disk. Raises MissingVideo, VideoError where it cannot be opened, and MissingDependency."""
    try:
        system, path = file_system(url)
        file = system.open(path, "rb", block_size=block_bytes, cache_type="blockcache")
    except FileNotFoundError as error:
        cause = error.__cause__  # fsspec calls all that a server answers so
        if not isinstance(cause, store_errors()) or getattr(cause, "status", None) in NO_FILE:
            raise MissingVideo(f"{url}: there is no such file; check the address") from None
        raise VideoError(f"{url}: cannot be opened ({cause}); check the address and the network") from None
    except store_errors() as error:
        raise VideoError(f"{url}: cannot be opened ({error}); check the address and the network") from None
    cache = getattr(file, "cache", None)
    far: Any = FarFile(file, url)  # all of a file that readers of videos need
    return far, None if cache is None else lambda: int(cache.total_requested_bytes)
