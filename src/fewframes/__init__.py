"""Recognise what happens in a video from a handful of its frames.

>>> import fewframes
>>> fewframes.load().predict("clip.mp4").top(5)

The public names are imported when they are first used, so that `fewframes --help` does not load torch.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING

from fewframes.core.text import OneLine

if TYPE_CHECKING:
    from fewframes.errors import FewframesError as FewframesError
    from fewframes.inference.explain import Explanation as Explanation
    from fewframes.inference.predictor import Predictor as Predictor
    from fewframes.inference.predictor import load as load
    from fewframes.inference.stream import Stream as Stream
    from fewframes.inference.stream import StreamPrediction as StreamPrediction
    from fewframes.models.checkpoint import Checkpoint as Checkpoint
    from fewframes.models.checkpoint import save_checkpoint as save_checkpoint
    from fewframes.models.config import ModelConfig as ModelConfig
    from fewframes.models.hub import load_checkpoint as load_checkpoint
    from fewframes.models.image_weights import start_model as start_model
    from fewframes.models.presets import PRESETS as PRESETS
    from fewframes.models.stam import STAM as STAM
    from fewframes.results import Clip as Clip
    from fewframes.results import Failure as Failure
    from fewframes.results import Label as Label
    from fewframes.results import Prediction as Prediction
    from fewframes.results import Timing as Timing
    from fewframes.video.live_settings import StreamConfig as StreamConfig
    from fewframes.video.source import open_video as open_video
    from fewframes.video.source import read_frames as read_frames
    from fewframes.video.view import ViewConfig as ViewConfig

# The modules of the public names, for `__getattr__`. The imports above are for type checkers alone; a new name needs both.
_MODULE_OF = {
    "Clip": "results",
    "Label": "results",
    "Prediction": "results",
    "Timing": "results",
    "PRESETS": "models.presets",
    "ModelConfig": "models.config",
    "StreamConfig": "video.live_settings",
    "ViewConfig": "video.view",
    "FewframesError": "errors",
    "Explanation": "inference.explain",
    "STAM": "models.stam",
    "Failure": "results",
    "Predictor": "inference.predictor",
    "load": "inference.predictor",
    "Stream": "inference.stream",
    "StreamPrediction": "inference.stream",
    "open_video": "video.source",
    "read_frames": "video.source",
    "Checkpoint": "models.checkpoint",
    "load_checkpoint": "models.hub",
    "save_checkpoint": "models.checkpoint",
    "start_model": "models.image_weights",
}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605
__version__ = "0.1.0"
logging.getLogger("fewframes").addFilter(OneLine())


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"fewframes.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module 'fewframes' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_MODULE_OF]
