"""`fewframes data`: check labelled videos before training, split them into parts, and convert files of other tools."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewframes.cli.console import (
    StageProgress,
    print_inspection,
    print_parts,
    tell,
    tell_data,
    tell_problems,
)
from fewframes.cli.help import SETTINGS, Command, Commands
from fewframes.cli.options import (
    DATA,
    INPUT,
    OUTPUT,
    SPEED,
    DataArgument,
    GroupOption,
    OfficialOption,
    ScenesOption,
    TaskOption,
    VideosOption,
    make_folder,
)
from fewframes.core.files import check_not_read, write_file
from fewframes.core.text import count_of
from fewframes.data.config import DataConfig
from fewframes.errors import EXIT_SOME_FAILED, ConfigError, DataError

if TYPE_CHECKING:  # the command line must not load torch before a command needs it
    from fewframes.data.check import Inspection
    from fewframes.data.dataset import VideoSet

REPORT_FILE, CLEAN_FILE = "report.json", "clean.csv"

WRITTEN = ("list", "cvat", "label-studio", "elan", "via", "fiftyone", "activitynet", "kinetics", "ava", "vtt", "srt")
"""The formats of `convert --to`. Their table loads a decoder, and a test compares the two."""
CHECKS, PARTS = "What is checked", "Parts"
app = typer.Typer(
    cls=Commands,
    help="Check labelled videos before training, split them, and convert the files of other tools.",
    no_args_is_help=True,
    add_completion=False,
    **SETTINGS,
)


@app.command(cls=Command)
def check(
    data: DataArgument,
    *,
    task: TaskOption = DATA.task,
    group: GroupOption = DATA.group,
    scenes: ScenesOption = DATA.scenes,
    folder: VideosOption = DATA.videos,
    official_split: OfficialOption = DATA.official_split,
    thorough: Annotated[
        bool,
        typer.Option(
            "--thorough", help="Decode every frame, to find all damage. Takes longer.", rich_help_panel=CHECKS
        ),
    ] = False,
    frames: Annotated[
        int, typer.Option(min=1, help="Frames that your model looks at in each video.", rich_help_panel=CHECKS)
    ] = 16,
    min_seconds: Annotated[
        float, typer.Option(min=0, help="Report videos shorter than this as too short.", rich_help_panel=CHECKS)
    ] = 0.0,
    no_copies: Annotated[
        bool,
        typer.Option(
            "--no-copies",
            help="Do not look for the same footage encoded anew, cut or mirrored. Faster: that decodes all of each video.",
            rich_help_panel=CHECKS,
        ),
    ] = False,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for report.json and clean.csv.", rich_help_panel=OUTPUT),
    ],
    drop_short: Annotated[
        bool,
        typer.Option("--drop-short", help="Leave videos that are too short out of clean.csv.", rich_help_panel=OUTPUT),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Videos decoded at the same time.", show_default="one per core", rich_help_panel=SPEED
        ),
    ] = None,
) -> None:
    """Find videos that are missing, broken, too short, there twice or on both sides of the split, before you train on them.

    Writes report.json (every problem) and clean.csv (a list of the usable videos, for `train`).

    Exit codes: 0 nothing wrong but copies of footage in one part, 1 the data cannot be read at all, 2 wrong use, 3 other problems
    were found.
    """
    from fewframes.data.check import inspect

    videos = read(data, DataConfig(task=task, group=group, videos=folder, official_split=official_split))
    make_folder(output)
    with StageProgress() as progress:
        for result in inspect(
            videos,
            num_frames=frames,
            min_s=min_seconds,
            thorough=thorough,
            drop_short=drop_short,
            scenes=scenes == "auto",
            copies=not no_copies,
            workers=workers,
        ):
            if isinstance(result, int):
                progress.show("looking", result, len(videos.samples))
    assert not isinstance(result, int)
    report(result, output)
    if not result.is_sound:
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command(cls=Command)
def split(
    data: DataArgument,
    *,
    again: Annotated[
        bool, typer.Option("--again", help="Split data anew that are split already.", rich_help_panel=INPUT)
    ] = False,
    task: TaskOption = DATA.task,
    group: GroupOption = DATA.group,
    scenes: ScenesOption = DATA.scenes,
    folder: VideosOption = DATA.videos,
    official_split: OfficialOption = DATA.official_split,
    share: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.9,
            help="Fraction of each action's videos for the test part.",
            show_default="0.2",
            rich_help_panel=PARTS,
        ),
    ] = None,
    val: Annotated[
        float,
        typer.Option(min=0, max=0.9, help="Fraction of each action's videos for the val part.", rich_help_panel=PARTS),
    ] = 0.0,
    num_folds: Annotated[
        int | None,
        typer.Option(
            "--folds",
            min=2,
            help="Write this many lists instead. Each video is in the test part of one of them.",
            rich_help_panel=PARTS,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the split.", rich_help_panel=PARTS)] = 0,
    no_content: Annotated[
        bool,
        typer.Option(
            "--no-content",
            help="Do not compare the contents of files. Faster, but copies of a video may land in different parts.",
            rich_help_panel=PARTS,
        ),
    ] = False,
    no_copies: Annotated[
        bool,
        typer.Option(
            "--no-copies",
            help="Do not look for the same footage encoded anew, cut or mirrored. Faster: that decodes all of each video.",
            rich_help_panel=PARTS,
        ),
    ] = False,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="List to write (.csv). With --folds, NAME.fold0.csv and so on.",
            rich_help_panel=OUTPUT,
        ),
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a list that exists already.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Split videos into train, val and test parts, or into folds.

    Each part gets the same fraction of every action.
    Videos of one group stay together, and so do copies of a file or of footage; where no groups are named, videos of one scene.

    Exit codes: 0 done, 1 the data cannot be split so, 2 wrong use.
    """
    if num_folds is not None and share is not None:
        raise typer.BadParameter(
            "--folds and --share exclude each other: with folds each video is in the test part once"
        )
    test_share = 1 / num_folds if num_folds else 0.2 if share is None else share
    if not 0 < test_share + val <= 0.95:
        raise typer.BadParameter(
            f"test {test_share:g} and val {val:g}: together they must be above 0 and at most 0.95, to leave videos for training"
        )
    if output.suffix.lower() != ".csv":
        raise typer.BadParameter(f"--output {output}: the list is CSV; needs a name that ends in .csv")
    paths = [output.with_suffix(f".fold{number}.csv") for number in range(num_folds)] if num_folds else [output]
    there = [str(path) for path in paths if path.exists()]
    if there and not overwrite:
        raise ConfigError(f"{there[0]}: is there already; take another name, or --overwrite")
    from fewframes.data.dataset import part_counts
    from fewframes.data.lists import write_list
    from fewframes.data.splits import folds
    from fewframes.data.splits import split as split_once

    videos = read(data, DataConfig(task=task, group=group, videos=folder, official_split=official_split))
    named = sorted({sample.split for sample in videos.samples} - {""})
    if named and not again:
        raise DataError(f"{data}: is split already ({', '.join(named)}); --again splits it anew")
    if scenes == "auto":
        videos = by_scenes(videos, test_share)
    contents = {} if no_content else compare(videos)
    if not no_copies:
        contents = join_copies(videos, contents)
    parted = (
        folds(videos, num_folds, val, seed, contents)
        if num_folds
        else [split_once(videos, test_share, val, seed, contents)]
    )
    make_folder(output.parent)
    for path, part in zip(paths, parted, strict=True):
        write_list(part.samples, path, multilabel=part.multilabel)
        print_parts(part)
        if untested := [label for label, counts in part_counts(part).items() if not counts.get("test", 1)]:
            tell(
                f"no test videos of {', '.join(untested)}: its groups are too few or too large; another --seed may help"
            )
        tell(f"{path}: {count_of(len(part.samples), 'video')}; {next_step(path, part)}")


