"""Files that are no video are called what they are, with what helps."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import fsspec
import pytest

from fewframes.errors import VideoError
from fewframes.video.live_source import Address
from fewframes.video.source import open_video
from helpers.numbered import Numbered

SUBTITLES = "1\n00:00:00,500 --> 00:00:02,000\nHello\n\n2\n00:00:03,000 --> 00:00:04,000\nBye\n"
SAID = {
    b"\n  <!doctype HTML>\n<html><body>Sign in</body></html>": "a web page",
    b"<!-- x -->\n<head><title>403</title></head>": "a web page",
    b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>': "the answer of a server",
    b'{"error": "too many requests"}': "the answer of a server",
    b"[InternetShortcut]\nURL=https://example.org/a.mp4\n": "an address as text",
    b"https://example.org/a.mp4\n": "an address as text",
    b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(60): "a picture",
    b"../../.git/annex/objects/SHA256E-s3--12.mp4\n": "git annex get",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n": "git lfs pull",
    b"/annex/objects/SHA256E-s3--12.mp4\n": "git annex get",
    b"PK\x03\x04" + bytes(200): "a ZIP archive; unpack it",
    b"\x1f\x8b\x08" + bytes(range(200)): "a gzip archive",
    bytes(50_000): r"nothing but zeros at its start \(50000 bytes\)",
    b"bplist00" + bytes(range(90)): "iCloud's placeholder",
    b"\x00\x05\x16\x07\x00\x02" + b"Mac OS X" * 20: "name the file without ._",
    SUBTITLES.encode(): "subtitles without pictures",
    b"WEBVTT\n\n00:00.500 --> 00:02.000\nHello\n": "subtitles without pictures",
}
LISTS = {
    "ffconcat version 1.0\nfile 'inner.ts'\n": "a list of files for FFmpeg",
    "# mine\nfile 'inner.ts'\nduration 1\nfile 'inner.ts'\n": "a list of files for FFmpeg",
    "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.6,\ninner.ts\n#EXT-X-ENDLIST\n": "an HLS or M3U playlist",
    "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9\nlow.m3u8\n": "an HLS or M3U playlist",
    '<?xml version="1.0"?>\n<!-- made -->\n<MPD type="static"><Period/></MPD>\n': "a DASH manifest",
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 5 RTP/AVP 96\r\n": "SDP",
    "[playlist]\nFile1=inner.ts\nNumberOfEntries=1\n": "a playlist",
}


@pytest.mark.parametrize(("content", "words"), SAID.items(), ids=range(len(SAID)))
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip"])
def test_other_files_are_called_what_they_are(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    for source in (tmp_path / name, content, io.BytesIO(content)):
        with pytest.raises(VideoError, match=words):
            open_video(source)
    with pytest.raises(VideoError, match=words):
        Address.of(tmp_path / name).open(1.0)


def test_archives_of_python(tmp_path: Path) -> None:
    video = Numbered(times_ms=range(0, 400, 40)).write(tmp_path / "video")
    with zipfile.ZipFile(tmp_path / "a.mov", "w") as archive:
        archive.write(video, "video.mp4")
    with tarfile.open(tmp_path / "b.mov", "w") as tape:
        tape.add(video, "video.mp4")
    for name, words in (("a.mov", "a ZIP archive"), ("b.mov", "a tar archive")):
        with pytest.raises(VideoError, match=words):
            open_video(tmp_path / name)


@pytest.mark.parametrize(("text", "words"), LISTS.items(), ids=range(len(LISTS)))
@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8", "list.ffconcat", "list.sdp", "list"])
def test_a_file_opens_no_others(tmp_path: Path, name: str, text: str, words: str) -> None:
    """An answer would be of files that nobody named, and be kept when these change."""
    Numbered(suffix=".ts", format="mpegts", times_ms=range(0, 1600, 40)).write(tmp_path / "inner")
    (tmp_path / name).write_text(text)
    fsspec.filesystem("memory").pipe(f"/{name}", text.encode())
    for source in (tmp_path / name, text.encode(), f"memory://{name}"):
        with pytest.raises(VideoError, match=words):
            open_video(source)
    with pytest.raises(VideoError, match=words):
        Address.of(tmp_path / name).open(1.0)
    with (
        (tmp_path / name).open("rb", buffering=0) as pipe,
        pytest.raises(VideoError, match="cannot be opened as a stream|no video"),
    ):
        Address.of(pipe).open(1.0)


def test_an_mp4_says_which_part_it_lacks(tmp_path: Path) -> None:
    at_end = Numbered().write(tmp_path / "end").read_bytes()
    in_front = Numbered(mux_options={"movflags": "faststart"}).write(tmp_path / "front").read_bytes()
    pieces = Numbered(mux_options={"movflags": "frag_keyframe+empty_moov"}).write(tmp_path / "pieces").read_bytes()
    index, fragment = at_end.index(b"moov") - 4, pieces.index(b"moof") - 4
    for content, words in (
        (at_end[:index], r"an MP4 without its index \(no moov box in \d+ bytes\): the recording was never closed"),
        (at_end[: index + 40], "an MP4 that is cut short"),
        (in_front[:300], r"an MP4 that is cut short \(300 bytes of the \d+ that it announces\)"),
        (pieces[fragment:], r"a fragment of an MP4 without its beginning .*: cat init\.mp4 segments > whole\.mp4"),
    ):
        (tmp_path / "part.mp4").write_bytes(content)
        for source in (tmp_path / "part.mp4", content):
            with pytest.raises(VideoError, match=words):
                open_video(source)
    open_video(pieces[:fragment] + pieces[fragment:]).close()


def test_an_unfinished_download_is_known_by_its_ending(tmp_path: Path) -> None:
    whole = Numbered().write(tmp_path / "whole").read_bytes()
    (tmp_path / "a.mp4.crdownload").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VideoError, match="an unfinished download by its ending"):
        open_video(tmp_path / "a.mp4.crdownload")
    (tmp_path / "a.mp4.part").write_bytes(whole)  # one that is whole is read
    open_video(tmp_path / "a.mp4.part").close()


def test_a_camera_that_is_not_there_says_what_was_looked_for() -> None:
    for name in ("camera:77", "/dev/video77"):
        with pytest.raises(
            VideoError, match=rf"{name}: no camera can be opened there \(.+\); .*, or name an rtsp:// or http://"
        ):
            Address.of(name).open(1.0)
