"""Write a taught model into its folder: the model, the state from which it is taught further, its examples and figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fewframes.core.files import filled, remove_parts
from fewframes.data.dataset import VideoSet
from fewframes.data.known_videos import lineage
from fewframes.data.lists import write_list
from fewframes.models.files.model_file import ModelFile, write_model_file
from fewframes.models.rejection.rejection import Rejection
from fewframes.training.config import DEFAULT_RUN, RunConfig, changed, run_to_toml
from fewframes.training.run_files import EXAMPLES_FILE, METRICS_FILE, MODEL_FILE, OUTPUT_FILES, RUN_FILE, TEACHING_FILE
from fewframes.training.solved.files import environment, versions
from fewframes.training.solved.model import solved_file
from fewframes.training.teaching.solving import TaughtReadOut, counts_of
from fewframes.training.teaching.state import TeachingState, write_state


@dataclass(frozen=True, eq=False)
class TaughtFiles:
    """The files of a taught model. An interruption leaves the old ones or the new ones."""

    before: ModelFile
    """The model that was taught, or that a new one starts from."""
    started_from: str | None
    """The name of the model that a new one starts from; None if the model existed."""
    target: Path
    """The folder."""
    state: TeachingState
    """The state to teach further from."""
    read_out: TaughtReadOut
    """The read-out."""
    command: str
    """The command line, for the record."""
    precision: str
    """The precision of the frame encoder."""
    notes: Sequence[str]
    """Notes for users."""

    def write_all(self, judge: Rejection | None) -> None:
        """Write all files. Those of an earlier run that do not belong to the model any longer are removed."""
        with filled(self.target, OUTPUT_FILES) as part:
            write_state(part / TEACHING_FILE, self.state)
            (part / RUN_FILE).write_text(run_to_toml(self._run()), encoding="utf-8", errors="surrogateescape")
            (part / METRICS_FILE).write_text(json.dumps(self._facts(), indent=1) + "\n", encoding="utf-8")
            write_model_file(part / MODEL_FILE, self._model(judge))
        remove_parts(self.target)

    def write_list(self) -> None:
        """Write the list of examples, for `fewframes train`. With many it takes as long as all else, and the model needs it not."""
        write_list(self.state.samples, self.target / EXAMPLES_FILE, multilabel=self.state.task == "multilabel")

    def write_model(self, judge: Rejection | None) -> None:
        """Write the model file anew, with its judge."""
        write_model_file(self.target / MODEL_FILE, self._model(judge))

    def _model(self, judge: Rejection | None) -> ModelFile:
        found = solved_file(self.before, self.read_out.labels, self.state.task, self.read_out.solved, self._provenance)
        return replace(found, metrics=self._metrics(), thresholds=self.read_out.calibration.thresholds, rejection=judge)

    def _run(self) -> RunConfig:
        """Return the settings of the run that the model began with; those of a new model are its own."""
        if self.started_from is None:
            return changed(DEFAULT_RUN, self.before.provenance.get("run", {}))
        solved = {"start": self.started_from, "data": {"mirror": self.state.mirror}, "train": {"head": "solved"}}
        return changed(DEFAULT_RUN, {**solved, "augment": asdict(self.state.augment)})

    def _metrics(self) -> dict[str, Any]:
        found = self.read_out
        protocol = f"each of {found.num_groups} groups of {found.num_examples} examples predicted from all other groups"
        return {"protocol": protocol, **found.report.to_dict()}

    @cached_property
    def _provenance(self) -> dict[str, Any]:
        before, found = self.before.provenance, self.read_out
        data = VideoSet(self.state.samples, "taught examples", multilabel=self.state.task == "multilabel")
        num_background = len(self.state.samples) - found.num_examples + len(self.state.footage_groups)
        if self.started_from is None:
            started_from = before.get("started_from", {})
        else:
            started_from = lineage(self.started_from, before, ["frame encoder"])
        return {
            "data": before.get("data", data.name) if self.started_from is None else data.name,
            "data_fingerprint": data.fingerprint(),
            "num_videos": {
                "training": found.num_examples,
                "held_out": 0,
                "chosen_by": 0,
                **({"background": num_background} if num_background else {}),
                "unread": 0,
            },
            "training_videos": list(self.state.marks),
            "head": "solved in closed form; nothing was trained in steps",
            "taught": counts_of(self.state.samples),
            "num_views": self.state.features.num_views,
            "scale_of_logits": found.solved.gain,
            **({"share_of_text": found.solved.share_of_text} if found.solved.share_of_text else {}),
            "calibration": found.calibration.to_dict(found.labels),
            "run": asdict(self._run()),
            "frame_encoder_precision": self.precision,
            "versions": versions(),
            "started_from": started_from,
        }

    def _facts(self) -> dict[str, Any]:
        """Return the content of the file of metrics."""
        facts = {name: fact for name, fact in self._provenance.items() if name != "training_videos"}
        return {
            **facts,
            "notes": list(self.notes),
            "environment": environment(),
            "command": self.command,
            "left_out": self._metrics(),
        }
