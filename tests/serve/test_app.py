"""The server: its answers are those of `predict`, every refusal has its status and one line, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import uvicorn
from numpy.typing import NDArray
from starlette.testclient import TestClient

from fewframes.errors import Refusal
from fewframes.inference.explain import explain
from fewframes.inference.predictor import Predictor
from fewframes.inference.timeline import TimelineConfig, sweep
from fewframes.serve.app import create_app
from fewframes.serve.config import PredictRequest, ServeConfig
from fewframes.serve.security import HEADERS
from fewframes.serve.server import listen, run
from fewframes.serve.service import MOST_COMING, Service
from fewframes.serve.tasks import NamedFile, RequestTask, gone
from fewframes.video.source import open_video
from helpers.numbered import Numbered
from helpers.served import send, service, told, until

VERBS = ("/v1/predict", "/v1/timeline", "/v1/embed")


def test_answers_are_those_of_predict_sent_and_by_path(client: TestClient, predictor: Predictor, videos: Path) -> None:
    truth = predictor.predict(videos / "a.mp4", start_s=0.1)
    for answer in (
        send(client, "/v1/predict", videos / "a.mp4", topk=3, start_s=0.1),
        client.post("/v1/predict", json={"path": "a.mp4", "topk": 3, "start_s": 0.1}),
        client.post("/v1/predict", json={"path": str(videos / "sub" / ".." / "a.mp4"), "topk": 3, "start_s": 0.1}),
    ):
        found = answer.json()
        assert [entry["label"] for entry in found["top"]] == [label for label, _ in truth.top(3)]
        assert [entry["score"] for entry in found["top"]] == pytest.approx(
            [score for _, score in truth.top(3)], abs=1e-5
        )
        assert found["times_s"] == pytest.approx(truth.times_s.tolist(), abs=1e-5)
        assert found["frame_attention"] == pytest.approx(truth.frame_attention.tolist(), abs=1e-5)
    assert send(client, "/v1/predict", videos / "a.mp4").json()["source"] == "sent.mp4"


def test_many_at_once_get_their_own_answers(client: TestClient, predictor: Predictor, videos: Path) -> None:
    names = ["a.mp4", "b.mp4", "sub/c.mp4"] * 4
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda name: client.post("/v1/embed", json={"path": name, "per_frame": True}), names))
    for name, answer in zip(names, answers, strict=True):
        truth = predictor.predict(videos / name)
        np.testing.assert_allclose(answer.json()["embedding"], truth.embedding, rtol=0, atol=1e-5)
        np.testing.assert_allclose(answer.json()["frame_embeddings"], truth.frame_embeddings, rtol=0, atol=1e-5)


def test_explanation_and_pictures(client: TestClient, predictor: Predictor, videos: Path) -> None:
    found = send(client, "/v1/predict", videos / "b.mp4", explain="true", pictures="true").json()
    truth = explain(predictor, videos / "b.mp4", maps="none")
    assert found["explanation"]["label"] == truth.label
    assert found["explanation"]["occlusion"] == pytest.approx(truth.occlusion.tolist(), abs=1e-5)
    assert [picture[:23] for picture in found["pictures"]] == ["data:image/jpeg;base64,"] * 4


def test_timeline_whole_and_line_by_line(client: TestClient, predictor: Predictor, tmp_path: Path) -> None:
    film = Numbered(times_ms=range(0, 12000, 40)).write(tmp_path / "film")
    truth = sweep(predictor, film, TimelineConfig(window_s=0.5, threshold=0.2)).to_dict()
    found = send(client, "/v1/timeline", film, window_s=0.5, threshold=0.2).json()
    assert found == truth | {"source": "sent.mp4"}
    answer = send(client, "/v1/timeline", film, window_s=0.5, threshold=0.2, progress="true")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines[-1]["result"] == found
    done = [line["progress"]["done"] for line in lines[:-1]]
    assert done == sorted(done)
    assert (done[0], done[-1], lines[0]["progress"]["total"]) == (0, 96, 96)
    broken = send(client, "/v1/timeline", b"no video", progress="true")
    assert (broken.status_code, json.loads(broken.text)["status"]) == (200, 422)


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"path": "../secret.mp4"}, 403, "outside of the folder"),
        ({"path": "/etc/passwd"}, 403, "outside of the folder"),
        ({"path": "link.mp4"}, 403, "outside of the folder"),
        ({"path": "a\0.mp4"}, 403, "not a path"),
        ({"path": "none.mp4"}, 404, "no such file"),
        ({"path": "two\nlines"}, 404, "two lines: no such file"),
        ({"path": "a" * 5000}, 404, "aaa: cannot be read (File name too long)"),
        ({"path": "sub"}, 404, "no such file"),
        ({"path": "pipe"}, 404, "no such file"),
        ({"url": "http://127.0.0.1/a.mp4"}, 403, "fetches nothing"),
        ({}, 422, "needs one video"),
        ({"path": "a.mp4", "url": "http://x"}, 422, "needs one video"),
        ({"path": "a.mp4", "top": 3}, 422, "unknown setting 'top'; did you mean 'topk'?"),
        ({"path": "a.mp4", "topk": 0}, 422, "topk = 0: "),
        ({"path": "a.mp4", "topk": "3"}, 422, "topk = '3': "),
        ({"path": "a.mp4", "start_s": 99}, 422, "a.mp4: "),
        ({"path": "a.mp4", "start_s": -1}, 422, "start_s = -1: "),
    ],
)
def test_refusals_of_names(
    client: TestClient, videos: Path, tmp_path: Path, fields: dict[str, Any], status: int, words: str
) -> None:
    (tmp_path / "secret.mp4").write_bytes((videos / "a.mp4").read_bytes())
    link, pipe = videos / "link.mp4", videos / "pipe"
    link.symlink_to(tmp_path / "secret.mp4")
    os.mkfifo(pipe)
    try:
        found = told(client.post("/v1/predict", json=fields))
    finally:
        link.unlink()
        pipe.unlink()
    assert found[0] == status, found
    assert words in found[1]
    assert str(videos) not in found[1]


def test_a_failure_of_our_own_is_told_in_the_same_form(predictor: Predictor, videos: Path) -> None:
    app = create_app(predictor, ServeConfig(root=str(videos)))
    app.state.service.runtime.inner = object()
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.post("/v1/predict", json={"path": "a.mp4"})
        assert told(answer)[0] == 500
        assert all(answer.headers[name] == value for name, value in HEADERS.items())
        assert service(client).num_inside == 0


def test_limits_of_pixels_seconds_and_root(serving: Any, videos: Path) -> None:
    for route in VERBS:
        assert told(send(serving(max_megapixels=0.01), route, videos / "a.mp4"))[0] == 413
        assert told(send(serving(max_seconds=0.5), route, videos / "a.mp4"))[0] == 413
    small = serving(root=str(videos), max_mb=0.001)
    assert told(small.post("/v1/predict", json={"path": "a.mp4"}))[0] == 413
    assert told(serving().post("/v1/predict", json={"path": "a.mp4"})) == (
        403,
        "a.mp4: this server reads no files of its own; upload the video",
    )


def test_urls(serving: Any) -> None:
    status, words = told(serving(urls="public").post("/v1/predict", json={"url": "http://127.0.0.1:1/a.mp4"}))
    assert (status, "not a public address" in words) == (403, True)
    status, words = told(serving(urls="any").post("/v1/predict", json={"url": "http://127.0.0.1:1/a.mp4"}))
    assert (status, "cannot be fetched" in words) == (422, True)


def test_tokens(serving: Any, videos: Path) -> None:
    client = serving(token="hélas", root=str(videos))
    wrong: tuple[dict[str, Any], ...] = ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "})
    for shown in wrong:
        answer = client.post("/v1/predict", json={"path": "a.mp4"}, headers=shown)
        assert told(answer)[0] == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert client.get("/metrics", headers=shown).status_code == 401
    shown = {"Authorization": "Bearer hélas".encode()}
    assert client.post("/v1/predict", json={"path": "a.mp4"}, headers=shown).status_code == 200
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/v1/about").json()["needs_token"] is True


class Door:
    """Holds up the batcher's rounds until it is opened."""

    def __init__(self, service: Service) -> None:
        self.event, self.inner = threading.Event(), service.runtime.inner
        service.runtime.inner = self  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def embed_frames(self, frames: NDArray[np.uint8]) -> Any:
        self.event.wait(20)
        return self.inner.embed_frames(frames)


