"""Clips that are cut out of a live source show what the source showed at those times, and nothing of them is decoded or encoded."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from fewframes.errors import VideoError
from fewframes.video.live import LiveReader
from fewframes.video.live_queue import WAITING, LiveEvent, LiveFrame
from fewframes.video.live_settings import StreamConfig
from fewframes.video.live_source import Readable, Recorded
from fewframes.video.recording.recorder import ClipRecording, Recorder
from helpers.live_server import server
from helpers.numbered import Numbered, drifting, numbers
from helpers.sounding import loudness, write_sounding

TS = Numbered(suffix=".ts", format="mpegts", gop=10, bframes=0)


def open_recorded(source: str | Readable, recorder: Recorder, config: StreamConfig) -> LiveReader:
    return LiveReader(Recorded(source, recorder), config, 0.1, lambda frame_CHW: frame_CHW)


def read(
    source: Path | Readable, recorder: Recorder, at_s: dict[float, Callable[[], None]] | None = None
) -> tuple[list[LiveEvent], list[LiveFrame]]:
    """Read a source to its end, and call each function once a frame of its time or later has come."""
    events, frames = [], []
    due = dict(at_s or {})
    given = str(source) if isinstance(source, Path) else source
    with closing(open_recorded(given, recorder, StreamConfig())) as reader:
        while (items := reader.take(WAITING, 0.05)) is not None:
            for item in items:
                if isinstance(item, LiveEvent):
                    events.append(item)
                else:
                    frames.append(item)
                    for time_s in [time_s for time_s in due if item.time_s >= time_s]:
                        due.pop(time_s)()
    assert not due
    return events, frames


def pictures(path: Path) -> dict[float, str]:
    """The hash of each decoded picture by its time, from the first one's on."""
    with av.open(str(path)) as container:
        found = [
            (frame.pts * float(frame.time_base), hashlib.sha256(frame.to_ndarray().tobytes()).hexdigest())
            for frame in container.decode(video=0)
            if frame.pts is not None and frame.time_base is not None
        ]
    first_s = found[0][0]
    return {round(time_s - first_s, 3): digest for time_s, digest in found}


def check_same(clip: ClipRecording, source: Path) -> dict[float, str]:
    """The clip shows, from its first picture to its last, each picture of the source at its time."""
    assert not clip.error
    own, there = pictures(clip.path), pictures(source)
    with av.open(str(clip.path)) as container:
        first = next(container.decode(video=0))
        assert first.pts == 0
        assert first.key_frame
    last_s = clip.start_s + max(own)
    assert {round(clip.start_s + time_s, 3): digest for time_s, digest in own.items()} == {
        time_s: digest for time_s, digest in there.items() if clip.start_s - 1e-6 <= time_s <= last_s + 1e-6
    }
    return own


@pytest.mark.parametrize(
    ("form", "suffix"),
    [
        (Numbered(bframes=0), ".mp4"),
        (Numbered(bframes=3, gop=12), ".mp4"),
        (Numbered(bframes=3, gop=12, options={"x264-params": "open-gop=1:b-adapt=0"}), ".mp4"),
        (TS, ".mp4"),
        (replace(TS, bframes=2), ".mp4"),
        (Numbered(suffix=".mkv", bframes=2), ".mp4"),
        (Numbered(suffix=".flv", bframes=2), ".mp4"),
        (Numbered(codec="libvpx", suffix=".webm"), ".mkv"),
        (Numbered(codec="mpeg4", suffix=".avi"), ".mp4"),
        (Numbered(codec="mjpeg", suffix=".avi", pix_fmt="yuvj420p"), ".mp4"),
        (Numbered(codec="libx265", bframes=2, options={"x265-params": "log-level=error"}), ".mp4"),
        (Numbered(times_ms=[0, 40, 300, 320, 360, 400, 640, 700, 900, 1100, 1400, 1440], gop=4), ".mp4"),
    ],
    ids=["mp4", "b-pictures", "open", "ts", "ts-b", "mkv", "flv", "vp8", "mpeg4-avi", "mjpeg", "hevc", "unsteady"],
)  # fmt: skip
def test_a_clip_shows_what_the_source_showed_at_its_times(tmp_path: Path, form: Numbered, suffix: str) -> None:
    source = form.write(tmp_path / "source")
    recorder = Recorder(keep_s=60)
    read(source, recorder)
    clip = recorder.cut(tmp_path / "clip", event_s=1.0, before_s=0.3, end_s=1.2)
    recorder.close()
    assert clip.is_done
    assert clip.path.suffix == suffix
    assert clip.start_s <= 0.7
    assert not clip.shortened
    own = check_same(clip, source)
    assert clip.num_pictures == len(own)
    assert 1.2 <= clip.start_s + max(own) + 0.0401 <= 1.7 + 0.04
    assert list(tmp_path.glob(".part-*")) == []


