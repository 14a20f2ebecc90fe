"""Pages in a real browser: on a phone and in the dark they can be read, and nothing sticks out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewframes.core.text import html_of
from fewframes.inference.detection.changes import VideoSpans, compare_archives
from fewframes.inference.detection.spans import Span
from fewframes.inference.frame_features import Gap
from fewframes.inference.timeline import Timeline
from fewframes.search.page import search_page
from fewframes.search.table import Hit
from fewframes.viz.changes import changes_page
from fewframes.viz.charts import confusion_png
from fewframes.viz.frames import explanation_page, frames_of
from fewframes.viz.thumbnails import data_url, jpeg
from fewframes.viz.timeline import timeline_page
from helpers.browser import CONTRAST, needs_chromium
from helpers.explanations import explained

pytestmark = needs_chromium
LONG = "a_label_of_many_letters_and_no_space_where_a_line_could_break_on_a_phone"


def timeline() -> Timeline:
    spans = (Span(0.0, 4.0, "hug", 0.9), Span(6.0, 9.0, LONG, 0.8), Span(12.0, 15.0, "hug", 0.7))
    times_s: Any = np.arange(20, dtype=np.float64)
    scores: Any = np.zeros((20, 2), np.float32)
    return Timeline(
        source=f"/videos/{LONG}.mp4", duration_s=20.0, start_s=0.0, end_s=20.0, labels=("hug", LONG), threshold=0.5,
        times_s=times_s, scores=scores, spans=spans, gaps=(Gap(16.0, 18.0, "damaged"),),
        windows=(), num_encoded=20, num_missing=0,
    )  # fmt: skip


def report() -> str:
    """A report of more labels than a phone has room for, with values written by hand."""
    labels = tuple(f"{LONG} {number}" for number in range(60))
    actions = [{"label": label, "count": "1 of 2", "fraction": "50.0%", "width": "50.0"} for label in labels]
    frames = frames_of(np.zeros((16, 3, 64, 64), np.uint8), list(np.arange(16.0)), np.ones(16, np.float32))
    mistake = {"true": LONG, "predicted": LONG, "score": "99%", "source": f"/videos/{LONG}.mp4", "frames": frames}
    chart = data_url(confusion_png(labels, np.eye(60), "confusion"), "png")
    values = {
        "title": f"model on /data/{LONG}", "warning": f"trained on {LONG}", "headline": "top-1 50.0%", "rows": [("data", LONG)],
        "actions": actions, "confusion": chart, "is_wide": True, "pairs": [(LONG, f"taken for {LONG}: 1 of 2")],
        "reliability": None, "doubt": None, "sweep": None, "mistakes": [mistake], "failures": [(f"/videos/{LONG}.mp4", "no video")],
    }  # fmt: skip
    return html_of("training/evaluation/templates/report.html", values)


def changes() -> str:
    """A page of a video with a change of each kind, of one that failed, and of one with a name that looks like HTML."""
    name = f"/videos/{LONG}.mp4"
    before = (
        Span(0, 4, "hug", 0.9), Span(10, 14, "kick", 0.9), Span(20, 24, "hug", 0.9), Span(30, 34, "hug", 0.5),
        Span(40, 44, "hug", 0.9), Span(50, 54, "hug", 0.9), Span(90, 94, "hug", 0.9),
    )  # fmt: skip
    after = (
        Span(0, 4, "hug", 0.9), Span(20, 24, LONG, 0.9), Span(32, 36, "hug", 0.9), Span(40, 44, "hug", 0.6),
        Span(50, 54, "hug", 1.0), Span(60, 64, "<b>kick</b>", 0.9), Span(70, 74, "kick", 0.9),
    )  # fmt: skip
    old = {name: VideoSpans(source=name, model="old", range_s=(0, 100), spans=before)}
    new = {name: VideoSpans(source=name, model="new", range_s=(0, 80), spans=after)}
    old["/videos/<i>.mp4"] = VideoSpans(source="/videos/<i>.mp4", error="/videos/<i>.mp4: no video")
    return changes_page(compare_archives(old, new), {(name, 1): jpeg(np.zeros((3, 90, 320), np.uint8))})


def pages(folder: Path) -> dict[str, str]:
    wide, tall = (jpeg(np.zeros((3, *size), np.uint8)) for size in ((90, 320), (320, 90)))
    (folder / "wide.jpg").write_bytes(wide)
    (folder / "tall one.jpg").write_bytes(tall)
    hits = [Hit(f"id-{n}", f"/videos/{LONG}{n}.mp4", 0.0, 4.0, 0.5 - n, LONG, 0.9) for n in range(3)]
    return {
        "report": report(),
        "explanation": explanation_page(explained(20)),
        "timeline": timeline_page(timeline(), "none.mp4", ["wide.jpg", "tall one.jpg", "wide.jpg"]),
        "search": search_page(f"like {LONG}", hits, {"id-0": wide, "id-1": tall}),
        "nothing": search_page("hug", [], {}),
        "changes": changes(),
        "no changes": changes_page(compare_archives({}, {}), {}),
    }


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_can_be_read_everywhere(browser: Any, tmp_path: Path, width: int, scheme: str) -> None:
    view = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    for name, page in pages(tmp_path).items():
        (tmp_path / f"{name}.html").write_text(page, encoding="utf-8")
        view.goto((tmp_path / f"{name}.html").as_uri())
        assert view.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        assert view.evaluate(CONTRAST) >= 4.5, name
        if name == "timeline":
            view.wait_for_function("[...document.images].every(one => one.complete && one.naturalWidth)")
        heights = view.evaluate("[...document.querySelectorAll('.thumb')].map(one => Math.round(one.offsetHeight))")
        assert len(set(heights)) == (name in ("timeline", "search")), name
        is_dark = view.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 28)"
        assert is_dark == (scheme == "dark")
    view.close()


def test_marks_become_options_that_teach(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "search.html").write_text(pages(tmp_path)["search"], encoding="utf-8")
    view = browser.new_page()
    view.goto((tmp_path / "search.html").as_uri())
    for number, mark in ((0, "yes"), (1, "no"), (2, "yes")):
        view.locator(f"button[name={mark}]").nth(number).click()
    assert view.inner_text("#teach") == "--teach NAME --yes id-0,id-2 --no id-1"
    view.locator("button[name=no]").nth(0).click()
    view.locator("button[name=yes]").nth(2).click()
    assert view.inner_text("#teach") == "--teach NAME --no id-0,id-1"
    view.close()


def test_changes_are_filtered_and_walked_through_by_keys(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(changes(), encoding="utf-8")
    view = browser.new_page()
    asked: list[str] = []
    view.on("request", lambda request: asked.append(request.url))
    view.goto((tmp_path / "page.html").as_uri())
    listed = ".change:visible b"
    kinds = ["gone", "relabelled", "moved", "less sure", "new", "new", "unseen"]
    assert view.locator(listed).all_inner_texts() == kinds
    view.get_by_label("new 2").uncheck()
    assert view.locator(listed).all_inner_texts() == [kind for kind in kinds if kind != "new"]
    view.get_by_label("unchanged 2").check()
    assert view.locator(listed).count() == 7
    view.get_by_label("new 2").check()
    view.locator("select").select_option("kick")
    assert view.locator(listed).all_inner_texts() == ["gone", "new"]
    assert view.locator("#count").inner_text() == "2 listed."

    view.locator("h1").click()
    for key, at in (("j", "10.00"), ("j", "70.00"), ("j", "70.00"), ("k", "10.00")):
        view.keyboard.press(key)
        assert view.evaluate("document.activeElement.dataset.at") == at
    assert view.locator("video").is_hidden()
    view.keyboard.press("Enter")
    assert view.locator("video").get_attribute("src").endswith(f"{LONG}.mp4")
    view.locator("select").select_option("")
    view.locator(".track a.moved").first.click()
    assert view.evaluate("document.activeElement.dataset.kind") == "moved"
    assert "<b>kick</b>" in view.locator("select[name=label]").inner_text()
    assert view.locator("table").last.inner_text().count("<i>.mp4") == 2
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]
