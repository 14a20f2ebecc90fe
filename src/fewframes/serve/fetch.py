"""A video at an address that a stranger names -> an open temporary file.

The stranger must not see through us what he could not see himself: names are resolved here, and only public addresses are
connected to, the very ones that were looked at, also after a redirect. (A name may stand for a public address when it is looked
at and for another a moment later.)
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from tempfile import SpooledTemporaryFile
from typing import IO, Any
from urllib.parse import urljoin

import httpx2

from fewframes.errors import Refusal

SCHEMES = ("http", "https")
MOST_REDIRECTS, MOST_PORT = 5, 65535
SPOOLED_BYTES = 2**20
"""Up to this size a video stays in memory, as uploads do; above, it lies in a file without a name, gone when it is closed."""
STEP_S = 10.0
"""How long connecting, and each wait for more, may take."""
LOOK_S = 0.1
"""How often it is asked whether there is still time."""
INNER = tuple(ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))
"""IPv6 addresses that carry an IPv4 address inside, to wherever that leads."""


def is_public(address: str) -> bool:
    """Whether anybody could reach this address: not this machine, its network, a carrier's, a group's, or a reserved one."""
    found = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return is_public(str(found.ipv4_mapped))
        if found.is_site_local or any(found in network for network in INNER):
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


def checked_address(host: str, port: int, allows: Callable[[str], bool] = is_public) -> str:
    """The address to connect to. Refusal (403) where one of the name's addresses is not allowed, (422) where it has none."""
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
    """What lies at this address, as a temporary file that the caller closes.

    `check` is called every `LOOK_S`, whatever is waited for (but a name's addresses), and what it raises ends the fetching.
    Raises Refusal: 403 for an address or scheme that is not allowed, 404, 413 above `max_bytes`, 422 for what cannot be fetched.
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
    """A sender that drips keeps to any limit on a single wait, so the whole is looked at from outside."""
    working = asyncio.create_task(work)
    while not (await asyncio.wait({working}, timeout=LOOK_S))[0]:
        check()  # where it raises, asyncio.run ends the work, wherever it waits
    working.result()


async def _fetch_into(
    file: SpooledTemporaryFile[bytes], url: str, max_bytes: int, allows: Callable[[str], bool]
) -> None:
    async with httpx2.AsyncClient(trust_env=False, timeout=STEP_S) as client:  # a proxy would resolve names anew
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
    raise Refusal(422, f"{url}: more than {MOST_REDIRECTS} redirects")


def _request(client: httpx2.AsyncClient, url: str, allows: Callable[[str], bool]) -> httpx2.Request:
    """A request to the address that was looked at, under the name that was asked for."""
    target = httpx2.URL(url)
    if target.scheme not in SCHEMES or not target.host:
        raise Refusal(403, f"{url}: needs an address that begins with http:// or https://")
    port = target.port or (443 if target.scheme == "https" else 80)
    if port > MOST_PORT:
        raise Refusal(422, f"{url}: port {port}; the last there is is {MOST_PORT}")
    address = checked_address(target.host, port, allows)
    return client.build_request(
        "GET",
        target.copy_with(host=address),
        # Unpacking would let a small answer become any size.
        headers={"Host": target.netloc.decode("ascii"), "Accept-Encoding": "identity"},
        extensions={"sni_hostname": target.host},
    )


async def _save(response: httpx2.Response, file: SpooledTemporaryFile[bytes], url: str, max_bytes: int) -> None:
    if response.status_code != httpx2.codes.OK:
        status = 404 if response.status_code in (404, 410) else 422
        raise Refusal(status, f"{url}: the server there answers {response.status_code}; check the address")
    announced = response.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise too_large(url, max_bytes)
    num_bytes = 0
    async for piece in response.aiter_raw():
        num_bytes += len(piece)
        if num_bytes > max_bytes:
            raise too_large(url, max_bytes)
        file.write(piece)


def too_large(name: str, max_bytes: int) -> Refusal:
    """What to say of a file above the limit."""
    return Refusal(413, f"{name}: larger than the limit of {max_bytes / 1e6:.4g} MB; send a smaller one")