def test_more_than_may_wait_are_refused_at_once_and_nobody_is_lost(serving: Any, videos: Path) -> None:
    client = serving(root=str(videos), workers=1, max_waiting=2)
    door = Door(service(client))
    with ThreadPoolExecutor(3) as pool:
        inside = [pool.submit(client.post, "/v1/predict", json={"path": "a.mp4"}) for _ in range(3)]
        until(lambda: service(client).num_waiting == 2)
        answer = client.post("/v1/predict", json={"path": "a.mp4"})
        assert told(answer)[0] == 429
        assert int(answer.headers["Retry-After"]) >= 1
        door.event.set()
        assert [future.result().status_code for future in inside] == [200, 200, 200]
    until(lambda: service(client).num_inside == 0)
    assert client.post("/v1/predict", json={"path": "a.mp4"}).status_code == 200


def test_requests_that_are_still_coming_take_no_place(serving: Any, videos: Path) -> None:
    client = serving(root=str(videos), workers=1, max_waiting=0)
    coming = [service(client).enter() for _ in range(20)]
    assert client.post("/v1/predict", json={"path": "a.mp4"}).status_code == 200
    coming += [service(client).enter() for _ in range(MOST_COMING - 20)]
    status, words = told(client.post("/v1/predict", json={"path": "a.mp4"}))
    assert (status, words) == (429, "64 requests are still coming, the limit of this server; try again")
    for task in coming:
        service(client).leave(task)
    assert client.post("/v1/predict", json={"path": "a.mp4"}).status_code == 200


