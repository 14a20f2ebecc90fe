"""The order of numbered pictures, and folders that hold more than one sequence."""

from __future__ import annotations

import pytest

from fewframes.core.natural import equal_groups, in_natural_order, repeated_numbers, unclear_order


@pytest.mark.parametrize(
    "wanted",
    [
        ["frame_1.png", "frame_2.png", "frame_10.png", "frame_11.png", "frame_100.png"],
        ["frame-1.jpg", "frame-2.jpg", "frame-10.jpg"],
        ["001.png", "2.png", "03.png", "0010.png"],
        ["IMG_9.JPG", "img_10.jpg", "Img_11.jpg"],
        ["a1b20.png", "a1b100.png", "a2b3.png", "a10b1.png"],
        ["9.png", "10.jpg", "11.png"],
        ["shot (2).png", "shot (10).png"],
        ["shot.png", "shot_1.png", "shot_2.png"],
        ["1_left.png", "2_left.png", "10_left.png"],
        ["frame_٩.png", "frame_١٠.png", "frame_11.png"],
        ["2024-01-01_9-59-59.png", "2024-01-01_10-00-00.png"],
        ["cam1.8.png", "cam1.9.png", "cam1.10.png"],  # a counter after a point
        ["0.0.jpg", "0.04.jpg", "0.08.jpg", "0.12.jpg", "0.2.jpg", "0.24.jpg", "1.0.jpg"],  # seconds
        ["t0.png", "t0.05.png", "t0.5.png", "t1.png", "t10.25.png"],
        [
            "1700000000.0.png",
            "1700000000.142857.png",
            "1700000000.2857144.png",
            "1700000000.571.png",
            "1700000001.0.png",
        ],
        ["12345678901234567890.png", "12345678901234567891.png"],
        ["ann.png", "bob.png"],
    ],
)
def test_numbers_ascend(wanted: list[str]) -> None:
    assert in_natural_order(reversed(wanted)) == wanted
    assert in_natural_order(sorted(wanted)) == wanted


def test_text_before_the_numbers_goes_first() -> None:
    assert in_natural_order(["b1.png", "a2.png", "a10.png"]) == ["a2.png", "a10.png", "b1.png"]


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["left_1.png", "right_1.png", "left_2.png", "right_2.png"], ["left_1.png", "right_1.png"]),
        (["1.png", "1.jpg", "2.png"], ["1.jpg", "1.png"]),
        (["f_01.png", "f_1.png", "f_2.png"], ["f_01.png", "f_1.png"]),
        (["001_rgb.png", "001_depth.png", "002_rgb.png"], ["001_depth.png", "001_rgb.png"]),
        (["scene1_a.png", "scene1_b.png"], []),
        (["ann.png", "bob.png"], []),
        (["cam1_1.png", "cam1_2.png", "cam2_1.png"], []),
        (["shot.png", "shot_1.png", "shot_2.png"], []),
        (["0.03333333333333333.png", "0.3333333333333333.png", "0.1.png"], []),  # seconds: 1/30 and 10/30
    ],
)
def test_pictures_that_share_their_number(names: list[str], wanted: list[str]) -> None:
    assert repeated_numbers(names)[:2] == wanted


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["cam1_1", "cam1_2", "cam2_1", "cam2_2"], 2),
        (["cam1_1", "cam1_2", "cam2_1"], 0),
        (["v1_1", "v1_2", "v1_3"], 0),
        (["1", "2", "3"], 0),
        (["1_640x480", "2_640x480"], 0),
        (["ann", "bob"], 0),
    ],
)
def test_groups_that_are_numbered_alike(names: list[str], wanted: int) -> None:
    assert equal_groups(f"{name}.png" for name in names) == wanted


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["0.0", "0.25", "0.5", "0.75", "1.0"], ("0.25.png", "0.5.png")),
        (["cam1.7", "cam1.127", "cam1.233"], ("cam1.127.png", "cam1.7.png")),
        (["cam1.8", "cam1.9", "cam1.11"], None),  # goes on by one
        (["cam1.5", "cam1.25", "cam1.100"], None),  # no fraction ends with a zero
        (["0.04", "0.2", "0.5"], None),  # no counter begins with one
        (["0.25", "0.50", "0.75"], None),
        (["1.5", "2.25", "3.75"], None),  # both ways the same
        (["1", "2", "10"], None),
    ],
)
def test_digits_after_a_point_that_may_be_either(names: list[str], wanted: tuple[str, str] | None) -> None:
    assert unclear_order(f"{name}.png" for name in names) == wanted
