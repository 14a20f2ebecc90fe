"""Run a command for each event, without a shell."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import string
import subprocess
import tempfile
from typing import IO

from fewframes.core.text import json_line, plain
from fewframes.errors import ConfigError, nearest
from fewframes.watch.event import Event
from fewframes.watch.settings import CommandSettings
from fewframes.watch.sinks.protocol import DeliveryError

PLACEHOLDERS = tuple(
    "id state source zone track label confidence start_s end_s started_at ended_at picture clip model".split()
)
"""The names that a command may have in braces."""
SHOWN_CHARACTERS = 300
"""The most characters of a command's standard error that are told."""


class CommandSink:
    """A command that is run for each event. Its standard input is the event as JSON.

    A value takes exactly the place of its name in braces, inside one argument. No shell reads it, so it cannot begin a command or
    an argument of its own.
    """

    def __init__(self, settings: CommandSettings, name: str) -> None:
        """Prepare the command.

        Args:
            settings: The command, the states of events that it is run for, and the seconds that it may take.
            name: The name of the sink.

        Raises:
            ConfigError: The command cannot be split, has an unknown name in braces, or is not to be found.
        """
        self.name, self.states, self._timeout_s = name, settings.states, settings.timeout_s
        self._arguments = arguments_of(settings.run)

    def send(self, event: Event) -> None:
        """Run the command. Raises DeliveryError if it fails, or takes too long."""
        values = {name: "" if value is None else str(value) for name, value in event.to_dict().items()}
        arguments = [argument.format_map(values).replace("\0", "") for argument in self._arguments]
        # The command has files rather than pipes, so that what it leaves running in the background holds nothing up.
        with tempfile.TemporaryFile() as words, tempfile.TemporaryFile() as line:
            line.write((json_line(event.to_dict()) + "\n").encode())
            line.seek(0)
            try:
                process = subprocess.Popen(
                    arguments, stdin=line, stdout=subprocess.DEVNULL, stderr=words, start_new_session=True
                )
            except OSError as error:
                raise DeliveryError(f"{arguments[0]}: cannot be run ({error.strerror or error})") from None
            self._wait(process, words)

    def _wait(self, process: subprocess.Popen[bytes], words: IO[bytes]) -> None:
        program = self._arguments[0]
        try:
            code = process.wait(self._timeout_s)
        except subprocess.TimeoutExpired:
            kill(process)
            raise DeliveryError(f"{program}: took longer than {self._timeout_s:g} s, and was ended") from None
        if code:
            words.seek(0)
            said = plain(words.read(4 * SHOWN_CHARACTERS).decode(errors="replace").strip())[:SHOWN_CHARACTERS]
            reason = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise DeliveryError(f"{program}: failed ({reason}){f': {said}' if said else ''}")

    def close(self) -> None:
        """Do nothing: a command ends by itself, or is ended when its time is over."""


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it began."""
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def arguments_of(command: str) -> list[str]:
    """Return the program and the arguments of a command, with names in braces. Raises ConfigError if it cannot be run as it is."""
    try:
        arguments = shlex.split(command)
        names = [(name, form, how) for each in arguments for _, name, form, how in string.Formatter().parse(each)]
    except ValueError as error:
        raise ConfigError(f"command {command!r}: cannot be read ({error}); {{{{ stands for a brace") from None
    if not arguments:
        raise ConfigError("command: is empty; write a program and its arguments, such as notify-send {label}")
    for name, form, how in names:
        if name is not None and (name not in PLACEHOLDERS or form or how):
            raise ConfigError(
                f"command {command!r}: no value is named {{{name}{f'!{how}' if how else ''}{f':{form}' if form else ''}}}; "
                f"{nearest(name, PLACEHOLDERS)}"
            )
    if arguments[0] != arguments[0].format_map(dict.fromkeys(PLACEHOLDERS, "")):
        raise ConfigError(f"command {command!r}: an event cannot name the program; begin with a program")
    if shutil.which(arguments[0]) is None:
        raise ConfigError(f"command {command!r}: no program {arguments[0]!r} is found; give its path")
    return arguments
