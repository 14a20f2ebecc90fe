"""Every fault of a data set is named once, the clean list holds what is usable, and training reads it."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import av
import pytest
from PIL import Image

from fewframes.data.check import Inspection, SampleCheck, inspect, inspection_of
from fewframes.data.config import DataConfig
from fewframes.data.dataset import VideoSet, hold_out, read_data
from fewframes.data.layouts import Sample
from fewframes.errors import VideoError
from fewframes.video.source import open_video
from helpers.commands import run
from helpers.numbered import Numbered, write_fading
from helpers.videos import write_sound


def inspected(data: VideoSet, **options: object) -> Inspection:
    *done, inspection = inspect(data, **options)  # type: ignore[arg-type]
    assert done[-1] == len(data.samples)
    assert isinstance(inspection, Inspection)
    return inspection


def kinds(inspection: Inspection) -> dict[str, str]:
    return {Path(problem.path).name or problem.label: problem.kind for problem in inspection.problems}


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list with every fault there is, and six sound videos of two actions."""
    root = tmp_path_factory.mktemp("messy")
    for index in range(8):
        write_fading(root / f"{index}.mp4", 20 + index, turned=index % 2 == 1)
    write_fading(root / "short.mp4", 9, turned=False)
    (root / "text.mp4").write_text("no video")
    (root / "empty.mp4").touch()
    write_sound(root / "sound.mp4")
    cut = Numbered(suffix=".avi", codec="mpeg4", times_ms=range(0, 8000, 40)).write(root / "cut")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    for source, copy in (("0", "again"), ("1", "leaked"), ("2", "other label")):
        shutil.copy(root / f"{source}.mp4", root / f"{copy}.mp4")
    rows = [
        *((f"{index}.mp4", ("hug", "kick, high")[index % 2], "test" if index < 2 else "train", f"g{index}") for index in range(8)),
        ("short.mp4", "hug", "train", ""),
        ("none.mp4", "hug", "train", ""),
        ("text.mp4", "hug", "train", ""),
        ("empty.mp4", "hug", "test", ""),
        ("sound.mp4", "hug", "train", ""),
        ("cut.avi", "hug", "train", ""),
        ("again.mp4", "hug", "test", ""),
        ("leaked.mp4", "kick, high", "train", ""),
        ("other label.mp4", "kick, high", "train", ""),
        ("4.mp4", "hug", "train", "g4"),
        ("sound.mp4", "wave", "train", ""),
    ]  # fmt: skip
    rows[3] = ("3.mp4", "kick, high", "train", "g1")  # g1 is tested
    with (root / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split", "group"), *rows])
    return root


def test_every_fault_is_named(messy: Path) -> None:
    found = inspected(read_data(messy / "list.csv"))
    assert kinds(found) == {
        "none.mp4": "missing",
        "text.mp4": "failed",
        "empty.mp4": "failed",
        "sound.mp4": "failed",
        "cut.avi": "failed",
        "2.mp4": "contradiction",
        "other label.mp4": "contradiction",
        "leaked.mp4": "leak",
        "again.mp4": "duplicate",
        "4.mp4": "duplicate",
        "3.mp4": "group leak",
        "short.mp4": "short",
        "wave": "lost action",
    }
    reasons = {problem.kind: problem.reason for problem in found.problems}
    assert reasons["missing"] == "no such file; check the path"
    assert reasons["leak"] == f"the same as {messy / '1.mp4'} (test), kick, high"
    assert reasons["duplicate"] == f"the same as {messy / '4.mp4'} (train), hug"
    assert reasons["group leak"] == "in train, but its group 'g1' is in test too"
    assert reasons["short"] == "9 distinct frames, but a model takes 16"
    failed = {Path(problem.path).name: problem.reason for problem in found.problems if problem.kind == "failed"}
    assert failed["sound.mp4"] == "no video stream (found: 1 audio stream); pass a file with pictures"
    assert "cut short or damaged" in failed["cut.avi"]
    assert "text that begin b'no video'" in failed["text.mp4"]
    usable = [Path(sample.path).stem for sample in found.usable.samples]
    assert usable == ["0", "1", "4", "5", "6", "7", "short"]
    assert found.to_dict()["failed"] == 5  # rows: the sound has two
    assert (found.to_dict()["readable"], found.to_dict()["missing"]) == (13, 1)


def test_a_recording_whose_clock_jumps_is_usable(tmp_path: Path) -> None:
    times_ms = [40 * number + (3_600_000 if number >= 30 else 0) for number in range(60)]
    path = Numbered(suffix=".mkv", bframes=0, times_ms=times_ms).write(tmp_path / "jumps")
    samples = (
        Sample(path=str(path), labels=("hug",)),
        Sample(path=str(path), labels=("hug",), start_s=10.0, end_s=20.0),
    )
    found = inspected(VideoSet(samples=samples, layout="list", name="clips"))
    assert [problem.kind for problem in found.problems if problem.row is not None] == ["failed"]
    assert "between 10 s and 20 s nothing was recorded" in found.problems[0].reason


def test_too_short_stays_unless_told(messy: Path) -> None:
    data = read_data(messy / "list.csv")
    assert "short" not in inspected(data, num_frames=8).counts
    dropped = inspected(data, drop_short=True, min_s=0.9)  # 20, 21 and 22 frames at 25 a second last 0.80 to 0.88 s
    assert [Path(sample.path).stem for sample in dropped.usable.samples] == ["3", "4", "5", "6", "7"]
    assert "0.80 s, less than 0.9 s" in {problem.reason for problem in dropped.problems}


def test_a_sound_set_is_clean(tmp_path: Path) -> None:
    for label, turned in (("a", False), ("b", True)):
        for index in range(2):
            (tmp_path / label).mkdir(exist_ok=True)
            write_fading(tmp_path / label / f"{index}.mp4", 20 + index, turned=turned)
        frames = tmp_path / label / "pictures"
        frames.mkdir()
        for number in range(16):
            Image.new("RGB", (8, 8), (10 * number, 0, 99 * turned)).save(frames / f"{number:02}.png")
    found = inspected(read_data(tmp_path), thorough=True)
    assert (found.problems, len(found.usable.samples)) == ((), 6)
    (tmp_path / "a" / "pictures" / "03.png").write_bytes(b"x")
    assert kinds(inspected(read_data(tmp_path), thorough=True)) == {"pictures": "failed"}


def damage_packet(path: Path, number: int) -> None:
    """Overwrite the middle of one packet."""
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][number]
        assert packet.pos is not None
        start, size = packet.pos + 24, packet.size - 24
    content = bytearray(path.read_bytes())
    content[start : start + size] = b"\xff" * size
    path.write_bytes(content)


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".mp4"), ("mpeg4", ".avi"), ("mjpeg", ".avi")])
def test_thorough_finds_what_lies_between_the_frames_looked_at(codec: str, suffix: str, tmp_path: Path) -> None:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    video = Numbered(codec=codec, suffix=suffix, pix_fmt=pix_fmt, gop=1, times_ms=range(0, 8000, 40))
    data = VideoSet((Sample(path=str(video.write(tmp_path / "x")), labels=("hug",)),), "one")
    assert "failed" not in inspected(data, thorough=True).counts
    damage_packet(Path(data.samples[0].path), 60)  # frames 56 and 68 are looked at
    assert "failed" not in inspected(data).counts
    assert kinds(inspected(data, thorough=True))[f"x{suffix}"] == "failed"
    with closing(open_video(data.samples[0].path)) as opened:
        opened.check(0.0, 2.3)
        opened.check(2.6, 8.0)
        with pytest.raises(VideoError, match="damaged|cannot be decoded"):
            opened.check(2.0, 3.0)


