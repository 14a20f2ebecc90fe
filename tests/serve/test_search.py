"""An index behind a server: found by words, labels and examples, with stills, below the root alone; and the box on the page."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from fewframes.inference.predictor import Predictor, load
from fewframes.search.index import Index
from fewframes.serve.app import create_app
from fewframes.serve.config import ServeConfig
from fewframes.serve.moments.search import MomentSearch
from fewframes.serve.server import listen
from helpers.browser import CONTRAST, needs_chromium
from helpers.words import write_parts, write_video

pytest.importorskip("open_clip")
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    (folder / "shown").mkdir()
    for name in ("red circle", "blue square", "stripes"):
        write_video(folder / "shown" / f"{name}.mp4", name)
    write_parts(folder / "shown" / "film.mp4", ["an empty picture", "green square"], seconds=4)
    write_video(folder / "hidden red circle.mp4", "red circle", seed=1)
    return folder


@pytest.fixture(scope="module")
def predictor(tiny_model: Path) -> Predictor:
    return load(tiny_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def index(predictor: Predictor, image_text: Path, films: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    found = Index.open(tmp_path_factory.mktemp("index") / "moments", predictor, window_s=2, words=str(image_text))
    assert not found.add(sorted(films.rglob("*.mp4"))).failures
    return found


@pytest.fixture(scope="module")
def serving(predictor: Predictor, index: Index, films: Path) -> Callable[..., TestClient]:
    def made(**settings: Any) -> TestClient:
        knows_words = settings.pop("knows_words", True)
        config = ServeConfig(root=str(films / "shown"), **settings)
        return TestClient(create_app(predictor, config, MomentSearch(index, config, knows_words=knows_words)))

    return made


@pytest.fixture(scope="module")
def client(serving: Callable[..., TestClient]) -> TestClient:
    return serving()


def moments(client: TestClient, **asked: Any) -> list[dict[str, Any]]:
    answer = client.post("/v1/search", json=asked)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["moments"]
    return found


def test_words_find_what_they_say_below_the_root_alone(client: TestClient, index: Index) -> None:
    about = client.get("/v1/about").json()["search"]
    assert about == {"moments": index.num_rows, "labels": list(index.settings.labels), "takes_text": True}
    found = moments(client, text="a red circle", distinct=True)
    assert found[0]["source"] == "red circle.mp4"
    assert {hit["source"] for hit in found} == {"red circle.mp4", "blue square.mp4", "stripes.mp4", "film.mp4"}
    assert "picture" not in found[0]
    green = moments(client, text="a green square", num=1, pictures=True)[0]
    assert (green["source"], green["start_s"] >= 3) == ("film.mp4", True)
    assert base64.b64decode(green["picture"].partition("base64,")[2]).startswith(b"\xff\xd8")
    by_address = client.get("/v1/search", params={"text": "a green square", "num": 1, "pictures": "true"})
    assert by_address.json()["moments"] == [green]
    assert moments(client, text="a red circle", videos="../*hidden*") == []
    assert moments(client, text="a red circle", videos="film*", num=1)[0]["source"] == "film.mp4"


def test_labels_and_examples_go_with_words(client: TestClient) -> None:
    first = moments(client, text="stripes", num=1)[0]
    for label in client.get("/v1/about").json()["search"]["labels"]:
        assert {hit["label"] for hit in moments(client, text="stripes", label=label)} <= {label}
        assert {hit["label"] for hit in moments(client, label=label)} <= {label}
    both = moments(client, text="a red circle", like=first["id"])
    assert both[0]["parts"].keys() == {"example", "text"}
    assert first["id"] not in {hit["id"] for hit in both}
    example = moments(client, path="stripes.mp4", text="stripes")
    assert "stripes.mp4" not in {hit["source"] for hit in example}
    kept = moments(client, text="a circle", not_text="a red circle|something red", num=50)
    assert "red circle.mp4" not in {hit["source"] for hit in kept}


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({}, 422, "nothing is searched for"),
        ({"text": " "}, 422, "no words"),
        ({"not_text": "a"}, 422, "not_text goes with text"),
        ({"label": "moonwalk"}, 422, "not a label of the model"),
        ({"like": "x"}, 422, "no such row"),
        ({"like": "x", "path": "film.mp4"}, 422, "exclude each other"),
        ({"path": "../hidden red circle.mp4"}, 403, ""),
        ({"path": "none.mp4"}, 404, ""),
        ({"text": "a", "num": 101}, 422, "num"),
        ({"text": "a", "where": "1 = 1"}, 422, "where"),
        ({"file": "a", "text": "a"}, 422, "file"),
    ],
)
def test_wrong_searches(client: TestClient, asked: dict[str, Any], status: int, words: str) -> None:
    answer = client.post("/v1/search", json=asked)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    assert "\n" not in answer.json()["error"]


def test_a_file_a_token_and_a_server_without_words_or_index(
    client: TestClient, serving: Callable[..., TestClient], predictor: Predictor
) -> None:
    assert client.post("/v1/search", files={"file": b"x"}, data={"text": "a"}).status_code == 422
    secret = serving(token="secret")
    assert secret.get("/v1/search", params={"text": "stripes"}).status_code == 401
    shown = {"Authorization": "Bearer secret"}
    assert secret.get("/v1/search", params={"text": "stripes"}, headers=shown).status_code == 200
    assert client.get("/v1/search", params={"text": "a"}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    wordless = serving(knows_words=False)
    assert wordless.get("/v1/about").json()["search"]["takes_text"] is False
    answer = wordless.post("/v1/search", json={"text": "stripes"})
    assert (answer.status_code, "knows no words" in answer.json()["error"]) == (422, True)
    plain = TestClient(create_app(predictor, ServeConfig()))
    assert "search" not in plain.get("/v1/about").json()
    assert plain.post("/v1/search", json={"text": "stripes"}).status_code in (404, 405)


def test_a_video_that_is_gone_or_too_long_has_no_still_and_new_ones_are_found(
    serving: Callable[..., TestClient], index: Index, films: Path
) -> None:
    short = serving(max_seconds=3.0)
    found = {hit["source"]: hit["picture"] for hit in moments(short, text="stripes", pictures=True, distinct=True)}
    assert found["film.mp4"] is None
    assert found["stripes.mp4"]
    writer = Index.open(index.url, index._predictor)
    late = write_video(films / "shown" / "late.mp4", "yellow cross")
    try:
        writer.add([late])
        assert moments(short, text="a yellow cross", num=1)[0]["source"] == "late.mp4"
    finally:
        writer.remove([late])
        late.unlink()


@pytest.fixture(scope="module")
def address(predictor: Predictor, index: Index, films: Path) -> Iterator[str]:
    config = ServeConfig(root=str(films / "shown"), names=("127.0.0.1",))
    app = create_app(predictor, config, MomentSearch(index, config, knows_words=True))
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@needs_chromium
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (375, "dark")])
def test_the_box_of_the_page(browser: Any, address: str, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(WAIT_MS)
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#search")
    page.click("#search-form button[type=submit]")
    assert "Type what is to be seen" in page.inner_text("#search-error")
    page.fill("#words", "a green square")
    page.keyboard.press("Enter")
    page.wait_for_selector("#moments li")
    first = page.locator("#moments li").first
    assert "film.mp4" in first.inner_text()
    assert page.inner_text("#search-error") == ""
    assert page.evaluate("[...document.querySelectorAll('#moments img')].every(image => image.naturalWidth > 0)")
    page.fill("#words", "")
    first.get_by_role("button", name="More like").click()
    page.wait_for_selector("#like-row:not([hidden])")
    page.fill("#words", "a red circle")
    page.click("#search-form button[type=submit]")
    page.wait_for_selector("text=/text 0/")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(CONTRAST) >= 4.5
    page.close()
    assert problems == []