def test_time_that_is_over(serving: Any, videos: Path) -> None:
    client = serving(root=str(videos), workers=1, timeout_s=0.5)
    door = Door(service(client))
    assert told(client.post("/v1/predict", json={"path": "a.mp4"}))[0] == 408
    line = json.loads(client.post("/v1/timeline", json={"path": "a.mp4", "progress": True}).text.splitlines()[-1])
    assert line["status"] == 408
    assert service(client).num_inside == 1  # the one that waits for the batcher keeps its place
    door.event.set()
    until(lambda: service(client).num_inside == 0)


@pytest.mark.parametrize("is_open", [False, True])
def test_a_file_whose_time_is_over_ends_with_the_reason(is_open: bool, videos: Path) -> None:
    task = RequestTask(60)
    with (videos / "a.mp4").open("rb") as content:
        file: Any = NamedFile(content, "a.mp4", task)
        if not is_open:
            task.end(gone())
            with pytest.raises(Refusal, match="the client went away"):
                open_video(file)
            return
        with closing(open_video(file)) as video:
            task.end(gone())
            with pytest.raises(Refusal, match="the client went away"):
                video.frames_at(np.array([0.5]))


def test_stopping_refuses_what_is_new(serving: Any, videos: Path) -> None:
    client = serving(root=str(videos))
    assert client.get("/readyz").status_code == 200
    service(client).is_stopping = True
    for answer in (client.get("/readyz"), client.post("/v1/predict", json={"path": "a.mp4"})):
        assert told(answer)[0] == 503
        assert "Retry-After" in answer.headers
        assert answer.headers["Connection"] == "close"
    assert client.get("/healthz").status_code == 200
    assert (client.head("/readyz").status_code, client.head("/readyz").content) == (503, b"")


def test_probes_may_ask_for_the_head_only(client: TestClient) -> None:
    for route in ("/healthz", "/readyz"):
        head, whole = client.head(route), client.get(route)
        assert (head.status_code, head.content, whole.status_code) == (200, b"", 200)
        assert head.headers == whole.headers
    assert "head" not in client.get("/openapi.json").json()["paths"]["/healthz"]


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield "http://{}:{}/film.mp4".format(*found.getsockname())


