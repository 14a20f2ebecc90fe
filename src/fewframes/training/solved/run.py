"""Train a model without steps: embed each video once, solve the read-out, measure it on left-out groups, and write it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.core.cache import EmbeddingCache
from fewframes.core.process import TalkingProgress
from fewframes.core.settings import Task
from fewframes.data.dataset import VideoSet, hold_out
from fewframes.data.known_videos import marks_of
from fewframes.data.scenes.groups import with_scenes
from fewframes.errors import DataError
from fewframes.models.moments import SOLVED_MOMENTS, Floats, moment_features
from fewframes.models.read_out.solve import SolvedMoments, binary_cross_entropy, cross_entropy, solve_moments
from fewframes.models.rejection.fitting import MOST_BACKGROUND, fit_rejection
from fewframes.models.rejection.rejection import Rejection
from fewframes.results import Failure
from fewframes.runtime.protocol import DtypeName
from fewframes.training.background import (
    ReadBackground,
    RunFootage,
    find_run_footage,
    read_background,
    rejection_background,
    typical_length_s,
)
from fewframes.training.calibration import (
    EXPECTED_SOLVED,
    CalibrationFit,
    LeftOutLogits,
    calibration_folds,
    fit_calibration,
)
from fewframes.training.config import DEFAULT_RUN, RunConfig
from fewframes.training.features import EmbeddedVideos
from fewframes.training.forecast import Forecast, forecast_twice
from fewframes.training.run_files import TEACHING_FILE
from fewframes.training.solved.checks import check_groups, check_labels, check_settings, notes_on_groups
from fewframes.training.solved.features import embed_views
from fewframes.training.solved.figures import HeadFigures, figures_of
from fewframes.training.solved.files import check_folder, environment, versions, write_folder
from fewframes.training.solved.model import SolvedStart, Start, start_of
from fewframes.training.solved.words import absent_words, with_words, words_note, words_start
from fewframes.training.teaching.state import TeachingState, new_state, write_state

NUM_FOLDS = 5
"""The parts of the left-out groups in which the figures of the calibration are cross-validated."""


@dataclass(frozen=True, eq=False)
class SolvedResult:
    """The result of a solved run."""

    folder: Path
    """The folder with the model. `fewframes.load` takes it."""
    left_out: HeadFigures
    """The figures on the training videos, each group predicted from all other groups."""
    calibration: CalibrationFit
    """The number that the logits were divided by, beyond the scale that solving chose."""
    held_out: HeadFigures | None
    """The figures on videos that the data name `test` or `val`; None if there are none, or none could be read."""
    num_held_out: int
    """Number of these videos."""
    failures: tuple[Failure, ...]
    """The videos that could not be read."""
    num_cached: int
    """Number of videos whose embeddings came from the cache."""
    embedding_s: float
    """Seconds that embedding took."""
    solving_s: float
    """Seconds that solving took, with the predictions for left-out groups."""
    notes: tuple[str, ...]
    """Notes for users on what limits the figures."""
    forecast: Forecast
    """The forecast for twice the clips."""
    background: ReadBackground | None = None
    """The footage of `data.background`, and the promise that rests on it."""
    num_background: int = 0
    """Number of videos that show none of the actions, from which rejection was learned."""


@dataclass(frozen=True, kw_only=True)
class SolveOptions:
    """The options that do not change the result of a run: the cache of embeddings (None: no cache), the device, the precision of
    the frame encoder, and the command line for the record. `overwrite` replaces a run in the output folder."""

    cache: EmbeddingCache | None = None
    device: str = "auto"
    dtype: DtypeName = "auto"
    overwrite: bool = False
    command: str = ""


DEFAULT_OPTIONS = SolveOptions()


def train_solved(
    data: VideoSet,
    output: str | Path,
    run: RunConfig = DEFAULT_RUN,
    options: SolveOptions = DEFAULT_OPTIONS,
    progress: TalkingProgress = lambda stage, done, total, words: None,
) -> SolvedResult:
    """Solve a read-out of the actions of `data`, and write the model with its figures to a folder.

    All videos that the data do not name `val` or `test` are solved from. Each of their groups is also predicted from all other
    groups, which costs nothing more, so no video needs to be held out to measure the model.

    Args:
        output: The folder, which is made if needed.
        run: Settings of the run. Those that only training in steps uses must be left as they are.
        options: The cache, the device, and if a run in the folder is replaced.
        progress: Called with the stage, the number done, the number in all, and a line of text.

    Raises DataError, ConfigError or WeightsError before anything is written.
    """
    run, folder = replace(run, train=replace(run.train, head="solved")), Path(output)
    check_settings(run)
    check_folder(folder, overwrite=options.overwrite)
    data = with_scenes(data, run.data, 0, lambda stage, done, total: progress(stage, done, total, ""))
    data, background = data.split_background()
    training, held = hold_out(data, 0, run.train.seed)
    part, held_part = data.subset(training), data.subset(_reported(data, held))
    check_groups(part)
    footage = find_run_footage(run.data, part.samples, data.samples)
    start = start_of(run, data.labels, _task(data), options.device, options.dtype)
    began = time.perf_counter()
    views = embed_views(part, start, options.cache, progress, mirror=run.data.mirror, augment=run.augment)
    held_views = _held_out_views(held_part, start, options.cache, progress)
    learned, _ = background.split_marked()
    background_views = _held_out_views(learned, start, options.cache, progress)
    embedding_s, began = time.perf_counter() - began, time.perf_counter()
    read = part.subset(views.indices.tolist())
    check_labels(data.labels, read, views.failures)
    check_groups(read)
    words = words_start(start.file, data.labels, multilabel=read.multilabel) if isinstance(start, SolvedStart) else None
    solved, calibration, left_out = solve_and_measure(read, data.labels, views, words)
    footage_read = (
        None if footage is None else _background(data, footage, start, (solved, left_out), options.cache, progress)
    )
    rejection = fit_rejection(
        views.embeddings,
        targets_of(read, data.labels),
        read.groups(),
        *rejection_background(background_views, learned.groups(), footage_read),
    )
    result = SolvedResult(
        folder=folder,
        left_out=left_out,
        calibration=calibration,
        held_out=_held_out(solved, calibration, held_part, held_views, data),
        num_held_out=len(held_part.samples),
        failures=(*views.failures, *held_views.failures, *background_views.failures),
        num_cached=views.num_cached + held_views.num_cached + background_views.num_cached,
        num_background=len(background_views.indices),
        embedding_s=embedding_s,
        solving_s=time.perf_counter() - began,
        notes=(*notes_on_groups(read), *_notes_on_words(start, data.labels, solved)),
        forecast=forecast_twice(
            views.embeddings,
            targets_of(read, data.labels),
            read.groups(),
            multilabel=read.multilabel,
            seed=run.train.seed,
        ),
        background=footage_read,
    )
    state = _teaching_state(read, views, learned, background_views, footage_read, start, run)
    provenance = _provenance(data, read, run, start, solved, result)
    reported = result.held_out or left_out
    metrics = {"protocol": reported.protocol, **reported.report.to_dict()}
    write_folder(
        folder,
        run,
        _facts(provenance, result, options.command),
        reported,
        data.labels,
        lambda part: _write(part, state, start, solved, provenance, metrics, calibration.thresholds, rejection),
    )
    return result


def _write(
    part: Path,
    state: TeachingState | None,
    start: Start,
    solved: SolvedMoments,
    provenance: Mapping[str, Any],
    metrics: Mapping[str, Any],
    thresholds: tuple[float, ...],
    rejection: Rejection | None,
) -> None:
    """Write the state from which the model can be taught further, and then the model."""
    if state is not None:
        write_state(part / TEACHING_FILE, state)
    start.write(part, solved, provenance, metrics, thresholds, rejection)


def _teaching_state(
    read: VideoSet,
    views: EmbeddedVideos,
    background: VideoSet,
    background_views: EmbeddedVideos,
    footage: ReadBackground | None,
    start: Start,
    run: RunConfig,
) -> TeachingState | None:
    """Return the state from which the model can be taught further; None for exported files, which are not taught."""
    if not isinstance(start, SolvedStart):
        return None
    samples, parts = list(read.samples), [views.embeddings]
    if len(background_views.indices):
        samples += [background.samples[index] for index in background_views.indices.tolist()]
        # They were seen as they are alone.
        parts.append(background_views.embeddings.repeat(views.embeddings.shape[1], axis=1))
    windows = None if footage is None or footage.background is None else footage.background
    return new_state(
        samples,
        np.concatenate(parts),
        start.file,
        _task(read),
        mirror=run.data.mirror,
        augment=run.augment,
        footage=None
        if windows is None or not len(windows.embeddings)
        else (windows.embeddings[:MOST_BACKGROUND, None], windows.groups[:MOST_BACKGROUND]),
    )


def solve_and_measure(
    read: VideoSet, labels: tuple[str, ...], views: EmbeddedVideos, text_KD: NDArray[np.float32] | None = None
) -> tuple[SolvedMoments, CalibrationFit, HeadFigures]:
    """Solve and calibrate the read-out of embedded videos; return it, the calibration, and its figures on left-out groups.

    Args:
        read: The videos, in the order of their embeddings.
        labels: Names of the K actions.
        views: Their embeddings.
        text_KD: The weights of the labels' words, of which as much is added as does best; None if the run starts from none.
    """
    targets_BK = targets_of(read, labels)
    names, groups_B = np.unique(read.groups(), return_inverse=True)
    loss = binary_cross_entropy if read.multilabel else cross_entropy
    solved = solve_moments(views.embeddings, targets_BK, loss, groups_B=groups_B, moments=SOLVED_MOMENTS)
    if text_KD is not None:
        solved = with_words(solved, text_KD, views.embeddings, targets_BK, groups_B, loss)
    passed = f"one pass over {views.embeddings.shape[2]} uniform frames"
    groups = tuple(read.samples[row].group or read.samples[row].path for row in solved.indices)
    solved, calibration = calibrated(solved, targets_BK, groups_B, groups, _task(read))
    protocol = f"each of {len(names)} groups of {read.name} predicted from all other groups, {passed}"
    samples = [read.samples[row] for row in solved.indices]
    logits_NK, targets_NK = solved.left_out[:, 0], targets_BK[solved.indices]
    figures = figures_of(
        logits_NK, targets_NK, _task(read), labels, samples, protocol, views.failures, calibration.thresholds
    )
    return solved, calibration, figures


def calibrated(
    solved: SolvedMoments,
    targets_BK: NDArray[np.float64],
    groups_B: NDArray[np.integer],
    groups: Sequence[str],
    task: Task,
) -> tuple[SolvedMoments, CalibrationFit]:
    """Fit the calibration of a read-out to its left-out videos; return the divided read-out and the calibration.

    Args:
        solved: The read-out.
        targets_BK: The targets of all videos.
        groups_B: The group of each video, as a number.
        groups: The groups of the left-out videos by name, in their order.
        task: One action a video, or any number of them.
    """
    folds = np.zeros(len(groups), np.int64)
    for number, rows in enumerate(calibration_folds(targets_BK[solved.indices], groups, NUM_FOLDS)):
        folds[rows] = number
    # The first view is the video as it is.
    logits_NK, targets_NK = solved.left_out[:, 0], targets_BK[solved.indices]
    # Without its only group no solution knows a label, so such videos say nothing about how sure it may be.
    counts = np.flatnonzero(~(targets_NK[:, _of_one_group(targets_BK, groups_B)] > 0).any(axis=1))
    kept = LeftOutLogits(
        logits_NK[counts], targets_NK[counts], tuple(groups[row] for row in counts.tolist()), folds[counts]
    )
    calibration = fit_calibration(kept, task, "left-out groups of the training videos", EXPECTED_SOLVED)
    return solved.divided(calibration.temperature), calibration


def _of_one_group(targets_BK: NDArray[np.float64], groups_B: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return a mark (K,) for each label whose videos all belong to one group."""
    return np.array([len(np.unique(groups_B[targets_B > 0])) == 1 for targets_B in targets_BK.T])