def seen(*moments: tuple[str, float, float]) -> list[SampleCheck]:
    return [SampleCheck(content=content, start_s=start, end_s=end, num_distinct=16) for content, start, end in moments]


def judged(rows: Sequence[tuple[str, str, str]], looks: list[SampleCheck]) -> tuple[dict[str, str], list[str]]:
    samples = tuple(
        Sample(path=f"/{n}", labels=(label,), split=part, group=group) for n, (label, part, group) in enumerate(rows)
    )
    found = inspection_of(VideoSet(samples, "rows"), looks)
    of_videos = {problem.path: problem.kind for problem in found.problems if problem.path}
    return of_videos, [sample.path for sample in found.usable.samples]


def test_the_highest_part_keeps_a_shared_video() -> None:
    rows = [("a", "train", ""), ("a", "test", ""), ("a", "val", ""), ("a", "test", "")]
    assert judged(rows, seen(*[("x", 0, 1)] * 4)) == ({"/0": "leak", "/2": "leak", "/3": "duplicate"}, ["/1"])


def test_other_moments_of_a_file_are_no_duplicates_but_leak() -> None:
    moments = seen(("x", 0, 1), ("x", 1, 2), ("x", 2, 3))
    assert judged([("a", "", "")] * 3, moments) == ({}, ["/0", "/1", "/2"])
    rows = [("a", "train", ""), ("b", "train", ""), ("b", "val", "")]
    assert judged(rows, moments) == ({"/0": "leak", "/1": "leak"}, ["/2"])


