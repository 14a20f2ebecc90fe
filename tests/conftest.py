"""What several rooms' tests share: a tiny trained-looking model and a few videos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import fewframes
from fewframes.inference.predictor import Predictor
from fewframes.models.files.checkpoint import Checkpoint, save_checkpoint
from fewframes.models.files.networks import build_model
from fewframes.video.view import ViewConfig
from helpers.models import LABELS, TINY
from helpers.numbered import Numbered, write_fading

if TYPE_CHECKING:
    from starlette.testclient import TestClient


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint file of a tiny ViT with random weights and three labels."""
    torch.manual_seed(0)
    view = ViewConfig(resize_px=36, crop_px=32)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_checkpoint(path, Checkpoint(build_model(TINY, view), view, LABELS))
    return path


@pytest.fixture(scope="session")
def image_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny image-text model that has learned drawn shapes and their names."""
    pytest.importorskip("open_clip")
    from helpers.words import write_image_text

    return write_image_text(tmp_path_factory.mktemp("image-text") / "shapes")


@pytest.fixture(scope="session")
def words_file(image_text: Path) -> Path:
    """A model made from two labels in words."""
    from fewframes.models.words.files import words_model
    from helpers.words import OTHERS, RED_AND_BLUE

    return words_model(
        RED_AND_BLUE, image_text.parent / "words.safetensors", encoder=str(image_text), background=OTHERS
    )


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three short videos in two folders."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "sub").mkdir()
    for index, name in enumerate(("a", "b", "sub/c")):
        Numbered(times_ms=range(40 * index, 40 * (index + 20), 40)).write(folder / name)
    return folder


@pytest.fixture(scope="module")
def predictor(tiny_model: Path) -> Predictor:
    """The tiny model, loaded."""
    return fewframes.load(tiny_model, device="cpu", dtype="float32")


@pytest.fixture
def serving(predictor: Predictor) -> Iterator[Callable[..., TestClient]]:
    """Makes a server with settings of its own."""
    from starlette.testclient import TestClient  # an extra's packages

    from fewframes.serve.app import create_app
    from fewframes.serve.config import ServeConfig

    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(TestClient(create_app(predictor, ServeConfig(**settings))))


@pytest.fixture
def client(serving: Callable[..., TestClient], videos: Path) -> TestClient:
    """A server for the short videos."""
    return serving(root=str(videos), max_mb=4.0)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips: reddening and bluing ones differ in the order of their frames alone; and one file that is none."""
    folder = tmp_path_factory.mktemp("clips")
    for label, turned in (("redden", False), ("turn blue", True)):
        (folder / label).mkdir()
        for number in range(6):
            write_fading(folder / label / f"{number}.mp4", 16 + 3 * number, turned=turned)
    (folder / "redden" / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real videos beside the project; without it the tests in tests/real fail, they do not skip."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.fail(f"no real videos in {folder.name}/data beside the project: these tests need them")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser; tests that use it are marked `needs_chromium`."""
    from playwright.sync_api import sync_playwright

    from helpers.browser import CHROMIUM, FLAGS

    with sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()