def targets_of(data: VideoSet, labels: tuple[str, ...]) -> NDArray[np.float64]:
    """Return targets (B, K) in the order of these labels: 1 where the video has the label, else 0."""
    index = {label: number for number, label in enumerate(labels)}
    targets_BK = np.zeros((len(data.samples), len(labels)))
    for row, sample in enumerate(data.samples):
        targets_BK[row, [index[label] for label in sample.labels]] = 1
    return targets_BK


def _task(data: VideoSet) -> Task:
    return "multilabel" if data.multilabel else "single"


def _reported(data: VideoSet, held: list[int]) -> list[int]:
    """Return the indices of the videos that are named `test`, or else of those named `val`."""
    return [index for index in held if data.samples[index].split == "test"] or held


def _held_out_views(
    part: VideoSet, start: Start, cache: EmbeddingCache | None, progress: TalkingProgress
) -> EmbeddedVideos:
    """Return the embeddings of held-out or background videos as they are. If none can be read, there are only failures."""
    nothing = EmbeddedVideos(np.empty((0, 1, 1, 1), np.float32), np.empty(0, np.intp), (), 0)
    if not part.samples:
        return nothing
    try:
        return embed_views(part, start, cache, progress)
    except DataError as error:
        failures = (
            Failure(sample.path, str(error), start_s=sample.start_s, end_s=sample.end_s) for sample in part.samples
        )
        return replace(nothing, failures=tuple(failures))


