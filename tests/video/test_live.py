"""A live source: what is shown at steady times, and every fault survived and reported."""

from __future__ import annotations

import gc
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from av.container import InputContainer

from fewframes.errors import MissingVideo, VideoError
from fewframes.sampling import steady_times
from fewframes.video.live import LiveReader
from fewframes.video.live_queue import WAITING, LiveCounts, LiveEvent, LiveFrame, LiveQueue
from fewframes.video.live_settings import StreamConfig
from fewframes.video.live_source import Address, LiveSource
from fewframes.video.source import read_frames
from helpers.live_server import server
from helpers.numbered import Numbered, drifting, numbers

INTERVAL_S = 0.1
TS = Numbered(suffix=".ts", format="mpegts", gop=10, bframes=0)
QUIET = StreamConfig(stall_s=0.4, reconnects=2)


def open_live(source: LiveSource, config: StreamConfig) -> LiveReader:
    return LiveReader(source, config, INTERVAL_S, lambda frame_CHW: frame_CHW)


def collect(reader: LiveReader, samples: list[LiveFrame], events: list[LiveEvent]) -> None:
    while (items := reader.take(WAITING, 0.05)) is not None:
        samples += [item for item in items if isinstance(item, LiveFrame)]
        events += [item for item in items if isinstance(item, LiveEvent)]


def read_all(source: LiveSource, config: StreamConfig = QUIET) -> tuple[list[LiveFrame], list[LiveEvent], LiveReader]:
    samples: list[LiveFrame] = []
    events: list[LiveEvent] = []
    with closing(open_live(source, config)) as reader:
        collect(reader, samples, events)
    return samples, events, reader


def shown(samples: list[LiveFrame]) -> list[int]:
    return [numbers(sample.picture[None])[0] for sample in samples]


class Trickle:
    """Bytes in pieces, some after a pause; no seeking, as of a pipe."""

    def __init__(self, *pieces: bytes | float) -> None:
        self._pieces = list(pieces)
        self.name = "trickle"

    def read(self, size: int, /) -> bytes:
        while self._pieces and isinstance(self._pieces[0], float):
            time.sleep(float(self._pieces.pop(0)))
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        assert isinstance(piece, bytes)
        if len(piece) > size:
            self._pieces.insert(0, piece[size:])
        return piece[:size]


@pytest.mark.parametrize(
    "form",
    [Numbered(), TS, Numbered(bframes=2, gop=25), Numbered(times_ms=[0, 40, 300, 320, 360, 900, 1400, 1440])],
    ids=["mp4", "ts", "b-pictures", "unsteady"],
)
def test_times_show_what_a_file_shows_there(tmp_path: Path, form: Numbered) -> None:
    path = form.write(tmp_path / "video")
    samples, events, reader = read_all(str(path))
    times_s = steady_times(0.0, 10.0, INTERVAL_S)[: len(samples)]
    assert [sample.time_s for sample in samples] == pytest.approx(times_s.tolist(), abs=1e-9)
    assert shown(samples) == numbers(read_frames(path, times_s).frames)
    assert [event.kind for event in events] == ["end"]
    assert reader.counts == LiveCounts(pictures=len(form.times_ms))
    assert len(samples) >= (form.times_ms[-1] - 50) // 100


def test_what_is_shown_twice_is_one_picture(tmp_path: Path) -> None:
    samples, _, _ = read_all(str(Numbered(times_ms=[0, 400, 440]).write(tmp_path / "slow")))
    assert [sample.picture is samples[0].picture for sample in samples[:4]] == [True] * 4


def test_a_pipe_reads_as_its_file(tmp_path: Path) -> None:
    path = TS.write(tmp_path / "video")
    samples, _, reader = read_all(Trickle(path.read_bytes()))
    assert shown(samples) == shown(read_all(str(path))[0])
    assert not reader.is_live
    assert not reader.can_return


def test_a_file_played_live_takes_its_time_and_drops_when_nobody_looks(tmp_path: Path) -> None:
    path = replace(TS, times_ms=range(0, 1600, 40)).write(tmp_path / "video")
    began = time.monotonic()
    samples, _, reader = read_all(str(path), replace(QUIET, live=True))
    assert 1.4 < time.monotonic() - began < 4
    assert reader.counts.dropped == 0
    assert len(samples) == 16
    kept: list[LiveFrame] = []
    with closing(open_live(str(path), replace(QUIET, live=True))) as reader:
        reader._thread.join()
        collect(reader, kept, [])
    assert [sample.index for sample in kept] == list(range(8, 16))  # the newest
    assert reader.counts.dropped == 8


