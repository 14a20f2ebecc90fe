"""The inference wing: a model over one video. It makes predictions, streams, timelines, explanations and early exits.

It imports `models`, `video` and `core`, and none of the wings above it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewframes.core.lazy import lazy

if TYPE_CHECKING:
    from fewframes.inference.predictor import Predictor as Predictor
    from fewframes.inference.predictor import load as load

__getattr__, __dir__ = lazy("fewframes.inference", {"Predictor": "predictor", "load": "predictor"})
