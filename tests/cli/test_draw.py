"""`--draw` of `predict` and `timeline`: a copy of the video with the answers over it."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from fewframes.cli.main import app
from helpers.numbered import drifting
from helpers.walkers import Walker, write_walkers


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drifting(tmp_path_factory.mktemp("draw") / "drift.mp4", "libx264", 75, gop=25, options={}, size=192)


@pytest.fixture
def fast(tiny_model: Path, tmp_path: Path) -> list[str]:
    return ["--model", str(tiny_model), "--device", "cpu", "--dtype", "float32"]


@pytest.mark.parametrize(
    "command", [["predict"], ["predict", "--json"], ["timeline", "--no-cache", "--threshold", "0", "--window", "1"]]
)
def test_the_answer_stands_over_every_picture(video: Path, fast: list[str], tmp_path: Path, command: list[str]) -> None:
    target = tmp_path / "out.mp4"
    done = CliRunner().invoke(app, [command[0], str(video), *command[1:], *fast, "--draw", str(target)])
    assert done.exit_code == 0, done.output
    assert f"drawn: {target}" in done.stderr
    with av.open(str(target)) as drawn, av.open(str(video)) as given:
        pairs = [
            (first.to_ndarray(format="gray").astype(int), second.to_ndarray(format="gray").astype(int))
            for first, second in zip(drawn.decode(video=0), given.decode(video=0), strict=True)
        ]
    assert len(pairs) == 75
    for first, second in pairs:
        assert abs(first[2:14, 2:60] - second[2:14, 2:60]).mean() > 20  # the text
        assert abs(first[100:] - second[100:]).mean() < 6  # the rest


def test_a_part_of_the_video_is_drawn(video: Path, fast: list[str], tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    done = CliRunner().invoke(app, ["predict", str(video), *fast, "--start", "1", "--end", "2", "--draw", str(target)])
    assert done.exit_code == 0, done.output
    with av.open(str(target)) as container:
        assert len(list(container.decode(video=0))) == 25


def pictures_of(path: Path) -> NDArray[np.int16]:
    """The pictures (N, H, W, 3) of a video."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(np.int16)


def is_yellow(pixels: NDArray[np.int16]) -> NDArray[np.bool_]:
    """True where a pixel has the colour of the first region."""
    return (pixels[..., 0] > 180) & (abs(pixels[..., 1] - 160) < 50) & (pixels[..., 2] < 110)


