"""From one long film to a model that finds its actions in another film, by the page of `fewframes label` in a real browser.

    python -m benchmarks.training.label_run ../shared/data > benchmarks/training/label_run.json

The films are put together from UT-Interaction and the daily movements, at 320 pixels: the first of two thirds of all sequences, the
second of the rest; each has other recordings of movements. The task is new: three actions, each of one or two of
UT-Interaction's (greet, strike, push); everything else is background. A user who is simulated works the page with keys:
marks one example of each action, then answers the next moment again and again, writes the model, and finds the actions in the other
film with `fewframes timeline`. Counted: keys, seconds that the program takes, accuracy. The seconds in which a person watches and
thinks are not in it.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from playwright.sync_api import sync_playwright

from benchmarks.harness import least_median_most, video_writer, write_result
from fewframes.inference.detection.spans import Span, overlap
from runs.packaged import DARK, rows_of

SIZE, FPS = (320, 240), 25
ACTIONS = {"handshake": "greet", "hug": "greet", "kick": "strike", "punch": "strike", "push": "push"}
KEYS = {"greet": "1", "strike": "2", "push": "3", "": "0"}
NUM_ANSWERS = 40
KNOWN = "import('./known.js').then(found => found.known"
"""The start of an expression about what the page knows."""
REPORTED = (0, 5, 10, 20, 30, 40)
HALF = 0.5
HOLD_S = (0.4, 1.2)


@dataclass
class Film:
    path: Path
    truth: list[Span] = field(default_factory=list)
    duration_s: float = 0.0

    def label_of(self, start_s: float, end_s: float) -> str:
        """The action that a person would name who sees this part: the one that lasts for half of it, or lies in it by half."""
        for span in self.truth:
            shared_s = min(end_s, span.end_s) - max(start_s, span.start_s)
            if shared_s > HALF * min(end_s - start_s, span.length_s):
                return span.label
        return ""


def sources(data: Path, *, second: bool) -> list[tuple[Path, str]]:
    """The clips of a film with their actions, mixed."""
    movements = [row for row in rows_of(data / "fir_rgb") if float(row["mean_luma"]) > DARK]
    recordings = sorted({row["recording"] for row in movements})
    found = [
        (data / "ut_interaction" / row["path"], ACTIONS.get(row["label"], ""))
        for row in rows_of(data / "ut_interaction")
        if (int(row["sequence"]) % 3 == 0) == second
    ] + [
        (data / "fir_rgb" / row["path"], "")
        for row in movements
        if recordings.index(row["recording"]) % 3 == int(second)
    ]
    random.Random(0).shuffle(found)
    return found


def pictures(path: Path) -> Iterator[np.ndarray[Any, Any]]:
    """The pictures of a clip at `FPS`, as large as fits."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate, number = float(stream.average_rate or FPS), 0
        for index, frame in enumerate(container.decode(stream)):
            factor = min(SIZE[0] / frame.width, SIZE[1] / frame.height)
            width, height = (int(side * factor) // 2 * 2 for side in (frame.width, frame.height))
            small = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
            whole = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
            top, left = (SIZE[1] - height) // 2, (SIZE[0] - width) // 2
            whole[top : top + height, left : left + width] = small
            while number / FPS <= index / rate:
                yield whole
                number += 1


def compose(clips: Sequence[tuple[Path, str]], path: Path) -> Film:
    """Write the clips one after the other, each last picture held for a moment."""
    film, draw, number = Film(path), random.Random(1), 0
    with video_writer(path, SIZE, FPS, 50, {"crf": "25", "preset": "veryfast"}) as add:
        for clip, label in clips:
            start_s = number / FPS
            for pixels in pictures(clip):
                add(av.VideoFrame.from_ndarray(pixels, format="rgb24"))
                number += 1
            if label:
                film.truth.append(Span(start_s, number / FPS, label))
            for _ in range(int(FPS * draw.uniform(*HOLD_S))):
                add(av.VideoFrame.from_ndarray(pixels, format="rgb24"))
                number += 1
    film.duration_s = number / FPS
    return film


class User:
    """Somebody who works the page by keys, and knows what the film shows."""

    def __init__(self, page: Any, film: Film) -> None:
        self.page, self.film, self.num_keys = page, film, 0
        self.answer_s: list[float] = []

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)
        self.num_keys += 1

    def wait(self, expression: str, limit_s: float = 600.0) -> None:
        ends = time.monotonic() + limit_s
        while not self.page.evaluate(expression):
            if time.monotonic() > ends:
                raise TimeoutError(f"{expression}: {self.page.inner_text('#error')} {self.page.inner_text('#status')}")
            self.page.wait_for_timeout(10)

    def state(self) -> Any:
        return self.page.evaluate("fetch('api/state').then(answer => answer.json())")

    def mark(self, span: Span) -> None:
        """Mark an action, and type its name. The film is clicked to its place, which counts as one key."""
        before = self.state()["num_segments"]
        for time_s, key in ((span.start_s, "i"), (span.end_s, "o")):
            self.page.evaluate(f"import('./known.js').then(found => found.player.seek({time_s}))")
            self.num_keys += 1
            self.page.wait_for_timeout(100)
            self.press(key)
        self.press("c")
        self.page.keyboard.type(span.label)
        self.num_keys += len(span.label)
        self.press("Enter")
        self.wait(
            f"fetch('api/state').then(answer => answer.json()).then(state => state.num_segments === {before + 1})"
        )

    def answer(self) -> None:
        """Answer the moment that is shown, and wait for the next one."""
        shown = self.page.evaluate(f"{KNOWN}.chosen)")
        # A label that the model contradicts is looked at, and skipped: this user is always right.
        key = "n" if shown["kind"] == "doubt" else KEYS[self.film.label_of(shown["start_s"], shown["end_s"])]
        began = time.perf_counter()
        self.press(key)
        self.wait(f"{KNOWN}.chosen?.moment && found.known.chosen.moment !== {shown['moment']!r})", 60.0)
        self.answer_s.append(time.perf_counter() - began)


