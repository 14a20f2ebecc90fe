"""The exported page: its arithmetic equals Python's, and in a real browser its answers do, too."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from fewframes.cli.main import app
from fewframes.errors import ConfigError
from fewframes.export.web import PAGE, export_page
from fewframes.inference.predictor import Predictor, load
from fewframes.models.files.checkpoint import Checkpoint, save_checkpoint
from fewframes.models.files.networks import build_model
from fewframes.results import Prediction
from fewframes.runtime.graphs import open_graph
from fewframes.sampling import centre_times
from fewframes.video.source import read_frames
from fewframes.video.transforms import fit_frame
from fewframes.video.view import ViewConfig
from helpers.models import LABELS, TINY

pytest.importorskip("onnx")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HUG = Path(__file__).parents[2] / "examples" / "hug.mp4"
VIEW = ViewConfig(resize_px=36, crop_px=32)
LIBRARY = next(
    (folder for folder in (Path(os.environ.get("FEWFRAMES_ONNXRUNTIME_WEB", "")), Path("node_modules/onnxruntime-web"))
     if (folder / "dist" / "ort.wasm.bundle.min.mjs").is_file()), None
)  # fmt: skip
"""The folder of the npm package onnxruntime-web, if there is one."""
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="the page is tested in Chromium, which is not installed here"
)
needs_library = pytest.mark.skipif(
    LIBRARY is None,
    reason="needs onnxruntime-web: npm install onnxruntime-web, and its folder in FEWFRAMES_ONNXRUNTIME_WEB",
)
FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update
--disable-sync --use-fake-device-for-media-stream --use-fake-ui-for-media-stream""".split()
WAIT_MS = 90_000
BYTES = "const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));"
ANSWERED = "document.getElementById('error').textContent || !document.getElementById('answer').hidden"


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_folder_has_the_page_and_a_model_that_agrees(tiny_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "site"
    (output / "node_modules").mkdir(parents=True)
    done = CliRunner().invoke(app, ["export", str(tiny_model), "--format", "web", "-o", str(output)])
    assert done.exit_code == 0, done.output
    assert "same action for 4" in done.stdout
    assert "npm install" in done.stderr
    assert files_of(output) == files_of(PAGE) | {"model.json", "model.frames.onnx", "model.time.onnx", "node_modules"}
    about = json.loads((output / "model.json").read_text(encoding="utf-8"))
    assert about["labels"] == list(LABELS)
    assert about["view"] == json.loads(json.dumps(asdict(VIEW)))
    assert (about["num_frames"], about["least_frames"]) == (TINY.num_frames, 3)
    for part, name in about["graphs"].items():
        assert open_graph(output / name).card.part == part


def test_a_model_without_halves_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    model = build_model(replace(TINY, layout="joint", temporal="mean"), VIEW)
    save_checkpoint(tmp_path / "joint.safetensors", Checkpoint(model, VIEW, LABELS))
    predictor = load(tmp_path / "joint.safetensors", device="cpu", dtype="float32", runtime="torch")
    with pytest.raises(ConfigError, match="'joint' mixes frames inside the encoder"):
        export_page(predictor, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_the_page_names_no_other_host() -> None:
    for path in PAGE.iterdir():
        assert re.findall(r"\w+://[^/\s]+", path.read_text(encoding="utf-8")) in ([], ["http://localhost:8000"])
    package = json.loads((PAGE / "package.json").read_text(encoding="utf-8"))
    assert list(package["dependencies"]) == ["onnxruntime-web"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the page is tested in a browser")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def packaged() -> Predictor:
    return load(device="cpu", dtype="float32", runtime="torch")


@pytest.fixture(scope="module")
def site(packaged: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the packaged model, with the library as npm would install it."""
    folder = tmp_path_factory.mktemp("site")
    export_page(packaged, folder)
    assert LIBRARY is not None
    (folder / "node_modules").mkdir()
    (folder / "node_modules" / "onnxruntime-web").symlink_to(LIBRARY.resolve())
    return folder


def opened(browser: Any, folder: Path, **options: Any) -> Iterator[Any]:
    """Yield a page of the folder, on a server like that of `python -m http.server`. Nothing but its files may be asked for."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}/"
    page = browser.new_page(**options)
    page.set_default_timeout(WAIT_MS)
    foreign: list[str] = []
    page.on(
        "request",
        lambda asked: foreign.append(asked.url) if not asked.url.startswith((address, "blob:", "data:")) else None,
    )
    page.on("pageerror", lambda error: foreign.append(str(error)))
    page.goto(address)
    yield page
    page.close()
    server.shutdown()
    thread.join()
    server.server_close()
    assert foreign == []


@pytest.fixture
def bare(browser: Any) -> Iterator[Any]:
    """The page without a model and without the library."""
    yield from opened(browser, PAGE)


@pytest.fixture
def page(browser: Any, site: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    yield from opened(browser, site, **getattr(request, "param", {}))


def until(page: Any, expression: str) -> None:
    ends = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < ends, expression
        page.wait_for_timeout(50)


def text_of(array: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


@pytest.mark.browser
@needs_browser
def test_a_page_without_the_library_says_what_to_do(bare: Any) -> None:
    until(bare, "document.getElementById('error').textContent")
    assert "npm install" in bare.inner_text("#error")
    assert bare.locator("#file").is_disabled()


@pytest.mark.browser
@needs_browser
def test_frames_are_chosen_as_in_python(bare: Any) -> None:
    found = bare.evaluate("import('./fewframes.js').then(module => module.partCentres(0.5, 7.3, 16))")
    assert found == pytest.approx(centre_times(9.0, 16, start_s=0.5, end_s=7.3).tolist(), abs=1e-12)


@pytest.mark.browser
@needs_browser
@pytest.mark.parametrize(
    "view",
    [VIEW, replace(VIEW, interpolation="bilinear"), replace(VIEW, fit="squash"),
     replace(VIEW, fit="pad", mean=(0.485, 0.456, 0.406)), ViewConfig(resize_px=33, crop_px=32)],
    ids=["crop", "bilinear", "squash", "pad", "odd"],
)  # fmt: skip
def test_squares_are_pillows_byte_for_byte(bare: Any, view: ViewConfig) -> None:
    random = np.random.default_rng(0)
    for height, width in ((48, 75), (20, 20), (36, 36), (5, 200), (33, 47), (75, 48), (47, 33)):
        picture = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = fit_frame(picture.transpose(2, 0, 1), view)
        code = f"""async ([text, width, height, view]) => {{
          {BYTES}
          const {{fitted}} = await import('./fewframes.js');
          return Array.from(fitted({{data: bytes(text), width, height, step: 3}}, view));
        }}"""
        found = np.array(bare.evaluate(code, [text_of(picture), width, height, asdict(view)])).reshape(expected.shape)
        if (
            height > width and view.fit != "pad"
        ):  # newer versions of Pillow may begin with the height, and clip noise in between
            apart = np.abs(found - expected.astype(int))
            assert apart.max() <= 25, f"{height}x{width}"
            assert apart.mean() < 2, f"{height}x{width}"
        else:
            np.testing.assert_array_equal(found, expected, f"{height}x{width}")


@pytest.mark.browser
@needs_browser
@pytest.mark.parametrize(
    ("matrix", "name", "full"), [(5, "bt470bg", False), (1, "bt709", False), (5, "smpte170m", True)]
)
def test_colours_are_ffmpegs(bare: Any, matrix: int, name: str, full: bool) -> None:
    height, width = 32, 64
    planes = np.random.default_rng(1).integers(0, 256, (height * 3 // 2, width), dtype=np.uint8)
    frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    expected = frame.reformat(format="rgb24").to_ndarray().astype(int)
    code = f"""async ([text, width, height, matrix, full]) => {{
      {BYTES}
      const {{rgbOf}} = await import('./fewframes.js'), data = bytes(text), n = width * height;
      const plane = (offset, stride) => ({{data, offset, stride, step: 1}});
      const planes = [plane(0, width), plane(n, width / 2), plane(n * 5 / 4, width / 2)];
      return Array.from(rgbOf(planes, width, height, matrix, full).data);
    }}"""
    found = np.array(bare.evaluate(code, [text_of(planes), width, height, name, full])).reshape(expected.shape)
    # FFmpeg's own arithmetic differs between processors by up to two levels.
    assert np.abs(found - expected).max() <= 2


@pytest.mark.browser
@needs_browser
@needs_library
def test_scores_of_the_same_frames_are_pythons(page: Any, packaged: Predictor) -> None:
    until(page, "!document.getElementById('file').disabled")
    frames_TCHW = read_frames(HUG, centre_times(4.0, packaged.num_frames)).frames
    pictures = list(frames_TCHW.transpose(0, 2, 3, 1))
    expected = packaged.predict(pictures)
    code = f"""async ([texts, width, height]) => {{
      {BYTES}
      const {{Model, fitted}} = await import('./fewframes.js'), model = await Model.load('./'), embeddings = [];
      for (const text of texts)
        embeddings.push(await model.embed(fitted({{data: bytes(text), width, height, step: 3}}, model.about.view)));
      return await model.label(embeddings);
    }}"""
    height, width = frames_TCHW.shape[2:]
    found = page.evaluate(code, [[text_of(picture) for picture in pictures], width, height])
    np.testing.assert_allclose(found["scores"], np.asarray(expected.scores), atol=1e-3)
    np.testing.assert_allclose(found["attention"], np.asarray(expected.frame_attention), atol=1e-3)
    assert [one["label"] for one in found["top"]] == [one.label for one in expected.top(5)]


PHONE = {"viewport": {"width": 375, "height": 740}, "color_scheme": "dark"}


@pytest.mark.browser
@needs_browser
@needs_library
@pytest.mark.parametrize("page", [{}, PHONE], indirect=True, ids=["desk", "phone"])
def test_a_video_file_is_labelled_as_by_python(page: Any, packaged: Predictor) -> None:
    until(page, "!document.getElementById('file').disabled")
    page.set_input_files("#file", HUG)
    until(page, ANSWERED)
    assert page.inner_text("#error") == ""
    expected = packaged.predict(HUG)
    assert isinstance(expected, Prediction)
    top = expected.top(5)
    assert page.inner_text("#title") == f"hug, {100 * top[0].score:.1f} %"
    assert page.locator("#top li > span:first-child").all_inner_texts() == [one.label for one in top]
    widths = page.evaluate("[...document.querySelectorAll('#top .bar')].map(bar => bar.firstChild.getBoundingClientRect().width"
                           " / bar.clientWidth)")  # fmt: skip
    # Where the browser gives stored colours, the frames are Python's; its own conversion changes these scores by 0.002.
    np.testing.assert_allclose(widths, [one.score for one in top], atol=0.01)
    seen = page.locator("#strip li > span:last-child").all_inner_texts()
    assert len(seen) == packaged.num_frames
    attention = np.array([float(text.split(", ")[1].removesuffix(" %")) / 100 for text in seen])
    np.testing.assert_allclose(attention, np.asarray(expected.frame_attention), atol=0.01)
    assert [text.split(",")[0] for text in seen] == [f"0:{time_s:04.1f}" for time_s in expected.times_s.tolist()]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.browser
@needs_browser
@needs_library
def test_the_camera_is_labelled_until_it_is_stopped(page: Any, tmp_path: Path) -> None:
    until(page, "!document.getElementById('camera').disabled")
    page.click("#camera")
    until(page, ANSWERED)
    assert page.inner_text("#error") == ""
    assert page.locator("#strip li").count() == 16
    page.click("#camera")
    until(page, "document.getElementById('status').textContent === 'The camera is off'")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    page.set_input_files("#file", broken)
    until(page, "document.getElementById('error').textContent")
    assert "this browser cannot decode the video" in page.inner_text("#error")