def test_labels_that_disagree() -> None:
    assert judged([("a", "", ""), ("b", "", ""), ("a", "", "")], seen(*[("x", 0, 1)] * 3)) == (
        {"/0": "contradiction", "/1": "contradiction", "/2": "contradiction"},
        [],
    )
    assert judged([("a", "train", ""), ("b", "test", "")], seen(*[("x", 0, 1)] * 2)) == (
        {"/0": "contradiction"},  # the test part stays as it is
        ["/1"],
    )


def test_actions_that_cannot_be_learned_or_judged() -> None:
    rows = [("a", "train", "1"), ("a", "train", "1"), ("b", "train", "2"), ("b", "test", "3"), ("c", "val", "4")]
    samples = tuple(
        Sample(path=f"/{n}", labels=(label,), split=part, group=group) for n, (label, part, group) in enumerate(rows)
    )
    found = inspection_of(VideoSet(samples, "rows"), seen(*((str(n), 0, 1) for n in range(5))))
    assert [(problem.kind, problem.label, problem.kept) for problem in found.problems] == [
        ("untrained action", "c", True),
        ("single group", "a", True),
    ]
    assert len(found.usable.samples) == 5


def test_what_is_left_can_be_trained_on(messy: Path) -> None:
    usable = inspected(read_data(messy / "list.csv")).usable
    training, held = hold_out(usable, 0.2, 0)  # refuses torn groups and actions without training videos
    assert (len(training), len(held)) == (5, 2)


def test_check_command(messy: Path, tmp_path: Path) -> None:
    done = run("data", "check", messy / "list.csv", "--output", tmp_path / "out")
    assert done.returncode == 3, done.stderr
    assert "13 readable, 5 failed, 1 missing" in done.stderr
    assert f"  {messy / 'none.mp4'} (hug): no such file; check the path" in done.stderr
    assert "  ... and 2 more, all in the report" in done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["cannot", "be", "decoded", "5", "5"] in lines
    assert ["too", "short", "1", "0"] in lines
    assert ["action", "videos", "train", "test", "groups"] in lines
    assert ["kick,", "high", "3", "2", "1", "3"] in lines
    values = json.loads((tmp_path / "out" / "report.json").read_text())
    assert values["counts"]["failed"] == 5
    assert values["actions"]["wave"] == {"listed": 1, "videos": 0, "groups": 0}
    assert len(values["problems"]) == sum(values["counts"].values()) == 14
    clean = read_data(tmp_path / "out" / "clean.csv")
    assert clean.samples == inspected(read_data(messy / "list.csv")).usable.samples
    assert values["usable"] == {"num_videos": 7, "fingerprint": clean.fingerprint()}

    again = run("data", "check", tmp_path / "out" / "clean.csv", "-o", tmp_path / "again", "--frames", "8")
    assert again.returncode == 0, again.stderr  # what was cleaned is clean
    assert (tmp_path / "again" / "clean.csv").read_text() == (tmp_path / "out" / "clean.csv").read_text()


def test_train_reads_the_clean_list_of_several_labels(tiny_model: Path, tmp_path: Path) -> None:
    labels = ["sit;walk", "walk", "", "sit;walk", 'say "a, b";sit', 'say "a, b"', "walk"]
    for index in range(6):
        write_fading(tmp_path / f"{index}.mp4", 20 + index, turned=False)
    with (tmp_path / "list.csv").open("w", newline="") as file:
        rows = [(f"{index}.mp4", cell, "test" if index < 2 else "train") for index, cell in enumerate(labels)]
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    done = run("data", "check", tmp_path / "list.csv", "-o", tmp_path / "out", "--task", "multilabel")
    assert done.returncode == 3, done.stderr  # the seventh is missing
    clean = tmp_path / "out" / "clean.csv"
    assert f"fewframes train {clean} --task multilabel --output MODEL" in done.stderr
    command: list[str | Path] = ["train", clean, "--task", "multilabel", "--output", tmp_path / "model", "--no-cache"]
    trained = run(*command, "--epochs", "1", "--model", tiny_model, "--device", "cpu", "--dtype", "float32")
    assert trained.returncode == 0, trained.stderr
    values = json.loads((tmp_path / "out" / "report.json").read_text())
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert metrics["data_fingerprint"] == values["usable"]["fingerprint"]
    assert read_data(clean, DataConfig(task="multilabel")).samples[2].labels == ()


def test_names_that_are_not_utf8_are_left_out(tmp_path: Path) -> None:
    for label, turned in (("a", False), ("b", True)):
        (tmp_path / "clips" / label).mkdir(parents=True)
        for index in range(2):
            write_fading(tmp_path / "clips" / label / f"{index}.mp4", 20 + index, turned=turned)
    odd = os.fsencode(tmp_path / "clips" / "a") + b"/caf\xe9.mp4"
    try:
        shutil.move(tmp_path / "clips" / "a" / "1.mp4", os.fsdecode(odd))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    done = run("data", "check", tmp_path / "clips", "-o", tmp_path / "out")
    assert done.returncode == 3, done.stderr
    assert "is not UTF-8, lists are; rename it" in done.stderr
    assert len(read_data(tmp_path / "out" / "clean.csv").samples) == 3
    split = run("data", "split", tmp_path / "clips", "-o", tmp_path / "list.csv")
    assert (split.returncode, "is not UTF-8, lists are; rename it" in split.stderr) == (1, True)
    assert not (tmp_path / "list.csv").exists()


