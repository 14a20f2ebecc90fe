"""A real stream with its page on a port of this machine: a source with three events, and one that cannot be opened."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fewframes.inference.live.streams import Streams, WatchedSource
from fewframes.inference.predictor import Predictor
from fewframes.serve.live.app import PageConfig, create_app
from fewframes.serve.live.board import Board
from fewframes.serve.server import listen, running
from fewframes.video.live_settings import StreamConfig
from fewframes.watch.clips.folder import ClipSettings
from fewframes.watch.clips.keeper import ClipKeeper
from fewframes.watch.settings import watch_of
from fewframes.watch.watch import Watch
from helpers.numbered import Numbered
from helpers.served import until

CONFIG = StreamConfig(window_s=0.4, stall_s=0.5)
EVERY_LABEL = {"rules": [{"enter": 0.01, "leave": 0.001}]}
"""Rules by which each label of a model is an event, from its first answer on."""
NOWHERE = "http://127.0.0.1:9/cam"
"""An address at which nothing listens."""


@dataclass
class LivePage:
    """A stream that has ended for one source, and waits for the other."""

    board: Board
    keeper: ClipKeeper
    folder: Path
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def live_page(
    predictor: Predictor, place: Path, *, name: str = "door", token: str = "", zones: tuple[str, ...] = ()
) -> Iterator[LivePage]:
    """Watch a video whose source has this name, and serve the page inside the block."""
    video = Numbered(suffix=".ts", format="mpegts", gop=10, times_ms=range(0, 3000, 40)).write(place / "source")
    tell = lambda words: None  # noqa: E731
    with (
        closing(listen("127.0.0.1", 0)) as listening,
        ClipKeeper(place / "events", ClipSettings(before_s=0.5, after_s=0.2), 60, tell) as keeper,
        Watch(watch_of(EVERY_LABEL, "test"), tell=tell, record=keeper.record) as watch,
        keeper.keeping(watch),
    ):
        sources = [
            WatchedSource(
                name=name,
                source=keeper.recorded(str(video), name, CONFIG.window_s),
                config=StreamConfig(window_s=0.4, zones=zones),
            ),
            WatchedSource(name="away", source=NOWHERE, config=CONFIG),
        ]
        board = Board(watch, keeper.folder)
        with Streams(predictor, sources) as answers:
            board.follow(answers)

            def step_all() -> None:
                for answer in answers:
                    board.step(answer.source, answer, zone=answer.zone)

            thread = threading.Thread(target=step_all)
            thread.start()
            config = PageConfig(labels=predictor.labels, names=() if token else ("127.0.0.1",), token=token)
            with running(create_app(board, config), listening):
                try:
                    until(lambda: any(event.kind == "end" for event in answers.events[name]))
                    until(lambda: answers.events["away"])
                    watch.end(name)
                    until(lambda: len(keeper.folder.events) == 3 * max(1, len(zones)))
                    yield LivePage(board, keeper, place / "events", listening.getsockname()[1])
                finally:
                    answers.close()
                    thread.join()
