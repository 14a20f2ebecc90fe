"""Teach a model by a few examples: embed them, solve the read-out again, and write the model at once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewframes.core.cache import EmbeddingCache
from fewframes.core.files import check_writable, held, writing
from fewframes.core.process import TalkingProgress
from fewframes.core.settings import Task
from fewframes.core.storage import is_address
from fewframes.core.text import count_of
from fewframes.data.dataset import VideoSet
from fewframes.data.lists import unlistable
from fewframes.data.samples import Sample, as_label
from fewframes.errors import ConfigError, DataError, MissingVideo, WeightsError
from fewframes.inference.alarms import STORED
from fewframes.models.files.model_file import ModelFile, read_model_file
from fewframes.models.files.names import find_model
from fewframes.models.presets import PRESETS
from fewframes.runtime.open import DEFAULT_MODEL
from fewframes.runtime.protocol import DtypeName
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.config import RunConfig
from fewframes.training.run_files import EXAMPLES_FILE, MODEL_FILE, OUTPUT_FILES, TEACHING_FILE
from fewframes.training.solved.features import embed_views
from fewframes.training.solved.model import SolvedStart
from fewframes.training.teaching.changes import TeachChanges, changed_examples
from fewframes.training.teaching.features import views_kept
from fewframes.training.teaching.files import TaughtFiles
from fewframes.training.teaching.solving import TaughtReadOut, counts_of, solve_examples, solve_judge
from fewframes.training.teaching.state import TeachingState, encoder_of, new_state, read_state

JUDGED_AT_ONCE = 200
"""The most examples with which the judge of unknown videos is fitted before the model is first written. With more of them it takes
seconds, in which the model answers already, without one."""


@dataclass(frozen=True, kw_only=True)
class TeachOptions:
    """The options of teaching. Those of a new model are not used for one that exists."""

    output: str | Path | None = None
    """Folder for the taught model, if the model that is taught is to stay as it is."""
    start: str = DEFAULT_MODEL
    """The model whose frame encoder a new model takes over. One that was made from words gives its words, too."""
    task: Task = "single"
    """The kind of labels of a new model: one action a video, or any number of them."""
    mirror: bool = True
    """Learn from each example of a new model mirrored left to right as well."""
    cache: EmbeddingCache | None = None
    """The cache of frame embeddings; None: no cache."""
    device: str = "auto"
    """The device that embeds."""
    dtype: DtypeName = "auto"
    """The precision of the frame encoder."""
    command: str = ""
    """The command line, for the record."""


DEFAULT_TEACHING = TeachOptions()


@dataclass(frozen=True, eq=False)
class TeachResult:
    """The result of teaching."""

    folder: Path
    """The folder with the model. `fewframes.load` takes it."""
    labels: tuple[str, ...]
    """The labels of the model now."""
    examples: dict[str, int]
    """The number of examples of each label, and of background."""
    read_out: TaughtReadOut
    """The read-out, its calibration and its figures on left-out groups."""
    has_judge: bool
    """True if the model can tell videos that show none of its labels."""
    num_new: int
    """Number of new examples."""
    embedding_s: float
    """Seconds that embedding the new examples took."""
    usable_s: float
    """Seconds from then until the model was written, that is, until the labels could be used."""
    judging_s: float
    """Further seconds until the judge of unknown videos was written too; 0 if it was written with the model."""
    notes: tuple[str, ...]
    """Notes for users: what was left as it is, what limits the figures, and what the model has no longer."""


def teach(
    model: str | Path,
    changes: TeachChanges,
    options: TeachOptions = DEFAULT_TEACHING,
    progress: TalkingProgress = lambda stage, done, total, words: None,
) -> TeachResult:
    """Make labels part of a model at once, by a few examples of each, or correct, rename, remove and forget.

    The read-out, its calibration, the thresholds and the judge of unknown videos are solved again, from what is kept of all
    examples. Either all changes are made or none.

    Args:
        model: The folder of a model that `fewframes train --head solved` or teaching wrote. A folder that does not exist is a new
            model, which starts from the frame encoder of `options.start`.
        changes: The changes.
        options: The output folder, the cache and the device, and the settings of a new model.
        progress: Called with the stage, the number done, the number in all, and a line of text.

    Raises:
        WeightsError: The model keeps nothing that it could be taught from, or its files are damaged.
        DataError: A clip cannot be read, a label or clip is unknown, or fewer than two labels are left.
        ConfigError: There is nothing to change, or another process writes to the folder.
    """
    folder = Path(model).parent if Path(model).name == MODEL_FILE else Path(model)
    if not changes:
        raise ConfigError(
            "nothing to teach; give clips with --label NAME --yes CLIP, or --no, --events, --forget, --remove, --rename"
        )
    begun = Begun.at(folder, options)
    target = Path(options.output) if options.output is not None else folder
    _check_target(target, folder)
    with _locked(target):
        if target == folder:
            begun = Begun.at(folder, options)  # what another process has taught until it released the lock
        return _taught(begun, target, changes, options, progress)


@dataclass(frozen=True, eq=False)
class Begun:
    """The model that is taught, as it is before."""

    name: str
    """The folder, or the model whose frame encoder a new model takes over."""
    file: ModelFile
    state: TeachingState | None
    """None for a new model."""
    task: Task
    mirror: bool
    augment: AugmentConfig

    @classmethod
    def at(cls, folder: Path, options: TeachOptions) -> Begun:
        """Return the model in a folder, or the begin of a new one if there is none. Raises WeightsError if it cannot be taught."""
        path = folder / TEACHING_FILE
        if path.is_file():
            state = read_state(path)
            file = read_model_file(folder / MODEL_FILE)
            if state.encoder != encoder_of(file):
                raise WeightsError(
                    f"{folder}: {MODEL_FILE} has another frame encoder than its examples were embedded with; train again: "
                    f"fewframes train {folder / EXAMPLES_FILE} --head solved"
                )
            return cls(str(folder), file, state, state.task, state.mirror, state.augment)
        _check_new(folder)
        file = read_model_file(find_model(options.start))
        return cls(options.start, file, None, options.task, options.mirror, RunConfig().augment)

    @property
    def samples(self) -> tuple[Sample, ...]:
        return () if self.state is None else self.state.samples


def _check_new(folder: Path) -> None:
    """Raise WeightsError if a path is a model that cannot be taught, rather than the place for a new one."""
    name = str(folder)
    if name in PRESETS:
        raise WeightsError(
            f"{name}: is a model of the package, and keeps no examples; teach a new one that starts from it: fewframes teach "
            f"FOLDER --model {name} ..."
        )
    if folder.is_file() or any((folder / file).exists() for file in OUTPUT_FILES):
        raise WeightsError(
            f"{name}: keeps no examples that it could be taught with ({TEACHING_FILE} is missing): it was trained in steps, "
            f"exported, or solved by an older version; train it with --head solved, or teach a new one that starts from its frame "
            f"encoder: fewframes teach FOLDER --model {name} ..."
        )
    if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise WeightsError(f"{name}: is a folder with other files and no model; name a new folder for a new model")


def _check_target(target: Path, folder: Path) -> None:
    """Raise ConfigError if the output folder cannot be written to, or holds another model."""
    found = [name for name in OUTPUT_FILES if (target / name).exists()]
    if target.resolve() != folder.resolve() and found:
        raise ConfigError(f"{target}: holds {', '.join(found)} already; take another folder")
    check_writable(target)


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Make the folder if needed and lock it. A folder that was made is removed if the block leaves it empty."""
    is_new = not target.exists()
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
    try:
        with held(target):
            yield
    finally:
        if is_new:
            with suppress(OSError):  # it has files
                target.rmdir()


