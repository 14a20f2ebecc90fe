"""Find out whether a server can be reached, so that a machine without a network gets its answer in seconds.

The client of the hub tries a connection again and again for the better part of a minute. Only the name and the connection are
tried here, never the speed: a slow network that lives has all the time it needs.
"""

from __future__ import annotations

import os
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from fewframes.errors import WeightsError, needed

CONNECT_S = 8.0
"""The most seconds until the name of a server is resolved and a connection is made."""
PORTS = {"http": 80, "https": 443}


def unreachable(address: str) -> str:
    """Return the reason why no connection to a server can be made, in words; an empty text if one was made.

    If a proxy is set for the address (`HTTPS_PROXY` and others), the proxy is asked in its place. An address without a server, such
    as that of a file, is always reached.

    Args:
        address: A URL of the server.
    """
    host, port = _asked(address)
    if not host:  # a file
        return ""
    reasons = [f"{host}: no connection within {CONNECT_S:g} s"]

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=CONNECT_S).close()
            reasons.append("")
        except OSError as error:
            reasons.append(f"{host}: {error.strerror or error}")

    # The system resolves a name for as long as it likes, so it does so in a thread that nobody waits for any longer.
    thread = threading.Thread(target=connect, name="fewframes-reach", daemon=True)
    thread.start()
    thread.join(CONNECT_S)
    return reasons[-1]


def _asked(address: str) -> tuple[str, int]:
    """Return the host and the port to which a request for an address connects: those of its proxy, if there is one."""
    parts = urlsplit(address)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}", scheme="http")
    return parts.hostname or "", parts.port or PORTS.get(parts.scheme, 443)


def hub_unreachable() -> str:
    """Return the reason why the hub, or the mirror that HF_ENDPOINT names, cannot be reached; an empty text if it can be.

    A user who has set HF_HUB_OFFLINE has answered this: the hub's client then uses its cache without a request.
    """
    constants = needed("huggingface_hub.constants", "hub")
    return "" if constants.HF_HUB_OFFLINE else unreachable(os.environ.get("HF_ENDPOINT") or constants.ENDPOINT)


def check_hub(name: str) -> None:
    """Raise WeightsError if the hub cannot be reached. `name` is what is wanted from it."""
    if reason := hub_unreachable():
        raise WeightsError(f"{name}: the hub cannot be reached ({reason}); check the network and HF_ENDPOINT")


@contextmanager
def hub_or_cache() -> Iterator[str]:
    """Run the block with the hub's cache alone if the hub cannot be reached, and give it the reason; an empty text if it can be."""
    reason = hub_unreachable()
    constants = needed("huggingface_hub.constants", "hub")
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or bool(reason)
    try:
        yield reason
    finally:
        constants.HF_HUB_OFFLINE = before
