"""The options for parts of the picture: zones, and boxes of persons who are followed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewframes.cli.console import StageProgress, tell
from fewframes.cli.options import INPUT, OUTPUT, check_writable
from fewframes.core.files import check_not_read, write_file
from fewframes.core.text import count_of
from fewframes.errors import ConfigError, FewframesError

if TYPE_CHECKING:
    from fewframes.inference.heads import Heads
    from fewframes.inference.predictor import Predictor
    from fewframes.inference.timeline import Timeline
    from fewframes.video.regions.boxes import Track
    from fewframes.video.regions.zone import Region, Zone

ZoneOption = Annotated[
    list[str] | None,
    typer.Option(
        "--zone",
        metavar="NAME=x0,y0,x1,y1",
        help="Judge a part of the picture by itself: fractions of its width and height from the top left, such as "
        "door=0.1,0.2,0.4,0.9. May be given several times; each frame is decoded once for all zones.",
        rich_help_panel=INPUT,
    ),
]
BoxesOption = Annotated[
    Path | None,
    typer.Option(
        "--boxes",
        metavar="FILE",
        help="Judge each person by himself: a file of boxes of one video, a line for each box and time. CSV with a header such as "
        "time_s,track,x0,y0,x1,y1, or the text of the MOT challenge.",
        rich_help_panel=INPUT,
    ),
]
DetectorOption = Annotated[
    str | None,
    typer.Option(
        "--detector",
        metavar="people|MODULE:FACTORY",
        help="Find and follow persons, and judge each by himself: people is OpenCV's detector of standing persons; "
        "package.module:factory is one of your own.",
        rich_help_panel=INPUT,
    ),
]
ShowZonesOption = Annotated[
    Path | None,
    typer.Option(
        "--show-zones",
        metavar="FILE",
        help="Draw the zones into the first frame, and write that to this PNG or JPEG file.",
        rich_help_panel=OUTPUT,
    ),
]


@dataclass(frozen=True)
class Asked:
    """The parts of the picture that were asked for, as the options give them."""

    zones: list[str] | None
    boxes: Path | None
    detector: str | None
    show: Path | None

    @property
    def options(self) -> list[str]:
        """Return the options that were given."""
        given = {"--zone": self.zones, "--boxes": self.boxes, "--detector": self.detector}
        return [option for option, value in given.items() if value]

    def check(self, names: Sequence[str], excluded: dict[str, bool]) -> None:
        """Raise BadParameter for options that do not go together.

        Args:
            names: The models.
            excluded: Options by name that do not go together with parts of the picture, and whether each was given.
        """
        if self.show is not None and not self.zones:
            raise typer.BadParameter("--show-zones draws the zones that are given; add --zone NAME=x0,y0,x1,y1")
        if len(self.options) > 1:
            raise typer.BadParameter(f"{' and '.join(self.options)} exclude each other: give one of them")
        given = [option for option, is_given in excluded.items() if is_given]
        if self.options and given:
            raise typer.BadParameter(
                f"{self.options[0]} and {', '.join(given)} exclude each other: that is about the whole picture; leave one out"
            )
        if self.options and len(names) > 1:
            raise typer.BadParameter(
                f"{self.options[0]} with {len(names)} models: parts of the picture are judged by one model; give one model"
            )

    def regions(self, paths: Sequence[str], start_s: float, end_s: float | None) -> tuple[Region, ...]:
        """Return the zones or tracks that are asked for, and draw zones into the first video if that is asked for too.

        Raises FewframesError where there are none, or where the files they come from cannot be read.
        """
        from fewframes.video.regions.zone import zones_of

        if self.boxes is None and self.detector is None:
            zones = zones_of(self.zones or ())
            if self.show is not None:
                show_zones(paths[0], zones, self.show)
            return zones
        if len(paths) > 1:
            raise typer.BadParameter(f"{self.options[0]} takes one video, and {len(paths)} are given; name one")
        found = self._tracks(paths[0], start_s, end_s)
        if not found:
            raise FewframesError(f"{paths[0]}: nobody was found in it for long enough to be judged")
        return found

    def _tracks(self, path: str, start_s: float, end_s: float | None) -> tuple[Track, ...]:
        """Return the tracks of the file of boxes, or those that the detector finds; those too short to be judged are left out."""
        from fewframes.inference.regions.detect import detect_tracks, detector_of, video_range
        from fewframes.video.regions.box_file import read_boxes
        from fewframes.video.regions.boxes import LEAST_S

        tracks: Sequence[Track]
        rate, range_s = video_range(path, start_s, end_s)
        if self.boxes is not None:
            read = read_boxes(self.boxes, rate)
            tell(read.words)
            tracks = read.tracks
        else:
            detector = detector_of(self.detector or "")
            with StageProgress() as progress:
                tracks = detect_tracks(detector, path, start_s=start_s, end_s=end_s, progress=progress.show)
            tell(f"{path}: {count_of(len(tracks), 'track')} found by {self.detector}")
        long = tuple(track for track in tracks if track.stretches(*range_s))
        if len(long) < len(tracks):
            tell(
                f"{count_of(len(tracks) - len(long), 'track')} left out: there for less than {LEAST_S:g} s at a stretch"
            )
        return long


def show_zones(path: str, zones: Sequence[Zone], file: Path) -> None:
    """Write the first frame of a video with the zones drawn into it. Raises ConfigError and VideoError."""
    from fewframes.video.source import read_frames
    from fewframes.viz.zones import zones_picture

    if file.suffix.lower() not in {".png", ".jpg", ".jpeg"}:
        raise ConfigError(f"--show-zones {file}: needs a name that ends in .png or .jpg")
    check_writable(file, "--show-zones")
    check_not_read(file, [path])
    frame_CHW = read_frames(path, [0.0]).frames[0]
    write_file(file, zones_picture(frame_CHW, zones, "PNG" if file.suffix.lower() == ".png" else "JPEG"))
    tell(f"{file}: the first frame of {path} with {', '.join(zone.name for zone in zones)}")


def kinds_of(regions: Sequence[Region]) -> list[str]:
    """Return the columns that name regions in CSV: `zone`, or `track`; none for the whole picture."""
    return list(dict.fromkeys(region.kind for region in regions))


def way_of(models: Predictor | Heads, regions: Sequence[Region]) -> Callable[..., Timeline | Sequence[Timeline]]:
    """Return the function that makes the timelines of a video: of regions, of several models, or of the whole picture."""
    from fewframes.inference.heads import Heads
    from fewframes.inference.regions.timeline import sweep_regions
    from fewframes.inference.timeline import sweep

    if isinstance(models, Heads):
        return models.timeline
    return partial(sweep_regions, models, regions=regions) if regions else partial(sweep, models)
