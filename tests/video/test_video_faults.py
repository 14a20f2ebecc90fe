"""What cannot be read: a clear word, never a crash, a hang or a frame that was not decoded."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest

from fewframes.errors import MissingVideo, TooLarge, VideoError
from fewframes.sampling import centre_times
from fewframes.video.decode.container import NO_LIMITS, Limits
from fewframes.video.pictures.display import Pixels
from fewframes.video.source import open_video, read_frames
from helpers.numbered import Numbered, numbers
from helpers.videos import write_sound

AT_START = np.array([0.0])


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingVideo, match="no/such.mp4: no such file; check the path"):
        open_video("no/such.mp4")
    with pytest.raises(MissingVideo, match=r"memory://no/such\.mp4: there is no such file; check the address"):
        open_video("memory://no/such.mp4")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoError, match=r"empty\.mp4: the file is empty \(0 bytes\)"):
        open_video(tmp_path / "empty.mp4")


@pytest.mark.parametrize("name", ["notes.mp4", "notes.txt", "notes.avi", "notes.ans", "notes"])
def test_text_under_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("this is not a video\n" * 50)
    with pytest.raises(VideoError, match=r"not a video .*1000 bytes of text that begin b'this is not a vi'"):
        open_video(tmp_path / name)


def test_random_bytes(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(VideoError, match="not a video that FFmpeg can read .*5000 bytes of data"):
        open_video(tmp_path / "x.mp4")


@pytest.mark.parametrize("name", ["sound.mp4", "sound.wav"])
def test_sound_only(tmp_path: Path, name: str) -> None:
    with pytest.raises(VideoError, match=r"no video stream \(found: 1 audio stream\); pass a file with pictures"):
        open_video(write_sound(tmp_path / name))


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    with pytest.raises(
        VideoError, match="a folder with 1 video and no images in it; pass a video, or a folder of images"
    ):
        open_video(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes(b"x")
    (tmp_path / "secret.mp4").chmod(0)
    with pytest.raises(VideoError, match="no permission to read it"):
        open_video(tmp_path / "secret.mp4")


def test_no_permission_as_the_system_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: str) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os.path, "getsize", denied)
    with pytest.raises(VideoError, match="no permission to read it; check its owner and mode"):
        open_video(tmp_path / "secret.mp4")


def test_stream_without_pictures(tmp_path: Path) -> None:
    path = Numbered(suffix=".mkv", bframes=0).write(tmp_path / "whole")
    with av.open(str(path)) as source, av.open(str(tmp_path / "none.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        target.start_encoding()
        assert stream is not None
    with pytest.raises(VideoError, match=r"none\.mkv: (its video stream \(h264\) holds no picture|not a video)"):
        open_video(tmp_path / "none.mkv")


def test_limits(tmp_path: Path) -> None:
    path = Numbered().write(tmp_path / "video")
    with pytest.raises(TooLarge, match=r"frames of 160x64 px; the limit is 0.01 million pixels; scale the video down"):
        open_video(path, limits=Limits(max_pixels=10_000))
    with pytest.raises(TooLarge, match=r"2.4 s long; the limit is 2 s; cut it"):
        open_video(path, limits=Limits(max_s=2))
    raw = Numbered(suffix=".h264", format="h264").write(tmp_path / "raw")  # its header says nothing of its length
    with pytest.raises(TooLarge, match=r"2.4 s long; the limit is 2 s"):
        open_video(raw, limits=Limits(max_s=2))
    with closing(open_video(path, limits=Limits(max_pixels=160 * 64, max_s=2.4))) as video:
        assert numbers(video.frames_at(np.array([0.0, 1.0])).frames) == [0, 25]


def test_pictures_that_grow_midway_are_not_decoded(tmp_path: Path) -> None:
    """A header may lie: what follows it is no larger either."""
    small = Numbered(suffix=".h264", format="h264", times_ms=range(0, 400, 40)).write(tmp_path / "small")
    large = Numbered(suffix=".h264", format="h264", width=640, height=480, times_ms=range(0, 400, 40)).write(
        tmp_path / "large"
    )
    grows = tmp_path / "grows.h264"
    grows.write_bytes(small.read_bytes() + large.read_bytes())
    for limits, heights in ((NO_LIMITS, {64, 480}), (Limits(max_pixels=160 * 64), {64})):
        seen: set[int] = set()

        def small_part(frame_CHW: Pixels, seen: set[int] = seen) -> Pixels:
            seen.add(frame_CHW.shape[1])
            return frame_CHW[:, :64, :64]

        with closing(open_video(grows, limits=limits)) as video:
            video.frames_at(np.array([0.0, 0.6]), small_part)
        assert seen == heights


def test_a_playlist_that_was_sent_opens_nothing(tmp_path: Path) -> None:
    """FFmpeg would fetch what it names, out of the network in which this runs."""
    inner = Numbered(suffix=".ts").write(tmp_path / "inner")
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2.4,\n{inner.as_uri()}\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m3u8").write_text(text)
    with (
        (tmp_path / "list.m3u8").open("rb") as file,
        pytest.raises(VideoError, match=r"list\.m3u8: an HLS or M3U playlist"),
    ):
        open_video(file)


@pytest.mark.parametrize(
    "recipe",
    [
        Numbered(gop=6, mux_options={"movflags": "faststart"}),
        Numbered(suffix=".mkv", gop=6),
        Numbered(codec="mpeg4", suffix=".avi", gop=6),
        Numbered(codec="libvpx-vp9", suffix=".webm", options={"cpu-used": "8"}),
    ],
    ids=lambda recipe: recipe.suffix,
)
def test_truncated_file_says_so_and_its_sound_part_can_be_used(tmp_path: Path, recipe: Numbered) -> None:
    path = cut_between_packets(recipe.write(tmp_path / "whole"), keep=40)
    said = r"its pictures end at 1\.\d+ s of the [12]\.\d+ s it announces: cut short or damaged; .* an end of 1\.\d+ s"
    with pytest.raises(VideoError, match=said), closing(open_video(path)) as opened:
        opened.frames_at(centre_times(opened.duration_s, 16))
    if recipe.suffix in (".mp4", ".avi"):  # the others are refused when they are opened
        clip = read_frames(path, centre_times(1.5, 8))
        assert numbers(clip.frames) == [2, 7, 11, 16, 21, 25, 30, 35]


def cut_between_packets(path: Path, keep: int) -> Path:
    with av.open(str(path)) as container:
        positions = [packet.pos for packet in container.demux(video=0) if packet.size]
    cut = path.with_stem("cut")
    cut.write_bytes(path.read_bytes()[: positions[keep]])
    return cut


def test_an_avi_with_the_sizes_of_its_whole_is_cut_however_early(tmp_path: Path) -> None:
    """One key frame only: FFmpeg then believes what is there to be all."""
    path = Numbered(codec="mpeg4", suffix=".avi", gop=600, times_ms=range(0, 4000, 40)).write(tmp_path / "v")
    content = path.read_bytes()
    for fraction in (0.5, 0.65):
        path.write_bytes(content[: int(fraction * len(content))])
        with closing(open_video(path)) as video:
            assert video.duration_s == pytest.approx(4, abs=0.05)
        with pytest.raises(VideoError, match="cut short|damaged"):
            read_frames(path, centre_times(4, 16))


def test_truncated_header(tmp_path: Path) -> None:
    content = Numbered().write(tmp_path / "whole").read_bytes()  # its index stands at the end
    (tmp_path / "half.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(
        VideoError, match=r"an MP4 without its index \(no moov box in \d+ bytes\): the recording was never"
    ):
        open_video(tmp_path / "half.mp4")


def test_damage_is_refused_where_it_is_and_harmless_elsewhere(tmp_path: Path) -> None:
    path = Numbered(gop=10, bframes=0, mux_options={"movflags": "faststart"}).write(tmp_path / "video")
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    position, size = packets[23]
    assert position is not None
    content[position + 6 : position + size] = b"\xff" * (size - 6)
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"the picture at \d\.\d\d s is damaged"):
        read_frames(path, np.array([0.0, 27 * 0.04]))
    times_s = np.array([0.2, 0.75, 1.3, 2.2])
    assert numbers(read_frames(path, times_s).frames) == [5, 18, 32, 55]


FUZZ = """
import sys
sys.path.insert(0, sys.argv[5])
import numpy as np
from contextlib import closing
from pathlib import Path
from fewframes.errors import VideoError
from fewframes.sampling import centre_times
from fewframes.video.source import open_video
from helpers.numbered import numbers

