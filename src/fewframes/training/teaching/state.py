"""The state from which a model is taught: its examples, what is kept of each, and the file that holds them beside the model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from fewframes.core.cache import arrays_key
from fewframes.core.settings import Task, settings_from
from fewframes.data.known_videos import marks_of
from fewframes.data.samples import Sample
from fewframes.errors import ConfigError, WeightsError
from fewframes.models.files.model_file import ModelFile, write_safetensors
from fewframes.models.moments import SOLVED_MOMENTS, Indices, moment_features
from fewframes.models.rejection.evidence import JudgedMoments
from fewframes.models.rejection.fitting import MOST_BACKGROUND, MOST_VIDEOS, evenly_chosen
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.solved.model import ENCODER
from fewframes.training.solved.words import Words
from fewframes.training.teaching.changes import whole_path
from fewframes.training.teaching.features import ExampleFeatures

FORMAT = 1
"""The version of the state's file."""
STATE_KEY = "fewframes.teaching"
"""The key of the facts in the metadata of the state's file."""
MOST_JUDGED = MOST_VIDEOS + MOST_BACKGROUND
"""The most examples of which the moments are kept that the judge of unknown videos learns from."""


@dataclass(frozen=True, eq=False)
class TeachingState:
    """The examples of a model, and what is kept of each."""

    samples: tuple[Sample, ...]
    """The B examples."""
    marks: tuple[str, ...]
    """The key of each by which a video is known again."""
    features: ExampleFeatures
    """The features of each, from which the read-out is solved."""
    judged: Indices
    """The indices of the examples that the judge of unknown videos learns from."""
    judge: JudgedMoments
    """The moments of these for the judge."""
    footage: JudgedMoments | None
    """The moments of windows of uneventful footage, which are no examples; None if there are none."""
    footage_groups: tuple[str, ...]
    """The group of each of these windows."""
    task: Task
    """The kind of labels: one action a video, or any number of them."""
    mirror: bool
    """True if examples are also seen mirrored."""
    augment: AugmentConfig
    """The settings of the random views of examples."""
    encoder: str
    """The key of the frame encoder that the examples were embedded with."""
    words: Words | None = None
    """The words of labels that the model started from; None if it started from none."""

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Return the labels of all examples, sorted by name."""
        return tuple(sorted({label for sample in self.samples for label in sample.labels}))

    def kept(self, samples: Sequence[Sample], rows: Indices) -> TeachingState:
        """Return the state with these of its examples, with changed labels.

        Args:
            samples: The examples as they are now.
            rows: The index of each among the examples so far.
        """
        place = {int(row): number for number, row in enumerate(rows)}
        some = np.array([number for number, row in enumerate(self.judged) if int(row) in place], np.int64)
        same = len(rows) == len(self.samples)
        return replace(
            self,
            samples=tuple(samples),
            marks=tuple(self.marks[row] for row in rows),
            features=self.features if same else self.features.kept(rows),
            judged=np.array([place[int(row)] for row in self.judged[some]], np.int64),
            judge=self.judge.some(some),
        )

    def added(self, samples: Sequence[Sample], embeddings_BVTD: NDArray[np.float32]) -> TeachingState:
        """Return the state with further examples, by the frame embeddings of as many views of each as are kept."""
        judged = np.concatenate([self.judged, len(self.samples) + np.arange(len(samples))])
        new = rounded(JudgedMoments.of(embeddings_BVTD)).with_views(self.judge.moments.shape[1])
        judge = JudgedMoments.joined([self.judge, new])
        some = np.arange(len(judged))[-MOST_JUDGED:]
        return replace(
            self,
            samples=(*self.samples, *samples),
            marks=(*self.marks, *marks_of(samples)),
            features=self.features.added(moments_of(embeddings_BVTD)),
            judged=judged[some],
            judge=judge.some(some),
        )


def new_state(
    samples: Sequence[Sample],
    embeddings_BVTD: NDArray[np.float32],
    file: ModelFile,
    task: Task,
    *,
    mirror: bool,
    augment: AugmentConfig,
    footage: tuple[NDArray[np.float32], Sequence[str]] | None = None,
) -> TeachingState:
    """Return the state of a model whose read-out is solved from these examples.

    Args:
        samples: The examples.
        embeddings_BVTD: The frame embeddings of all views of each.
        file: The model whose frame encoder embedded them.
        task: One action a video, or any number of them.
        mirror: Examples are also seen mirrored.
        augment: The settings of their random views.
        footage: The frame embeddings (W, V, T, D) of windows of uneventful footage, and their groups.
    """
    labels = sorted({label for sample in samples for label in sample.labels})
    labels_BK = np.array([[label in sample.labels for label in labels] for sample in samples]).reshape(len(samples), -1)
    order = evenly_chosen(labels_BK, len(samples))
    judged = np.sort(order[:MOST_JUDGED])
    judge = rounded(JudgedMoments.of(embeddings_BVTD[judged]))
    windows = None if footage is None else rounded(JudgedMoments.of(footage[0])).with_views(judge.moments.shape[1])
    return TeachingState(
        samples=tuple(replace(sample, path=whole_path(sample.path), split="") for sample in samples),
        marks=tuple(marks_of(samples)),
        features=ExampleFeatures.of(moments_of(embeddings_BVTD), order),
        judged=judged,
        judge=judge,
        footage=windows,
        footage_groups=() if footage is None else tuple(footage[1]),
        task=task,
        mirror=mirror,
        augment=augment,
        encoder=encoder_of(file),
        words=Words.of(file),
    )


def moments_of(embeddings_BVTD: NDArray[np.float32]) -> NDArray[np.float16]:
    """Return the moments (B, V, P) of all views as they are kept."""
    rows = [moment_features(views_VTD, SOLVED_MOMENTS) for views_VTD in embeddings_BVTD]
    return np.clip(np.stack(rows), -6e4, 6e4).astype(np.float16)


def rounded(judge: JudgedMoments) -> JudgedMoments:
    """Return the moments for the judge as numbers that float16 can hold, as they are after they were stored."""
    moments_BVP = np.clip(judge.moments, -6e4, 6e4).astype(np.float16).astype(np.float32)
    return JudgedMoments(moments_BVP, judge.changes)


def encoder_of(file: ModelFile) -> str:
    """Return a key of the weights of a model's frame encoder."""
    return arrays_key({key: array for key, array in file.tensors.items() if key.startswith(ENCODER)})


