"""The routes of the live page, asked over real sockets while a real stream runs."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from fewframes.errors import MissingVideo
from fewframes.inference.predictor import Predictor
from fewframes.serve.live.events import EventList
from fewframes.serve.security import HEADERS
from fewframes.watch.clips.folder import ClipsFolder
from fewframes.watch.clips.marks import read_marks
from fewframes.watch.event import Event, new_id
from helpers.live_page import NOWHERE, LivePage, live_page
from helpers.numbered import Numbered
from helpers.served import told


@pytest.fixture(scope="module")
def page(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivePage]:
    with live_page(predictor, tmp_path_factory.mktemp("live")) as found:
        yield found


@pytest.fixture
def client(page: LivePage) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=page.address) as found:
        yield found


def live(client: httpx2.Client, before: Any = None) -> Any:
    known = (
        {}
        if before is None
        else {
            "run": before["run"],
            "sources": before["sources"]["number"],
            "events": before["events"]["number"],
        }
    )
    return client.get("/api/live", params=known).json()


def test_each_source_tells_how_it_is(client: httpx2.Client) -> None:
    door, away = live(client)["sources"]["changed"]
    assert (door["source"], door["state"], door["pictures"], door["error"]) == ("door", "ended", 75, "")
    answer = door["answer"]
    assert {one["label"] for one in answer["top"]} == {"hug", "kick", "push"}
    assert sum(one["score"] for one in answer["top"]) == pytest.approx(1, abs=0.01)
    assert answer["answers"] > 10
    assert 0 <= answer["latency_p50_ms"] <= answer["latency_p95_ms"]
    assert door["notes"][-1]["kind"] == "end"
    assert (away["state"], away["answer"], away["pictures"]) == ("away", None, 0)
    assert f"{NOWHERE}: cannot be opened" in away["notes"][0]["words"]


def test_only_what_has_changed_is_sent(client: httpx2.Client) -> None:
    first = live(client)
    assert [event["label"] for event in first["events"]["changed"]] == ["hug", "kick", "push"]
    then = live(client, first)
    for part in ("sources", "events"):
        assert (then[part]["changed"], then[part]["gone"], then[part]["whole"]) == ([], [], False)
        assert then[part]["number"] == first[part]["number"]
    event = first["events"]["changed"][1]
    assert client.post(f"/api/events/{event['id']}/mark", json={"verdict": "wrong"}).status_code == 200
    (changed,) = live(client, then)["events"]["changed"]
    assert changed == {**event, "mark": {"verdict": "wrong", "label": ""}}
    assert live(client, {**then, "run": "another"})["events"][
        "whole"
    ]  # this process is not the one that was asked before
    assert len(client.get("/api/live?run=x&events=99999").json()["events"]["changed"]) == 3


def test_clips_are_sent_in_the_ranges_that_a_player_asks_for(client: httpx2.Client, page: LivePage) -> None:
    event = live(client)["events"]["changed"][0]
    content = page.keeper.folder.folder.joinpath(page.keeper.folder.events[0].event.clip).read_bytes()
    whole = client.get(f"/api/events/{event['id']}/clip")
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, content, "video/mp4")
    part = client.get(f"/api/events/{event['id']}/clip", headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(content)}"
    assert client.get(f"/api/events/{event['id']}/clip", headers={"Range": "bytes=99999999-"}).status_code == 416
    picture = client.get(f"/api/events/{event['id']}/picture")
    with Image.open(io.BytesIO(picture.content)) as image:
        assert image.size == (160, 64)


def test_stills_are_what_the_model_sees(client: httpx2.Client) -> None:
    still = client.get("/api/still", params={"source": "door"})
    with Image.open(io.BytesIO(still.content)) as image:
        assert (image.format, image.size) == ("JPEG", (32, 32))
    assert still.headers["cache-control"] == "no-store"
    assert client.get("/api/still", params={"source": "door", "zone": "gate"}).status_code == 404
    assert told(client.get("/api/still", params={"source": "../door"}))[0] == 404
    assert told(client.get("/api/still", params={"source": "away"}))[0] == 503


def test_zones_have_cards_and_stills_of_their_own(predictor: Predictor, tmp_path: Path) -> None:
    with (
        live_page(predictor, tmp_path, zones=("left=0,0,0.4,1", "right=0.6,0,1,1")) as page,
        httpx2.Client(base_url=page.address) as client,
    ):
        cards = live(client)["sources"]["changed"]
        assert [(card["source"], card["zone"]) for card in cards] == [("door", "left"), ("door", "right"), ("away", "")]
        left, right = (client.get("/api/still", params={"source": "door", "zone": zone}) for zone in ("left", "right"))
        assert left.content != right.content
        assert len(live(client)["events"]["changed"]) == 6


def test_marks_are_on_the_disk_when_they_are_answered(client: httpx2.Client, page: LivePage) -> None:
    event = live(client)["events"]["changed"][2]
    route = f"/api/events/{event['id']}/mark"
    answer = client.post(route, json={"verdict": "other", "label": " <b>sit</b> "}).json()
    assert answer == {"event": event["id"], "verdict": "other", "label": "<b>sit</b>"}
    assert read_marks(page.folder)[event["id"]].label == "<b>sit</b>"
    for body, words in (
        ({"verdict": "other"}, "write the name of the action"),
        ({"verdict": "perhaps"}, "verdict"),
        ({"verdict": "right", "more": 1}, "more"),
    ):
        status, error = told(client.post(route, json=body))
        assert (status, words in error) == (422, True), error
    assert told(client.post(f"/api/events/{'0' * 32}/mark", json={"verdict": "right"}))[0] == 404
    assert read_marks(page.folder)[event["id"]].label == "<b>sit</b>"
    assert client.post(route, json={"verdict": "none"}).json()["verdict"] == "none"
    assert next(one for one in live(client)["events"]["changed"] if one["id"] == event["id"])["mark"] is None


@pytest.mark.parametrize(
    "path",
    [
        "/api/events/..%2F..%2Fmarks.jsonl/clip", "/api/events/%2Fetc%2Fpasswd/picture", "/../events/marks.jsonl",
        "/..%2F..%2Fapp.py", "/%2e%2e/app.py", "/api/events/../../../marks.jsonl", "/marks.jsonl", "/app.py",
    ],
)  # fmt: skip
def test_nothing_outside_the_pages_is_read(client: httpx2.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404, answer.text
    assert answer.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]


def test_a_file_of_an_event_that_names_others_files_gives_none(tmp_path: Path) -> None:
    secret = tmp_path / "2026-11-29" / "120000-aaaaaaaa.mp4"
    secret.parent.mkdir()
    secret.write_bytes(b"secret")
    day = tmp_path / "events" / "2026-11-29"
    day.mkdir(parents=True)
    (day / "120000-bbbbbbbb.mp4").symlink_to(secret)
    (day / "notes.txt").write_text("not a clip")
    clips = ["../2026-11-29/120000-aaaaaaaa.mp4", str(secret), "2026-11-29/120000-bbbbbbbb.mp4", "2026-11-29/notes.txt"]
    ids = [new_id() for _ in clips]
    for event_id, clip in zip(ids, clips, strict=True):
        event = Event(
            id=event_id, source="door", label="hug", confidence=0.9, start_s=1.0, end_s=2.0, clip=clip,
            started_at="2026-11-29T12:00:00.000Z", ended_at="2026-11-29T12:00:01.000Z",
        )  # fmt: skip
        values = {**event.to_dict(), "clip_start_s": 0.0, "clip_end_s": 3.0, "note": ""}
        (day / f"120000-{event_id[:8]}.json").write_text(json.dumps(values))
    with ClipsFolder(tmp_path / "events") as folder:
        events = EventList(folder)
        for event_id in ids:
            with pytest.raises(MissingVideo, match="has no clip here"):
                events.file(event_id, "clip")


def test_pages_of_others_are_refused(client: httpx2.Client, page: LivePage) -> None:
    event = page.keeper.folder.events[0].event
    mark = {"url": f"/api/events/{event.id}/mark", "json": {"verdict": "right"}}
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert told(client.get("/api/live", headers=headers))[0] == 403
        assert told(client.post(**mark, headers=headers))[0] == 403  # type: ignore[arg-type]
    assert told(client.get("/api/live", headers={"Host": "evil.example"}))[0] == 421
    assert event.id not in read_marks(page.folder) or read_marks(page.folder)[event.id].verdict != "right"


def test_a_token_lets_in_those_who_have_the_address(predictor: Predictor, tmp_path: Path) -> None:
    with live_page(predictor, tmp_path, token="s3cret") as page, httpx2.Client(base_url=page.address) as client:
        for path in ("/", "/api/live", "/api/still?source=door", "/main.js", "/?token=wrong"):
            assert told(client.get(path))[0] == 401
        assert client.get("/?token=s3cret").status_code == 303
        assert len(live(client)["events"]["changed"]) == 3


def test_a_kill_loses_no_mark_and_no_page_stays(tiny_model: Path, tmp_path: Path) -> None:
    video = Numbered(suffix=".ts", format="mpegts", gop=10, times_ms=range(0, 60_000, 40)).write(tmp_path / "source")
    rules = tmp_path / "rules.toml"
    rules.write_text("[[rules]]\nenter = 0.01\nleave = 0.001\n")
    words = ["stream", f"door={video}", "--live", "--clips", tmp_path / "events", "--page", "0", "--rules", rules]
    options = ["--model", tiny_model, "--device", "cpu", "--window", "0.4", "--json"]
    command = [sys.executable, "-m", "fewframes.cli", *map(str, words + options)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = next(line for line in process.stderr if line.startswith("page: ")).split()[1]
        with httpx2.Client(base_url=address) as client:
            events: list[Any] = []
            while not events:
                events = live(client)["events"]["changed"]
            assert {event["state"] for event in events} == {"started"}
            for number in range(20):
                route = f"/api/events/{events[0]['id']}/mark"
                assert client.post(route, json={"verdict": "other", "label": f"label {number}"}).status_code == 200
            process.send_signal(signal.SIGKILL)
            process.wait()
            with pytest.raises(httpx2.ConnectError):
                httpx2.get(f"{address}/api/live")
    assert read_marks(tmp_path / "events")[events[0]["id"]].label == "label 19"
