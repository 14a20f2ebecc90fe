"""A video classifier of transformers with every command: what cannot use it says so at once, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from fewframes.cli.main import Verbs, app
from fewframes.cli.other_models import KINDS, NAMED_BY, OPTIONS, REFUSED, RUN_BY
from fewframes.models.files.names import BASELINE_PREFIX, HF_PREFIX

NAME, BASELINE = "hf:nobody/has-this", "baseline:x3d-m=x3d_m.pyth"
FILM = "no-such-film.mp4"
REFUSED_WORDS = {
    "timeline": (["timeline", FILM], "embeds each frame once by itself"),
    "stream": (["stream", FILM], "embeds each frame once by itself"),
    "count": (["count", FILM], "embeds each frame once by itself"),
    "index": (["index", FILM, "--index", "moments"], "or embed, which writes an embedding of each video"),
    "search": (["search", FILM, "--index", "moments"], "no index can be made"),
    "label": (["label", FILM, "--project", "labels"], "learns on embeddings of single frames"),
    "teach": (["teach", "doors", "--label", "a", "--yes", FILM], "learns on embeddings of single frames"),
    "train": (["train", "clips", "-o", "doors"], "or train this one with its own library"),
    "export": (["export"], "export it with its own library"),
    "models push": (["models", "push"], "hf upload"),
    "models pull": (["models", "pull"], "fetched when it is first used"),
}
"""The words of each command that cannot use such a model, without the model, and what its error says."""
OTHER_WAYS = (
    (["teach", NAME, "--label", "a", "--yes", FILM], "learns on embeddings"),
    (["train", "clips", "-o", "doors", "--teacher", NAME], "learns on embeddings"),
    (["timeline", FILM, "--against-model", NAME], "embeds each frame once"),
    (["predict", FILM, "--model", NAME, "--model", "lite0-16"], "give it alone"),
    (["serve", "--model", "lite0-16", "--model", NAME], "give it alone"),
    (["timeline", FILM, "--model", BASELINE], "embeds each frame once"),
    (["predict", FILM, "--model", BASELINE, "--early-exit", "0.9"], "cannot follow --early-exit"),
    (["predict", FILM, "--model", NAME, "--early-exit", "0.9"], "cannot follow --early-exit"),
    (["predict", FILM, "--model", NAME, "--budget-ms", "50"], "cannot follow --budget-ms"),
    (["predict", FILM, "--model", NAME, "--budget-kb", "50"], "cannot follow --budget-kb"),
    (["evaluate", "clips", "--model", NAME, "-o", "report", "--early-exit", "auto"], "cannot follow --early-exit"),
    (["evaluate", "clips", "--model", NAME, "-o", "report", "--sweep", "2,4"], "cannot follow --sweep"),
    (["embed", FILM, "--model", NAME, "-o", "videos.parquet", "--per-frame"], "cannot follow --per-frame"),
    (["embed", FILM, "--model", NAME, "--frames-store", "stores"], "cannot follow --frames-store"),
    (["mcp", "--model", NAME, "--root", ".", "--allow-teach", "taught"], "cannot follow --allow-teach"),
)


def _commands() -> Iterator[tuple[str, Any]]:
    """Yield the words and the command of each verb, and of the verbs below it."""
    for name, verb in Verbs().items():
        yield name, verb
        for below, command in getattr(verb, "commands", {}).items():
            yield f"{name} {below}", command


def _refused(words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2, (words, done.output)
    (line,) = done.output.splitlines()
    kinds = {NAME: "a video classifier of transformers", BASELINE: "a system of the comparison"}
    assert any(line.startswith(f"error: {name}: {kind}, ") for name, kind in kinds.items() if name in words)
    assert said in line


@pytest.mark.parametrize("command", REFUSED)
def test_a_command_that_cannot_use_it_says_so_at_once(command: str) -> None:
    words, said = REFUSED_WORDS[command]
    at = 1 + command.count(" ")
    as_argument = command in ("export", "models push", "models pull")
    given = [*words[:at], NAME, *words[at:]] if as_argument else [*words, "--model", NAME]
    _refused([*given, "a/b"] if command == "models push" else given, said)


@pytest.mark.parametrize(("words", "said"), OTHER_WAYS)
def test_an_option_that_it_cannot_follow_is_refused_at_once(words: list[str], said: str) -> None:
    _refused(words, said)


def test_every_command_that_takes_a_model_is_in_a_table() -> None:
    takes = {
        name
        for name, command in _commands()
        for param in command.params
        if "--model" in param.opts or (param.param_type_name == "argument" and param.name in NAMED_BY)
    }
    assert {"predict", "train", "teach", "models push"} <= takes
    assert takes | {"bench"} == {*RUN_BY, *REFUSED}
    assert not {*RUN_BY} & {*REFUSED}
    known = {param.name: param.opts for _, command in _commands() for param in command.params}
    for key, (option, _) in OPTIONS.items():
        assert option in known[key]
    assert set(KINDS) == {HF_PREFIX, BASELINE_PREFIX}
