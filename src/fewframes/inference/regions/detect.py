"""Find persons or things in a video by a detector, and follow them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import closing

import numpy as np

from fewframes.core.process import Progress
from fewframes.errors import ConfigError
from fewframes.sampling import steady_times
from fewframes.video.decode.decoder import FileVideo
from fewframes.video.regions.boxes import Box, Track
from fewframes.video.regions.frames import whole_pictures
from fewframes.video.regions.tracker import Detector, Tracker
from fewframes.video.source import DEFAULT_FPS, Source, open_video, range_in

DETECTIONS_PER_S = 5.0
"""Pictures a second in which persons are looked for: a walking person moves by about a third of his width from one to the next."""
PEOPLE = "people"
"""The name of the detector that needs no module of the user's."""


def detector_of(text: str) -> Detector:
    """Return the detector that a text such as `people` or `package.module:factory` names: what the factory returns.

    Raises:
        ConfigError: there is no such module or factory, or what it returns is no detector.
        MissingDependency: `people` needs OpenCV, which is not installed.
    """
    if text == PEOPLE:
        from fewframes.video.regions.hog import people

        return people()
    module, is_named, name = text.partition(":")
    if not (is_named and module and name):
        raise ConfigError(f"detector {text!r}: needs {PEOPLE}, or package.module:factory, such as my_detectors:make")
    try:
        factory = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(f"detector {text!r}: {module} cannot be imported ({error})") from None
    except AttributeError:
        raise ConfigError(f"detector {text!r}: {module} has no {name}") from None
    made = factory() if callable(factory) else factory
    if not callable(getattr(made, "boxes", None)):
        raise ConfigError(
            f"detector {text!r}: {name} returns a {type(made).__name__}, which has no method boxes(picture_HWC, time_s)"
        )
    return made  # type: ignore[no-any-return]


def detect_tracks(
    detector: Detector,
    source: Source,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    fps: float = DEFAULT_FPS,
    per_s: float = DETECTIONS_PER_S,
    progress: Progress = lambda stage, done, total: None,
) -> list[Track]:
    """Return the tracks of what a detector finds in a video, or in a part of it. Raises VideoError.

    Args:
        detector: The detector.
        source: The video.
        start_s, end_s: Seconds at which the part begins and ends.
        fps: Frame rate of inputs that have none of their own.
        per_s: Pictures a second that the detector looks at.
        progress: A callback.
    """
    tracker = Tracker()
    with closing(open_video(source, fps=fps)) as video:
        times_s = steady_times(*range_in(video, start_s, end_s), 1 / per_s)
        done = 0
        for asked_s, clip in whole_pictures(video, np.asarray(times_s)):
            for time_s, frame_CHW in zip(asked_s.tolist(), clip.frames, strict=True):
                tracker.update(time_s, checked(detector.boxes, frame_CHW.transpose(1, 2, 0), time_s))
            done += len(asked_s)
            progress("pictures searched", done, len(times_s))
    return tracker.tracks()


def video_range(source: Source, start_s: float, end_s: float | None) -> tuple[float, tuple[float, float]]:
    """Return the frame rate of a video, and a range of it with its end cut to that of the video. Raises VideoError."""
    with closing(open_video(source)) as video:
        return 1 / video.frame_s if isinstance(video, FileVideo) else DEFAULT_FPS, range_in(video, start_s, end_s)


def checked(boxes: Callable[..., object], picture_HWC: object, time_s: float) -> list[Box]:
    """Return the boxes that a detector finds. Raises ConfigError where it returns something else."""
    found = boxes(picture_HWC, time_s)
    try:
        listed = [Box(*map(float, box)) for box in found]  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the detector returned {found!r} at {time_s:.2f} s: needs boxes x0, y0, x1, y1 ({error})"
        ) from None
    for box in listed:
        if not (np.isfinite(box).all() and box.x0 < box.x1 and box.y0 < box.y1):
            raise ConfigError(f"the detector returned {box} at {time_s:.2f} s: needs x0 < x1 and y0 < y1 in pixels")
    return listed
