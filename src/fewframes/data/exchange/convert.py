"""Read labelled spans from any list, folder or export, and write them in any format."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fewframes.core.files import PART_PREFIX, write_file, writing
from fewframes.core.text import count_of
from fewframes.data.exchange.formats import FORMATS, Format, files_in, format_of, not_held, read_files
from fewframes.data.exchange.spans import LabelledSpans, VideoSpan, by_video, samples_of, spans_of
from fewframes.data.exchange.videos import Videos
from fewframes.data.layouts import read_layout
from fewframes.data.lists import write_list
from fewframes.data.samples import ReadOptions
from fewframes.errors import ConfigError, DataError, nearest

LIST = "list"
"""The name of fewframes' own list (CSV) among the formats."""
LIST_ENDING = ".csv"


def read_spans(
    source: str | os.PathLike[str],
    form: str = "",
    *,
    videos: str | os.PathLike[str] = "",
    fps: float | None = None,
    multilabel: bool = False,
) -> LabelledSpans:
    """Return the labelled spans of a file or a folder, those of models with their scores.

    Args:
        source: A list or a folder as `fewframes train` takes it, an export of `FORMATS`, or the output of `timeline --json`.
        form: Name of the format; empty to recognise it.
        videos: Folder of the videos, if their paths are not relative to the file.
        fps: Frames a second where frames are counted, whatever the videos or the export say.
        multilabel: True if cells of a list hold several labels, separated by semicolons.

    Raises:
        DataError: The file cannot be read, or is not of this format.
    """
    path = Path(source)
    options = ReadOptions(videos=Path(videos) if videos else None, label_separator=";" if multilabel else "")
    chosen = _chosen(form, reads=True)
    files: Sequence[Path] = [path]
    if path.is_dir() and chosen is None and not form:
        files, chosen = files_in(path)
    elif path.is_dir() and chosen is not None and chosen.read is not None:
        files = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in chosen.endings)
        if not files:
            raise DataError(f"{path}: no files of {chosen.title} ({', '.join(chosen.endings)})")
    elif not form:
        chosen = format_of(path)
    if chosen is not None and chosen.read is not None:
        found = read_files(files, chosen, options, Videos(fps))
        return replace(found, notes=(*found.notes, *options.notes()))
    read = read_layout(path, options)
    if chosen is not None and read.name != chosen.title:
        raise DataError(f"{path}: looks like {read.name!r}, not like {chosen.title}; leave --from out")
    spans, notes = spans_of(read.samples)
    return LabelledSpans(spans, (*read.notes, *notes), read.name)


