"""`fewframes teach`: make labels part of a model at once, by a few examples of each."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fewframes.cli.console import StageProgress, print_lines, tell
from fewframes.cli.help import Command
from fewframes.cli.options import (
    MODEL,
    OUTPUT,
    CacheOption,
    DeviceOption,
    DtypeOption,
    NoCacheOption,
    embedding_cache,
)
from fewframes.cli.words import LABELS_HELP, EncoderOption, with_words
from fewframes.errors import ConfigError

if TYPE_CHECKING:
    from fewframes.training.teaching.teach import TeachResult

EXAMPLES, CORRECTIONS = "Examples", "Corrections"
GREEDY = ("--yes", "--no", "--forget", "--remove", "--rename")
"""The options that take all words up to the next option."""
ORDER = "fewframes.teach"
"""The key under which the context of the command keeps labels and clips in the order in which they were given."""
TEXT_LIST = list[str] | None


class TeachCommand(Command):
    """A command whose options take several words, as in `--label doors --yes a.mp4 b.mp4 --no c.mp4`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat such an option for each of its words, and keep which label stands before which clips."""
        words, order = _single_words(args)
        ctx.meta[ORDER] = order
        return super().parse_args(ctx, words)


COMMAND = TeachCommand


def teach(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Folder of the model: of `fewframes train --head solved` or of `fewframes teach`. One that does not exist is "
            "made: a new model.",
        ),
    ],
    *,
    label: Annotated[
        TEXT_LIST,
        typer.Option(
            "--label",
            help="Name of what the clips after it show. May be given several times.",
            rich_help_panel=EXAMPLES,
        ),
    ] = None,
    yes: Annotated[
        TEXT_LIST,
        typer.Option(
            "--yes",
            metavar="CLIP...",
            help="Clips that show the label: videos, folders, or spans of a video in seconds, such as film.mp4@12.0-15.5. A clip "
            "that had another label gets this one.",
            rich_help_panel=EXAMPLES,
        ),
    ] = None,
    no: Annotated[
        TEXT_LIST,
        typer.Option(
            "--no",
            metavar="CLIP...",
            help="Clips that do not show the label. If a video has one action, they are examples of none: background.",
            rich_help_panel=EXAMPLES,
        ),
    ] = None,
    events: Annotated[
        Path | None,
        typer.Option(
            "--events",
            metavar="FOLDER",
            help="Learn from all events of `stream --clips FOLDER` that were marked on its page: right, wrong, or another action. "
            "Given again, it adds nothing twice, and a changed mark corrects its example.",
            rich_help_panel=EXAMPLES,
        ),
    ] = None,
    group: Annotated[
        str,
        typer.Option(
            "--group",
            help="Name of the recording or person that the new clips are of. Clips of one group are left out together when the "
            "model is measured.",
            show_default="each video by itself",
            rich_help_panel=EXAMPLES,
        ),
    ] = "",
    forget: Annotated[
        TEXT_LIST,
        typer.Option(
            "--forget", metavar="CLIP...", help="Clips that are examples no longer.", rich_help_panel=CORRECTIONS
        ),
    ] = None,
    remove: Annotated[
        TEXT_LIST,
        typer.Option(
            "--remove",
            metavar="LABEL...",
            help="Labels to remove, with all their examples.",
            rich_help_panel=CORRECTIONS,
        ),
    ] = None,
    rename: Annotated[
        TEXT_LIST,
        typer.Option(
            "--rename",
            metavar="OLD=NEW...",
            help="Other names for labels. The name of an existing label merges the two.",
            rich_help_panel=CORRECTIONS,
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="For a new model: the preset or model whose frame encoder it takes over.",
            show_default="lite0-16",
            rich_help_panel=MODEL,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            metavar="TEXT|FILE",
            help=f"For a new model: start from labels in words, of which as much is taken as does best. {LABELS_HELP}",
            show_default=False,
            rich_help_panel=MODEL,
        ),
    ] = None,
    encoder: EncoderOption = None,
    task: Annotated[
        Literal["single", "multilabel"] | None,
        typer.Option(
            "--task",
            help="For a new model: one action per video, or any number of them (multilabel).",
            show_default="single",
            rich_help_panel=MODEL,
        ),
    ] = None,
    mirror: Annotated[
        bool | None,
        typer.Option(
            "--mirror/--no-mirror",
            help="For a new model: learn from mirrored clips too. Not for actions that differ in left and right.",
            show_default="mirror",
            rich_help_panel=MODEL,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for the taught model.", show_default="MODEL itself", rich_help_panel=OUTPUT
        ),
    ] = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """Make labels part of a model at once, by a few examples of each.

    fewframes teach doors --label "door slams" --yes a.mp4 film.mp4@12.0-15.5 --no film.mp4@30-40
    fewframes teach doors --events events
    fewframes teach doors --labels "door slams; door opens" --label "door slams" --yes a.mp4 --label "door opens" --yes b.mp4

    Examples are added, corrected, renamed or taken back, and everything is solved again in about a second: scores, thresholds, and
    the judge of videos that show none of the labels. The model can be used in the same second. Either all changes are made or none.

    Writes model.safetensors, teaching.safetensors (to teach further), examples.csv (for `fewframes train`), metrics.json and
    run.toml.

    Exit codes: 0 done, 1 a clip or the model cannot be used, 2 wrong use.
    """
    from fewframes.cli.sources import expand
    from fewframes.training.teaching.changes import TeachChanges, clip_of
    from fewframes.training.teaching.marked import MarkedEvents, read_marked
    from fewframes.training.teaching.teach import TeachOptions
    from fewframes.training.teaching.teach import teach as teach_model

    examples = _by_label(ctx.meta[ORDER], label or [], yes or [], no or [])
    marked = MarkedEvents((), (), ()) if events is None else read_marked(events)
    for note in marked.notes:
        tell(note)
    changes = TeachChanges(
        marked=marked.samples,
        taken_back=marked.taken_back,
        **{
            kind: {name: [clip_of(clip, group) for clip in expand(clips, note=tell)] for name, clips in found.items()}
            for kind, found in examples.items()
        },
        forget=list(expand(forget or [], note=tell)),
        remove=remove or [],
        rename=dict(_renamed(rename or [])),
    )
    _check_new_only(Path(model), {"--model": start, "--labels": labels, "--task": task, "--mirror": mirror})
    if labels is not None and task == "multilabel":
        raise ConfigError("--labels is for one action per video: words say which label fits best, not which are there")
    started = with_words(None if start is None else [start], labels, encoder)
    start = None if started is None else started[0]
    chosen = {"start": start, "task": task, "mirror": mirror}
    options = TeachOptions(
        output=output,
        cache=embedding_cache(cache, unused=no_cache),
        device=device,
        dtype=dtype,
        command=shlex.join(["fewframes", *sys.argv[1:]]),
        **{name: value for name, value in chosen.items() if value is not None},  # type: ignore[arg-type]
    )
    with StageProgress() as progress:
        result = teach_model(model, changes, options, progress.show)
    _tell(result)


def _tell(result: TeachResult) -> None:
    """Tell what the model knows now, how good it is, and how long it took."""
    first, *others = result.read_out.report.lines()
    print_lines([f"examples that were left out: {first}", *others])
    for note in result.notes:
        tell(note)
    tell(str(result.read_out.calibration))
    if not result.has_judge:
        tell("videos that show none of the labels cannot be told yet: that takes a label with clips of two videos")
    counts = ", ".join(f"{label} {count}" for label, count in result.examples.items())
    new = f"{result.num_new} new, embedded in {result.embedding_s:.2f} s; " if result.num_new else ""
    judged = f", and the judge of unknown videos {result.judging_s:.1f} s later" if result.judging_s else ""
    tell(f"examples: {counts} ({new}the model was ready {result.usable_s:.2f} s after that{judged})")
    tell(f"use it: fewframes predict VIDEO --model {shlex.quote(str(result.folder))}")


def _single_words(args: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the words with each of `GREEDY` repeated for each of its values, and labels and clips in their order."""
    words: list[str] = []
    order: list[tuple[str, str]] = []
    option = ""
    for word in args:
        name, equals, value = word.partition("=")
        if word in (*GREEDY, "--label"):
            option = word
        elif equals and name in (*GREEDY, "--label"):
            words += [name, value]
            order.append((name, value))
            option = name if name in GREEDY else ""
        elif option and not word.startswith("-"):
            words += [option, word]
            order.append((option, word))
            option = option if option in GREEDY else ""
        else:
            words += [option, word] if option == "--label" else [word]
            option = ""
    if option == "--label":
        words.append(option)  # without a value, which click says
    return words, order


