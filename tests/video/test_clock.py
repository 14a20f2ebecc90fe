"""A clock that steps: looked at around the step, and said; fewer pictures than frames are said too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fewframes.errors import VideoError
from fewframes.inference.predictor import Predictor
from fewframes.results import ClockStep, Prediction
from fewframes.sampling import centre_times
from fewframes.video.clock import times_around
from fewframes.video.source import open_video
from helpers.numbered import Numbered


def stepping(at: int, by_s: float, num_frames: int = 100) -> list[int]:
    return [40 * number + (round(1000 * by_s) if number >= at else 0) for number in range(num_frames)]


def said(predictor: Predictor, path: Path, *, as_bytes: bool = False) -> Prediction:
    return predictor.predict(path.read_bytes() if as_bytes else path)


def centres(duration_s: float, start_s: float, end_s: float | None) -> list[float]:
    return centre_times(duration_s, 4, start_s=start_s, end_s=end_s).tolist()


def test_times_around_steps() -> None:
    steps = (ClockStep(2.0, 100.0), ClockStep(103.0, 50.0))  # pictures: 0-2, 102-103, 153-154
    assert times_around(steps, centres, 154.0, 0.0, None) == pytest.approx([0.5, 1.5, 102.5, 153.5])
    assert times_around(steps, centres, 154.0, 1.0, 103.0) == pytest.approx([1.25, 1.75, 102.25, 102.75])
    assert times_around((), centres, 4.0, 0.0, None) == pytest.approx([0.5, 1.5, 2.5, 3.5])


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".mp4"])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_clock_that_steps_hides_no_pictures(
    tmp_path: Path, predictor: Predictor, suffix: str, as_bytes: bool
) -> None:
    recipe = Numbered(suffix=suffix, bframes=0, times_ms=stepping(50, 600.0))
    found = said(predictor, recipe.write(tmp_path / "a"), as_bytes=as_bytes)
    assert found.times_s.tolist() == pytest.approx([0.48, 1.48, 602.48, 603.48], abs=0.05)
    assert [tuple(step) for step in found.steps] == [pytest.approx((2.0, 600.0), abs=0.05)]
    assert found.notices == ["its timestamps jump by 600.00 s at 2.00 s; frames from both sides of the gap were used"]
    assert found.to_dict()["distinct_frames"] == 4


def test_an_early_exit_goes_around_steps_too(tmp_path: Path, predictor: Predictor) -> None:
    recipe = Numbered(suffix=".ts", bframes=0, times_ms=stepping(50, 600.0))
    found = predictor.predict(recipe.write(tmp_path / "a"), early_exit=1.0)  # never sure enough: all stages
    assert found.times_s.tolist() == pytest.approx([0.48, 1.48, 602.48, 603.48], abs=0.05)
    assert found.notices == ["its timestamps jump by 600.00 s at 2.00 s; frames from both sides of the gap were used"]


def test_two_steps_and_one_near_the_end(tmp_path: Path, predictor: Predictor) -> None:
    times_ms = [time + (86_400_000 if number >= 96 else 0) for number, time in enumerate(stepping(30, 7200.0))]
    found = said(predictor, Numbered(suffix=".mkv", bframes=0, times_ms=times_ms).write(tmp_path / "a"))
    assert [round(step.by_s) for step in found.steps] == [7200, 86400]
    assert found.distinct_frames == 4


def test_a_part_in_a_gap_is_an_error_that_says_so(tmp_path: Path, predictor: Predictor) -> None:
    path = Numbered(suffix=".mkv", bframes=0, times_ms=stepping(50, 600.0)).write(tmp_path / "a")
    with pytest.raises(
        VideoError, match=r"between 100 s and 200 s nothing was recorded: its timestamps jump by 600.00 s at 2.00 s"
    ):
        predictor.predict(path, start_s=100, end_s=200)
    beyond = predictor.predict(path, start_s=100, end_s=603)
    assert beyond.times_s.min() >= 602
    before = predictor.predict(path, start_s=1, end_s=200)
    assert before.times_s.max() < 2


def test_transport_streams_whose_clock_goes_back_by_an_hour(tmp_path: Path, predictor: Predictor) -> None:
    """A clock of 33 bits that goes back by more than a minute seems to have wrapped: 26.5 hours less an hour follow."""
    first, second = (
        Numbered(suffix=".ts", bframes=0, times_ms=range(start_ms, start_ms + 2400, 40)).write(tmp_path / str(start_ms))
        for start_ms in (4_000_000, 400_000)
    )
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())  # the picture at the joint counts as damaged
    found = predictor.predict(joined)
    assert found.distinct_frames == 4
    assert [round(step.by_s + 3600, -1) for step in found.steps] == [round(2**33 / 90_000, -1)]
    assert (found.times_s < 2.4).sum() == 2


def test_a_clock_that_wraps_steps_nowhere(tmp_path: Path, predictor: Predictor) -> None:
    wraps_at_ms = 2**33 // 90
    steady = Numbered(suffix=".ts", bframes=0)
    path = replace(steady, times_ms=[wraps_at_ms - 2600 + time_ms for time_ms in steady.times_ms]).write(
        tmp_path / "wraps"
    )
    found = predictor.predict(path)
    assert (found.steps, found.distinct_frames) == ((), 4)
    assert found.times_s.max() < 2.4


@pytest.mark.parametrize(
    ("suffix", "codec", "starts_s"),
    [
        (".ts", "libx264", (0, 0)),  # a second recording whose clock begins anew, as the first's
        (".ts", "libx264", (50, 10)),
        (".ts", "libx264", (50, 51)),  # by less than the first lasts
        (".mpg", "mpeg2video", (0, 0)),
        (".flv", "libx264", (0, 0)),
        (".mkv", "libx264", (0, 0)),
    ],
)
def test_a_clock_that_goes_back_hides_no_pictures(
    tmp_path: Path, suffix: str, codec: str, starts_s: tuple[int, int]
) -> None:
    parts = []
    for start_s in starts_s:
        times_ms = range(1000 * start_s, 1000 * start_s + 2400, 40)
        recipe = Numbered(codec=codec, suffix=suffix, bframes=0, times_ms=times_ms)
        parts.append(recipe.write(tmp_path / "part").read_bytes())
    joined = (tmp_path / "joined").with_suffix(suffix)
    header_bytes = 13 if suffix == ".flv" else 0  # as recorders go on writing to a file
    joined.write_bytes(parts[0] + parts[1][header_bytes:])
    with pytest.raises(
        VideoError, match=r"its times run backwards after 2\.3\d s \(joined from parts, or damaged\); write it"
    ):
        open_video(joined)


def test_long_pictures_are_no_steps_but_told(tmp_path: Path, predictor: Predictor) -> None:
    slides = said(predictor, Numbered(bframes=0, times_ms=[0, 15_000, 30_000]).write(tmp_path / "slides"))
    assert slides.steps == ()
    assert slides.notices == [f"only {slides.distinct_frames} of its 4 sampled frames are different"]
    assert slides.distinct_frames < 4
    short = said(predictor, Numbered(times_ms=range(0, 120, 40)).write(tmp_path / "short"))
    assert (short.distinct_frames, len(short.notices)) == (3, 1)
    steady = said(predictor, Numbered().write(tmp_path / "steady"))
    assert (steady.distinct_frames, steady.notices) == (4, [])
