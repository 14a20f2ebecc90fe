"""Pictures of explanations: the right form, the right colours, nothing half written."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewframes.errors import ConfigError, OutputError
from fewframes.inference.explain import Explanation
from fewframes.results import Prediction, Reading, Timing
from fewframes.viz.explanation import HEAT, check_picture, explanation_figure, strip_png, write_picture


def explained(num_frames: int, *, maps: bool = True) -> Explanation:
    attention_T = torch.arange(1, num_frames + 1).float()
    prediction = Prediction(
        source="folder/$5 and _b_ of a very long name that does not fit beside a picture.mp4",
        labels=("hug", "$x_ a label of many, many letters, more than there is room for", "push"),
        scores=torch.tensor([0.2, 0.7, 0.1]),
        times_s=torch.arange(num_frames) / 4,
        frame_attention=attention_T / attention_T.sum(),
        embedding=torch.zeros(8),
        frame_embeddings=torch.zeros(num_frames, 8),
        timing=Timing(0, 0, 0),
        reading=Reading(num_frames, 0, 0, 0),
    )
    return Explanation(
        prediction=prediction,
        frames=torch.zeros(num_frames, 3, 32, 32, dtype=torch.uint8),
        label="hug",
        occlusion=torch.linspace(-0.1, 0.3, num_frames),
        spearman=1.0,
        pearson=1.0,
        map_method="rollout" if maps else None,
        maps=torch.rand(num_frames, 4, 4) if maps else None,
    )


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    assert image.format == "PNG"
    return image.convert("RGB")


def has_colour(image: Image.Image, weight: float) -> bool:
    wanted = np.array(HEAT(weight, bytes=True)[:3], dtype=int)
    return bool((np.abs(np.asarray(image, dtype=int) - wanted).max(axis=2) <= 1).sum() > 200)


def test_borders_show_the_attention() -> None:
    frames_TCHW = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    image = opened(strip_png(frames_TCHW, [0.0, 1.0], torch.tensor([0.2, 0.8])))
    left, right = (
        image.crop((half * image.width // 2, 0, (half + 1) * image.width // 2, image.height)) for half in (0, 1)
    )
    assert has_colour(left, 0.25)
    assert has_colour(right, 1.0)
    assert not has_colour(left, 1.0)


def test_many_frames_are_shown_in_equal_steps() -> None:
    def size(num_frames: int) -> tuple[int, int]:
        frames_TCHW = torch.zeros(num_frames, 3, 32, 32, dtype=torch.uint8)
        return opened(strip_png(frames_TCHW, [0.5] * num_frames, torch.full((num_frames,), 1 / num_frames))).size

    assert size(64) == size(16) == size(32)
    assert size(16)[0] == size(8)[0] < 1100
    assert size(16)[1] > size(8)[1]


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


def test_flat_and_empty_explanations_can_be_drawn(tmp_path: Path) -> None:
    found = replace(explained(4), occlusion=torch.zeros(4), spearman=None, pearson=None, maps=torch.zeros(4, 4, 4))
    write_picture(found, tmp_path / "flat.png")
    assert (tmp_path / "flat.png").exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    for name in ("a.jpg", "a", "a.png.gz"):
        with pytest.raises(ConfigError, match=r"pictures are written as \.png or \.svg"):
            check_picture(tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.png: pictures are written"):
        write_picture(explained(2), tmp_path / "folder.png")
    with pytest.raises(OutputError, match="cannot be written"):
        write_picture(explained(2), tmp_path / "none" / "a.png")
