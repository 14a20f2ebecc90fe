"""Footage that was encoded anew, cut or mirrored is found, and other footage of the same camera is not."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from numpy.typing import NDArray

from fewframes.data.check import Inspection, inspect
from fewframes.data.copies.found import MOST_STEPS, lines_on
from fewframes.data.copies.matching import copies_among, find_copies
from fewframes.data.copies.together import with_copies
from fewframes.data.dataset import read_data
from helpers.commands import run

FPS = 20


def filmed(seed: int, seconds: float = 4.0) -> NDArray[np.uint8]:
    """Frames of a fixed camera: the same room always, in which two bright boxes go their own ways."""
    rng = np.random.default_rng(seed)
    room = np.repeat(np.repeat(np.random.default_rng(0).integers(40, 160, (12, 16, 3)), 10, 0), 10, 1).astype(np.uint8)
    way_2T2 = np.cumsum(rng.normal(0, 9, (2, int(seconds * FPS) // 5 + 2, 2)), axis=1)
    frames = []
    for number in range(int(seconds * FPS)):
        frame = room.copy()
        for start, way in zip(((40, 40), (70, 100)), way_2T2, strict=True):
            before, after = way[number // 5], way[number // 5 + 1]
            y, x = np.clip(start + before + (after - before) * (number % 5) / 5, 0, (90, 130)).astype(int)
            frame[y : y + 30, x : x + 24] = 230
        frames.append(frame)
    return np.stack(frames)


def write(path: Path, frames: NDArray[np.uint8], codec: str = "libx264", fps: int = FPS, width: int = 160) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, width * 3 // 4, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four films of one room, and three copies of the first."""
    root = tmp_path_factory.mktemp("films")
    for seed in range(1, 5):
        write(root / f"film{seed}.mp4", filmed(seed))
    first = filmed(1)
    write(root / "anew.mp4", first[::2], "mpeg4", FPS // 2, 96)
    write(root / "cut.mp4", first[30:70])
    write(root / "mirrored.mp4", first[:, :, ::-1])
    parts = {"film1": "train", "anew": "train", "cut": "test", "mirrored": "val"}
    names = ["film1", "film2", "film3", "film4", "anew", "cut", "mirrored"]
    with (root / "list.csv").open("w", newline="") as file:
        rows = [(f"{name}.mp4", "ab"[index % 2], parts.get(name, "train")) for index, name in enumerate(names)]
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return root


def inspected(films: Path) -> Inspection:
    *_, found = inspect(read_data(films / "list.csv"), copies=True)
    assert isinstance(found, Inspection)
    return found


def test_copies_are_found_and_other_films_of_the_room_are_not(films: Path) -> None:
    found = inspected(films)
    assert found.copies is not None
    samples = found.data.samples
    pairs = {(Path(samples[it.first].path).stem, Path(samples[it.second].path).stem): it for it in found.copies}
    ours = {"film1", "anew", "cut", "mirrored"}
    assert {pair for pair in pairs if "film1" in pair} == {("film1", "anew"), ("film1", "cut"), ("film1", "mirrored")}
    assert all(set(pair) <= ours for pair in pairs)
    assert pairs["film1", "mirrored"].mirrored
    assert not pairs["film1", "cut"].mirrored
    assert pairs["film1", "cut"].first_s == pytest.approx(1.5, abs=0.11)
    assert pairs["film1", "cut"].second_s == pytest.approx(0, abs=0.11)
    assert pairs["film1", "cut"].length_s == pytest.approx(2, abs=0.11)


def test_the_held_out_part_keeps_the_footage(films: Path) -> None:
    found = inspected(films)
    leaks = {Path(problem.path).stem for problem in found.problems if problem.kind == "copied leak"}
    assert leaks == {"film1", "anew", "mirrored"}
    within = [problem for problem in found.problems if problem.kind == "copy"]
    assert [Path(problem.path).stem for problem in within] == ["anew"]
    assert within[0].kept
    assert {Path(sample.path).stem for sample in found.usable.samples} == {"film2", "film3", "film4", "cut"}


def test_check_command_names_copies_unless_told_not_to(films: Path, tmp_path: Path) -> None:
    done = run("data", "check", films / "list.csv", "--scenes", "off", "-o", tmp_path / "out")
    assert done.returncode == 3
    assert "copy of footage in another part of the split" in done.stdout
    copies = json.loads((tmp_path / "out" / "report.json").read_text())["copies"]
    assert {"first", "first_start_s", "second", "second_start_s", "length_s", "mirrored", "likeness"} == set(copies[0])
    off = run("data", "check", films / "list.csv", "--scenes", "off", "--no-copies", "-o", tmp_path / "off")
    report = json.loads((tmp_path / "off" / "report.json").read_text())
    assert report["copies"] is None
    assert "copied leak" not in report["counts"]
    assert "copy of footage" not in off.stdout


def test_copies_in_one_part_alone_fail_no_check(films: Path, tmp_path: Path) -> None:
    labels = {"film1": "wave", "anew": "wave", "film2": "jump", "film3": "jump"}
    lines = [f"{films / name}.mp4,{label}" for name, label in labels.items()]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *lines, ""]))
    done = run("data", "check", tmp_path / "list.csv", "--scenes", "off", "-o", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["counts"] == {"copy": 1}
    assert "copy of footage in the same part" in done.stdout
    assert done.returncode == 0, done.stderr


def test_a_split_keeps_copies_together(films: Path) -> None:
    *_, keys = with_copies(read_data(films / "list.csv"), {})
    assert isinstance(keys, dict)
    assert {Path(path).stem for path in keys} == {"film1", "anew", "cut", "mirrored"}
    assert len(set(keys.values())) == 1


def test_still_and_missing_footprints_match_nothing() -> None:
    still = np.full((1, 30, 16, 16), 20_000, np.uint16)
    assert find_copies([still, still, None], ["a", "b", "c"]) == []
    assert find_copies([], []) == []


def test_too_much_footage_is_said() -> None:
    long = np.broadcast_to(np.zeros((1, 1, 1, 1), np.uint16), (1, MOST_STEPS + 1, 16, 16))
    assert copies_among({0: long}, ["a"]) is None
    assert lines_on(None, sought=True) == [
        "copies are looked for in at most 27 hours of video, and there are more: not compared"
    ]