def test_overlapping_clips_are_cut_while_the_source_goes_on(tmp_path: Path) -> None:
    source = replace(TS, times_ms=range(0, 8000, 40), bframes=2).write(tmp_path / "source")
    recorder = Recorder(keep_s=3)
    done: list[ClipRecording] = []
    clips: list[ClipRecording] = []
    try:
        read(
            source,
            recorder,
            {
                2.0: lambda: clips.append(recorder.cut(tmp_path / "a", 2.0, 1.0, on_done=done.append)),
                3.0: lambda: clips.append(recorder.cut(tmp_path / "b", 2.5, 1.0, end_s=4.0, on_done=done.append)),
                6.0: lambda: recorder.set_end(clips[0], 6.5),
            },
        )
    finally:
        recorder.close()
    assert done == [clips[1], clips[0]]
    for clip, start_s, end_s in zip(clips, (1.0, 1.5), (6.5, 4.0), strict=True):
        own = check_same(clip, source)
        assert start_s - 0.4 <= clip.start_s <= start_s
        assert end_s - 0.04 <= clip.start_s + max(own) <= end_s + 0.2


def test_a_clip_that_never_ends_is_written_on_and_ends_at_its_limit(tmp_path: Path) -> None:
    source = replace(TS, times_ms=range(0, 9000, 40)).write(tmp_path / "source")
    recorder = Recorder(keep_s=1)
    clips: list[ClipRecording] = []
    read(source, recorder, {2.0: lambda: clips.append(recorder.cut(tmp_path / "long", 2.0, 0.5, most_s=5.0))})
    recorder.close()
    (clip,) = clips
    own = check_same(clip, source)
    assert clip.shortened == "longer than 5 s"
    assert 4.9 <= max(own) <= 5.04


def test_a_source_that_ends_shortens_its_clips(tmp_path: Path) -> None:
    source = TS.write(tmp_path / "source")
    recorder = Recorder(keep_s=60)
    read(source, recorder)
    clip = recorder.cut(tmp_path / "clip", 2.0, 1.0, end_s=7.0)
    recorder.close()
    assert clip.shortened == "the source ended there"
    assert max(check_same(clip, source)) + clip.start_s == pytest.approx(2.36)
    assert clip.end_s == pytest.approx(2.36)


class Joined:
    """Several files one after the other, as a pipe gives them."""

    def __init__(self, *paths: Path) -> None:
        self._content = b"".join(path.read_bytes() for path in paths)
        self.name = "joined"

    def read(self, size: int, /) -> bytes:
        piece, self._content = self._content[:size], self._content[size:]
        return piece


def check_frames(clip: ClipRecording, frames: list[LiveFrame]) -> None:
    """The clip shows at each timestamp of the reader's frames what they show."""
    assert not clip.error
    with av.open(str(clip.path)) as container:
        shown = [
            (clip.start_s + (frame.time or 0.0), frame.to_ndarray(format="rgb24"))
            for frame in container.decode(video=0)
        ]
    within = [frame for frame in frames if clip.start_s + 0.05 <= frame.time_s <= shown[-1][0]]
    assert len(within) >= 5
    for frame in within:
        picture_HWC = [picture_HWC for time_s, picture_HWC in shown if time_s <= frame.time_s + 1e-6][-1]
        assert numbers(picture_HWC.transpose(2, 0, 1)[None]) == numbers(frame.picture[None])