def _by_label(
    order: Sequence[tuple[str, str]], labels: Sequence[str], yes: Sequence[str], no: Sequence[str]
) -> dict[str, dict[str, list[str]]]:
    """Return the clips of `yes` and `no` by their labels. Raises ConfigError for clips that belong to none.

    A single label may stand anywhere. Of several, each belongs to the clips after it.
    """
    found: dict[str, dict[str, list[str]]] = {"yes": {}, "no": {}}
    if len(set(labels)) == 1:
        found["yes"] = {labels[0]: list(yes)} if yes else {}
        found["no"] = {labels[0]: list(no)} if no else {}
    else:
        current = ""
        for option, word in order:
            if option == "--label":
                current = word
            elif option in ("--yes", "--no"):
                if option == "--yes" and not current:
                    raise ConfigError(f"--yes {word}: which label does it show? put --label NAME before it")
                found[option.removeprefix("--")].setdefault(current, []).append(word)
    for name in labels:
        if not any(name in clips for clips in found.values()):
            raise ConfigError(f"--label {name!r}: no clips belong to it; give some after it with --yes or --no")
    return found


def _renamed(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the old and the new name of each label. Raises ConfigError for a word without both."""
    for word in words:
        old, _, new = word.partition("=")
        if not old.strip() or not new.strip():
            raise ConfigError(f"--rename {word!r}: needs OLD=NEW, such as 'slam=door slams'")
        yield old, new


def _check_new_only(folder: Path, options: dict[str, object]) -> None:
    """Raise ConfigError if options of a new model are given for one that exists."""
    given = [name for name, value in options.items() if value is not None]
    if given and folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise ConfigError(
            f"{', '.join(given)}: is for a new model, and {folder} exists; leave it out, or name a new folder"
        )
