"""Train the detector of a model on labelled clips and on long videos with labelled spans, and put it into the model's file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from fewframes.core.cache import EmbeddingCache
from fewframes.core.process import Progress
from fewframes.data.dataset import VideoSet, hold_out
from fewframes.data.layouts import Sample
from fewframes.data.scenes.groups import with_scenes
from fewframes.errors import ConfigError, DataError, FewframesError
from fewframes.inference.detection.windows import FrameRows, frame_rows
from fewframes.inference.predictor import Predictor, load
from fewframes.models.files.formats import format_of
from fewframes.models.files.model_file import read_model_file, stored_kinds, write_model_file
from fewframes.models.files.names import find_model
from fewframes.results import Failure, background_labels
from fewframes.runtime.protocol import DtypeName
from fewframes.training.boundaries.compose import Clip, Film, FrameSpan, Material
from fewframes.training.boundaries.fit import BoundariesFit, TrainingRows, fit_boundaries
from fewframes.training.config import DEFAULT_RUN, RunConfig
from fewframes.training.features import VideoFeatures, extract_features
from fewframes.video.source import open_video

FRAMES_A_CLIP = 12
"""Frames of the detector during the median clip, which decides how far apart they lie."""
NEAREST_S, FARTHEST_S = 1 / 16, 2.0
"""The limits of the seconds between frames."""
LEAST_SHARE = 0.9
"""The largest fraction of a video that may be labelled for it to count as a long video with spans in it."""


@dataclass(frozen=True)
class BoundariesResult:
    """The result of training a detector: the model file, what is known of the detector, and the videos that could not be read."""

    path: Path
    fit: BoundariesFit
    interval_s: float
    threshold: float
    failures: tuple[Failure, ...]

    def __str__(self) -> str:
        fit = self.fit
        learned = f"boundaries learned from {fit.num_clips} clips"
        learned += f" and {fit.num_spans} spans in {fit.num_films} long videos" if fit.num_films else ""
        if fit.frames_right is None:
            return f"{learned}; too few groups to judge them"
        return (
            f"{learned}; in sequences of left-out groups {fit.frames_right:.1%} of the frames get the right label "
            f"(naming nothing: {fit.nothing_right:.1%}), from a confidence of {self.threshold:.2f} on"
        )


def train_boundaries(
    data: VideoSet,
    model: str | os.PathLike[str],
    run: RunConfig = DEFAULT_RUN,
    *,
    cache: EmbeddingCache | None = None,
    device: str = "auto",
    dtype: DtypeName = "auto",
    progress: Progress = lambda stage, done, total: None,
) -> BoundariesResult:
    """Train the detector of a trained model, and put it into the model's file.

    Clips are composed to long sequences, with stills and clips of background between them. The rest of a video of which only parts
    are labelled counts as background, unless `train.spans_complete` is off. Held-out videos are not learned from.

    Args:
        data: The labelled videos that the model was trained on.
        model: The model file, or the folder of a run.
        run: The settings of that run.
        cache: Where embeddings are looked up and stored.
        device: The device that embeds frames.
        dtype: The precision of the frame encoder.
        progress: Called with the stage, the number done, and the number in all.

    Raises:
        ConfigError: The file is an exported model, or the model mixes frames inside its encoder.
        DataError: The model and the data have other actions, or no clip of an action could be read.
        WeightsError: The model cannot be read.
    """
    path = find_model(os.fspath(model))
    if format_of(str(path)) is not None:
        raise ConfigError(f"{path}: boundaries are trained into .safetensors models; train there, and export again")
    predictor = load(path, device=device, dtype=dtype, unknown="off")
    if not predictor.runtime.embeds_frames:
        raise ConfigError(f"{path}: this model mixes frames inside its encoder; boundaries need layout 'factorised'")
    fraction = 0.0 if run.train.head == "solved" else run.data.holdout
    data = with_scenes(data, run.data, fraction, progress)
    actions, background = data.split_background()
    if set(actions.labels) != set(predictor.labels):
        differing = sorted(set(actions.labels) ^ set(predictor.labels))
        raise DataError(f"{data.name}: its actions are not those of {path} (differing: {', '.join(differing[:5])})")
    training, _ = hold_out(actions, fraction, run.train.seed)
    learned, _ = background.split_marked()
    rows, failures = _read(
        (*actions.subset(training).samples, *learned.samples),
        (*actions.subset(training).groups(), *learned.groups()),
        predictor,
        run,
        cache,
        progress,
    )
    boundaries, fit = fit_boundaries(rows, run.train.seed, progress)
    file = read_model_file(path)
    provenance = {**file.provenance, "boundaries": fit.to_dict()}
    changed = replace(file, boundaries=boundaries, provenance=provenance)
    write_model_file(path, changed, stored_as=stored_kinds(Path(path)))
    return BoundariesResult(Path(path), fit, boundaries.interval_s, boundaries.threshold, failures)


def _read(
    samples: Sequence[Sample],
    groups: Sequence[str],
    predictor: Predictor,
    run: RunConfig,
    cache: EmbeddingCache | None,
    progress: Progress,
) -> tuple[TrainingRows, tuple[Failure, ...]]:
    """Return the frames to learn from, and the videos that could not be read. Raises DataError if no action could be read."""
    labels, config = predictor.labels, predictor.runtime.config
    nothing = background_labels(labels)
    index_of = {label: index for index, label in enumerate(labels) if label not in nothing}
    failures: list[Failure] = []
    parts: list[NDArray[np.float32]] = []
    clips: list[Clip] = []
    count = 0
    data = VideoSet(tuple(samples), "boundaries")
    for number, found in enumerate(extract_features(data, predictor, cache, mirror=run.data.mirror, with_lengths=True)):
        progress("clips", number + 1, len(samples))
        if not isinstance(found, VideoFeatures):
            failures.append(found)
            continue
        views, num_frames = found.features.shape[:2]
        rows = count + np.arange(views * num_frames).reshape(views, num_frames)
        parts.append(found.features.reshape(-1, found.features.shape[-1]))
        count += rows.size
        indices = tuple(index_of[label] for label in samples[number].labels if label in index_of)
        assert found.length_s is not None  # it was asked for
        clips.append(Clip(rows, found.length_s, indices, groups[number]))
    lengths_s = [clip.length_s for clip in clips if clip.labels]
    if not lengths_s:
        raise DataError("no clip of an action could be read, so there is nothing to learn boundaries from")
    interval_s = float(np.clip(round(median(lengths_s) / FRAMES_A_CLIP, 4), NEAREST_S, FARTHEST_S))
    films: list[Film] = []
    if run.train.spans_complete:
        for film, read in _films(samples, groups, index_of, interval_s, predictor, cache, failures, progress):
            parts.append(read.embeddings)
            films.append(replace(film, rows=count + film.rows))
            count += len(read.embeddings)
    width = predictor.runtime.frame_width
    cells = (
        0 if config is None or not config.cells or config.cell_width is None else config.cells**2 * config.cell_width
    )
    rows_MD = np.concatenate(parts)
    material = Material(tuple(clips), tuple(films), interval_s)
    return TrainingRows(rows_MD, material, labels, predictor.runtime.task, width - cells), tuple(failures)


def _films(
    samples: Sequence[Sample],
    groups: Sequence[str],
    index_of: dict[str, int],
    interval_s: float,
    predictor: Predictor,
    cache: EmbeddingCache | None,
    failures: list[Failure],
    progress: Progress,
) -> list[tuple[Film, FrameRows]]:
    """Return the long videos of which parts are labelled, with the embeddings of their frames. Their rows count from 0.

    Videos that cannot be read are added to `failures`.
    """
    of_path: dict[str, list[int]] = {}
    for number, sample in enumerate(samples):
        if sample.end_s is not None or sample.start_s > 0:
            of_path.setdefault(sample.path, []).append(number)
    found: list[tuple[Film, FrameRows]] = []
    for done, (path, numbers) in enumerate(of_path.items()):
        progress("long videos", done + 1, len(of_path))
        try:
            with closing(open_video(path, threads=1)) as video:
                duration_s = video.duration_s
            spans_s = [_range(samples[number], duration_s) for number in numbers]
            if sum(end_s - start_s for start_s, end_s in spans_s) > LEAST_SHARE * duration_s:
                continue
            read = frame_rows(predictor, path, interval_s, cache=cache)
        except FewframesError as error:
            failures.append(Failure.of(path, error))
            continue
        good = ~np.isnan(read.embeddings[:, 0])
        if not good.all():  # what could not be decoded was noted as a gap; nothing is learned from such a video
            failures.append(Failure(path, f"{int((~good).sum())} frames could not be decoded"))
            continue
        spans = [
            FrameSpan(start_s / read.interval_s, end_s / read.interval_s, index_of[label])
            for number, (start_s, end_s) in zip(numbers, spans_s, strict=True)
            for label in samples[number].labels
            if label in index_of
        ]
        found.append((Film(np.arange(len(read.embeddings)), tuple(spans), groups[numbers[0]]), read))
    return found


def _range(sample: Sample, duration_s: float) -> tuple[float, float]:
    return sample.start_s, min(duration_s, duration_s if sample.end_s is None else sample.end_s)