def test_a_cut_file_ends_with_a_word_about_it(tmp_path: Path) -> None:
    whole = Numbered(mux_options={"movflags": "faststart"}).write(tmp_path / "whole").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    samples, events, _ = read_all(str(path))
    assert len(samples) > 5
    assert events[-1].kind == "cut"
    assert "of the 2.40 s it announces" in events[-1].words


def test_garbage_is_passed_over(tmp_path: Path) -> None:
    content = bytearray(TS.write(tmp_path / "video").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = np.random.default_rng(0).bytes(4000)
    samples, events, reader = read_all(Trickle(bytes(content)))
    assert {"damaged"} <= {event.kind for event in events} <= {"damaged", "end", "clock"}
    assert reader.counts.bad_packets > 0
    assert shown(samples)[-1] == 58  # of the last timestamp: it goes on to the end
    assert len(samples) >= 20


def test_another_size_is_reported_and_a_clock_that_begins_again_too(tmp_path: Path) -> None:
    first = TS.write(tmp_path / "first").read_bytes()
    second = replace(TS, width=320, height=96).write(tmp_path / "second").read_bytes()
    samples, events, _ = read_all(Trickle(first + second))
    kinds = [event.kind for event in events]
    assert kinds.count("size") == 1
    assert kinds.count("clock") == 1
    assert "320x96 px now, not 160x64" in next(event.words for event in events if event.kind == "size")
    assert {sample.stretch for sample in samples} == {0, 1}
    assert samples[-1].picture.shape == (3, 96, 320)
    assert samples[-1].time_s == pytest.approx(4.7, abs=0.3)  # time goes on, whatever the clock says


def test_a_jump_ahead_begins_anew_and_fills_no_hole(tmp_path: Path) -> None:
    times_ms = [*range(0, 1000, 40), *range(100_000, 101_000, 40)]
    samples, events, _ = read_all(str(Numbered(times_ms=times_ms).write(tmp_path / "jump")))
    assert "jumped by +99.04 s" in next(event.words for event in events if event.kind == "clock")
    assert len(samples) == 20
    assert [sample.index for sample in samples] == [*range(10), *range(10)]


def test_a_stall_is_said_and_waited_for(tmp_path: Path) -> None:
    content = TS.write(tmp_path / "video").read_bytes()
    half = len(content) // 2
    samples, events, _ = read_all(Trickle(content[:half], 1.2, content[half:]))
    assert [event.kind for event in events] == ["stall", "end"]
    assert len(samples) == 24


def test_a_network_stream_that_breaks_off_is_opened_again(tmp_path: Path) -> None:
    content = TS.write(tmp_path / "video").read_bytes()
    samples: list[LiveFrame] = []
    events: list[LiveEvent] = []
    with server([content[: len(content) // 2]], [content]) as url, closing(open_live(url, QUIET)) as reader:
        assert reader.is_live
        with pytest.raises(VideoError, match=r"live.ts: it broke off .*2 tries to open it again brought no picture"):
            collect(reader, samples, events)
    assert [event.kind for event in events] == ["cut", "reconnected", "cut", "away"]
    assert reader.counts.reconnects == 1
    assert {sample.stretch for sample in samples} == {0, 1}
    second = [sample for sample in samples if sample.stretch == 1]
    assert second[0].time_s > samples[0].time_s + 1.0  # the stream's clock counts the time it was away


def test_a_connection_that_breaks_off_leaves_no_decoder_behind(tmp_path: Path) -> None:
    body: list[bytes | float] = [TS.write(tmp_path / "video").read_bytes()]
    gc.collect()
    before = num_containers()
    gc.disable()  # a live stream makes few objects of Python's, so that it seldom collects
    try:
        with server(body, body, body, body) as url, closing(open_live(url, QUIET)) as reader:
            while reader.counts.reconnects < 3:
                reader.take(WAITING, 0.05)
            most = num_containers()
    finally:
        gc.enable()
    assert most - before <= 1


def num_containers() -> int:
    return sum(type(found) is InputContainer for found in gc.get_objects())


def test_a_network_stream_that_falls_silent_is_opened_again(tmp_path: Path) -> None:
    content = TS.write(tmp_path / "video").read_bytes()
    kinds: list[str] = []
    config = replace(QUIET, reconnects=1)
    with server([content, 3.0], [content]) as url, closing(open_live(url, config)) as reader:
        while "reconnected" not in kinds:
            kinds += [item.kind for item in reader.take(WAITING, 0.05) or [] if isinstance(item, LiveEvent)]
    assert kinds == ["stall", "reconnected"]


def sample(index: int, arrived: float) -> LiveFrame:
    return LiveFrame(index * INTERVAL_S, 0, index, np.zeros(1, np.uint8), arrived)


def test_a_full_mailbox_drops_the_oldest_and_no_event() -> None:
    counts = LiveCounts()
    box = LiveQueue(counts, drops=True)
    box.put(LiveEvent("size", 0.0, "first"))
    for index in range(WAITING + 3):
        box.put(sample(index, 0.0))
    items = box.take(100, 0.0)
    assert isinstance(items[0], LiveEvent)
    assert [item.index for item in items[1:] if isinstance(item, LiveFrame)] == list(range(3, WAITING + 3))
    assert counts.dropped == 3


def test_late_samples_are_dropped_but_never_the_newest() -> None:
    counts = LiveCounts()
    box = LiveQueue(counts, drops=True)
    for index, arrived in enumerate((1.0, 2.0, 3.0)):
        box.put(sample(index, arrived))
    assert [item.index for item in box.take(1, 0.0, not_before=9.0) if isinstance(item, LiveFrame)] == [2]
    assert counts.dropped == 2


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingVideo, match="nowhere.mp4: no such file"):
        read_all(str(tmp_path / "nowhere.mp4"))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match="text.mp4: cannot be opened as a stream"):
        read_all(str(tmp_path / "text.mp4"))
    with pytest.raises(VideoError, match="http://127.0.0.1:9/: cannot be opened as a stream"):
        read_all("http://127.0.0.1:9/")


def test_passwords_are_not_shown() -> None:
    address = Address.of("rtsp://admin:secret@camera.local:554/main")
    assert address.name == "rtsp://***@camera.local:554/main"
    assert address.file == "rtsp://admin:secret@camera.local:554/main"
    assert address.options == {"rtsp_transport": "tcp"}


@pytest.mark.parametrize(
    ("platform", "text", "file", "form"),
    [
        ("linux", "camera", "/dev/video0", "v4l2"),
        ("linux", "/dev/video3", "/dev/video3", "v4l2"),
        ("darwin", "camera:1", "1", "avfoundation"),
        ("win32", "camera:HD Webcam", "video=HD Webcam", "dshow"),
    ],
)
def test_cameras_have_each_systems_names(
    monkeypatch: pytest.MonkeyPatch, platform: str, text: str, file: str, form: str
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    address = Address.of(text)
    assert (address.kind, address.file, address.format) == ("camera", file, form)


def test_a_pipe_that_cannot_be_read_front_to_back_says_what_can(tmp_path: Path) -> None:
    content = drifting(tmp_path / "index-at-the-end.mp4", "libx264", 30, gop=10, options={}).read_bytes()
    with pytest.raises(
        VideoError, match=r"trickle: .*a pipe needs MPEG-TS, Matroska, or MP4 with its index at the front"
    ):
        read_all(Trickle(content))


def test_a_reader_that_is_closed_drops_nothing() -> None:
    counts = LiveCounts()
    box = LiveQueue(counts)
    for index in range(WAITING):
        box.put(LiveFrame(float(index), 0, index, np.empty(0, np.uint8), 0.0))
    box.close()
    box.put(LiveFrame(99.0, 0, 99, np.empty(0, np.uint8), 0.0))
    taken = [item for item in box.take(WAITING + 1, 0.0) if isinstance(item, LiveFrame)]
    assert [sample.index for sample in taken] == list(range(WAITING))
    assert counts.dropped == 0


def test_a_file_by_its_url_is_a_file(tmp_path: Path) -> None:
    path = Numbered().write(tmp_path / "a b")
    samples, events, reader = read_all(path.as_uri())
    assert [event.kind for event in events] == ["end"]
    assert not reader.can_return
    assert shown(samples) == shown(read_all(path)[0])


def test_a_matroska_file_that_starts_late_is_whole(tmp_path: Path) -> None:
    path = Numbered(suffix=".mkv", bframes=0, times_ms=tuple(5000 + 40 * index for index in range(50))).write(
        tmp_path / "late"
    )
    assert [event.kind for event in read_all(path)[1]] == ["end"]


def test_an_address_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"rtsp://\[foo/x: no address that can be read"):
        Address.of("rtsp://[foo/x")
