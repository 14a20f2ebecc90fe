"""VIA 3 (the VGG annotator) projects: temporal segments in seconds, with attributes that are texts or options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fewframes.core.storage import is_address
from fewframes.data.exchange.files import Object, inner, json_of, json_text, located, number, written_path
from fewframes.data.exchange.spans import LabelledSpans, VideoSpan, by_video, checked_span
from fewframes.data.exchange.videos import Videos
from fewframes.data.samples import ReadOptions
from fewframes.errors import DataError

CHECKBOX, SELECT = 2, 4
"""Numbers of two kinds of attributes: several options, and one of a menu."""
VIDEO, AT_ADDRESS, IN_FILE = 4, 2, 3
"""The numbers of a file that is a video, and of places where it may be."""
SEGMENT = "FILE1_Z2_XY0"
"""Anchor of attributes of a temporal segment."""


def is_via(values: object) -> bool:
    """Return True if JSON values look like a project of VIA 3."""
    return isinstance(values, dict) and {"project", "attribute", "file", "view", "metadata"} <= set(values)


def read_via(source: Path, options: ReadOptions, videos: Videos) -> LabelledSpans:
    """Return a span for each attribute of each temporal segment or whole video. Raises DataError for broken references."""
    del videos  # times are seconds
    project = json_of(source)
    if not is_via(project) or not all(
        isinstance(project[key], dict) for key in ("attribute", "file", "view", "metadata")
    ):
        raise DataError(f"{source}: not a project of VIA 3; needs project, attribute, file, view and metadata")
    spans: list[VideoSpan] = []
    paths: dict[str, str] = {}
    regions = empty = 0
    used: dict[str, int] = {}
    labelled = set()
    for name, entry in project["metadata"].items():
        where = f"{source}: metadata {name}"
        times = entry.get("z") if isinstance(entry, dict) else None
        if not isinstance(times, list) or not isinstance(entry.get("av"), dict):
            raise DataError(f"{where}: needs `z`, a list of times in seconds, and `av`, its attributes")
        if entry.get("xy") or len(times) not in (0, 2):
            regions += 1
            continue
        view = str(entry.get("vid", ""))
        if view not in paths:
            paths[view] = _path(where, source, project, view, options)
        start_s, end_s = [number(where, "z", time) for time in times] or (0.0, None)
        labels = [
            (attribute, label)
            for attribute, value in entry["av"].items()
            for label in _labels(where, project["attribute"], attribute, str(value))
        ]
        empty += not labels
        for attribute, label in labels:
            used[attribute] = used.get(attribute, 0) + 1
            spans.append(checked_span(where, VideoSpan(path=paths[view], label=label, start_s=start_s, end_s=end_s)))
            labelled.add(view)
    counts = {
        "regions and single frames not used": regions,
        "segments without a label not used": empty,
        "videos without a label": len(set(project["view"]) - labelled),
    }
    named = [f"{project['attribute'][key].get('aname', key)} ({count})" for key, count in used.items()]
    notes = [f"attributes: {', '.join(named)}"] if len(named) > 1 else []
    return LabelledSpans(tuple(spans), (*notes, *(f"{what}: {count}" for what, count in counts.items() if count)))


def _path(where: str, source: Path, project: Object, view: str, options: ReadOptions) -> str:
    """Return the path of the first file of a view."""
    files = inner(project, "view", view).get("fid_list")
    file = inner(project, "file", str(files[0]) if isinstance(files, list) and files else "")
    if not (file.get("src") or file.get("fname")):
        raise DataError(f"{where}: view {view!r} has no file with a name; open the project in VIA and add the video")
    src, name = str(file.get("src") or ""), str(file.get("fname") or "")
    prefix = inner(project, "config", "file", "loc_prefix").get(str(file.get("loc", ""))) or ""
    local = unquote(urlsplit(src).path) if src.startswith("file:") else src
    names = [f"{prefix}{local}" if local else "", local, name]
    return located(source, options, *filter(None, [*names, local or name]))


def _labels(where: str, attributes: Object, key: str, value: str) -> list[str]:
    """Return the labels that the value of an attribute stands for: the names of its options, or its text."""
    attribute = attributes.get(key)
    if not isinstance(attribute, dict):
        raise DataError(f"{where}: attribute {key!r} is not described in the project")
    named = inner(attribute, "options")
    values = value.split(",") if attribute.get("type") == CHECKBOX else [value]
    return [label for one in values if (label := str(named.get(one, one)).strip()) and one.strip()]


def write_via(spans: Sequence[VideoSpan], out: Path, videos: Videos) -> Mapping[Path, str]:
    """Return a project with all videos, and one attribute whose options are the labels."""
    options = {label: str(index) for index, label in enumerate(sorted({span.label for span in spans}))}
    views = {path: str(index) for index, path in enumerate(by_video(spans), 1)}
    files = {
        view: {
            "fid": view,
            "fname": path.replace("\\", "/").rpartition("/")[2],
            "type": VIDEO,
            "loc": AT_ADDRESS if is_address(path) else IN_FILE,
            "src": written_path(path, out),
        }
        for path, view in views.items()
    }
    metadata = {
        f"{views[span.path]}_{index}": {
            "vid": views[span.path],
            "flg": 0,
            "z": list(videos.range_of(span)),
            "xy": [],
            "av": {"1": options[span.label]},
        }
        for index, span in enumerate(spans, 1)
    }
    attribute = {
        "aname": "action",
        "anchor_id": SEGMENT,
        "type": SELECT,
        "desc": "",
        "options": {index: label for label, index in options.items()},
        "default_option_id": "",
    }
    project = {
        "project": {
            "pid": "__VIA_PROJECT_ID__",
            "rev": "__VIA_PROJECT_REV_ID__",
            "rev_timestamp": "__VIA_PROJECT_REV_TIMESTAMP__",
            "pname": out.stem,
            "data_format_version": "3.1.1",
            "creator": "fewframes",
            "created": 0,
            "vid_list": list(files),
        },
        "config": {
            "file": {"loc_prefix": {"1": "", "2": "", "3": "", "4": ""}},
            "ui": {
                "file_content_align": "center",
                "file_metadata_editor_visible": True,
                "spatial_metadata_editor_visible": True,
                "temporal_segment_metadata_editor_visible": True,
                "spatial_region_label_attribute_id": "",
                "gtimeline_visible_row_count": "4",
            },
        },
        "attribute": {"1": attribute},
        "file": files,
        "metadata": metadata,
        "view": {view: {"fid_list": [view]} for view in files},
    }
    return {out: json_text(project)}
