"""`fewframes search`: find moments in an index that are like a moment, or have a label."""

from __future__ import annotations

import csv
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fewframes.cli.console import print_lines, speaks_unicode, tell
from fewframes.cli.options import (
    MODEL,
    OUTPUT,
    BackendOption,
    CsvOption,
    DeviceOption,
    DtypeOption,
    EndOption,
    IndexOption,
    JsonOption,
    RuntimeOption,
    StartOption,
    check_writable,
)
from fewframes.core.files import check_not_read, write_file
from fewframes.core.text import count_of, for_csv, json_line
from fewframes.errors import ConfigError, VideoError

if TYPE_CHECKING:
    from fewframes.search.index import Index
    from fewframes.search.table import Hit

QUERY = "What to find"
TEACHING = "Teach a label"


def search(
    video: Annotated[
        str | None,
        typer.Argument(
            metavar="[VIDEO]", help="Find moments like this video (a file or URL; for words there is --text)."
        ),
    ] = None,
    *,
    where: IndexOption,
    start: StartOption = 0.0,
    end: EndOption = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="Find moments of a label: one of the model's, or one that you taught. With --text, a VIDEO or --like it keeps "
            "only moments of the label.",
            rich_help_panel=QUERY,
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            help="Find moments that show what these words say, in an index that was made with `--words`, or with a model from "
            "`fewframes words`. Several phrasings are separated by |. With a VIDEO or --like, both count.",
            rich_help_panel=QUERY,
        ),
    ] = None,
    not_text: Annotated[
        str,
        typer.Option(
            help="Leave out moments that are more like these words than like those of --text.", rich_help_panel=QUERY
        ),
    ] = "",
    like: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Find moments like this one, an earlier result.", rich_help_panel=QUERY),
    ] = None,
    condition: Annotated[
        str,
        typer.Option(
            "--where",
            metavar="SQL",
            help="Keep only moments that meet a condition, such as \"label = 'kick' AND score > 0.5\".",
            rich_help_panel=QUERY,
        ),
    ] = "",
    videos: Annotated[
        str,
        typer.Option(
            "--videos",
            metavar="GLOB",
            help="Search only videos whose path matches, such as '*/2024/*'.",
            rich_help_panel=QUERY,
        ),
    ] = "",
    num: Annotated[int, typer.Option(min=1, max=4096, help="Number of moments to find.", rich_help_panel=QUERY)] = 20,
    distinct: Annotated[
        bool, typer.Option("--distinct", help="At most one moment of each video.", rich_help_panel=QUERY)
    ] = False,
    teach: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Teach a new label from examples, and search for it.", rich_help_panel=TEACHING
        ),
    ] = None,
    yes: Annotated[
        str,
        typer.Option(
            metavar="1,4,ID",
            help="Examples that show it: ids, or numbers of this search's results (give the same search and --num again).",
            rich_help_panel=TEACHING,
        ),
    ] = "",
    no: Annotated[
        str, typer.Option(metavar="2,3,ID", help="Examples that do not show it.", rich_help_panel=TEACHING)
    ] = "",
    model: Annotated[
        str | None,
        typer.Option(help="The model of the index, if it has been renamed or moved.", rich_help_panel=MODEL),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FOLDER",
            help="For --text: the image-text encoder of the index, if it has been renamed or moved.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    json: JsonOption = False,
    as_csv: CsvOption = False,
    page: Annotated[
        Path | None,
        typer.Option(
            help="Write an HTML page with a frame of each moment. A click plays the moment.", rich_help_panel=OUTPUT
        ),
    ] = None,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    runtime: RuntimeOption = "auto",
) -> None:
    """Find moments like a moment, of a label, or that words describe. Teach a new label from a few examples.

    Exit codes: 0 done (also if nothing was found), 1 the index cannot be searched, 2 wrong use.
    """
    if json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    check_asked({"VIDEO": video, "--like": like, "--text": text, "--label": label}, teach, yes + no)
    for option, given in (("--encoder", encoder), ("--not-text", not_text)):
        if given and text is None:
            raise typer.BadParameter(f"{option} {given} is for --text; add that, or leave it out")
    if page is not None:
        check_writable(page, "--page")
        check_not_read(page, [] if video is None else [video])
    from fewframes.inference.predictor import load
    from fewframes.search.index import Index

    there = Index.open(where)
    if video is not None:
        named, merge = model or there.settings.model, there.settings.merge
        there = Index.open(
            where, load(named, device=device, dtype=dtype, backend=backend, merge=merge, runtime=runtime)
        )
    began = time.perf_counter()
    queries = [there.moment(video, start, end)] if video is not None else []
    queries += [] if like is None else [there.row(like)]
    queries += [] if text is None else [there.text(text, not_text=not_text, model=model, encoder=encoder)]
    found: tuple[Hit, ...] = ()
    if queries or label is not None:
        found = there.search(
            queries or str(label), label=label, where=condition, videos=videos, num=num, distinct=distinct
        )
    if teach is not None:
        teach_label(there, teach, _ids(yes, found), _ids(no, found))
        found = there.search(teach, where=condition, videos=videos, num=num, distinct=distinct)
    show(found, "json" if json else "csv" if as_csv else "table")
    tell(f"{len(found)} of {count_of(there.num_rows, 'moment')} in {time.perf_counter() - began:.2f} s")
    if page is not None:
        example = like or (None if video is None else Path(video).name)
        title = teach or ", ".join(filter(None, [label, text, example and f"like {example}"]))
        again = shlex.join(["fewframes", "search", "--index", where, "--page", str(page)]) if there.knows_words else ""
        write_page(found, title, page, again)


