"""Faults of real servers on loopback: each is survived or ends with a reason, and is told and counted."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fewframes.errors import AccessDenied, VideoError
from fewframes.video.live import MOST_DENIED, LiveReader
from fewframes.video.live_queue import WAITING, LiveEvent, LiveFrame
from fewframes.video.live_settings import StreamConfig
from fewframes.video.live_source import LiveSource
from helpers.live_server import server
from helpers.numbered import Numbered, numbers
from helpers.rtsp_server import has_rtsp_server, rtsp_server
from helpers.videos import write_sound

INTERVAL_S = 0.1
LIMIT_S = 60.0
TS = Numbered(suffix=".ts", format="mpegts", gop=10, bframes=0)
QUIET = StreamConfig(stall_s=1.0, reconnects=3)
needs_rtsp = pytest.mark.skipif(not has_rtsp_server(), reason="no RTSP server: GStreamer's is not installed")


class Seen:
    """What a reader gives, until a condition holds."""

    def __init__(self, source: LiveSource, config: StreamConfig = QUIET, *, waits: bool = True) -> None:
        self.reader = LiveReader(source, config, INTERVAL_S, lambda frame_CHW: frame_CHW, waits=waits)
        self.frames: list[LiveFrame] = []
        self.events: list[LiveEvent] = []

    def until(self, condition: Callable[[Seen], bool]) -> None:
        """Read until that, for at most a generous time."""
        end = time.monotonic() + LIMIT_S
        while not condition(self):
            assert time.monotonic() < end, (len(self.frames), self.events)
            items = self.reader.take(WAITING, 0.05)
            assert items is not None, self.events
            self.frames += [item for item in items if isinstance(item, LiveFrame)]
            self.events += [item for item in items if isinstance(item, LiveEvent)]

    def to_the_end(self) -> None:
        """Read to the end, or to the error that ends the reading."""
        while (items := self.reader.take(WAITING, 0.05)) is not None:
            self.frames += [item for item in items if isinstance(item, LiveFrame)]
            self.events += [item for item in items if isinstance(item, LiveEvent)]

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def close(self) -> None:
        self.reader.close()


@contextmanager
def refusing(status: int, location: str = "") -> Iterator[tuple[str, list[str]]]:
    """An HTTP server that answers everything with a status, and notes what was asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{served.server_port}", asked
    finally:
        served.shutdown()
        served.server_close()


def jumping(tmp_path: Path, *starts_s: float, width: int = 160) -> bytes:
    """Transport streams of 2.4 s each, one behind the other, whose clocks begin at these times."""
    parts = []
    for number, start_s in enumerate(starts_s):
        times_ms = range(round(1000 * start_s), round(1000 * start_s) + 2400, 40)
        parts.append(replace(TS, times_ms=times_ms, width=width).write(tmp_path / f"part{number}").read_bytes())
    return b"".join(parts)


@needs_rtsp
def test_an_rtsp_server_that_dies_and_comes_back_is_read_again() -> None:
    config = replace(QUIET, reconnects=None)
    with ExitStack() as stack:
        with rtsp_server() as port:
            seen = stack.enter_context(closing(Seen(f"rtsp://127.0.0.1:{port}/live", config)))
            seen.until(lambda seen: len(seen.frames) >= 5)
        seen.until(lambda seen: "away" in seen.kinds)  # the server was killed
        with rtsp_server(port=port):
            seen.until(lambda seen: seen.reader.counts.reconnects == 1 and seen.frames[-1].stretch == 1)
    assert {"cut", "stall"} & set(seen.kinds)
    assert seen.kinds.count("reconnected") == 1
    assert seen.kinds.count("away") <= 2  # each reason once, and not once a try
    before, after = ([frame for frame in seen.frames if frame.stretch == number] for number in (0, 1))
    assert after[0].index < 5  # windows begin anew
    assert after[0].time_s > before[-1].time_s


@needs_rtsp
@pytest.mark.parametrize(
    ("user", "words"), [("me:se%40cret@", "refuses the user"), ("", "wants a user and a password")]
)
def test_a_wrong_password_is_named_and_not_tried_for_ever(user: str, words: str) -> None:
    with rtsp_server(user="me", password="right") as port:
        url = f"rtsp://{user}127.0.0.1:{port}/live"
        with pytest.raises(AccessDenied, match=words) as refused:
            Seen(url)
        with closing(Seen(url, replace(QUIET, reconnects=None), waits=False)) as seen:
            with pytest.raises(AccessDenied, match=words):
                seen.to_the_end()
            assert seen.kinds == ["away"]  # told once, and then given up
        with closing(Seen(f"rtsp://me:right@127.0.0.1:{port}/live")) as good:
            good.until(lambda seen: bool(seen.frames))
    assert "se" + "%40cret" not in str(refused.value)
    assert "401" in str(refused.value)


@pytest.mark.parametrize(
    ("status", "error"), [(401, AccessDenied), (403, AccessDenied), (404, VideoError), (500, VideoError)]
)
def test_an_http_server_that_refuses_is_named(status: int, error: type[VideoError]) -> None:
    with refusing(status) as (place, asked):
        with pytest.raises(error, match="5XX" if status == 500 else str(status)) as refused:
            Seen(f"http://me:secret@{place}/live.ts")
        assert "secret" not in str(refused.value)
        asked.clear()
        limited = replace(QUIET, reconnects=None if status in (401, 403) else 1)
        with closing(Seen(f"http://me:secret@{place}/live.ts", limited, waits=False)) as seen:
            with pytest.raises(error):
                seen.to_the_end()
            assert seen.kinds == ["away"]
        assert len(asked) <= 2 * MOST_DENIED  # FFmpeg may ask without the password first


