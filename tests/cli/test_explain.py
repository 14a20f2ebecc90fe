"""`predict --explain` and `embed` on the command line: where pictures go, what is refused before the work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from fewframes.cli.explain import plan_pictures
from fewframes.errors import ConfigError
from helpers.commands import run


@pytest.fixture
def fast(tiny_model: Path) -> list[str]:
    return ["--model", str(tiny_model), "--device", "cpu", "--dtype", "float32"]


def test_one_video_has_a_file_and_many_have_a_folder(tmp_path: Path) -> None:
    assert plan_pictures(tmp_path / "new" / "a.svg", ["x/clip.mp4"]) == [tmp_path / "new" / "a.svg"]
    sources = ["x/clip.mp4", "y/clip.mov", "http://a.b/clip.mp4?key=1.2", "x/other", "clip-2.mp4"]
    pictures = plan_pictures(tmp_path / "many", sources)
    assert [picture.name for picture in pictures] == [
        "clip.png",
        "clip-2.png",
        "clip-3.png",
        "other.png",
        "clip-2-2.png",
    ]
    assert {picture.parent for picture in pictures} == {tmp_path / "many"}
    (tmp_path / "v1.2").mkdir()
    assert plan_pictures(tmp_path / "v1.2", ["clip.mp4"]) == [tmp_path / "v1.2" / "clip.png"]
    with pytest.raises(ConfigError, match=r"one picture for 2 videos; name a folder, which gets one for each"):
        plan_pictures(tmp_path / "a.png", ["a.mp4", "b.mp4"])
    with pytest.raises(ConfigError, match=r"explanations are written as \.png, \.svg or \.html"):
        plan_pictures(tmp_path / "a.gif", ["a.mp4"])
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="not a folder that can be written to"):
        plan_pictures(tmp_path / "file", ["a.mp4"])


def test_pictures_do_not_replace_what_is_explained(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(b"an animation")
    for target in (source, tmp_path):
        with pytest.raises(ConfigError, match=r"a.png: is itself read"):
            plan_pictures(target, [str(source)])
    assert source.read_bytes() == b"an animation"


def test_a_folder_of_pictures_and_json_with_occlusion(videos: Path, fast: list[str], tmp_path: Path) -> None:
    done = run("predict", videos / "a.mp4", "none.mp4", *fast, "--json", "--explain", tmp_path / "out")
    assert done.returncode == 3, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert len(first["explanation"]["occlusion"]) == 4
    assert first["explanation"]["map"] == "rollout"
    assert second["missing"] is True
    assert "out/a.png: attention against occlusion: Spearman" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_a_table_with_a_picture_and_what_does_not_go_together(videos: Path, fast: list[str], tmp_path: Path) -> None:
    done = run("predict", videos / "a.mp4", *fast, "--explain", tmp_path / "a.svg", "--map", "none")
    assert done.returncode == 0, done.stderr
    assert "frames from 0.08 s" in done.stdout
    assert (tmp_path / "a.svg").exists()
    refused = run("predict", videos / "a.mp4", *fast, "--explain", tmp_path / "b.png", "--early-exit", "0.9")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "leave out" in refused.stderr
    assert not (tmp_path / "b.png").exists()
    alone = run("predict", videos / "a.mp4", *fast, "--map", "none")
    assert alone.returncode == 2
    assert "--map is for --explain" in alone.stderr


def test_embed_writes_what_could_be_read(videos: Path, fast: list[str], tmp_path: Path) -> None:
    done = run("embed", videos, "none.mp4", *fast, "-o", tmp_path / "new" / "out.safetensors")
    assert done.returncode == 3, done.stderr
    assert "3 embedded, 0 failed, 1 missing" in done.stderr
    with safe_open(tmp_path / "new" / "out.safetensors", framework="pt") as file:
        assert file.get_tensor("embedding").shape == (3, 48)
