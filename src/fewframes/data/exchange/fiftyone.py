"""FiftyOne: data sets exported as JSON (samples.json), and lists of temporal detections (labels.json).

Frames are counted from 1, and the last one belongs to the detection. Detections with a confidence are a model's suggestions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

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
)
from fewframes.data.exchange.spans import LabelledSpans, VideoSpan, checked_span
from fewframes.data.exchange.videos import Videos
from fewframes.data.folders import is_video_name
from fewframes.data.samples import ReadOptions, absolute, part_of
from fewframes.errors import DataError

LISTS = {"TemporalDetections": "detections", "Classifications": "classifications"}
PATHS_FILE = "data.json"
SINGLE = ("TemporalDetection", "Classification")


def is_fiftyone(values: object) -> bool:
    """Return True if JSON values look like one of the two files."""
    if not isinstance(values, dict):
        return False
    samples, labels = objects(values.get("samples")), values.get("labels")
    return (bool(samples) and all("filepath" in sample for sample in samples)) or (
        isinstance(labels, dict) and any(_is_detection(one) for cell in labels.values() for one in objects(cell))
    )


def _is_detection(value: Object) -> bool:
    return "label" in value and ("support" in value or "timestamps" in value)


def read_fiftyone(source: Path, options: ReadOptions, videos: Videos) -> LabelledSpans:
    """Return a span for each temporal detection and each classification. Raises DataError for what has no label or no times."""
    values = json_of(source)
    if not is_fiftyone(values):
        raise DataError(f"{source}: no `samples` with a `filepath`, and no `labels` with temporal detections")
    if "samples" in values:
        return _read_samples(source, options, videos, objects(values["samples"]))
    classes = values.get("classes")
    spans, unlabelled, paths = [], 0, _paths(source)
    for key, cell in values["labels"].items():
        where = f"{source}: {key}"
        named = paths.get(key) or (key if is_video_name(key) else "")
        path = located(source, options, named) if named else options.find_stem(source, f"data/{key}", key)
        for one in objects(cell):
            label = one.get("label")
            if isinstance(classes, list) and isinstance(label, int) and 0 <= label < len(classes):
                label = classes[label]
            spans.append(_span(where, path, one, as_text(where, "label", label), videos, None))
        unlabelled += not objects(cell)
    notes = [f"videos without a label: {unlabelled}"] if unlabelled else []
    return LabelledSpans(tuple(spans), tuple(notes))


def _paths(source: Path) -> dict[str, str]:
    """Return the paths of videos by their names in labels.json, as the data.json beside it has them; none without it."""
    beside = source.with_name(PATHS_FILE)
    values = json_of(beside) if beside.is_file() else {}
    named = values.items() if isinstance(values, dict) else ()
    return {key: path for name, path in named if isinstance(path, str) for key in (name, Path(name).stem)}


def _read_samples(source: Path, options: ReadOptions, videos: Videos, samples: Sequence[Object]) -> LabelledSpans:
    spans: list[VideoSpan] = []
    fields: Counter[str] = Counter()
    others: Counter[str] = Counter()
    unlabelled = 0
    for sample in samples:
        file = str(sample["filepath"])
        where, path = f"{source}: {file}", located(source, options, file)
        metadata = sample.get("metadata")
        told = metadata.get("frame_rate") if isinstance(metadata, dict) else None
        tags = sample.get("tags")
        parts = {part_of(str(tag)) for tag in tags} - {""} if isinstance(tags, list) else set()
        split = parts.pop() if len(parts) == 1 else ""
        found = 0
        for name, one in _labels(sample, others):
            fps = None if told is None else rate(where, "frame_rate", told)
            spans.append(_span(where, path, one, as_text(where, "label", one.get("label")), videos, fps, split))
            fields[name] += 1
            found += 1
        unlabelled += not found
    notes = [f"fields: {', '.join(f'{name} ({count})' for name, count in fields.items())}"] if fields else []
    notes += [f"labels of kind {kind} not used: {count}" for kind, count in others.items()]
    if unlabelled:
        notes.append(f"videos without a label: {unlabelled}")
    return LabelledSpans(tuple(spans), tuple(notes))


def _labels(sample: Object, others: Counter[str]) -> Iterator[tuple[str, Object]]:
    """Yield (field, label) of a sample, and count the labels of other kinds."""
    for name, value in sample.items():
        kind = str(value.get("_cls", "")) if isinstance(value, dict) else ""
        if kind in SINGLE:
            yield name, value
        elif kind in LISTS:
            yield from ((name, one) for one in objects(value.get(LISTS[kind])))
        elif kind and "Metadata" not in kind:
            others[kind] += 1


def _span(
    where: str, path: str, one: Object, label: str, videos: Videos, told_fps: float | None, split: str = ""
) -> VideoSpan:
    """Return the span of a detection, or of the whole video for a classification."""
    start_s, end_s = 0.0, None
    sides = one.get("timestamps") or one.get("support")
    if sides is not None and not (isinstance(sides, list) and len(sides) == 2):
        raise DataError(f"{where}: {sides!r}: needs the first and the last frame, or two times in seconds")
    if sides is not None and one.get("timestamps"):
        start_s, end_s = (number(where, "timestamps", side) for side in sides)
    elif sides is not None:
        first, last = (whole_number(where, "support", side) for side in sides)
        if not 1 <= first <= last:
            raise DataError(f"{where}: support {sides}: needs frames from 1 on, the first before the last")
        clock = videos.clock(path, told_fps)
        start_s, end_s = clock.start_s(first - 1), clock.start_s(last)
    elif one.get("_cls") == "TemporalDetection":
        raise DataError(f"{where}: a temporal detection without its `support`")
    attributes, score = one.get("attributes"), one.get("confidence")
    annotator = str(attributes.get("annotator") or "") if isinstance(attributes, dict) else ""
    return checked_span(
        where,
        VideoSpan(
            path=path,
            label=label,
            start_s=start_s,
            end_s=end_s,
            split=split,
            annotator=annotator,
            score=None if score is None else number(where, "confidence", score),
        ),
    )


def write_fiftyone(spans: Sequence[VideoSpan], out: Path, videos: Videos) -> Mapping[Path, str]:
    """Return the labels.json of temporal detections, and the data.json beside it that says where the videos are."""
    labels: dict[str, list[dict[str, object]]] = {}
    paths: dict[str, str] = {}
    keys: dict[str, str] = {}
    for span in spans:
        if span.path not in keys:
            key, twin = Path(span.path).stem, 1
            while key in paths:
                key, twin = f"{Path(span.path).stem}-{twin + 1}", twin + 1
            keys[span.path] = key
            paths[keys[span.path]] = absolute(span.path)
        first, after = videos.clock(span.path).frames_of(*videos.range_of(span))
        one: dict[str, object] = {"label": span.label, "support": [first + 1, after]}
        if span.score is not None:
            one["confidence"] = span.score
        if span.annotator:
            one["attributes"] = {"annotator": span.annotator}
        labels.setdefault(keys[span.path], []).append(one)
    return {out: json_text({"labels": labels}), out.with_name(PATHS_FILE): json_text(paths)}
