"""`fewframes predict --explain`: draw for each video what the prediction rests on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fewframes.cli.console import tell
from fewframes.cli.options import OUTPUT, make_folder
from fewframes.core.files import check_not_read
from fewframes.core.text import count_of
from fewframes.errors import ConfigError, MissingDependency, VideoError

if TYPE_CHECKING:  # the command line must not load torch before a command needs it
    from fewframes.inference.explain import Explanation
    from fewframes.inference.predictor import Predictor
    from fewframes.results import Failure

ExplainOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE|FOLDER",
        help="Draw what the answer rests on: a .png, .svg or .html for one video, or a folder of .png for any number.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
MapChoice = Literal["auto", "rollout", "attention", "grad-cam", "none"]
MapOption = Annotated[
    MapChoice,
    typer.Option(
        "--map",
        help="Show where in each frame the model looked, for --explain. auto is rollout for ViTs, grad-cam for others.",
        rich_help_panel=OUTPUT,
    ),
]


def plan_pictures(target: Path, sources: Sequence[str]) -> list[Path]:
    """Return the path of each video's picture, and make its folder.

    Raises ConfigError for one picture of several videos, and for a place that cannot be written to.
    """
    from fewframes.viz.explanation import check_picture

    if target.suffix and not target.is_dir():
        check_picture(target)
        if len(sources) != 1:
            raise ConfigError(
                f"--explain {target}: one picture for {count_of(len(sources), 'video')}; name a folder, which gets one for each"
            )
        make_folder(target.parent)
        pictures = [target]
    else:
        make_folder(target)
        stems = [PurePath(source.split("?")[0]).stem for source in sources]
        pictures = [target / f"{name}.png" for name in _unique(stems)]
    for picture in pictures:
        check_not_read(picture, sources)
    return pictures


def explained(
    predictor: Predictor,
    sources: Sequence[str],
    pictures: Sequence[Path],
    *,
    maps: MapChoice,
    num_frames: int | None,
    start_s: float,
    end_s: float | None,
) -> Iterator[Explanation | Failure]:
    """Yield the explanation of each video after its picture is written; a video that cannot be read is a Failure.

    Args:
        predictor: The model.
        sources: The videos.
        pictures: The path of each video's picture.
        maps: The kind of map that shows where in each frame the model looked.
        num_frames: Frames to look at; None is the model's own number.
        start_s: Start of the part to look at, in seconds.
        end_s: End of that part; None is the end of the video.
    """
    from fewframes.inference.explain import explain, map_method
    from fewframes.results import Failure
    from fewframes.viz.explanation import write_picture

    map_method(predictor.runtime, maps)  # fail once for a map that this model cannot have, not per video
    for source, picture in zip(sources, pictures, strict=True):
        try:
            found = explain(predictor, source, maps=maps, num_frames=num_frames, start_s=start_s, end_s=end_s)
        except (VideoError, MissingDependency) as error:
            yield Failure.of(source, error)
            continue
        write_picture(found, picture)
        tell(f"{picture}: {found.agreement()}")
        yield found


def _unique(stems: Sequence[str]) -> Iterator[str]:
    """Yield the names, each with a number added if it was taken before."""
    taken: set[str] = set()
    for stem in stems:
        name, number = stem or "video", 1
        while name in taken:
            number += 1
            name = f"{stem or 'video'}-{number}"
        taken.add(name)
        yield name