def write_spans(
    spans: Sequence[VideoSpan],
    out: str | os.PathLike[str],
    form: str,
    *,
    fps: float | None = None,
    overwrite: bool = False,
) -> tuple[list[Path], list[str]]:
    """Write spans in a format. Each file is read back before it gets its name, and appears whole or not at all.

    Args:
        spans: The spans. Relative paths are those of the working folder.
        out: The file; for formats with a file for each video also a folder, in which each is called like its video.
        form: A name in `FORMATS` that can be written, or `list`.
        fps: Frames a second where frames are counted, whatever the videos say.
        overwrite: Replace files that exist already.

    Returns:
        The files that were written, and notes on what the format does not keep.

    Raises:
        DataError: The format cannot hold a label, or what it needs of a video is not known.
        ConfigError: The format is unknown, or a file exists already.
        OutputError: A file cannot be written.
    """
    if not spans:
        raise DataError(f"{out}: no spans to write; label something first")
    path, chosen = Path(out), _chosen(form, reads=False)
    endings = (LIST_ENDING,) if chosen is None else chosen.endings
    if path.suffix.lower() not in endings and not (chosen and chosen.one_video and (path.is_dir() or not path.suffix)):
        raise ConfigError(f"{path}: needs a name that ends in {endings[0]}, as files of {form} do")
    if chosen is None:
        _check_new([path], overwrite=overwrite)
        return _write_list(spans, path)
    assert chosen.write is not None
    known, contents = Videos(fps), dict[Path, str]()
    for target, part in _targets(spans, path, chosen).items():
        with writing(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
        files = chosen.write(part, target, known)
        _check_new(files, overwrite=overwrite)
        _check(files, part, target, chosen, known)
        contents |= files
    for file, text in contents.items():
        write_file(file, text)
    notes = not_held(spans, chosen)
    if chosen.by_id and any(
        not Path(os.path.abspath(span.path)).is_relative_to(path.parent.absolute()) for span in spans
    ):
        notes.append(f"{chosen.title} names videos without their folder; name it with --videos to read the list again")
    return list(contents), notes


def _check_new(files: Iterable[Path], *, overwrite: bool) -> None:
    """Raise ConfigError if a file exists already and may not be replaced."""
    there = [file for file in files if file.exists()]
    if there and not overwrite:
        raise ConfigError(f"{there[0]}: is there already; take another name, or overwrite it")


def _chosen(form: str, *, reads: bool) -> Format | None:
    """Return a format by its name; None for a list. Raises ConfigError for an unknown name, or one that is only read."""
    known = [name for name, one in FORMATS.items() if reads or one.write is not None]
    if form in ("", LIST):
        return None
    if form not in known:
        raise ConfigError(f"format {form!r}: {nearest(form, [LIST, *known])}")
    return FORMATS[form]


def _write_list(spans: Sequence[VideoSpan], path: Path) -> tuple[list[Path], list[str]]:
    """Write spans as a list of fewframes. Spans of the same times are one row, if there are several labels for any."""
    bare = [replace(span, score=None, annotator="") for span in spans]
    places = {(span.path, span.start_s, span.end_s): span.label for span in bare}
    multilabel = any(places[span.path, span.start_s, span.end_s] != span.label for span in bare)
    samples, _ = samples_of(str(path), bare, multilabel=multilabel)
    notes = [
        f"the list does not keep the {name} of a span: lost for {count}"
        for name in ("annotator", "score")
        if (count := sum(getattr(span, name) not in ("", None) for span in spans))
    ]
    if multilabel:
        notes.append("spans of the same times with several labels are one row; train on it with --task multilabel")
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_list(samples, path, multilabel=multilabel)
    return [path], notes


def _targets(spans: Sequence[VideoSpan], path: Path, form: Format) -> dict[Path, list[VideoSpan]]:
    """Return the spans of each file, in the order of time. Raises DataError if two videos would have one file."""
    ordered = sorted(spans, key=lambda span: (span.start_s, span.label))
    if not form.one_video:
        return {path: ordered}
    videos = by_video(ordered)
    if path.suffix.lower() in form.endings and not path.is_dir():
        if len(videos) > 1:
            raise DataError(
                f"{path}: {form.title} has a file for each video, and there are {count_of(len(videos), 'video')}; name a folder"
            )
        return {path: ordered}
    targets: dict[Path, list[VideoSpan]] = {}
    for name, own in videos.items():
        target = path / f"{Path(name).stem}{form.endings[0]}"
        if target in targets:
            raise DataError(f"{target}: {targets[target][0].path} and {name} would both be written there; rename one")
        targets[target] = own
    return targets


def _check(files: Mapping[Path, str], spans: Sequence[VideoSpan], target: Path, form: Format, videos: Videos) -> None:
    """Raise DataError unless the files of one target read back with the same labels."""
    options = ReadOptions(videos=target.parent.absolute())
    with writing(target.parent), tempfile.TemporaryDirectory(prefix=PART_PREFIX, dir=target.parent) as folder:
        for file, text in files.items():
            write_file(Path(folder) / file.name, text)
        part = Path(folder) / target.name
        if form.read is not None:
            again = form.read(part, options, videos).spans
        else:
            again, _ = spans_of(read_layout(part, options).samples)
    wanted, found = sorted(span.label for span in spans), sorted(span.label for span in again)
    if form.merges:
        wanted, found = sorted(set(wanted)), sorted(set(found))
    if wanted != found:
        lost = next(iter(sorted(set(wanted) - set(found))), wanted[0])
        raise DataError(f"label {lost!r}: would not read back the same from {form.title}; rename it")
