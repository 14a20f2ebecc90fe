"""The options that several commands share, and checks of what they are given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fewframes.cli.console import tell
from fewframes.data.config import DataConfig
from fewframes.errors import ConfigError, FewframesError

if TYPE_CHECKING:
    from fewframes.core.cache import EmbeddingCache
    from fewframes.inference.unknowns import UnknownChoice

# The boxes of `--help`. An option without one would stand in a box of its own above all others.
INPUT = "Input"
MODEL = "Model"
OUTPUT = "Output"
SPEED = "Speed and machine"
LARGE_RUNS = "Large runs"
ACCESS, LIMITS = "Access", "Limits"

DATA = DataConfig()
"""The settings of labelled data as they are if no option changes them."""


def setting(
    defaults: Any,
    name: str,
    panel: str,
    words: str,
    *flags: str,
    shown: str | bool | None = None,
    most: float | None = None,
) -> Any:
    """Return the option for a setting, with the limits of the setting. If None is its own default, the setting keeps its value.

    Args:
        defaults: The settings (a pydantic dataclass) as they are by default.
        name: The name of the field.
        panel: The box of `--help`.
        words: The help text.
        flags: The names of the option; by default that of the parameter.
        shown: The default in the words of `--help`; True if the parameter itself has a default, which is then shown. If it is left
            out, the value of the setting is shown, unless it is empty or False.
        most: The largest value, where the option takes less than the setting does.
    """
    limits = type(defaults).__pydantic_fields__[name].metadata
    value = getattr(defaults, name)
    if shown is None and value is not False and value != "":
        shown = name if value is True else str(value)
    return typer.Option(
        *flags,
        min=next((limit.ge for limit in limits if hasattr(limit, "ge")), None),
        max=next((limit.le for limit in limits if hasattr(limit, "le")), most),
        help=words,
        show_default=shown or False,
        rich_help_panel=panel,
    )


SourcesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Videos, folders, globs or URLs. A .txt file lists them, one per line; - reads such a list from standard input.",
    ),
]
VideosArgument = Annotated[list[str], typer.Argument(metavar="VIDEO...", help="Videos, folders, globs or URLs.")]
FramesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Frames to look at in each video. Fewer are faster, and usually less accurate.",
        show_default="the model's own",
        rich_help_panel=INPUT,
    ),
]
StartOption = Annotated[float, typer.Option(min=0, help="Skip what comes before this second.", rich_help_panel=INPUT)]
EndOption = Annotated[
    float | None,
    typer.Option(
        min=0, help="Skip what comes after this second.", show_default="the end of the video", rich_help_panel=INPUT
    ),
]
ModelOption = Annotated[
    str,
    typer.Option(
        help="The model: a preset (see `fewframes models`), or a file or folder written by `fewframes train`. For comparison: a "
        "video classifier of transformers, hf:FOLDER or hf:OWNER/NAME, or a system of `fewframes bench --list` with its weights, "
        "baseline:NAME=FILE (docs/guide/others.md).",
        rich_help_panel=MODEL,
    ),
]
ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="The model: a preset (see `fewframes models`), or a file or folder written by `fewframes train`. Several models with "
        "one frame encoder answer in one pass: give the option several times, or a folder of models. For comparison: a video "
        "classifier of transformers, hf:FOLDER or hf:OWNER/NAME, or a system of `fewframes bench --list` with its weights, "
        "baseline:NAME=FILE (docs/guide/others.md).",
        show_default="lite0-16",
        rich_help_panel=MODEL,
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, help="Videos decoded at the same time.", show_default="one per core", rich_help_panel=SPEED),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        help="Where to compute: auto, cpu, cuda, cuda:1 or mps. auto takes a GPU if there is one.",
        rich_help_panel=SPEED,
    ),
]
DtypeOption = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(
        help="Precision of the network. auto takes bfloat16 on hardware that is fast in it, else float32.",
        rich_help_panel=SPEED,
    ),
]
MaxMbOption = Annotated[float, typer.Option(min=0.001, help="Largest video, in megabytes.", rich_help_panel=LIMITS)]
MaxSecondsOption = Annotated[float, typer.Option(min=0.001, help="Longest video, in seconds.", rich_help_panel=LIMITS)]
MaxMegapixelsOption = Annotated[
    float,
    typer.Option(min=0.001, help="Largest frame, in millions of pixels (4K has 8.3).", rich_help_panel=LIMITS),
]
VideosAtOnceOption = Annotated[
    int | None,
    typer.Option(min=1, help="Videos worked on at the same time.", show_default="two per core", rich_help_panel=SPEED),
]
RuntimeOption = Annotated[
    Literal["auto", "torch", "onnxruntime"],
    typer.Option(
        "--runtime",
        help="Library that computes. auto takes the faster one on this machine (`fewframes doctor` says which and why).",
        rich_help_panel=SPEED,
    ),
]
EarlyExitOption = Annotated[
    str | None,
    typer.Option(
        metavar="auto|0-1",
        help="Save time on easy videos: stop looking at one once the answer is this confident. auto takes the threshold "
        "that `train --early-exit` fitted for the model.",
        show_default=False,
        rich_help_panel=SPEED,
    ),
]
UnknownOption = Annotated[
    str,
    typer.Option(
        "--unknown",
        metavar="auto|off|0-1",
        help="Answer unknown where a video seems to show none of the actions. auto keeps 95 % of the videos of the model's "
        "actions, a number such as 0.9 keeps that fraction of them, off always names an action.",
        rich_help_panel=MODEL,
    ),
]
BackendOption = Annotated[
    Literal["auto", "pyav", "torchcodec"],
    typer.Option(
        help="Video decoder. auto takes torchcodec where the GPU can decode with it, else pyav.", rich_help_panel=SPEED
    ),
]
MergeOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Make a ViT faster: merge this many similar patches in each block. It may cost accuracy.",
        show_default="the model's own, 0 unless trained otherwise",
        rich_help_panel=SPEED,
    ),
]
STILL_HELP = (
    "For still cameras: reuse the last computed frame's embedding where nothing became brighter or darker since then by more than "
    "this, in levels of 255 (means of 14 x 14 cells of the picture). 0 is exact: the same pixels only."
)
StillOption = Annotated[
    float,
    typer.Option(
        "--still",
        metavar="0-255",
        help=STILL_HELP,
        rich_help_panel=SPEED,
    ),
]
IndexStillOption = Annotated[
    float | None,
    typer.Option(
        "--still", metavar="0-255", help=STILL_HELP, show_default="the index's own, else 0", rich_help_panel=SPEED
    ),
]
ToleranceOption = Annotated[
    float,
    typer.Option(
        min=0,
        max=0.5,
        help="Decode long videos faster: each frame may be taken earlier or later by up to this fraction of the interval "
        "between frames.",
        rich_help_panel=SPEED,
    ),
]
BudgetMsOption = Annotated[
    float | None,
    typer.Option(
        "--budget-ms",
        help="Answer each video in about so many milliseconds: look at as many frames as fit. The output says how many, and by how "
        "much it is over if even the fewest take longer.",
        show_default="no limit",
        rich_help_panel=SPEED,
    ),
]
BudgetKbOption = Annotated[
    float | None,
    typer.Option(
        "--budget-kb",
        help="Read about so many thousand bytes of each video, for files behind a URL, which are fetched in blocks of 131 kB. With "
        "--budget-ms both hold.",
        show_default="no limit",
        rich_help_panel=SPEED,
    ),
]
DataArgument = Annotated[
    str, typer.Argument(metavar="FOLDER|LIST", help="Labelled videos: a folder or a list, as for `fewframes train`.")
]
TASK_HELP = "One action per video, or any number of them (multilabel, in one cell of the list, separated by ;)."
VIDEOS_HELP = "Folder of the videos, if the paths are not relative to the list."
OFFICIAL_HELP = "Number of the official split (UCF101, HMDB51)."
Tasks = Literal["auto", "single", "multilabel"]
TaskOption = Annotated[Tasks, setting(DATA, "task", INPUT, TASK_HELP, shown=True)]
GroupOption = Annotated[
    str,
    setting(
        DATA,
        "group",
        INPUT,
        "CSV column that names the recording or person. Videos of one group stay on one side of a split.",
        shown=True,
    ),
]
SCENES_HELP = (
    "Where the data name no groups: auto finds clips of one scene, which stay together; off makes each its own group."
)
ScenesOption = Annotated[Literal["auto", "off"], setting(DATA, "scenes", INPUT, SCENES_HELP, shown=True)]
VideosOption = Annotated[str, setting(DATA, "videos", INPUT, VIDEOS_HELP, "--videos", shown=True)]
OfficialOption = Annotated[int, setting(DATA, "official_split", INPUT, OFFICIAL_HELP, shown=True)]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder of cached frame embeddings. Videos encoded once are not encoded again.",
        show_default="the user's cache",
        rich_help_panel=SPEED,
    ),
]
NoCacheOption = Annotated[
    bool,
    typer.Option("--no-cache", help="Neither read nor write cached frame embeddings.", rich_help_panel=SPEED),
]
IndexOption = Annotated[
    str,
    typer.Option(
        "--index",
        metavar="FOLDER|URL",
        help="The index: a folder or URL such as moments or s3://bucket/moments.",
        rich_help_panel=INPUT,
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print JSON, one object per line, for programs.", rich_help_panel=OUTPUT),
]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV, for spreadsheets.", rich_help_panel=OUTPUT)]


def named_videos(sources: list[str]) -> list[str]:
    """Return every video that the sources stand for, in their order. Raises FewframesError if there is none."""
    from fewframes.cli.sources import expand  # late: it loads torch, and --help must be fast

    named = list(expand(sources, note=tell))
    if not named:
        raise FewframesError("no videos were named; pass files, folders, globs, URLs or a list of them")
    num_distinct = len({os.path.normpath(path) if os.path.exists(path) else path for path in named})
    if num_distinct < len(named):  # repeats are kept: each is answered, as it was asked for
        tell(f"{len(named) - num_distinct} of {len(named)} videos are repeats")
    return named


def embedding_cache(folder: Path | None, *, unused: bool) -> EmbeddingCache | None:
    """Return the cache of frame embeddings in `folder`, by default the user's own; None if it is to be `unused`."""
    from fewframes.core.cache import EmbeddingCache  # late: it loads torch
    from fewframes.core.settings import cache_dir

    return None if unused else EmbeddingCache(folder or cache_dir() / "embeddings")


