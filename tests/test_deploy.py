"""What the Dockerfile, the units and their guides run is what the command line takes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from fewframes.cli.main import app
from helpers.numbered import drifting

ROOT = Path(__file__).resolve().parents[1]
UNITS = sorted((ROOT / "deploy").glob("*.service"))
PAGES = [ROOT / "docs" / "guide" / name for name in ("deploy.md", "web.md")]
BLOCK = re.compile(r"^```\n(.*?)^```", re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    """Return the words after `fewframes` of each command in the units and guides; in Docker's they come after the image."""
    lines = [
        line
        for page in PAGES
        for block in BLOCK.findall(page.read_text(encoding="utf-8"))
        for line in block.splitlines()
    ]
    lines += [
        line
        for unit in UNITS
        for line in unit.read_text(encoding="utf-8").splitlines()
        if line.startswith("ExecStart=")
    ]
    found = [re.search(r"(?:^fewframes|bin/fewframes|docker run.* fewframes(?::\w+)?) (.*)", line) for line in lines]
    return [shlex.split(match[1], comments=True) for match in found if match]


def test_commands_have_these_options() -> None:
    verbs: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    seen = set()
    for verb, *words in commands():
        known = {option for parameter in verbs[verb].params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known, (verb, words)
        seen.add(verb)
    assert seen == {"export", "predict", "serve", "stream", "train"}


def test_units_read_settings_that_exist() -> None:
    given = set(re.findall(r"^(\w+)=", (ROOT / "deploy" / "fewframes.env").read_text(encoding="utf-8"), re.MULTILINE))
    for unit in UNITS:
        assert set(re.findall(r"\$\{(\w+)\}", unit.read_text(encoding="utf-8"))) <= given
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    assert given - {"FEWFRAMES_MODEL", "FEWFRAMES_HOST", "FEWFRAMES_PORT", "FEWFRAMES_VIDEOS"} <= set(
        re.findall(r"FEWFRAMES_[A-Z_]+", source)
    )


def test_the_door_is_watched_as_its_unit_and_its_image_say(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    film = drifting(tmp_path / "door.mp4", "libx264", 100, gop=25, options={})
    shown = (ROOT / "deploy" / "fewframes-door-sources.toml").read_text(encoding="utf-8")
    (tmp_path / "sources.toml").write_text(re.sub('source = ".*"', f"source = '{film}'", shown), encoding="utf-8")
    unit = (ROOT / "deploy" / "fewframes-door.service").read_text(encoding="utf-8")
    (line,) = re.findall("^ExecStart=(.*)$", unit, re.MULTILINE)
    image = (ROOT / "deploy" / "Dockerfile.door").read_text(encoding="utf-8")
    (entry,) = re.findall(r"^ENTRYPOINT (\[.*\])$", image, re.MULTILINE)
    places = {
        "/etc/sources.toml": str(tmp_path / "sources.toml"),
        "%d/sources.toml": str(tmp_path / "sources.toml"),
        "/etc/fewframes-door.toml": str(ROOT / "deploy" / "fewframes-door.toml"),
        "${FEWFRAMES_MODEL}": "lite0-16",
        "9100": str(tmp_path / "metrics.prom"),
    }
    for number, words in enumerate((shlex.split(line)[1:], json.loads(entry)[1:])):
        folder = tmp_path / str(number)
        folder.mkdir()
        known = [places.get(word, re.sub("^(/var/lib/fewframes-door|/data)", str(folder), word)) for word in words]
        done = CliRunner().invoke(app, known)
        assert done.exit_code == 0, done.output
        assert (folder / "clips" / "index.html").exists()
        assert 'fewframes_source_pictures_total{source="door"} 100.0' in (tmp_path / "metrics.prom").read_text()
    assert re.search(r"^USER 1000$", image, re.MULTILINE)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="units are checked with systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=[unit.stem for unit in UNITS])
def test_units_are_understood(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name.replace("@.", "@video0.")
    copy.write_text(unit.read_text(encoding="utf-8").replace("/opt/fewframes/bin/fewframes", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit.stem in line]) == (0, [])


def test_the_image_is_built_of_what_the_package_needs() -> None:
    let_through = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = {name for line in re.findall(r"^COPY (?!--)(.*) \S+$", dockerfile, re.MULTILINE) for name in line.split()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert let_through == copied == {"pyproject.toml", "src", project["readme"], *project["license-files"]}
    assert re.search(r"^USER 1000$", dockerfile, re.MULTILINE)
    assert dockerfile.endswith('ENTRYPOINT ["fewframes"]\nCMD ["--help"]\n')
