"""Who may ask from a browser: this server's own pages, under its own names; programs, which say nothing of it, always."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.served import told

OTHERS: tuple[dict[str, str], ...] = (
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://testserver:81"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://testserver"},
)
OWN: tuple[dict[str, str], ...] = (
    {},
    {"Origin": "http://testserver"},
    {"Origin": "HTTP://TestServer"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://a.name.before.the.proxy"},
    {"Sec-Fetch-Site": "none"},
)


def test_pages_of_other_servers_are_refused(serving: Any, videos: Path) -> None:
    for client in (serving(root=str(videos)), serving(root=str(videos), token="secret")):
        shown = {"Authorization": "Bearer secret"}
        for headers in OTHERS:
            assert told(client.post("/v1/predict", json={"path": "a.mp4"}, headers=shown | headers))[0] == 403, headers
            for route in ("/", "/page.js", "/v1/about", "/healthz", "/readyz", "/metrics"):  # links; probes
                found = client.get(route, headers=shown | headers)
                assert found.status_code == 200, (route, headers)
                assert "Access-Control-Allow-Origin" not in found.headers
        for headers in OWN:
            assert client.post("/v1/predict", json={"path": "a.mp4"}, headers=shown | headers).status_code == 200, (
                headers
            )


def test_who_is_behind_a_proxy_is_told_what_was_compared(client: Any) -> None:
    headers = {"Origin": "http://films.example", "Host": "127.0.0.1:8000"}
    status, words = told(client.post("/v1/predict", json={"path": "a.mp4"}, headers=headers))
    assert status == 403
    assert "'http://films.example': pages of other servers may not ask here, and Host is '127.0.0.1:8000'; " in words
    assert words.endswith("a proxy before it must pass on Host as it came")


def test_names_that_came_to_stand_for_this_machine_are_refused(serving: Any, videos: Path) -> None:
    client = serving(root=str(videos), names=("localhost", "127.0.0.1", "::1"))
    for host in (
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil",
        "[::1",
        "me@evil",
        "x:1:2",
        "evil.example.",
        "localhost..",
    ):
        for answer in (
            client.post("/v1/predict", json={"path": "a.mp4"}, headers={"Host": host, "Origin": f"http://{host}"}),
            client.get("/", headers={"Host": host}),
            client.get("/metrics", headers={"Host": host}),
        ):
            status, words = told(answer)
            assert (status, "answers as localhost, 127.0.0.1, [::1] only" in words) == (421, True), host
        assert client.get("/healthz", headers={"Host": host}).status_code == 200
    for host in ("127.0.0.1:8000", "localhost", "LOCALHOST:8000", "localhost.", "localhost.:8000", "[::1]:8000"):
        found = client.post("/v1/predict", json={"path": "a.mp4"}, headers={"Host": host, "Origin": f"http://{host}"})
        assert found.status_code == 200, host
        assert client.get("/metrics", headers={"Host": host}).status_code == 200
