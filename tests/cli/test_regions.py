"""`--zone` of `predict` and `timeline`: answers with the names of zones, pictures of them, and wrong use."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fewframes.cli.main import app
from helpers.numbered import drifting
from helpers.walkers import Walker, write_walkers

ZONES = ("--zone", "left=0,0,0.5,1", "--zone", "right=0.5,0,1,1")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drifting(tmp_path_factory.mktemp("film") / "film.mp4", "libx264", 150, gop=50, options={})


@pytest.fixture
def options(tiny_model: Path) -> list[str]:
    return ["--model", str(tiny_model), "--device", "cpu", "--dtype", "float32"]


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [*map(str, arguments)])
    said = "" if done.exception is None else str(done.exception)  # `main` prints what a command raises
    return done.exit_code, done.stdout, done.stderr + said


def test_predict_names_zones(film: Path, options: list[str]) -> None:
    code, out, err = run("predict", film, *options, *ZONES)
    assert code == 0, err
    assert out.count("  zone left\n") == out.count("  zone right\n") == 1
    code, out, _ = run("predict", film, *options, *ZONES, "--json")
    assert [json.loads(line)["zone"] for line in out.splitlines()] == ["left", "right"]
    code, out, _ = run("predict", film, film.parent / "none.mp4", *options, *ZONES, "--csv")
    assert code == 3
    rows = list(csv.DictReader(out.splitlines()))
    assert [(row["zone"], bool(row["error"])) for row in rows] == [("left", False), ("right", False), ("", True)]


def test_timeline_names_zones(film: Path, options: list[str], tmp_path: Path) -> None:
    used = [*options, "--cache", str(tmp_path / "cache"), "--window", "2", "--threshold", "0.2"]
    code, out, err = run("timeline", film, *used, *ZONES, "--json")
    assert code == 0, err
    assert [json.loads(line)["zone"] for line in out.splitlines()] == ["left", "right"]
    assert "24 frames, 0 of them from the cache" in err
    code, out, err = run("timeline", film, *used, *ZONES, "--csv")
    rows = list(csv.DictReader(out.splitlines()))
    assert {row["zone"] for row in rows} == {"left", "right"}
    assert "of 2 parts of the picture; 24 frames, 24 of them from the cache" in err
    code, out, err = run("timeline", film, *used, *ZONES)
    assert out.count("  zone left\n") == out.count("  zone right\n") == 1


@pytest.mark.parametrize("name", ["zones.png", "zones.jpg"])
def test_show_zones(film: Path, options: list[str], tmp_path: Path, name: str) -> None:
    code, _, err = run("predict", film, *options, *ZONES, "--show-zones", tmp_path / "new" / name)
    assert code == 0, err
    assert "with left, right" in err
    with Image.open(tmp_path / "new" / name) as image:
        assert image.size == (480, 480)
        pixels_HWC = np.asarray(image.convert("RGB")).astype(int)
    blue, orange = pixels_HWC[300, 240:242], pixels_HWC[300, 238:240]  # the lines of both zones meet in the middle
    assert (blue[..., 2] > blue[..., 0]).all()
    assert (orange[..., 0] > orange[..., 2]).all()


def test_wrong_use(film: Path, options: list[str], tmp_path: Path) -> None:
    for arguments, wanted, words in (
        (("predict", film, "--zone", "door"), 2, "needs NAME=x0,y0,x1,y1"),
        (("predict", film, "--zone", "a=0,0,1,1", "--zone", "a=0,0,1,1"), 2, "is given 2 times"),
        (("predict", film, "--zone", "a=0,0,2,2"), 2, "outside of the picture"),
        (("predict", film, "--zone", "slit=0,0,0.1,1"), 1, "zone slit is 10 x 96 pixels"),
        (("timeline", film, "--no-cache", "--zone", "slit=0,0,0.1,1"), 1, "zone slit is 10 x 96 pixels"),
        (("predict", film, "--show-zones", "z.png"), 2, "add --zone"),
        (("predict", film, *ZONES, "--show-zones", tmp_path / "z.gif"), 2, "ends in .png or .jpg"),
        (("predict", film, *ZONES, "--budget-ms", "50"), 2, "--zone and --budget-ms exclude each other"),
        (("predict", film, *ZONES, "--early-exit", "0.9"), 2, "--zone and --early-exit exclude each other"),
        (("predict", film, *ZONES, "--explain", tmp_path / "e.html"), 2, "--zone and --explain exclude each other"),
        (("timeline", film, *ZONES, "--plot", tmp_path / "p.png"), 2, "--zone and --vtt, --plot or --thumbnails"),
        (("predict", film, *ZONES, "--model", options[1]), 2, "are judged by one model"),
    ):
        code, _, err = run(*arguments, *options)
        assert code == wanted, (arguments, err)
        assert words in " ".join(err.replace("│", " ").split()), (arguments, err)


@pytest.fixture(scope="module")
def walkers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    red = Walker((30, 150), (120, 150), 0.0, 5.9, colour=(220, 40, 40))
    blue = Walker((200, 140), (180, 140), 3.0, 5.9, colour=(40, 40, 220))
    return write_walkers(tmp_path_factory.mktemp("walkers") / "film.mp4", [red, blue], 6)


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    lines = [f"{frame},red,{20 + 1.5 * frame},60,{50 + 1.5 * frame},150" for frame in range(60)]
    lines += [f"{frame},blue,180,50,210,140" for frame in range(30, 60)] + ["2,short,0,0,50,50"]
    path = tmp_path / "boxes.csv"
    path.write_text("frame,track,x0,y0,x1,y1\n" + "\n".join(lines))
    return path


def test_boxes_of_a_file(walkers: Path, options: list[str], boxes: Path, tmp_path: Path) -> None:
    code, out, err = run("predict", walkers, *options, "--boxes", boxes, "--json")
    assert code == 0, err
    assert [json.loads(line)["track"] for line in out.splitlines()] == ["red", "blue"]
    assert f"{boxes}: CSV, 91 lines, boxes in pixels, frames from 0 at 10 frames/s: 3 tracks" in err
    assert "1 track left out: there for less than 0.5 s at a stretch" in err
    used = [*options, "--window", "1", "--cache", str(tmp_path / "cache"), "--threshold", "0.2"]
    code, out, err = run("timeline", walkers, *used, "--boxes", boxes, "--csv")
    assert code == 0, err
    rows = list(csv.DictReader(out.splitlines()))
    assert {row["track"] for row in rows} <= {"red", "blue"}
    assert all(float(row["start_s"]) >= 2.9 for row in rows if row["track"] == "blue")


def test_a_detector(walkers: Path, options: list[str]) -> None:
    code, out, err = run("predict", walkers, *options, "--detector", "helpers.walkers:by_colour")
    assert code == 0, err
    assert "2 tracks found by helpers.walkers:by_colour" in err
    assert out.count("  track 1\n") == out.count("  track 2\n") == 1


def test_wrong_use_of_boxes(walkers: Path, film: Path, options: list[str], boxes: Path, tmp_path: Path) -> None:
    (tmp_path / "later.csv").write_text("time_s,x0,y0,x1,y1\n100,0,0,5,5\n")
    for arguments, words in (
        ((walkers, film, "--boxes", boxes), "--boxes takes one video, and 2 are given"),
        ((walkers, "--boxes", boxes, *ZONES), "--zone and --boxes exclude each other"),
        ((walkers, "--boxes", tmp_path / "none.csv"), "none.csv: cannot be read"),
        ((walkers, "--boxes", tmp_path / "later.csv"), "nobody was found in it for long enough"),
        ((walkers, "--detector", "none"), "needs people, or package.module:factory"),
        ((tmp_path / "none.mp4", "--boxes", boxes), "no such file"),
    ):
        code, _, err = run("predict", *arguments, *options)
        assert code != 0
        assert words in " ".join(err.replace("│", " ").split()), (arguments, err)


def test_a_stream_tells_of_each_person_and_his_events(options: list[str], tmp_path: Path) -> None:
    stays = Walker((60, 120), (60, 120), 0.0, 9.0, colour=(220, 30, 30))
    goes = Walker((160, 120), (200, 120), 0.0, 2.0, colour=(30, 220, 30))
    film = write_walkers(tmp_path / "film.mp4", [stays, goes], 5.0)
    used = [*options, "--unknown", "off", "--window", "0.8", "--smooth", "0", "--enter", "0.2", "--leave", "0.1"]
    people = ["--detector", "helpers.walkers:by_colour"]
    code, out, err = run("stream", film, *used, *people, "--json", "--topk", "1")
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert {row["track"] for row in rows} == {"1", "2"}
    assert [row["track"] for row in rows if row.get("is_last")] == ["2", "1"]
    assert "2 persons judged, looked for in 25 pictures" in err
    code, out, err = run("stream", film, *used, *people, "--events", "-")
    assert code == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    ended = {event["track"]: event for event in events if event["state"] == "ended"}
    assert {event["track"] for event in events if event["state"] == "started"} == {"1", "2"}
    assert ended["2"]["end_s"] == pytest.approx(
        3.0, abs=0.25
    )  # a second after he was seen last, while the other goes on
    assert ended["1"]["end_s"] > 4.5


def test_a_file_of_sources_names_detectors_and_hours(options: list[str], tmp_path: Path) -> None:
    film = write_walkers(tmp_path / "film.mp4", [Walker((60, 120), (60, 120), 0, 9, colour=(220, 30, 30))], 3.0)
    sources = tmp_path / "cameras.toml"
    text = (
        f"[stream]\nwindow_s = 0.8\n[sources.door]\nsource = {str(film)!r}\ndetector = 'helpers.walkers:by_colour'\n"
        f"most_persons = 3\n[sources.yard]\nsource = {str(film)!r}\nhours = ['HOURS']\ntime_zone = 'UTC'\n"
    )
    soon = datetime.now(UTC) + timedelta(hours=2)
    sources.write_text(text.replace("HOURS", f"{soon:%H:%M}-{soon + timedelta(hours=2):%H:%M}"))
    code, out, err = run("stream", "--sources", sources, *options, "--json")
    assert code == 0, err
    assert {(row["source"], row["track"]) for row in map(json.loads, out.splitlines())} == {("door", "1")}
    assert "yard: 0.10 s, hours: its hours are over" in err
    sources.write_text(text.replace("HOURS", "night"))
    code, _, err = run("stream", "--sources", sources, *options, "--json")
    assert code != 0
    assert "sources.yard: hours 'night': needs two times of the day, such as 22:00-06:00" in err


def test_persons_and_zones_of_a_stream_exclude_each_other(film: Path, options: list[str]) -> None:
    code, _, err = run("stream", film, *options, *ZONES, "--detector", "people")
    assert code != 0
    assert "detector 'people' and 2 zones exclude each other" in err
