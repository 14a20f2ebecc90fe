"""The page for labelling in a real browser: by keys, by mouse, by touch, with a server that goes away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from fewframes.inference.predictor import Predictor
from fewframes.label.session import Session
from fewframes.label.web.app import PageConfig, create_app
from fewframes.serve.server import listen
from helpers.browser import CONTRAST, needs_chromium
from helpers.drawn_films import ACTIONS, ORDER, span, write_film
from helpers.labelling import opened, ready

pytestmark = needs_chromium
WAIT_MS = 30_000
HEIGHTS = """selector => [...document.querySelectorAll(selector)].filter(found => found.checkVisibility())
  .map(found => found.getBoundingClientRect().height)"""


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    write_film(folder / "one.mp4")
    write_film(folder / "two.avi", ORDER[:3], "mpeg4")
    return folder


class Server:
    """A server of the page that can be stopped and started again on its port."""

    def __init__(self, films: Path, project: Path, predictor: Predictor) -> None:
        self.films, self.project, self.predictor = films, project, predictor
        self.port = 0
        self.session: Session
        self.start()
        self.address = f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        self.session = opened(self.films, self.project, self.predictor)
        ready(lambda: self.session.state().to_dict())
        app = create_app(self.session, PageConfig(project=self.project, annotator="ann", names=("127.0.0.1",)))
        listening = listen("127.0.0.1", self.port)
        self.port = listening.getsockname()[1]
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listening]})
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.session.close()

    def segments(self) -> list[tuple[str, float, float]]:
        video = self.session.state().videos[0].id
        found = self.session.timeline(video).segments
        return [(segment.label, round(segment.start_s, 1), round(segment.end_s, 1)) for segment in found]


@pytest.fixture
def server(films: Path, tmp_path: Path, predictor: Predictor) -> Iterator[Server]:
    found = Server(films, tmp_path, predictor)
    yield found
    found.stop()


@contextmanager
def shown(browser: Any, server: Server, width: int = 1280, height: int = 800, **more: Any) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": width, "height": height}, **more)
    page.set_default_timeout(WAIT_MS)
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(f"{error} {error.stack}"))
    page.on(
        "request",
        lambda asked: None if asked.url.startswith((server.address, "blob:", "data:")) else problems.append(asked.url),
    )
    page.goto(server.address)
    until(page, "document.getElementById('clock').textContent.includes('/ 0:48')")
    # The length is known before the timeline is there, and the page moves once more when the browser knows the picture's size.
    until(page, "document.querySelector('#timeline .ruler') && document.getElementById('video').readyState > 0")
    yield page
    page.close()
    expected = ("ERR_CONNECTION_REFUSED", "status of 422")
    assert [problem for problem in problems if not any(words in problem for words in expected)] == []


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    with shown(browser, server) as found:
        yield found


def until(page: Any, expression: str) -> None:
    """Waits until it holds. (Playwright's own way is forbidden by the page's Content-Security-Policy, as it should be.)"""
    ends = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < ends, (expression, page.inner_text("#error"), page.inner_text("#status"))
        page.wait_for_timeout(30)


def holds(page: Any, what: Callable[[], bool]) -> None:
    ends = time.monotonic() + WAIT_MS / 1000
    while not what():
        assert time.monotonic() < ends
        page.wait_for_timeout(30)


def go_to(page: Any, time_s: float) -> None:
    """To a whole second, by keys."""
    page.keyboard.press("Home")
    for _ in range(int(time_s) // 10):
        page.keyboard.press("Shift+L")
    for _ in range(int(time_s) % 10):
        page.keyboard.press("l")
    until(page, f"document.getElementById('clock').textContent.startsWith('0:{time_s:04.1f} ')")


def mark(page: Any, number: int) -> None:
    start_s, end_s = span(number)
    go_to(page, start_s)
    page.keyboard.press("i")
    go_to(page, end_s)
    page.keyboard.press("o")


def test_by_keys_alone(page: Any, server: Server) -> None:
    for number in range(3):
        mark(page, number)
        page.keyboard.press("c")
        page.keyboard.type(ORDER[number])
        page.keyboard.press("Enter")
        holds(page, lambda number=number: len(server.segments()) == number + 1)  # type: ignore[misc]
    until(page, "document.querySelectorAll('#chips .chip').length === 4")
    mark(page, 3)
    page.keyboard.press("1")  # the label that came first
    holds(page, lambda: server.segments() == [(ORDER[number], *span(number)) for number in range(4)])
    go_to(page, span(4)[0])
    page.keyboard.press("i")
    go_to(page, span(4)[1])
    page.keyboard.press("2")  # a label without Out ends here
    holds(page, lambda: server.segments()[-1] == ("cross", *span(4)))
    page.keyboard.press("u")
    holds(page, lambda: len(server.segments()) == 4)
    page.keyboard.press("Shift+U")
    holds(page, lambda: len(server.segments()) == 5)
    page.keyboard.press("Control+z")
    holds(page, lambda: len(server.segments()) == 4)
    page.locator("#labelled .row").first.click()
    page.keyboard.press("3")
    holds(page, lambda: server.segments()[0][0] == "blink")
    page.locator("#labelled .row").first.click()
    go_to(page, 2)
    page.keyboard.press("i")
    page.keyboard.press("t")
    holds(page, lambda: server.segments()[0] == ("blink", 2.0, 4.0))
    page.locator("#labelled .row").first.click()
    page.keyboard.press("Delete")
    holds(page, lambda: len(server.segments()) == 3)
    page.reload()
    until(page, "document.querySelectorAll('#labelled .row').length === 3")


def labelled(server: Server, num: int) -> None:
    """Labels actions, the first six in the film that is shown, more in the other one."""
    one, two = (video.id for video in server.session.state().videos)
    for number in range(num):
        server.session.add(*((one, *span(number)) if number < 6 else (two, *span(number - 6))), ORDER[number], "ann")


def test_the_next_moment_is_answered_by_one_key(page: Any, server: Server) -> None:
    labelled(server, 3)
    until(page, "document.querySelectorAll('#chips .chip').length === 4")
    page.keyboard.press("n")
    until(page, "document.getElementById('moment-title').textContent === 'Next moment'")
    assert page.inner_text("#moment-words")
    first = page.inner_text("#moment-time")
    page.keyboard.press("n")  # skip it
    until(page, f"document.getElementById('moment-time').textContent !== {first!r}")
    second = page.inner_text("#moment-time")
    page.keyboard.press("1")
    holds(page, lambda: server.session.state().num_segments == 4)
    until(page, f"![{second!r}, ''].includes(document.getElementById('moment-time').textContent)")
    page.keyboard.press("0")
    holds(page, lambda: server.session.state().num_segments == 5)
    background = [label for label in server.session.state().labels if label.is_background]
    assert background[0].num_segments == 1


def test_suggestions_are_accepted_and_refused(page: Any, server: Server) -> None:
    labelled(server, 9)
    until(page, "document.querySelectorAll('#suggested .row').length > 0")
    page.keyboard.press("End")
    page.locator("#suggested .row").last.click()
    label = page.inner_text("#moment-guess b")
    page.keyboard.press("Enter")
    holds(page, lambda: server.session.state().num_segments == 10)
    assert label in ACTIONS
    labels = {found.name: found.num_segments for found in server.session.state().labels}
    assert labels[label] == 4


def test_many_tiles_at_once(page: Any, server: Server) -> None:
    labelled(server, 3)
    until(page, "document.querySelectorAll('#chips .chip').length === 4")
    page.keyboard.press("g")
    page.wait_for_selector(".tile img")
    until(page, "document.querySelector('.tile img').naturalWidth > 0")
    page.locator(".tile").first.focus()
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowRight")
    assert page.locator(".tile[aria-selected=true]").count() == 2
    page.locator(".tile").nth(3).click(modifiers=["Shift"])
    chosen = page.locator(".tile[aria-selected=true]").count()
    assert chosen >= 3
    page.keyboard.press("2")
    holds(page, lambda: server.session.state().num_segments == 3 + chosen)
    until(page, "document.getElementById('grid-note').textContent.includes('U takes it back')")
    page.keyboard.press("u")
    holds(page, lambda: server.session.state().num_segments == 3)
    page.keyboard.press("Escape")
    assert page.locator("#video").is_visible()


def test_the_mouse_marks_on_the_timeline(page: Any, server: Server) -> None:
    box = page.locator("#timeline").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 5 / 48, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 7 / 48, box["y"] + 40, steps=4)
    page.mouse.move(box["x"] + box["width"] * 8 / 48, box["y"] + 40, steps=4)
    page.mouse.up()
    page.fill("#new-label", "cross")
    page.click("#new-form button")
    holds(page, lambda: len(server.segments()) == 1)
    label, start_s, end_s = server.segments()[0]
    assert label == "cross"
    assert [start_s, end_s] == pytest.approx([5, 8], abs=0.2)


def test_nothing_is_lost_while_the_server_is_away(page: Any, server: Server) -> None:
    mark(page, 0)
    server.stop()
    page.fill("#new-label", "rise")
    page.keyboard.press("Enter")
    until(page, "document.getElementById('saved').textContent.includes('1 to send')")
    assert "does not answer" in page.inner_text("#error")
    server.start()
    holds(page, lambda: server.segments() == [("rise", *span(0))])
    until(page, "document.getElementById('saved').textContent.includes('Saved')")
    assert page.inner_text("#error") == ""
    until(page, "document.querySelectorAll('#labelled .row').length === 1")


def test_what_the_browser_cannot_play_is_shown_as_frames(page: Any, server: Server) -> None:
    page.select_option("#videos", label="two.avi")
    until(
        page, "document.getElementById('frame').naturalWidth > 0 && document.getElementById('frame').checkVisibility()"
    )
    assert "cannot play" in page.inner_text("#player-note")
    page.keyboard.press("l")
    until(page, "document.getElementById('frame').src.includes('t=1.000')")
    page.keyboard.press("ArrowRight")
    until(page, "document.getElementById('frame').src.includes('t=1.040')")
    page.keyboard.press("Space")
    seen = set()
    ends = time.monotonic() + 2.5
    while time.monotonic() < ends:
        seen.add(page.get_attribute("#frame", "src"))
        page.wait_for_timeout(20)
    page.keyboard.press("Space")
    assert len(seen) > 8  # several frames a second
    page.keyboard.press("i")
    page.keyboard.press("l")
    page.keyboard.press("o")
    page.fill("#new-label", "rise")
    page.keyboard.press("Enter")
    holds(page, lambda: server.session.state().num_segments == 1)


def test_on_a_phone_by_touch(browser: Any, server: Server) -> None:
    with shown(browser, server, 390, 844, has_touch=True, color_scheme="dark") as page:
        for id_, times in (("forward", 1), ("mark-in", 1), ("forward", 3), ("mark-out", 1)):
            for _ in range(times):
                page.tap(f"#{id_}")
        until(page, "document.getElementById('marks-note').textContent === 'Marked 0:01.0 to 0:04.0'")
        page.fill("#new-label", "rise")
        page.tap("#new-form button")
        holds(page, lambda: server.segments() == [("rise", *span(0))])
        page.tap("#next")
        until(page, "document.getElementById('moment-title').textContent === 'Next moment'")
        page.locator("#chips .chip").first.tap()
        holds(page, lambda: server.session.state().num_segments == 2)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(CONTRAST) >= 4.5
        # In one look: the page draws its buttons anew whenever an answer comes.
        heights = page.evaluate(HEIGHTS, "#transport button, .chip, #moment-actions button")
        assert len(heights) > 6
        assert min(heights) >= 44


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_and_names(browser: Any, server: Server, scheme: str) -> None:
    labelled(server, 9)
    with shown(browser, server, color_scheme=scheme) as page:
        until(page, "document.getElementById('accuracy').textContent.includes('right')")
        server.session.add(server.session.state().videos[0].id, *span(6), ORDER[6], "ann")
        until(page, "document.querySelector('#curve svg')")
        page.keyboard.press("n")
        until(page, "document.getElementById('moment-title').textContent === 'Next moment'")
        assert page.evaluate(CONTRAST) >= 4.5
        tree = page.locator("body").aria_snapshot()
        for words in (
            "banner",
            "main",
            'heading "Label" [level=1]',
            'combobox "Video"',
            'textbox "Your name": ann',
            'heading "Next moment" [level=2]',
            'button "rise, 4 labelled, key 1"',
            'slider "Position in the video"',
            'button "Play"' if "Pause" not in page.inner_text("#play") else 'button "Pause"',
            "status",
            "Learning curve",
        ):
            assert words in tree, (words, tree)
        assert "- button\n" not in tree  # one without a name
        page.keyboard.press("g")
        page.wait_for_selector(".tile")
        tree = page.locator("body").aria_snapshot()
        assert "listbox" in tree
        assert "option" in tree
        assert page.evaluate(CONTRAST) >= 4.5


def test_focus_is_seen_and_single_keys_can_be_turned_off(page: Any, server: Server) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.uncheck("#single-keys")
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    assert page.locator("#grid").is_hidden()
    page.keyboard.press("?")
    assert page.locator("#help").is_hidden()


def test_names_from_outside_are_text(page: Any, server: Server) -> None:
    name = "<img src=x onerror=alert(1)>&\"'"
    mark(page, 0)
    page.fill("#new-label", name)
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('#labelled .row').length === 1")
    assert page.inner_text("#labelled .row b") == name
    assert page.locator("img[src=x]").count() == 0
    page.click("#open-rename")
    page.fill("#rename-new", "rise")
    page.keyboard.press("Enter")
    holds(page, lambda: server.segments() == [("rise", *span(0))])


def test_the_model_is_written_from_the_page(page: Any, server: Server) -> None:
    page.click("#write")
    until(page, "document.getElementById('written-title').textContent === 'No model yet'")
    assert page.inner_text("#written .problem")
    page.keyboard.press("Escape")
    labelled(server, 9)
    page.click("#write")
    until(page, "document.getElementById('written-title').textContent === 'Model written'")
    assert f"--model {server.project / 'model'}" in page.inner_text("#written-body")
    assert (server.project / "model").is_dir()
    with page.expect_download() as downloading:
        page.click("#written a")
    assert downloading.value.suggested_filename == "segments.csv"
