"""The detector inside OpenCV, on drawn persons."""

from __future__ import annotations

import numpy as np
import pytest

from fewframes.video.regions.boxes import Box
from fewframes.video.regions.tracker import overlaps
from helpers.walkers import Walker, picture_of

pytest.importorskip("cv2")


def test_standing_persons_are_found_where_they_are() -> None:
    from fewframes.video.regions.hog import people

    detector = people()
    for size, height in (((480, 360), 200), ((1600, 1200), 660)):
        walkers = [
            Walker((0.3 * size[0], 0.9 * size[1]), (0, 0), 0, 1, height),
            Walker((0.7 * size[0], 0.85 * size[1]), (0, 0), 0, 1, height),
        ]
        found = detector.boxes(picture_of(walkers, 0.0, size), 0.0)
        wanted = [walker.box(0.0) for walker in walkers]
        assert len(found) == 2, size
        near = overlaps(np.array([box[:4] for box in found]), np.array([box[:4] for box in wanted if box]))
        assert (near.max(axis=0) > 0.4).all(), size
        assert all(box.score > 0.3 for box in found)


def test_nobody_is_found_where_nobody_is() -> None:
    from fewframes.video.regions.hog import people

    assert people().boxes(np.full((48, 300, 3), 90, np.uint8), 0.0) == []
    for box in people().boxes(np.random.default_rng(0).integers(0, 255, (120, 90, 3), dtype=np.uint8), 0.0):
        assert isinstance(box, Box)
        assert 0 <= box.x0 < box.x1 <= 90
        assert 0 <= box.y0 < box.y1 <= 120
