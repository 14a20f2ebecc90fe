"""Names of sources on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fewframes.cli.live_sources import named, watched_sources
from fewframes.cli.main import app
from fewframes.errors import ConfigError
from fewframes.video.live_settings import StreamConfig

CONFIG = StreamConfig(every_s=1.0)


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("door=rtsp://user:a=b@host/main?x=1", ("door", "rtsp://user:a=b@host/main?x=1")),
        ("rtsp://host/main?channel=1", ("", "rtsp://host/main?channel=1")),
        ("camera:0", ("", "camera:0")),
        ("yard.2=camera:Integrated Camera", ("yard.2", "camera:Integrated Camera")),
        ("-", ("", "-")),
        ("film.mp4", ("", "film.mp4")),
    ],
)
def test_names_stand_before_sources(word: str, found: tuple[str, str]) -> None:
    assert named(word) == found


def test_a_file_whose_name_looks_like_one_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.mp4").touch()
    assert named("a=b.mp4") == ("", "a=b.mp4")
    (source,) = watched_sources(["a=b.mp4"], None, CONFIG)
    assert (source.name, source.source, source.config) == ("a=b", "a=b.mp4", CONFIG)


def test_sources_of_words_and_of_a_file_are_joined(tmp_path: Path) -> None:
    (tmp_path / "cameras.toml").write_text("[sources.yard]\nsource = 'camera:1'\nevery_s = 2.0\n")
    found = watched_sources(["door=camera:0", "rtsp://host/a"], tmp_path / "cameras.toml", CONFIG)
    assert [source.name for source in found] == ["door", "source 2", "yard"]
    assert [source.config.every_s for source in found] == [1.0, 1.0, 2.0]
    with pytest.raises(ConfigError, match="no source: name a camera"):
        watched_sources([], None, CONFIG)


def streamed(*words: str | Path, model: Path) -> Result:
    options = ["--model", str(model), "--device", "cpu", "--dtype", "float32", "--window", "0.4", "--topk", "1"]
    return CliRunner().invoke(app, ["stream", *map(str, words), *options])


def test_several_sources_answer_in_one_process(tiny_model: Path, videos: Path) -> None:
    done = streamed(f"door={videos / 'a.mp4'}", videos / "b.mp4", model=tiny_model)
    assert done.exit_code == 0, done.output
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert {answer["source"] for answer in answers} == {"door", "b"}
    alone = [json.loads(line) for line in streamed(videos / "a.mp4", model=tiny_model).stdout.splitlines()]
    assert len(alone) > 2
    assert "source" not in alone[0]
    assert [answer["top"][0]["label"] for answer in answers if answer["source"] == "door"] == [
        answer["top"][0]["label"] for answer in alone
    ]
    assert "door: 0.76 s, end: the end of the stream" in done.stderr
    assert done.stderr.count("latency p50/p95/p99") == 2


def test_a_file_of_sources_with_settings_of_their_own(tiny_model: Path, videos: Path, tmp_path: Path) -> None:
    text = (
        f"[sources.door]\nsource = '{videos / 'a.mp4'}'\n[sources.yard]\nsource = '{videos / 'b.mp4'}'\nevery_s = 0.4\n"
    )
    (tmp_path / "cameras.toml").write_text(text)
    done = streamed("--sources", tmp_path / "cameras.toml", model=tiny_model)
    assert done.exit_code == 0, done.output
    names = [json.loads(line)["source"] for line in done.stdout.splitlines()]
    assert names.count("door") > names.count("yard") > 0


def test_a_source_that_is_lost_is_named_and_the_others_go_on(tiny_model: Path, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    done = streamed(f"bad={tmp_path / 'text.mp4'}", f"good={videos / 'a.mp4'}", model=tiny_model)
    assert done.exit_code == 3
    assert {json.loads(line)["source"] for line in done.stdout.splitlines()} == {"good"}
    assert "bad: " in done.stderr
    assert "text.mp4: cannot be opened as a stream" in done.stderr
    assert streamed(f"bad={tmp_path / 'text.mp4'}", model=tiny_model).exit_code == 1


def test_wrong_use_is_said_in_one_line(tiny_model: Path, videos: Path) -> None:
    for words, code, said in (
        ([], 2, "no source: name a camera"),
        ([f"a={videos / 'a.mp4'}", f"a={videos / 'b.mp4'}"], 2, "two sources have the name 'a'"),
        ([f"a={videos / 'a.mp4'}", "b=nowhere.mp4"], 1, "nowhere.mp4: no such file"),
        ([videos / "a.mp4", "--only", "hgu"], 2, "has no action 'hgu'; did you mean 'hug'?"),
    ):
        done = streamed(*words, model=tiny_model)
        assert (done.exit_code, said in done.stderr) == (code, True), done.output


def test_events_and_clips_have_the_names_of_sources(tiny_model: Path, videos: Path, tmp_path: Path) -> None:
    options: list[str | Path] = [
        "--enter",
        "0.05",
        "--leave",
        "0.01",
        "--events",
        tmp_path / "events.jsonl",
        "--clips",
        tmp_path / "clips",
    ]
    done = streamed(f"door={videos / 'a.mp4'}", f"yard={videos / 'b.mp4'}", *options, model=tiny_model)
    assert done.exit_code == 0, done.output
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert {event["source"] for event in events} == {"door", "yard"}
    assert len(list((tmp_path / "clips").rglob("*.mp4"))) == sum(event["state"] == "ended" for event in events) > 0
