"""Bodies of requests: forms and JSON say the same, what cannot be read is refused with a reason, and too much is not read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.types import Message

from fewframes.errors import Refusal
from fewframes.serve import requests as bodies
from fewframes.serve.config import VideoRequest
from fewframes.serve.requests import read_request
from helpers.served import send, service, told


def test_a_form_is_read_as_json_is(client: TestClient, videos: Path) -> None:
    assert told(send(client, "/v1/predict", videos / "a.mp4", topk="many"))[1].startswith("request: topk = 'many': ")
    assert told(send(client, "/v1/predict", videos / "a.mp4", nonsense=1))[0] == 422
    by_path = client.post("/v1/predict", data={"path": "a.mp4", "topk": "1"}, files={"none": (None, b"")})
    assert told(by_path)[0] == 422
    assert len(send(client, "/v1/predict", videos / "a.mp4", topk=1).json()["top"]) == 1


def test_refusals_of_bodies(client: TestClient, videos: Path) -> None:
    assert told(client.post("/v1/predict", content=b"x", headers={"Content-Type": "text/plain"}))[0] == 415
    assert told(client.post("/v1/predict", content=b"{", headers={"Content-Type": "application/json"}))[0] == 400
    assert told(client.post("/v1/predict", json=["a.mp4"]))[0] == 400
    assert told(client.post("/v1/predict", content=b"x", headers={"Content-Type": "multipart/form-data"}))[0] == 400
    odd = {"Content-Type": "multipart/form-data; boundary=x; charset=undefined"}
    content = b'--x\r\nContent-Disposition: form-data; name="path"\r\n\r\na.mp4\r\n--x--\r\n'
    assert told(client.post("/v1/predict", content=content, headers=odd))[0] == 400
    assert told(client.post("/v1/predict", files={"video": b"x"})) == (
        422,
        "request: a file under the name 'video'; send it as 'file'",
    )
    assert told(client.post("/v1/predict", files=[("file", b"x"), ("file", b"y")]))[0] == 400
    for content in (b"", b"no video at all", (videos / "a.mp4").read_bytes()[:900]):
        status, words = told(send(client, "/v1/predict", content))
        assert (status, words.startswith("sent.mp4: ")) == (422, True), words
    assert told(client.get("/none"))[0] == 404
    assert service(client).num_inside == 0


@pytest.mark.parametrize("depth", [*range(900, 1010, 10), 30_000])
def test_bodies_nested_too_deeply(client: TestClient, depth: int) -> None:
    """Around Python's limit it is now the reading that fails, now the checking."""
    for nested in ("[" * depth + "]" * depth, "[" * depth):
        kind = {"Content-Type": "application/json"}
        for content in (nested, f'{{"path": "a.mp4", "topk": {nested}}}'):
            assert told(client.post("/v1/predict", content=content, headers=kind))[0] in (400, 422)
        status, words = told(send(client, "/v1/predict", b"", topk=nested))
        assert status in (400, 422)
        assert len(words) < 1100
    assert service(client).num_inside == 0


def test_large_bodies_are_refused_announced_or_not(client: TestClient) -> None:
    assert told(send(client, "/v1/predict", bytes(5_000_000)))[0] == 413

    def pieces() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(50):
            yield bytes(100_000)

    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    assert told(client.post("/v1/predict", content=pieces(), headers=kind))[0] == 413
    assert (
        told(client.post("/v1/predict", content=b"[" + b"1," * 10**5, headers={"Content-Type": "application/json"}))[0]
        == 413
    )
    assert service(client).num_inside == 0


@pytest.mark.parametrize("pieces", [[], [b"{"], [b" "] * 40])
def test_a_body_that_stands_still_or_drips_is_given_up(monkeypatch: pytest.MonkeyPatch, pieces: list[bytes]) -> None:
    """The limits are a tenth of a second and a hundred bytes a second; forty bytes come one by one, then nothing."""
    monkeypatch.setattr(bodies, "GRACE_S", 0.1)
    monkeypatch.setattr(bodies, "LEAST_BYTES_S", 100)
    coming = iter(pieces)

    async def receive() -> Message:
        if (piece := next(coming, None)) is not None:
            return {"type": "http.request", "body": piece, "more_body": True}
        await asyncio.Event().wait()
        raise AssertionError

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")]}
    with pytest.raises(
        Refusal, match=f"^{len(b''.join(pieces))} bytes of the body came in 0 s; it must come at 100"
    ) as refusal:
        asyncio.run(read_request(Request(scope, receive), VideoRequest, 1000))
    assert refusal.value.status == 408
