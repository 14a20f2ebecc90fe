"""Read the body of a request: what is asked, and the uploaded video."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any, NamedTuple

from starlette.datastructures import FormData, QueryParams, UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from fewframes.core.settings import settings_from
from fewframes.errors import Refusal
from fewframes.serve.config import SearchRequest, VideoRequest
from fewframes.serve.fetch import too_large
from fewframes.serve.tasks import gone

FORM_BYTES = 2**16
"""The most bytes of a form beside the video, and of a JSON body."""
MOST_FIELDS = 16
"""The most fields of a form."""
GRACE_S = 10.0
"""Seconds that a body may stand still, and before its rate counts."""
LEAST_BYTES_S = 1000
"""Bytes per second at which a body must come on the whole: a slow telephone's rate, so that slow bodies cannot clog the server."""


Asked = VideoRequest | SearchRequest


class RequestBody(NamedTuple):
    """The content of a request's body."""

    request: Asked
    upload: UploadFile | None


def read_query(request: Request, kind: type[SearchRequest]) -> RequestBody:
    """Read the query of an address. Raises ConfigError if a field is unknown or has a wrong value."""
    return RequestBody(_request_of(kind, _plain(kind, request.query_params), is_upload=False), None)


async def read_request(request: Request, kind: type[Asked], max_bytes: int) -> RequestBody:
    """Read the body of an HTTP request: a form or JSON.

    An upload of more than a megabyte goes into a file without a name, so nothing can be left behind.

    Args:
        request: The HTTP request.
        kind: The kind of request that the route takes.
        max_bytes: The largest video.

    Raises:
        Refusal: The body is too large, too slow, broken off, or not readable.
        ConfigError: A field is unknown or has a wrong value.
    """
    form = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if form not in ("multipart/form-data", "application/json"):
        raise Refusal(415, f"Content-Type {form!r}: send multipart/form-data with a 'file', or application/json")
    most = FORM_BYTES + (max_bytes if form == "multipart/form-data" else 0)
    limited = Request(request.scope, _limited(request, most, max_bytes))
    try:
        return await (_read_json if form == "application/json" else _read_form)(limited, kind)
    except ClientDisconnect:
        raise gone() from None
    except RecursionError:
        raise Refusal(400, "the body is nested too deeply; fields are numbers, words, true or false") from None


async def _read_json(request: Request, kind: type[Asked]) -> RequestBody:
    """Read a body of JSON."""
    try:
        values = json.loads(await request.body())
    except ValueError as error:
        raise Refusal(400, f"the body is not JSON ({error})") from None
    if not isinstance(values, dict):
        raise Refusal(400, f"the body is JSON of type {type(values).__name__}; send an object")
    return RequestBody(_request_of(kind, values, is_upload=False), None)


async def _read_form(request: Request, kind: type[Asked]) -> RequestBody:
    """Read a body that is a form, with or without an uploaded file."""
    try:
        values = await request.form(max_files=1, max_fields=MOST_FIELDS)
    except ValueError as error:  # a charset that Python knows, but not for text
        raise Refusal(400, f"the form cannot be read ({error})") from None
    file = values.get("file")
    upload = file if isinstance(file, UploadFile) else None
    try:
        return RequestBody(_request_of(kind, _plain(kind, values), is_upload=upload is not None), upload)
    except BaseException:
        await values.close()
        raise


def _request_of(kind: type[Asked], values: Mapping[str, Any], *, is_upload: bool) -> Asked:
    """Return the request of these fields. Raises ConfigError for a wrong field, and Refusal unless it names one video."""
    request: Asked = settings_from(kind, values, "request")  # type: ignore[type-var]
    if isinstance(request, SearchRequest):
        if is_upload:
            raise Refusal(422, "request: a search takes no file; name a video of the server by its path")
        return request
    if is_upload + (request.url is not None) + (request.path is not None) != 1:
        raise Refusal(422, "request: needs one video: a 'file' in a form, or a 'url', or a 'path'")
    return request


def _plain(kind: type[Asked], form: FormData | QueryParams) -> dict[str, Any]:
    """Return the fields of a form as JSON has them: numbers and truth values where the request has such fields."""
    texts = {field.name for field in fields(kind) if "str" in str(field.type)}  # type: ignore[arg-type]
    found: dict[str, Any] = {}
    for name, value in form.items():
        if isinstance(value, UploadFile):
            if name != "file":
                raise Refusal(422, f"request: a file under the name {name!r}; send it as 'file'")
            continue
        found[name] = value
        if name not in texts:
            with suppress(ValueError):
                found[name] = json.loads(value)
    return found


def _limited(request: Request, most: int, max_bytes: int) -> Receive:
    """Return a `receive` of the body that raises Refusal if it is too large, too slow or stands still.

    Args:
        request: The HTTP request.
        most: The most bytes of the body.
        max_bytes: The largest video, named in the refusal.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise too_large("upload", max_bytes)
    began, num_bytes = time.monotonic(), 0

    async def receive() -> Message:
        nonlocal num_bytes
        left_s = began + GRACE_S + num_bytes / LEAST_BYTES_S - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, min(GRACE_S, left_s))):
                message = await request.receive()
        except TimeoutError:
            raise Refusal(
                408,
                f"{num_bytes} bytes of the body came in {time.monotonic() - began:.0f} s; it must come at {LEAST_BYTES_S} bytes a "
                f"second or more, and never stand still for {GRACE_S:g} s",
            ) from None
        num_bytes += len(message.get("body", b""))
        if num_bytes > most:
            raise too_large("upload", max_bytes)
        return message

    return receive