def check_asked(queries: Mapping[str, str | None], teach: str | None, examples: str) -> None:
    """Check that something is searched for, and that a label is taught with examples. Raises BadParameter.

    Args:
        queries: What is searched for, by the names of options.
        teach: The label to teach.
        examples: The examples of it.
    """
    if queries["VIDEO"] is not None and queries["--like"] is not None:
        raise typer.BadParameter("a VIDEO and --like ID exclude each other: name one example")
    if teach is None and all(query is None for query in queries.values()):
        raise typer.BadParameter(
            "name what to search for: a VIDEO, --like ID, --text WORDS, --label NAME, or several of them (or --teach NAME)"
        )
    if (teach is None) != (not examples):
        raise typer.BadParameter("--teach NAME needs examples in --yes and --no, and they need --teach NAME")


def teach_label(there: Index, name: str, yes: list[str], no: list[str]) -> None:
    """Teach a label from these example ids, and say how many examples it was taught from."""
    taught = there.teach(name, yes, no)
    gone = f", {taught.num_gone} earlier examples are no longer in the index" if taught.num_gone else ""
    tell(f"{name!r} taught from {len(taught.yes)} that show it and {len(taught.no)} that do not{gone}")


def show(found: tuple[Hit, ...], form: Literal["json", "csv", "table"]) -> None:
    """Print the moments that were found on standard output."""
    if form == "json":
        for hit in found:
            typer.echo(json_line(hit.to_dict()))
    elif form == "csv":
        from fewframes.search.table import Hit

        own = [column.name for column in fields(Hit) if column.name != "parts"]
        parts = [name for part in (found[0].parts if found else ()) for name in (part.part, f"{part.part}_rank")]
        writer = csv.DictWriter(sys.stdout, [*own, *parts], lineterminator="\n")
        writer.writeheader()
        for hit in found:
            cells = {name: cell for name, cell in hit.to_dict().items() if name in own}
            for part in hit.parts:
                cells |= {part.part: round(part.similarity, 4), f"{part.part}_rank": part.rank}
            writer.writerow({name: for_csv(cell) for name, cell in cells.items()})
    else:
        from fewframes.inference.detection.spans import clock

        full = "█" if speaks_unicode() else "#"
        print_lines(
            [
                f"{number:>4}  {hit.similarity:6.3f} {full * round(10 * max(0.0, hit.similarity)):<10}  {clock(hit.start_s):>8} - "
                f"{clock(hit.end_s):<8} {hit.label} {hit.score:.0%}  {hit.source}  [{hit.id}]" + _parts_in(hit)
                for number, hit in enumerate(found, 1)
            ]
            or ["nothing found"]
        )


def _parts_in(hit: Hit) -> str:
    """Return how well a moment fits each part of a search for several things."""
    parts = ", ".join(f"{part.part} {part.similarity:.3f} (#{part.rank})" for part in hit.parts)
    return f"  {parts}" if parts else ""


def write_page(found: tuple[Hit, ...], title: str, page: Path, again: str) -> None:
    """Write the page of results. Its frames are read from the videos again; a video that cannot be read is shown without.

    `again` is the command that searches this index and writes this page, for its box of words; empty if it knows no words.
    """
    from fewframes.inference.detection.spans import Span
    from fewframes.search.page import search_page
    from fewframes.viz.thumbnails import jpeg, middle_frames

    pictures: dict[str, bytes] = {}
    for source in dict.fromkeys(hit.source for hit in found):
        own = [hit for hit in found if hit.source == source]
        spans = [Span(hit.start_s, hit.end_s, hit.label) for hit in own]
        try:
            for hit, frame_CHW in zip(own, middle_frames(source, spans), strict=True):
                pictures[hit.id] = jpeg(frame_CHW)
        except VideoError as error:
            tell(f"no picture: {error}")
    write_file(page, search_page(title, found, pictures, again))
    tell(f"open {page} to see and play the moments")


def _ids(text: str, found: tuple[Hit, ...]) -> list[str]:
    """Return the ids in a text such as `1,4,3f2a-12`, in which a number stands for the result of that rank.

    Raises ConfigError for a number that is above the number of results.
    """
    ids = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if not part.isdecimal():
            ids.append(part)
        elif 1 <= int(part) <= len(found):
            ids.append(found[int(part) - 1].id)
        else:
            raise ConfigError(
                f"{part}: no such result, this search has {len(found)}; use the numbers of the same search without --teach"
            )
    return ids
