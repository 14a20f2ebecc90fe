"""The Python that the documentation shows runs as it stands."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fewframes
from fewframes.cli.main import app
from fewframes.data.config import DataConfig
from fewframes.training.config import RunConfig, TrainConfig, run_to_toml

ROOT = Path(__file__).resolve().parents[1]
DOCS, BENCHMARKS = ROOT / "docs", ROOT / "benchmarks"


def test_training_in_python(
    clips: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(
        r"^```python\n(.*?)^```", (DOCS / "guide" / "train.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert len(blocks) == 1
    shutil.copytree(clips, tmp_path / "clips")
    shutil.copytree(clips, tmp_path / "other-clips")
    run = RunConfig(start=str(tiny_model), data=DataConfig(holdout=0.34), train=TrainConfig(min_steps=2, epochs=2))
    (tmp_path / "run.toml").write_text(run_to_toml(run))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWFRAMES_CACHE", str(tmp_path / "cache"))
    exec(compile(blocks[0], "training.md", "exec"), {"__name__": "__main__"})
    assert re.match(
        r"Report\(12 videos: top-1 .*\) [\d.]+% \(95 % interval .* over 12 groups\)\n", capsys.readouterr().out
    )
    assert (tmp_path / "doors" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/index.md",
        "docs/guide/predict.md",
        "docs/guide/evaluate.md",
        "docs/guide/timeline.md",
        "docs/guide/replay.md",
        "docs/guide/explain.md",
        "docs/guide/stream.md",
        "docs/guide/events.md",
        "docs/guide/clips.md",
        "docs/guide/search.md",
        "docs/guide/embed.md",
    ],
)
def test_python_of_pages_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.search(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    names = (
        "examples/hug.mp4",
        "clip.mp4",
        "film.mp4",
        "a.mp4",
        "b.mp4",
        "query.mp4",
        "other-clips/hug/1.mp4",
        "other-clips/kick/1.mp4",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(
            ROOT / "examples" / ("kick.mp4" if "kick" in name or name == "b.mp4" else "hug.mp4"), tmp_path / name
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWFRAMES_CACHE", str(tmp_path / "cache"))
    if page.endswith("embed.md"):
        assert CliRunner().invoke(app, ["embed", "clip.mp4", "--output", "clips.parquet"]).exit_code == 0
    exec(compile(found[1].replace("rtsp://camera/main", "clip.mp4"), page, "exec"), {"__name__": "__main__"})


def test_the_reference_has_every_public_name() -> None:
    page = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: fewframes\.(\w+)$", page, re.MULTILINE)) == sorted(fewframes.__all__)
    for name in fewframes.__all__:
        assert getattr(fewframes, name) is not None


def test_links_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), BENCHMARKS / "README.md", *DOCS.rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if not re.match(r"\w+:", target) and not (page.parent / target).exists()
    ]
    assert not broken


def test_every_decision_stands_in_the_index() -> None:
    index = (DOCS / "decisions" / "index.md").read_text(encoding="utf-8")
    assert {path.name for path in (DOCS / "decisions").glob("20*.md")} == set(re.findall(r"\]\(([^)]+)\)", index))


def test_modules_that_pages_name_exist() -> None:
    pages = [path for path in DOCS.rglob("*.md") if "decisions" not in path.parts]
    named = {
        name
        for path in pages
        for name in re.findall(r"`(?:src/fewframes/)?(\w+(?:/\w+)+\.py)", path.read_text("utf-8"))
    }
    roots = (ROOT, ROOT / "src" / "fewframes")
    assert not [name for name in named if not any((root / name).is_file() for root in roots)]


def test_scripts_and_folders_that_pages_name_exist() -> None:
    """In decisions too: a path stays right when its file moves, whatever the day."""
    pages = [*ROOT.glob("*.md"), BENCHMARKS / "README.md", *DOCS.rglob("*.md")]
    named = {
        name
        for page in pages
        for name in re.findall(
            r"`((?:benchmarks|research|runs|tools|examples|tests)/[\w./-]+)", page.read_text("utf-8")
        )
    }
    named |= {
        name.replace(".", "/") + ".py"
        for page in pages
        for name in re.findall(r"python -m ((?:benchmarks|research)\.[\w.]+\w)", page.read_text("utf-8"))
    }
    assert named
    assert not [name for name in sorted(named) if not (ROOT / name).exists()]


def test_extras_that_pages_and_messages_name_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [ROOT / "README.md", *DOCS.glob("[!d]*/**/*.md"), *(ROOT / "src").glob("**/*.py"), *ROOT.glob("tools/*.py")]
    named = {
        (extra, path.name)
        for path in texts
        for extras in re.findall(r"(?:fewframes|\.)\[([a-z0-9,]+)\]'", path.read_text(encoding="utf-8"))
        for extra in extras.split(",")
    }
    assert len(named) > 20
    assert {extra for extra, _ in named} <= set(project["optional-dependencies"]), named


def test_the_table_of_benchmarks_has_every_script_and_result() -> None:
    table = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    scripts = {".".join(path.relative_to(BENCHMARKS).with_suffix("").parts) for path in BENCHMARKS.glob("*/*.py")}
    assert scripts == set(re.findall(r"^\|[^|]*\| `(\w+\.\w+)\b", table, re.MULTILINE))
    results = {str(path.relative_to(BENCHMARKS)) for path in BENCHMARKS.glob("*/*.json")}
    assert results <= set(re.findall(r"\]\((\w+/\w+\.json)\)", table))
    assert all(f"`{path.stem}`" in table for path in (ROOT / "research").glob("*.py"))