def _held_out(
    solved: SolvedMoments, calibration: CalibrationFit, part: VideoSet, views: EmbeddedVideos, data: VideoSet
) -> HeadFigures | None:
    """Return the figures on the held-out videos; None if none of them could be read."""
    if not len(views.indices):
        return None
    samples = tuple(part.samples[index] for index in views.indices)
    logits_NK: Floats = moment_features(views.embeddings[:, 0], SOLVED_MOMENTS) @ solved.weight.T + solved.bias
    targets_NK = targets_of(replace(part, samples=samples), data.labels)
    protocol = f"held-out videos of {data.name}, one pass over {views.embeddings.shape[2]} uniform frames"
    return figures_of(
        logits_NK, targets_NK, _task(data), data.labels, samples, protocol, views.failures, calibration.thresholds
    )


def _background(
    data: VideoSet,
    footage: RunFootage,
    start: Start,
    found: tuple[SolvedMoments, HeadFigures],
    cache: EmbeddingCache | None,
    progress: TalkingProgress,
) -> ReadBackground:
    """Return the footage of the run, read with the solved read-out, whose figures say what its threshold leaves to report."""
    solved, left_out = found
    weight_KP, bias_K = solved.weight.astype(np.float32), solved.bias.astype(np.float32)  # as the model file has them

    def encode(windows_WTD: Floats) -> Floats:
        logits_WK: Floats = moment_features(windows_WTD, SOLVED_MOMENTS) @ weight_KP.T + bias_K
        return logits_WK

    read = read_background(
        start.predictor,
        footage,
        data.labels,
        _task(data),
        encode=encode,
        cache=cache,
        progress=lambda stage, done, total: progress(stage, done, total, ""),
    )
    return read.with_reached(left_out.scores, data.labels, _task(data))


