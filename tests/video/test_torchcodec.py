"""torchcodec as a backend: what is said where it is not there, and the same frames where it is."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from fewframes.errors import MissingDependency, TooLarge, VideoError
from fewframes.inference.clips import choose_backend
from fewframes.sampling import centre_times
from fewframes.video import torchcodec as torchcodec_video
from fewframes.video.decode.container import Limits
from fewframes.video.source import Backend, open_video
from fewframes.video.torchcodec import why_not
from helpers.numbered import Numbered, numbers

CPU = "cpu"


def test_without_it_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    path = Numbered().write(tmp_path / "video")
    with pytest.raises(
        MissingDependency, match=r"torchcodec is not installed .*; pip install 'fewframes\[torchcodec\]'"
    ):
        open_video(path, backend="torchcodec")
    assert "pip install 'fewframes[torchcodec]'" in why_not("cpu")
    with pytest.raises(
        MissingDependency, match=r"backend torchcodec cannot be used on cpu \(.*\); take 'auto' or 'pyav'"
    ):
        choose_backend("torchcodec", CPU)
    assert choose_backend("auto", CPU) == choose_backend("pyav", CPU) == "pyav"
    assert choose_backend("auto", "cuda") == "pyav"


@pytest.mark.skipif(bool(why_not("cpu")), reason=f"torchcodec: {why_not('cpu')}")
def test_its_frames_are_those_shown(tmp_path: Path) -> None:
    path = Numbered(bframes=3).write(tmp_path / "video")
    with closing(open_video(path, backend="torchcodec")) as video:
        assert video.duration_s == pytest.approx(2.4, abs=0.01)
        clip = video.frames_at(centre_times(2.4, 8))
        assert numbers(clip.frames) == [3, 11, 18, 26, 33, 41, 48, 56]
        backwards = video.frames_at(centre_times(2.4, 8)[::-1])
    assert numbers(backwards.frames) == [56, 48, 41, 33, 26, 18, 11, 3]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(VideoError, match="not a video that FFmpeg can read"):
        open_video(broken, backend="torchcodec")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(max_pixels=200_000), r"frames of 640x360 px; the limit is 0.2 million pixels"),
        (Limits(max_s=2.9), r"3.0 s long; the limit is 2.9 s"),
    ],
)
def test_limits_hold_for_it_too(monkeypatch: pytest.MonkeyPatch, videos: Path, limits: Limits, words: str) -> None:
    """Of what torchcodec says of a video; it is not among the tests' packages."""
    path = str(videos / "a.mp4")
    size_bytes = os.path.getsize(path)
    said = SimpleNamespace(width=640, height=360, begin_stream_seconds=0.0, end_stream_seconds=3.0)
    monkeypatch.setattr(torchcodec_video, "_decoder_class", lambda: lambda *_, **__: SimpleNamespace(metadata=said))
    with pytest.raises(TooLarge, match=words):
        Backend("torchcodec", limits=limits).open(path, path, size_bytes)
    assert Backend("torchcodec").open(path, path, size_bytes).duration_s == 3.0


def test_a_closed_video_is_closed_once_and_says_so(monkeypatch: pytest.MonkeyPatch, videos: Path) -> None:
    said = SimpleNamespace(width=64, height=64, begin_stream_seconds=0.0, end_stream_seconds=3.0)
    monkeypatch.setattr(torchcodec_video, "_decoder_class", lambda: lambda *_, **__: SimpleNamespace(metadata=said))
    video = torchcodec_video.TorchcodecVideo(str(videos / "a.mp4"), "a.mp4", 1, CPU)
    assert video._decoder is not None
    video.close()
    video.close()
    assert video._decoder is None  # the decoder's threads end with it
    with pytest.raises(VideoError, match=r"a.mp4: the video is closed; open it again"):
        video.frames_at([0.5])
    with pytest.raises(VideoError, match=r"a.mp4: the video is closed; open it again"):
        video.check(0.0, 1.0)
