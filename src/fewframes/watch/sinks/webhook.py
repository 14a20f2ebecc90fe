"""Post events to a webhook, signed as the Standard Webhooks specification has it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urlsplit

from fewframes.core.text import json_line, plain
from fewframes.core.version import __version__
from fewframes.errors import ConfigError
from fewframes.watch.event import STATES, Event
from fewframes.watch.settings import WebhookSettings
from fewframes.watch.sinks.protocol import DeliveryError, secret_of

SECRET, TOKEN = "FEWFRAMES_WEBHOOK_SECRET", "FEWFRAMES_WEBHOOK_TOKEN"
"""The environment variables with the secret that signs messages, and with a bearer token."""
ENCODED = "whsec_"
"""The beginning of a secret that is encoded in base64."""
AGAIN = frozenset({408, 425, 429})
"""The statuses below 500 after which a message is sent again."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A handler that follows no redirect: a message goes where the user said, or nowhere."""

    def redirect_request(self, *_: object) -> None:
        return None


class WebhookSink:
    """A webhook. Each message has the id of its event and its state, so that a receiver can tell one that is sent again."""

    def __init__(self, settings: WebhookSettings, name: str) -> None:
        """Prepare the webhook.

        Args:
            settings: The address, and where the secrets are.
            name: The name of the sink.

        Raises:
            ConfigError: The address is none, or a secret cannot be read.
        """
        self.name, self.states = name, STATES
        self._url, self._timeout_s = settings.url, settings.timeout_s
        parts = split_url(settings.url, ("http", "https"), "webhook")
        if parts.username or parts.password:
            raise ConfigError(f"webhook: put no password into the address; set {TOKEN}, or name a token_file")
        self._where = f"{parts.scheme}://{parts.netloc}"  # the path is often the secret
        self._secret = key_of(secret_of(settings.secret_file, SECRET))
        token = secret_of(settings.token_file, TOKEN)
        self._headers = {
            "Content-Type": "application/json",
            "User-Agent": f"fewframes/{__version__}",
            **({"Authorization": f"Bearer {token}"} if token else {}),
        }
        self._opener = urllib.request.build_opener(_NoRedirects)

    def send(self, event: Event) -> None:
        """Post an event. Raises DeliveryError; another attempt makes sense unless the answer says that the message is wrong."""
        body = json_line(event.to_dict()).encode()
        headers = {**self._headers, **signed(event.key, int(time.time()), body, self._secret)}
        request = urllib.request.Request(self._url, body, headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._timeout_s):
                return
        except urllib.error.HTTPError as error:
            with error:
                raise self._failure(error.code, error.headers.get("Retry-After")) from None
        except urllib.error.URLError as error:
            raise DeliveryError(f"{self._where}: cannot be reached ({plain(error.reason)})") from None
        except TimeoutError:
            raise DeliveryError(f"{self._where}: no answer within {self._timeout_s:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise DeliveryError(
                f"{self._where}: the answer broke off ({plain(error) or type(error).__name__})"
            ) from None

    def _failure(self, status: int, retry_after: str | None) -> DeliveryError:
        words = f"{self._where}: answered {status} {http.client.responses.get(status, '')}".rstrip()
        if status >= 500 or status in AGAIN:
            return DeliveryError(words, after_s=seconds_of(retry_after))
        if status < 400:
            return DeliveryError(f"{words}; redirects are not followed, set the final address", is_final=True)
        return DeliveryError(f"{words}; the message is not sent again", is_final=True)

    def close(self) -> None:
        """Do nothing: there is a connection for each message."""


def split_url(url: str, schemes: tuple[str, ...], what: str) -> SplitResult:
    """Return the parts of an address. Raises ConfigError, without the address, if it has no host or another scheme."""
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in schemes and bool(parts.hostname) and (parts.port or 1) > 0 and url.isprintable()
    except ValueError:
        is_right = False
    if not is_right or " " in url:
        example = f"{schemes[0]}://host" + ("/path" if what == "webhook" else "")
        raise ConfigError(
            f"{what}: not an address; it must begin with {schemes[0]}:// or {schemes[1]}://, as {example}"
        )
    return parts


def key_of(secret: str) -> bytes:
    """Return the bytes of a secret. One that begins with `whsec_` is encoded in base64. Raises ConfigError if it is not."""
    if not secret.startswith(ENCODED):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(ENCODED), validate=True)
    except binascii.Error:
        raise ConfigError(f"webhook: the secret begins with {ENCODED}, but the rest is not base64") from None


def signed(key: str, timestamp: int, body: bytes, secret: bytes) -> Mapping[str, str]:
    """Return the headers with the key of a message, its time and its signature.

    Args:
        key: The same text whenever the message is sent.
        timestamp: The time of sending, in seconds since 1970.
        body: The message.
        secret: The secret; empty signs nothing.
    """
    content = f"{key}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.new(secret, content, hashlib.sha256).digest()).decode()
    return {
        "Idempotency-Key": key,
        "webhook-id": key,
        "webhook-timestamp": str(timestamp),
        **({"webhook-signature": f"v1,{signature}"} if secret else {}),
    }


def seconds_of(retry_after: str | None) -> float:
    """Return the seconds that a `Retry-After` header asks for, which may hold a date; 0 if it is missing or unreadable."""
    if retry_after is None:
        return 0.0
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
