"""The page in a real browser: a video dropped, watched, explained, jumped into; by keyboard alone; on a phone."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

import fewframes
from fewframes.serve.app import create_app
from fewframes.serve.config import ServeConfig
from fewframes.serve.server import listen
from helpers.browser import CONTRAST, needs_chromium

pytestmark = needs_chromium
HUG = Path(__file__).parents[2] / "examples" / "hug.mp4"
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    app = create_app(
        fewframes.load(device="cpu", dtype="float32"),
        ServeConfig(max_mb=1.0, root=str(HUG.parent), names=("127.0.0.1",)),
    )
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture
def page(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    width, height, scheme = getattr(request, "param", (1280, 900, "light"))
    found = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    found.set_default_timeout(WAIT_MS)
    problems: list[str] = []
    found.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    found.on("pageerror", lambda error: problems.append(str(error)))
    found.on(
        "request",
        lambda asked: None if asked.url.startswith((address, "blob:", "data:")) else problems.append(asked.url),
    )
    found.goto(address)
    until(found, "document.getElementById('limits').textContent")
    yield found
    found.close()
    assert [problem for problem in problems if "status of 422" not in problem] == []


def until(page: Any, expression: str) -> None:
    """Waits until it holds. (Playwright's own way is forbidden by the page's Content-Security-Policy, as it should be.)"""
    ends = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < ends, expression
        page.wait_for_timeout(50)


@pytest.mark.parametrize("page", [(1280, 900, "light"), (375, 740, "dark")], indirect=True, ids=["desk", "phone"])
def test_a_video_is_shown_whole(page: Any) -> None:
    page.set_input_files("#file", HUG)
    page.wait_for_selector("#spans button")
    assert page.inner_text("#top-title").startswith("hug, 8")
    assert page.locator("#top li").count() == 5
    assert page.locator("#strip img").count() == 16
    assert page.evaluate("[...document.querySelectorAll('#strip img')].every(image => image.naturalWidth === 112)")
    page.locator("#strip button").nth(8).click()
    until(page, "Math.abs(document.getElementById('video').currentTime - 2.12) < 0.01")
    page.click("summary")
    answers = json.loads(page.inner_text("#json"))
    assert answers["predict"]["top"][0]["label"] == "hug"
    assert answers["timeline"]["spans"][0]["label"] == "hug"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing sticks out
    assert page.evaluate(CONTRAST) >= 4.5
    assert page.evaluate("[...document.querySelectorAll('button, input:not(#file), summary')].filter(e => e.checkVisibility())"
                         ".every(e => e.getBoundingClientRect().height >= 24)")  # fmt: skip


def test_by_keyboard_alone(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    assert page.evaluate("getComputedStyle(document.querySelector('#file + label')).outlineStyle") == "solid"
    page.keyboard.press("Tab")
    page.keyboard.type("hug.mp4")
    page.keyboard.press("Enter")
    page.wait_for_selector("#spans button")
    assert page.evaluate("document.activeElement.id") == "top-title"
    page.set_input_files("#file", HUG)
    page.wait_for_selector("#spans button:enabled")
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#spans') !== null"):
            break
    page.keyboard.press("Enter")
    until(page, "document.getElementById('status').textContent.startsWith('The video stands at 0:0')")


def test_every_part_has_a_name_for_those_who_do_not_see_it(page: Any) -> None:
    page.set_input_files("#file", HUG)
    page.wait_for_selector("#spans button")
    tree = page.locator("body").aria_snapshot()
    for words in (
        'heading "What happens in a video" [level=1]',
        'heading "Where it looked" [level=2]',
        'textbox "Path on the server"',
        "attention",
        'button "0:00.0 to 0:04.0: hug',
        "status",
    ):
        assert words in tree, tree
    assert "- button\n" not in tree  # one without a name


def test_errors_are_said_and_the_page_goes_on(page: Any, tmp_path: Path) -> None:
    broken = tmp_path / "<b>broken.mp4"
    broken.write_bytes(b"no video")
    page.set_input_files("#file", broken)
    until(page, "document.getElementById('error').textContent")
    assert page.inner_text("#error").startswith("<b>broken.mp4: not a video that FFmpeg can read")
    broken.write_bytes(bytes(1_100_000))
    page.set_input_files("#file", broken)
    until(page, "document.getElementById('error').textContent.includes('limit here is 1 MB')")
    page.set_input_files("#file", HUG)
    page.wait_for_selector("#spans button")
    assert page.inner_text("#error") == ""


def test_an_answer_that_breaks_off_is_said(page: Any) -> None:
    bodies = ['{"progress": {"done": 1, "total": 9}}\n', '{"progress": {"done": 1, "total": 9}}\n{"resu', ""]
    page.route("**/v1/timeline", lambda route: route.fulfill(content_type="application/x-ndjson", body=bodies.pop()))
    while bodies:
        page.set_input_files("#file", HUG)
        until(page, "document.getElementById('error').textContent")
        assert page.inner_text("#error") == "the answer broke off before its end; choose the video again"