def _provenance(
    data: VideoSet, read: VideoSet, run: RunConfig, start: Start, solved: SolvedMoments, result: SolvedResult
) -> dict[str, Any]:
    return {
        "data": data.name,
        "data_fingerprint": data.fingerprint(),
        "num_videos": {
            "training": len(read.samples),
            "held_out": result.num_held_out,
            "chosen_by": 0,
            **({"background": result.num_background} if result.num_background else {}),
            "unread": len(result.failures),
        },
        "training_videos": marks_of(read.samples),
        **typical_length_s(read.samples),
        "head": "solved in closed form; nothing was trained in steps",
        "num_views": 1 + run.data.mirror + run.augment.views,
        "scale_of_logits": solved.gain,
        **({"share_of_text": solved.share_of_text} if solved.share_of_text else {}),
        "calibration": result.calibration.to_dict(data.labels),
        "run": asdict(run),
        "frame_encoder_precision": start.precision,
        "versions": versions(),
        **({} if result.background is None else result.background.provenance()),
    }


def _notes_on_words(start: Start, labels: tuple[str, ...], solved: SolvedMoments) -> list[str]:
    """Return a note on how much of the words was taken, or on labels that are no words, if the run starts from words."""
    absent = absent_words(start.file, labels) if isinstance(start, SolvedStart) else ()
    return words_note(absent, solved.share_of_text)


def _facts(provenance: Mapping[str, Any], result: SolvedResult, command: str) -> dict[str, object]:
    return {
        **{name: fact for name, fact in provenance.items() if name != "training_videos"},
        "failed": [failure.to_dict() for failure in result.failures if not failure.missing],
        "missing": [failure.to_dict() for failure in result.failures if failure.missing],
        **({} if result.background is None else result.background.facts()),
        "seconds": {"embedding": round(result.embedding_s, 2), "solving": round(result.solving_s, 2)},
        "forecast": result.forecast.to_dict(),
        "num_cached": result.num_cached,
        "notes": list(result.notes),
        "environment": environment(),
        "command": command,
        "left_out": result.left_out.to_dict(),
        "held_out": None if result.held_out is None else result.held_out.to_dict(),
    }
