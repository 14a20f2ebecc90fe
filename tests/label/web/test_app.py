"""The routes of the page for labelling, with a real session over films that the tests draw."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from fewframes.inference.predictor import Predictor, load
from fewframes.label.web.app import PageConfig, create_app
from fewframes.serve.security import HEADERS
from helpers.drawn_films import ACTIONS, ORDER, span, write_film
from helpers.labelling import opened, ready
from helpers.served import told, until


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    write_film(folder / "one.mp4")
    write_film(folder / "two.mp4", ORDER[:6])
    return folder


@pytest.fixture
def client(
    films: Path, predictor: Predictor, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    session = opened(films, tmp_path, predictor)
    config = PageConfig(project=tmp_path, model="tiny", annotator="ann", names=("localhost", "127.0.0.1", "testserver"))
    with TestClient(create_app(session, config)) as found:
        ready(lambda: found.get("/api/state").json())
        yield found
    session.close()


def label(client: TestClient, numbers: range | list[int], film: int = 0, **more: object) -> list[dict[str, Any]]:
    """Label actions of a film as what they are; both films begin with the same ones."""
    video = client.get("/api/state").json()["videos"][film]["id"]
    found = []
    for number in numbers:
        start_s, end_s = span(number)
        body = {"video": video, "start_s": start_s, "end_s": end_s, "label": ORDER[number], **more}
        answer = client.post("/api/segments", json=body)
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
    return found


def test_labels_are_added_changed_and_deleted(client: TestClient) -> None:
    first, second = label(client, [0, 1])
    assert (first["label"], first["annotator"]) == ("rise", "ann")
    changed = client.patch(
        f"/api/segments/{first['id']}", json={"label": "climb", "end_s": 3.5, "annotator": "ben"}
    ).json()
    assert (changed["label"], changed["start_s"], changed["end_s"]) == ("climb", 1.0, 3.5)
    assert client.delete(f"/api/segments/{second['id']}?annotator=ben").status_code == 200
    segments = client.get(f"/api/videos/{first['video']}/timeline").json()["segments"]
    assert [(segment["label"], segment["end_s"]) for segment in segments] == [("climb", 3.5)]
    assert client.post("/api/labels/rename", json={"old": "climb", "new": "rise"}).status_code == 200
    assert [found["name"] for found in client.get("/api/state").json()["labels"] if not found["is_background"]] == [
        "rise"
    ]


def test_undo_and_redo(client: TestClient) -> None:
    label(client, [0, 1])
    assert client.post("/api/undo", json={}).json()["words"]
    assert client.get("/api/state").json()["num_segments"] == 1
    assert client.get("/api/state").json()["can_redo"]
    client.post("/api/redo", json={})
    assert client.get("/api/state").json()["num_segments"] == 2
    for _ in range(2):
        client.post("/api/undo", json={})
    status, words = told(client.post("/api/undo", json={}))
    assert (status, "undo" in words) == (422, True)


def test_a_change_that_is_sent_twice_counts_once(client: TestClient) -> None:
    assert [found["id"] for found in label(client, [0])] == [found["id"] for found in label(client, [0])]
    assert client.get("/api/state").json()["num_segments"] == 1


def test_what_the_model_says_and_how_good_it_is(client: TestClient) -> None:
    before = client.get("/api/state").json()
    assert before["accuracy"] is None
    assert before["why_no_accuracy"]
    for film in (0, 1):
        label(client, range(6), film)
    until(lambda: client.get("/api/state").json()["accuracy"] is not None)
    state = client.get("/api/state").json()
    assert 0 <= state["accuracy"]["low"] <= state["accuracy"]["value"] <= state["accuracy"]["high"] <= 1
    timeline = client.get(f"/api/videos/{state['videos'][0]['id']}/timeline").json()
    assert set(ACTIONS) <= set(timeline["scores"])
    assert all(len(row) == len(timeline["times_s"]) for row in timeline["scores"].values())
    moment = client.get("/api/next").json()["moment"]
    assert moment["words"]
    other = client.get("/api/next", params={"after": moment["id"]}).json()["moment"]
    assert other["id"] != moment["id"]
    refused = client.post(
        "/api/refuse", json={name: other[name] for name in ("video", "start_s", "end_s")} | {"label": other["guess"]}
    )
    assert refused.json()["label"] not in ACTIONS
    assert isinstance(client.get("/api/doubtful").json()["doubts"], list)


def test_many_tiles_are_tagged_at_once(client: TestClient) -> None:
    label(client, range(3))
    for order in ("likeness", "uncertain", "time"):
        page = client.get("/api/grid", params={"num": 4, "order": order}).json()
        assert len(page["tiles"]) == 4 < page["total"]
    chosen = [tile["id"] for tile in page["tiles"][:2]]
    assert client.post("/api/tag", json={"moments": chosen, "label": "blink"}).json()["tagged"] == 2
    client.post("/api/undo", json={})
    assert client.get("/api/state").json()["num_segments"] == 3
    assert told(client.get("/api/grid", params={"order": "beauty"}))[0] == 422


def test_the_file_comes_in_ranges(client: TestClient, films: Path) -> None:
    video = client.get("/api/state").json()["videos"][0]["id"]
    content = (films / "one.mp4").read_bytes()
    part = client.get(f"/api/videos/{video}/file", headers={"Range": "bytes=10-29"})
    assert (part.status_code, part.content) == (206, content[10:30])
    assert part.headers["content-range"] == f"bytes 10-29/{len(content)}"
    assert client.get(f"/api/videos/{video}/file").content == content
    for name in ("../../etc/passwd", "..%2F..%2Fetc%2Fpasswd", "one.mp4", "x", "%2Fetc%2Fpasswd"):
        assert client.get(f"/api/videos/{name}/file").status_code == 404, name


def test_frames_are_those_of_their_times(client: TestClient) -> None:
    video = client.get("/api/state").json()["videos"][0]["id"]

    def middle(time_s: float) -> tuple[int, ...]:
        answer = client.get(f"/api/videos/{video}/frame", params={"t": time_s, "height": 72})
        assert answer.headers["content-type"] == "image/jpeg"
        image = Image.open(io.BytesIO(answer.content)).convert("RGB")
        assert image.size == (96, 72)
        found = image.getpixel((48, 66))
        assert isinstance(found, tuple)
        return found

    red, grey = middle(3.9), middle(0.5)  # the bar has risen; nothing has happened yet
    assert red[0] > red[2] + 80
    assert max(grey) - min(grey) < 30
    assert middle(0.5) == grey  # also after going back
    assert client.get(f"/api/videos/{video}/frame", params={"t": "soon"}).status_code == 422
    assert client.get("/api/videos/none/frame", params={"t": 1}).status_code in (404, 422)


def test_wrong_requests_are_one_line_and_change_nothing(client: TestClient) -> None:
    video = client.get("/api/state").json()["videos"][0]["id"]
    good = {"video": video, "start_s": 1.0, "end_s": 2.0, "label": "rise"}
    for wrong in (
        {"end_s": 0.5},
        {"start_s": -1.0},
        {"start_s": "soon"},
        {"end_s": 1e9},
        {"video": "none"},
        {"label": "x" * 500},
        {"colour": "red"},
        {"label": None},
    ):
        status, words = told(client.post("/api/segments", json=good | wrong))
        assert status in (404, 422), (wrong, words)
    for route, body in (
        ("/api/segments", "no json"),
        ("/api/segments", '{"start_s": NaN}'),
        ("/api/tag", "[]"),
        ("/api/undo", ""),
    ):
        assert told(client.post(route, content=body, headers={"Content-Type": "application/json"}))[0] == 422
    assert told(client.patch("/api/segments/none", json={"label": "rise"}))[0] in (404, 422)
    assert client.get("/api/none").status_code == 404
    assert client.get("/api/state").json()["num_segments"] == 0


def test_only_own_pages_may_ask(client: TestClient) -> None:
    for route in ("/api/state", "/api/segments.csv", "/api/about"):
        assert told(client.get(route, headers={"Sec-Fetch-Site": "cross-site"}))[0] == 403
        assert told(client.get(route, headers={"Host": "evil.example"}))[0] == 421
    assert told(client.post("/api/undo", json={}, headers={"Origin": "http://evil.example"}))[0] == 403
    for answer in (client.get("/"), client.get("/main.js"), client.get("/api/state"), client.get("/none")):
        assert all(answer.headers[name] == value for name, value in HEADERS.items())


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    from fewframes.label.web.app import PAGE

    names = ["", "style.css", "dom.js", *(path.name for path in PAGE.iterdir())]
    assert len(names) > 10
    for name in names:
        answer = client.get(f"/{name}")
        assert answer.status_code == 200
        assert "://" not in answer.text.replace("http://www.w3.org/2000/svg", ""), name


def test_the_model_and_the_list_are_written(client: TestClient, tmp_path: Path, films: Path) -> None:
    status, words = told(client.post("/api/model"))
    assert status == 422
    assert words
    for film in (0, 1):
        label(client, range(6), film, annotator="=ben")
    written = client.post("/api/model").json()
    assert Path(written["folder"]) == tmp_path / "model"
    assert written["figures"]
    model = load(written["folder"], device="cpu", dtype="float32")
    assert set(ACTIONS) <= set(model.labels)
    assert model.predict(films / "two.mp4").top(1)
    rows = list(csv.DictReader(io.StringIO(client.get("/api/segments.csv").text)))
    assert [(row["label"], float(row["start_s"])) for row in rows if row["label"] in ACTIONS] == [
        (ORDER[number], span(number)[0]) for number in [*range(6), *range(6)]
    ]


def test_a_second_model_waits_for_the_first(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for film in (0, 1):
        label(client, range(6), film)
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(client.post("/api/model").status_code)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) in ([200, 409], [200, 200])  # one after the other, or one refused; never two at once


def test_a_server_that_comes_back_knows_all(films: Path, predictor: Predictor, tmp_path: Path) -> None:
    for num_before in (0, 3):
        session = opened(films, tmp_path, predictor)
        with TestClient(create_app(session, PageConfig(project=tmp_path))) as client:
            ready(lambda: client.get("/api/state").json())
            assert client.get("/api/state").json()["num_segments"] == num_before
            label(client, range(3))
        session.close()


def test_other_machines_need_the_token(films: Path, predictor: Predictor, tmp_path: Path) -> None:
    session = opened(films, tmp_path, predictor)
    with TestClient(create_app(session, PageConfig(project=tmp_path, token="secret"))) as client:
        for route in ("/", "/main.js", "/api/state", "/?token=wrong", "/api/state?token=secret"):
            status, words = told(client.get(route))
            assert (status, "?token=" in words) == (401, True), route
        answer = client.get("/?token=secret")
        assert (answer.status_code, str(answer.url)) == (200, "http://testserver/")
        assert client.get("/api/state").status_code == 200
    session.close()
