"""Video in: exact frames from every codec and container, right colours, and a clear word for what cannot be read."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from fewframes.sampling import centre_times
from fewframes.video.decode.container import VideoFile
from fewframes.video.decode.decoder import FileVideo
from fewframes.video.source import open_video, read_frames
from helpers.numbered import Numbered, numbers

STEADY = tuple(range(0, 2400, 40))
UNEVEN = tuple(int(time) for time in np.cumsum([0, *np.random.default_rng(0).choice([20, 40, 100, 400], 59)]))

OPEN_GOP = "keyint=12:min-keyint=12:bframes=3:b-adapt=0:open-gop=1"
X265_QUIET = "log-level=none:keyint=12:min-keyint=12:bframes=3"

CORPUS = {
    "h264-bframes-mp4": Numbered(bframes=3),
    "h264-bframes-mkv": Numbered(suffix=".mkv", bframes=3),
    "h264-bframes-mov": Numbered(suffix=".mov", bframes=3),
    "h264-bframes-flv": Numbered(suffix=".flv", bframes=3),
    "h264-bframes-avi": Numbered(suffix=".avi", bframes=3),
    "h264-ts": Numbered(suffix=".ts", bframes=3),
    "h264-raw": Numbered(suffix=".h264", bframes=0),
    "h264-open-gop": Numbered(bframes=3, options={"x264-params": OPEN_GOP}),
    "h264-one-gop": Numbered(bframes=3, gop=1000),
    "h264-intra": Numbered(gop=1),
    "h264-uneven": Numbered(bframes=3, times_ms=UNEVEN),
    "h264-uneven-mkv": Numbered(suffix=".mkv", bframes=3, times_ms=UNEVEN),
    "h264-late-start": Numbered(bframes=2, times_ms=tuple(time + 5000 for time in STEADY)),
    "h264-late-start-mkv": Numbered(suffix=".mkv", bframes=2, times_ms=tuple(time + 5000 for time in STEADY)),
    "h264-fragmented": Numbered(bframes=2, mux_options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
    "h264-no-duration": Numbered(suffix=".mkv", bframes=2, mux_options={"live": "1"}),
    "hevc-open-gop": Numbered(codec="libx265", options={"x265-params": f"{X265_QUIET}:open-gop=1"}),
    "hevc-closed-gop": Numbered(codec="libx265", options={"x265-params": f"{X265_QUIET}:open-gop=0"}),
    "hevc-uneven": Numbered(codec="libx265", options={"x265-params": X265_QUIET}, times_ms=UNEVEN),
    "vp8-webm": Numbered(codec="libvpx", suffix=".webm"),
    "vp9-webm": Numbered(codec="libvpx-vp9", suffix=".webm", options={"cpu-used": "8", "deadline": "realtime"}),
    "vp9-alt-ref": Numbered(codec="libvpx-vp9", suffix=".webm", options={"lag-in-frames": "16", "auto-alt-ref": "1"}),
    "vp9-uneven": Numbered(codec="libvpx-vp9", suffix=".webm", options={"cpu-used": "8"}, times_ms=UNEVEN),
    "av1-mp4": Numbered(codec="libsvtav1", options={"preset": "12", "svtav1-params": "lookahead=8"}),
    "av1-webm": Numbered(codec="libsvtav1", suffix=".webm", options={"preset": "12"}),
    "mpeg4-avi": Numbered(codec="mpeg4", suffix=".avi", bframes=0),
    "mpeg4-bframes-avi": Numbered(codec="mpeg4", suffix=".avi", bframes=2),
    "mpeg4-bframes-mp4": Numbered(codec="mpeg4", bframes=2),
    "mpeg2-ts": Numbered(codec="mpeg2video", suffix=".ts", bframes=2),
    "mpeg2-ps": Numbered(codec="mpeg2video", suffix=".mpg", bframes=2),
    "mjpeg-avi": Numbered(codec="mjpeg", suffix=".avi", pix_fmt="yuvj420p"),
    "mjpeg-mov": Numbered(codec="mjpeg", suffix=".mov", pix_fmt="yuvj420p"),
    "ffv1-mkv": Numbered(codec="ffv1", suffix=".mkv"),
    "prores-mov": Numbered(codec="prores_ks", suffix=".mov", pix_fmt="yuv422p10le"),
    "gif": Numbered(codec="gif", suffix=".gif", pix_fmt="rgb8"),
    "gif-uneven": Numbered(codec="gif", suffix=".gif", pix_fmt="rgb8", times_ms=UNEVEN),
}  # fmt: skip


@pytest.fixture(params=CORPUS, scope="module")
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Numbered, Path]:
    recipe = CORPUS[request.param]
    return recipe, recipe.write(tmp_path_factory.mktemp("corpus") / request.param)


def shown_at(recipe: Numbered, times_s: NDArray[np.float64]) -> list[int]:
    """Which frame is shown at each time, from the times that were written."""
    starts_s = (np.array(recipe.times_ms) - recipe.times_ms[0]) / 1000
    return (np.searchsorted(starts_s, times_s + 1e-4, side="right") - 1).clip(min=0).tolist()


def test_frames_are_exactly_those_shown(written: tuple[Numbered, Path]) -> None:
    recipe, path = written
    with closing(open_video(str(path))) as video:
        last_s = (recipe.times_ms[-1] - recipe.times_ms[0]) / 1000
        assert last_s < video.duration_s < last_s + 0.45
        for num_frames in (1, 3, 16, 64):
            times_s = centre_times(video.duration_s, num_frames)
            clip = video.frames_at(times_s)
            assert numbers(clip.frames) == shown_at(recipe, times_s)


def test_true_times_come_back(written: tuple[Numbered, Path]) -> None:
    recipe, path = written
    clip = read_frames(path, np.array([0.0, 0.5, 1.0, 1.7]))
    true_s = [(recipe.times_ms[number] - recipe.times_ms[0]) / 1000 for number in numbers(clip.frames)]
    assert clip.times_s.tolist() == pytest.approx(true_s, abs=0.0055)  # GIF counts in hundredths


def test_any_order_of_times(written: tuple[Numbered, Path]) -> None:
    recipe, path = written
    times_s = np.random.default_rng(1).uniform(0, 2.3, 24)
    assert numbers(read_frames(path, times_s).frames) == shown_at(recipe, times_s)
    with closing(open_video(str(path))) as video:
        one_by_one = [numbers(video.frames_at(times_s[index : index + 1]).frames)[0] for index in range(len(times_s))]
    assert one_by_one == shown_at(recipe, times_s)


@pytest.mark.parametrize("kind", ["h264-bframes-mkv", "vp9-webm"])
def test_of_a_matroska_file_only_the_packets_after_the_last_key_frame_are_listed(kind: str, tmp_path: Path) -> None:
    path = CORPUS[kind].write(tmp_path / "file")
    file = VideoFile(str(path), kind, path.stat().st_size)
    opened = file.open()
    with closing(opened.container):
        every = file._listing(opened, 0.0)
    opened = file.open()
    with closing(opened.container):
        keys_s, last = file._after_last_key(opened, 0.0, None)
    assert last is not None
    assert keys_s == pytest.approx(every.keys_s)
    assert last.end_s == every.end_s
    assert 0 < last.num_packets < every.num_packets / 2


def test_a_matroska_file_without_a_list_has_all_its_key_frames_found(tmp_path: Path) -> None:
    path = Numbered(suffix=".mkv", codec="mjpeg", pix_fmt="yuvj420p", mux_options={"live": "1"}).write(
        tmp_path / "file"
    )
    with closing(open_video(str(path))) as video:
        assert isinstance(video, FileVideo)
        keys_s = video._index.key_times_s
    assert keys_s is not None
    assert len(keys_s) == len(STEADY)


def test_a_subtitle_that_outlasts_the_pictures_cuts_nothing(tmp_path: Path) -> None:
    plain = Numbered(suffix=".mkv", bframes=0, gop=6).write(tmp_path / "plain")
    path, words = tmp_path / "subtitled.mkv", tmp_path / "words.srt"
    words.write_text("1\n00:00:00,040 --> 00:00:09,000\na long line\n")
    with av.open(str(plain)) as source, av.open(str(words)) as said, av.open(str(path), "w") as target:
        read = [(said, said.streams[0]), (source, source.streams.video[0])]
        for opened, one, copied in [(opened, one, target.add_stream_from_template(one)) for opened, one in read]:
            for packet in opened.demux(one):
                if packet.dts is not None:
                    packet.stream = copied
                    target.mux(packet)
    with closing(open_video(str(path))) as video:
        assert video.duration_s == pytest.approx(duration_of(plain), abs=0.05)


def duration_of(path: Path) -> float:
    with closing(open_video(str(path))) as video:
        return video.duration_s
