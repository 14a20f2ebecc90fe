"""The videos of a run: their embeddings, what a teacher says of them, and which could not be read."""

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
from fewframes.inference.early_exit import stages_of, with_stages
from fewframes.inference.predictor import Predictor
from fewframes.results import Failure
from fewframes.training.augment import AugmentConfig
from fewframes.training.config import RunConfig
from fewframes.training.evaluate import indices_of
from fewframes.training.features import EmbeddedVideos, VideoFeatures, embed_videos, extract_features
from fewframes.training.processes import ProcessRank
from fewframes.training.scoring import Scores, score_videos

Progress = Callable[[str, int, int, str], None]
"""Called with the stage, how much of it is done, how much there is, and what else there is to say."""


class RunVideos:
    """The parts of the data: `training`, `choosing` (held out, to choose the epoch by), `reporting` (held out, to measure on).

    Each of the processes that train together embeds and judges its `share`; all have the results. `failures` are the videos
    that could not be read so far, `num_cached` how many came from the cache.
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
    ) -> None:
        self.data, self.cache, self.process = data, cache, process
        self._run, self._progress = run, progress
        tested = [index for index in held if data.samples[index].split == "test"]
        choosing = [index for index in held if index not in tested] or held
        self.training, self.choosing, self.reporting = (
            data.subset(part) for part in (training, choosing, tested or held)
        )
        self.targets_BK, self.choosing_targets_BK = data.multi_hot()[training], data.multi_hot()[choosing]
        self.failures: dict[tuple[str, float, float | None], Failure] = {}
        self.num_cached = 0

    @cached_property
    def training_marks(self) -> list[str]:
        """What a model keeps of the videos it learned from."""
        return marks_of(self.training.samples)

    def note(self, failures: Iterable[Failure]) -> None:
        """Remember these, each once."""
        self.failures |= {(failure.source, failure.start_s, failure.end_s): failure for failure in failures}

    def note_unread(self, part: VideoSet, error: DataError) -> None:
        """Remember that no video of this part could be read."""
        self.note(failed(sample, str(error)) for sample in part.samples)

    def embedded(
        self, part: VideoSet, predictor: Predictor, *, mirror: bool = False, augment: AugmentConfig | None = None
    ) -> EmbeddedVideos | None:
        """Return the embeddings of a part of the data; None where no video of it could be read."""
        num_new = self.fill_cache(part, predictor, mirror=mirror, augment=augment)
        try:
            for result in embed_videos(part, predictor, self.cache, mirror=mirror, augment=augment):
                if isinstance(result, EmbeddedVideos):
                    self.num_cached += max(0, result.num_cached - num_new)  # below 0 where the cache took nothing
                    self.note(result.failures)
                    return result
                self._progress("embedding", result, len(part.samples), "")
        except DataError as error:
            self.note_unread(part, error)
        return None

    def embedded_views(self, predictor: Predictor) -> EmbeddedVideos | None:
        """Return the training videos as they are, mirrored, and as they are augment; with few frames too for early exit."""
        mirror = self._run.data.mirror
        embedded = self.embedded(self.training, predictor, mirror=mirror, augment=self._run.augment)
        if embedded is None or not self._run.train.early_exit:
            return embedded
        stages = stages_of(predictor.config.num_frames)
        return replace(embedded, embeddings=with_stages(embedded.embeddings, stages, 1 + mirror))

    def fill_cache(
        self, part: VideoSet, predictor: Predictor, *, mirror: bool = False, augment: AugmentConfig | None = None
    ) -> int:
        """Fill the cache together with the other processes; return how many videos they have embedded, 0 where there are none."""
        if self.process.num_processes == 1:
            return 0
        num_new = 0
        mine = part.subset(self.process.indices(len(part.samples)))
        for number, seen in enumerate(extract_features(mine, predictor, self.cache, mirror=mirror, augment=augment)):
            num_new += isinstance(seen, VideoFeatures) and not seen.cached
            self._progress("embedding its share", number + 1, len(mine.samples), "")
        return sum(self.process.gather([num_new]))

    def scores(self, part: VideoSet, predictor: Predictor, cache: EmbeddingCache | None) -> Scores:
        """Return what a model says of a part of the data. Raises DataError."""
        return score_videos(part, predictor, cache, process=self.process, progress=self.on_scoring)

    def teacher_scores(self, teacher: Predictor) -> Tensor:
        """Return the teacher's scores (B, K) of the training videos at the run's temperature, in the labels of the data."""
        columns = indices_of(self.data.labels, teacher.labels, f"teacher {self._run.train.teacher!r}")
        scores = self.scores(self.training, teacher, self.cache)
        scores_BK = torch.zeros_like(self.targets_BK)
        logits_NK = scores.logits[:, columns] / self._run.train.teacher_temperature
        scores_BK[scores.indices] = teacher.model.scores(logits_NK)
        return scores_BK

    def on_scoring(self, stage: str, done: int, total: int) -> None:
        """Tell how far judging is."""
        self._progress(stage, done, total, "")


def failed(sample: Sample, reason: str) -> Failure:
    """Return that this video, or this part of one, could not be read."""
    return Failure(sample.path, reason, start_s=sample.start_s, end_s=sample.end_s)
