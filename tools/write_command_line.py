"""Write the help of every command as one page: `python tools/write_command_line.py docs/reference/command-line.md`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from typer.main import get_command

from fewframes.cli.main import app


def page() -> str:
    """Return the page: each command with its arguments, options, defaults and help."""
    lines = ["# Command line", "", "`fewframes COMMAND --help` shows the same in a terminal.", ""]
    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    for name, command in commands.items():
        lines += _section(command, f"fewframes {name}")
    return "\n".join(lines).rstrip() + "\n"


def _section(command: Any, name: str) -> list[str]:
    if hasattr(command, "commands"):
        return [line for inner, sub in command.commands.items() for line in _section(sub, f"{name} {inner}")]
    context = command.make_context(name, [], resilient_parsing=True)
    rows = []
    for parameter in command.params:
        words = getattr(parameter, "help", None) or ""
        is_option = parameter.param_type_name == "option"
        shown = ", ".join(f"`{option}`" for option in parameter.opts) if is_option else f"`{parameter.name.upper()}`"
        default = parameter.get_default(context)
        told = default not in (None, False, "", [], ()) and not callable(default)
        rows.append(f"| {shown} | {_plain(words)}{f' Default: `{default}`.' if told else ''} |")
    table = ["| option | what it does |", "|---|---|", *rows, ""] if rows else []
    return [f"## {name}", "", _plain(command.help or ""), "", *table]


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("\b", "")).replace("|", "\\|").replace("[", "\\[").strip()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.parse_args().page.write_text(page(), encoding="utf-8")
