"""Clips of one scene stay together where the data name no groups, and nothing is proposed that leaves nothing to measure with."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from fewframes.core.natural import in_natural_order
from fewframes.data.check import Inspection, inspect
from fewframes.data.config import DataConfig
from fewframes.data.dataset import VideoSet, hold_out, read_data
from fewframes.data.layouts import Sample
from fewframes.data.scenes.groups import (
    Scenes,
    find_scenes,
    grouped_by,
    thumbnails_of,
    with_scenes,
    words_on_groups,
)
from fewframes.data.scenes.likeness import BLOCK, SIZE_PX, join, outlines_of, scenes_of, thumbnail_of
from helpers.commands import run

NUM_SCENES, CLIPS_OF_ONE = 6, 4


def write_scene(path: Path, scene: int, clip: int) -> None:
    """A clip before a wall of noise that the scene chooses; a bright box, elsewhere in each clip and scene, is the actor."""
    rng = np.random.default_rng(scene)
    wall = rng.integers(40, 200, (24, 32, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = wall.shape[1], wall.shape[0], "yuv420p"
        for number in range(20):
            pixels = np.clip(wall.astype(np.int16) + 5 * clip, 0, 255).astype(np.uint8)
            left, top = (23 * clip + 31 * scene + 2 * number) % 110, (17 * clip + 37 * scene) % 60
            pixels[top : top + 30, left : left + 16] = 240
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two actions in six scenes, four clips of each scene."""
    root = tmp_path_factory.mktemp("places")
    for label in ("hug", "kick"):
        (root / label).mkdir()
    for scene in range(NUM_SCENES):
        for clip in range(CLIPS_OF_ONE):
            write_scene(root / ("hug", "kick")[clip % 2] / f"{scene}_{clip}.mp4", scene, clip)
    return root


def place_of(sample: Sample) -> str:
    return Path(sample.path).name.split("_")[0]


def test_background_videos_are_no_action_with_a_scene() -> None:
    """Two actions of one scene each cannot be parted by scenes, however many scenes the background has."""
    samples = [
        Sample(path=f"{label}{number}.mp4", labels=(label,)) for label in ("hug", "kick") for number in range(10)
    ]
    actions = VideoSet(tuple(samples), "actions")
    samples += [Sample(path=f"nothing{number}.mp4", labels=("background",)) for number in range(8)]
    data = VideoSet(tuple(samples), "with background")
    scenes = (*[0] * 10, *[10] * 10, 20, 20, 22, 22, 24, 24, 26, 26)
    grouped = grouped_by(data, Scenes(scenes, 0), 0.25)
    assert {sample.group for sample in grouped.samples} == {""}
    assert "20 videos show 2 scenes, too few to leave one out" in grouped.notes[-1]
    assert grouped.notes[-1] == grouped_by(actions, Scenes(scenes[:20], 0), 0.25).notes[-1]
    training, held = hold_out(grouped.split_background()[0], 0.25, 0)
    assert training
    assert held


def found_in(data: VideoSet) -> Scenes:
    *done, thumbnails = thumbnails_of(data)
    assert done[-1] == len(data.samples)
    assert isinstance(thumbnails, list)
    return find_scenes(data, thumbnails)


