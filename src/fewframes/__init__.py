"""Recognise what happens in a video from a handful of its frames.

>>> import fewframes
>>> fewframes.load().predict("clip.mp4").top(5)

The names below are imported when first used, so that `fewframes --help` need not load torch.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING

from fewframes.words import OneLine

if TYPE_CHECKING:
    from fewframes.clip import Clip as Clip
    from fewframes.clip import Failure as Failure
    from fewframes.clip import Label as Label
    from fewframes.clip import Prediction as Prediction
    from fewframes.clip import Timing as Timing
    from fewframes.config import ModelConfig as ModelConfig
    from fewframes.config import StreamConfig as StreamConfig
    from fewframes.config import ViewConfig as ViewConfig
    from fewframes.errors import FewframesError as FewframesError
    from fewframes.explain import Explanation as Explanation
    from fewframes.model import STAM as STAM
    from fewframes.predictor import Predictor as Predictor
    from fewframes.predictor import load as load
    from fewframes.presets import PRESETS as PRESETS
    from fewframes.stream import Stream as Stream
    from fewframes.stream import StreamPrediction as StreamPrediction
    from fewframes.video import open_video as open_video
    from fewframes.video import read_frames as read_frames
    from fewframes.weights import Checkpoint as Checkpoint
    from fewframes.weights import load_checkpoint as load_checkpoint
    from fewframes.weights import save_checkpoint as save_checkpoint
    from fewframes.weights import start_model as start_model

_ROOM_OF = {
    "Clip": "clip",
    "Label": "clip",
    "Prediction": "clip",
    "Timing": "clip",
    "PRESETS": "presets",
    "ModelConfig": "config",
    "StreamConfig": "config",
    "ViewConfig": "config",
    "FewframesError": "errors",
    "Explanation": "explain",
    "STAM": "model",
    "Failure": "clip",
    "Predictor": "predictor",
    "load": "predictor",
    "Stream": "stream",
    "StreamPrediction": "stream",
    "open_video": "video",
    "read_frames": "video",
    "Checkpoint": "weights",
    "load_checkpoint": "weights",
    "save_checkpoint": "weights",
    "start_model": "weights",
}

__all__ = sorted(_ROOM_OF)  # noqa: PLE0605
__version__ = "0.1.0"
logging.getLogger("fewframes").addFilter(OneLine())


def __getattr__(name: str) -> object:
    if name in _ROOM_OF:
        return getattr(importlib.import_module(f"fewframes.{_ROOM_OF[name]}"), name)
    raise AttributeError(f"module 'fewframes' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_ROOM_OF]
