"""Docstrings can be read without opening the body."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "fewframes"
FILES = sorted(SOURCE.rglob("*.py"))
WITHOUT_SUBJECT = re.compile(
    r"(What|Whether|Which|How|Those|That|These|The same|One|Some|Of|Where|When|Who|Whose|Why|As)\b"
)
"""Beginnings that leave out what a sentence is about; "A", "The" and imperatives name it."""


def docstrings(path: Path) -> list[tuple[int, str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    found = [(getattr(node, "lineno", 1), text) for node in nodes if (text := ast.get_docstring(node))]
    found += [
        (statement.lineno, str(statement.value.value))
        for node in nodes
        for statement in node.body[1:]
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    ]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_first_words_name_a_subject_or_an_action(path: Path) -> None:
    wrong = [f"{line}: {text.splitlines()[0]}" for line, text in docstrings(path) if WITHOUT_SUBJECT.match(text)]
    assert not wrong, "\n".join(wrong)


def test_the_rule_can_fail() -> None:
    assert WITHOUT_SUBJECT.match("What became of a video")
    assert not WITHOUT_SUBJECT.match("Return the frames")
    assert not WITHOUT_SUBJECT.match("Whole videos on their way")
