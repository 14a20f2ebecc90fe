"""Zones: rectangles in fractions of the picture, and what is said of wrong ones."""

from __future__ import annotations

import numpy as np
import pytest

from fewframes.errors import ConfigError, VideoError
from fewframes.video.regions.zone import Rectangle, Zone, fit_region, fit_regions, zones_of
from fewframes.video.view import ViewConfig


def test_a_zone_is_read_from_text() -> None:
    zone = Zone.parse("door=0.1, 0.2,0.4,.9")
    assert (zone.name, zone.x0, zone.y0, zone.x1, zone.y1) == ("door", 0.1, 0.2, 0.4, 0.9)
    assert zone.rectangle(0.0, 100, 200) == Rectangle(left=20, top=20, right=80, bottom=90)
    assert (zone.rectangle(0.0, 100, 200).width, zone.rectangle(0.0, 100, 200).height) == (60, 70)
    assert Zone.parse(str(zone)) == zone
    assert Zone.parse("all=0,0,1,1").rectangle(0.0, 33, 47) == Rectangle(0, 0, 47, 33)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0.1,0.2,0.4,0.9", "needs NAME=x0,y0,x1,y1"),
        ("door=0.1,0.2,0.4", "needs NAME=x0,y0,x1,y1"),
        ("door=a,b,c,d", "needs NAME=x0,y0,x1,y1"),
        ("door=0.1,0.2,nan,0.9", "needs numbers"),
        ("door=10,20,40,90", "outside of the picture"),
        ("door=-0.1,0,1,1", "outside of the picture"),
        ("door=0.4,0.2,0.1,0.9", "is empty"),
        ("door=0.4,0.2,0.4,0.9", "is empty"),
        ("=0,0,1,1", "a name has up to 64 letters"),
        ("a/b=0,0,1,1", "a name has up to 64 letters"),
        ("../x=0,0,1,1", "a name has up to 64 letters"),
        ("a b=0,0,1,1", "a name has up to 64 letters"),
    ],
)
def test_what_is_no_zone(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Zone.parse(text)


def test_names_are_given_once() -> None:
    assert [zone.name for zone in zones_of(["tür=0,0,1,1", "b-2=0,0,.5,1"])] == ["tür", "b-2"]
    with pytest.raises(ConfigError, match="zone 'a' is given 2 times"):
        zones_of(["a=0,0,1,1", "b=0,0,1,1", "a=0,0,.5,1"])


def test_a_zone_of_few_pixels_is_named() -> None:
    zone = Zone("slit", 0.5, 0, 0.6, 1)
    with pytest.raises(VideoError, match="zone slit is 10 x 80 pixels of a picture of 100 x 80"):
        zone.rectangle(0.0, 80, 100)
    assert Zone("slit", 0.5, 0, 0.7, 1).rectangle(0.0, 80, 160).width == 32


def test_nothing_of_a_wide_zone_is_lost() -> None:
    frame_CHW = np.zeros((3, 80, 320), np.uint8)
    frame_CHW[0, 20:60, 40:60] = 255  # the left end of the zone, which its central square does not show
    frame_CHW[1, 20:60, 180:200] = 255
    zone = Zone("strip", 40 / 320, 0.25, 200 / 320, 0.75)
    square_CHW = fit_region(frame_CHW, zone.rectangle(0.0, 80, 320), ViewConfig(resize_px=40, crop_px=32))
    assert square_CHW.shape == (3, 32, 32)
    assert square_CHW[0, :, 0].min() > 200
    assert square_CHW[1, :, -1].min() > 200


def test_zones_do_not_see_each_other() -> None:
    frame_CHW = np.zeros((3, 64, 64), np.uint8)
    frame_CHW[:, :, 32:] = 255
    halves = zones_of(["left=0,0,.5,1", "right=.5,0,1,1"])
    left_CHW, right_CHW = fit_regions(frame_CHW, 0.0, halves, ViewConfig(resize_px=36, crop_px=32))
    assert left_CHW.max() == 0
    assert right_CHW.min() == 255
