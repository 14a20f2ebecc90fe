"""Refuse `hf:NAME` and `baseline:NAME=FILE`, which are whole classifiers, where a command cannot run them, before they are loaded.

Loading such a model takes seconds, and finding out later that a command cannot use it may take minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewframes.errors import ConfigError

KINDS = {"hf:": "a video classifier of transformers", "baseline:": "a system of the comparison"}
"""The kinds of such models, by the beginning of their names."""
RUN_BY = ("predict", "evaluate", "embed", "serve", "mcp", "bench")
"""The commands that run such a model."""
BY_ITSELF = (
    "embeds each frame once by itself, and such a model mixes frames inside its encoder; take a model of fewframes"
)
LEARNS = (
    "learns on embeddings of single frames, and such a model mixes frames inside its encoder; take a model of fewframes"
)
REFUSED = {
    "timeline": f"{BY_ITSELF}, or parts of the video with predict --start and --end",
    "stream": BY_ITSELF,
    "count": BY_ITSELF,
    "index": f"{BY_ITSELF}, or embed, which writes an embedding of each video",
    "search": "takes the model of its index, and no index can be made with such a model",
    "label": LEARNS,
    "teach": LEARNS,
    "train": f"{LEARNS}, or train this one with its own library",
    "export": "writes the graphs of our networks; export it with its own library",
    "models push": "uploads files of fewframes; upload its own files with the client of the hub: hf upload",
    "models pull": "stores files of fewframes; hf:NAME is fetched when it is first used: fewframes predict VIDEO --model hf:NAME",
}
"""The commands that cannot use such a model, and the reason, after the name of the command."""
OPTIONS = {
    "early_exit": ("--early-exit", "it takes all of its frames at once"),
    "budget_ms": ("--budget-ms", "it takes all of its frames at once"),
    "budget_kb": ("--budget-kb", "it takes all of its frames at once"),
    "sweep": ("--sweep", "it takes its own number of frames alone"),
    "per_frame": ("--per-frame", "its frames have no embeddings of their own"),
    "frames_store": ("--frames-store", "its frames have no embeddings of their own"),
    "allow_teach": ("--allow-teach", "nothing can be learned on it"),
}
"""The options that such a model cannot follow, by the name of their value, with the reason."""
NAMED_BY = ("model", "start", "teacher", "against_model", "name")
"""The values of commands that name models. `bench` takes any model, and has a value of its own."""


def check_other_models(command: str, values: Mapping[str, Any]) -> None:
    """Raise ConfigError if a command is to do with a model that is not ours what it cannot.

    Args:
        command: The words of the command after `fewframes`, such as "models push".
        values: The values of its arguments and options, by their names.
    """
    given = [name for key in NAMED_BY for name in _names(values.get(key))]
    found = next((name for name in given if name.startswith(tuple(KINDS))), None)
    if found is None:
        return
    kind = f"{found}: {next(words for start, words in KINDS.items() if found.startswith(start))}"
    if command in REFUSED:
        raise ConfigError(
            f"{kind}, which {' and '.join((', '.join(RUN_BY[:-1]), RUN_BY[-1]))} run as it is. {command} {REFUSED[command]}"
        )
    if len(given) > 1:
        raise ConfigError(
            f"{kind}, given with {len(given) - 1} other: several models answer in one pass over a frame encoder that they share, "
            "and such a model has none; give it alone"
        )
    for key, (option, reason) in OPTIONS.items():
        if values.get(key):
            raise ConfigError(f"{kind}, which cannot follow {option}: {reason}; leave that out, or take another model")


def _names(value: object) -> list[str]:
    """Return the names of models in a value: a text, or several."""
    if isinstance(value, str):
        return [value]
    return [name for name in value if isinstance(name, str)] if isinstance(value, list | tuple) else []