def run_until(
    app: Any,
    stop_s: float,
    is_time: Any,
    asked: list[Callable[[str], Any]],
    *,
    is_told_again: bool = False,
    **others: Any,
) -> tuple[int, list[Any]]:
    """A server that is told to stop once `is_time`: how many requests it cut, and what each that was asked gave."""
    listening = listen("127.0.0.1", 0)
    address = "http://{}:{}".format(*listening.getsockname())
    with ThreadPoolExecutor(len(asked) + 1) as pool:
        answers = [pool.submit(ask, address) for ask in asked]

        def stop() -> None:
            try:
                until(is_time)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
            if is_told_again:
                until(lambda: app.state.service.is_stopping)
                os.kill(os.getpid(), signal.SIGINT)

        pool.submit(stop)
        num_cut = run(app, listening, stop_s=stop_s, **others)
        return num_cut, [answer.result(5) for answer in answers]


def sent_by_half(address: str) -> bytes:
    """The answer to a body that does not come."""
    parts = address.removeprefix("http://").split(":")
    with socket.create_connection((parts[0], int(parts[1])), 10) as link:
        kind = "application/json\r\nContent-Length: 99"
        link.sendall(f"POST /v1/predict HTTP/1.1\r\nHost: {parts[0]}\r\nContent-Type: {kind}\r\n\r\n{{".encode())
        return b"".join(iter(lambda: link.recv(999), b""))


def test_what_is_not_done_in_time_to_stop_is_told_so(predictor: Predictor, silent: str) -> None:
    app = create_app(predictor, ServeConfig(urls="any", workers=2, max_waiting=2))
    inside: Service = app.state.service

    def ask(route: str, **fields: object) -> Callable[[str], Any]:
        return lambda address: httpx2.post(address + route, json={"url": silent, **fields}, timeout=20)

    asked = [ask("/v1/predict"), ask("/v1/timeline", progress=True), ask("/v1/embed"), sent_by_half]
    num_cut, (fetching, streaming, waiting, sending) = run_until(app, 0.1, lambda: inside.num_inside == 4, asked)
    assert num_cut == 4
    assert (told(fetching)[0], told(waiting)[0]) == (503, 503)
    assert json.loads(streaming.text.splitlines()[-1])["status"] == 503
    assert sending.startswith(b"HTTP/1.1 503 ")
    until(lambda: inside.num_inside == 0)


def test_a_second_signal_ends_the_waiting(predictor: Predictor, silent: str) -> None:
    app = create_app(predictor, ServeConfig(urls="any"))

    def ask(address: str) -> Any:
        return httpx2.post(f"{address}/v1/predict", json={"url": silent}, timeout=20)

    began = time.monotonic()
    num_cut, (answer,) = run_until(app, 15, lambda: app.state.service.num_inside == 1, [ask], is_told_again=True)
    assert (num_cut, told(answer)[0]) == (1, 503)
    assert time.monotonic() - began < 10


def test_what_nobody_waits_for_keeps_no_stop(predictor: Predictor, videos: Path) -> None:
    app = create_app(predictor, ServeConfig(root=str(videos), workers=2, timeout_s=1))
    inside: Service = app.state.service
    door = Door(inside)
    left = threading.Event()

    def leave(address: str) -> Any:
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(f"{address}/v1/predict", json={"path": "a.mp4"}, timeout=0.5)
        left.set()

    def wait(address: str) -> Any:
        answer = httpx2.post(f"{address}/v1/predict", json={"path": "a.mp4"}, timeout=20)
        return told(answer)[0]

    began = time.monotonic()
    num_cut, (_, status) = run_until(app, 15, lambda: inside.num_inside == 2 and left.is_set(), [leave, wait])
    assert (num_cut, status, inside.num_inside > 0) == (0, 408, True)
    assert time.monotonic() - began < 10
    door.event.set()
    until(lambda: inside.num_inside == 0)