def test_what_lies_among_the_videos_is_named(tmp_path: Path) -> None:
    for label in ("hug", "kick"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        for number in range(2):
            write_fading(
                tmp_path / "clips" / label / f"{number}.mp4", 20 + number + 5 * len(label), turned=label == "hug"
            )
    (tmp_path / "clips" / "hug" / "notes.txt").touch()
    clean = run("data", "check", tmp_path / "clips", "-o", tmp_path / "out")
    assert clean.returncode == 0, clean.stderr
    assert "left out: 1 no video by its ending (.txt 1)" in clean.stderr
    (tmp_path / "clips" / "wave").mkdir()
    (tmp_path / "clips" / "wave" / "a.zip").touch()
    (tmp_path / "clips" / "kick" / "far.mp4").symlink_to("nowhere.mp4")
    done = run("data", "check", tmp_path / "clips", "-o", tmp_path / "out")
    assert done.returncode == 3
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["counts"] == {"left out": 3}
    assert {(Path(left["path"]).name, left["reason"]) for left in report["left_out"]} == {
        ("notes.txt", "no video by its ending"),
        ("a.zip", "archive, unpack it"),
        ("wave", "a folder without a video"),
        ("far.mp4", "link to nothing"),
    }


def test_nothing_to_check(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label\na.mp4,hug\nb.mp4,kick\n")
    (tmp_path / "file").touch()
    for arguments, code, words in (
        (["/no/such", "-o", tmp_path / "out"], 1, "/no/such: no such folder or file"),
        ([tmp_path / "list.csv", "-o", tmp_path / "file"], 2, "file: not a folder that can be written to"),
        (
            [tmp_path / "list.csv", "-o", tmp_path / "out"],
            1,
            "list.csv: none of 2 videos is usable; --videos names their folder",
        ),
    ):
        done = run("data", "check", *arguments)  # type: ignore[arg-type]
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr
        assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "out" / "report.json").read_text())["missing"] == 2
    assert not (tmp_path / "out" / "clean.csv").exists()


def test_split_command(tmp_path: Path) -> None:
    for label, turned in (("a", False), ("b", True)):
        (tmp_path / "clips" / label).mkdir(parents=True)
        for index in range(6):
            write_fading(tmp_path / "clips" / label / f"{index}.mp4", 16 + index, turned=turned)
    shutil.copy(tmp_path / "clips" / "a" / "0.mp4", tmp_path / "clips" / "a" / "copy.mp4")
    once: list[str | Path] = ["data", "split", tmp_path / "clips", "-o", tmp_path / "out" / "list.csv"]
    done = run(*once, "--share", "0.34", "--seed", "2")
    assert done.returncode == 0, done.stderr
    assert "copies of other files, which stay with them: 1" in done.stderr
    assert ["b", "6", "4", "2", "6"] in [line.split() for line in done.stdout.splitlines()]
    data = read_data(tmp_path / "out" / "list.csv")
    parts = {Path(sample.path).name: sample.split for sample in data.samples if sample.labels == ("a",)}
    assert parts["0.mp4"] == parts["copy.mp4"]

    listed: list[str | Path] = [
        "data",
        "split",
        tmp_path / "out" / "list.csv",
        "-o",
        tmp_path / "out" / "fold.csv",
        "--folds",
        "3",
    ]
    for arguments, code, words in (
        (once, 2, "list.csv: is there already; take another name, or --overwrite"),
        (listed, 1, "is split already (test, train); --again splits it anew"),
        ([*once[:-1], tmp_path / "list.json"], 2, "needs a name that ends in .csv"),
        ([*listed, "--share", "0.2"], 2, "--folds and --share exclude each other"),
        ([*once, "--share", "0.8", "--val", "0.3"], 2, "together they must be above 0 and at most 0.95"),
    ):
        refused = run(*arguments)
        assert (refused.returncode, words in " ".join(refused.stderr.replace("│", " ").split())) == (code, True), (
            refused.stderr
        )
    assert run(*listed, "--again", "--no-content").returncode == 0
    tested = [
        sample.path
        for number in range(3)
        for sample in read_data(tmp_path / "out" / f"fold.fold{number}.csv").samples
        if sample.split == "test"
    ]
    assert sorted(tested) == sorted(sample.path for sample in data.samples)
