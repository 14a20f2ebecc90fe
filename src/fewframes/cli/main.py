"""The `fewframes` command: its verbs in the order of `--help`, and one exit code for each kind of error.

Each verb is a module beside this one. It is imported when it is used, so that `--help` and other verbs do not wait for it.
Standard output is for data, standard error for people.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.main import get_command

from fewframes.cli.console import console, tell
from fewframes.cli.help import SETTINGS, Command, Commands, write_boxes
from fewframes.core.process import keep_memory, wait_asleep
from fewframes.errors import FewframesError, missing_training

VERBS = {
    "Recognise": {
        "predict": "Name the actions in videos.",
        "timeline": "Find which actions happen in long videos, and when.",
        "changes": "Compare two results of `timeline`: which spans are new, gone, relabelled or moved.",
        "count": "Count the repetitions of a movement in videos, without being told which.",
        "stream": "Name the action in a camera, network stream, file or pipe, as it happens.",
    },
    "Learn": {
        "label": "Label videos in your browser, and see the model learn.",
        "train": "Teach a model your own actions.",
        "teach": "Make labels part of a model at once, by a few examples of each.",
        "words": "Make a model from labels in words.",
        "evaluate": "Measure how often a model is right on your videos, and show what it gets wrong.",
        "data": "Check labelled videos before training, split them, and convert the files of other tools.",
        "models": "List the models with their size, cost, input, weights and licence; fetch published weights.",
    },
    "Search": {
        "index": "Make moments of many videos searchable with `fewframes search`.",
        "search": "Find moments like a moment, of a label, or that words describe.",
        "embed": "Write an embedding of each video, for other tools to search, group or train with.",
    },
    "Use elsewhere": {
        "serve": "Answer over HTTP: actions, timelines and embeddings of videos.",
        "mcp": "Let agents ask about videos, over the Model Context Protocol: actions, timelines, counts and search.",
        "export": "Write a model for ONNX Runtime, OpenVINO, torch.export or web browsers.",
    },
    "This machine": {
        "doctor": "Show what is installed, what this machine will use, and what is missing.",
        "bench": "Compare the speed, cost and memory of models on this machine.",
    },
}
"""The verbs by their box of `--help`, with the first sentence of their own help."""
NOT_WRITTEN = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
"""Errors of the system that mean that a file cannot be written: a full or read-only disk is not a bug."""


class Verbs(Mapping[str, Any]):
    """The commands by name. The module of a verb is imported when its command is asked for."""

    def __getitem__(self, name: str) -> Any:
        if not any(name in box for box in VERBS.values()):
            raise KeyError(name)
        module = import_module(f"fewframes.cli.{name}")
        if hasattr(module, "app"):  # a verb with verbs of its own
            return get_command(module.app)
        verb = typer.Typer(add_completion=False, **SETTINGS)
        verb.command(name, cls=getattr(module, "COMMAND", Command))(getattr(module, name))
        return get_command(verb)

    def __iter__(self) -> Iterator[str]:
        return (name for box in VERBS.values() for name in box)

    def __len__(self) -> int:
        return sum(map(len, VERBS.values()))


class Main(Commands):
    """The group of all verbs, which turns every error that is not a bug into one line and an exit code."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = Verbs()

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - click gives it
        """Write each box of verbs with the first sentence of their help. Imports none of them."""
        write_boxes(VERBS, formatter)

    def invoke(self, ctx: Any) -> Any:
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()  # else a write error would surface as a traceback when the interpreter ends
        except FewframesError as error:
            tell(f"error: {error}")
            sys.exit(error.exit_code)
        except ModuleNotFoundError as error:  # commands import what they need before they work
            missing = missing_training(error)
            if missing is None:
                raise
            tell(f"error: {missing}")
            sys.exit(missing.exit_code)
        except KeyboardInterrupt:
            tell("interrupted; cached embeddings are kept, so the same command continues from them")
            sys.exit(130)
        except BrokenPipeError:  # the reader of standard output, such as `head`, needs no more
            _discard_output()
            sys.exit(0)
        except OSError as error:
            if error.errno not in NOT_WRITTEN:
                raise
            _discard_output()
            tell(f"error: {error.filename or 'standard output'}: cannot be written ({error.strerror}); free some space")
            sys.exit(1)


def _discard_output() -> None:
    """Send what is still buffered for standard output to nowhere; else it would raise again when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    cls=Main,
    help="Recognise what happens in a video from a handful of its frames.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    **SETTINGS,
)


def version(value: bool) -> None:
    """Print the version, a bare number that scripts can read, and end the command."""
    if value:
        from fewframes.core.version import __version__

        console().print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before a verb."""


def main() -> None:
    """Entry point of the `fewframes` command."""
    for output in (sys.stdout, sys.stderr):
        if hasattr(output, "reconfigure"):  # the terminal's encoding may lack characters of file names
            output.reconfigure(errors="backslashreplace")
    keep_memory()
    wait_asleep()
    app()
