"""The same footage is found encoded anew, cut, mirrored or framed, and other footage of the same camera is not."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from numpy.typing import NDArray

from fewframes.core.cache import EmbeddingCache
from fewframes.data.check import Inspection, inspect
from fewframes.data.copies.footprint import LEVELS, SIDE_PX, STEP_S, footprint_of
from fewframes.data.copies.found import Copy, copied_rows, grouped_copies, joined, with_copies
from fewframes.data.copies.matching import find_copies
from fewframes.data.copies.search import MOST_VIDEOS, copies_of, too_many
from fewframes.data.dataset import VideoSet, read_data
from fewframes.data.samples import Sample
from fewframes.data.splits import contents_of, split
from fewframes.video.source import open_video
from helpers.commands import run

Picture = NDArray[np.uint8]
RATE = 25


def scenery(place: int) -> Picture:
    wall = np.random.default_rng(place).integers(60, 180, (24, 32, 3), dtype=np.uint8)
    return wall.repeat(4, 0).repeat(4, 1)


def footage(take: int, seconds: float, place: int = 0) -> list[Picture]:
    """Pictures of a place before which three boxes walk about, elsewhere in each take."""
    rng = np.random.default_rng(100 + take)
    corners = rng.uniform(0, 1, (3, round(seconds) + 3, 2))
    pictures = []
    for number in range(round(seconds * RATE)):
        pixels = scenery(place).copy()
        for box, walk in enumerate(corners):
            before, part = divmod(number / RATE, 1)
            top, left = ((1 - part) * walk[int(before)] + part * walk[int(before) + 1]) * (66, 98)
            pixels[int(top) : int(top) + 30, int(left) : int(left) + 30] = (250, 10, 120)[box]
        pictures.append(pixels)
    return pictures


def write(path: Path, pictures: list[Picture], codec: str = "libx264", rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        options = {"crf": "35"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=rate, options=options)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = (side // 2 * 2 for side in pictures[0].shape[:2])
        stream.pix_fmt = "yuv420p"
        for pixels in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(stream.encode())
    return path


def in_other_light(pixels: Picture) -> Picture:
    return np.clip((pixels.astype(np.float32) - 128) * 0.7 + 150, 0, 255).astype(np.uint8)


def with_bars(pixels: Picture) -> Picture:
    return np.pad(pixels, ((12, 12), (0, 0), (0, 0)))


def with_writing(pixels: Picture) -> Picture:
    written = pixels.copy()
    written[4:14, 4:60:3] = 255
    return written


CHANGES: dict[str, Callable[[Picture], Picture]] = {
    "half as wide": lambda pixels: pixels[::2, ::2],
    "mirrored": lambda pixels: pixels[:, ::-1],
    "light": in_other_light,
    "bars": with_bars,
    "border": lambda pixels: np.pad(pixels, ((6, 6), (6, 6), (0, 0)), constant_values=255),
    "writing": with_writing,
    "all": lambda pixels: with_bars(with_writing(in_other_light(pixels[:, ::-1]))),
}


def found_in(*paths: Path, cache: EmbeddingCache | None = None) -> list[Copy]:
    data = VideoSet(tuple(Sample(path=str(path), labels=("hug",)) for path in paths), "copies")
    *_, contents = contents_of(data)
    assert isinstance(contents, dict)
    *done, copies = copies_of(data, contents, cache)
    assert done[-1] == len(paths)
    assert isinstance(copies, list)
    return copies


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_another_take_is_not(change: str, tmp_path: Path) -> None:
    pictures = footage(0, 4)
    original = write(tmp_path / "original.mp4", pictures)
    copy = write(tmp_path / "copy.avi", [CHANGES[change](pixels) for pixels in pictures], "mpeg4")
    other = write(tmp_path / "other.mp4", footage(1, 4))
    (found,) = found_in(original, other, copy)
    assert (found.first, found.second) == (0, 2)
    assert found.mirrored == (change in ("mirrored", "all"))
    assert found.first_s == found.second_s == 0
    assert found.length_s == pytest.approx(4, abs=0.2)


def test_a_cut_is_found_where_it_was_cut(tmp_path: Path) -> None:
    pictures = footage(2, 6)
    whole = write(tmp_path / "whole.mp4", pictures)
    begin = write(tmp_path / "begin.avi", pictures[: 2 * RATE], "mpeg4")
    end = write(tmp_path / "end.mp4", [pixels[:, ::-1] for pixels in pictures[-2 * RATE :]])
    slower = write(tmp_path / "slower.mp4", [pictures[int(number * RATE / 12)] for number in range(24, 48)], rate=12)
    found = {(copy.first, copy.second): copy for copy in found_in(whole, begin, end, slower)}
    assert set(found) == {(0, 1), (0, 2), (0, 3)}
    assert [found[0, second].first_s for second in (1, 2, 3)] == pytest.approx([0, 4, 2], abs=0.11)
    assert [found[0, second].mirrored for second in (1, 2, 3)] == [False, True, False]
    assert [found[0, second].length_s for second in (1, 2, 3)] == pytest.approx([2, 2, 2], abs=0.21)


def test_a_room_in_which_nothing_moves_is_no_copy(tmp_path: Path) -> None:
    empty = [scenery(3)] * 50
    assert found_in(write(tmp_path / "a.mp4", empty), write(tmp_path / "b.avi", empty[:40], "mpeg4")) == []


def test_a_footprint_is_the_picture_inside_its_borders(tmp_path: Path) -> None:
    pictures = footage(4, 2)
    paths = [
        write(tmp_path / "plain.mp4", pictures),
        write(tmp_path / "bars.mp4", [with_bars(pixels) for pixels in pictures]),
    ]
    footprints = []
    for path in paths:
        with closing(open_video(path)) as video:
            footprints.append(footprint_of(video, 0, video.duration_s))
    plain, bars = footprints
    assert plain.shape == (1, round(2 / STEP_S), SIDE_PX, SIDE_PX)
    assert bars.shape == (2, round(2 / STEP_S), SIDE_PX, SIDE_PX)
    inside, around = (np.abs(view / LEVELS - plain[0] / LEVELS).mean() for view in (bars[1], bars[0]))
    assert inside < 6 < 20 < around


def test_footprints_are_cached_by_content(tmp_path: Path) -> None:
    pictures = footage(5, 3)
    paths = write(tmp_path / "a.mp4", pictures), write(tmp_path / "b.avi", pictures, "mpeg4")
    first, again = EmbeddingCache(tmp_path / "cache"), EmbeddingCache(tmp_path / "cache")
    found = found_in(*paths, cache=first)
    paths[0].rename(tmp_path / "renamed.mp4")
    assert found_in(tmp_path / "renamed.mp4", paths[1], cache=again) == found != []
    assert (first.num_found, again.num_found) == (0, 2)


def test_damaged_files_and_urls_are_passed_over(tmp_path: Path) -> None:
    pictures = footage(6, 2)
    good = write(tmp_path / "good.mp4", pictures)
    (tmp_path / "text.mp4").write_text("no video")
    copy = write(tmp_path / "copy.avi", pictures, "mpeg4")
    found = found_in(good, tmp_path / "text.mp4", tmp_path / "none.mp4", copy)
    assert [(pair.first, pair.second) for pair in found] == [(0, 3)]


def test_parts_of_one_file_are_not_compared() -> None:
    rng = np.random.default_rng(0)
    footprint = rng.integers(0, 255 * LEVELS, (1, 30, SIDE_PX, SIDE_PX)).astype(np.uint16)
    assert find_copies([footprint, footprint], ["x", "x"]) == []
    assert [(copy.first, copy.second) for copy in find_copies([footprint, None, footprint], ["x", "y", "z"])] == [
        (0, 2)
    ]
    assert find_copies([], []) == []


def pair(first: int, second: int) -> Copy:
    return Copy(first=first, second=second, first_s=1, second_s=0, length_s=2, mirrored=False, likeness=0.9)


def rows_of(*parts: str) -> VideoSet:
    return VideoSet(
        tuple(Sample(path=f"/{number}", labels=("hug",), split=part) for number, part in enumerate(parts)), "rows"
    )


def test_the_highest_part_keeps_the_footage() -> None:
    data = rows_of("test", "train", "train", "val", "train")
    copies = [pair(0, 1), pair(1, 2), pair(0, 3)]
    named = list(copied_rows(data, copies, {"test": 2, "val": 1}))
    assert [(row, kind) for row, kind, _ in named] == [(1, "copied leak"), (2, "copy"), (3, "copied leak")]
    assert named[0][2] == "2.0 s from 0.0 s show what /0 (test), hug, shows from 1.0 s (likeness 0.90)"


def test_copies_are_one_group_and_join_the_groups_they_have() -> None:
    data = rows_of("", "", "", "", "")
    data = replace(
        data,
        samples=tuple(
            replace(sample, group=group) for sample, group in zip(data.samples, ["a", "a", "b", "", ""], strict=True)
        ),
    )
    assert joined(5, [pair(1, 2), pair(3, 4)]) == [0, 1, 1, 3, 3]
    groups = grouped_copies(data, [pair(1, 2)]).groups()
    assert groups[0] == groups[1] == groups[2]
    assert len({groups[0], groups[3], groups[4]}) == 3
    assert grouped_copies(data, []) == data


def test_a_split_never_parts_copies() -> None:
    samples = [Sample(path=f"/{number}", labels=(("hug", "kick")[number % 2],)) for number in range(16)]
    data = VideoSet(tuple(samples), "rows")
    contents = {sample.path: sample.path for sample in samples[:15]}
    keys = with_copies(contents, data, [pair(0, 1), pair(1, 5), pair(6, 7)])
    assert keys["/0"] == keys["/1"] == keys["/5"] != keys["/6"] == keys["/7"]
    assert len(set(keys.values())) == 12
    assert set(keys) == set(contents), "a file that could not be read has no key"
    for seed in range(5):
        parts = [sample.split for sample in split(data, 0.3, 0, seed, keys).samples]
        assert parts[0] == parts[1] == parts[5]
        assert parts[6] == parts[7]


def test_too_many_videos_are_not_compared() -> None:
    assert too_many(MOST_VIDEOS) == ""
    assert "at most 20,000 videos, and there are 20,001" in too_many(MOST_VIDEOS + 1)


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two actions with copies: of a test video in training, cut and mirrored, and of a training video in training."""
    root = tmp_path_factory.mktemp("copied")
    for take in range(8):
        write(root / f"{take}.mp4", footage(20 + take, 3, place=take))
    write(root / "leaked.avi", [pixels[:, ::-1] for pixels in footage(20, 3, place=0)[RATE:]], "mpeg4")
    write(root / "again.avi", [in_other_light(pixels) for pixels in footage(27, 3, place=7)], "mpeg4")
    rows = [(f"{take}.mp4", ("hug", "kick")[take % 2], "test" if take < 2 else "train") for take in range(8)]
    rows += [("leaked.avi", "hug", "train"), ("again.avi", "kick", "train")]
    with (root / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return root


def inspected(root: Path, **options: bool) -> Inspection:
    *_, found = inspect(read_data(root / "list.csv"), **options)
    assert isinstance(found, Inspection)
    return found


def test_check_names_copies_and_drops_those_that_leak(copied: Path) -> None:
    found = inspected(copied, copies=True)
    assert [(Path(problem.path).name, problem.kind, problem.kept) for problem in found.problems] == [
        ("leaked.avi", "copied leak", False),
        ("again.avi", "copy", True),
    ]
    assert "shows from 1.0 s, mirrored" in found.problems[0].reason
    names = [Path(sample.path).name for sample in found.usable.samples]
    assert "leaked.avi" not in names
    groups = dict(zip(names, found.usable.groups(), strict=True))
    assert groups["again.avi"] == groups["7.mp4"]
    assert len(set(groups.values())) == 8
    without = inspected(copied)
    assert without.problems == ()
    assert without.to_dict()["copies"] is None


def test_the_commands_find_copies(copied: Path, tmp_path: Path) -> None:
    cache = {"FEWFRAMES_CACHE": str(tmp_path / "cache")}
    done = run("data", "check", copied / "list.csv", "-o", tmp_path / "checked", **cache)
    assert done.returncode == 3, done.stderr
    assert "same footage in another part of the split" in done.stdout
    report = json.loads((tmp_path / "checked" / "report.json").read_text())
    assert report["counts"] == {"copied leak": 1, "copy": 1}
    mirrored, plain = report["copies"]
    assert [Path(path).name for path in mirrored["paths"]] == ["0.mp4", "leaked.avi"]
    assert mirrored["splits"] == ["test", "train"]
    assert mirrored["start_s"] == pytest.approx([1, 0], abs=0.11)
    assert (mirrored["mirrored"], plain["mirrored"]) == (True, False)
    assert mirrored["likeness"] > 0.6
    assert (tmp_path / "cache" / "footprints").is_dir()

    done = run("data", "check", copied / "list.csv", "-o", tmp_path / "checked", "--no-copies", **cache)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "checked" / "report.json").read_text())["copies"] is None

    split_to = tmp_path / "split.csv"
    done = run("data", "split", copied / "list.csv", "--again", "--share", "0.3", "-o", split_to, **cache)
    assert done.returncode == 0, done.stderr
    assert "2 pairs of videos show the same footage, and stay together" in done.stderr
    with split_to.open(newline="") as file:
        parts = {Path(row["path"]).name: row["split"] for row in csv.DictReader(file)}
    assert parts["leaked.avi"] == parts["0.mp4"]
    assert parts["again.avi"] == parts["7.mp4"]
    done = run("data", "split", copied / "list.csv", "--again", "--no-copies", "-o", tmp_path / "2.csv", **cache)
    assert "same footage" not in done.stderr
