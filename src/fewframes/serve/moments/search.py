"""Answer searches in an index of moments, of videos below the server's folder alone, with a still of each moment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Protocol

from fewframes.errors import ConfigError, FewframesError
from fewframes.inference.detection.spans import Span
from fewframes.serve.config import SearchRequest, ServeConfig
from fewframes.serve.fetch import open_below
from fewframes.serve.tasks import NamedFile, RequestTask
from fewframes.viz.thumbnails import data_url, jpeg, middle_frames

STILL_PX = 240
"""Width of a still, in pixels."""


class SearchedIndex(Protocol):
    """An index of moments, as the wing `search` opens one."""

    settings: Any

    @property
    def num_rows(self) -> int: ...

    @property
    def knows_words(self) -> bool: ...

    def taught(self) -> Mapping[str, Any]: ...

    def moment(self, video: str, start_s: float, end_s: float | None) -> Any: ...

    def row(self, row_id: str) -> Any: ...

    def text(self, text: str, *, not_text: str) -> Any: ...

    def refresh(self) -> None: ...

    def search(self, query: Any, *, label: str | None, videos: str, num: int, distinct: bool) -> Sequence[Any]: ...


class MomentSearch:
    """An index that is searched for others. They see moments of videos below the folder of the server, and their paths in it."""

    def __init__(self, index: SearchedIndex, config: ServeConfig, *, knows_words: bool) -> None:
        """Take an opened index.

        Args:
            index: The index, with its model.
            config: The settings of the server, whose folder is not None.
            knows_words: True if it can be searched by text: its image-text encoder is opened.
        """
        assert config.root is not None
        self._index, self._config, self._knows_words = index, config, knows_words
        self._root = os.path.abspath(config.root)

    def about(self) -> dict[str, object]:
        """Return what can be searched for, as plain values."""
        index = self._index
        return {
            "moments": index.num_rows,
            "labels": list(dict.fromkeys([*index.settings.labels, *index.taught()])),
            "takes_text": self._knows_words,
        }

    def answer(self, request: SearchRequest, task: RequestTask) -> dict[str, object]:
        """Return the moments that were found as plain values. Raises FewframesError."""
        task.check()
        self._index.refresh()
        query = asked(self._index, request, self._path, knows_words=self._knows_words)
        task.check()
        pattern = f"{self._root}/{request.videos or '*'}"
        found = self._index.search(
            query, label=request.label, videos=pattern, num=request.num, distinct=request.distinct
        )
        hits = [hit for hit in found if hit.source.startswith(f"{self._root}/")]  # the pattern may name what lies above
        stills = self._stills(hits, task) if request.pictures else {}
        moments = [
            {
                **hit.to_dict(),
                "source": self._name(hit.source),
                **({"picture": stills.get(hit.id)} if request.pictures else {}),
            }
            for hit in hits
        ]
        return {"moments": moments, "searched": self._index.num_rows}

    def _name(self, source: str) -> str:
        return os.path.relpath(source, self._root)

    def _path(self, name: str) -> str:
        """Return the whole path of a video below the folder. Raises Refusal and MissingVideo."""
        with closing(open_below(self._root, name, self._config.max_bytes)) as file:
            return os.path.realpath(file.name)

    def _stills(self, hits: Sequence[Any], task: RequestTask) -> dict[str, str]:
        """Return the frame in the middle of each moment as a data URL, by its id. Videos that cannot be read have none."""
        stills: dict[str, str] = {}
        for source in dict.fromkeys(hit.source for hit in hits):
            own = [hit for hit in hits if hit.source == source]
            spans = [Span(hit.start_s, hit.end_s, hit.label) for hit in own]
            task.check()
            try:
                with closing(open_below(self._root, self._name(source), self._config.max_bytes)) as file:
                    named: Any = NamedFile(file, self._name(source), task)
                    frames = middle_frames(named, spans, width_px=STILL_PX, threads=1, limits=self._config.limits)
                    for hit, frame_CHW in zip(own, frames, strict=True):
                        stills[hit.id] = data_url(jpeg(frame_CHW))
                        task.check()
            except FewframesError:
                task.check()  # the request is over; else this video alone has no still
        return stills


def asked(index: SearchedIndex, request: Any, path_of: Any, *, knows_words: bool) -> Any:
    """Return what a request searches for: its queries, or its label. Raises FewframesError if there is nothing.

    Args:
        index: The index.
        request: The request, with the fields of `SearchRequest`.
        path_of: A function that returns the whole path of a video that a request may name.
        knows_words: True if the index can be searched by text.
    """
    if request.not_text and request.text is None:
        raise ConfigError("not_text goes with text; give text, or leave not_text out")
    queries = []
    if request.path is not None and request.like is not None:
        raise ConfigError("path and like exclude each other: name one example")
    if request.path is not None:
        queries.append(index.moment(path_of(request.path), request.start_s, request.end_s))
    if request.like is not None:
        queries.append(index.row(request.like))
    if request.text is not None:
        if not knows_words:
            raise ConfigError(
                "text: the index of this server knows no words; search by label, like or path (an index made with `fewframes index "
                "--words ENCODER` knows words)"
            )
        queries.append(index.text(request.text, not_text=request.not_text))
    if not queries and request.label is None:
        raise ConfigError("nothing is searched for; give text, label, like or path, or several of them")
    return queries or request.label
