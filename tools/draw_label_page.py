"""Draw the pictures of `docs/guide/label.md`: the page over a film of drawn figures. `python tools/draw_label_page.py docs/images`.

The film is put together from the clips that `examples/make_clips.py OUT --many 6` draws, in `--clips OUT`. Nobody was filmed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import av
import uvicorn
from av.video.stream import VideoStream
from PIL import Image
from playwright.sync_api import sync_playwright

from fewframes.core.cache import EmbeddingCache
from fewframes.inference.predictor import load
from fewframes.label.session import Session
from fewframes.label.web.app import PageConfig, create_app
from fewframes.serve.server import listen

COLOURS = 128
"""Colours of the pictures, which keeps them small."""


def write_film(clips: list[Path], path: Path) -> list[tuple[float, float, str]]:
    """Write the clips one after the other; return start and end of each in seconds, and its action."""
    parts, number = [], 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "23"})
        assert isinstance(stream, VideoStream)
        for clip in clips:
            first = number
            with av.open(str(clip)) as source:
                for frame in source.decode(video=0):
                    if not number:
                        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), "rgb24")))
                    number += 1
            parts.append((first / 25, number / 25, clip.parent.name))
        container.mux(stream.encode())
    return parts


def shoot(page: Any, path: Path) -> None:
    """Save what the browser shows as a small PNG."""
    page.wait_for_timeout(700)
    page.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(COLOURS).save(path, optimize=True)


def draw(address: str, images: Path) -> None:
    """Work the page, and save its pictures."""
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.wait_for_selector("#labelled .row")
        page.keyboard.press("n")
        shoot(page, images / "label-moment.png")
        page.keyboard.press("Escape")
        page.keyboard.press("g")
        page.wait_for_selector(".tile img")
        for number in (0, 1, 2):
            page.locator(".tile").nth(number).click()
        shoot(page, images / "label-grid.png")
        page.keyboard.press("g")
        page.click("#write")
        page.wait_for_selector("#written code")
        shoot(page, images / "label-written.png")
        phone = browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True)
        phone.goto(address)
        phone.wait_for_selector("#labelled .row")
        phone.tap("#next")
        shoot(phone, images / "label-phone.png")
        browser.close()


def main() -> None:
    """Draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--clips", type=Path, required=True, help="what examples/make_clips.py drew")
    options = parser.parse_args()
    clips = sorted(options.clips.glob("*/*.mp4"))
    random.Random(1).shuffle(clips)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        parts = write_film(clips, work / "street.mp4")
        project = work / "doors"
        cache = EmbeddingCache(work / "cache")
        session = Session.open(
            [str(work / "street.mp4")], project, load(), model="lite0-16", cache=cache, note=lambda words: None
        )
        session.start()
        session.settle()
        video = session.state().videos[0].id
        for start_s, end_s, label in (part for number, part in enumerate(parts) if number % 4):
            session.add(video, start_s, end_s, "" if label == "push" else label, "ann")
        session.settle()
        listening = listen("127.0.0.1", 0)
        app = create_app(session, PageConfig(project=Path("doors"), model="lite0-16", annotator="ann"))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            draw(f"http://127.0.0.1:{listening.getsockname()[1]}/", options.images)
        finally:
            server.should_exit = True
            thread.join()
            session.close()
            shutil.rmtree("doors", ignore_errors=True)


if __name__ == "__main__":
    main()
