"""The live page in a real browser: by mouse and by keyboard, on a phone, in the dark, with names that look like HTML."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fewframes.inference.predictor import Predictor
from fewframes.watch.clips.marks import read_marks
from helpers.browser import CONTRAST, needs_chromium
from helpers.live_page import LivePage, live_page
from helpers.served import until

pytestmark = [needs_chromium, pytest.mark.browser]
WAIT_MS = 30_000
FOREIGN = "<img src=x onerror=alert(1)> <script>alert(2)</script>"


@pytest.fixture(scope="module")
def live(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivePage]:
    with live_page(predictor, tmp_path_factory.mktemp("live"), name=FOREIGN) as found:
        yield found


@contextmanager
def shown(browser: Any, live: LivePage, **more: Any) -> Iterator[Any]:
    page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, "locale": "en", **more})
    page.set_default_timeout(WAIT_MS)
    failures: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("dialog", lambda dialog: failures.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(live.address)
    page.locator(".event").nth(2).wait_for()
    yield page
    assert not failures
    assert all(url.startswith((live.address, "data:")) for url in asked)  # nothing comes from elsewhere
    page.close()


def verdicts(live: LivePage) -> dict[str, tuple[str, str]]:
    """Return the marks on the disk by the labels that the events were told with."""
    marks = read_marks(live.folder)
    return {
        stored.event.label: (marks[stored.event.id].verdict, marks[stored.event.id].label)
        for stored in live.keeper.folder.events
        if stored.event.id in marks
    }


def event_of(page: Any, label: str) -> Any:
    return page.locator(".event").filter(has=page.locator("h3", has_text=label))


def test_the_page_shows_sources_and_names_as_they_are(browser: Any, live: LivePage) -> None:
    with shown(browser, live) as page:
        door, away = page.locator(".source").all()
        assert door.locator("h3 span").first.text_content() == FOREIGN
        assert door.locator(".state").text_content() == "ended"
        assert "75\u00a0pictures, 0 dropped" in door.locator(".counts").text_content()
        assert away.locator(".state").text_content() == "away, trying again"
        door.locator(".still").wait_for()
        assert door.locator(".still").evaluate("image => image.naturalWidth") == 32
        assert page.locator("script").count() == 1


def test_marks_by_mouse_are_stored_and_taken_back(browser: Any, live: LivePage) -> None:
    with shown(browser, live) as page, shown(browser, live) as other:
        event_of(page, "hug").get_by_role("button", name="Right").click()
        until(lambda: verdicts(live).get("hug") == ("right", "hug"))
        event_of(other, "hug").get_by_text("Marked: right").wait_for()  # another browser hears of it
        event_of(page, "hug").get_by_role("button", name="Wrong").click()
        until(lambda: verdicts(live)["hug"] == ("wrong", ""))
        event_of(page, "hug").get_by_role("button", name="Undo").click()
        until(lambda: verdicts(live)["hug"] == ("none", ""))
        event_of(page, "hug").get_by_role("button", name="Undo").wait_for(state="hidden")


def test_a_label_is_given_by_keyboard_alone(browser: Any, live: LivePage) -> None:
    with shown(browser, live) as page:
        event_of(page, "kick").get_by_role("button", name="It was").focus()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "It was"
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.textContent").startswith("It was")
        page.keyboard.press("Space")
        page.keyboard.type(FOREIGN)
        page.keyboard.press("Enter")
        event_of(page, "kick").get_by_text(f"Marked: it was {FOREIGN}").wait_for()
        assert verdicts(live)["kick"] == ("other", FOREIGN)
        assert page.evaluate("document.activeElement.textContent").startswith("It was")  # the focus is not lost
        page.locator("#teaching").get_by_text("fewframes teach MODEL --events events").wait_for()


def test_clips_play_in_the_page(browser: Any, live: LivePage) -> None:
    with shown(browser, live) as page:
        event_of(page, "push").get_by_role("button", name="Play").click()
        video = page.locator("video")
        video.wait_for()
        until(lambda: video.evaluate("video => video.currentTime") > 0.2)
        assert video.evaluate("video => video.videoWidth") == 160
        assert page.evaluate("document.activeElement.tagName") == "VIDEO"


def test_choices_show_a_part(browser: Any, live: LivePage) -> None:
    with shown(browser, live) as page:
        page.locator("#by-label").select_option("kick")
        assert page.locator(".event").count() == 1
        page.locator("#summary").get_by_text("1 of 3.").wait_for()
        page.locator("#by-label").select_option("")
        page.locator("#by-source").select_option(FOREIGN)
        assert page.locator(".event").count() == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_on_a_phone(browser: Any, live: LivePage, scheme: str) -> None:
    with shown(browser, live, viewport={"width": 360, "height": 700}, color_scheme=scheme, has_touch=True) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.get_by_role("button", name="Wrong").nth(2).tap()
        page.locator("button[aria-pressed=true].wrong").wait_for()
        assert page.evaluate(CONTRAST) >= 4.5
        page.get_by_role("button", name="Undo").last.tap()


def test_a_server_that_is_gone_is_told(browser: Any, predictor: Predictor, tmp_path: Any) -> None:
    with live_page(predictor, tmp_path) as live:
        page = browser.new_page()
        page.goto(live.address)
        page.locator(".event").nth(2).wait_for()
    page.locator("#connection").get_by_text("The stream has ended, or its server cannot be reached").wait_for()
    assert page.locator(".event").count() == 3  # what was there stays
    page.close()