@pytest.mark.parametrize("command", [["predict"], ["timeline", "--no-cache", "--threshold", "0", "--window", "1"]])
def test_boxes_of_persons_move_with_them(fast: list[str], tmp_path: Path, command: list[str]) -> None:
    walker = Walker((40, 130), (190, 130), 0.0, 2.9, colour=(60, 60, 60))
    film, boxes, target = tmp_path / "film.mp4", tmp_path / "boxes.csv", tmp_path / "out.mp4"
    write_walkers(film, [walker], 3.0)
    given = [
        (time_s, walker.box(time_s)) for time_s in (0.0, 0.9, 1.8, 2.7)
    ]  # between them it is where its box is taken to be
    boxes.write_text(
        "time_s,track,x0,y0,x1,y1\n"
        + "".join(f"{time_s},anna,{box.x0},{box.y0},{box.x1},{box.y1}\n" for time_s, box in given if box)
    )
    words = [command[0], str(film), *command[1:], *fast, "--boxes", str(boxes), "--draw", str(target)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    drawn = pictures_of(target)
    assert len(drawn) == 30
    for number in (2, 9, 13, 22):
        box = walker.box(number / 10)
        assert box is not None
        columns = np.flatnonzero(is_yellow(drawn[number])[90:125].mean(axis=0) > 0.8)  # the sides of the box
        assert columns.min() == pytest.approx(box.x0, abs=3)
        assert columns.max() == pytest.approx(box.x1, abs=3)


def test_zones_are_drawn_where_they_are(fast: list[str], tmp_path: Path) -> None:
    film, target = write_walkers(tmp_path / "film.mp4", [], 2.0), tmp_path / "out.mp4"
    done = CliRunner().invoke(
        app, ["predict", str(film), *fast, "--zone", "door=0.25,0.25,0.75,0.75", "--draw", str(target)]
    )
    assert done.exit_code == 0, done.output
    is_line = abs(pictures_of(target)[10] - 200).max(axis=2) > 60  # the film is grey
    rows = np.flatnonzero(is_line[:, 100:170].mean(axis=1) > 0.8)
    columns = np.flatnonzero(is_line[50:110].mean(axis=0) > 0.8)
    assert rows.max() == pytest.approx(120, abs=3)
    assert columns.min() == pytest.approx(60, abs=3)
    assert columns.max() == pytest.approx(180, abs=3)


LIVE = ["--window", "0.8", "--enter", "0.34", "--leave", "0", "--unknown", "off", "--spans", "off"]


def test_a_stream_is_drawn_with_its_persons(fast: list[str], tmp_path: Path) -> None:
    walker = Walker((40, 130), (190, 130), 0.0, 2.9, colour=(220, 30, 30))
    film, target = write_walkers(tmp_path / "film.mp4", [walker], 3.0), tmp_path / "out.mp4"
    words = ["stream", str(film), *fast, *LIVE, "--detector", "helpers.walkers:by_colour", "--draw", str(target)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    drawn = pictures_of(target)
    assert f"drawn: {target}, {len(drawn)} pictures" in done.stderr
    assert len(drawn) == 15  # those that are looked at
    is_line = abs(drawn - pictures_of(film)[1::2]).max(axis=3) > 50
    for number in range(4, 14):
        box = walker.box(0.2 * number + 0.1)
        assert box is not None
        columns = np.flatnonzero(is_line[number][80:120].mean(axis=0) > 0.6)
        assert columns.min() == pytest.approx(box.x0, abs=4)
        assert columns.max() == pytest.approx(box.x1, abs=4)
    assert not is_line[0][:130].any()  # nobody is followed yet


def test_a_stream_is_drawn_whole_with_its_label_and_zones(fast: list[str], tmp_path: Path) -> None:
    film, target = write_walkers(tmp_path / "film.mp4", [], 3.0), tmp_path / "out.mkv"
    done = CliRunner().invoke(app, ["stream", str(film), *fast, *LIVE, "--draw", str(target)])
    assert done.exit_code == 0, done.output
    drawn = pictures_of(target)
    assert drawn.shape == (15, 160, 240, 3)
    assert abs(drawn[:, :12, :60] - 200).max(axis=(1, 2, 3)).min() > 100  # the time, and later the label
    assert abs(drawn[:, 60:] - 200).max() < 8
    zoned = ["--zone", "door=0.25,0.25,0.75,0.75"]
    done = CliRunner().invoke(app, ["stream", str(film), *fast, *LIVE, *zoned, "--draw", str(tmp_path / "zone.mp4")])
    assert done.exit_code == 0, done.output
    columns = np.flatnonzero(abs(pictures_of(tmp_path / "zone.mp4")[10, 60:110] - 200).max(axis=2).mean(axis=0) > 60)
    assert (columns.min(), columns.max()) == (pytest.approx(60, abs=3), pytest.approx(180, abs=3))


def test_drawing_changes_no_answer(video: Path, fast: list[str], tmp_path: Path) -> None:
    def answered(*more: str) -> list[list[float]]:
        done = CliRunner().invoke(app, ["stream", str(video), *fast, *LIVE, "--json", *more])
        assert done.exit_code == 0, done.output
        return [[each["score"] for each in json.loads(line)["top"]] for line in done.stdout.splitlines()]

    np.testing.assert_allclose(answered(), answered("--draw", str(tmp_path / "out.mp4")), atol=1e-5)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_stream_goes_on_when_the_disk_is_full(fast: list[str], tmp_path: Path) -> None:
    film, target = write_walkers(tmp_path / "film.mp4", [], 6.0), tmp_path / "out.mp4"
    target.symlink_to("/dev/full")
    done = CliRunner().invoke(app, ["stream", str(film), *fast, *LIVE, "--json", "--draw", str(target)])
    assert done.exit_code == 0, done.output
    assert done.stderr.count("cannot be written (No space left on device); the rest is not drawn") == 1
    assert len(done.stdout.splitlines()) > 20


def test_several_sources_are_not_drawn(video: Path, fast: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["stream", f"a={video}", *fast, "--draw", str(tmp_path / "out.mp4")])
    assert done.exit_code == 2
    assert "--draw shows one source without a name" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["predict", "VIDEO", "--draw", "out.avi"], "needs a name that ends in .mp4 or .mkv"),
        (["predict", "VIDEO", "other.mp4", "--draw", "out.mp4"], "--draw takes one video, and 2 are given"),
        (["timeline", "VIDEO", "other.mp4", "--draw", "out.mp4"], "--vtt, --plot, --thumbnails and --draw take one video"),
        (["predict", "VIDEO", "--draw", "VIDEO"], "is itself read, and the result would replace it"),
        (["predict", "VIDEO", "--engine", "local", "--output", "out", "--draw", "out.mp4"], "--csv, --explain and --draw"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(
    video: Path, fast: list[str], tmp_path: Path, command: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = video.read_bytes()
    done = CliRunner().invoke(app, [*(str(video) if word == "VIDEO" else word for word in command), *fast])
    assert done.exit_code == 2
    assert words in " ".join((done.stderr or str(done.exception)).split())
    assert video.read_bytes() == before
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_fails_is_not_drawn(fast: list[str], tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    done = CliRunner().invoke(app, ["predict", str(tmp_path / "text.mp4"), *fast, "--draw", str(tmp_path / "out.mp4")])
    assert done.exit_code == 1
    assert not (tmp_path / "out.mp4").exists()
