"""Read the videos of a training run: their embeddings, a teacher's scores of them, and the failures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from fewframes.core.cache import EmbeddingCache
from fewframes.data.dataset import VideoSet
from fewframes.data.known_videos import marks_of
from fewframes.data.layouts import Sample
from fewframes.errors import DataError
from fewframes.inference.predictor import Predictor
from fewframes.inference.stages.early_exit import stages_of, with_stages
from fewframes.results import Failure
from fewframes.runtime.protocol import scores_of
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.background import typical_length_s
from fewframes.training.config import RunConfig
from fewframes.training.evaluation.labels import indices_of
from fewframes.training.evaluation.scoring import Scores, score_videos
from fewframes.training.features import EmbeddedVideos, VideoFeatures, embed_videos, extract_features
from fewframes.training.ranks import ProcessRank

Progress = Callable[[str, int, int, str], None]
"""A function that is called with the name of the stage, the number done, the number in all, and a line of text."""


class RunVideos:
    """The videos of a run in three parts: `training`, `choosing` (held out, to choose the epoch) and `reporting` (held out, to
    measure the model). `background` are videos for training that show none of the actions, `held_background` those held out.

    Each of the processes that train together embeds and scores some of the videos, and all get the results. `failures` are the
    videos that could not be read so far, `num_cached` is the number that came from the cache.

    Args:
        data: All labelled videos.
        training: Indices of the training videos.
        held: Indices of the held-out videos.
        run: Settings of the run.
        cache: Cache of frame embeddings, which all processes share.
        process: This process among those that train together.
        progress: Called as embedding and scoring go on.
        background: Videos that show none of the actions; None if there are none.
    """

    def __init__(
        self,
        data: VideoSet,
        training: list[int],
        held: list[int],
        run: RunConfig,
        cache: EmbeddingCache,
        process: ProcessRank,
        progress: Progress,
        background: VideoSet | None = None,
    ) -> None:
        self.data, self.cache, self.process = data, cache, process
        self._run, self._progress = run, progress
        # Videos marked `test` are left out of choosing, unless nothing else is held out: the figure on them stays honest then.
        tested = [index for index in held if data.samples[index].split == "test"]
        choosing = [index for index in held if index not in tested] or held
        self.training, self.choosing, self.reporting = (
            data.subset(part) for part in (training, choosing, tested or held)
        )
        self.background, self.held_background = (background or data.subset(())).split_marked()
        targets_BK = data.multi_hot()
        self.targets_BK = torch.from_numpy(targets_BK[training])
        self.choosing_targets_BK = targets_BK[choosing]
        self.failures: dict[tuple[str, float, float | None], Failure] = {}
        self.num_cached = 0

    @cached_property
    def training_marks(self) -> list[str]:
        """The keys of the training videos, which the model's file keeps so that an evaluation can recognise them."""
        return marks_of(self.training.samples)

    @cached_property
    def clip_length(self) -> dict[str, float]:
        """The median length of the training videos, for the record of the model; empty if none of them can be opened."""
        return typical_length_s(self.training.samples)

    def groups_of(self, embedded: EmbeddedVideos) -> list[str]:
        """Return the groups of the embedded training videos."""
        groups = self.training.groups()
        return [groups[index] for index in embedded.indices.tolist()]

    def note(self, failures: Iterable[Failure]) -> None:
        """Remember these failures, each once."""
        self.failures |= {(failure.source, failure.start_s, failure.end_s): failure for failure in failures}

    def note_unread(self, part: VideoSet, error: DataError) -> None:
        """Remember that no video of this part could be read, with the error as the reason."""
        self.note(failed(sample, str(error)) for sample in part.samples)

    def embedded(
        self, part: VideoSet, predictor: Predictor, *, mirror: bool = False, augment: AugmentConfig | None = None
    ) -> EmbeddedVideos | None:
        """Return the embeddings of a part of the data; None if no video of it could be read.

        Args:
            part: The videos.
            predictor: The model whose frame encoder embeds them.
            mirror: Add a mirrored copy of each video.
            augment: Adds `augment.views` augmented views of each video.
        """
        num_new = self.fill_cache(part, predictor, mirror=mirror, augment=augment)
        try:
            for result in embed_videos(part, predictor, self.cache, mirror=mirror, augment=augment):
                if isinstance(result, EmbeddedVideos):
                    self.num_cached += max(0, result.num_cached - num_new)  # below 0 if the cache could not be written
                    self.note(result.failures)
                    return result
                self._progress("embedding", result, len(part.samples), "")
        except DataError as error:
            self.note_unread(part, error)
        return None

    def embedded_views(self, predictor: Predictor) -> EmbeddedVideos | None:
        """Return the embeddings of the training videos as they are, mirrored and augmented; None if none could be read.

        For early exit, views of fewer frames are added.
        """
        mirror = self._run.data.mirror
        embedded = self.embedded(self.training, predictor, mirror=mirror, augment=self._run.augment)
        if embedded is None or not self._run.train.early_exit:
            return embedded
        stages = stages_of(predictor.num_frames)
        return replace(embedded, embeddings=with_stages(embedded.embeddings, stages, 1 + mirror))

    def fill_cache(
        self, part: VideoSet, predictor: Predictor, *, mirror: bool = False, augment: AugmentConfig | None = None
    ) -> int:
        """Embed a part of the data into the cache, together with the other processes. Every process has to call it.

        Args:
            part: The videos.
            predictor: The model whose frame encoder embeds them.
            mirror: Add a mirrored copy of each video.
            augment: Adds `augment.views` augmented views of each video.

        Returns:
            Number of videos that were not in the cache before; 0 if there is only one process, which embeds when it reads.
        """
        if self.process.num_processes == 1:
            return 0
        num_new = 0
        mine = part.subset(self.process.indices(len(part.samples)))
        for index, result in enumerate(extract_features(mine, predictor, self.cache, mirror=mirror, augment=augment)):
            num_new += isinstance(result, VideoFeatures) and not result.cached
            self._progress("embedding (this process)", index + 1, len(mine.samples), "")
        return sum(self.process.gather([num_new]))

    def scores(self, part: VideoSet, predictor: Predictor, cache: EmbeddingCache | None) -> Scores:
        """Return a model's scores of a part of the data. Raises DataError if no video of it could be read."""
        return score_videos(part, predictor, cache, process=self.process, progress=self.on_scoring)

    def teacher_scores(self, teacher: Predictor) -> Tensor:
        """Return the teacher's scores (B, K) of the training videos at the run's temperature, in the order of the data's labels."""
        columns = indices_of(self.data.labels, teacher.labels, f"teacher {self._run.train.teacher!r}")
        scores = self.scores(self.training, teacher, self.cache)
        scores_BK = torch.zeros_like(self.targets_BK)
        logits_NK = scores.logits[:, columns] / self._run.train.teacher_temperature
        scores_BK[scores.indices] = torch.from_numpy(scores_of(logits_NK, teacher.runtime.task))
        return scores_BK

    def on_scoring(self, stage: str, done: int, total: int) -> None:
        """Pass the progress of scoring on to the run's own callback."""
        self._progress(stage, done, total, "")


def failed(sample: Sample, reason: str) -> Failure:
    """Return the failure of a video, or a part of one, that could not be read for this reason."""
    return Failure(sample.path, reason, start_s=sample.start_s, end_s=sample.end_s)
