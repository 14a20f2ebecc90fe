"""The option of `stream` for a page in the browser."""

from __future__ import annotations

import os
import platform
import secrets
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from fewframes.cli.console import tell
from fewframes.cli.label import EVERY_ADDRESS
from fewframes.cli.live_view import source_counts
from fewframes.cli.options import OUTPUT
from fewframes.cli.serve import host_names, is_loopback, needing_serve

if TYPE_CHECKING:  # the command line must not load what a command does not need
    from fewframes.inference.live.streams import Streams
    from fewframes.inference.predictor import Predictor
    from fewframes.inference.stream import Stream
    from fewframes.serve.live.board import Board
    from fewframes.watch.clips.keeper import ClipKeeper
    from fewframes.watch.watch import Watch, Watcher

LOCAL = "127.0.0.1"
PageOption = Annotated[
    str | None,
    typer.Option(
        "--page",
        metavar="[HOST:]PORT",
        help="Show the sources and their events on a page in the browser, and take marks of events with --clips. 0.0.0.0:PORT lets "
        "other machines connect, with the token in the address ($FEWFRAMES_TOKEN, or a new one).",
        rich_help_panel=OUTPUT,
    ),
]


def page_address(text: str) -> tuple[str, int]:
    """Return the host and the port of [HOST:]PORT. Raises BadParameter for anything else."""
    host, colon, port = text.rpartition(":")
    is_host = bool(host.strip("[]")) if colon else True
    if not is_host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise typer.BadParameter(
            f"--page {text!r}: needs [HOST:]PORT with a port up to 65535, such as 8123 or 0.0.0.0:8123"
        )
    return host.removeprefix("[").removesuffix("]") or LOCAL, int(port)


@contextmanager
def showing(
    page: str | None, models: Iterable[Predictor], watch: Watch | None, keeper: ClipKeeper | None
) -> Iterator[Board | None]:
    """Serve a page inside the block, and yield what takes the answers that it shows; None if no page is wanted.

    Args:
        page: The address to listen on.
        models: The models that answer.
        watch: The watch that makes events of the answers.
        keeper: The keeper of clips.

    Raises:
        BadParameter: The address is none.
        ConfigError: It cannot be listened on.
        MissingDependency: A package of the extra `serve` is missing.
    """
    if page is None:
        yield None
        return
    host, port = page_address(page)
    with needing_serve("--page"):
        from fewframes.serve.live.app import PageConfig, create_app
        from fewframes.serve.live.board import Board
        from fewframes.serve.security import in_address
        from fewframes.serve.server import listen, running
    labels = dict.fromkeys(label for model in models for label in model.labels)
    board = Board(watch, None if keeper is None else keeper.folder)
    with closing(listen(host, port)) as listening:
        is_here = is_loopback(listening)
        token = own = os.environ.get("FEWFRAMES_TOKEN", "")
        if not is_here and not token:
            token = secrets.token_urlsafe(12)
            tell(
                "open to other machines: whoever has the whole address can see the pictures and mark events; set FEWFRAMES_TOKEN "
                "for an address that stays the same"
            )
        config = PageConfig(labels=tuple(labels), names=host_names(host) if is_here and not token else (), token=token)
        shown = platform.node() if host in EVERY_ADDRESS else host
        address = f"http://{in_address(shown)}:{listening.getsockname()[1]}"
        with running(create_app(board, config), listening):
            # A token that the user has set is a secret that stays; it does not go to the terminal and into logs.
            ending = "" if not token else f"/?token={'$FEWFRAMES_TOKEN' if own else token}"
            tell(f"page: {address}{ending}")
            yield board


def followed(board: Board | None, answers: Stream | Streams, watch: Watch | None) -> Watcher | None:
    """Return what takes the answers of a stream: the page before the watch if there is one, else the watch.

    The metrics of the watch show the counts of its sources.
    """
    if watch is not None:
        watch.sources = lambda: source_counts(answers)
    if board is None:
        return watch
    board.follow(answers)
    return board