def write_state(path: Path, state: TeachingState) -> None:
    """Write the file of a state. Raises OSError if it cannot be written."""
    facts = {
        "format": FORMAT,
        "task": state.task,
        "mirror": state.mirror,
        "augment": asdict(state.augment),
        "encoder": state.encoder,
        "footage_groups": list(state.footage_groups),
        "words": None if state.words is None else list(state.words.labels),
        "examples": [
            [sample.path, list(sample.labels), sample.start_s, sample.end_s, sample.group, mark]
            for sample, mark in zip(state.samples, state.marks, strict=True)
        ],
    }
    arrays: dict[str, NDArray[Any]] = {f"features.{name}": array for name, array in state.features.to_arrays().items()}
    arrays |= {"judged": state.judged, **_judge_arrays("judge", state.judge)}
    if state.words is not None:
        arrays["words"] = state.words.vectors
    if state.footage is not None:
        arrays |= _judge_arrays("footage", state.footage)
    write_safetensors(path, arrays, {}, {STATE_KEY: json.dumps(facts)})


def read_state(path: Path) -> TeachingState:
    """Return the state in a file. Raises WeightsError if it is damaged, or was written by a newer version."""
    try:
        with safe_open(path, framework="np") as file:
            facts = json.loads((file.metadata() or {}).get(STATE_KEY, "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if facts.get("format", FORMAT) > FORMAT:
            raise WeightsError(
                f"{path}: format {facts['format']}; this fewframes reads format {FORMAT}: install a newer one"
            )
        return _state_of(facts, arrays)
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, ConfigError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsError(
            f"{path}: is damaged ({reason[0]}); take another copy of the folder, or train again: fewframes train examples.csv "
            "--head solved"
        ) from None


def _state_of(facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> TeachingState:
    samples, marks = [], []
    for path, labels, start_s, end_s, group, mark in facts["examples"]:
        samples.append(Sample(path=path, labels=tuple(labels), start_s=start_s, end_s=end_s, group=group))
        marks.append(mark)
    features = {name.removeprefix("features."): array for name, array in arrays.items() if name.startswith("features.")}
    state = TeachingState(
        samples=tuple(samples),
        marks=tuple(marks),
        features=ExampleFeatures.from_arrays(features),
        judged=arrays["judged"],
        judge=_judge_in("judge", arrays),
        footage=_judge_in("footage", arrays) if "footage.moments" in arrays else None,
        footage_groups=tuple(facts["footage_groups"]),
        task=facts["task"],
        mirror=facts["mirror"],
        augment=settings_from(AugmentConfig, facts["augment"], "augment"),
        encoder=facts["encoder"],
        words=Words(tuple(facts["words"]), arrays["words"]) if facts.get("words") else None,
    )
    if len(state.features.rows) != len(samples) or len(state.judged) != len(state.judge.changes):
        raise ValueError(f"{len(samples)} examples and {len(state.features.rows)} rows")
    return state


def _judge_arrays(name: str, judge: JudgedMoments) -> dict[str, NDArray[Any]]:
    return {f"{name}.moments": judge.moments.astype(np.float16), f"{name}.changes": judge.changes}


def _judge_in(name: str, arrays: Mapping[str, NDArray[Any]]) -> JudgedMoments:
    return JudgedMoments(arrays[f"{name}.moments"].astype(np.float32), arrays[f"{name}.changes"])