def _taught(
    begun: Begun, target: Path, changes: TeachChanges, options: TeachOptions, progress: TalkingProgress
) -> TeachResult:
    rows, notes = changed_examples(begun.samples, changes, begun.task)
    new = [sample for sample, row in rows if row is None]
    old = [(sample, row) for sample, row in rows if row is not None]
    _check_videos(new, begun.task)
    began = time.perf_counter()
    embeddings_BVTD, precision = _embedded(begun, new, len(rows), options, progress)
    embedding_s, began = time.perf_counter() - began, time.perf_counter()
    state = _state_after(begun, old, new, embeddings_BVTD)
    if state.words is not None:
        state = replace(
            state, words=state.words.renamed({as_label(old): as_label(new) for old, new in changes.rename.items()})
        )
    read_out = solve_examples(state)
    at_once = len(state.judged) + len(state.footage_groups) <= JUDGED_AT_ONCE
    judge = solve_judge(state) if at_once else None
    notes += [*read_out.notes, *_lost(begun.file, state), *_fixed(state)]
    writer = TaughtFiles(
        begun.file,
        None if begun.state is not None else begun.name,
        target,
        state,
        read_out,
        options.command,
        precision,
        notes,
    )
    with writing(target):
        writer.write_all(judge)
    usable_s, began = time.perf_counter() - began, time.perf_counter()
    if not at_once:
        progress("fitting the judge of unknown videos", 0, 1, "")
        judge = solve_judge(state)
        with writing(target):
            writer.write_model(judge)
        progress("fitting the judge of unknown videos", 1, 1, "")
    writer.write_list()
    return TeachResult(
        folder=target,
        labels=read_out.labels,
        examples=counts_of(state.samples),
        read_out=read_out,
        has_judge=judge is not None,
        num_new=len(new),
        embedding_s=embedding_s,
        usable_s=usable_s,
        judging_s=0.0 if at_once else time.perf_counter() - began,
        notes=tuple(notes),
    )


