"""Finish a run: fit the early exit, evaluate the model on held-out videos, and write the output folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from fewframes.data.known_videos import without_marks
from fewframes.errors import DataError
from fewframes.inference.stages.early_exit import fit_plan, stage_logits, stages_of
from fewframes.models.config import ExitPlan
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.rejection.fitting import fit_rejection
from fewframes.models.rejection.rejection import Rejection
from fewframes.models.stam import STAM
from fewframes.results import Failure
from fewframes.runtime.torch_runtime import TorchRuntime
from fewframes.training.background import ReadBackground, read_background, rejection_background
from fewframes.training.calibration import CalibrationFit
from fewframes.training.evaluation.evaluate import evaluate
from fewframes.training.evaluation.results import Evaluation
from fewframes.training.forecast import Forecast, forecast_twice
from fewframes.training.run.calibrate import CalibratedModels
from fewframes.training.run.context import RunContext
from fewframes.training.run.fit import FittedRun
from fewframes.training.run.folder import versions
from fewframes.training.run.prepare import PreparedRun
from fewframes.training.run.start import kept_graphs


@dataclass(frozen=True)
class TrainingResult:
    """The result of a run: the model, its evaluation on held-out videos (None if there were none, or none could be read), the
    failures, the number of videos from the cache, and the seconds that embedding and training took."""

    checkpoint: Checkpoint
    evaluation: Evaluation | None
    num_held_out: int
    failures: tuple[Failure, ...]
    num_cached: int
    embedding_s: float
    training_s: float
    calibration: CalibrationFit
    background: ReadBackground | None = None
    """The footage of `data.background`, and the promise that rests on it."""
    forecast: Forecast | None = None
    """The forecast for twice the clips; None if the frame encoder learned, and in all processes but the first."""


def finish(
    prepared: PreparedRun, fitted: FittedRun, calibrated: CalibratedModels, embedding_s: float
) -> TrainingResult:
    """Evaluate the chosen model, write all files of the run, and return its result. Every process has to call it."""
    context, videos = prepared.context, prepared.context.videos
    background = _background(context, calibrated.chosen)
    kept = {} if background is None else background.provenance()
    # The footage is read in the first process alone, so the judge is fitted there, and is the same in all.
    rejection = context.from_first(_rejection(prepared, background) if context.is_first else None)
    checkpoint = _checkpoint(prepared, calibrated.chosen, calibrated.chosen_fit, rejection, kept)
    evaluation = _evaluation(context, checkpoint)
    if background is not None and evaluation is not None:
        background = background.with_reached(evaluation.scores, checkpoint.labels, checkpoint.model.config.task)
    result = TrainingResult(
        checkpoint=replace(checkpoint, metrics=_metrics(context, evaluation)),
        evaluation=evaluation,
        num_held_out=len(videos.reporting.samples),
        failures=tuple(videos.failures.values()),
        num_cached=videos.num_cached,
        embedding_s=embedding_s,
        training_s=fitted.training_s,
        calibration=calibrated.chosen_fit,
        background=background,
        forecast=_forecast(prepared) if context.is_first else None,
    )
    if context.is_first:
        last = None
        if calibrated.chosen is not calibrated.last:
            last = _checkpoint(prepared, calibrated.last, calibrated.last_fit, rejection, {})
        context.folder.write(result.checkpoint, last, evaluation, _facts(context, result), fitted.held_out_log)
    context.accelerator.wait_for_everyone()
    return result


def _background(context: RunContext, model: STAM) -> ReadBackground | None:
    """Return the footage of the run, read with the trained model; None if there is none, and in all processes but the first."""
    videos = context.videos
    if context.footage is None or not context.is_first:
        return None
    return read_background(
        context.predictor(model),
        context.footage,
        videos.data.labels,
        model.config.task,
        cache=videos.cache,
        progress=videos.on_scoring,
    )


def _rejection(prepared: PreparedRun, footage: ReadBackground | None) -> Rejection | None:
    """Return the judge of videos that show none of the actions; None if the frame encoder learned, or too few groups are there."""
    videos, embedded = prepared.context.videos, prepared.embedded
    if embedded is None:
        return None
    background = rejection_background(prepared.background, videos.background.groups(), footage)
    return fit_rejection(
        embedded.embeddings,
        videos.targets_BK[embedded.indices].numpy(),
        videos.groups_of(embedded),
        *background,
    )


def _forecast(prepared: PreparedRun) -> Forecast | None:
    """Return what more clips would bring; None if the frame encoder learned, so that there are no embeddings."""
    videos, embedded = prepared.context.videos, prepared.embedded
    if embedded is None:
        return None
    return forecast_twice(
        embedded.embeddings,
        videos.targets_BK[embedded.indices].numpy(),
        videos.groups_of(embedded),
        multilabel=videos.data.multilabel,
        seed=prepared.context.run.train.seed,
    )


def _checkpoint(
    prepared: PreparedRun,
    model: STAM,
    calibration: CalibrationFit,
    rejection: Rejection | None,
    kept: Mapping[str, object],
) -> Checkpoint:
    context, videos, data = prepared.context, prepared.context.videos, prepared.context.videos.data
    provenance = {
        "data": data.name,
        "data_fingerprint": data.fingerprint(),
        "num_videos": {
            "training": len(videos.training.samples),
            "held_out": len(videos.reporting.samples),
            "chosen_by": len(videos.choosing.samples) if context.run.train.keep == "best" else 0,
            **({} if prepared.background is None else {"background": len(prepared.background.indices)}),
            "unread": len(videos.failures),
        },
        "training_videos": videos.training_marks,
        **videos.clip_length,
        "calibration": calibration.to_dict(data.labels),
        "run": asdict(context.run),
        "frame_encoder_precision": context.dtype,
        "versions": versions(),
        **({"started_from": prepared.started_from} if prepared.started_from else {}),
        **kept,
    }
    exits = _exits(prepared, model)
    graphs = kept_graphs(context.run, model.config, context.view)
    return Checkpoint(
        model.eval(),
        context.view,
        data.labels,
        provenance,
        {},
        prepared.licences,
        exits,
        graphs=graphs,
        thresholds=calibration.thresholds,
        rejection=rejection,
    )


def _exits(prepared: PreparedRun, model: STAM) -> ExitPlan | None:
    """Return the plan by which the trained model stops early, fitted on held-out videos; None if it was not asked for."""
    embedded = prepared.choosing
    if not prepared.context.run.train.early_exit or embedded is None:
        return None
    stages = stages_of(model.config.num_frames)
    targets_N = prepared.context.videos.choosing_targets_BK[embedded.indices].argmax(axis=1)
    runtime = TorchRuntime(
        Checkpoint(model, prepared.context.view, prepared.context.videos.data.labels), dtype="float32"
    )
    return fit_plan(stages, stage_logits(runtime, embedded.embeddings[:, 0], stages), targets_N)


def _evaluation(context: RunContext, checkpoint: Checkpoint) -> Evaluation | None:
    """Return the evaluation on held-out videos, as `fewframes evaluate` does it; None if none could be read."""
    videos, part = context.videos, context.videos.reporting
    if not part.samples:
        return None
    try:
        predictor = context.predictor(checkpoint.model, checkpoint.thresholds, checkpoint.rejection)
        known_and_none = replace(part, samples=(*part.samples, *videos.held_background.samples))
        evaluation = evaluate(
            known_and_none, predictor, videos.cache, process=videos.process, progress=videos.on_scoring
        )
    except DataError as error:
        videos.note_unread(part, error)
        return None
    videos.note(evaluation.failures)
    return evaluation


def _metrics(context: RunContext, evaluation: Evaluation | None) -> dict[str, object]:
    if evaluation is None:
        return {}
    videos = context.videos
    protocol = f"held-out videos of {videos.data.name}, {evaluation.provenance['protocol']}"
    if context.run.train.keep == "best" and videos.choosing.samples == videos.reporting.samples:
        protocol += "; the epoch was chosen by these same videos, so the figure is too kind"
    return {"protocol": protocol, **evaluation.report.to_dict()}


def _facts(context: RunContext, result: TrainingResult) -> Mapping[str, object]:
    return {
        **without_marks(result.checkpoint.provenance),
        "failed": [failure.to_dict() for failure in result.failures if not failure.missing],
        "missing": [failure.to_dict() for failure in result.failures if failure.missing],
        **({} if result.background is None else result.background.facts()),
        "seconds": {"embedding": round(result.embedding_s, 2), "training": round(result.training_s, 2)},
        **({} if result.forecast is None else {"forecast": result.forecast.to_dict()}),
        "num_cached": result.num_cached,
        "processes": context.accelerator.num_processes,
        "device": str(context.accelerator.device),
    }
