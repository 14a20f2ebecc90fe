"""`fewframes words`: make a model from labels in words; and the options of other commands that make one on the way."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from fewframes.cli.console import tell
from fewframes.cli.options import MODEL, OUTPUT, check_writable
from fewframes.core.text import count_of
from fewframes.errors import needed
from fewframes.models.words.encoders import DEFAULT_ENCODER

LABELS_HELP = (
    "Phrases separated by ;, such as 'a person opens a door; a person closes a door', or a file with one a line. "
    "NAME=PHRASE|PHRASE gives a label a name and several phrasings."
)
ENCODER_HELP = (
    "Image-text encoder: clip:ARCHITECTURE/TAG of open_clip, such as clip:ViT-B-16/openai, whose weights are fetched once; or a "
    "folder with open_clip_config.json and the weights."
)
LabelsOption = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="TEXT|FILE",
        help=f"Name actions in words, without a trained model. {LABELS_HELP} It is blind to the order of frames.",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
EncoderOption = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        metavar="NAME|FOLDER",
        help=f"For --labels. {ENCODER_HELP}",
        show_default=DEFAULT_ENCODER,
        rich_help_panel=MODEL,
    ),
]


def words(
    labels: Annotated[str, typer.Argument(metavar="LABELS", help=f"The labels. {LABELS_HELP}")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE.safetensors", help="File of the model.", rich_help_panel=OUTPUT),
    ],
    *,
    encoder: Annotated[
        str, typer.Option("--encoder", metavar="NAME|FOLDER", help=ENCODER_HELP, rich_help_panel=MODEL)
    ] = DEFAULT_ENCODER,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with the encoder's weights, for a machine without a network.",
            show_default="fetched by the encoder's name",
            rich_help_panel=MODEL,
        ),
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT|FILE",
            help="Phrases for videos that show none of the labels, separated by ;. Such videos are answered unknown. Name what is "
            "likely to be seen where you film.",
            show_default="16 general ones",
            rich_help_panel=MODEL,
        ),
    ] = None,
    frames: Annotated[
        int, typer.Option(min=1, max=4096, help="Frames to look at in each video.", rich_help_panel=MODEL)
    ] = 16,
) -> None:
    """Make a model from labels in words. No video is needed.

    The model works with every command: predict, timeline, stream, serve, index, train and others take it as --model. It compares
    the mean of the frames with each label, so it is blind to their order: opening and closing a door look alike to it. Train from
    it with a few examples of each label where that matters.

    Exit codes: 0 done, 1 the encoder cannot be used, 2 wrong use.
    """
    check_writable(output, "--output")
    _check_packages()
    from fewframes.models.words.files import words_model
    from fewframes.models.words.phrases import BACKGROUND

    began = time.perf_counter()
    words_model(
        labels, output, encoder=encoder, weights=weights, background=background or BACKGROUND, num_frames=frames
    )
    tell_words(output)
    tell(
        f"made in {time.perf_counter() - began:.1f} s; use it: fewframes predict VIDEO --model {shlex.quote(str(output))}"
    )


def with_words(models: list[str] | None, labels: str | None, encoder: str | None) -> list[str] | None:
    """Return the names of `--model`, or that of the model that `--labels` stands for, which is kept in the cache folder.

    Raises BadParameter for options that exclude each other.
    """
    if labels is None:
        if encoder is not None:
            raise typer.BadParameter(f"--encoder {encoder} is for --labels; name some, or leave it out")
        return models
    if models:
        raise typer.BadParameter("--labels and --model exclude each other: labels in words make a model of their own")
    _check_packages()
    from fewframes.models.words.files import kept_words_model

    path = kept_words_model(labels, encoder or DEFAULT_ENCODER)
    tell_words(path)
    return [str(path)]


def _check_packages() -> None:
    """Raise MissingDependency with the pip line of words where torch, which the line brings too, is missing."""
    needed("torch", "words", "labels in words need torch and open_clip")


def tell_words(path: Path) -> None:
    """Tell what a model made from words knows, its licence, and that it is blind to the order of frames."""
    from fewframes.models.files.model_file import read_header

    header = read_header(path)
    assert header is not None  # it was made here
    record = header["provenance"]["words"]
    phrases = count_of(len(record["background"]), "other phrase")
    tell(f"{count_of(len(header['labels']), 'label')} in words against {phrases}, seen by {record['encoder']}")
    tell(f"licence of the encoder: {header['licences']['frame encoder']}")
    tell("frames are compared with words one by one, so their order does not matter to it: opening looks like closing")
