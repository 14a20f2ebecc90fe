"""Access to files by path or URL, on disks and in object stores.

This module imports little, because every worker of a run loads it first.
"""

from __future__ import annotations

import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any
from urllib.request import url2pathname

from fewframes.errors import MissingDependency, MissingVideo, Unreachable, VideoError

VERSIONS = ("ETag", "etag", "Last-Modified", "LastModified", "last_modified", "mtime", "updated")
"""The names of attributes that change with the content of a file, on servers, in object stores and on disks. The most reliable
comes first."""
EXTRAS = {"http": "http", "https": "http", "s3": "s3", "gs": "gcs", "gcs": "gcs"}
"""The extra of this package that installs what a protocol needs."""
CLIENTS_ERRORS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("gcsfs.retry", "HttpError"),
    ("aiohttp.client_exceptions", "ClientError"),
)
"""The modules and names of errors that clients of object stores raise beside OSError, such as for missing credentials or a broken
connection."""
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:(//|:.*://)", re.IGNORECASE)
"""The beginning of an address, such as `s3://`, or `simplecache::s3://` in the notation of fsspec."""
LOCAL = "file://"
"""The beginning of an address that stands for a local path."""
NO_FILE = (None, 404, 410)
"""The HTTP status for a file that does not exist. None means that the error did not come from an HTTP server."""


def is_address(text: str) -> bool:
    """Return True if a text is an address such as s3://bucket/a.mp4. The name of an existing file is never an address."""
    return ADDRESS.match(text) is not None and not os.path.lexists(text)


def as_path(text: str) -> str:
    """Return the path that a file:// address stands for, and any other text unchanged."""
    if text[: len(LOCAL)].lower() != LOCAL or os.path.lexists(text):
        return text
    path = text[len(LOCAL) :]
    path = path.removeprefix("localhost") if path.startswith("localhost/") and not os.path.lexists(path) else path
    # %20 means a blank, unless the name of an existing file contains it.
    return path if os.path.lexists(path) else url2pathname(path)


def with_plain_scheme(address: str) -> str:
    """Return the address with its scheme in lower case, so that HTTP:// becomes http://."""
    scheme, separator, rest = address.partition(":")
    return scheme.lower() + separator + rest


def store_errors() -> tuple[type[Exception], ...]:
    """Return the errors that disks and object stores may raise, for an `except` clause."""
    # A client that is not imported yet cannot have raised anything, and importing it here would be slow.
    loaded = ((sys.modules.get(module), name) for module, name in CLIENTS_ERRORS)
    return (OSError, ValueError, zipfile.BadZipFile, *(getattr(module, name) for module, name in loaded if module))


def file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system that reaches a path or URL, and the path within it.

    Raises MissingDependency if the package for the protocol is not installed, and ValueError if no package knows the protocol.
    """
    url = with_plain_scheme(url) if is_address(url) else url
    import fsspec  # late, because it is slow to import and most videos are files of this machine

    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        extra = EXTRAS.get(url.split("://", maxsplit=1)[0])
        remedy = f"pip install 'fewframes[{extra}]'" if extra else "pip install the package named there"
        raise MissingDependency(f"{url}: {error}; {remedy}") from None
    except (TypeError, AttributeError) as error:  # some protocols need more than an address
        raise ValueError(f"{url}: not the address of a file ({error})") from None
    return system, path


def version_of(url: str) -> dict[str, str]:
    """Return the size of a file and its ETag, or else its date, as far as they are known. If one differs, so does the file.

    The store is asked once. Raises as `file_system` does, and any of `store_errors` if the store cannot be reached.
    """
    system, path = file_system(url)
    attributes = system.info(path)
    version = [name for name in VERSIONS if attributes.get(name)][:1]
    return {name: str(attributes[name]) for name in ("size", *version) if attributes.get(name) is not None}


class FarFile:
    """A file in a store, opened for reading. If reading fails, the file seems to end, and `failure` holds the error.

    FFmpeg reads through callbacks, and not every exception that a callback raises arrives at its caller. `unbroken` raises
    `failure` afterwards.
    """

    def __init__(self, file: IO[bytes], url: str) -> None:
        self._file, self._url = file, url
        self.seek, self.tell, self.close = file.seek, file.tell, file.close
        self.failure: Unreachable | None = None

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most `size` of them; none after the end or after a failure."""
        if self.failure is not None:
            return b""
        try:
            return self._file.read(size)
        except store_errors() as error:
            reason = str(error) or type(error).__name__
            self.failure = Unreachable(
                f"{self._url}: cannot be read to its end ({reason}); check the network, and try again"
            )
            return b""


@contextmanager
def unbroken(file: object) -> Iterator[None]:
    """Raise the `failure` of a file, if it has one after the block, such as that of a `FarFile`.

    A failed file seems to end early, so a result of the block, or a VideoError from it, would blame the video.
    """
    try:
        yield
    except VideoError:
        if (failure := getattr(file, "failure", None)) is not None:
            raise failure from None
        raise
    if (failure := getattr(file, "failure", None)) is not None:
        raise failure


def open_far(url: str, block_bytes: int) -> tuple[IO[bytes], Callable[[], int] | None]:
    """Open a file in a store, to be fetched in blocks.

    Args:
        url: the address of the file.
        block_bytes: the size of a block.

    Returns:
        The file, and a function that returns the number of bytes fetched so far. It is None for a file in memory or on a local
        disk.

    Raises:
        MissingVideo: the file does not exist.
        VideoError: the file cannot be opened.
        MissingDependency: the package for the protocol is not installed.
    """
    try:
        system, path = file_system(url)
        file = system.open(path, "rb", block_size=block_bytes, cache_type="blockcache")
    except FileNotFoundError as error:
        cause = error.__cause__  # fsspec raises FileNotFoundError for any error of a server
        if not isinstance(cause, store_errors()) or getattr(cause, "status", None) in NO_FILE:
            raise MissingVideo(f"{url}: there is no such file; check the address") from None
        raise VideoError(f"{url}: cannot be opened ({cause}); check the address and the network") from None
    except store_errors() as error:
        raise VideoError(f"{url}: cannot be opened ({error}); check the address and the network") from None
    cache = getattr(file, "cache", None)
    far: Any = FarFile(file, url)  # not a whole IO[bytes], but all that readers of videos need
    return far, None if cache is None else lambda: int(cache.total_requested_bytes)