def test_a_stop_that_hangs_ends_with_the_process(
    predictor: Predictor, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []

    shutdown = uvicorn.Server.shutdown

    async def hang(self: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.sleep(1)
        await shutdown(self, sockets)

    monkeypatch.setattr("uvicorn.Server.shutdown", hang)
    monkeypatch.setattr("fewframes.serve.server.LAST_S", 0.3)
    app = create_app(predictor, ServeConfig(root=str(videos), workers=1))
    inside: Service = app.state.service
    door = Door(inside)

    def ask(address: str) -> Any:
        return httpx2.post(f"{address}/v1/predict", json={"path": "a.mp4"}, timeout=20)

    num_cut, (answer,) = run_until(app, 0.1, lambda: inside.num_inside == 1, [ask], leave=codes.append)
    assert (num_cut, told(answer)[0], inside.num_inside) == (1, 503, 1)
    assert codes == [3]
    door.event.set()
    until(lambda: inside.num_inside == 0)


def test_a_place_taken_before_it_closed_is_given_back(predictor: Predictor) -> None:
    inside = Service(predictor, ServeConfig())
    task = inside.enter()
    inside.close()
    with pytest.raises(Refusal, match="stopping") as caught:
        inside.submit(PredictRequest(path="a.mp4"), None, "", task)
    assert caught.value.status == 503


def asked_and_gone(client: TestClient, route: str, body: bytes, *, is_whole: bool = True) -> list[int]:
    """What a client that is gone once it has sent this body would have been answered."""
    statuses: list[int] = []
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": not is_whole}]

    async def receive() -> Any:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if "status" in message:
            statuses.append(message["status"])
        await asyncio.sleep(0)  # as where a client does not read

    kind = (b"content-type", b"application/json")
    scope = {"type": "http", "method": "POST", "path": route, "headers": [kind], "query_string": b""}
    assert client.portal is not None
    client.portal.call(client.app, scope, receive, send)
    return statuses


def test_a_client_gone_in_the_middle_of_the_body_is_no_failure_of_ours(client: TestClient) -> None:
    assert asked_and_gone(client, "/v1/predict", b"{", is_whole=False) == [499]
    assert service(client).num_inside == 0


def test_a_client_gone_before_the_first_line_leaves_its_place(serving: Any, videos: Path) -> None:
    client = serving(root=str(videos), workers=1)
    door = Door(service(client))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/predict", json={"path": "a.mp4"})
        until(lambda: service(client).num_inside == 1)
        asked_and_gone(client, "/v1/timeline", b'{"path": "a.mp4", "progress": true}')
        assert service(client).num_inside == 1
        door.event.set()
        assert first.result().status_code == 200


def test_a_timeline_whose_client_goes_counts_as_that(serving: Any, videos: Path) -> None:
    client = serving(root=str(videos))
    door = Door(service(client))
    assert asked_and_gone(client, "/v1/timeline", b'{"path": "a.mp4", "progress": true}') in ([200], [])
    door.event.set()
    counts = [line for line in client.get("/metrics").text.splitlines() if 'route="/v1/timeline"' in line]
    assert 'fewframes_requests_total{route="/v1/timeline",status="499"} 1.0' in counts
    assert not any('status="200"' in line for line in counts)


def test_nothing_is_left_open_or_on_the_disk(
    client: TestClient, tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    padded = (videos / "a.mp4").read_bytes() + (2_000_000).to_bytes(4, "big") + b"free" + bytes(2_000_000 - 8)

    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    send(client, "/v1/predict", padded)
    before = count()
    for content in (padded, padded[:10], b"no video" * 200_000):
        for route in VERBS:
            send(client, route, content)
    assert count() == before
    assert list(tmp_path.iterdir()) == []


def test_metrics_page_and_description(client: TestClient, videos: Path) -> None:
    def figure(name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    names = (
        'fewframes_requests_total{route="/v1/predict",status="200"}',
        'fewframes_videos_refused_total{status="422"}',
        "fewframes_frames_embedded_total",
        "fewframes_round_frames_count",
        'fewframes_request_seconds_count{route="/v1/predict"}',
    )
    before = [figure(name) for name in names]
    send(client, "/v1/predict", videos / "a.mp4")
    send(client, "/v1/predict", b"no video")
    assert [figure(name) - was for name, was in zip(names, before, strict=True)] == [1, 1, 4, 1, 2]
    assert figure("fewframes_requests_inside") == 0

    described = client.get("/openapi.json").json()["paths"]
    for route in VERBS:
        assert set(described[route]["post"]["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    assert "topk" in json.dumps(described["/v1/predict"])
    page = client.get("/")
    assert "<h1>" in page.text
    assert all(page.headers[name] == value for name, value in HEADERS.items())
    for text in (page.text, client.get("/page.js").text, client.get("/page.css").text):
        assert "://" not in text.replace("http://www.w3.org/2000/svg", "")  # nothing comes from elsewhere
