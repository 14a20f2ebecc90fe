"""Label Studio's JSON and JSON-MIN: ranges of frames (TimelineLabels), spans in seconds (Labels), and choices of whole videos.

Frames are counted from 1 at the rate that the project is set to (`frameRate` of its Video tag). The last one belongs to the span.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from fewframes.data.columns import as_text
from fewframes.data.exchange.files import (
    Object,
    json_of,
    json_text,
    located,
    number,
    objects,
    rate,
    whole_number,
    written_path,
)
from fewframes.data.exchange.spans import LabelledSpans, VideoSpan, by_video, checked_span
from fewframes.data.exchange.videos import FrameClock, Videos
from fewframes.data.folders import is_video_name
from fewframes.data.samples import ReadOptions, part_of
from fewframes.errors import DataError

RATES = ("fps", "frame_rate", "frameRate", "framerate")
"""The names under which a task may tell its frame rate, for `frameRate="$fps"` in the project's settings."""
UPLOAD = re.compile(r"[0-9a-f]{8}-(.+)")
"""The name that Label Studio gives an uploaded file."""
ANSWERS = frozenset({"annotations", "completions", "predictions"})
KINDS = ("timelinelabels", "labels", "choices")


def is_label_studio(values: object) -> bool:
    """Return True if JSON values look like an export of Label Studio: tasks with their answers, or the short form of them."""
    tasks = objects(values if isinstance(values, list) else [values])
    whole = [task for task in tasks if isinstance(task.get("data"), dict) and not ANSWERS.isdisjoint(task)]
    return bool(tasks) and (len(whole) == len(tasks) or any(_short_results(task) for task in tasks))


@dataclass
class _Counts:
    """The results that are not used, by what they are."""

    kinds: Counter[str] = field(default_factory=Counter)
    cancelled: int = 0
    unlabelled: int = 0
    untold: int = 0

    def notes(self) -> list[str]:
        """Return a line for each kind of result."""
        boxes = self.kinds.pop("videorectangle", 0)
        lines = {"boxes of VideoRectangle not used": boxes, "cancelled annotations not used": self.cancelled}
        lines |= {f"results of type {kind!r} not used": count for kind, count in self.kinds.items()}
        lines["tasks without a label"] = self.unlabelled
        lines["tasks that tell no frame rate, counted at that of their video (--fps if the project has another)"] = (
            self.untold
        )
        return [f"{line}: {count}" for line, count in lines.items() if count]


def read_label_studio(source: Path, options: ReadOptions, videos: Videos) -> LabelledSpans:
    """Return the spans of all annotators, and of predictions with their scores. Raises DataError where a task has no video."""
    values = json_of(source)
    counts, spans = _Counts(), []
    for index, task in enumerate(objects(values if isinstance(values, list) else [values]), 1):
        where = f"{source}: task {task.get('id', index)}"
        data = task["data"] if isinstance(task.get("data"), dict) else task
        path = located(source, options, *_names(where, data))
        answers = list(_answers(task, counts))
        told = _told_fps(where, data, [result for _, _, results in answers for result in results])
        found = [
            checked_span(
                where,
                VideoSpan(
                    path=path,
                    label=label,
                    start_s=start_s,
                    end_s=end_s,
                    split=part_of(str(data.get("split") or "")),
                    group=str(data.get("group") or ""),
                    annotator=annotator,
                    score=None if score is None else number(where, "score", result.get("score", score)),
                ),
            )
            for annotator, score, results in answers
            for result in results
            for label, start_s, end_s in _labels(where, result, path, videos, told, counts)
        ]
        counts.unlabelled += not found
        counts.untold += (
            told is None
            and videos.fps is None
            and any(result.get("type") == KINDS[0] for *_, results in answers for result in results)
        )
        spans += found
    return LabelledSpans(tuple(spans), tuple(counts.notes()))


def _names(where: str, data: Object) -> list[str]:
    """Return the names that the video of a task may have: its file of any storage, then what the task says."""
    named = [data[key] for key in ("video", "video_url", "url", "audio") if isinstance(data.get(key), str)]
    named += [value for value in data.values() if isinstance(value, str) and is_video_name(urlsplit(value).path)]
    if not named:
        raise DataError(f"{where}: its data name no video ({', '.join(data)}); needs a value such as 'clips/a.mp4'")
    parts = urlsplit(named[0])
    stored = parse_qs(parts.query).get("d", [""])[0]  # /data/local-files/?d=clips/a.mp4
    path = stored or unquote(parts.path)
    name = path.rpartition("/")[2]
    upload = UPLOAD.fullmatch(name)
    inner = [path] if stored or not parts.scheme else []
    return [*inner, name, *([upload[1]] if upload else []), stored or named[0]]


