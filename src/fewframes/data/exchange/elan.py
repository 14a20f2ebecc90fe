"""ELAN's annotation files (.eaf): time slots in milliseconds, tiers of annotations, and a description of the video."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree.ElementTree import Element, SubElement

from fewframes.core.storage import is_address
from fewframes.data.exchange.files import located, number, written_path, xml_of, xml_text
from fewframes.data.exchange.spans import LabelledSpans, VideoSpan, checked_span
from fewframes.data.exchange.videos import Videos
from fewframes.data.folders import is_video_name
from fewframes.data.samples import ReadOptions
from fewframes.errors import DataError

UNITS_S = {"milliseconds": 1e-3, "PAL-frames": 1 / 25, "NTSC-frames": 1001 / 30000}
"""Seconds in each unit of time that the format knows."""
TIER_TYPE = "action"
SCHEMA = {
    "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
    "xsi:noNamespaceSchemaLocation": "http://www.mpi.nl/tools/elan/EAFv3.0.xsd",
}
"""The description of the format, for which other readers of it look."""


def read_elan(source: Path, options: ReadOptions, videos: Videos) -> LabelledSpans:
    """Return a span for each annotation with times. Its value is the label, or its tier's name if it has none.

    Raises DataError if the file is none of ELAN, or names no video.
    """
    del videos  # times are milliseconds
    root = xml_of(source)
    if root.tag != "ANNOTATION_DOCUMENT":
        raise DataError(f"{source}: <{root.tag}> is not ELAN's <ANNOTATION_DOCUMENT>; save it with ELAN as .eaf")
    path, origin_s = _video(source, root, options)
    header = root.find("HEADER")
    unit = "milliseconds" if header is None else header.get("TIME_UNITS", "milliseconds")
    if unit not in UNITS_S:
        raise DataError(f"{source}: TIME_UNITS {unit!r}; choose from: {', '.join(UNITS_S)}")
    slots_s = {
        slot.get("TIME_SLOT_ID"): number(str(source), "TIME_VALUE", slot.get("TIME_VALUE")) * UNITS_S[unit] + origin_s
        for slot in root.iterfind("TIME_ORDER/TIME_SLOT")
        if slot.get("TIME_VALUE") is not None
    }
    counts: dict[str, int] = {}
    spans, untimed = [], 0
    for tier in root.iterfind("TIER"):
        name = tier.get("TIER_ID", "")
        for annotation in tier.iterfind("ANNOTATION/ALIGNABLE_ANNOTATION"):
            start_s, end_s = (slots_s.get(annotation.get(f"TIME_SLOT_REF{side}")) for side in (1, 2))
            if start_s is None or end_s is None:
                untimed += 1
                continue
            counts[name] = counts.get(name, 0) + 1
            label = (annotation.findtext("ANNOTATION_VALUE") or "").strip() or name
            where = f"{source}: annotation {annotation.get('ANNOTATION_ID', '?')}"
            annotator = tier.get("ANNOTATOR", "")
            span = VideoSpan(path=path, label=label, start_s=start_s, end_s=end_s, annotator=annotator)
            spans.append(checked_span(where, span))
    notes = [f"tiers: {', '.join(f'{name} ({count})' for name, count in counts.items())}"] if counts else []
    if untimed:
        notes.append(f"annotations without times of their own not used: {untimed}")
    if dependent := sum(1 for _ in root.iterfind("TIER/ANNOTATION/REF_ANNOTATION")):
        notes.append(f"annotations of other annotations not used: {dependent}")
    if not spans:
        notes.append("videos without a label: 1")
    return LabelledSpans(tuple(spans), tuple(notes))


def _video(source: Path, root: Element, options: ReadOptions) -> tuple[str, float]:
    """Return the path of the video, and the time in it at which the annotations begin to count, in seconds."""
    media = list(root.iterfind("HEADER/MEDIA_DESCRIPTOR"))
    if not media:
        raise DataError(f"{source}: names no video (<MEDIA_DESCRIPTOR>); link it in ELAN and save the file again")
    shown = [
        one
        for one in media
        if one.get("MIME_TYPE", "").startswith("video") or is_video_name(urlsplit(one.get("MEDIA_URL", "")).path)
    ]
    first = (shown or media)[0]
    url, relative = first.get("MEDIA_URL", ""), first.get("RELATIVE_MEDIA_URL", "")
    local = unquote(urlsplit(url).path) if url.startswith("file:") else url
    if local[2:3] == ":":  # file:///C:/films/a.mp4
        local = local.lstrip("/")
    names = [unquote(relative.removeprefix("file:")), os.path.basename(local.replace("\\", "/")), local]
    if not any(names):
        raise DataError(
            f"{source}: its <MEDIA_DESCRIPTOR> has no address; link the video in ELAN and save the file again"
        )
    origin_s = number(str(source), "TIME_ORIGIN", first.get("TIME_ORIGIN") or 0) / 1000
    return located(source, options, *filter(None, names)), origin_s


def write_elan(spans: Sequence[VideoSpan], out: Path, videos: Videos) -> Mapping[Path, str]:
    """Return the file of one video: a tier for each annotator, and more where spans overlap, which a tier cannot hold."""
    path = spans[0].path
    about = {"AUTHOR": "", "DATE": datetime.now().astimezone().isoformat(), "FORMAT": "3.0", "VERSION": "3.0"}
    root = Element("ANNOTATION_DOCUMENT", {**about, **SCHEMA})
    header = SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    SubElement(header, "MEDIA_DESCRIPTOR", _media(path, written_path(path, out)))
    order = SubElement(root, "TIME_ORDER")
    tiers: list[tuple[str, int, Element]] = []
    slots_ms: list[tuple[int, str]] = []
    for index, span in enumerate(spans, 1):
        start_ms, end_ms = (round(1000 * time_s) for time_s in videos.range_of(span))
        end_ms = max(end_ms, start_ms + 1)
        slots = {"TIME_SLOT_REF1": f"ts{2 * index - 1}", "TIME_SLOT_REF2": f"ts{2 * index}"}
        slots_ms += zip((start_ms, end_ms), slots.values(), strict=True)
        annotation = SubElement(_tier(root, tiers, span.annotator, start_ms, end_ms), "ANNOTATION")
        aligned = SubElement(annotation, "ALIGNABLE_ANNOTATION", {"ANNOTATION_ID": f"a{index}", **slots})
        SubElement(aligned, "ANNOTATION_VALUE").text = span.label
    for time_ms, name in sorted(slots_ms, key=lambda slot: slot[0]):
        SubElement(order, "TIME_SLOT", TIME_SLOT_ID=name, TIME_VALUE=str(time_ms))
    SubElement(root, "LINGUISTIC_TYPE", LINGUISTIC_TYPE_ID=TIER_TYPE, TIME_ALIGNABLE="true", GRAPHIC_REFERENCES="false")
    return {out: xml_text(root)}


def _media(path: str, written: str) -> dict[str, str]:
    """Return the attributes that describe a video: its address, and where it lies seen from the file."""
    url = path if is_address(path) else Path(os.path.abspath(path)).as_uri()
    media = {"MEDIA_URL": url, "MIME_TYPE": mimetypes.guess_type(path)[0] or "video/*"}
    beside = not is_address(path) and not os.path.isabs(written)
    return {**media, "RELATIVE_MEDIA_URL": f"./{written}"} if beside else media


def _tier(root: Element, tiers: list[tuple[str, int, Element]], annotator: str, start_ms: int, end_ms: int) -> Element:
    """Return the first tier of an annotator that is free from a time on; a new one if there is none."""
    for index, (name, free_ms, tier) in enumerate(tiers):
        if name == annotator and free_ms <= start_ms:
            tiers[index] = name, end_ms, tier
            return tier
    name = f"action {len(tiers) + 1}" if tiers else "action"
    attributes = {"TIER_ID": name, "LINGUISTIC_TYPE_REF": TIER_TYPE}
    tier = SubElement(root, "TIER", {**attributes, **({"ANNOTATOR": annotator} if annotator else {})})
    tiers.append((annotator, end_ms, tier))
    return tier
