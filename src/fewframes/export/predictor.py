"""Videos labelled by an exported graph: decoded, resized and answered without torch where the graph is ONNX or OpenVINO."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np

from fewframes.core.ahead import worked_ahead
from fewframes.core.arguments import check_time_range, whole_number
from fewframes.core.settings import MOST_FRAMES
from fewframes.errors import ConfigError, FewframesError, VideoError
from fewframes.export.runtime import LEAST_FRAMES, Array, Graph, open_graph
from fewframes.results import Clip, Failure, Prediction, Timing
from fewframes.video.decode.clock import times_around
from fewframes.video.decode.decoder import FileVideo
from fewframes.video.picture_source import PictureVideo
from fewframes.video.pictures.arrays import ViewStack
from fewframes.video.source import DEFAULT_FPS, Source, open_video, range_in
from fewframes.video.times import checked_range, part_centres


class ExportedPredictor:
    """A whole exported model, ready to label videos as `Predictor` does: the same moments, and the same pictures up to one level of
    255, for Pillow resizes them here (pixels.resized)."""

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 0) -> None:
        graph: Graph = open_graph(path, threads=threads)
        if graph.card.part != "whole":
            raise ConfigError(
                f"{graph.path}: a half of a model ({graph.card.part}) names no actions; take the whole one"
            )
        self.name, self.card, self.labels, self.graph = graph.path, graph.card, graph.card.labels, graph

    def __str__(self) -> str:
        return f"{self.name}: {len(self.labels)} actions, exported {self.card.name} in {self.card.precision}"

    def predict(
        self,
        source: Source,
        *,
        num_frames: int | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
        fps: float = DEFAULT_FPS,
    ) -> Prediction[Array]:
        """What happens in one video, or between two moments of it, as `Predictor.predict`. Raises VideoError, and ConfigError for
        another number of frames where the graph takes its own only."""
        check_time_range(start_s, end_s, fps)
        return self._label(*self._read(source, self._num_frames(num_frames), start_s, end_s, fps, threads=0))

    def predict_many(
        self,
        sources: Iterable[str | os.PathLike[str]],
        *,
        num_frames: int | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
        workers: int | None = None,
    ) -> Iterator[Prediction[Array] | Failure]:
        """One result for each source, in their order, as `Predictor.predict_many`."""
        if isinstance(sources, str | os.PathLike):
            raise TypeError(f"sources = {sources!r}: needs several; use predict for one")
        check_time_range(start_s, end_s, DEFAULT_FPS)
        frames, workers = self._num_frames(num_frames), whole_number("workers", workers or _num_cores(), 1)
        read = lambda source: self._read(source, frames, start_s, end_s, DEFAULT_FPS, threads=1)  # noqa: E731
        for source, done in worked_ahead(sources, read, workers):
            if isinstance(done, FewframesError):
                yield Failure.of(source, done)
                continue
            try:
                yield self._label(*done)
            except VideoError as error:
                yield Failure.of(source, error)

    def _num_frames(self, asked: int | None) -> int:
        own = self.card.num_frames
        if asked is not None:
            asked = whole_number("num_frames", asked, 1, MOST_FRAMES)
        if asked is not None and asked != own and not self.card.any_num_frames:
            raise ConfigError(f"{asked} frames: {self.name} mixes frames inside its encoder and takes {own}, no others")
        if asked is not None and asked < LEAST_FRAMES:
            raise ConfigError(f"{asked} frames: exported graphs take {LEAST_FRAMES} or more")
        return own if asked is None else asked

    def _read(
        self, source: Source, num_frames: int, start_s: float, end_s: float | None, fps: float, *, threads: int
    ) -> tuple[Clip[Array], float, float]:
        """The frames to look at, and the seconds that decoding and resizing took."""
        began = time.perf_counter()
        with closing(open_video(source, fps=fps, threads=threads)) as video:
            assert isinstance(video, FileVideo | PictureVideo)  # what PyAV decodes, and what need not be decoded
            times_s = part_centres(*range_in(video, start_s, end_s), num_frames)
            stacks: list[ViewStack] = []  # one, or another where everything had to be decoded after all

            def new_stack(count: int) -> ViewStack:
                stacks.append(ViewStack(count, self.card.view))
                return stacks[-1]

            clip = video.clip_at(times_s, new_stack)
            steps = video.steps() if len(set(clip.times_s.tolist())) < num_frames else ()
            if steps:

                def centres(duration_s: float, start_s: float, end_s: float | None) -> list[float]:
                    return part_centres(*checked_range(duration_s, start_s, end_s), num_frames)

                times_s = times_around(steps, centres, video.duration_s, start_s, end_s)
                clip = replace(video.clip_at(times_s, new_stack), steps=steps)
        transform_s = sum(stack.transform_s for stack in stacks)
        return clip, time.perf_counter() - began - transform_s, transform_s

    def _label(self, clip: Clip[Array], decode_s: float, transform_s: float) -> Prediction[Array]:
        began = time.perf_counter()
        said = self.graph(clip.frames[None])
        if not np.isfinite(said["scores"]).all():
            raise VideoError(f"{clip.source}: the network's answers are no numbers")
        return Prediction(
            source=clip.source,
            labels=self.labels,
            scores=said["scores"][0],
            times_s=clip.times_s.astype(np.float32),
            frame_attention=said["frame_attention"][0],
            embedding=said["embedding"][0],
            frame_embeddings=said["frame_embeddings"][0],
            timing=Timing(decode_s, transform_s, time.perf_counter() - began),
            reading=clip.reading,
            steps=clip.steps,
        )


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