def _check_videos(samples: Sequence[Sample], task: Task) -> None:
    """Raise an error for the first new example whose file does not exist or cannot be listed, before any is embedded."""
    for sample in samples:
        if reason := unlistable(sample, multilabel=task == "multilabel"):
            raise DataError(f"{sample.path!r}: {reason}")
        if not is_address(sample.path) and not os.path.exists(sample.path):
            raise MissingVideo(f"{sample.path}: no such video; nothing was taught")


def _embedded(
    begun: Begun, new: Sequence[Sample], num_examples: int, options: TeachOptions, progress: TalkingProgress
) -> tuple[NDArray[np.float32], str]:
    """Return the frame embeddings (B, V, T, D) of new examples, in as many views as are kept, and the encoder's precision."""
    precision = str(begun.file.provenance.get("frame_encoder_precision", "float32"))
    if not new:
        return np.empty((0, 1, 1, 1), np.float32), precision
    labels = tuple(sorted({label for sample in new for label in sample.labels}))
    start = SolvedStart(RunConfig(start=begun.name), labels, begun.task, options.device, options.dtype)
    if begun.state is None:
        num_views = views_kept(num_examples, 1 + begun.mirror + begun.augment.views)
    else:
        num_views = begun.state.features.num_views
    mirror = begun.mirror and num_views > 1
    views = embed_views(
        VideoSet(tuple(new), "the new examples", multilabel=begun.task == "multilabel"),
        start,
        options.cache,
        progress,
        mirror=mirror,
        augment=replace(begun.augment, views=num_views - 1 - mirror),
    )
    if views.failures:
        first, count = views.failures[0], count_of(len(new), "new example")
        raise DataError(
            f"{len(views.failures)} of {count} cannot be read, and nothing was taught; the first: {first.error}"
        )
    return views.embeddings, start.precision


def _state_after(
    begun: Begun,
    old: Sequence[tuple[Sample, int]],
    new: Sequence[Sample],
    embeddings_BVTD: NDArray[np.float32],
) -> TeachingState:
    if begun.state is None:
        if not new:
            raise DataError("no examples: a new model begins with clips; give --label NAME --yes CLIP ... --no CLIP")
        return new_state(new, embeddings_BVTD, begun.file, begun.task, mirror=begun.mirror, augment=begun.augment)
    kept = begun.state.kept([sample for sample, _ in old], np.array([row for _, row in old], np.int64))
    return kept.added(new, embeddings_BVTD) if new else kept


def _lost(file: ModelFile, state: TeachingState) -> list[str]:
    """Return notes on what the old model had and the taught one has not."""
    notes = []
    if STORED in file.provenance:
        notes.append(
            "the promise of alarms of the model is gone, because it was for the old scores; make one when streaming: fewframes "
            "stream SOURCE --background FOOTAGE --alarms-per-day N"
        )
    if file.provenance.get("share_of_text") and state.words is None:
        notes.append(
            "the words that the model started from are gone, because it was trained by an older version that did not keep them; "
            "train it again from the model of words to have them"
        )
    if file.exits is not None:
        notes.append("the plan of an early exit of the model is gone, because it was fitted to the old scores")
    return notes


def _fixed(state: TeachingState) -> list[str]:
    """Return a note if not every example has a direction of its own, which costs accuracy."""
    space = state.features.space
    if space is None or len(state.samples) <= len(space.vectors):
        return []
    return [
        f"{len(state.samples)} examples are compared in {len(space.vectors)} directions, and fewer than examples cost accuracy; "
        "for the best figures train on the whole list: fewframes train examples.csv --head solved"
    ]
