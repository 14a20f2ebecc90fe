"""One draw for all frames of a video, the paper's numbers, and labels that follow what was mixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fewframes.data.layouts import Sample
from fewframes.errors import VideoError
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.solved import views as solved_views
from fewframes.training.steps.augment import TrainingView, is_mirrored, mixed, read_drawn, read_one_drawn, seed_of
from fewframes.video.pictures.display import Pixels
from fewframes.video.view import ViewConfig
from helpers.numbered import Numbered

VIEW = ViewConfig(resize_px=36, crop_px=32)


def test_views_go_around_a_jump_of_the_clock(tmp_path: Path) -> None:
    times_ms = [40 * number + (3_600_000 if number >= 40 else 0) for number in range(80)]
    path = str(Numbered(suffix=".mkv", bframes=0, times_ms=times_ms).write(tmp_path / "jumps"))
    plain = AugmentConfig(scale=1.0, colour=0.0)
    view = ViewConfig(resize_px=64, crop_px=64, fit="squash")
    sample = Sample(path=path, labels=())
    drawn_VTCHW = read_drawn(sample, 8, view, plain, [1, 2], mirror=False)
    for frames_TCHW in (*drawn_VTCHW, read_one_drawn(sample, 8, view, plain, 1, mirror=False)):
        assert len({frame_CHW.numpy().tobytes() for frame_CHW in frames_TCHW}) == 8
    solved_VTCHW = solved_views.read_drawn(sample, 8, view, plain, [1], mirror=False)
    assert len({frame_CHW.tobytes() for frame_CHW in solved_VTCHW[0]}) == 8
    with pytest.raises(VideoError, match="between 60 s and 70 s nothing was recorded"):
        read_drawn(Sample(path=path, labels=(), start_s=60.0, end_s=70.0), 8, view, plain, [1], mirror=False)


def ramp(height: int = 60, width: int = 100) -> Pixels:
    """A frame whose red is its column and whose green is its row."""
    rows, columns = np.indices((height, width))
    return np.stack([columns, rows, np.full_like(rows, 7)]).astype(np.uint8)


def seen(augment: AugmentConfig, seed: int, *, mirror: bool = False, num_frames: int = 3) -> Tensor:
    view = TrainingView(VIEW, augment, torch.Generator().manual_seed(seed), mirror=mirror)
    return view.finish(torch.from_numpy(np.stack([view.fit_frame(ramp()) for _ in range(num_frames)])))


@pytest.mark.parametrize(
    "augment",
    [
        AugmentConfig(),
        AugmentConfig(auto="imagenet", colour=0.0),
        AugmentConfig(auto="randaugment", cutout=0.5),
    ],
)
def test_all_frames_of_a_video_are_changed_alike(augment: AugmentConfig) -> None:
    frames_STCHW = torch.stack([seen(augment, seed, mirror=True) for seed in range(8)])
    assert (frames_STCHW == frames_STCHW[:, :1]).all()
    assert len({frames.numpy().tobytes() for frames in frames_STCHW[:, 0]}) > 4  # and videos differently
    assert torch.equal(seen(augment, 3, mirror=True), frames_STCHW[3])  # the draw decides alone


def test_scale_and_place_of_the_crop() -> None:
    lefts, tops, widths = [], [], []
    for seed in range(40):
        frame_CHW = seen(AugmentConfig(scale=1.25, colour=0.0), seed)[0].float()
        lefts.append(frame_CHW[0, 16, 0].item())
        tops.append(frame_CHW[1, 0, 16].item())
        widths.append(frame_CHW[0, 16, -1].item() - lefts[-1])
    # 32 px of a short side of 36 to 45 px, which is 60: squares of 53 down to 43 columns
    assert min(widths) == pytest.approx(42, abs=2)
    assert max(widths) == pytest.approx(52, abs=2)
    assert min(lefts) < 6
    assert max(lefts) > 44  # of 100 columns
    assert max(tops) > 10  # of 60 rows


def test_mirroring_happens_half_of_the_time_and_only_when_asked_for() -> None:
    def turned(frames_TCHW: Tensor) -> bool:
        return bool(frames_TCHW[0, 0, 16, 0] > frames_TCHW[0, 0, 16, -1])

    share = sum(turned(seen(AugmentConfig(colour=0.0), seed, mirror=True)) for seed in range(60)) / 60
    assert 0.3 < share < 0.7
    assert not any(turned(seen(AugmentConfig(colour=0.0), seed)) for seed in range(20))


def test_cutout_paints_a_square_of_half_the_side() -> None:
    sizes = set()
    for seed in range(30):
        plain, cut = (seen(AugmentConfig(cutout=share, colour=0.0), seed)[0] for share in (0.0, 0.5))
        painted_HW = (plain != cut).any(dim=0)
        rows, columns = painted_HW.any(dim=1).sum().item(), painted_HW.any(dim=0).sum().item()
        sizes |= {rows, columns}
        assert len(torch.unique(cut[:, painted_HW], dim=1).T) == 1  # one colour
    assert max(sizes) == 16
    assert min(sizes) >= 8  # its centre lies inside


def test_whole_frames_are_left_whole() -> None:
    view = ViewConfig(fit="pad", resize_px=36, crop_px=32)
    drawn = TrainingView(view, AugmentConfig(), torch.Generator().manual_seed(0), mirror=False)
    assert drawn.fit_frame(ramp()).shape == (3, 32, 32)


def test_mixup_mixes_labels_as_pixels() -> None:
    torch.manual_seed(0)
    inputs = torch.eye(4)[:, None]  # (B, T, D): each video is its own label
    for alpha in (0.2, 1.0):
        out, targets_BK = mixed(inputs, torch.eye(4), AugmentConfig(mixup=alpha))
        torch.testing.assert_close(out[:, 0], targets_BK)
        torch.testing.assert_close(targets_BK.sum(dim=1), torch.ones(4))
    assert mixed(inputs, torch.eye(4), AugmentConfig())[1].equal(torch.eye(4))


def test_cutmix_labels_go_by_area() -> None:
    torch.manual_seed(0)
    pixels_BTCHW = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 2, 3, 8, 8).clone()
    out, targets_BK = mixed(pixels_BTCHW, torch.eye(4), AugmentConfig(cutmix=1.0))
    for video, targets_K in zip(out, targets_BK, strict=True):
        assert (video[0] == video[1]).all()
        shares_K = torch.tensor([(video == number).float().mean() for number in range(4)])
        torch.testing.assert_close(shares_K, targets_K)
    assert (targets_BK < 1).all()


def test_colours_change_by_no_more_than_asked_for() -> None:
    plain, changed = (seen(AugmentConfig(colour=amount), 1)[0].float() for amount in (0.0, 0.2))
    assert not torch.equal(plain, changed)
    assert 0.75 < changed.mean() / plain.mean() < 1.3


def test_several_draws_of_a_video_are_those_of_one_each(clips: Path) -> None:
    sample = Sample(path=str(clips / "redden" / "3.mp4"), labels=("redden",))
    seeds = [seed_of("a", number) for number in range(3)]
    together = read_drawn(sample, 4, VIEW, AugmentConfig(), seeds, mirror=True)
    for seed, view_TCHW in zip(seeds, together, strict=True):
        assert torch.equal(read_drawn(sample, 4, VIEW, AugmentConfig(), [seed], mirror=True)[0], view_TCHW)
        alone = read_one_drawn(sample, 4, VIEW, AugmentConfig(), seed, mirror=True)
        torch.testing.assert_close(view_TCHW.float(), alone.float(), rtol=0, atol=2)  # once resized, and twice
    assert len({view.numpy().tobytes() for view in together}) == 3


def test_the_views_that_are_mirrored_are_known_before_they_are_read(clips: Path) -> None:
    sample = Sample(path=str(clips / "redden" / "3.mp4"), labels=("redden",))
    seeds = [seed_of("a", number) for number in range(8)]
    plain, mixed_views = (
        read_drawn(sample, 4, VIEW, AugmentConfig(colour=0.0), seeds, mirror=mirror) for mirror in (False, True)
    )
    expected = [is_mirrored(seed) for seed in seeds]
    assert 0 < sum(expected) < 8
    for mirrored, before, after in zip(expected, plain, mixed_views, strict=True):
        assert torch.equal(after, before.flip(-1) if mirrored else before)
