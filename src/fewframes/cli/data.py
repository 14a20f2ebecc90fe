"""`fewframes data`: check labelled videos before training goes into them, and split them. A part of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fewframes.cli.console import StageProgress, print_inspection, print_parts, tell, tell_data, tell_problems
from fewframes.cli.options import DataArgument, GroupOption, OfficialOption, TaskOption, VideosOption, make_folder
from fewframes.core.files import write_file
from fewframes.errors import EXIT_SOME_FAILED, ConfigError, DataError

if TYPE_CHECKING:  # the command line must not load torch before a command needs it
    from fewframes.data.check import Inspection
    from fewframes.data.dataset import VideoSet

REPORT_FILE, CLEAN_FILE = "report.json", "clean.csv"

data_app = typer.Typer(help="Check labelled videos before training, and split them.", no_args_is_help=True)


@data_app.command()
def check(
    data: DataArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for report.json and clean.csv.")],
    thorough: Annotated[bool, typer.Option("--thorough", help="Decode every frame, not only those looked at.")] = False,
    frames: Annotated[int, typer.Option(min=1, help="Frames of each video that your model looks at.")] = 16,
    min_seconds: Annotated[float, typer.Option(min=0, help="Shorter videos are too short.")] = 0.0,
    drop_short: Annotated[bool, typer.Option("--drop-short", help="Leave too short videos out of clean.csv.")] = False,
    task: TaskOption = "auto",
    group: GroupOption = "group",
    folder: VideosOption = "",
    official_split: OfficialOption = 1,
    workers: Annotated[int | None, typer.Option(min=1, help="Files decoded at a time; default: one a core.")] = None,
) -> None:
    """Find what is missing, broken, too short, there twice, or on both sides of the split, before hours go into it.

    Writes report.json (every problem) and clean.csv (a list of what is usable, for `train`). Exit codes: 0 nothing wrong, 1
    the data cannot be read at all, 2 wrong use, 3 problems were found.
    """
    from fewframes.data.check import inspect

    videos = read(data, task, group, folder, official_split)
    make_folder(output)
    with StageProgress() as progress:
        for result in inspect(
            videos, num_frames=frames, min_s=min_seconds, thorough=thorough, drop_short=drop_short, workers=workers
        ):
            if isinstance(result, int):
                progress.show("looking", result, len(videos.samples))
    assert not isinstance(result, int)
    report(result, output)
    if result.problems:
        raise typer.Exit(EXIT_SOME_FAILED)


@data_app.command()
def split(
    data: DataArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The list to write; of folds LIST.fold0.csv and so on.")
    ],
    share: Annotated[
        float | None, typer.Option(min=0, max=0.9, help="Share of each action's videos for test.", show_default="0.2")
    ] = None,
    val: Annotated[float, typer.Option(min=0, max=0.9, help="Share for val.")] = 0.0,
    num_folds: Annotated[
        int | None, typer.Option("--folds", min=2, help="Instead of a share: each video is test in one of these folds.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another split.")] = 0,
    no_content: Annotated[
        bool, typer.Option("--no-content", help="Do not compare contents: equal files may be parted.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Split anew what is split already.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the list where it is there already.")] = False,
    task: TaskOption = "auto",
    group: GroupOption = "group",
    folder: VideosOption = "",
    official_split: OfficialOption = 1,
) -> None:
    """Split videos into train, val and test, or into folds: the same share of each action, whole groups, equal files together.

    Exit codes: 0 done, 1 the data cannot be split so, 2 wrong use.
    """
    if num_folds is not None and share is not None:
        raise typer.BadParameter("--folds and --share exclude each other: with folds each video is test once")
    test_share = 1 / num_folds if num_folds else 0.2 if share is None else share
    if not 0 < test_share + val <= 0.95:
        raise typer.BadParameter(
            f"test {test_share:g} and val {val:g}: together above 0 and up to 0.95, to leave training"
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

    videos = read(data, task, group, folder, official_split)
    named = sorted({sample.split for sample in videos.samples} - {""})
    if named and not again:
        raise DataError(f"{data}: is split already ({', '.join(named)}); --again splits it anew")
    contents = {} if no_content else compare(videos)
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
            tell(f"no test videos of {', '.join(untested)}: its groups are too few or too large; another seed may do")
        tell(f"{path}: {len(part.samples)} videos; {next_step(path, part)}")


def read(data: str, task: Literal["auto", "single", "multilabel"], group: str, folder: str, official: int) -> VideoSet:
    """The labelled videos, and a word on how they were understood."""
    from fewframes.data.dataset import DataConfig, read_data

    videos = read_data(data, DataConfig(task=task, group=group, videos=folder, official_split=official))
    tell_data(data, videos)
    return videos


def report(inspection: Inspection, output: Path) -> None:
    """Write what was found, and tell it. Raises DataError where nothing is usable."""
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
    tell(
        f"{values['readable']} readable, {values['failed']} failed, {values['missing']} missing; {output / REPORT_FILE}"
    )
    if not usable.samples:
        where = "; --videos names their folder" if values["missing"] == len(inspection.data.samples) else ""
        raise DataError(f"{inspection.data.name}: none of {len(inspection.data.samples)} videos is usable{where}")
    tell(
        f"{clean}: {len(usable.samples)} usable videos, fingerprint {usable.fingerprint()}; {next_step(clean, usable)}"
    )


def compare(videos: VideoSet) -> dict[str, str]:
    """The content key of each file, by path."""
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
            f"{num_files - len(result)} of {num_files} files could not be read and stand for themselves; see `data check`"
        )
    if num_files > len(set(result.values())) + num_files - len(result):
        tell(f"{len(result) - len(set(result.values()))} files are copies of others and stay with them")
    return result


def next_step(path: Path, videos: VideoSet) -> str:
    """How to train on a list."""
    return f"train on it: fewframes train {path}{' --task multilabel' if videos.multilabel else ''} --output MODEL"
