"""Open the videos that requests name: files of a folder, and URLs, which are fetched into an open temporary file.

A client must not reach through this server what it could not reach itself (SSRF). So host names are resolved here, and only
public addresses are connected to, after a redirect too. The connection goes to the very address that was checked, because a name
may resolve to a public address when it is checked and to another one a moment later.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any
from urllib.parse import urljoin

import httpx2

from fewframes.errors import MissingVideo, Refusal

SCHEMES = ("http", "https")
MOST_REDIRECTS, MOST_PORT = 5, 65535
"""The most redirects that are followed, and the highest port that exists."""
SPOOLED_BYTES = 2**20
"""Up to this size a video stays in memory, as uploads do. A larger one is in a file without a name, gone when it is closed."""
STEP_S = 10.0
"""The most seconds that connecting, and each wait for more bytes, may take."""
CHECK_S = 0.1
"""Seconds between two checks that there is still time."""
INNER = tuple(ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))
"""Ranges of IPv6 addresses that contain an IPv4 address, which may be a private one."""


def is_public(address: str) -> bool:
    """Return True if anybody could reach this address.

    False for this machine, its network, a carrier's network, multicast and reserved addresses.
    """
    found = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return is_public(str(found.ipv4_mapped))
        if found.is_site_local or any(found in network for network in INNER):
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


def checked_address(host: str, port: int, allows: Callable[[str], bool] = is_public) -> str:
    """Return the address to connect to.

    Raises Refusal: 403 if any address of the host is not allowed, 422 if it has none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Refusal(422, f"{host}: no such host ({getattr(error, 'strerror', None) or error})") from None
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not allows(address):
            raise Refusal(403, f"{host}: stands for {address}, which is not a public address; name a public one")
    return addresses[0]


def fetch(
    url: str,
    max_bytes: int,
    *,
    allows: Callable[[str], bool] = is_public,
    check: Callable[[], None] = lambda: None,
) -> IO[bytes]:
    """Return the content of a URL as a temporary file, which the caller closes.

    Args:
        url: The URL, of http or https.
        max_bytes: The largest size.
        allows: Says of an address whether it may be connected to.
        check: Called every `CHECK_S` while anything but the resolving of a name is waited for; an error it raises ends the
            fetching.

    Raises Refusal: 403 for an address or scheme that is not allowed, 404 for a missing file, 413 above `max_bytes`, 422 for
    anything else that cannot be fetched.
    """
    check()
    file = SpooledTemporaryFile(max_size=SPOOLED_BYTES)  # noqa: SIM115 (the caller closes it)
    try:
        asyncio.run(_watched(_fetch_into(file, url, max_bytes, allows), check))
    except BaseException:
        file.close()
        raise
    return file  # type: ignore[return-value]


async def _watched(work: Coroutine[Any, Any, None], check: Callable[[], None]) -> None:
    """Run the work, and call `check` every `CHECK_S`.

    A server that sends byte by byte keeps to any limit on a single wait, so the whole is watched from outside.
    """
    working = asyncio.create_task(work)
    while not (await asyncio.wait({working}, timeout=CHECK_S))[0]:
        check()  # if it raises, asyncio.run cancels the work, wherever that waits
    working.result()


async def _fetch_into(
    file: SpooledTemporaryFile[bytes], url: str, max_bytes: int, allows: Callable[[str], bool]
) -> None:
    """Write the content of a URL to the file, after at most `MOST_REDIRECTS` redirects."""
    # No proxy from the environment: it would resolve the name anew, past the check.
    async with httpx2.AsyncClient(trust_env=False, timeout=STEP_S) as client:
        target = url
        for _ in range(MOST_REDIRECTS + 1):
            try:
                async with aclosing(await client.send(_request(client, target, allows), stream=True)) as response:
                    if not response.has_redirect_location:
                        await _save(response, file, url, max_bytes)
                        return
                    target = urljoin(target, response.headers["location"])
            except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, ValueError) as error:
                raise Refusal(422, f"{url}: cannot be fetched ({str(error) or type(error).__name__})") from None
    raise Refusal(422, f"{url}: more than {MOST_REDIRECTS} redirects; give the final address")


def _request(client: httpx2.AsyncClient, url: str, allows: Callable[[str], bool]) -> httpx2.Request:
    """Return a request to the address that was checked, with the host name of the URL. Raises Refusal."""
    target = httpx2.URL(url)
    if target.scheme not in SCHEMES or not target.host:
        raise Refusal(403, f"{url}: needs an address that begins with http:// or https://")
    port = target.port or (443 if target.scheme == "https" else 80)
    if port > MOST_PORT:
        raise Refusal(422, f"{url}: port {port} does not exist; ports end at {MOST_PORT}")
    address = checked_address(target.host, port, allows)
    return client.build_request(
        "GET",
        target.copy_with(host=address),
        # A compressed answer could be small and unpack to any size.
        headers={"Host": target.netloc.decode("ascii"), "Accept-Encoding": "identity"},
        extensions={"sni_hostname": target.host},
    )


async def _save(response: httpx2.Response, file: SpooledTemporaryFile[bytes], url: str, max_bytes: int) -> None:
    """Write the body of a response to the file. Raises Refusal for an error status, and above `max_bytes`."""
    if response.status_code != httpx2.codes.OK:
        status = 404 if response.status_code in (404, 410) else 422
        raise Refusal(status, f"{url}: the server there answers {response.status_code}; check the address")
    announced = response.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise too_large(url, max_bytes)
    num_bytes = 0  # counted, because a server may announce no length or a wrong one
    async for piece in response.aiter_raw():
        num_bytes += len(piece)
        if num_bytes > max_bytes:
            raise too_large(url, max_bytes)
        file.write(piece)


def too_large(name: str, max_bytes: int) -> Refusal:
    """Return the refusal (413) of a file above the limit."""
    return Refusal(413, f"{name}: larger than the limit of {max_bytes / 1e6:.4g} MB; send a smaller one")


def open_below(root: str | None, name: str, max_bytes: int) -> IO[bytes]:
    """Open the file of this name in the folder `root`.

    Raises:
        Refusal: 403 for a file outside the folder, whether by `..`, an absolute path or a link, and if there is no folder; 404
            for a file that cannot be opened; 413 above `max_bytes`.
        MissingVideo: There is no such file.
    """
    if root is None:
        raise Refusal(403, f"{name}: this server reads no files of its own; upload the video")
    try:
        folder = Path(root).resolve()
        path = (folder / name).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a null character, or a link to itself
        raise Refusal(403, f"{name!r}: not a path ({error})") from None
    if not path.is_relative_to(folder):
        raise Refusal(403, f"{name}: outside of the folder that this server reads from; name a file in it")
    try:
        if not path.is_file():
            raise MissingVideo(f"{name}: no such file; check the path")
        file = path.open("rb")
    except OSError as error:  # a name that is too long, or no permission
        status = 403 if isinstance(error, PermissionError) else 404
        raise Refusal(status, f"{name}: cannot be read ({error.strerror})") from None
    if os.fstat(file.fileno()).st_size > max_bytes:
        file.close()
        raise too_large(name, max_bytes)
    return file
