"""Labelling of videos with an exported graph. With ONNX and OpenVINO no step of it needs torch."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np

from fewframes.core.arguments import check_time_range, whole_number
from fewframes.core.process import worked_ahead
from fewframes.core.settings import MOST_FRAMES
from fewframes.core.text import count_of
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
    """A whole exported model that labels videos as `Predictor` does.

    It takes the same timestamps. Its frames can differ by one level of 255, because Pillow resizes them here.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 0) -> None:
        graph: Graph = open_graph(path, threads=threads)
        if graph.card.part != "whole":
            raise ConfigError(
                f"{graph.path}: a half of a model ({graph.card.part}) names no actions; take the whole one"
            )
        self.name, self.card, self.labels, self.graph = graph.path, graph.card, graph.card.labels, graph

    def __str__(self) -> str:
        return (
            f"{self.name}: {count_of(len(self.labels), 'action')}, exported {self.card.name} in {self.card.precision}"
        )

    def predict(
        self,
        source: Source,
        *,
        num_frames: int | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
        fps: float = DEFAULT_FPS,
    ) -> Prediction[Array]:
        """Label one video, or a part of it, as `Predictor.predict` does.

        Args:
            source: the video.
            num_frames: the number of frames to take; None is the number that the model was built for.
            start_s: the start of the part, in seconds.
            end_s: the end of the part, in seconds; None is the end of the video.
            fps: the rate of sources without timestamps, such as folders of pictures.

        Raises:
            VideoError: the video cannot be opened or decoded.
            ConfigError: the graph does not take this number of frames.
        """
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
        """Yield a prediction or a failure for each source, in order, as `Predictor.predict_many` does.

        Args:
            sources: the videos.
            num_frames: the number of frames to take; None is the number that the model was built for.
            start_s: the start of the part of each video, in seconds.
            end_s: the end of that part, in seconds; None is the end of the video.
            workers: the number of threads that decode; None is one for each core.
        """
        if isinstance(sources, str | os.PathLike):
            raise TypeError(f"sources = {sources!r}: needs several; use predict for one")
        check_time_range(start_s, end_s, DEFAULT_FPS)
        frames, workers = self._num_frames(num_frames), whole_number("workers", workers or _num_cores(), 1)
        read = lambda source: self._read(source, frames, start_s, end_s, DEFAULT_FPS, threads=1)  # noqa: E731
        for source, result in worked_ahead(sources, read, workers):
            if isinstance(result, FewframesError):
                yield Failure.of(source, result)
                continue
            try:
                yield self._label(*result)
            except VideoError as error:
                yield Failure.of(source, error)

    def _num_frames(self, asked: int | None) -> int:
        """Return the number of frames to take. Raises ConfigError if the graph does not take the number asked for."""
        own = self.card.num_frames
        if asked is not None:
            asked = whole_number("num_frames", asked, 1, MOST_FRAMES)
        if asked is not None and asked != own and not self.card.any_num_frames:
            raise ConfigError(f"{asked} frames: {self.name} mixes frames inside its encoder and takes {own} only")
        if asked is not None and asked < LEAST_FRAMES:
            raise ConfigError(f"{asked} frames: exported graphs take {LEAST_FRAMES} or more")
        return own if asked is None else asked

    def _read(
        self, source: Source, num_frames: int, start_s: float, end_s: float | None, fps: float, *, threads: int
    ) -> tuple[Clip[Array], float, float]:
        """Return the frames of a video for the graph, and the seconds that decoding and resizing took.

        Args:
            source: the video.
            num_frames: the number of frames to take.
            start_s: the start of the part, in seconds.
            end_s: the end of the part, in seconds; None is the end of the video.
            fps: the rate of sources without timestamps.
            threads: the number of threads that decode; 0 is one for each core.
        """
        began = time.perf_counter()
        with closing(open_video(source, fps=fps, threads=threads)) as video:
            assert isinstance(video, FileVideo | PictureVideo)  # these two can fill a stack of numpy arrays
            times_s = part_centres(*range_in(video, start_s, end_s), num_frames)
            # There are several stacks if the decoder had to start again, or if the timestamps were chosen anew around gaps.
            stacks: list[ViewStack] = []

            def new_stack(count: int) -> ViewStack:
                stacks.append(ViewStack(count, self.card.view))
                return stacks[-1]

            clip = video.clip_at(times_s, new_stack)
            # Equal timestamps can mean that some of them lie in a gap of the video's clock. Gaps are searched for only then.
            steps = video.steps() if len(set(clip.times_s.tolist())) < num_frames else ()
            if steps:

                def centres(duration_s: float, start_s: float, end_s: float | None) -> list[float]:
                    return part_centres(*checked_range(duration_s, start_s, end_s), num_frames)

                times_s = times_around(steps, centres, video.duration_s, start_s, end_s)
                clip = replace(video.clip_at(times_s, new_stack), steps=steps)
        transform_s = sum(stack.transform_s for stack in stacks)
        return clip, time.perf_counter() - began - transform_s, transform_s

    def _label(self, clip: Clip[Array], decode_s: float, transform_s: float) -> Prediction[Array]:
        """Run the graph on a clip. Raises VideoError if the scores are not finite."""
        began = time.perf_counter()
        outputs = self.graph(clip.frames[None])
        if not np.isfinite(outputs["scores"]).all():
            raise VideoError(f"{clip.source}: the network's answers are no numbers")
        return Prediction(
            source=clip.source,
            labels=self.labels,
            scores=outputs["scores"][0],
            times_s=clip.times_s.astype(np.float32),
            frame_attention=outputs["frame_attention"][0],
            embedding=outputs["embedding"][0],
            frame_embeddings=outputs["frame_embeddings"][0],
            timing=Timing(decode_s, transform_s, time.perf_counter() - began),
            reading=clip.reading,
            steps=clip.steps,
        )


def _num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