originals = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
suffixes = [path.suffix for path in sorted(Path(sys.argv[1]).iterdir())]
work = Path(sys.argv[2])
rng = np.random.default_rng(int(sys.argv[3]))
read = refused = 0
for round in range(int(sys.argv[4])):
    which = round % len(originals)
    content = bytearray(originals[which])
    if round % 3:
        for position in rng.integers(0, len(content), rng.integers(1, 30)):
            content[position] ^= 1 << rng.integers(8)
    else:
        content = content[: rng.integers(1, len(content))]
    path = work / f"fuzzed{suffixes[which]}"
    path.write_bytes(content)
    try:
        with closing(open_video(path)) as video:
            clip = video.frames_at(centre_times(video.duration_s, 8))
        assert clip.frames.shape[0] == 8 and clip.frames.shape[1] == 3
        ordered = (np.diff(clip.times_s) >= 0).all() and clip.times_s[-1] <= clip.duration_s
        assert ordered, (path.suffix, clip.times_s.tolist(), clip.duration_s)
        if round % 3 == 0:  # only cut: what comes back must be the very frames of the times it comes with
            expected = (clip.times_s / 0.04).round().astype(int).tolist()
            try:
                found = numbers(clip.frames)
            except AssertionError as error:
                found = [str(error)]
            assert found == expected, (path.suffix, len(content), found, clip.times_s.tolist())
        read += 1
    except VideoError as error:
        assert str(path) in str(error) and "\\n" not in str(error), error
        refused += 1
