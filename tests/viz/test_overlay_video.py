"""A drawn video shows the pictures of the source at their times, with text over them, and has its sound."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from fewframes.errors import ConfigError, VideoError
from fewframes.viz import overlay_video
from fewframes.viz.overlay import Overlay
from fewframes.viz.overlay_video import FRAGMENT_PICTURES, GrowingVideo, check_target, write_overlay
from helpers.numbered import Numbered, numbers
from helpers.sounding import loudness, write_sounding

NOTHING = Overlay()


def shown(path: Path) -> list[tuple[float, int]]:
    """The time and the number of each picture."""
    with av.open(str(path)) as container:
        frames = [(frame.time or 0.0, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    found = numbers(np.stack([picture_HWC for _, picture_HWC in frames]).transpose(0, 3, 1, 2))
    return list(zip([round(time_s, 3) for time_s, _ in frames], found, strict=True))


@pytest.mark.parametrize("encoder", ["libx264", "mpeg4"])
@pytest.mark.parametrize(
    "times_ms", [range(0, 2400, 40), [0, 40, 300, 320, 360, 900, 1400, 1440]], ids=["steady", "unsteady"]
)
def test_pictures_keep_their_times(
    tmp_path: Path, encoder: str, times_ms: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay_video, "ENCODERS", (encoder,))
    source = Numbered(times_ms=times_ms, bframes=2).write(tmp_path / "source")
    asked: list[float] = []
    done: list[tuple[float, float]] = []

    def overlay_at(time_s: float) -> Overlay:
        asked.append(time_s)
        return NOTHING

    write_overlay(str(source), tmp_path / "out.mp4", overlay_at, progress=lambda *both: done.append(both))
    assert shown(tmp_path / "out.mp4") == [(time_ms / 1000, number) for number, time_ms in enumerate(times_ms)]
    assert asked == pytest.approx([time_ms / 1000 for time_ms in times_ms], abs=1e-6)
    assert done[-1][0] == pytest.approx(times_ms[-1] / 1000)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert (container.duration or 0) / av.time_base == pytest.approx(times_ms[-1] / 1000 + 0.04, abs=0.01)


def test_a_part_is_drawn_from_its_start_on(tmp_path: Path) -> None:
    source = Numbered().write(tmp_path / "source")
    write_overlay(str(source), tmp_path / "out.mkv", lambda time_s: NOTHING, start_s=0.8, end_s=1.2)
    assert shown(tmp_path / "out.mkv") == [(round(0.04 * step, 3), 20 + step) for step in range(10)]


def test_text_is_over_the_pictures_that_it_is_for(tmp_path: Path) -> None:
    source = Numbered(width=320, height=240).write(tmp_path / "source")
    write_overlay(str(source), tmp_path / "out.mp4", lambda time_s: Overlay(("99 % hug",) if time_s >= 1.2 else ()))
    with av.open(str(tmp_path / "out.mp4")) as container:
        levels = [float(frame.to_ndarray(format="gray")[2:24, 2:24].mean()) for frame in container.decode(video=0)]
    white = [number for number in range(60) if number % 2]  # the first bar, under the text, is white in odd ones
    assert all((levels[number] > 200) == (number < 30) for number in white)


@pytest.mark.parametrize(("width", "height"), [(161, 63), (16, 16), (33, 18)])
def test_odd_and_very_small_pictures_are_drawn(tmp_path: Path, width: int, height: int) -> None:
    source = Numbered(codec="ffv1", suffix=".mkv", pix_fmt="yuv444p", width=width, height=height).write(
        tmp_path / "source"
    )
    write_overlay(str(source), tmp_path / "out.mp4", lambda time_s: Overlay(("99 % hug", "0:00.0")))
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (width + width % 2, height + height % 2)
        assert len(list(container.decode(stream))) == 60


def test_sound_is_copied_in_step(tmp_path: Path) -> None:
    source = write_sounding(tmp_path / "source.mp4", "aac", 44100)
    write_overlay(str(source), tmp_path / "whole.mp4", lambda time_s: NOTHING)
    write_overlay(str(source), tmp_path / "part.mp4", lambda time_s: NOTHING, start_s=1.2, end_s=3.6)
    whole, part, given = loudness(tmp_path / "whole.mp4"), loudness(tmp_path / "part.mp4"), loudness(source)
    assert whole == given
    assert part[0.5] == pytest.approx(part[1.5] / 2, rel=0.1)  # 1.7 s and 2.7 s of the source: one step and two
    with av.open(str(tmp_path / "part.mp4")) as container:
        assert (container.duration or 0) / av.time_base == pytest.approx(2.4, abs=0.1)


def test_nothing_is_left_of_a_video_that_could_not_be_drawn(tmp_path: Path) -> None:
    source = Numbered().write(tmp_path / "source")

    def fails(time_s: float) -> Overlay:
        if time_s > 1:
            raise ZeroDivisionError
        return NOTHING

    with pytest.raises(ZeroDivisionError):
        write_overlay(str(source), tmp_path / "out.mp4", fails)
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name]


def test_pictures_and_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--draw out.avi: needs a name that ends in .mp4 or .mkv"):
        check_target(Path("out.avi"), "--draw")
    folder = tmp_path / "pictures"
    folder.mkdir()
    from PIL import Image

    for number in range(3):
        Image.new("RGB", (32, 32)).save(folder / f"{number}.png")
    with pytest.raises(VideoError, match="needs a video file"):
        write_overlay(str(folder), tmp_path / "out.mp4", lambda time_s: NOTHING)
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_video_that_grows_can_be_played_before_it_is_ended(tmp_path: Path, suffix: str) -> None:
    told: list[str] = []
    target = tmp_path / f"out{suffix}"
    video = GrowingVideo(target, told.append)
    lots = np.random.default_rng(0)
    for number in range(5 * FRAGMENT_PICTURES):
        video.add(lots.integers(0, 255, (400, 640, 3), np.uint8), 7 + 0.2 * number, 0.2)
    copy = tmp_path / f"copy{suffix}"
    copy.write_bytes(target.read_bytes())  # as it is if the process is killed now
    with av.open(str(copy)) as container:
        num_before = len(list(container.decode(video=0)))
    assert num_before >= 4 * FRAGMENT_PICTURES
    video.close()
    with av.open(str(target)) as container:
        times_s = [frame.time for frame in container.decode(video=0)]
    assert times_s == pytest.approx([0.2 * number for number in range(5 * FRAGMENT_PICTURES)], abs=1e-3)
    assert not told
