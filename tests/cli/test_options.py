"""Options that stand for settings: their defaults and limits are those of the settings."""

from __future__ import annotations

import pytest

from fewframes.cli.options import DATA, INPUT, setting
from fewframes.training.config import DEFAULT_RUN
from helpers.commands import run


@pytest.mark.parametrize(
    ("defaults", "name", "expected"),
    [
        (DATA, "official_split", (1, None, "1")),
        (DATA, "holdout", (0, 0.5, "0.2")),
        (DATA, "mirror", (None, 0.5, "mirror")),
        (DATA, "videos", (None, 0.5, False)),
        (DEFAULT_RUN.train, "early_exit", (None, 0.5, False)),
        (DEFAULT_RUN.train, "seed", (0, None, "0")),
        (DEFAULT_RUN.train, "layer_decay", (None, 1, "1.0")),
    ],
)
def test_limits_and_default_are_those_of_the_setting(
    defaults: object, name: str, expected: tuple[float | None, float | None, str | bool]
) -> None:
    option = setting(defaults, name, INPUT, "Words.", most=expected[1] if expected[1] != 1 else None)
    assert (option.min, option.max, option.show_default) == expected


def test_help_loads_no_arrays() -> None:
    code = "import sys; sys.modules['numpy'] = sys.modules['torch'] = None; from fewframes.cli.main import main; main()"
    for verb in ("train", "evaluate"):
        done = run(verb, "--help", code=code)
        assert done.returncode == 0, done.stderr
        assert "[default: (0.2); 0<=x<=0.9]" in done.stdout or verb == "evaluate"
