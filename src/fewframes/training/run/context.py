"""The surroundings that the three parts of a run share."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from fewframes.inference.predictor import Predictor
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.rejection.judge import Judge
from fewframes.models.stam import STAM
from fewframes.runtime.protocol import DtypeName
from fewframes.training.background import RunFootage
from fewframes.training.config import RunConfig
from fewframes.training.run.folder import RunFolder
from fewframes.training.run.videos import Progress, RunVideos
from fewframes.video.view import ViewConfig

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True, eq=False)
class RunContext:
    """The settings, videos, footage, output folder and processes of a run, with the device and precision of its frame encoder."""

    run: RunConfig
    videos: RunVideos
    folder: RunFolder
    accelerator: Accelerator
    view: ViewConfig
    footage: RunFootage | None
    device: str
    dtype: DtypeName
    progress: Progress

    @property
    def frozen(self) -> bool:
        """True if the frame encoder does not learn, so that training is on cached embeddings."""
        return self.run.train.unfreeze == "none"

    @property
    def is_first(self) -> bool:
        """True in the process that writes the files."""
        return bool(self.accelerator.is_main_process)

    def predictor(self, model: STAM, thresholds: tuple[float, ...] = (), rejection: Judge | None = None) -> Predictor:
        """Return a predictor with a copy of the model. A copy, because a predictor folds and casts its weights.

        Args:
            model: The model.
            thresholds: The score from which each label of a multi-label model counts as present.
            rejection: The judge of videos that show none of the actions; None if there is none.
        """
        checkpoint = Checkpoint(
            copy.deepcopy(model), self.view, self.videos.data.labels, thresholds=thresholds, rejection=rejection
        )
        return Predictor(checkpoint, device=self.device, dtype=self.dtype, name=str(self.folder.folder))

    def from_first(self, value: Value) -> Value:
        """Return the main process's value in every process."""
        values = [value]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(values)
        return values[0]

    def agreed(self, *flags: bool) -> list[bool]:
        """Return the main process's flags in every process. Clocks differ, and all have to save or stop at the same step."""
        agreed = list(flags)
        if self.accelerator.num_processes > 1:
            broadcast_object_list(agreed)
        return agreed