@pytest.mark.parametrize("bframes", [0, 2])
@pytest.mark.parametrize("width", [160, 320])
def test_another_clock_or_another_size_begins_a_new_ring(tmp_path: Path, bframes: int, width: int) -> None:
    first = replace(TS, times_ms=range(0, 2000, 40), bframes=bframes).write(tmp_path / "first")
    second = replace(TS, times_ms=range(0, 3000, 40), bframes=bframes, width=width).write(tmp_path / "second")
    recorder = Recorder(keep_s=60)
    events, frames = read(Joined(first, second), recorder)
    assert {"clock"} <= {event.kind for event in events}
    before = recorder.cut(tmp_path / "before", 1.5, 1.0, end_s=2.5)
    after = recorder.cut(tmp_path / "after", 2.5, 1.0, end_s=3.0)
    recorder.close()
    check_frames(before, [frame for frame in frames if frame.stretch == 0])
    assert before.shortened == "the source ended there"
    began_s = next(frame.time_s for frame in frames if frame.stretch == 1) - 0.05
    assert after.start_s == pytest.approx(
        began_s
    )  # the stream's clock goes on where the pictures of the first file end
    check_frames(after, [frame for frame in frames if frame.stretch == 1])
    with av.open(str(after.path)) as container:
        assert container.streams.video[0].width == width


@pytest.mark.parametrize(("codec", "suffix"), [("aac", ".mp4"), ("aac", ".ts"), ("libmp3lame", ".ts")])
def test_sound_is_kept_in_step(tmp_path: Path, codec: str, suffix: str) -> None:
    source = write_sounding(tmp_path / f"source{suffix}", codec, 44100)
    recorder = Recorder(keep_s=60)
    read(source, recorder)
    clip = recorder.cut(tmp_path / "clip", 2.0, 0.8, end_s=3.5)
    recorder.close()
    check_same(clip, source)
    levels = loudness(clip.path)
    assert clip.start_s == pytest.approx(1.2)
    assert levels[0.5] == pytest.approx(levels[1.5] / 2, rel=0.1)  # 1.7 s and 2.7 s of the source: one step and two


def test_sound_that_mp4_does_not_take_is_left_out_and_told(tmp_path: Path) -> None:
    source = write_sounding(tmp_path / "source.avi", "pcm_mulaw")
    notes: list[str] = []
    recorder = Recorder(keep_s=60, on_note=notes.append)
    read(source, recorder)
    clip = recorder.cut(tmp_path / "clip", 2.0, 0.8, end_s=3.5)
    recorder.close()
    check_same(clip, source)
    with av.open(str(clip.path)) as container:
        assert not container.streams.audio
    assert notes == ["clips are without sound: they cannot hold pcm_mulaw"]


def test_memory_is_bounded_by_seconds_and_by_bytes(tmp_path: Path) -> None:
    source = replace(TS, times_ms=range(0, 20_000, 40)).write(tmp_path / "source")
    held: list[int] = []
    recorder = Recorder(keep_s=2)
    read(source, recorder, {time_s: lambda: held.append(recorder.num_bytes) for time_s in np.arange(4, 19.0).tolist()})
    assert max(held) < 1.5 * min(held)
    assert max(held) < source.stat().st_size / 4
    notes: list[str] = []
    small = Recorder(keep_s=60, most_bytes=max(held), on_note=notes.append)
    read(source, small)
    assert small.num_bytes <= max(held)
    assert len(notes) == 1
    clip = small.cut(tmp_path / "clip", 10.0, 5.0, end_s=30.0)
    small.close()
    recorder.close()
    assert clip.start_s > 15  # begins later than asked for
    check_same(clip, source)


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (Numbered(suffix=".avi", bframes=2), "AVI does not say when B-pictures are shown"),
        (Numbered(suffix=".h264"), "its packets do not say when their pictures are shown"),
        (Numbered(codec="rawvideo", suffix=".avi"), "its pictures are not compressed"),
    ],
    ids=["avi", "raw", "uncompressed"],
)
def test_what_cannot_be_cut_is_refused_with_the_reason(tmp_path: Path, form: Numbered, reason: str) -> None:
    source = form.write(tmp_path / "source")
    notes: list[str] = []
    recorder = Recorder(keep_s=60, on_note=notes.append)
    with pytest.raises(VideoError, match="not open yet"):
        recorder.cut(tmp_path / "clip", 1.0)
    _, frames = read(source, recorder)
    assert len(frames) > 20  # the stream itself goes on
    with pytest.raises(VideoError, match=f"no clip of 1.00 s can be cut: {reason}"):
        recorder.cut(tmp_path / "clip", 1.0)
    recorder.close()
    assert recorder.num_bytes == 0
    (note,) = notes
    assert note.startswith(f"no clips can be cut: {reason}")