def frame_counts(text: str, option: str) -> tuple[int, ...]:
    """Return the numbers in a text such as `4,8,16`. Raises BadParameter, which names `option`, for anything else."""
    try:
        counts = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        counts = (0,)
    if any(count < 1 for count in counts):
        raise typer.BadParameter(f"{option} {text!r}: needs whole numbers separated by commas, such as 4,8,16")
    return counts


def exit_at(text: str | None) -> bool | float:
    """Return the value of `--early-exit` as `Predictor.predict` takes it.

    None becomes False, `auto` becomes True, and a number is the confidence at which to stop. Raises BadParameter for
    anything else.
    """
    if text is None or text == "auto":
        return text is not None
    try:
        threshold = float(text)
    except ValueError:
        threshold = -1.0
    if not 0 < threshold <= 1:
        raise typer.BadParameter(f"--early-exit {text!r}: needs auto, or a confidence above 0 and up to 1, such as 0.9")
    return threshold


def unknown_of(text: str) -> UnknownChoice:
    """Return the value of `--unknown` as `fewframes.load` takes it. Raises BadParameter for anything else."""
    match text:
        case "auto" | "off":
            return text
    try:
        kept = float(text)
    except ValueError:
        kept = -1.0
    if not 0 < kept < 1:
        raise typer.BadParameter(
            f"--unknown {text!r}: needs auto, off, or the fraction of known videos to keep, between 0 and 1, such as 0.9"
        )
    return kept


def make_folder(folder: Path) -> None:
    """Make a folder, so that one that cannot be written to is known before minutes of work. Raises ConfigError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: not a folder that can be written to ({error.strerror}); take another") from None
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"{folder}: not a folder that can be written to (no permission); take another")


def check_writable(path: Path, option: str) -> None:
    """Check that a file can be written, before minutes of work rather than after.

    Makes the file's folder. Raises ConfigError, which names `option`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        was_there = path.exists()
        with path.open("ab"):
            pass
        if not was_there:
            path.unlink()
    except OSError as error:
        raise ConfigError(f"{option} {path}: cannot be written ({error.strerror or error}); take another") from None
