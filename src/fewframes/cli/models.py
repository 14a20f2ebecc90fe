"""`fewframes models`: list the models, and fetch published weights."""

from __future__ import annotations

from typing import Annotated

import typer

from fewframes.cli.console import console, tell
from fewframes.cli.help import SETTINGS, Command, Commands

app = typer.Typer(cls=Commands, invoke_without_command=True, add_completion=False, **SETTINGS)


@app.callback()
def models(context: typer.Context) -> None:
    """List the models with their size, cost, input, weights and licence; fetch published weights."""
    if context.invoked_subcommand is not None:
        return
    from rich.table import Table

    from fewframes.models.presets import PRESETS

    table = Table(
        "name",
        "parameters",
        "billion multiply-adds",
        "frames",
        "weights",
        "licence",
        "of the paper",
        box=None,
        pad_edge=False,
    )
    for column in table.columns[:5]:
        column.no_wrap = True
    for column in table.columns[1:3]:
        column.justify = "right"
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
    console().print(table)
    tell(
        "Multiply-adds are for one video. The paper counts them without the products of attention, so its figures are a little "
        "lower; docs/explanation/paper.md compares them."
    )
    tell(
        "lite0-16: the code and the image encoder are Apache-2.0, but the videos that it learned its actions from state no terms "
        "(docs/models/lite0-16.md). `fewframes train --model lite0-16` keeps the image encoder alone, and none of these actions."
    )


@app.command(cls=Command)
def pull(
    name: Annotated[str, typer.Argument(help="Weights to fetch: stam-8, stam-16, stam-32 or stam-64.")],
    file: Annotated[str | None, typer.Option(help="Use this file instead of downloading one.")] = None,
) -> None:
    """Fetch the weights that the paper's authors published, check that they load, and store them for `--model`."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    from fewframes.models.files.hub import pull as pull_weights

    with Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console(stderr=True)) as progress:
        task = progress.add_task(name, total=None)
        path = pull_weights(
            name, file=file, progress=lambda done, total: progress.update(task, completed=done, total=total or None)
        )
    tell(f"{name}: checked, and stored as {path}")