def label_film(film: Film, project: Path, cache: Path) -> dict[str, Any]:
    """Work the page, and return what it took."""
    steps: dict[str, Any] = {}
    began = time.perf_counter()
    command = [sys.executable, "-m", "fewframes.cli", "label", str(film.path), "--project", str(project)]
    server = subprocess.Popen(
        [*command, "--cache", str(cache), "--port", "0", "--no-browser"], stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    address = next(found[0] for line in server.stderr if (found := re.findall(r"http://[\d.:]+", line)))
    steps["seconds to the address"] = round(time.perf_counter() - began, 1)
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        user = User(page, film)
        user.wait(
            "document.getElementById('clock').textContent.includes(' / ') && document.getElementById('video').readyState > 1"
        )
        steps["seconds to the video"] = round(time.perf_counter() - began, 1)
        firsts = [next(span for span in film.truth if span.label == label) for label in KEYS if label]
        for span in firsts:
            user.mark(span)
        steps["keys to mark one example of each"] = user.num_keys
        user.wait("fetch('api/state').then(answer => answer.json()).then(state => state.videos[0].status === 'ready')")
        steps["seconds until all of the film is embedded"] = round(time.perf_counter() - began, 1)
        while (
            page.inner_text("#moment-title") != "Next moment"
        ):  # right after a film is ready there may be no moment yet
            user.press("n")
            page.wait_for_timeout(500)
        steps["after so many answers"] = {}
        for number in range(NUM_ANSWERS + 1):
            if number in REPORTED:
                state = user.state()
                steps["after so many answers"][number] = {
                    "labels": {label["name"]: label["num_segments"] for label in state["labels"]},
                    "left-out accuracy": state["accuracy"],
                    "forecast": state["forecast"],
                }
            if number < NUM_ANSWERS:
                user.answer()
        steps["keys in all"] = user.num_keys
        steps["seconds from a key to the next moment"] = least_median_most(user.answer_s)
        began = time.perf_counter()
        page.click("#write")
        user.wait("['Model written', 'No model yet'].includes(document.getElementById('written-title').textContent)")
        steps["model"] = page.inner_text("#written-body p").strip()
        steps["seconds to write the model"] = round(time.perf_counter() - began, 1)
        browser.close()
    server.send_signal(signal.SIGINT)
    server.wait(60)
    return steps


def found_in(film: Film, model: Path, cache: Path, threshold: float) -> dict[str, Any]:
    """Run the timeline on the other film, and compare it with the truth."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "fewframes.cli", "timeline", str(film.path), "--model", str(model), "--json"]
    options = ["--cache", str(cache), "--threshold", str(threshold)]
    answer = json.loads(subprocess.run([*command, *options], check=True, capture_output=True, text=True).stdout)
    spans = [Span(span["start_s"], span["end_s"], span["label"], span["confidence"]) for span in answer["spans"]]
    spans = [span for span in spans if span.label in KEYS and span.label]

    def meets(one: Span) -> Callable[[Span], bool]:
        return lambda other: one.label == other.label and overlap(one, other) > 0

    found = {label: [span for span in film.truth if span.label == label] for label in KEYS if label}
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "true actions": {label: len(truth) for label, truth in found.items()},
        "found": {label: sum(any(map(meets(one), spans)) for one in truth) for label, truth in found.items()},
        "spans": len(spans),
        "right spans": sum(any(map(meets(span), film.truth)) for span in spans),
    }


def main() -> None:
    data = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        first, second = (
            compose(sources(data, second=number), work / f"film{int(number)}.mp4") for number in (False, True)
        )
        print(f"films of {first.duration_s:.0f} and {second.duration_s:.0f} s", file=sys.stderr)
        steps = label_film(first, work / "labels", work / "cache")
        # The first run embeds the film, the second has its embeddings from the cache.
        model, cache = work / "labels" / "model", work / "other"
        other = {f"threshold {threshold}": found_in(second, model, cache, threshold) for threshold in (0.5, 0.8)}
    write_result(
        films={"first": round(first.duration_s), "second": round(second.duration_s)},
        steps=steps,
        **{"second film": other},
    )


if __name__ == "__main__":
    main()
