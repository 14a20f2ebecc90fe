"""`fewframes models`: list the models, and fetch published weights."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from fewframes.cli.console import console, tell
from fewframes.cli.help import SETTINGS, Command, Commands
from fewframes.core.text import count_of
from fewframes.errors import ConfigError, MissingDependency

if TYPE_CHECKING:
    from rich.table import Table

    from fewframes.models.sharing.hub import Upload

TABLE_WIDTH = 180
"""The fewest columns that a table has."""

app = typer.Typer(cls=Commands, invoke_without_command=True, add_completion=False, **SETTINGS)


@app.callback()
def models(
    context: typer.Context,
    encoders: Annotated[
        bool, typer.Option("--encoders", help="List frame encoders of timm and open_clip instead.")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="With --encoders: measure their speed on this machine. Takes minutes.")
    ] = False,
) -> None:
    """List the models with their size, cost, input, weights and licence; fetch published weights."""
    if context.invoked_subcommand is not None:
        return
    if measure and not encoders:
        raise typer.BadParameter("--measure measures frame encoders; add --encoders")
    if encoders:
        _list_encoders(measure=measure)
        return
    from fewframes.models.presets import PRESETS

    table = _table(
        "name",
        "parameters",
        "billion multiply-adds",
        "frames",
        "weights",
        "licence",
        "of the paper",
    )
    for name, preset in PRESETS.items():
        weights = {
            "packaged": "in this package",
            "released": f"fewframes models pull {name}",
            "": f"start: {preset.init}",
        }
        table.add_row(
            name,
            f"{preset.num_parameters / 1e6:.1f} M",
            f"{preset.gmacs + preset.attention_gmacs:.1f}",
            f"{preset.model.num_frames} x {preset.model.image_size} px",
            weights[preset.weights],
            preset.licence,
            preset.paper,
        )
    _print(table)
    tell(
        "Multiply-adds are for one video. The paper counts them without the products of attention, so its figures are a little "
        "lower; docs/explanation/paper.md compares them."
    )
    tell(
        "lite0-16: the code and the image encoder are Apache-2.0, but the videos that it learned its actions from state no terms "
        "(docs/models/lite0-16.md). `fewframes train --model lite0-16` keeps the image encoder alone, and none of these actions."
    )


def _print(table: Table) -> None:
    """Print a table. A terminal that is narrower breaks its lines, so that no name and no licence is cut short."""
    out = console()
    out.width = max(out.width, TABLE_WIDTH)
    out.print(table)


def _table(*columns: str) -> Table:
    """Return an empty table with these columns. Numbers stand in the second and third one."""
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns[:5]:
        column.no_wrap = True
    for column in table.columns[1:3]:
        column.justify = "right"
    return table


def _list_encoders(*, measure: bool) -> None:
    """Print the list of frame encoders, with the speeds that were measured, or with those of this machine."""
    from fewframes.models.encoders.listed import ENCODERS, MACHINE

    table = _table(
        "name",
        "parameters",
        "billion multiply-adds",
        "ms a frame",
        "frames",
        "embedding",
        "licence",
        "for",
    )
    table.columns[3].justify = "right"
    for name, encoder in ENCODERS.items():
        table.add_row(
            name,
            f"{encoder.num_parameters / 1e6:.1f} M",
            f"{encoder.gmacs:.1f}",
            _measured(name) if measure else f"{encoder.ms_per_frame:.0f}",
            f"{encoder.image_px} px",
            str(encoder.width),
            encoder.licence,
            encoder.suits,
        )
    _print(table)
    where = "one thread of this machine, float32" if measure else MACHINE
    tell(
        f"Multiply-adds and milliseconds are for one frame; milliseconds: {where}, random weights"
        + ("." if measure else ". `fewframes models --encoders --measure` measures yours (some minutes).")
    )
    tell(
        "clip: knows words (fewframes predict VIDEO --labels 'PHRASE; PHRASE' --encoder NAME); both kinds are trained (fewframes "
        "train FOLDER --encoder NAME) and searched with (fewframes models pull NAME, then --model NAME). Any other name of "
        "open_clip and timm works too. docs/guide/encoders.md helps to choose."
    )


def _measured(name: str) -> str:
    """Return the milliseconds of a frame on this machine; a reason if the encoder's library is missing."""
    from fewframes.bench.encoders import measure_encoder

    try:
        return f"{measure_encoder(name, rounds=3).median_ms:.0f}"
    except MissingDependency:
        return "no open_clip"


