"""Pictures of explanations: the right form, the right colours, nothing half written."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewframes.errors import ConfigError, OutputError
from fewframes.viz.explanation import check_picture, explanation_figure, write_picture
from helpers.explanations import explained


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    assert image.format == "PNG"
    return image.convert("RGB")


@pytest.mark.parametrize(("num_frames", "maps"), [(2, True), (16, False), (17, True), (64, True)])
def test_pictures_of_any_number_of_frames_have_one_width(num_frames: int, maps: bool) -> None:
    figure = explanation_figure(explained(num_frames, maps=maps))
    assert figure.get_figwidth() * 110 == pytest.approx(1235, abs=10)
    assert sum(bool(axes.images) for axes in figure.axes) >= num_frames * (1 + maps)


def test_png_and_svg_are_whole_and_alike_each_time(tmp_path: Path) -> None:
    found = explained(4)
    write_picture(found, tmp_path / "a.png")
    assert opened((tmp_path / "a.png").read_bytes()).width > 1000
    for name in ("a.SVG", "b.svg"):
        write_picture(found, tmp_path / name)
    assert (tmp_path / "a.SVG").read_text().startswith("<?xml")
    assert (tmp_path / "a.SVG").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.SVG", "a.png", "b.svg"]


ZEROS = np.zeros((4, 4, 4), np.float32)


def test_flat_and_empty_explanations_can_be_drawn(tmp_path: Path) -> None:
    found = replace(explained(4), occlusion=ZEROS[0, 0], spearman=None, pearson=None, maps=ZEROS)
    write_picture(found, tmp_path / "flat.png")
    assert (tmp_path / "flat.png").exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    for name in ("a.jpg", "a", "a.png.gz"):
        with pytest.raises(ConfigError, match=r"explanations are written as \.png, \.svg or \.html"):
            check_picture(tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.png: explanations are written"):
        write_picture(explained(2), tmp_path / "folder.png")
    with pytest.raises(OutputError, match="cannot be written"):
        write_picture(explained(2), tmp_path / "none" / "a.png")
