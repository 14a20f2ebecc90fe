"""A search sees each video once, by one rule for links and endings, and says what it left out."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fewframes.cli.options import named_videos
from fewframes.cli.sources import expand
from fewframes.data.folders import IgnoredFile, counted_reasons, find_videos, looks_like_video, search


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(root: Path) -> list[str]:
    return [Path(path).relative_to(root).as_posix() for path in find_videos(root)]


def reasons(root: Path) -> dict[str, str]:
    return {Path(left.path).relative_to(root).as_posix(): left.reason for left in search(root).left_out}


@pytest.mark.parametrize(
    "ending", [".3g2", ".DIVX", ".qt", ".F4V", ".m2v", ".dv", ".rmvb", ".wtv", ".y4m", ".m1v", ".mpe"]
)
def test_endings_of_videos(tmp_path: Path, ending: str) -> None:
    assert found(touch(tmp_path, f"clip{ending}")) == [f"clip{ending}"]


@pytest.mark.parametrize(
    ("name", "start", "is_video"),
    [
        ("download", b"\0\0\0\x20ftypisom", True),
        ("clip.bin", b"\x1aE\xdf\xa3....", True),
        ("clip.xyz", b"RIFF\0\0\0\0AVI LIST", True),
        ("tv.dat", (b"G" + bytes(187)) * 3, True),
        ("a.ogg", b"OggS....\x80theora", True),
        ("a.ogg", b"OggS....vorbis", False),
        ("a.webp", b"RIFF\0\0\0\0WEBPVP8X\0\0\0\0\x02", True),
        ("a.webp", b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\x02", False),
        ("song", b"\0\0\0\x20ftypM4A ", False),
        ("notes", b"some text", False),
        ("nothing", b"", False),
    ],
)
def test_what_no_ending_tells_is_told_by_content(tmp_path: Path, name: str, start: bytes, is_video: bool) -> None:
    (tmp_path / name).write_bytes(start)
    (tmp_path / "other.mp4").touch()
    assert (name in found(tmp_path)) == is_video
    if not is_video:
        assert reasons(tmp_path)[name] in ("no video by its content", "image")


def test_real_files_without_an_ending(video: Path, tmp_path: Path) -> None:
    (tmp_path / "take one").write_bytes(video.read_bytes())
    assert found(tmp_path) == ["take one"]
    assert looks_like_video(video.read_bytes()[:400])


@pytest.fixture(scope="module")
def video(videos: Path) -> Path:
    return Path(find_videos(videos)[0])


def test_links_are_followed_and_each_file_is_taken_once(tmp_path: Path) -> None:
    touch(tmp_path, "away/x.mp4", "away/y.mp4", "r/a.mp4", "r/sub/b.mp4")
    root = tmp_path / "r"
    (root / "camera").symlink_to(tmp_path / "away")
    (root / "same camera").symlink_to(tmp_path / "away")
    (root / "sub" / "up").symlink_to("..")
    (root / "sub" / "here").symlink_to(".")
    (root / "to a.mp4").symlink_to("a.mp4")
    (root / "gone.mp4").symlink_to("nowhere.mp4")
    (root / "self.mp4").symlink_to("self.mp4")
    os.link(root / "sub" / "b.mp4", root / "sub" / "c.mp4")
    assert len(found(root)) == 4
    told = reasons(root)
    assert told["sub/up"] == told["sub/here"] == "link to a folder above"
    assert told["gone.mp4"] == told["self.mp4"] == "link to nothing"
    assert told["to a.mp4"] == told["sub/c.mp4"] == "the same file again"
    assert list(told.values()).count("the same file again") == 3


def test_folders_of_images(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "one/1.png",
        "one/2.png",
        "one/thumbs/1.png",
        "one/thumbs/2.png",
        "two/a.mp4",
        "two/1.jpg",
        "two/2.jpg",
        "cover.jpg",
    )
    assert found(tmp_path) == ["one", "two/a.mp4"]
    assert set(reasons(tmp_path)) == {"one/thumbs/1.png", "one/thumbs/2.png", "two/1.jpg", "two/2.jpg", "cover.jpg"}


def test_images_of_the_video_beside_them(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a/1.jpg", "a/2.jpg", "thumbs/1.jpg", "thumbs/2.jpg", "b/1.jpg", "b/2.jpg")
    assert found(tmp_path) == ["a.mp4", "b"]
    assert reasons(tmp_path) == dict.fromkeys(["a", "thumbs"], "images of the video beside them")
    touch(tmp_path / "frames", "thumbs/1.jpg", "thumbs/2.jpg")
    assert found(tmp_path / "frames") == ["thumbs"]


def test_very_deep_trees(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1100):  # deeper than Python's stack
        os.mkdir("d", dir_fd=here)
        deeper = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(os.open("z.mp4", os.O_CREAT, dir_fd=here))
    os.close(here)
    try:
        assert [Path(path).name for path in find_videos(tmp_path)] == ["z.mp4"]
    finally:  # pytest's own removal recurses
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def test_what_was_left_out_is_a_line(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.txt", "c.TXT", "d.json", ".hidden/x.mp4", ".DS_Store", "._a.mp4", "e.zip")
    (tmp_path / "empty").mkdir()
    said: list[str] = []
    assert list(expand([str(tmp_path)], note=said.append)) == [str(tmp_path / "a.mp4")]
    assert said[0].startswith(
        f"{tmp_path}: 1 video; left out: 1 hidden, 3 no video by its ending (.txt 2, .json 1), 1 archive"
    )
    assert "1 empty folder" in said[0]
    assert counted_reasons([]) == ""
    assert IgnoredFile("x", "hidden").is_harmless
    assert not IgnoredFile("x", "link to nothing").is_harmless


def test_videos_named_again_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = touch(tmp_path, "a.mp4", "sub/b.mp4")
    named = [str(root / "sub" / "b.mp4"), str(root), f"{root}/./a.mp4", "gone.mp4"]
    found = named_videos(named)
    assert found == [named[0], str(root / "a.mp4"), str(root / "sub" / "b.mp4"), *named[2:]]
    assert "2 of 5 videos are repeats" in capsys.readouterr().err
