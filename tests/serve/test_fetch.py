"""Fetching for strangers: which addresses are refused, also behind a name or a redirect, and how much is taken."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from fewframes.errors import Refusal
from fewframes.serve.fetch import SPOOLED_BYTES, checked_address, fetch, is_public

VIDEO = bytes(range(256)) * 8
DRIPPING = {"/drip/headers": b"X-Slow: ", "/drip/body": b"\r\n"}


class Handler(BaseHTTPRequestHandler):
    hosts: list[str] = []  # noqa: RUF012
    places: dict[str, str] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        self.hosts.append(self.headers["Host"])
        if self.path in self.places:
            self.send_response(302)
            self.send_header("Location", self.places[self.path])
            self.end_headers()
        elif self.path == "/video":
            self.send_response(200)
            self.send_header("Content-Length", str(len(VIDEO)))
            self.end_headers()
            self.wfile.write(VIDEO)
        elif self.path == "/endless":  # says nothing of its size
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(1000):
                    self.wfile.write(b"0" * 2**16)
            except OSError:
                self.close_connection = True
        elif self.path == "/empty":
            self.close_connection = True
        elif self.path in DRIPPING:  # each byte comes soon, the last one never
            try:
                self.wfile.write(b"HTTP/1.0 200 OK\r\n" + DRIPPING[self.path])
                while True:
                    self.wfile.write(b"0")
                    time.sleep(0.02)
            except OSError:
                self.close_connection = True
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.hosts, Handler.places = [], {}
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


def anywhere(address: str) -> bool:
    return True


def refused(url: str, max_bytes: int = 10**6, **options: Any) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        fetch(url, max_bytes, **options)
    return caught.value.status, str(caught.value)


@pytest.mark.parametrize(
    "address",
    """127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 240.0.0.1 255.255.255.255 198.18.0.1
    192.0.2.1 ::1 :: fe80::1%eth0 fc00::1 fd00::1 fec0::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 2002:7f00:1::
    2001:0:1::1 2001:db8::1""".split(),
)
def test_inner_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_outer_ones_are(address: str) -> None:
    assert is_public(address)


def test_names_and_disguises_of_this_machine_are_refused(server: str) -> None:
    port = server.rpartition(":")[2]
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "0", "[::ffff:127.0.0.1]"):
        status, message = refused(f"http://{host}:{port}/video")
        assert (status, "not a public address" in message) == (403, True), host
    assert Handler.hosts == []


def test_one_inner_address_among_outer_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("8.8.8.8", "10.0.0.7")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)
    with pytest.raises(Refusal, match=r"two\.example: stands for 10\.0\.0\.7"):
        checked_address("two.example", 80)


def test_the_address_that_was_looked_at_is_connected_to(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that stands for something else the second time it is asked for leads nowhere else."""
    port, asked = int(server.rpartition(":")[2]), []

    def once(host: str, *_: object, **__: object) -> list[Any]:
        asked.append(host)
        assert host in ("films.example", "127.0.0.1")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", once)
    with closing(fetch(f"http://films.example:{port}/video", 10**6, allows=anywhere)) as file:
        file.seek(0)
        assert file.read() == VIDEO
    assert asked.count("films.example") == 1
    assert Handler.hosts == [f"films.example:{port}"]


def test_redirects_are_looked_at_too(server: str) -> None:
    Handler.places = {
        "/moved": "/video",
        "/round": "/round",
        "/file": "file:///etc/passwd",
        "/inner": "http://10.0.0.1/x",
        "/broken": "http://[",
    }
    with closing(fetch(f"{server}/moved", 10**6, allows=anywhere)) as file:
        file.seek(0)
        assert file.read() == VIDEO
    assert refused(f"{server}/round", allows=anywhere) == (
        422,
        f"{server}/round: more than 5 redirects; give the final address",
    )
    assert refused(f"{server}/broken", allows=anywhere)[0] == 422
    assert refused(f"{server}/file", allows=anywhere)[0] == 403
    status, message = refused(f"{server}/inner", allows=lambda address: address == "127.0.0.1")
    assert (status, message.startswith("10.0.0.1: ")) == (403, True)


def test_too_much_is_not_taken(server: str) -> None:
    assert refused(f"{server}/video", 1000, allows=anywhere)[0] == 413
    status, message = refused(f"{server}/endless", 2 * SPOOLED_BYTES, allows=anywhere)
    assert (status, "larger than the limit of 2.097 MB" in message) == (413, True)


def test_what_cannot_be_fetched(server: str) -> None:
    assert refused(f"{server}/none", allows=anywhere)[0] == 404
    for url in ("ftp://example.org/a", "file:///etc/passwd", "video.mp4", "http:///x"):
        assert refused(url, allows=anywhere)[0] == 403, url
    assert refused("http://no-such-host.invalid/x")[0] == 422
    assert refused("http://127.0.0.1:65536/x", allows=anywhere)[0] == 422
    assert refused(f"{server}/empty", allows=anywhere) == (
        422,
        f"{server}/empty: cannot be fetched (Server disconnected without sending a response.)",
    )
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        assert refused(f"http://127.0.0.1:{free.getsockname()[1]}/x", allows=anywhere)[0] == 422


@pytest.mark.parametrize("path", ["/video", *DRIPPING, "/moved"])
def test_time_that_is_over_ends_it(server: str, path: str) -> None:
    Handler.places = {"/moved": "/drip/headers"}
    began = time.monotonic()
    limit_s = 0.0 if path == "/video" else 0.5

    def check() -> None:
        if time.monotonic() - began >= limit_s:
            raise Refusal(408, "late")

    assert refused(f"{server}{path}", allows=anywhere, check=check) == (408, "late")
    assert time.monotonic() - began < limit_s + 1
