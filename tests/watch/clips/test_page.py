"""The page of events plays clips from beside it, and shows the events of one source or label alone."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from fewframes.video.live import LiveReader
from fewframes.video.live_queue import WAITING
from fewframes.video.live_settings import StreamConfig
from fewframes.video.live_source import Recorded
from fewframes.video.recording.recorder import Recorder
from fewframes.watch.clips.folder import ClipSettings, ClipsFolder
from fewframes.watch.clips.page import MOST_SHOWN, clips_page
from fewframes.watch.event import Event, new_id
from helpers.browser import CHROMIUM, CONTRAST, FLAGS, needs_chromium
from helpers.numbered import Numbered


def event(label: str, source: str, start_s: float) -> Event:
    return Event(
        id=new_id(), source=source, label=label, confidence=0.9, start_s=start_s, end_s=start_s + 0.5,
        started_at=f"2026-11-29T12:00:0{start_s:.0f}.000Z", ended_at=f"2026-11-29T12:00:0{start_s:.0f}.500Z",
    )  # fmt: skip


def write_events(tmp_path: Path) -> Path:
    """Three events, of which the first has a source with odd letters."""
    path = Numbered(suffix=".ts", format="mpegts", gop=10, times_ms=range(0, 4000, 40)).write(tmp_path / "source")
    recorder = Recorder(keep_s=60)
    with closing(LiveReader(Recorded(str(path), recorder), StreamConfig(), 0.1, lambda frame_CHW: frame_CHW)) as reader:
        while reader.take(WAITING, 0.05) is not None:
            pass
    with ClipsFolder(tmp_path / "front door", ClipSettings(before_s=0.2, after_s=0.2)) as folder:
        for number, (label, source) in enumerate((("hug", "tür <1>"), ("kick", "hall"), ("hug", "hall")), 1):
            folder.add(event(label, source, number), recorder)
        recorder.close()
    return tmp_path / "front door" / "index.html"


@pytest.mark.browser
@needs_chromium
def test_a_click_plays_a_clip_and_choices_hide_the_others(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    page_file = write_events(tmp_path)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_file.as_uri())
        assert page.locator(".card").count() == 3
        assert page.evaluate(CONTRAST) >= 4.5
        page.locator(".card a[data-video]").first.click()
        page.wait_for_function("document.querySelector('video').readyState >= 2")
        length_s = page.evaluate("document.querySelector('video').duration")
        assert 0.8 < length_s < 1.5
        page.select_option("select[name=label]", "hug")
        assert page.locator(".card:visible").count() == 2
        page.select_option("select[name=source]", "tür <1>")
        assert page.locator(".card:visible").count() == 1
        browser.close()
    assert all(url.startswith(("file:", "data:")) for url in asked)


def test_older_events_are_counted_and_not_listed() -> None:
    values = [
        {**event("hug", "hall", 1).to_dict(), "clip_start_s": None, "clip_end_s": None, "note": f"no {number}"}
        for number in range(MOST_SHOWN + 2)
    ]
    page = clips_page("events", json.loads(json.dumps(values)))
    assert f"{MOST_SHOWN + 2} events. The newest {MOST_SHOWN} are listed" in page
    assert "no 1<" not in page
    assert f"no {MOST_SHOWN + 1}<" in page
