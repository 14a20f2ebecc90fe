"""Recognise what happens in a video from a handful of its frames.

>>> import fewframes
>>> fewframes.load().predict("clip.mp4").top(5)

The public names are imported when they are first used, so that `fewframes --help` does not load torch.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fewframes.core.lazy import lazy
from fewframes.core.text import OneLine
from fewframes.core.version import __version__ as __version__

if TYPE_CHECKING:
    from fewframes.data.config import DataConfig as DataConfig
    from fewframes.data.dataset import VideoSet as VideoSet
    from fewframes.data.dataset import read_data as read_data
    from fewframes.errors import FewframesError as FewframesError
    from fewframes.export.exporter import export as export_model  # noqa: F401
    from fewframes.inference.alarms import Alarm as Alarm
    from fewframes.inference.counting.config import CountConfig as CountConfig
    from fewframes.inference.counting.count import count_repetitions as count  # noqa: F401
    from fewframes.inference.counting.results import RepetitionCount as RepetitionCount
    from fewframes.inference.detection.changes import VideoChanges as VideoChanges
    from fewframes.inference.detection.changes import compare_timelines as compare_timelines
    from fewframes.inference.detection.spans import Span as Span
    from fewframes.inference.explain import Explanation as Explanation
    from fewframes.inference.explain import explain as explain
    from fewframes.inference.footage import alarm_promise as alarm_promise
    from fewframes.inference.frame_store.store import FrameStore as FrameStore
    from fewframes.inference.frame_store.store import read_frame_store as read_frame_store
    from fewframes.inference.frame_store.write import write_frame_store as write_frame_store
    from fewframes.inference.heads import Heads as Heads
    from fewframes.inference.heads import load_heads as load_heads
    from fewframes.inference.live.results import StreamPrediction as StreamPrediction
    from fewframes.inference.predictor import Predictor as Predictor
    from fewframes.inference.predictor import load as load
    from fewframes.inference.promise import AlarmPromise as AlarmPromise
    from fewframes.inference.regions.detect import detect_tracks as detect_tracks
    from fewframes.inference.regions.predict import predict_regions as predict_regions
    from fewframes.inference.regions.timeline import sweep_regions as timeline_regions  # noqa: F401
    from fewframes.inference.stream import Stream as Stream
    from fewframes.inference.timeline import Timeline as Timeline
    from fewframes.inference.timeline import TimelineConfig as TimelineConfig
    from fewframes.inference.timeline import sweep as timeline  # noqa: F401
    from fewframes.models.config import ModelConfig as ModelConfig
    from fewframes.models.files.checkpoint import Checkpoint as Checkpoint
    from fewframes.models.files.checkpoint import save_checkpoint as save_checkpoint
    from fewframes.models.files.hub import load_checkpoint as load_checkpoint
    from fewframes.models.files.image_weights import start_model as start_model
    from fewframes.models.presets import PRESETS as PRESETS
    from fewframes.models.stam import STAM as STAM
    from fewframes.models.words.files import words_model as words_model
    from fewframes.results import Clip as Clip
    from fewframes.results import Failure as Failure
    from fewframes.results import Label as Label
    from fewframes.results import Prediction as Prediction
    from fewframes.results import Timing as Timing
    from fewframes.search.index import Index as Index
    from fewframes.training.boundaries.train import BoundariesResult as BoundariesResult
    from fewframes.training.boundaries.train import train_boundaries as train_boundaries
    from fewframes.training.config import RunConfig as RunConfig
    from fewframes.training.config import read_run as read_run
    from fewframes.training.evaluation.evaluate import EvaluateConfig as EvaluateConfig
    from fewframes.training.evaluation.evaluate import evaluate as evaluate
    from fewframes.training.evaluation.results import Evaluation as Evaluation
    from fewframes.training.run.finish import TrainingResult as TrainingResult
    from fewframes.training.solved.run import SolvedResult as SolvedResult
    from fewframes.training.solved.run import SolveOptions as SolveOptions
    from fewframes.training.solved.run import train_solved as train_solved
    from fewframes.training.teaching.changes import TeachChanges as TeachChanges
    from fewframes.training.teaching.teach import TeachOptions as TeachOptions
    from fewframes.training.teaching.teach import TeachResult as TeachResult
    from fewframes.training.teaching.teach import teach as teach
    from fewframes.training.train import TrainOptions as TrainOptions
    from fewframes.training.train import train as train
    from fewframes.video.live_settings import StreamConfig as StreamConfig
    from fewframes.video.regions.boxes import Box as Box
    from fewframes.video.regions.boxes import Track as Track
    from fewframes.video.regions.tracker import Detector as Detector
    from fewframes.video.regions.zone import Zone as Zone
    from fewframes.video.source import open_video as open_video
    from fewframes.video.source import read_frames as read_frames
    from fewframes.video.view import ViewConfig as ViewConfig

_MODULE_OF = {
    "Alarm": "inference.alarms",
    "alarm_promise": "inference.footage",
    "AlarmPromise": "inference.promise",
    "Box": "video.regions.boxes",
    "BoundariesResult": "training.boundaries.train",
    "Checkpoint": "models.files.checkpoint",
    "Clip": "results",
    "compare_timelines": "inference.detection.changes",
    "count": "inference.counting.count:count_repetitions",
    "CountConfig": "inference.counting.config",
    "DataConfig": "data.config",
    "detect_tracks": "inference.regions.detect",
    "Detector": "video.regions.tracker",
    "evaluate": "training.evaluation.evaluate",
    "EvaluateConfig": "training.evaluation.evaluate",
    "Evaluation": "training.evaluation.results",
    "explain": "inference.explain",
    "Explanation": "inference.explain",
    "export_model": "export.exporter:export",
    "Failure": "results",
    "FewframesError": "errors",
    "FrameStore": "inference.frame_store.store",
    "Heads": "inference.heads",
    "Index": "search.index",
    "Label": "results",
    "load": "inference.predictor",
    "load_checkpoint": "models.files.hub",
    "load_heads": "inference.heads",
    "ModelConfig": "models.config",
    "open_video": "video.source",
    "Prediction": "results",
    "predict_regions": "inference.regions.predict",
    "Predictor": "inference.predictor",
    "PRESETS": "models.presets",
    "read_data": "data.dataset",
    "read_frame_store": "inference.frame_store.store",
    "read_frames": "video.source",
    "read_run": "training.config",
    "RepetitionCount": "inference.counting.results",
    "RunConfig": "training.config",
    "save_checkpoint": "models.files.checkpoint",
    "SolvedResult": "training.solved.run",
    "SolveOptions": "training.solved.run",
    "Span": "inference.detection.spans",
    "STAM": "models.stam",
    "start_model": "models.files.image_weights",
    "Stream": "inference.stream",
    "StreamConfig": "video.live_settings",
    "StreamPrediction": "inference.live.results",
    "teach": "training.teaching.teach",
    "TeachChanges": "training.teaching.changes",
    "TeachOptions": "training.teaching.teach",
    "TeachResult": "training.teaching.teach",
    "Timeline": "inference.timeline",
    "timeline": "inference.timeline:sweep",
    "timeline_regions": "inference.regions.timeline:sweep_regions",
    "TimelineConfig": "inference.timeline",
    "Timing": "results",
    "Track": "video.regions.boxes",
    "train": "training.train",
    "train_boundaries": "training.boundaries.train",
    "train_solved": "training.solved.run",
    "TrainingResult": "training.run.finish",
    "TrainOptions": "training.train",
    "VideoChanges": "inference.detection.changes",
    "VideoSet": "data.dataset",
    "ViewConfig": "video.view",
    "words_model": "models.words.files",
    "write_frame_store": "inference.frame_store.write",
    "Zone": "video.regions.zone",
}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605

logging.getLogger("fewframes").addFilter(OneLine())


__getattr__, __dir__ = lazy("fewframes", _MODULE_OF)
