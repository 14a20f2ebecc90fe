"""What a page knows of a running stream: persons come and go, and what was no event after all is not shown."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from PIL import Image

from fewframes.cli.live_view import watched_answers
from fewframes.inference.live.streams import Streams, WatchedSource
from fewframes.inference.predictor import Predictor
from fewframes.serve.live.board import Board
from fewframes.serve.live.events import EventList
from fewframes.video.live_settings import StreamConfig
from fewframes.watch.event import Event, new_id
from helpers.walkers import Walker, write_walkers

STAYS = Walker((60, 120), (60, 120), 0.0, 5.0, colour=(220, 30, 30))
GOES = Walker((160, 120), (200, 120), 0.0, 2.0, colour=(30, 220, 30))


def test_each_person_has_a_card_while_he_is_there(predictor: Predictor, tmp_path: Path) -> None:
    film = write_walkers(tmp_path / "film.mp4", [STAYS, GOES], 5.0)
    config = StreamConfig(window_s=0.8, detector="helpers.walkers:by_colour", detections_per_s=10.0)
    board, shown = Board(), []
    with Streams(predictor, [WatchedSource(name="hall", source=str(film), config=config)]) as answers:
        board.follow(answers)
        (before,) = board.sources(0)["changed"]
        for _ in watched_answers(answers, board):
            shown.append([card["person"] for card in board.sources(0)["changed"]])
            still = board.still("hall", "")
    assert before["state"] == "opening"
    assert [people for number, people in enumerate(shown) if people != shown[number - 1]] == [
        ["1"],
        ["1", "2"],
        ["1"],
        [""],
    ]
    (after,) = board.sources(0)["changed"]
    assert after["answer"] is None
    with Image.open(io.BytesIO(still)) as picture:
        assert picture.size == (240, 160)  # the whole picture, not one person's


def test_what_was_no_event_after_all_is_not_shown() -> None:
    events = EventList(None)
    begun = Event(
        id=new_id(), source="door", label="fall", confidence=0.9, start_s=1.0, started_at="2026-11-29T12:00:00.000Z"
    )
    events.add([begun])
    number = events.since(0)["number"]
    events.add([replace(begun, end_s=2.0, ended_at="2026-11-29T12:00:01.000Z", withdrawn=True)])
    assert events.since(number)["gone"] == [begun.id]
