"""A region of a live source: the embeddings of its last frames, and what the models say of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fewframes.inference.counting.live import LiveCounter, RunningCount
from fewframes.inference.live.model import Answer, EmbeddingRing, Judge, Judged, StreamModel
from fewframes.runtime.protocol import CachesMotion, Floats, Frames
from fewframes.runtime.still import AFRESH_FRAMES, StillGate
from fewframes.video.live_queue import LiveFrame
from fewframes.video.live_settings import StreamConfig


def block_of(sample: LiveFrame) -> tuple[int, int]:
    """Return the block of timestamps that a sample belongs to. With the next one the gate begins anew."""
    return sample.stretch, sample.index // AFRESH_FRAMES


@dataclass(frozen=True, eq=False)
class RegionAnswers:
    """The answers of all models for the newest window of a region, in the order of the models."""

    end_s: float
    num_frames: int
    """Timestamps of the window that have been seen."""
    answers: tuple[Answer, ...]
    repetitions: RunningCount | None


class LiveRegion:
    """A region of a live source, or all of its picture, with all that is remembered of it: embeddings, labels, alarms, counts."""

    def __init__(
        self, models: Sequence[StreamModel], judge: Judge, config: StreamConfig, row: int | None = None
    ) -> None:
        """Begin to watch a region.

        Args:
            models: The models, which share a frame encoder. They are this region's alone, because they remember their answers.
            judge: Returns what each of them says of a window.
            config: Settings of the stream.
            row: The row of this region in the pictures of the source, (Z, C, H, W); None if they are of one region, (C, H, W).
        """
        self._row = row
        self.models, self._judge = models, judge
        self.runtime = runtime = models[0].runtime
        self._size = runtime.num_frames
        self.interval_s = config.window_s / self._size
        """Seconds between frames."""
        self.every_frames = max(1, round((config.every_s or 0.0) / self.interval_s))
        """Frames from one answer to the next."""
        self._min_frames = 1 if runtime.causal else self._size
        self._repetitions = LiveCounter(self.interval_s) if config.count else None
        self._is_gated = bool(config.still)
        self.gate, self._block = StillGate(runtime, config.still), (0, 0)
        self._last: tuple[Frames, Floats] | None = None
        self._answers: RegionAnswers | None = None
        self._asked: dict[int, Frames] = {}
        self._shown: list[int] = []
        self._restart(0)

    def select(self, samples: Sequence[LiveFrame]) -> Frames:
        """Return the pictures of samples that the encoder has to see (N, C, H, W). `settle` must be called next.

        Samples must be of one block of timestamps (`block_of`). A picture that is shown at several timestamps is encoded once. One
        that shows nothing new is not encoded.
        """
        block = block_of(samples[0])
        if block != self._block and self._is_gated:
            self.gate.forget()  # at the timestamps at which a timeline's gate does
            self._last = None
        self._block = block
        # A frame that is shown at several timestamps is one array, so its identity tells it.
        before = None if self._last is None else id(self._last[0])
        self._asked = {id(sample.picture): sample.picture for sample in samples}
        self._shown = [id(sample.picture) for sample in samples]
        new = [self._region_of(picture) for key, picture in self._asked.items() if key != before]
        return self.gate.select(np.stack(new)) if new else np.empty((0, 0, 0, 0), np.uint8)

    def settle(self, found_ND: Floats | None) -> list[Floats]:
        """Return the embedding (D,) of each sample that `select` was given.

        Args:
            found_ND: The embeddings of the pictures that it returned; None if there were none.
        """
        before = None if self._last is None else id(self._last[0])
        known = {} if self._last is None else {id(self._last[0]): self._last[1]}
        new = [key for key in self._asked if key != before]
        if new:
            known |= dict(zip(new, self.gate.settle(found_ND), strict=True))
        self._last = self._asked[self._shown[-1]], known[self._shown[-1]]
        return [known[key] for key in self._shown]

    def _region_of(self, picture: Frames) -> Frames:
        """Return this region's picture (C, H, W)."""
        region_CHW: Frames = picture if self._row is None else picture[self._row]
        return region_CHW

    def _restart(self, stretch: int) -> None:
        self._stretch = stretch
        is_alone = len(self.models) == 1  # what is cached of motion tokens is one model's
        runtime = self.runtime
        is_alone = is_alone and self.models[0].keeper is None  # which needs no tokens of the window
        motion_cache = runtime.motion_cache if is_alone and isinstance(runtime, CachesMotion) else None
        self.ring = EmbeddingRing(self._size, motion_cache)
        self._last_window: tuple[Floats, Judged] | None = None
        if self._repetitions is not None:
            self._repetitions.restart()
        for model in self.models:
            model.restart()

    def step(self, sample: LiveFrame, embedding_D: Floats) -> RegionAnswers | None:
        """Take one more timestamp; return the answers of all models where they are due."""
        if sample.stretch != self._stretch:
            self._restart(sample.stretch)
        num_before = self.ring.index + 1
        self.ring.push(sample.index, embedding_D)
        for model in self.models:
            model.push(sample.index, embedding_D, sample.time_s)
        if self._repetitions is not None:
            self._repetitions.push(sample.index, embedding_D, sample.time_s)
        # Answers lie on the grid of frames; where frames were dropped, a multiple may have been passed without being hit.
        is_due = (sample.index + 1) // self.every_frames > num_before // self.every_frames
        num_frames = len(self.ring.embeddings_TD)
        if not is_due or num_frames < self._min_frames:
            return None
        end_s = sample.time_s + self.interval_s / 2
        is_whole = num_frames == self._size
        answers = tuple(
            model.step(encoded, familiarity, sample.time_s, end_s, is_whole=is_whole)
            for model, (encoded, familiarity) in zip(self.models, self._judged(), strict=True)
        )
        repetitions = None if self._repetitions is None else self._repetitions.now()
        self._answers = RegionAnswers(end_s, num_frames, answers, repetitions)
        return self._answers

    def finish(self) -> RegionAnswers | None:
        """End the region; return the last answers once more if actions end with it."""
        last = self.last()
        return last if last is not None and any(answer.spans for answer in last.answers) else None

    def last(self) -> RegionAnswers | None:
        """End the region; return the last answers once more, with the actions that end with it. None if there were none."""
        for model in self.models:
            model.restart()
        told = [model.take_spans() for model in self.models]
        if self._answers is None:
            return None
        answers = tuple(
            replace(answer, alarm=None, spans=spans) for answer, spans in zip(self._answers.answers, told, strict=True)
        )
        return replace(self._answers, answers=answers)

    def _judged(self) -> Judged:
        """Return what each model says of the newest window: what it said of the last one if the embeddings are the same.

        A model that keeps a state is asked each time, because its answer depends on the frames before the window too.
        """
        window_TD = self.ring.embeddings_TD
        if any(model.keeper is not None for model in self.models):
            return self._judge(self.ring)
        if self._last_window is None or not np.array_equal(self._last_window[0], window_TD):
            self._last_window = window_TD, self._judge(self.ring)
        return self._last_window[1]
