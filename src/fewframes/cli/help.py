"""The help texts of the command line: verbs and options in groups, as plain text.

typer draws its own groups with rich, which takes twice as long to import as everything else that `--help` needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from typer.core import TyperCommand, TyperGroup

from fewframes.cli.other_models import check_other_models

ARGUMENTS, OPTIONS, HELP = "Arguments", "Options", "Help"
"""The first group of a verb, that of options without a group, and the last one."""
SETTINGS: dict[str, Any] = {
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 120},
}
"""Settings of typer for the command, each verb, and each group of verbs."""
LONGEST = 200
"""The most characters of a verb's first sentence; it goes over several lines."""


def grouped(things: Iterable[tuple[str | None, Any]], default: str) -> dict[str, list[Any]]:
    """Return things by the name of their group, in the order in which they come.

    Args:
        things: pairs of a group's name, or None, and a thing.
        default: the group of things that have none.
    """
    groups: dict[str, list[Any]] = {}
    for name, thing in things:
        groups.setdefault(name or default, []).append(thing)
    return groups


class Command(TyperCommand):
    """A verb whose options stand in groups, with `--help` in the last one."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb, unless it cannot use a model that it was given."""
        check_other_models(" ".join(ctx.command_path.split()[1:]), ctx.params)
        return super().invoke(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then each group of options."""
        records = [(_group_of(param), param.get_help_record(ctx)) for param in self.get_params(ctx)]
        groups = grouped(((name, record) for name, record in records if record is not None), OPTIONS)
        for name in sorted(groups, key=lambda name: (name != ARGUMENTS, name == HELP)):  # the others keep their order
            with formatter.section(name):
                formatter.write_dl(groups[name])


def _group_of(param: Any) -> str | None:
    """Return the name of the group of an argument or option, or None if it has none."""
    if param.param_type_name == "argument":
        return ARGUMENTS
    return HELP if "--help" in param.opts else getattr(param, "rich_help_panel", None)


class Commands(TyperGroup):
    """A group of verbs that `--help` shows under the names of their boxes."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the verbs before the options, because they are what a reader looks for."""
        self.format_commands(ctx, formatter)
        records = [record for param in self.get_params(ctx) if (record := param.get_help_record(ctx)) is not None]
        with formatter.section(OPTIONS):
            formatter.write_dl(records)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each box of verbs with the first sentence of their help."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        shown = [(name, command) for name, command in commands if command is not None and not command.hidden]
        boxes = grouped(
            ((getattr(command, "rich_help_panel", None), (name, command)) for name, command in shown), "Commands"
        )
        write_boxes(
            {
                box: {name: command.get_short_help_str(limit=LONGEST) for name, command in verbs}
                for box, verbs in boxes.items()
            },
            formatter,
        )


def write_boxes(boxes: Mapping[str, Mapping[str, str]], formatter: Any) -> None:
    """Write boxes of verbs with their sentences, all sentences from the same column on."""
    width = max((len(name) for verbs in boxes.values() for name in verbs), default=0)
    for box, verbs in boxes.items():
        with formatter.section(box):
            formatter.write_dl([(name.ljust(width), words) for name, words in verbs.items()])