@app.command(cls=Command)
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A list, a folder, an export, or what `timeline --json` printed.")
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="File to write. A folder too for cvat, elan, vtt and srt, which have a file for each video.",
        ),
    ],
    *,
    to: Annotated[str, typer.Option("--to", help=f"Format to write: {', '.join(WRITTEN)}.", rich_help_panel=OUTPUT)],
    of: Annotated[
        str,
        typer.Option(
            "--from", help="Format of IN, if it is not recognised.", show_default="recognised", rich_help_panel=INPUT
        ),
    ] = "",
    task: TaskOption = DATA.task,
    folder: VideosOption = DATA.videos,
    fps: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Frames a second, for formats that count frames.",
            show_default="asked of the videos, then of IN",
            rich_help_panel=INPUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that exist already.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Convert labelled spans between the formats of annotation tools, published lists and subtitles.

    What a format cannot hold is said, and files are read back before they get their names.

    Exit codes: 0 done, 1 the file cannot be read or the labels cannot be written so, 2 wrong use.
    """
    from fewframes.data.exchange.convert import read_spans, write_spans

    if out.is_file() and not overwrite:
        raise ConfigError(f"{out}: is there already; take another name, or --overwrite")
    check_not_read(out, [str(source)])
    found = read_spans(source, of, videos=folder, fps=fps, multilabel=task == "multilabel")
    spans, num_videos = count_of(len(found.spans), "span"), len({span.path for span in found.spans})
    tell(f"{source}: {found.name}; {spans} of {count_of(num_videos, 'video')}")
    for note in found.notes:
        tell(f"  {note}")
    written, notes = write_spans(found.spans, out, to, fps=fps, overwrite=overwrite)
    for note in notes:
        tell(f"  {note}")
    tell(f"{out}: {count_of(len(written), 'file')} written")


def read(data: str, config: DataConfig) -> VideoSet:
    """Return the labelled videos of a folder or a list, and print how they were understood."""
    from fewframes.data.dataset import read_data

    videos = read_data(data, config)
    tell_data(data, videos)
    return videos


def by_scenes(videos: VideoSet, share: float) -> VideoSet:
    """Return the videos with their scenes as groups, if they name no groups, and print what was found.

    Args:
        videos: The labelled videos. A split that they name is replaced, so scenes are looked for as if they had none.
        share: Fraction of each action's videos for the test part.
    """
    from fewframes.data.scenes.groups import with_scenes

    unsplit = replace(videos, notes=(), samples=tuple(replace(sample, split="") for sample in videos.samples))
    with StageProgress() as progress:
        found = with_scenes(unsplit, DataConfig(), share, progress.show)
    for note in found.notes:
        tell(note)
    return found


def report(inspection: Inspection, output: Path) -> None:
    """Write report.json and clean.csv, and print the problems. Raises DataError if no video is usable."""
    import json

    from fewframes.data.lists import write_list

    values = inspection.to_dict()
    clean, usable = output / CLEAN_FILE, inspection.usable
    write_file(output / REPORT_FILE, json.dumps(values, indent=1) + "\n")
    if usable.samples:
        write_list(usable.samples, clean, multilabel=usable.multilabel)
    else:
        clean.unlink(missing_ok=True)
    print_inspection(inspection)
    tell_problems(inspection)
    for line in [*inspection.copy_lines(), *inspection.scene_lines()]:
        tell(line)
    tell(
        f"{values['readable']} readable, {values['failed']} failed, {values['missing']} missing; {output / REPORT_FILE}"
    )
    if not usable.samples:
        where = "; --videos names their folder" if values["missing"] == len(inspection.data.samples) else ""
        raise DataError(
            f"{inspection.data.name}: none of {count_of(len(inspection.data.samples), 'video')} is usable{where}"
        )
    tell(
        f"{clean}: {count_of(len(usable.samples), 'usable video')}, fingerprint {usable.fingerprint()}; {next_step(clean, usable)}"
    )


def compare(videos: VideoSet) -> dict[str, str]:
    """Return a key of the content of each file, by path, and print how many files are copies or cannot be read."""
    from fewframes.data.splits import contents_of

    num_files = len({sample.path for sample in videos.samples})
    with StageProgress() as progress:
        for result in contents_of(videos):
            if isinstance(result, dict):
                break
            progress.show("comparing", result, num_files)
    assert isinstance(result, dict)
    if len(result) < num_files:
        tell(
            f"{num_files - len(result)} of {count_of(num_files, 'file')} could not be read, so copies of them are not "
            "found; see `data check`"
        )
    if num_files > len(set(result.values())) + num_files - len(result):
        num_copies = len(result) - len(set(result.values()))
        tell(f"copies of other files, which stay with them: {num_copies}")
    return result


def join_copies(videos: VideoSet, contents: dict[str, str]) -> dict[str, str]:
    """Return the keys of files with one key for those that show the same footage, and print how many were joined."""
    from fewframes.data.copies.found import lines_on
    from fewframes.data.copies.together import with_copies

    joined: dict[str, str] | None = None
    with StageProgress() as progress:
        for result in with_copies(videos, contents):
            if isinstance(result, int):
                progress.show("copies", result, len({sample.path for sample in videos.samples}))
            else:
                joined = result
    if joined is None:
        tell(*lines_on(None, sought=True))
        return contents
    moved = sum(joined[path] != contents.get(path, path) for path in joined)
    if moved:
        tell(f"files with footage of other files, which stay with them: {moved}")
    return joined


def next_step(path: Path, videos: VideoSet) -> str:
    """Return the command that trains on a list, as the last words of a message."""
    return f"train on it: fewframes train {path}{' --task multilabel' if videos.multilabel else ''} --output MODEL"
