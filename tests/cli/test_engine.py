"""`--engine`: the folder, its exit codes, going on with it; what does not go together is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from fewframes.cli.main import app


def run(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    return done.exit_code, done.output


def test_a_folder_of_rows_and_going_on_with_it(tiny_model: Path, videos: Path, tmp_path: Path) -> None:
    out, fast = tmp_path / "out", ("--model", tiny_model, "--device", "cpu", "--shard-rows", "2", "--engine", "local")
    code, said = run("predict", videos, tmp_path / "none.mp4", *fast, "--output", out, "--topk", "2")
    assert code == 3, said
    assert "4 rows in 2 files, 1 of videos that failed; 4 new" in said
    rows = parquet.read_table(out).to_pylist()
    assert [row["row"] for row in rows] == [0, 1, 2, 3]
    assert [Path(row["source"]).name for row in rows] == ["a.mp4", "b.mp4", "c.mp4", "none.mp4"]
    assert len(rows[0]["top_labels"]) == 2
    assert rows[0]["top_scores"][0] == rows[0]["score"]
    assert "no such file" in rows[3]["error"]
    (out / "part-000001.parquet").unlink()
    code, said = run("predict", videos, tmp_path / "none.mp4", *fast, "--output", out, "--topk", "2")
    assert (code, "2 new" in said) == (3, True), said
    assert parquet.read_table(out).to_pylist() == rows
    code, said = run("embed", videos, tmp_path / "none.mp4", *fast, "--output", out)
    assert (code, "holds another run, which differs in settings" in said) == (2, True), said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--engine", "ray"], "--engine and --output go together"),
        (["--output", "out"], "--engine and --output go together"),
        (["--engine", "local", "--output", "out", "--json"], "leave out --json, --csv, --explain and --draw"),
    ],
)
def test_what_does_not_go_together(arguments: list[str], words: str) -> None:
    code, said = run("predict", "a.mp4", *arguments)
    assert (code, words in said) == (2, True), said
