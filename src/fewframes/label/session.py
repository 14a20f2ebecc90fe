"""A labelling session: the labels of an archive of videos, and a model that learns from each of them at once.

Changes are on the disk before a method returns. Learning happens in a thread behind it: `state` says how far it is.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from fewframes.core.cache import EmbeddingCache
from fewframes.core.files import held, writing
from fewframes.core.text import count_of
from fewframes.data.lists import write_list
from fewframes.errors import DataError
from fewframes.inference.predictor import Predictor
from fewframes.label.archive import Archive, ArchivedVideo, window_of
from fewframes.label.journal import Journal, Labels, as_label, labels_of, redoable, undoable, words_of
from fewframes.label.learner import Learner
from fewframes.label.learning import LearningThread
from fewframes.label.offers import Offers
from fewframes.label.pictures import FramePictures
from fewframes.label.values import (
    BACKGROUND,
    Doubt,
    GridOrder,
    GridPage,
    LabelInfo,
    Moment,
    Segment,
    SessionState,
    VideoInfo,
    VideoTimeline,
    WrittenModel,
)
from fewframes.label.writing import samples_of, write_model

LEAST_S = 0.05
"""The shortest segment, in seconds."""


class Session:
    """A session. `open` makes one, `start` begins to embed the videos, `close` ends it.

    All methods may be called from several threads.
    """

    def __init__(self, archive: Archive, journal: Journal, model: str, project: Path, resources: ExitStack) -> None:
        self.archive, self.model, self.project = archive, model, project
        self._journal, self._resources = journal, resources
        self._lock = threading.RLock()
        self._labels: Labels = labels_of(journal.entries)
        self._revision = 0
        self._offers = Offers(archive)
        self._learning = LearningThread(Learner(archive), journal, self._lock, self._offers.prepare, self._changed)
        self._pictures = FramePictures(archive)
        self._threads: list[threading.Thread] = []

    @classmethod
    def open(
        cls,
        sources: Sequence[str],
        project: Path,
        predictor: Predictor,
        *,
        model: str,
        cache: EmbeddingCache | None,
        merge: Sequence[Path] = (),
        window_s: float = 4.0,
        note: Callable[[str], None] = lambda words: None,
    ) -> Session:
        """Open a session, and lock the folder of its project.

        Args:
            sources: Videos, and folders of videos.
            project: The folder for labels and models, which is made if needed.
            predictor: The model whose frame encoder embeds.
            model: The name or path of that model.
            cache: Where embeddings are cached; None keeps them for this session alone.
            merge: The journals of other annotators, whose labels are taken over.
            window_s: The seconds of the shortest windows, about what an action lasts.
            note: Called with notes for users.

        Raises:
            DataError: There are no videos, or a journal cannot be read.
            ConfigError: Another process has the project open, or the model mixes frames inside its encoder.
            OutputError: The folder cannot be written.
        """
        archive = Archive(sources, predictor, cache, window_s, note)
        with writing(project):
            project.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(held(project))
            journal = Journal(project)
            stack.callback(journal.close)
            for path in merge:
                note(f"{path}: {count_of(journal.merge(path), 'new change')} taken over")
            for words in journal.notes:
                note(words)
            session = cls(archive, journal, model, project, stack.pop_all())
        away = {segment.video for segment in session._labels.segments} - set(archive.videos)
        if away:
            note(f"labels of {count_of(len(away), 'video')} that are not among these are kept, and not used")
        return session

    def start(self) -> None:
        """Begin to embed the videos and to learn, each in a thread of its own."""
        for work in (self._embed, self._learning.run):
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            self._threads.append(thread)
        self._learning.learn(self._labels)

    def close(self) -> None:
        """End the threads, close the journal, and unlock the project."""
        self.archive.stop()
        self._learning.stop()
        for thread in self._threads:
            thread.join()
        self._pictures.close()
        self._resources.close()

    def settle(self, timeout_s: float = 60.0) -> bool:
        """Wait until all videos are embedded and all labels are learned from. Return False if that takes longer."""
        return self._learning.wait(
            lambda: all(video.status in ("ready", "failed") for video in self._videos()), timeout_s
        )

    # What is asked for.

    def state(self) -> SessionState:
        """Return the state of the session."""
        with self._lock:
            entries, labels, found = self._journal.entries, self._labels, self._learning.result
            counts = {name: sum(one.label == name for one in labels.segments) for name in labels.names}
            numbers = {video: len(labels.of(video)) for video in self.archive.videos}
            return SessionState(
                videos=tuple(
                    VideoInfo(one.id, one.name, one.path, one.duration_s, numbers[one.id], one.status, one.reason)
                    for one in self._videos()
                ),
                labels=tuple(LabelInfo(name, count, name == BACKGROUND) for name, count in counts.items()),
                num_segments=len(labels.segments),
                num_disagreements=len(labels.disagreements()),
                accuracy=found.accuracy,
                why_no_accuracy=found.why_no_accuracy,
                curve=self._learning.curve(),
                forecast=self._learning.forecast,
                can_undo=any(undoable(entries, who) for who in {entry.annotator for entry in entries}),
                can_redo=any(redoable(entries, who) for who in {entry.annotator for entry in entries}),
                revision=self._revision,
            )

    def timeline(self, video: str) -> VideoTimeline:
        """Return the labels of a video, and the model's scores and suggestions. Raises DataError for an unknown video."""
        found = self.archive.video(video)
        with self._lock:
            segments, learned = self._labels.of(video), self._learning.result
        return self._offers.timeline(found, segments, learned)

    def next_moment(self, after: str = "") -> Moment | None:
        """Return the moment whose label would teach most; None if there is none left.

        Args:
            after: The id of a moment that was skipped. It is not offered again in this session.
        """
        with self._lock:
            labels, learned = self._labels, self._learning.result
        return self._offers.next_moment(labels.segments, learned, after)

    def doubtful(self, num: int) -> tuple[Doubt, ...]:
        """Return at most `num` labels to look at again, and parts of videos that look like nothing that was labelled."""
        with self._lock:
            labels, learned = self._labels, self._learning.result
        return self._offers.doubtful(labels, learned, num)

    def grid(self, num: int, offset: int, order: GridOrder) -> GridPage:
        """Return a page of the moments without a label, to tag many at once.

        Args:
            num: The most tiles of the page.
            offset: The number of tiles before it.
            order: By likeness, by uncertainty, or by time.
        """
        with self._lock:
            labels, learned = self._labels, self._learning.result
        return self._offers.grid(labels.segments, learned, num, offset, order)

    def frame(self, video: str, time_s: float, height: int) -> bytes:
        """Return the frame that is shown at a time, as a JPEG of at most this height in pixels.

        Raises:
            DataError: There is no such video.
            VideoError: The frame cannot be decoded.
        """
        return self._pictures.jpeg(self.archive.video(video), time_s, height)

    # Changes. Each is on the disk before it returns.

    def add(self, video: str, start_s: float, end_s: float, label: str, annotator: str) -> Segment:
        """Label a part of a video. An equal segment that is there already is returned, and nothing is written.

        Args:
            video: The id of the video.
            start_s: The start of the part, in seconds.
            end_s: The end of it.
            label: The name of the action. An empty name, or one such as `background` or `none`, means that it shows no action.
            annotator: The name of the annotator.

        Raises:
            DataError: The video is unknown, the part is not inside it, or the label is not valid.
        """
        segment = self._new(video, start_s, end_s, label, annotator)
        with self._lock:
            return self._added([segment], annotator)[0]

    def refuse(self, video: str, start_s: float, end_s: float, label: str, annotator: str) -> Segment:  # noqa: ARG002
        """Say that a part of a video does not show the suggested label, and none of the other actions. The rest is as for `add`."""
        return self.add(video, start_s, end_s, BACKGROUND, annotator)

    def tag(self, moments: Sequence[str], label: str, annotator: str) -> int:
        """Label many moments at once, which one undo takes back. Return their number. The errors are those of `add`."""
        segments = []
        for key in dict.fromkeys(moments):
            window = window_of(key)
            segments.append(self._new(window.video, *self.archive.times_of(window), label, annotator))
        with self._lock:
            return len(self._added(segments, annotator))

    def change(
        self,
        segment: str,
        annotator: str,
        *,
        start_s: float | None = None,
        end_s: float | None = None,
        label: str | None = None,
    ) -> Segment:
        """Change the times or the label of a segment, and return it. The errors are those of `add`."""
        with self._lock:
            old = self._segment(segment)
            new = self._new(
                old.video,
                old.start_s if start_s is None else start_s,
                old.end_s if end_s is None else end_s,
                old.label if label is None else label,
                old.annotator,
            )
            new = replace(new, id=old.id)
            names = [name for name in ("start_s", "end_s", "label") if getattr(new, name) != getattr(old, name)]
            if names:
                values = {name: getattr(new, name) for name in names}
                self._journal.append("change", annotator, segment=segment, **values)
                self._relearn()
            return new

    def delete(self, segment: str, annotator: str) -> None:
        """Delete a segment. Raises DataError if there is none of this id."""
        with self._lock:
            self._segment(segment)
            self._journal.append("delete", annotator, segment=segment)
            self._relearn()

    def rename_label(self, old: str, new: str, annotator: str) -> None:
        """Give a label another name. That of another label merges the two. Raises DataError if no segment has the label."""
        new = as_label(new)
        with self._lock:
            if old not in self._labels.names:
                raise DataError(f"{old!r}: no segment has this label; the labels are {', '.join(self._labels.names)}")
            if new != old:
                self._journal.append("rename", annotator, old=old, new=new)
                self._relearn()

    def undo(self, annotator: str) -> str:
        """Take back the last change of an annotator, and return it in words. Raises DataError if there is none."""
        with self._lock:
            entry = undoable(self._journal.entries, annotator)
            if entry is None:
                raise DataError(f"nothing to undo: there is no change by {annotator or 'this annotator'}")
            self._journal.append("undo", annotator, of=entry.id)
            self._relearn()
            return f"undone: {words_of(entry)}"

    def redo(self, annotator: str) -> str:
        """Bring back the change that an annotator undid last, and return it in words. Raises DataError if there is none."""
        with self._lock:
            entry = redoable(self._journal.entries, annotator)
            if entry is None:
                raise DataError(f"nothing to redo: {annotator or 'this annotator'} undid nothing since the last change")
            self._journal.append("redo", annotator, of=entry.id)
            self._relearn()
            return f"done again: {words_of(entry)}"

    # Results.

    def write_model(self, folder: Path) -> WrittenModel:
        """Write a model that was trained on the labels, from embeddings that are there. It replaces one in the folder.

        Raises DataError if the labels are not enough to train on.
        """
        with self._lock:
            labels = self._labels
        return write_model(self.archive, labels, folder, self.model)

    def write_segments(self, path: Path) -> int:
        """Write the labels as a list that `fewframes train` takes, and return their number. Raises DataError if there are none."""
        with self._lock:
            segments = self._labels.segments
        samples = samples_of(self.archive, segments)
        if not samples:
            raise DataError("nothing is labelled yet; label a part of a video first")
        write_list(samples, path)
        return len(samples)

    # Helpers.

    def _videos(self) -> list[ArchivedVideo]:
        return list(self.archive.videos.values())

    def _embed(self) -> None:
        self.archive.embed_all(self._embedded)

    def _embedded(self, video: ArchivedVideo) -> None:
        """Take a video that was embedded into the pool, and learn from the labels that it has already."""
        if video.status == "ready":
            self._offers.add(video)
        with self._lock:
            self._changed()
            if self._labels.of(video.id):
                self._learning.learn(self._labels)

    def _changed(self) -> None:
        """Count a change of the state."""
        with self._lock:
            self._revision += 1

    def _relearn(self) -> None:
        """Rebuild the labels from the journal, and learn from them."""
        self._labels = labels_of(self._journal.entries)
        self._changed()
        self._learning.learn(self._labels)

    def _segment(self, key: str) -> Segment:
        found = next((segment for segment in self._labels.segments if segment.id == key), None)
        if found is None:
            raise DataError(f"{key[:40]!r}: no segment of this id; it may have been deleted")
        return found

    def _new(self, video: str, start_s: float, end_s: float, label: str, annotator: str) -> Segment:
        """Return a new segment. Raises DataError if it is not valid."""
        found = self.archive.video(video)
        if not found.duration_s:
            raise DataError(found.reason)  # it cannot be opened
        if not (np.isfinite([start_s, end_s]).all() and 0 <= start_s < end_s <= found.duration_s + 0.5):
            raise DataError(
                f"{start_s:g} to {end_s:g} s of {found.name}: needs a start before its end, inside the {found.duration_s:.2f} s"
            )
        end_s = min(end_s, found.duration_s)
        if end_s - start_s < LEAST_S:
            raise DataError(
                f"{start_s:g} to {end_s:g} s of {found.name}: needs at least {LEAST_S:g} s; mark a longer part"
            )
        return Segment(
            uuid.uuid4().hex[:12], video, round(float(start_s), 3), round(float(end_s), 3), as_label(label), annotator
        )

    def _added(self, segments: Sequence[Segment], annotator: str) -> list[Segment]:
        """Write new segments, and return them with the equal ones that are there already."""
        there = {_content(segment): segment for segment in self._labels.segments}
        new = [segment for segment in segments if _content(segment) not in there]
        if new:
            added = [{name: getattr(one, name) for name in ("id", "video", "start_s", "end_s", "label")} for one in new]
            self._journal.append("add", annotator, segments=added)
            self._relearn()
        return [there.get(_content(segment), segment) for segment in segments]


def _content(segment: Segment) -> tuple[str, float, float, str, str]:
    return segment.video, segment.start_s, segment.end_s, segment.label, segment.annotator