print(read, refused)
"""


def fuzz(tmp_path: Path, rounds: int, seed: int) -> tuple[int, int]:
    (tmp_path / "originals").mkdir()
    (tmp_path / "work").mkdir()
    for name, recipe in {
        "a": Numbered(bframes=2),
        "b": Numbered(suffix=".mkv", bframes=2),
        "c": Numbered(codec="mpeg4", suffix=".avi", bframes=2),
        "d": Numbered(codec="libvpx-vp9", suffix=".webm", options={"cpu-used": "8"}),
        "e": Numbered(suffix=".ts"),
        "f": Numbered(codec="libx265", options={"x265-params": "log-level=none"}),
        "g": Numbered(codec="gif", suffix=".gif", pix_fmt="rgb8"),
        "h": Numbered(codec="mjpeg", suffix=".mov", pix_fmt="yuvj420p"),
        "i": Numbered(codec="libsvtav1", options={"preset": "12"}),
        "j": Numbered(codec="mpeg2video", suffix=".mpg", bframes=2),
    }.items():
        recipe.write(tmp_path / "originals" / name)
    run = subprocess.run(  # a crash of the decoder must not take the tests with it
        [sys.executable, "-c", FUZZ]
        + [str(tmp_path / "originals"), str(tmp_path / "work"), str(seed), str(rounds), str(Path(__file__).parents[1])],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    read, refused = map(int, run.stdout.split())
    assert read + refused == rounds
    return read, refused


def test_a_thousand_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    read, refused = fuzz(tmp_path, 1000, seed=0)
    assert min(read, refused) > 50


@pytest.mark.parametrize("threads", [1, 2])
def test_a_decoder_that_cannot_be_opened_is_told(threads: int, tmp_path: Path) -> None:
    """PyAV 19 ends the process where such a decoder is asked for its name."""
    path = Numbered(codec="libx265", options={"x265-params": "log-level=none"}).write(tmp_path / "file")
    content = path.read_bytes()
    start = content.index(b"hvcC") + 27  # the parameter sets begin behind the record's fixed part
    path.write_bytes(content[:start] + b"\xff" * 60 + content[start + 60 :])
    with pytest.raises(VideoError, match=r"its video stream \(hevc\) holds no picture that can be decoded"):
        open_video(path, threads=threads)