def test_a_redirect_is_followed(tmp_path: Path) -> None:
    content = TS.write(tmp_path / "video").read_bytes()
    with (
        server([content]) as url,
        refusing(302, url) as (place, _),
        closing(Seen(f"http://{place}/moved")) as seen,
    ):
        seen.until(lambda seen: len(seen.frames) >= 10)


@pytest.mark.parametrize(
    "starts_s", [(0.0, 3600.0), (4000.0, 400.0), (4000.0, 3990.0)], ids=["ahead", "back", "a little back"]
)
def test_a_clock_that_jumps_in_a_live_stream_mixes_no_windows(tmp_path: Path, starts_s: tuple[float, float]) -> None:
    content = jumping(tmp_path, *starts_s)
    config = replace(QUIET, drop="never")  # the server sends all at once
    with server([content]) as url, closing(Seen(url, config)) as seen:
        seen.until(lambda seen: bool(seen.frames) and seen.frames[-1].stretch == 1 and seen.frames[-1].index >= 15)
    assert seen.kinds.count("clock") == 1
    first, second = ([frame for frame in seen.frames if frame.stretch == number] for number in (0, 1))
    for part in (first, second):
        shown = numbers(np.stack([frame.picture for frame in part]))
        assert shown == sorted(shown)
        indices = [frame.index for frame in part]
        assert indices == sorted(set(indices))
    assert second[0].time_s - first[-1].time_s < 2.0  # the stream's own time goes on, whatever the clock says


def test_a_live_stream_of_another_size_goes_on(tmp_path: Path) -> None:
    content = jumping(tmp_path, 0.0) + jumping(tmp_path, 2.4, width=320)
    with server([content]) as url, closing(Seen(url)) as seen:
        seen.until(lambda seen: bool(seen.frames) and seen.frames[-1].picture.shape[-1] == 320)
    assert seen.kinds.count("size") == 1


def test_garbage_and_lost_packets_in_a_live_stream_are_passed_over(tmp_path: Path) -> None:
    content = bytearray(jumping(tmp_path, 0.0))
    noise = np.random.default_rng(0)
    middle = len(content) // 2 // 188 * 188
    lost = content[:middle] + noise.bytes(3000) + content[middle + 10 * 188 :]
    with server([bytes(lost)]) as url, closing(Seen(url)) as seen:
        seen.until(lambda seen: "cut" in seen.kinds)
    assert "damaged" in seen.kinds
    assert seen.reader.counts.bad_packets > 0
    assert numbers(seen.frames[-1].picture[None])[0] >= 55


def test_nothing_but_garbage_is_no_stream() -> None:
    noise = np.random.default_rng(0).bytes(200_000)
    with server([noise]) as url, pytest.raises(VideoError, match="cannot be opened as a stream"):
        Seen(url)


def test_a_server_that_accepts_and_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = replace(QUIET, open_s=1.0)
        with pytest.raises(VideoError, match="not open after"):
            Seen(f"http://127.0.0.1:{silent.getsockname()[1]}/live.ts", config)


def test_a_stream_that_falls_silent_is_told_and_goes_on(tmp_path: Path) -> None:
    content = jumping(tmp_path, 0.0)
    with server([content, LIMIT_S / 10], [content]) as url, closing(Seen(url)) as seen:
        seen.until(lambda seen: "reconnected" in seen.kinds and seen.frames[-1].stretch == 1)
    assert seen.kinds[:2] == ["stall", "reconnected"]


def test_pictures_whose_clock_stands_still_are_told(tmp_path: Path) -> None:
    content, late = (
        jumping(tmp_path, 0.0),
        replace(TS, times_ms=range(1600, 2360, 40)).write(tmp_path / "late").read_bytes(),
    )
    config = replace(QUIET, stall_s=0.4, reconnects=0)
    pieces: list[bytes | float] = [content]
    for _ in range(10):
        pieces += [late, 0.2]
    with server(pieces) as url, closing(Seen(url, config)) as seen:
        seen.until(lambda seen: "stall" in seen.kinds)
    assert seen.kinds.count("stall") == 1
    assert "pictures come, but their times do not go on" in seen.events[-1].words
    assert seen.reader.counts.left_out > 10


def test_sound_alone_an_empty_file_and_one_picture(tmp_path: Path) -> None:
    sound, empty = tmp_path / "sound.mp4", tmp_path / "empty.ts"
    write_sound(sound)
    empty.touch()
    with pytest.raises(VideoError, match="no video stream"):
        Seen(str(sound))
    with pytest.raises(VideoError, match="empty"):
        Seen(str(empty))
    one = replace(TS, times_ms=[0]).write(tmp_path / "one")
    with closing(Seen(str(one))) as seen:
        seen.to_the_end()
    assert seen.kinds == ["end"]
    assert seen.reader.counts.pictures == 1


def test_a_stream_that_is_joined_long_before_a_key_frame_waits_for_it(tmp_path: Path) -> None:
    content = (
        replace(TS, gop=50, options={"sc_threshold": "0"}, times_ms=range(0, 6000, 40))
        .write(tmp_path / "video")
        .read_bytes()
    )
    joined = content[len(content) // 8 // 188 * 188 :]
    with server([joined]) as url, closing(Seen(url)) as seen:
        seen.until(lambda seen: "cut" in seen.kinds)
    shown = numbers(np.stack([frame.picture for frame in seen.frames]))
    assert min(shown) >= 50  # nothing grey before the next key frame
    assert max(shown) >= 145