def grid(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(30, 220, (32, 32), dtype=np.uint8)
    return small.repeat(SIZE_PX // 32, 0).repeat(SIZE_PX // 32, 1)


def test_outlines_are_alike_in_other_light_and_not_in_other_places() -> None:
    wall, other = grid(0), grid(1)
    vectors = outlines_of(np.stack([wall, (wall * 0.7 + 20).astype(np.uint8), other, np.full_like(wall, 90)]))
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > 0.95
    assert abs(likeness[0, 2]) < 0.1
    assert (likeness[3] == 0).all(), "a flat picture is like nothing"


def test_black_bars_make_no_scene() -> None:
    pictures = np.stack([grid(seed) for seed in range(6)])
    pictures[:, :8] = pictures[:, -8:] = 0
    assert len(set(scenes_of(pictures))) == 6


def test_scenes_over_several_blocks_and_through_a_third_clip() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(30, 220, (BLOCK + 40, SIZE_PX, SIZE_PX), dtype=np.uint8)
    pictures[BLOCK + 10] = pictures[3]
    pictures[BLOCK + 20] = ((pictures[3].astype(int) + pictures[7]) // 2).astype(np.uint8)  # both places in one picture
    scene_B = scenes_of(pictures)
    assert scene_B[3] == scene_B[7] == scene_B[BLOCK + 10] == scene_B[BLOCK + 20] == 3
    assert len(set(scene_B)) == len(pictures) - 3
    join(scene_B, [0, 1])
    assert scene_B[1] == 0


def test_thumbnail_is_grey() -> None:
    frame = np.zeros((3, 90, 160), np.uint8)
    frame[0] = 90
    assert thumbnail_of(frame).shape == (SIZE_PX, SIZE_PX)
    assert (thumbnail_of(frame) == 30).all()


def test_scenes_are_proposed_and_divide_the_data(places: Path) -> None:
    data = read_data(places)
    grouped = with_scenes(data, DataConfig(), 0.2)
    scenes = {(place_of(sample), sample.group) for sample in grouped.samples}
    assert len(scenes) == NUM_SCENES
    assert len({group for _, group in scenes}) == NUM_SCENES
    assert grouped.notes[-1].startswith("the data name no groups, so 6 scenes found in 24 videos")
    assert "--scenes off" in grouped.notes[-1]
    training, held = hold_out(grouped, 0.2, 0)
    assert held
    assert not {place_of(data.samples[row]) for row in held} & {place_of(data.samples[row]) for row in training}
    assert with_scenes(grouped, DataConfig(), 0.2) is grouped


def test_turned_off_or_named_groups_are_left_as_they_are(places: Path) -> None:
    data = read_data(places)
    assert with_scenes(data, DataConfig(scenes="off"), 0.2) is data
    named = replace(data, samples=tuple(replace(sample, group="day 1") for sample in data.samples))
    assert with_scenes(named, DataConfig(), 0.2) is named


def test_one_scene_is_not_proposed(places: Path) -> None:
    data = read_data(places)
    rows = [row for row, sample in enumerate(data.samples) if place_of(sample) == "0"]
    alone = with_scenes(data.subset(rows), DataConfig(), 0.2)
    assert {sample.group for sample in alone.samples} == {""}
    assert alone.notes[-1].startswith("4 videos show 1 scene, too few to leave one out")
    assert "for these scenes only" in alone.notes[-1]


def test_most_in_one_scene_is_not_proposed() -> None:
    data = VideoSet(tuple(Sample(path=f"{row}.mp4", labels=("ab"[row % 2],)) for row in range(20)), "data")
    grouped = grouped_by(data, Scenes((0,) * 12 + (12, 12, 14, 14, 16, 16, 18, 18), 0), 0.2)
    assert grouped.samples == data.samples
    assert grouped.notes[-1].startswith("12 of 20 videos show one scene")


def test_an_action_that_is_a_scene_is_told() -> None:
    each_two = tuple(row - row % 2 for row in range(12))
    own = VideoSet(tuple(Sample(path=f"{row}.mp4", labels=("abcdef"[row // 2],)) for row in range(12)), "data")
    refused = grouped_by(own, Scenes(each_two, 0), 0.2)
    assert refused.samples == own.samples
    assert refused.notes[-1].startswith("each action has a scene of its own")
    some = replace(own, samples=tuple(replace(it, labels=("aabbcd"[row // 2],)) for row, it in enumerate(own.samples)))
    taken = grouped_by(some, Scenes(each_two, 0), 0.0)
    assert len({sample.group for sample in taken.samples}) == 6
    assert "all videos of c, d show one scene" in taken.notes[-1]


def test_scenes_that_cannot_be_held_out_are_not_proposed() -> None:
    data = VideoSet(tuple(Sample(path=f"{row}.mp4", labels=("ab"[row % 2],)) for row in range(40)), "data")
    scenes = Scenes(tuple(row - row % 8 for row in range(40)), 0)
    assert len({sample.group for sample in grouped_by(data, scenes, 0.2).samples}) == 5
    refused = grouped_by(data, scenes, 0.05)
    assert refused.samples == data.samples
    assert "none can be held out without far more than 5%" in refused.notes[-1]


def test_unreadable_clips_are_by_themselves(places: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    data = read_data(places)
    bad = ("text.mp4", "none.mp4")
    extra = tuple(Sample(path=str(tmp_path / name), labels=("hug",)) for name in bad)
    beyond = replace(data.samples[0], start_s=99.0, end_s=100.0)  # of a file whose other sample is seen
    elsewhere = Sample(path="https://nowhere.invalid/a.mp4", labels=("kick",))
    more = replace(data, samples=(*data.samples, *extra, beyond, elsewhere))
    scenes = found_in(more)
    assert scenes.num_unseen == 4
    assert scenes.of_rows[24:] == (24, 25, scenes.of_rows[0], 27)
    assert scenes.of_rows[:24] == found_in(data).of_rows
    assert [sample.group for sample in grouped_by(more, scenes, 0.2).samples[24:26]] == ["", ""]


def test_too_many_videos_are_not_looked_at(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewframes.data.scenes.groups.MOST_VIDEOS", 20)
    data = read_data(places)
    found = with_scenes(data, DataConfig(), 0.25)
    assert found.samples == data.samples
    assert found.scenes_sought
    assert "at most 20 videos, and there are 24: name groups" in found.notes[-1]
    *_, inspection = inspect(data, scenes=True)
    assert isinstance(inspection, Inspection)
    assert inspection.scenes is None
    assert "name groups" in inspection.scene_lines()[0]
    assert "name groups" in str(inspection.to_dict()["notes"])


def test_no_clip_is_seen_and_one_clip() -> None:
    missing = VideoSet(tuple(Sample(path=f"none{row}.mp4", labels=("ab"[row],)) for row in range(2)), "data")
    looked = with_scenes(missing, DataConfig(), 0.2)
    assert looked.samples == missing.samples
    assert looked.notes == ()
    assert find_scenes(missing.subset([0]), [None]) == Scenes((0,), 1)


def test_a_named_split_stays_and_is_warned_of(places: Path) -> None:
    data = read_data(places)
    split = replace(
        data,
        samples=tuple(
            replace(sample, split="test" if Path(sample.path).stem.endswith("3") else "train")
            for sample in data.samples
        ),
    )
    grouped = with_scenes(split, DataConfig(), 0.2)
    assert "6 of 6 held-out videos show a scene of the training videos" in grouped.notes[0]
    training, held = hold_out(grouped, 0.2, 0)  # no group is on both sides
    assert (len(training), len(held)) == (18, 6)


def test_check_tells_scenes_and_writes_groups(places: Path, tmp_path: Path) -> None:
    result = run("data", "check", places, "--frames", "8", "-o", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "6 scenes in 24 usable videos" in result.stderr
    assert "4 videos of one scene: 0_0.mp4" in result.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["scenes"]["found"] == 6
    paths = [{Path(path).name[0] for path in scene["paths"]} for scene in report["scenes"]["of_several_videos"]]
    assert paths == [{str(scene)} for scene in range(6)]
    assert report["actions"]["hug"]["groups"] == 6
    with (tmp_path / "clean.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({(Path(row["path"]).name[0], row["group"]) for row in rows}) == len({row["group"] for row in rows}) == 6
    off = run("data", "check", places, "--frames", "8", "--scenes", "off", "-o", tmp_path)
    assert " scene" not in off.stderr
    assert json.loads((tmp_path / "report.json").read_text())["scenes"] is None


def test_check_warns_of_a_scene_in_two_groups(places: Path) -> None:
    data = read_data(places)
    named = replace(
        data,
        samples=tuple(replace(it, group=f"g{place_of(it)}" if i else "other") for i, it in enumerate(data.samples)),
    )
    *_, inspection = inspect(named, num_frames=8, scenes=True)
    assert isinstance(inspection, Inspection)
    assert inspection.usable.samples == named.samples
    assert inspection.scene_notes[0].startswith("1 scene found in several groups, such as 0_0.mp4 and 0_2.mp4")
    assert words_on_groups(named.subset(range(1, 24)), found_in(named).subset(range(1, 24))) == ""


def test_split_by_scenes(places: Path, tmp_path: Path) -> None:
    result = run("data", "split", places, "-o", tmp_path / "list.csv")
    assert result.returncode == 0, result.stderr
    assert "6 scenes found in 24 videos" in result.stderr
    with (tmp_path / "list.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    parts = {(Path(row["path"]).name[0], row["split"]) for row in rows}
    assert len(parts) == 6
    off = run("data", "split", places, "--scenes", "off", "-o", tmp_path / "off.csv")
    assert off.returncode == 0, off.stderr
    assert " scene" not in off.stderr
    with (tmp_path / "off.csv").open(newline="") as file:
        assert {row["group"] for row in csv.DictReader(file)} == {""}


@pytest.mark.parametrize("head", ["trained", "solved"])
def test_training_leaves_out_scenes(places: Path, tiny_model: Path, tmp_path: Path, head: str) -> None:
    short: list[str | Path] = ["--epochs", "1"] if head == "trained" else []
    options: list[str | Path] = ["--model", tiny_model, "--head", head, "--no-cache", *short]
    result = run("train", places, *options, "-o", tmp_path / "model")
    assert result.returncode == 0, result.stderr
    assert "6 scenes found in 24 videos are taken" in result.stderr
    with (tmp_path / "model" / "predictions.csv").open(newline="") as file:
        predicted = [Path(row["source"]).name[0] for row in csv.DictReader(file)]
    counts = {scene: predicted.count(scene) for scene in in_natural_order(set(predicted))}
    assert set(counts.values()) == {CLIPS_OF_ONE}, "whole scenes are held out"
    assert len(counts) == (NUM_SCENES if head == "solved" else 1)