def _answers(task: Object, counts: _Counts) -> Iterator[tuple[str, float | None, list[dict[str, Any]]]]:
    """Yield (who answered, score, results) of each annotation and prediction; people have no score."""
    if not isinstance(task.get("data"), dict):
        annotator = task.get("annotator")
        yield "" if annotator is None else str(annotator), None, _short_results(task)
        return
    for answer in objects(task.get("annotations", task.get("completions"))):
        if answer.get("was_cancelled"):
            counts.cancelled += 1
            continue
        by = answer.get("completed_by")
        person = next((by[key] for key in ("email", "id") if key in by), "") if isinstance(by, dict) else by
        yield "" if person is None else str(person), None, objects(answer.get("result"))
    for answer in objects(task.get("predictions")):
        score = answer.get("score")
        yield str(answer.get("model_version") or ""), 0.0 if score is None else score, objects(answer.get("result"))


def _short_results(task: Object) -> list[dict[str, Any]]:
    """Return the results of a task in JSON-MIN, in the form that they have in JSON."""
    return [
        {"type": kind, "value": value}
        for cell in task.values()
        for value in (objects(cell) if isinstance(cell, list) else [])
        for kind, times in (("timelinelabels", "ranges"), ("labels", "start"))
        if kind in value and times in value
    ]


def _told_fps(where: str, data: Object, results: Sequence[Object]) -> float | None:
    """Return the frame rate that a task tells, or that a count of frames and a length in its results give; None without both."""
    told = next((rate(where, key, data[key]) for key in RATES if data.get(key) not in (None, "")), None)
    for result in results:
        value = result.get("value")
        if told is None and isinstance(value, dict) and value.get("framesCount") and value.get("duration"):
            told = rate(where, "framesCount", value["framesCount"]) / rate(where, "duration", value["duration"])
    return told


def _labels(
    where: str, result: Object, path: str, videos: Videos, told: float | None, counts: _Counts
) -> Iterator[tuple[str, float, float | None]]:
    """Yield (label, start, end) of a result, in seconds."""
    value, kind = result.get("value"), str(result.get("type", "")).lower()
    labels = value.get(kind) if isinstance(value, dict) else None
    if kind not in KINDS or not isinstance(value, dict) or not isinstance(labels, list):
        counts.kinds[kind] += 1
        return
    times: list[tuple[float, float | None]] = []
    if kind == "choices":
        times = [(0.0, None)]
    elif kind == "labels":
        times = [(number(where, "start", value.get("start")), number(where, "end", value.get("end")))]
    else:
        clock = videos.steady_clock(path, told)
        for one in objects(value.get("ranges")):
            first, last = (whole_number(where, side, one.get(side)) for side in ("start", "end"))
            if first < 1:
                first, last = 1, max(last, 1)  # some models count from 0
            times.append((clock.start_s(first - 1), clock.start_s(last)))
    yield from ((as_text(where, kind, label), start_s, end_s) for start_s, end_s in times for label in labels)


def write_label_studio(spans: Sequence[VideoSpan], out: Path, videos: Videos) -> Mapping[Path, str]:
    """Return a task for each video: what people labelled as annotations, and what a model suggests as predictions."""
    tasks = []
    for index, (path, own) in enumerate(by_video(spans).items(), 1):
        fps = videos.steady_clock(path).fps
        data: dict[str, object] = {"video": written_path(path, out), "fps": fps}
        data |= {key: value for key in ("split", "group") if (value := getattr(own[0], key))}
        answers: dict[str, list[dict[str, object]]] = {"annotations": [], "predictions": []}
        for annotator, suggested in dict.fromkeys((span.annotator, span.score is not None) for span in own):
            results = [
                _result(f"{index}-{place}", span, FrameClock(fps), videos)
                for place, span in enumerate(own, 1)
                if (span.annotator, span.score is not None) == (annotator, suggested)
            ]
            if suggested:
                answers["predictions"].append({"model_version": annotator or "fewframes", "result": results})
            else:
                by = {"completed_by": {"email": annotator}} if annotator else {}
                answers["annotations"].append({**by, "result": results})
        tasks.append({"id": index, "data": data, **answers})
    return {out: json_text(tasks)}


def _result(name: str, span: VideoSpan, clock: FrameClock, videos: Videos) -> dict[str, object]:
    first, after = clock.frames_of(*videos.range_of(span))
    return {
        "id": name,
        "from_name": "label",
        "to_name": "video",
        "type": "timelinelabels",
        "value": {"ranges": [{"start": first + 1, "end": after}], "timelinelabels": [span.label]},
        **({} if span.score is None else {"score": span.score}),
    }
