"""Run a server on a socket until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from fewframes.errors import EXIT_SOME_FAILED, ConfigError
from fewframes.serve.service import Service

BACKLOG = 128
"""Connections that may wait to be accepted."""
LAST_S = 3.0
"""Seconds from the end of `stop_s` to the end of the process, whatever hangs; the last bytes of answers need two of them."""


def run(
    app: FastAPI, listening: socket.socket, *, stop_s: float, leave: Callable[[int], object] = lambda code: None
) -> int:
    """Serve until SIGTERM or SIGINT, and return how many open requests were not answered.

    After the signal new requests are refused, and open ones are answered until `stop_s` is over or a second signal comes.
    Threads may still work afterwards for the service's `num_inside` requests, for which nobody waits. If anything hangs,
    `leave` is called with the exit code `LAST_S` after `stop_s`: the owner of the process may end it there.
    """
    service: Service = app.state.service
    hung = threading.Timer(
        min(stop_s + LAST_S, threading.TIMEOUT_MAX), lambda: leave(EXIT_SOME_FAILED if service.num_cut else 0)
    )
    hung.daemon = True
    asyncio.run(_serve(_server_of(app), service, listening, stop_s, hung))
    return service.num_cut


def run_until_told(app: FastAPI, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT. Open requests have a second to end then."""
    server = _server_of(app)

    def stop() -> None:
        server.should_exit = True

    asyncio.run(_until_signal(server, listening, stop))


@contextmanager
def running(app: FastAPI, listening: socket.socket) -> Iterator[None]:
    """Serve in a thread of its own inside the block. Open requests have a second to end after it."""
    server = _server_of(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="page", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(LAST_S)


def _server_of(app: FastAPI) -> uvicorn.Server:
    # By the time uvicorn closes connections every request is answered or had its time; a second is for the last bytes.
    return uvicorn.Server(
        uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1, lifespan="on"
        )
    )


async def _serve(
    server: uvicorn.Server, service: Service, listening: socket.socket, stop_s: float, hung: threading.Timer
) -> None:
    """Run the server until it is told to stop: the first signal drains it, the second one ends the waiting."""
    stop, stop_now = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (stop_now if stop.is_set() else stop).set()

    async def drain() -> None:
        await stop.wait()
        hung.start()
        service.is_stopping = True
        ends = time.monotonic() + stop_s
        while service.num_owed and time.monotonic() < ends and not stop_now.is_set():
            await asyncio.sleep(0.05)
        service.close()
        server.should_exit = True

    draining = asyncio.create_task(drain())
    try:
        await _until_signal(server, listening, on_signal)
    finally:
        draining.cancel()
        hung.cancel()


async def _until_signal(server: uvicorn.Server, listening: socket.socket, on_signal: Callable[[], None]) -> None:
    """Run the server until it ends. SIGTERM and SIGINT call `on_signal`, which makes it end."""
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    for name in (signal.SIGTERM, signal.SIGINT):  # uvicorn's own would close the socket, and clients could not be told
        asyncio.get_running_loop().add_signal_handler(name, on_signal)
    await serving


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on this address. Raises ConfigError if that is not possible."""
    listening = None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)  # clients that come before the server accepts wait, and are not refused
    except (OSError, UnicodeError) as error:
        if listening is not None:
            listening.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{host} port {port}: cannot be listened on ({reason}); take another host or port") from None
    return listening
