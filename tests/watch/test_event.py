"""An event says what happened, when and where, and reads back the same."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from fewframes.watch.event import Event, iso, new_id

STARTED = Event(
    id=new_id(),
    source="cam1",
    label="opening door",
    confidence=0.75,
    start_s=3.5,
    started_at="2026-11-29T15:28:03.500Z",
)
ENDED = replace(STARTED, end_s=7.0, ended_at="2026-11-29T15:28:07.000Z", clip="clips/a.mp4")


def test_both_states_are_told_with_one_id_and_keys_of_their_own() -> None:
    assert (STARTED.state, ENDED.state) == ("started", "ended")
    assert STARTED.id == ENDED.id
    assert (STARTED.key, ENDED.key) == (f"{STARTED.id}-started", f"{STARTED.id}-ended")
    assert (STARTED.duration_s, ENDED.duration_s) == (None, 3.5)


def test_an_event_reads_back_from_json() -> None:
    for event in (STARTED, ENDED):
        assert Event.from_dict(json.loads(json.dumps(event.to_dict()))) == event


def test_times_are_utc_with_milliseconds() -> None:
    berlin = datetime(2026, 11, 29, 16, 28, 3, 250_000, tzinfo=timezone(timedelta(hours=1)))
    assert iso(berlin) == "2026-11-29T15:28:03.250Z"