def test_a_folder_that_went_away_fails_the_clip_and_nothing_else(tmp_path: Path) -> None:
    source = TS.write(tmp_path / "source")
    recorder = Recorder(keep_s=60)
    read(source, recorder)
    lost = recorder.cut(tmp_path / "gone" / "clip", 1.0, end_s=1.5)
    kept = recorder.cut(tmp_path / "clip", 1.0, end_s=1.5)
    recorder.close()
    assert "cannot be written (No such file or directory)" in lost.error
    check_same(kept, source)


def test_numbers_of_a_clip_are_those_of_its_times(tmp_path: Path) -> None:
    source = Numbered(bframes=3).write(tmp_path / "source")
    recorder = Recorder(keep_s=60)
    read(source, recorder)
    clip = recorder.cut(tmp_path / "clip", 1.0, 0.0, end_s=1.4)
    recorder.close()
    with av.open(str(clip.path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    shown = numbers(np.stack(frames).transpose(0, 3, 1, 2))
    assert shown[0] == round(clip.start_s * 25)
    assert shown == list(range(shown[0], shown[0] + len(shown)))


def test_a_stream_that_is_opened_again_begins_a_new_ring(tmp_path: Path) -> None:
    first = replace(TS, times_ms=range(0, 4000, 40)).write(tmp_path / "first")
    content = first.read_bytes()
    second = replace(TS, times_ms=range(0, 4000, 40), bframes=2, width=320).write(tmp_path / "second").read_bytes()
    recorder = Recorder(keep_s=60)
    frames: list[LiveFrame] = []
    config = StreamConfig(stall_s=0.5, reconnects=2, drop="never")
    with (
        server([content[: len(content) // 2]], [second]) as url,
        closing(open_recorded(url, recorder, config)) as reader,
    ):
        while sum(frame.stretch for frame in frames) < 35:
            frames += [item for item in reader.take(WAITING, 0.05) or [] if isinstance(item, LiveFrame)]
    began_s = next(frame.time_s for frame in frames if frame.stretch == 1) - 0.05
    before = recorder.cut(tmp_path / "before", 1.5, 1.0, end_s=began_s)
    after = recorder.cut(tmp_path / "after", began_s + 1.0, 5.0, end_s=began_s + 2.0)
    recorder.close()
    check_frames(before, [frame for frame in frames if frame.stretch == 0])
    assert before.shortened == "the source ended there"
    assert after.start_s == pytest.approx(began_s)
    check_frames(after, [frame for frame in frames if frame.stretch == 1])


FULL_DISK = """
    import os, resource, signal, sys
    from pathlib import Path
    from fewframes.video.live import LiveReader
    from fewframes.video.live_settings import StreamConfig
    from fewframes.video.live_source import Recorded
    from fewframes.video.recording.recorder import Recorder
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    recorder = Recorder(keep_s=60)
    reader = LiveReader(Recorded(sys.argv[1], recorder), StreamConfig(), 0.1, lambda frame: frame)
    while reader.take(8, 0.05) is not None:
        pass
    done = []
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    for number in range(3):
        recorder.cut(Path(sys.argv[2]) / f"full{number}", 1.0, end_s=9.0, on_done=done.append)
    recorder.close()
    assert [bool(clip.error) for clip in done] == [True] * 3, [clip.error for clip in done]
    assert all("cannot be written" in clip.error for clip in done)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert os.listdir(sys.argv[2]) == []
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on the size of files")
def test_a_full_disk_fails_its_clips_and_nothing_else(tmp_path: Path) -> None:
    source = drifting(tmp_path / "source.mp4", "libx264", 300, gop=25, options={}, size=320)
    (tmp_path / "clips").mkdir()
    command = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(source), str(tmp_path / "clips")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
