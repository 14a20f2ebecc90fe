"""Write the model that a labelling session ends with: the usual solved run, on embeddings that are there already."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fewframes.core.cache import EmbeddingCache, key_of
from fewframes.core.text import count_of
from fewframes.data.config import DataConfig
from fewframes.data.dataset import VideoSet
from fewframes.data.known_videos import content_of
from fewframes.data.layouts import Sample
from fewframes.errors import DataError
from fewframes.inference.frame_features import encoder_key
from fewframes.label.archive import Archive, Window
from fewframes.label.journal import Labels
from fewframes.label.learner import groups_of
from fewframes.label.values import BACKGROUND, Segment, WrittenModel
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.config import RunConfig
from fewframes.training.features import PLAIN, plain_setting
from fewframes.training.solved.run import SolveOptions, train_solved

LAYOUT = "labels of a labelling session"


def samples_of(archive: Archive, segments: Sequence[Segment]) -> list[Sample]:
    """Return the segments of videos that are here as samples to train on, in the order of time."""
    here = sorted(
        (segment for segment in segments if segment.video in archive.videos),
        key=lambda segment: (archive.videos[segment.video].path, segment.start_s),
    )
    return [
        Sample(
            path=archive.videos[segment.video].path,
            labels=(segment.label,),
            start_s=segment.start_s,
            end_s=segment.end_s,
            group=group,
        )
        for segment, group in zip(here, groups_of(here), strict=True)
    ]


def write_model(archive: Archive, labels: Labels, folder: Path, model: str) -> WrittenModel:
    """Train on the windows that a session learns from, and write the model. It replaces one in the folder.

    Args:
        archive: The embedded videos.
        labels: The labels. Those that disagree are left out, and those of videos that are not embedded.
        folder: The folder of the model.
        model: The name of the model whose frame encoder embedded.

    Raises:
        DataError: The labels are not enough.
    """
    agreed = labels.agreed()
    windows = {segment.id: archive.whole_windows_of(segment) for segment in agreed}
    known = [segment for segment in agreed if windows[segment.id]]
    names = {segment.label for segment in known}
    if len(names) < 2 or not names - {BACKGROUND}:
        raise DataError(
            "a model needs labels of two actions, or of one action and of parts that show none; label some more first"
        )
    began = time.perf_counter()
    groups = dict(zip((segment.id for segment in known), groups_of(known), strict=True))
    with tempfile.TemporaryDirectory() as place:
        cache = EmbeddingCache(Path(place))
        samples: list[Sample] = []
        setting = key_of(encoder_key(archive.predictor), plain_setting(PLAIN, archive.num_frames))
        used: set[str] = set()
        for segment in known:
            for window in windows[segment.id]:
                sample = _sample(archive, segment, window, groups[segment.id])
                if content := content_of(sample):  # there is none where a file is gone since it was embedded
                    first_W = np.array([window.first])
                    embeddings_VTD = archive.embeddings_of(archive.video(window.video), window.stride, first_W)
                    cache.put(key_of(content, setting), embeddings_VTD)
                    samples.append(sample)
                    used.add(segment.id)
        run = RunConfig(
            start=model,
            data=DataConfig(task="single", holdout=0, scenes="off", mirror=False),
            augment=AugmentConfig(views=0),
        )
        data = VideoSet(tuple(samples), "labels", LAYOUT)
        options = SolveOptions(cache=cache, overwrite=True, command="fewframes label")
        result = train_solved(data, folder, run, options)
    figures = f"{result.left_out.interval} ({result.left_out.protocol})"
    if num_left_out := labels.num_disagreeing + len(agreed) - len(used):
        figures += f"; {count_of(num_left_out, 'label')} left out: they disagree, or their videos are not embedded yet, or gone"
    return WrittenModel(str(folder), figures, time.perf_counter() - began)


def _sample(archive: Archive, segment: Segment, window: Window, group: str) -> Sample:
    start_s, end_s = archive.times_of(window)
    return Sample(
        path=archive.video(window.video).path, labels=(segment.label,), start_s=start_s, end_s=end_s, group=group
    )
