"""Find standing persons with the detector inside OpenCV: gradients in cells and a linear classifier (Dalal and Triggs, 2005).

Its weights are a part of OpenCV (Apache-2.0), so nothing is downloaded. It finds persons who stand or walk and are seen whole, and
misses many others; docs/guide/zones.md has figures. OpenCV 5 has moved it to its contributed modules, so 4 is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fewframes.errors import MissingDependency, needed
from fewframes.video.pictures.display import Pixels
from fewframes.video.regions.boxes import Box
from fewframes.video.regions.tracker import shared_part
from fewframes.video.transforms import resized

LONG_PX, SHORT_PX = 800, 400
"""The long side that larger pictures are reduced to, and the short side that smaller ones are enlarged to. A person is found from
about 100 pixels of height."""
LEAST_SCORE = 0.3
"""The distance from the classifier's border from which a window is a person."""
MOST_SHARED = 0.5
"""The part of the smaller of two windows from which they are one person, such as the legs of him; the surer one is kept."""
INSIDE = 0.12
"""The part of a window's width and height, at each edge, that lies around the person it was trained with."""


class HogPeople:
    """Finds standing persons in pictures: a `Detector`."""

    def __init__(self, least_score: float = LEAST_SCORE) -> None:
        """Make a detector of persons that are at least so sure. Raises MissingDependency without OpenCV 4."""
        words = "the detector of persons needs OpenCV 4"
        cv2 = needed("cv2", "people", words)
        if not hasattr(cv2, "HOGDescriptor"):
            raise MissingDependency(f"{words}, and this is {cv2.__version__}; pip install 'fewframes[people]'")
        self._hog: Any = cv2.HOGDescriptor()
        self._hog.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())
        self._least_score = least_score

    def boxes(self, picture_HWC: Pixels, time_s: float) -> Sequence[Box]:  # noqa: ARG002
        """Return the boxes of standing persons in a picture (H, W, C) uint8 RGB, in its pixels, the surest first."""
        height, width = picture_HWC.shape[:2]
        scale = max(min(1.0, LONG_PX / max(height, width)), SHORT_PX / min(height, width))
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        fitted_CHW = resized(picture_HWC.transpose(2, 0, 1), *size)
        windows, scores = self._hog.detectMultiScale(
            np.ascontiguousarray(fitted_CHW.transpose(1, 2, 0)[..., ::-1]),  # OpenCV's order of colours
            winStride=(8, 8),
            padding=(16, 16),
            scale=1.05,
            groupThreshold=0,
        )
        found = np.array(windows, np.float64).reshape(-1, 4)
        sure = np.array(scores, np.float64).reshape(-1)
        corners = np.concatenate(
            [found[:, :2] + INSIDE * found[:, 2:], found[:, :2] + (1 - INSIDE) * found[:, 2:]], axis=1
        )
        corners = np.clip(corners / scale, 0, [width, height, width, height])
        kept: list[int] = []
        for number in np.argsort(-sure):
            if sure[number] < self._least_score:
                break
            if not kept or shared_part(corners[[number]], corners[kept]).max() <= MOST_SHARED:
                kept.append(int(number))
        return [
            Box(x0, y0, x1, y1, float(sure[number])) for number in kept for x0, y0, x1, y1 in [corners[number].tolist()]
        ]


def people() -> HogPeople:
    """Return the detector of standing persons, for `--detector people`."""
    return HogPeople()
