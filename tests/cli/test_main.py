"""The command line: data on standard output, words on standard error, exit codes that mean what they say."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fewframes import __version__
from fewframes.cli.help import LONGEST
from fewframes.cli.main import VERBS, Verbs, app
from helpers.commands import run
from helpers.numbered import drifting

NO_TORCH = "import sys; sys.modules['torch'] = None; from fewframes.cli.main import main; main()"


@pytest.fixture
def fast(tiny_model: Path) -> list[str]:
    return ["--model", str(tiny_model), "--device", "cpu", "--dtype", "float32"]


def test_help_and_models_need_no_torch() -> None:
    assert "predict" in run("--help", code=NO_TORCH).stdout
    assert run("--version", code=NO_TORCH).stdout.strip() == __version__
    listed = run("models", code=NO_TORCH)
    assert listed.returncode == 0, listed.stderr
    for expected in ("stam-16", "119.2 M", "281.6", "fewframes models pull stam-16", "BSD-3-Clause", "75.1 %"):
        assert expected in listed.stdout


def test_help_begins_with_predict_and_groups_what_belongs_together() -> None:
    text = run("--help", code=NO_TORCH).stdout
    found = re.findall(r"^(?:([A-Z][\w ]+):|  ([a-z]+)  )", text, re.MULTILINE)
    expected = (
        "Recognise predict timeline changes count stream Learn label train teach words evaluate data models "
        "Search index search embed Use elsewhere serve mcp export This machine doctor bench Options"
    )
    assert " ".join(box or verb for box, verb in found if box != "Usage") == expected
    for verb in Verbs():
        boxes = re.findall(r"^([A-Z][\w ]+):$", CliRunner().invoke(app, [verb, "--help"]).output, re.MULTILINE)
        if boxes[0] != "Commands":  # an option without a box of its own would be there
            assert "Options" not in boxes, verb
            assert boxes[-1] == "Help", verb


def test_help_says_of_each_verb_what_the_verb_says_of_itself() -> None:
    verbs = Verbs()
    for box in VERBS.values():
        for name, words in box.items():
            assert verbs[name].get_short_help_str(limit=LONGEST) == words


def test_help_imports_no_verb_and_no_settings() -> None:
    code = (
        "import sys; sys.modules['pydantic'] = sys.modules['numpy'] = sys.modules['fewframes.cli.predict'] = None; "
        "from fewframes.cli.main import main; main()"
    )
    assert run("--help", code=code).returncode == 0


def test_json_lines(videos: Path, fast: list[str]) -> None:
    done = run("predict", videos, *fast, "--json", "--topk", "2")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(line["source"]).name for line in lines] == ["a.mp4", "b.mp4", "c.mp4"]
    for line in lines:
        assert set(line) == {
            "source",
            "label",
            "known",
            "unknown_below",
            "unfamiliar",
            "reason",
            "top",
            "times_s",
            "frame_attention",
            "timing_s",
            "reading",
            "distinct_frames",
            "notices",
        }
        assert (line["distinct_frames"], line["notices"]) == (4, [])
        assert len(line["top"]) == 2
        assert line["top"][0]["score"] >= line["top"][1]["score"]
        assert len(line["times_s"]) == len(line["frame_attention"]) == 4
        assert set(line["timing_s"]) == {"decode", "transform", "network"}
        assert 4 <= line["reading"]["frames_decoded"] <= 20
    assert "3 actions, torch on cpu in float32" in done.stderr
    assert "3 labelled, 0 failed, 0 missing" in done.stderr


def test_csv(videos: Path, fast: list[str], tmp_path: Path) -> None:
    done = run("predict", videos / "a.mp4", tmp_path / "none.mp4", *fast, "--csv", "--topk", "5")
    assert done.returncode == 3
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["source"] for row in rows] == [str(videos / "a.mp4"), str(tmp_path / "none.mp4")]
    assert rows[0]["label_1"] in ("hug", "kick", "push")
    assert float(rows[0]["score_1"]) >= float(rows[0]["score_3"])
    assert rows[0]["label_4"] == ""
    assert "no such file" in rows[1]["error"]


def test_table_for_people(videos: Path, fast: list[str]) -> None:
    done = run("predict", videos / "a.mp4", *fast)
    assert done.returncode == 0
    for expected in ("a.mp4", "hug", "kick", "push", "%", "attention", "decode"):
        assert expected in done.stdout


def test_sources_of_every_kind(videos: Path, fast: list[str], tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"# two of them\n{videos / 'a.mp4'}\n\n{videos / 'sub'}\n")
    arguments: list[str | Path] = [tmp_path / "list.txt", f"{videos}/[ab].mp4", "-", *fast, "--json"]
    done = run("predict", *arguments, stdin=f"{videos / 'b.mp4'}\n")
    assert done.returncode == 0, done.stderr
    names = [Path(json.loads(line)["source"]).name for line in done.stdout.splitlines()]
    assert names == ["a.mp4", "c.mp4", "a.mp4", "b.mp4", "b.mp4"]


def test_exit_codes(videos: Path, fast: list[str], tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    alone = run("predict", tmp_path / "text.mp4", *fast, "--json")
    assert alone.returncode == 1
    assert json.loads(alone.stdout)["error"].startswith(f"{tmp_path}/text.mp4: not a video")
    mixed = run("predict", tmp_path / "text.mp4", videos / "a.mp4", *fast, "--json")
    assert mixed.returncode == 3
    assert len(mixed.stdout.splitlines()) == 2
    assert "1 labelled, 1 failed, 0 missing" in mixed.stderr
    assert run("predict", videos / "a.mp4", "--model", "nope").returncode == 1
    assert run("predict", videos / "a.mp4", *fast, "--dtype", "nope").returncode == 2
    assert run("predict").returncode == 2
    assert run("predict", videos, "--json", "--csv", *fast).returncode == 2
    assert run("predict", tmp_path / "none*", videos / "a.mp4", *fast).returncode == 3
    (tmp_path / "sub").mkdir()
    assert "0 videos and no images" in run("predict", tmp_path / "sub", *fast).stderr
    (tmp_path / "list.txt").write_text(f"\ufeff{videos / 'a.mp4'}\n", encoding="utf-8")
    assert run("predict", tmp_path / "list.txt", *fast).returncode == 0
    (tmp_path / "list.txt").write_text("list.txt\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9.mp4\n")
    for name, words in (("latin.txt", "not UTF-8 text"), ("empty.txt", "no videos were named")):
        (tmp_path / "empty.txt").touch()
        failed = run("predict", tmp_path / name, *fast)
        assert (failed.returncode, words in failed.stderr) == (1, True), failed.stderr
    loop = tmp_path / "loop.txt"
    loop.write_text(f"{loop}\n")
    assert "a list that leads to itself" in run("predict", loop, *fast).stderr


def test_any_terminal_can_show_it(videos: Path, fast: list[str]) -> None:
    done = run("predict", videos / "a.mp4", *fast, PYTHONIOENCODING="cp1252")
    assert done.returncode == 0, done.stderr
    assert "###" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["/no/such.mp4"], "missing: /no/such.mp4: no such file; check the path"),
        (["/no/*.mp4"], "the pattern matches nothing"),
        (["x.mp4", "--model", "stam-17"], "did you mean 'stam-16'?"),
        (["x.mp4", "--device", "cuda:77"], "device 'cuda:77' cannot be used here"),
    ],
)
def test_errors_are_one_line_without_traceback(arguments: list[str], words: str, fast: list[str]) -> None:
    options = fast if "--model" not in arguments else []
    done = run("predict", *(options if "--device" not in arguments else options[:2]), *arguments)
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_reader_that_stops_early_is_no_error(videos: Path, fast: list[str]) -> None:
    command = f"{sys.executable} -m fewframes.cli predict {videos} {' '.join(fast)} --json | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False, timeout=120
    )
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert done.returncode == 0


def test_doctor_tells_what_is_there() -> None:
    done = run("doctor", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    for expected in (
        f"fewframes {__version__}",
        "torch ",
        "device: cpu",
        "GFLOP/s",
        "runtime: ",
        "precision of torch: ",
        "PyAV",
        "h264, hevc",
    ):
        assert expected in done.stdout


def test_pull_without_network_says_what_to_do(tmp_path: Path) -> None:
    done = run("models", "pull", "stam-16", FEWFRAMES_CACHE=str(tmp_path), https_proxy="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "cannot be fetched" in done.stderr
    assert "--file stam_16.pth" in done.stderr


def test_train_then_predict(videos: Path, fast: list[str], tmp_path: Path) -> None:
    rows = [("a.mp4", "early"), ("sub/c.mp4", "late"), ("none.mp4", "late")]
    lines = [
        "path,label,split",
        *(f"{videos / path},{label},train" for path, label in rows),
        f"{videos}/b.mp4,early,val",
    ]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    (tmp_path / "run.toml").write_text("[model]\nmoment_head = true\n[train]\nepochs = 1\nmin_steps = 4\nseed = 3\n")
    command: list[str | Path] = [
        "train",
        tmp_path / "list.csv",
        "--output",
        tmp_path / "out",
        *fast,
        "--cache",
        tmp_path / "cache",
    ]
    done = run(*command, "--run", tmp_path / "run.toml", "--epochs", "2")
    assert done.returncode == 3, done.stderr  # done, but one file is missing
    assert "a list with a header; 4 videos of 2 actions: early 2, late 2" in done.stderr
    assert f"  {videos / 'a.mp4'}: early, split train" in done.stderr
    assert "none.mp4: no such file" in done.stderr
    assert "3 videos read, 0 failed, 1 missing (0 from the cache)" in done.stderr
    assert "held-out videos: " in done.stdout
    assert "(95 % interval 0.0% to 100.0% over 1 group)" in done.stdout
    assert "note: the interval rests on 1 group of videos" in done.stderr
    assert "early" in done.stdout
    written = (tmp_path / "out" / "run.toml").read_text()
    assert "epochs = 2" in written
    assert "seed = 3" in written

    again = run(*command)
    assert again.returncode == 2
    assert "model.safetensors already; take another folder, or --overwrite" in again.stderr
    model = tmp_path / "out" / "model.safetensors"
    named = run("predict", videos / "a.mp4", "--model", model, "--json", "--device", "cpu", "--dtype", "float32")
    assert named.returncode == 0, named.stderr
    assert {entry["label"] for entry in json.loads(named.stdout)["top"]} == {"early", "late"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["/no/such", "-o", "out"], 1, "/no/such: no such folder or file"),
        (["{videos}", "-o", "out", "--run", "/no.toml"], 2, "/no.toml: cannot be read"),
        (["{videos}", "-o", "out"], 1, "only one action found"),
        (["{videos}"], 2, "Missing option '--output'"),
        (["{videos}", "-o", "out", "--learning-rate", "-1"], 2, "learning_rate = -1"),
    ],
)
def test_train_errors_are_one_line(
    arguments: list[str], code: int, words: str, videos: Path, fast: list[str], tmp_path: Path
) -> None:
    given = [argument.format(videos=videos) for argument in arguments]
    given = [str(tmp_path / "out") if argument == "out" else argument for argument in given]
    done = run("train", *given, *fast)
    assert done.returncode == code
    assert words in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("head", ["trained", "solved"])
def test_what_is_missing_is_said_before_scenes_are_sought(head: str, videos: Path, tmp_path: Path) -> None:
    rows = [f"{videos / name},{label}" for name, label in (("a.mp4", "hug"), ("b.mp4", "kick"), ("sub/c.mp4", "hug"))]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "model.safetensors").touch()
    wrong = ["--model", "no such model"] if head == "trained" else []
    done = run("train", tmp_path / "list.csv", "-o", tmp_path / "full", "--head", head, *wrong)
    assert done.returncode == (1 if wrong else 2)
    assert ("no such model: no such file" if wrong else "holds model.safetensors already") in done.stderr
    assert "scenes" not in done.stderr


def test_evaluate(videos: Path, fast: list[str], tmp_path: Path) -> None:
    rows = [
        ("a.mp4", "Hug", "train"),
        ("b.mp4", "kick", "test"),
        ("none.mp4", "push", "test"),
        ("sub/c.mp4", "hug", "val"),
    ]
    lines = ["path,label,split", *(f"{videos / path},{label},{split}" for path, label, split in rows)]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    command: list[str | Path] = ["evaluate", tmp_path / "list.csv", *fast, "--no-cache", "--sweep", "2"]
    done = run(*command, "--output", tmp_path / "out")
    assert done.returncode == 3, done.stderr
    assert "3 videos of 3 actions" in done.stderr  # not the one for training
    assert "2 evaluated, 0 failed, 1 missing" in done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["num_data_videos"], metrics["evaluated"], metrics["failed"]) == (3, 2, [])
    assert [failure["source"] for failure in metrics["missing"]] == [str(videos / "none.mp4")]
    assert f"fingerprint of 3 videos: {metrics['data_fingerprint']}" in done.stderr
    assert "over 2 groups)" in done.stdout
    assert metrics["interval"]["warning"].startswith("the interval rests on 2 groups of videos, and fewer than 5")
    assert f"note: {metrics['interval']['warning']}" in done.stderr
    assert metrics["interval"]["warning"] in (tmp_path / "out" / "report.html").read_text()
    assert "2 frames " in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.html", "metrics.json", "predictions.csv"}
    assert run(*command, "--output", tmp_path / "out", "--sweep", "2,x").returncode == 2
    many = run(
        *command, "--output", tmp_path / "many", "--views", "2x3", "--official-subset", "--predictions", "parquet"
    )
    assert many.returncode == 3, many.stderr
    assert "2 clips of 2.67 s and 4 frames x 3 crops, scores averaged: " in many.stdout
    assert "official subset: 0 of 2 videos (none lasts 2.5 s)" in many.stdout
    assert "each video: 8 frames read, " in many.stdout
    assert " billion multiply-adds (6 views of " in many.stdout
    assert {path.name for path in (tmp_path / "many").iterdir()} == {
        "report.html",
        "metrics.json",
        "predictions.parquet",
    }
    bad = run("evaluate", videos, *fast, "--output", tmp_path / "other")
    assert bad.returncode == 1
    assert "training needs at least two" in bad.stderr


NO_PYARROW = "import sys; sys.modules['pyarrow'] = None; from fewframes.cli.main import main; main()"


def test_evaluate_refuses_before_it_works(videos: Path, tmp_path: Path) -> None:
    command = ["evaluate", "/no/such", "--output", str(tmp_path / "out")]
    for options, words in (
        (["--views", "0x3"], "error: views '0x3': num_clips = 0: "),
        (["--views", "3"], "error: views '3': needs clips x crops, such as 1x1, 1x3 or 10x3"),
        (["--views", "10x2x1"], "error: views '10x2x1': needs clips x crops"),
        (["--clip-s", "-1"], "error: views '1x1': clip_s = -1"),
    ):
        done = run(*command, *options)
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr
        assert "Traceback" not in done.stderr
    done = run(*command, "--predictions", "parquet", code=NO_PYARROW)
    assert (done.returncode, "pip install 'fewframes[parquet]'" in done.stderr) == (4, True), done.stderr
    assert not (tmp_path / "out").exists()


def test_a_budget_is_kept_or_it_is_said(videos: Path, tmp_path: Path) -> None:
    path = videos / "a.mp4"
    few = run("predict", path, "--budget-ms", "0.001", "--budget-kb", "100000")
    assert few.returncode == 0, few.stderr
    assert "  budget 0.001 ms and 100000 kB: 2 of 16 frames" in few.stdout
    assert re.search(r"note: the budget was not kept: \d+ ms over; the fewest frames take more", few.stdout)
    whole = json.loads(run("predict", path, "--budget-ms", "1e9", "--json").stdout)
    assert whole["budget"]["kept"]
    assert (whole["budget"]["frames"], len(whole["times_s"])) == (16, 16)
    assert whole["top"] == json.loads(run("predict", path, "--json").stdout)["top"]
    for arguments, words in (
        (["--budget-ms", "0"], "budget_ms = 0: needs a finite number above 0"),
        (["--budget-kb", "nan"], "budget_kb = nan: needs a finite number above 0"),
        (["--budget-ms", "9", "--explain", str(tmp_path / "a.png")], "--engine and --explain look at all frames"),
        (["--budget-kb", "9", "--engine", "local", "-o", str(tmp_path)], "leave out --budget-ms and --budget-kb"),
    ):
        refused = run("predict", path, *arguments)
        assert refused.returncode == 2, refused.stderr
        assert words in " ".join(refused.stderr.replace("│", " ").split())


def test_levers_are_heard(videos: Path, fast: list[str], tmp_path: Path) -> None:
    path = str(videos / "a.mp4")
    keyed = str(drifting(tmp_path / "keyed.mp4", "libx264", 75, gop=10, options={}))
    plain = json.loads(run("predict", keyed, "--json", *fast).stdout)
    moved = json.loads(run("predict", keyed, "--json", "--tolerance", "0.5", *fast).stdout)
    assert moved["times_s"] != plain["times_s"]
    sure = run("predict", path, "--json", "--early-exit", "0.5", *fast)
    assert json.loads(sure.stdout)["top"]
    for arguments, words in (
        (["--early-exit", "auto"], "no early exit was fitted for this model; train with --early-exit"),
        (["--early-exit", "often"], "needs auto, or a confidence above 0 and up to 1"),
        (["--merge", "99"], "at most half can be merged in one"),
        (["--tolerance", "0.6"], "0.5"),
    ):
        refused = run("predict", path, *arguments, *fast)
        assert refused.returncode == 2
        assert words in " ".join(refused.stderr.replace("│", " ").split())
