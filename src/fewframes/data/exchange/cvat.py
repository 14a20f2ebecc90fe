"""CVAT for video, XML 1.1: a track for each span, with frame numbers. Tags of single frames are read too.

Frames are those of the video, counted from 0. A shape stays until the next one of its track; `outside` ends it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from fewframes.data.exchange.files import located, whole_number, written_path, xml_of, xml_text
from fewframes.data.exchange.spans import LabelledSpans, VideoSpan, checked_span
from fewframes.data.exchange.videos import Videos
from fewframes.data.samples import ReadOptions, part_of
from fewframes.errors import DataError, VideoError

FRAME_NAME = re.compile(r".*?(\d+)(\.\w+)?")
STEP = re.compile(r"step\s*=\s*(\d+)")


@dataclass(frozen=True)
class _Task:
    """A task of an export: one video."""

    source: str
    stop: int | None
    """The last frame of the task; None if it is not told."""
    step: int
    split: str


def read_cvat(source: Path, options: ReadOptions, videos: Videos) -> LabelledSpans:
    """Return the spans of an export of a task, a job or a project. Raises DataError if it is none of a video."""
    root = xml_of(source)
    if root.tag != "annotations":
        raise DataError(f"{source}: <{root.tag}> is not CVAT's <annotations>; export it as CVAT for video 1.1")
    tasks = _tasks(source, root)
    runs = [*_track_runs(source, root, tasks), *_tag_runs(source, root, tasks)]
    spans = []
    for where, label, task, first, after in runs:
        path = located(source, options, task.source)
        clock = videos.clock(path)
        spans.append(
            checked_span(
                where,
                VideoSpan(
                    path=path, label=label, start_s=clock.start_s(first), end_s=clock.start_s(after), split=task.split
                ),
            )
        )
    notes = []
    if num_shapes := sum(len(track) for track in root.iterfind("track")):
        notes.append(f"shapes used for their frames alone, not for where they are: {num_shapes}")
    if num_attributes := sum(1 for _ in root.iterfind("track/*/attribute")):
        notes.append(f"attributes not used: {num_attributes}")
    if num_images := sum(1 for image in root.iterfind("image") for shape in image if shape.tag != "tag"):
        notes.append(f"shapes of single frames not used, only their tags are: {num_images}")
    labelled = {task for _, _, task, _, _ in runs}
    if unlabelled := sum(task not in labelled for task in tasks.values()):
        notes.append(f"videos without a label: {unlabelled}")
    return LabelledSpans(tuple(spans), tuple(notes))


def _tasks(source: Path, root: Element) -> Mapping[str, _Task]:
    """Return the videos of an export by the ids of their tasks; the only one of a task or a job has the id that is empty."""
    meta = root.find("meta")
    found = [] if meta is None else [element for element in meta.iter() if element.find("source") is not None]
    tasks = {}
    for element in found:
        where = f"{source}: task {element.findtext('id', '')}"
        stop, size = element.findtext("stop_frame"), element.findtext("size")
        step = match[1] if (match := STEP.search(element.findtext("frame_filter") or "")) else "1"
        last = None if not (stop or size) else whole_number(where, "stop_frame", stop) if stop else None
        if last is None and size:
            last = whole_number(where, "size", size) - 1
        name = element.findtext("source") or ""
        if not name:
            raise DataError(f"{where}: names no video in <source>; export a task of a video, not of images")
        tasks[element.findtext("id", "")] = _Task(
            name, last, max(1, int(step)), part_of(element.findtext("subset") or "")
        )
    if not tasks:
        raise DataError(
            f"{source}: names no video (<meta><task><source>); export a task of a video as CVAT for video 1.1"
        )
    return {"": next(iter(tasks.values()))} if len(tasks) == 1 else tasks


def _task_of(where: str, element: Element, tasks: Mapping[str, _Task]) -> _Task:
    name = "" if "" in tasks else element.get("task_id", "")
    if name not in tasks:
        raise DataError(
            f"{where}: of task {name!r}, and the file describes {', '.join(tasks)}; export the tasks one by one"
        )
    return tasks[name]


def _track_runs(source: Path, root: Element, tasks: Mapping[str, _Task]) -> Iterator[tuple[str, str, _Task, int, int]]:
    """Yield (place in the file, label, task, first frame, frame after the last) for each stretch in which a track is visible."""
    for track in root.iterfind("track"):
        where = f"{source}: track {track.get('id', '?')}"
        task = _task_of(where, track, tasks)
        shapes = sorted(
            (whole_number(where, "frame", shape.get("frame")), shape.get("outside") == "1") for shape in track
        )
        if not shapes:
            continue
        last = shapes[-1][0]
        end = max(last, last if task.stop is None else task.stop) + task.step
        begin: int | None = None
        for frame, outside in [*shapes, (end, True)]:
            if outside and begin is not None:
                yield where, track.get("label", ""), task, begin, frame
                begin = None
            elif not outside and begin is None:
                begin = frame


def _tag_runs(source: Path, root: Element, tasks: Mapping[str, _Task]) -> Iterator[tuple[str, str, _Task, int, int]]:
    """Yield the same for each stretch of frames with one tag."""
    tagged: dict[tuple[str, _Task], list[int]] = {}
    for image in root.iterfind("image"):
        where = f"{source}: image {image.get('id', '?')}"
        named = FRAME_NAME.fullmatch(Path(image.get("name", "")).name)
        frame = int(named[1]) if named else whole_number(where, "id", image.get("id"))
        for tag in image.iterfind("tag"):
            tagged.setdefault((tag.get("label", ""), _task_of(where, image, tasks)), []).append(frame)
    for (label, task), frames in tagged.items():
        frames.sort()
        begin = frames[0]
        for frame, following in zip(frames, [*frames[1:], -1], strict=True):
            if following < 0 or following > frame + task.step:
                yield f"{source}: tag {label!r} of frame {begin}", label, task, begin, frame + task.step
                begin = following


def write_cvat(spans: Sequence[VideoSpan], out: Path, videos: Videos) -> Mapping[Path, str]:
    """Return the file of one video: a track for each span, whose box is the whole picture.

    Raises DataError if the video cannot be read, because CVAT needs the size of its picture.
    """
    path = spans[0].path
    try:
        facts = videos.facts(path)
    except VideoError as error:
        raise DataError(
            f"{error}; CVAT counts frames and needs the size of the picture, so the video has to be there"
        ) from None
    clock, size = videos.clock(path), facts.num_frames
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    _add_task(SubElement(root, "meta"), spans, out, size, (facts.width_px, facts.height_px))
    for number, span in enumerate(spans):
        source = "manual" if span.score is None else "auto"
        track = SubElement(root, "track", id=str(number), label=span.label, source=source)
        first, after = clock.frames_of(*videos.range_of(span))
        if after > size:
            first, after = min(first, size - 1), size
        for frame, outside in ((first, "0"), (after, "1")):
            if frame < size:
                corners = {
                    "xtl": "0.00",
                    "ytl": "0.00",
                    "xbr": f"{facts.width_px:.2f}",
                    "ybr": f"{facts.height_px:.2f}",
                }
                attributes = {"frame": str(frame), "keyframe": "1", "outside": outside, "occluded": "0", **corners}
                SubElement(track, "box", {**attributes, "z_order": "0"})
    return {out: xml_text(root)}


def _add_task(
    meta: ElementTree.Element, spans: Sequence[VideoSpan], out: Path, size: int, size_px: tuple[int, int]
) -> None:
    task = SubElement(meta, "task")
    facts = {"id": "1", "name": Path(spans[0].path).stem, "size": str(size), "mode": "interpolation", "overlap": "0"}
    for name, text in {**facts, "start_frame": "0", "stop_frame": str(size - 1)}.items():
        SubElement(task, name).text = text
    if spans[0].split:
        SubElement(task, "subset").text = spans[0].split
    labels = SubElement(task, "labels")
    for name in sorted({span.label for span in spans}):
        label = SubElement(labels, "label")
        SubElement(label, "name").text = name
        SubElement(label, "type").text = "any"
    picture = SubElement(task, "original_size")
    SubElement(picture, "width").text, SubElement(picture, "height").text = map(str, size_px)
    SubElement(task, "source").text = written_path(spans[0].path, out)
