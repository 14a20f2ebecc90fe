"""Subtitles, WebVTT and SRT: a cue for each span, with the label as its text. The file has the name of its video."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fewframes.core.text import stamp
from fewframes.data.exchange.spans import LabelledSpans, VideoSpan, checked_span
from fewframes.data.exchange.videos import Videos
from fewframes.data.list_text import text_of
from fewframes.data.samples import ReadOptions
from fewframes.errors import DataError

STAMP = r"(?:(\d+):)?(\d{1,2}):(\d{1,2}[.,]\d{1,3})"
TIMING = re.compile(rf"{STAMP}\s*-->\s*{STAMP}(?:\s.*)?")
VOICE = re.compile(r"<v(?:\.\S+)?\s+([^>]*)>")
VTT_TAG, SRT_TAG = re.compile(r"<[^>]*>"), re.compile(r"</?(?:[biu]|font)\b[^>]*>|\{\\[^}]*\}", re.IGNORECASE)
SURE = re.compile(r"(.+) (\d{1,3})%", re.DOTALL)
"""A cue as `fewframes timeline --vtt` writes it, with the confidence after the label."""
BESIDE = ("NOTE", "STYLE", "REGION", "WEBVTT")
"""The first words of blocks that are no cues."""


def read_subtitles(source: Path, options: ReadOptions, videos: Videos) -> LabelledSpans:
    """Return a span for each cue. Raises DataError for a block that is none.

    If all cues end with a percentage, it is the confidence of a model.
    """
    del videos  # times are seconds
    is_vtt = source.suffix.lower() == ".vtt" or text_of(source).startswith("WEBVTT")
    cues = list(_cues(source, is_vtt=is_vtt))
    stems = [source.stem, *([source.stem.rpartition(".")[0]] if "." in source.stem else [])]  # a.en.vtt
    path = options.find_stem(source, *stems)
    sure = [SURE.fullmatch(label) for _, _, _, label, _ in cues]
    has_scores = bool(cues) and all(sure)
    spans = []
    for (where, start_s, end_s, label, voice), match in zip(cues, sure, strict=True):
        span = VideoSpan(
            path=path,
            label=match[1] if match and has_scores else label,
            start_s=start_s,
            end_s=end_s,
            annotator=voice,
            score=int(match[2]) / 100 if match and has_scores else None,
        )
        spans.append(checked_span(where, span))
    return LabelledSpans(tuple(spans), () if spans else ("videos without a label: 1",))


def _cues(source: Path, *, is_vtt: bool) -> Iterator[tuple[str, float, float, str, str]]:
    """Yield (place in the file, start, end, text, voice) of each cue, with times in seconds."""
    line = 1
    for block in re.split(r"(\n[ \t]*(?=\n))", text_of(source).removeprefix("\ufeff")):
        lines = block.split("\n")
        first = line + next((index for index, text in enumerate(lines) if text.strip()), 0)
        line += len(lines) - 1
        kept = [text for text in lines if text.strip()]
        if not kept or (
            is_vtt and kept[0].split()[0].startswith(BESIDE) and not any("-->" in text for text in kept[:2])
        ):
            continue
        timing = next((index for index, text in enumerate(kept[:2]) if "-->" in text), None)
        match = None if timing is None else TIMING.fullmatch(kept[timing].strip())
        if timing is None or match is None:
            raise DataError(
                f"{source}:{first}: {kept[0][:60]!r}: needs a cue, with a line such as 00:01.000 --> 00:02.500"
            )
        text = "\n".join(kept[timing + 1 :]).strip()
        voice = (VOICE.search(text) if is_vtt else None) or None
        words = html.unescape(VTT_TAG.sub("", text)) if is_vtt else SRT_TAG.sub("", text)
        where = f"{source}:{first}"
        yield where, _seconds(match, 0), _seconds(match, 3), words, html.unescape(voice[1].strip()) if voice else ""


def _seconds(match: re.Match[str], side: int) -> float:
    hours, minutes, seconds = (match[side + part] or "0" for part in (1, 2, 3))
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds.replace(",", "."))


def write_vtt(spans: Sequence[VideoSpan], out: Path, videos: Videos) -> Mapping[Path, str]:
    """Return the WebVTT of one video. Annotators are voices."""
    cues = ["WEBVTT\n"]
    for span in spans:
        voice = f"<v {html.escape(span.annotator, quote=False)}>" if span.annotator else ""
        cues.append(f"{_timing(span, videos, '.')}\n{voice}{html.escape(span.label, quote=False)}\n")
    return {out: "\n".join(cues)}


def write_srt(spans: Sequence[VideoSpan], out: Path, videos: Videos) -> Mapping[Path, str]:
    """Return the SRT of one video."""
    cues = [f"{index}\n{_timing(span, videos, ',')}\n{span.label}\n" for index, span in enumerate(spans, 1)]
    return {out: "\n".join(cues)}


def _timing(span: VideoSpan, videos: Videos, point: str) -> str:
    start_s, end_s = videos.range_of(span)
    return f"{stamp(start_s, point)} --> {stamp(max(end_s, start_s + 1e-3), point)}"
