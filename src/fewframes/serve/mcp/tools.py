"""The tools that agents call, and what each of them does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from fewframes.core.version import __version__
from fewframes.errors import ConfigError
from fewframes.serve.answers import Progress
from fewframes.serve.config import CountRequest, PredictRequest, ServeConfig, TimelineRequest, VideoRequest
from fewframes.serve.mcp.arguments import (
    MOST_CLIPS,
    AboutArguments,
    ClipArguments,
    CountArguments,
    ListArguments,
    PredictArguments,
    SearchArguments,
    TeachArguments,
    TimelineArguments,
    VideoArguments,
)
from fewframes.serve.mcp.models import ServedModels
from fewframes.serve.mcp.roots import Roots
from fewframes.serve.moments.search import SearchedIndex, asked
from fewframes.serve.tasks import RequestTask
from fewframes.video.source import open_video

Values = dict[str, object]
Clips = Sequence[tuple[str, float, float | None]]
"""Whole paths of clips, with their start and end in seconds."""


@dataclass(frozen=True)
class Tool:
    """A tool: what agents are told of it, its arguments, and what it does."""

    words: str
    """Its description for agents: the work it does, and the values it returns."""
    arguments: type
    """The settings class of its arguments."""
    run: Callable[[Any, RequestTask, Progress], Values]
    """Do it, in a thread, and return plain values. Raises FewframesError."""
    writes: bool = False
    """True if it changes files."""


class Teacher(Protocol):
    """A function that teaches the model in a folder, and returns plain values."""

    def __call__(
        self,
        folder: Path,
        yes: Mapping[str, Clips],
        no: Mapping[str, Clips],
        forget: Clips,
        remove: Sequence[str],
        rename: Mapping[str, str],
        progress: Progress,
    ) -> Values: ...


class VideoTools:
    """The work of the tools, each call in a thread of the service."""

    def __init__(
        self,
        models: ServedModels,
        roots: Roots,
        config: ServeConfig,
        index: SearchedIndex | None,
        taught: Path | None,
        teacher: Teacher | None,
    ) -> None:
        self._models, self._roots, self._config = models, roots, config
        self._index, self._taught, self._teacher = index, taught, teacher
        self._teaching = threading.Lock()

    def by_name(self) -> dict[str, Tool]:
        """Return the tools by name: those for searching and teaching only if the server has an index, and may write."""
        tools = {
            "about": Tool(ABOUT, AboutArguments, self.about),
            "videos": Tool(VIDEOS, ListArguments, self.videos),
            "predict": Tool(PREDICT, PredictArguments, self._asking(PredictRequest)),
            "timeline": Tool(TIMELINE, TimelineArguments, self._asking(TimelineRequest)),
            "count": Tool(COUNT, CountArguments, self._asking(CountRequest)),
        }
        if self._index is not None:
            tools["search"] = Tool(SEARCH, SearchArguments, self.search)
        if self._taught is not None:
            tools["teach"] = Tool(TEACH, TeachArguments, self.teach, writes=True)
        return tools

    def about(self, _: AboutArguments, __: RequestTask, ___: Progress) -> Values:
        """Return what this server knows, reads and allows."""
        config, index = self._config, self._index
        return {
            "version": __version__,
            "models": {name: list(labels) for name, labels in self._models.labels().items()},
            "roots": [str(folder) for folder in self._roots.folders],
            "limits": {
                "max_mb": config.max_mb,
                "max_seconds": config.max_seconds,
                "max_megapixels": config.max_megapixels,
                "timeout_s": config.timeout_s,
            },
            "index": None if index is None else _described(index),
            "may_teach": self._taught is not None,
        }

    def videos(self, arguments: ListArguments, _: RequestTask, __: Progress) -> Values:
        """Return the videos below a folder."""
        return self._roots.videos(arguments.folder, arguments.most)

    def _asking(self, kind: type[VideoRequest]) -> Callable[[VideoArguments, RequestTask, Progress], Values]:
        """Return the function that answers as the server does over HTTP for requests of this kind."""

        def run(arguments: VideoArguments, task: RequestTask, progress: Progress) -> Values:
            answerer, model = self._models.answerer(arguments.model)
            given = {field.name: getattr(arguments, field.name) for field in fields(arguments)}
            with closing(self._roots.open(arguments.path)) as file:
                return answerer.answer(kind(**{**given, "model": model}), file, arguments.path, task, progress)

        return run

    def search(self, arguments: SearchArguments, task: RequestTask, _: Progress) -> Values:
        """Return moments of the index. Raises ConfigError if nothing is searched for."""
        index = self._index
        assert index is not None
        query = asked(index, arguments, self._roots.path, knows_words=index.knows_words)
        task.check()
        found = index.search(
            query,
            label=arguments.label,
            videos=arguments.videos,
            num=arguments.num,
            distinct=arguments.distinct,
        )
        return {"moments": [hit.to_dict() for hit in found], "searched": index.num_rows}

    def teach(self, arguments: TeachArguments, task: RequestTask, progress: Progress) -> Values:
        """Teach a model in the folder for taught ones. Nothing is written if the time is over while clips are embedded."""
        assert self._taught is not None
        assert self._teacher is not None
        if self._models.is_served(arguments.name):
            raise ConfigError(f"name = {arguments.name!r}: a model of the server itself; take another name")
        folder = self._taught / arguments.name
        if folder.resolve().parent != self._taught.resolve():
            raise ConfigError(f"name = {arguments.name!r}: a link to another folder; take another name")
        num_clips = sum(map(len, (*arguments.yes.values(), *arguments.no.values(), arguments.forget)))
        if num_clips > MOST_CLIPS:
            raise ConfigError(f"{num_clips} clips; the limit of one call is {MOST_CLIPS}: teach them in several calls")

        def on_embedded(done: int, total: int) -> None:
            task.check()
            progress(done, total)

        with self._teaching:
            task.check()
            found = self._teacher(
                folder,
                {label: self._clips(clips) for label, clips in arguments.yes.items()},
                {label: self._clips(clips) for label, clips in arguments.no.items()},
                self._clips(arguments.forget),
                arguments.remove,
                arguments.rename,
                on_embedded,
            )
        return {"model": arguments.name, **found}

    def _clips(self, clips: Sequence[ClipArguments]) -> Clips:
        """Return clips with whole paths. Raises Refusal for one elsewhere, and VideoError for one above the limits."""
        found = [(self._roots.path(clip.path), clip.start_s, clip.end_s) for clip in clips]
        for path in dict.fromkeys(path for path, *_ in found):
            open_video(path, threads=1, limits=self._config.limits).close()
        return found


def _described(index: SearchedIndex) -> Values:
    """Return what an index holds and can be asked for."""
    labels = [*index.settings.labels, *index.taught()]
    return {"moments": index.num_rows, "labels": labels, "takes_text": index.knows_words}


ABOUT = """Say what this server knows and allows: its models with the labels they can name, the folders (roots) whose videos it
reads, its limits, and whether it can search and teach. Call it first."""
VIDEOS = "List the videos below the roots, or below one folder of them, with their sizes in megabytes."
PREDICT = """Name the action in a short video, or in the part of one between start_s and end_s. A model looks at a handful of frames
of the whole part. Returns the likeliest labels with scores from 0 to 1, the times of the frames it looked at, and the label
`unknown` where the video seems to show none of its labels. For videos of more than one action use `timeline`."""
TIMELINE = """Find which actions happen in a long video, and when. Returns spans with start_s, end_s, label and confidence, and gaps
that could not be decoded. Takes time in proportion to the length of the video: give start_s and end_s if you know where to look."""
COUNT = """Count the repetitions of a movement in a video, such as jumps, without being told which. Returns the count, and each
stretch of repetitions with its times and the length of one."""
SEARCH = """Find moments in the index of many videos: that show what a text says, like an earlier result, like (a part of) a video,
or of a label. A text together with `like` or `path` counts both; a label together with others keeps only its moments. Text is
understood only if `about` says takes_text; a label has to be one that `about` lists for the index. Returns source, start_s, end_s,
similarity, and an id for `like`."""
TEACH = """Teach a model labels by a few example clips, or correct, rename, remove and forget; this WRITES a model, which
`predict`, `timeline` and `count` then take by its name. Two labels at least, with clips of several different videos each; more
examples make it better. All changes are made or none. Returns the labels, the number of examples of each, and how often examples
were right that were left out. Teach only what the user asked for."""