@app.command(cls=Command)
def pull(
    name: Annotated[
        str,
        typer.Argument(
            help="Weights to fetch: stam-8, stam-16, stam-32 or stam-64; a model of the hub, OWNER/NAME or OWNER/NAME@REVISION; "
            "or a frame encoder, timm:NAME or clip:ARCHITECTURE/TAG."
        ),
    ],
    file: Annotated[
        str | None,
        typer.Option(help="Use this file instead of downloading one; for an encoder also a folder of the hub."),
    ] = None,
) -> None:
    """Fetch weights, check that they load, and store them for `--model`, which then works without a network.

    These are the weights that the paper's authors published, models that others pushed to the hub, and frame encoders, which
    embed, index, search, teach and train take as --model.
    HF_ENDPOINT names a mirror of the hub.
    """
    if name.startswith(("timm:", "clip:")):
        _pull_encoder(name, file)
        return
    if "/" in name:
        _pull_model(name, file)
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    from fewframes.models.files.hub import pull as pull_weights

    with Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console(stderr=True)) as progress:
        task = progress.add_task(name, total=None)
        path = pull_weights(
            name, file=file, progress=lambda done, total: progress.update(task, completed=done, total=total or None)
        )
    tell(f"{name}: checked, and stored as {path}")


def _pull_encoder(name: str, file: str | None) -> None:
    """Fetch a frame encoder, or take it from a file."""
    from fewframes.models.encoders.pull import pull_encoder
    from fewframes.models.files.model_file import read_header

    path = pull_encoder(name, file=file)
    header = read_header(path)
    assert header is not None  # it was made here
    tell(f"{name}: checked, and stored as {path}")
    tell(f"licence: {header['licences']['frame encoder']}")
    tell(f"use it: fewframes index VIDEOS --index moments --model {name}, or fewframes train FOLDER --encoder {name}")


def _pull_model(name: str, file: str | None) -> None:
    """Fetch a model of the hub. Raises ConfigError for a file, which is a model as it is."""
    from fewframes.models.sharing.hub import pull_model
    from fewframes.runtime.open import open_runtime

    if file is not None:
        raise ConfigError(f"--file {file} is for presets; give a model file to --model as it is")
    path = pull_model(name, check=open_runtime)
    tell(f"{name}: checked, and stored as {path}; use it: fewframes predict VIDEO --model {name}")


@app.command(cls=Command)
def push(
    model: Annotated[str, typer.Argument(help="The model: a file or folder written by `fewframes train`.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Name of the model on the hub.")],
    private: Annotated[bool, typer.Option("--private", help="Let nobody else see it. Counts when it is new.")] = False,
    licence: Annotated[
        str,
        typer.Option(
            help="Its licence in the hub's words, such as mit or cc-by-4.0.", show_default="what the model file tells"
        ),
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Upload without asking.")] = False,
) -> None:
    """Upload a model with its card, for others to pull.

    Folders and addresses in its record are shortened to their last part first.
    What is uploaded is shown before, and asked for.
    Log in with `hf auth login`, or set HF_TOKEN. HF_ENDPOINT names a mirror of the hub.
    """
    from fewframes.models.sharing.hub import push as push_model

    def confirm(upload: Upload) -> bool:
        tell_upload(upload)
        if yes:
            return True
        if not sys.stdin.isatty():
            raise ConfigError("nobody can be asked here; add --yes to upload without asking")
        return typer.confirm("Upload this?", err=True)

    address = push_model(model, repository, private=private, licence=licence, confirm=confirm)
    tell(f"uploaded: {address}" if address else "nothing was uploaded")


def tell_upload(upload: Upload) -> None:
    """Print what is about to be uploaded: the files, who can see them, and what the model file tells of its training."""
    seen = "private" if upload.private else "everybody can see it"
    there = f"a new repository, {seen}" if upload.is_new else "a new version in the repository that is there"
    tell(f"{upload.repository}: {there}")
    for name, num_bytes in upload.sizes.items():
        tell(f"  {name}, {num_bytes / 1e6:.3g} MB")
    for text in upload.shortened:
        tell(f"  left out of the record: {text}")
    if upload.num_marks:
        tell(f"  in the record: a short digest of each of {count_of(upload.num_marks, 'training video')}")
    if upload.has_examples:
        tell("  in the file: compressed embeddings of training frames, for the judge of unknown videos")
    licence = next((line for line in upload.card.splitlines() if line.startswith("license:")), "")
    tell(f"  {licence}; --licence says another one")
