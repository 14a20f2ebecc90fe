"""Names: a path that exists is that file, whatever it looks like; an address is one only where nothing has its name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from fewframes.cli.sources import expand
from fewframes.core.storage import as_path, is_address
from fewframes.errors import MissingVideo, VideoError
from fewframes.video.decode.opening import video_of
from fewframes.video.live_source import Address
from fewframes.video.source import open_video, read_frames
from helpers.numbered import Numbered, numbers, picture

NAMES = (
    "2021-11-30 08:15:00.mp4 cam0:door.mp4 file:inner.ts concat:inner.ts|inner.ts subfile,,start,0,end,0,,:inner.ts pipe:0 "
    "data:video/x async:inner.ts crypto:inner.ts -i.mp4 %05d.mp4 take[1].mp4 what?.mp4 all*.mp4 a|b.mp4 ~ C:\\clip.mp4"
).split(" ") + [" blank before.mp4", "two\nlines.mp4", os.fsdecode(b"caf\xe9.mp4"), "x" * 250 + ".mp4"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with a longer video that some names lead to when they are taken for addresses."""
    monkeypatch.chdir(tmp_path)
    Numbered(suffix=".ts", format="mpegts", times_ms=range(0, 1600, 40)).write(tmp_path / "inner")
    Numbered(times_ms=range(0, 400, 40)).write(tmp_path / "outer")
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_a_path_that_exists_is_a_path(here: Path, name: str) -> None:
    (here / name).parent.mkdir(exist_ok=True)
    (here / "outer.mp4").rename(here / name)
    with closing(open_video(name)) as video:
        assert video.duration_s == pytest.approx(0.4)
        assert numbers(video.frames_at(np.array([0.1, 0.3])).frames) == [2, 7]
    with Address.of(name).open(1.0) as container:
        stream = video_of(container)
        assert stream is not None
        assert stream.frames == 10
    assert list(expand([name])) == [name]


@pytest.mark.parametrize("name", ["shot_%d.png", "shot_*.png", "shot_?.png", "shot_{1,2}.png"])
def test_a_picture_named_as_a_pattern_is_that_picture(here: Path, name: str) -> None:
    for number, other in ((3, "shot_1.png"), (4, "shot_2.png"), (9, name)):
        Image.fromarray(picture(number)).save(here / other)
    assert numbers(read_frames(here / name, np.array([0.0])).frames) == [9]


def test_a_path_that_looks_like_an_address(here: Path) -> None:
    (here / "https:" / "bucket").mkdir(parents=True)
    (here / "outer.mp4").rename(here / "https:" / "bucket" / "v.mp4")
    name = "https://bucket/v.mp4"
    assert not is_address(name)
    with closing(open_video(name)) as video:
        assert video.duration_s == pytest.approx(0.4)
    assert is_address("https://bucket/other.mp4")
    assert is_address("simplecache::s3://bucket/other.mp4")
    assert not is_address(f"{here}/a://b.mp4")


def test_addresses_of_files_are_paths_with_their_signs_written_out(here: Path) -> None:
    (here / "outer.mp4").rename(here / "a b#1?.mp4")
    for address in (
        (here / "a b#1?.mp4").as_uri(),
        f"file://{here}/a b#1?.mp4",
        f"FILE://localhost{here}/a%20b%231%3f.mp4",
    ):
        assert as_path(address) == str(here / "a b#1?.mp4")
        assert list(expand([address])) == [str(here / "a b#1?.mp4")]
        with closing(open_video(address)) as video:
            assert video.duration_s == pytest.approx(0.4)
        Address.of(address).open(1.0).close()
    (here / "a%20b.mp4").touch()
    assert as_path(f"file://{here}/a%20b.mp4") == f"{here}/a%20b.mp4"


def test_an_address_begins_in_any_case(here: Path) -> None:
    fsspec.filesystem("memory").pipe("/shout.mp4", (here / "outer.mp4").read_bytes())
    with closing(open_video("MEMORY://shout.mp4")) as video:
        assert video.duration_s == pytest.approx(0.4)
    assert Address.of("RTSP://host/Stream").file == "rtsp://host/Stream"


def test_what_is_no_file_to_jump_in_is_not_waited_for(here: Path) -> None:
    os.mkfifo(here / "pipe.mp4")
    for path in (here / "pipe.mp4", Path(os.devnull)):
        with pytest.raises(
            VideoError, match="a pipe or device, in which one cannot go back; read it with `fewframes stream`"
        ):
            open_video(path)
    (here / "gone.mp4").symlink_to("nowhere.mp4")
    for name, words in (("~/a.mp4", "only the shell knows ~"), ("gone.mp4", "a link that leads nowhere")):
        with pytest.raises(MissingVideo, match=words):
            open_video(name)


# -- lists on standard input -----------------------------------------------------------------------------------------


def fewframes(*arguments: str, stdin: bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "fewframes.cli", *arguments]
    return subprocess.run(
        command, input=stdin, capture_output=True, env={**os.environ, **environment}, check=False, timeout=120
    )


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_video_piped_in_for_a_list_is_told_so(here: Path, locale: str) -> None:
    for content in ((here / "inner.ts").read_bytes(), b"\x1aE\xdf\xa3" + bytes(range(256)) * 600):
        done = fewframes("predict", "-", stdin=content, LC_ALL=locale)
        assert done.returncode == 1
        said = done.stderr.decode().splitlines()
        assert len(said) == 1
        assert said[0].startswith("error: standard input: not text but data (a video?), where a list of videos is read")


def test_a_list_piped_in_is_read_in_any_encoding(here: Path, tiny_model: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.mp4")
    (here / "outer.mp4").rename(here / odd)
    options = ("--json", "--model", str(tiny_model), "--device", "cpu", "--dtype", "float32")
    for content in (os.fsencode(odd) + b"\n", f"{here}/caf?.mp4\n".encode("utf-16"), "\ufeffcaf?.mp4".encode()):
        done = fewframes("predict", "-", *options, stdin=content, LC_ALL="C")
        assert done.returncode == 0, done.stderr
        assert Path(json.loads(done.stdout)["source"]).name == odd
    for content, words in ((b"caf\xe8.mp4", b"standard input: not UTF-8 text"), (b"", b"no videos were named")):
        done = fewframes("predict", "-", stdin=content)
        assert (done.returncode, words in done.stderr, done.stderr.count(b"\n")) == (1, True, 1), done.stderr


def test_names_in_lists_that_look_like_comments_or_hold_rare_line_ends(here: Path) -> None:
    names = ["#1.mp4", "a\u2028b.mp4", "c\x85d.mp4"]
    for name in names:
        (here / name).touch()
    (here / "LIST.TXT").write_text("# a comment\r\n" + "\r\n".join(names), encoding="utf-8")
    assert list(expand(["LIST.TXT"])) == names


@pytest.mark.parametrize("verb", ["predict", "stream"])
def test_a_closed_standard_input_is_told_so(verb: str) -> None:
    command = f"{sys.executable} -m fewframes.cli {verb} - <&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "standard input is closed" in done.stderr
    assert "Traceback" not in done.stderr
