"""A file of sources: names, addresses and settings, with errors that name the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewframes.errors import ConfigError
from fewframes.inference.live.source_file import read_sources
from fewframes.video.live_settings import StreamConfig

DOORS = """
[stream]
every_s = 0.5
enter = 0.6

[sources.door]
source = "rtsp://user@door/main"
only = ["kick"]

[sources.yard]
source = "camera:1"
every_s = 2.0
"""


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "cameras.toml").write_text(text)
    return tmp_path / "cameras.toml"


def test_each_source_has_the_settings_of_all_and_its_own(tmp_path: Path) -> None:
    door, yard = read_sources(written(tmp_path, DOORS), StreamConfig(window_s=2.0, enter=0.4))
    assert (door.name, door.source, yard.name, yard.source) == ("door", "rtsp://user@door/main", "yard", "camera:1")
    assert door.config == StreamConfig(window_s=2.0, every_s=0.5, enter=0.6, only=("kick",))
    assert yard.config == StreamConfig(window_s=2.0, every_s=2.0, enter=0.6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"cameras.toml: names no source; add \[sources.NAME\]"),
        ("[source.a]\nsource = 'x'", r"unknown table 'source'; did you mean 'sources'"),
        ("[sources.a]\nevery_s = 1.0", r"cameras.toml: sources.a: has no source; add source = "),
        ("[sources]\na = 'x'", r"cameras.toml: sources: a = 'x': needs a table, \[a\]"),
        ("[sources.a]\nsource = 'x'\nevry_s = 1.0", r"sources.a: unknown setting 'evry_s'; did you mean 'every_s'"),
        ("[sources.a]\nsource = 'x'\nenter = 2.0", r"sources.a: enter = 2.0: Input should be less than or equal to 1"),
        ("[stream]\nleave = 0.9\n[sources.a]\nsource = 'x'", r"cameras.toml: stream: .*leave 0.9 is above enter 0.5"),
        ("sources = [", r"cameras.toml: not TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_sources(written(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.toml: cannot be read \(No such file"):
        read_sources(tmp_path / "nowhere.toml")
