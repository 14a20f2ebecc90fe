"""A webhook gets each event signed, again where that makes sense, and no secret is ever told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from fewframes.errors import ConfigError
from fewframes.watch.event import Event
from fewframes.watch.settings import WebhookSettings
from fewframes.watch.sinks.protocol import DeliveryError
from fewframes.watch.sinks.webhook import SECRET, TOKEN, WebhookSink, seconds_of
from helpers.receivers import cut, free_port, webhook

EVENT = Event(id="f00d", source="Tür", label="fall", confidence=0.9, start_s=1.0, started_at="2026-11-29T12:00:00.000Z")


def failure_of(sink: WebhookSink) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        sink.send(EVENT)
    assert "secret" not in str(caught.value)
    return caught.value


def test_a_message_is_json_with_a_key_and_a_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET, "whsec_" + base64.b64encode(b"a key of bytes").decode())
    monkeypatch.setenv(TOKEN, "my-token")
    with webhook() as receiver:
        WebhookSink(WebhookSettings(url=receiver.url), "webhook").send(EVENT)
    ((headers, body),) = receiver.requests
    assert json.loads(body) == EVENT.to_dict()
    assert headers["content-type"] == "application/json"
    assert headers["authorization"] == "Bearer my-token"
    assert headers["idempotency-key"] == headers["webhook-id"] == "f00d-started"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    # The content that is signed, as the Standard Webhooks specification has it: id.timestamp.body
    content = f"f00d-started.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(b"a key of bytes", content, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


def test_without_a_secret_nothing_is_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SECRET, raising=False)
    with webhook() as receiver:
        WebhookSink(WebhookSettings(url=receiver.url), "webhook").send(EVENT)
    assert "webhook-signature" not in receiver.requests[0][0]


@pytest.mark.parametrize(
    ("status", "is_final"),
    [(500, False), (503, False), (429, False), (408, False), (400, True), (401, True), (404, True), (410, True)],
)
def test_what_makes_sense_again_is_tried_again(status: int, is_final: bool) -> None:
    with webhook(status) as receiver:
        error = failure_of(WebhookSink(WebhookSettings(url=receiver.url), "webhook"))
    assert error.is_final is is_final
    assert f"answered {status}" in str(error)


def test_a_receiver_says_when_to_try_again() -> None:
    with webhook((429, {"Retry-After": "17"})) as receiver:
        assert failure_of(WebhookSink(WebhookSettings(url=receiver.url), "webhook")).after_s == 17
    assert seconds_of(format_datetime(datetime.now(UTC) + timedelta(seconds=60))) == pytest.approx(59.5, abs=1)
    assert seconds_of(format_datetime(datetime.now(UTC) - timedelta(seconds=60))) == 0
    assert [seconds_of(text) for text in (None, "", "soon", "-5", "²")] == [0] * 5


def test_redirects_are_not_followed() -> None:
    with webhook() as other, webhook((307, {"Location": other.url}), (302, {"Location": other.url})) as receiver:
        sink = WebhookSink(WebhookSettings(url=receiver.url), "webhook")
        for _ in range(2):
            error = failure_of(sink)
            assert error.is_final
            assert "redirects are not followed" in str(error)
    assert other.requests == []


def test_a_slow_a_cut_and_a_missing_receiver_are_tried_again() -> None:
    with webhook(lambda _: time.sleep(2.0), cut) as receiver:
        sink = WebhookSink(WebhookSettings(url=receiver.url, timeout_s=0.3), "webhook")
        slow, broken = failure_of(sink), failure_of(sink)
        sink.send(EVENT)
    assert "no answer within 0.3 s" in str(slow)
    assert "broke off" in str(broken)
    nobody = failure_of(WebhookSink(WebhookSettings(url=f"http://127.0.0.1:{free_port()}/secret"), "webhook"))
    assert "cannot be reached" in str(nobody)
    assert [each.is_final for each in (slow, broken, nobody)] == [False] * 3


@pytest.mark.parametrize(
    "url", ["ftp://host/secret", "host/secret", "http://", "http://:80/secret", "http://h:x/secret", "http://h/se cret"]
)
def test_what_is_no_address_is_an_error_without_it(url: str) -> None:
    with pytest.raises(ConfigError, match="must begin with http://") as caught:
        WebhookSink(WebhookSettings(url=url), "webhook")
    assert "secret" not in str(caught.value)


def test_secrets_are_read_from_files_and_never_told(tmp_path: Path) -> None:
    file = tmp_path / "key"
    for content, words in ((b"two\nlines", "one line"), (b"", "is empty"), (b"\xff", "not UTF-8"), (b"whsec_%%", "64")):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=words) as caught:
            WebhookSink(WebhookSettings(url="http://h", secret_file=str(file)), "webhook")
        assert "two" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        WebhookSink(WebhookSettings(url="http://h", token_file=str(tmp_path / "none")), "webhook")
    with pytest.raises(ConfigError, match="no password into the address") as caught:
        WebhookSink(WebhookSettings(url="http://me:hush@h/"), "webhook")
    assert "hush" not in str(caught.value)
