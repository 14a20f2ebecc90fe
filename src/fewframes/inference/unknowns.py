"""Ask a model's rejection about videos and windows: which show none of its actions, and which are like nothing it has learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fewframes.core.arguments import real_number
from fewframes.errors import ConfigError
from fewframes.models.moments import WindowMoments
from fewframes.models.rejection.judge import Judge
from fewframes.models.rejection.rejection import Judgement
from fewframes.results import Familiarity
from fewframes.runtime.protocol import Floats, Runtime

UnknownChoice = Literal["auto", "off"] | float
"""The rule by which videos are called unknown: `auto` where the model can tell, such that 95 % of the videos of its actions are
kept; a number keeps another fraction of them; `off` never."""


@dataclass(frozen=True, eq=False)
class UnknownRule:
    """A model's rejection and the value of `known` below which a video is unknown."""

    rejection: Judge
    threshold: float
    labels: tuple[str, ...]

    def familiarity(self, embeddings_BTD: Floats) -> list[Familiarity]:
        """Return the judgement on each video by its frame embeddings (B, T, D)."""
        return self._familiarity(self.rejection.judge(embeddings_BTD))

    def familiarity_of(self, moments: WindowMoments) -> list[Familiarity]:
        """Return the judgement on each video by the moments of its frame embeddings, which several models share."""
        return self._familiarity(self.rejection.judge_moments(moments))

    def _familiarity(self, found: Judgement) -> list[Familiarity]:
        return [
            Familiarity(
                known=known,
                threshold=self.threshold,
                unfamiliar=bool(found.unfamiliar[row]),
                reason=self.rejection.reason(found, row, self.labels, unknown=known < self.threshold),
            )
            for row, known in enumerate(found.known.tolist())
        ]

    def known(self, embeddings_BTD: Floats) -> Floats:
        """Return how likely each video shows one of the actions: (B, T, D) -> (B,)."""
        return self.rejection.judge(embeddings_BTD).known


def unknown_rule(runtime: Runtime, choice: UnknownChoice) -> UnknownRule | None:
    """Return the rule by which a model's videos are called unknown; None if they never are.

    Args:
        runtime: the model.
        choice: `auto`, `off`, or the fraction of videos of its actions to keep.

    Raises:
        ConfigError: the choice is none of these, or names a fraction and the model has no rejection.
    """
    if isinstance(choice, str) and choice not in ("auto", "off"):
        raise ConfigError(f"unknown {choice!r}: needs auto, off, or a fraction of known videos to keep, such as 0.9")
    if choice == "off" or (choice == "auto" and runtime.rejection is None):
        return None
    kept = None if isinstance(choice, str) else real_number("unknown", choice, above=0, high=1)
    if runtime.rejection is None:
        raise ConfigError(
            f"unknown = {choice}: no rejection was fitted for {runtime.name}; leave unknown out, or train a model that has one"
        )
    return UnknownRule(runtime.rejection, runtime.rejection.threshold(kept), runtime.labels)


def known_windows(rule: UnknownRule | None, windows: Floats | WindowMoments) -> Floats:
    """Return how likely each window (W, T, D) shows one of the actions (W,); 1 for all if that is not judged.

    Several models share the moments of the windows.
    """
    windows_WTD = windows.windows_BTD if isinstance(windows, WindowMoments) else windows
    if rule is None:
        return np.ones(len(windows_WTD), np.float32)
    return rule.rejection.judge_moments(windows).known if isinstance(windows, WindowMoments) else rule.known(windows)
