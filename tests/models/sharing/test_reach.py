"""A machine without a network gets its answer in seconds, with the way out; a cache and a slow network are used as ever."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fewframes.errors import WeightsError
from fewframes.inference.predictor import load
from fewframes.models.files import hub as files_hub
from fewframes.models.files.hub import pull
from fewframes.models.files.timm_weights import download_timm
from fewframes.models.sharing import reach
from fewframes.models.sharing.hub import pull_model, push
from fewframes.models.sharing.reach import hub_or_cache, hub_unreachable, unreachable
from fewframes.models.words.image_text import open_image_text

constants = pytest.importorskip("huggingface_hub.constants")
NOBODY = "https://nobody.invalid"
"""A name that no resolver may know (RFC 2606)."""


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("FEWFRAMES_CACHE", str(tmp_path / "own"))


@pytest.fixture
def listening() -> Iterator[str]:
    """The address of a server that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the hub, at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    return address


def test_a_connection_is_all_that_is_tried(listening: str, closed: str) -> None:
    assert unreachable(listening) == ""  # it never answers, and need not
    assert unreachable(closed).startswith("127.0.0.1: Connection refused")
    assert unreachable(NOBODY).startswith("nobody.invalid: ")


def test_a_resolver_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "CONNECT_S", 0.2)
    asked, released = threading.Event(), threading.Event()

    def hanging(*_: object, **__: object) -> None:
        asked.set()
        released.wait(20)
        raise OSError("gave up")

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    began = time.monotonic()
    assert unreachable(NOBODY) == "nobody.invalid: no connection within 0.2 s"
    assert time.monotonic() - began < 10
    assert asked.is_set()
    released.set()
    for thread in threading.enumerate():
        if thread.name == "fewframes-reach":
            thread.join(20)


def test_a_file_has_no_server() -> None:
    assert unreachable("file:///somewhere/weights.pth") == ""


def test_a_proxy_is_asked_in_its_place(monkeypatch: pytest.MonkeyPatch, listening: str, closed: str) -> None:
    monkeypatch.setenv("https_proxy", listening)
    assert unreachable(NOBODY) == ""
    monkeypatch.setenv("https_proxy", closed.removeprefix("http://"))
    assert unreachable(NOBODY).startswith("127.0.0.1: ")
    monkeypatch.setenv("no_proxy", "nobody.invalid")
    assert unreachable(NOBODY).startswith("nobody.invalid: ")


def test_who_is_offline_by_choice_waits_for_nothing(monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    assert hub_unreachable()
    with hub_or_cache() as reason:
        assert constants.HF_HUB_OFFLINE
        assert reason
    assert not constants.HF_HUB_OFFLINE
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub_unreachable() == ""
    with hub_or_cache() as reason:
        assert reason == ""
    assert constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(
    ("fetch", "words"),
    [
        (lambda: load("hf:some-one/waves"), "copy config.json, preprocessor_config.json and model.safetensors .* hf:FOLDER"),
        (lambda: pull_model("some-one/doors"), "fetch model.safetensors of some-one/doors .* --model FILE"),
        (lambda: push("lite0-16", "some-one/doors"), "check the network and HF_ENDPOINT"),
        (lambda: download_timm("vit_tiny_patch16_224.augreg_in21k", 224), "hf download timm/vit.* models pull --file FILE"),
        (lambda: open_image_text("clip:ViT-B-16-SigLIP2/webli"), "hf download timm/ViT-B-16-SigLIP2 .* name the folder in place"),
        (lambda: open_image_text("clip:ViT-B-16/openai"), "hf download timm/vit_base.*openai .* name the folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_fetched_says_the_way_out_at_once(closed: str, fetch: Callable[[], object], words: str) -> None:
    pytest.importorskip("open_clip")
    began = time.monotonic()
    with pytest.raises(WeightsError, match=f"127.0.0.1: Connection refused.*{words}"):
        fetch()
    assert time.monotonic() - began < 30  # imports among it; the hub's own client would wait 46 s beside them


def test_a_release_that_cannot_be_fetched_says_the_way_out(monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    monkeypatch.setattr(files_hub, "RELEASE_URL", f"{closed}/stam_{{num_frames}}.pth")
    with pytest.raises(WeightsError, match="Connection refused.*--file stam_16.pth"):
        pull("stam-16")
