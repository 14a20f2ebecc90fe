"""What tests of the server's rooms ask it, and hear."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from fewframes.serve.service import Service


def service(client: TestClient) -> Service:
    found: Service = client.app.state.service  # type: ignore[attr-defined]
    return found


def send(client: TestClient, route: str, file: bytes | Path, **fields: object) -> Any:
    content = file if isinstance(file, bytes) else file.read_bytes()
    return client.post(
        route, files={"file": ("sent.mp4", content)}, data={key: str(value) for key, value in fields.items()}
    )


def told(answer: Any) -> tuple[int, str]:
    values = answer.json()
    assert values["status"] == answer.status_code
    assert "\n" not in values["error"]
    return answer.status_code, values["error"]


def until(holds: Any) -> None:
    ends = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.01)
