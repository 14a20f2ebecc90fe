"""The cost of every preset, compared with the paper's figures, and measures of accuracy worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import beta, norm, t

from fewframes.core.metrics import (
    Indices,
    Interval,
    average_precision,
    beta_quantile,
    calibration_error,
    difference_of,
    fit_temperature,
    interval_of,
    rejection_curve,
    reliability,
    report_of,
    score,
    score_multilabel,
    t_quantile,
)
from fewframes.models.cost import count_cost
from fewframes.models.files.networks import build_model
from fewframes.models.presets import PRESETS

PAPER_GMACS = {  # its "Flops [G]" column: multiply-adds without attention's products
    "stam-paper-4": 67,
    "stam-paper-8": 135,
    "stam-paper-16": 270,
    "stam-paper-32": 540,
    "stam-paper-64": 1080,
    "resnet50-16": 70,
}


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_and_macs_of_every_preset(name: str) -> None:
    preset = PRESETS[name]
    with torch.device("meta"):
        model = build_model(preset.model, preset.view).eval()
    cost = count_cost(model, preset.model.num_frames, preset.model.image_size)
    assert cost.num_parameters == preset.num_parameters
    assert cost.gmacs == pytest.approx(preset.gmacs, abs=0.0006)
    assert cost.attention_gmacs == pytest.approx(preset.attention_gmacs, abs=0.0006)
    assert cost.gflops == pytest.approx(2 * (preset.gmacs + preset.attention_gmacs), abs=0.003)
    assert preset.licence
    assert preset.weights or preset.init


@pytest.mark.parametrize(("name", "gmacs"), PAPER_GMACS.items())
def test_the_papers_convention_gives_the_papers_column(name: str, gmacs: float) -> None:
    assert PRESETS[name].gmacs == pytest.approx(gmacs, rel=0.01)


def test_release_is_the_size_it_is_and_not_the_tables() -> None:
    assert PRESETS["stam-16"].num_parameters == 119_205_520  # the paper's table says 96 M


def test_attention_products_are_counted_apart() -> None:
    preset = PRESETS["stam-paper-16"]
    # 12 layers, 16 frames, 197 tokens, twice (q k^T and the sum of v), 768 wide; and 6 layers of 17 tokens.
    by_hand = (12 * 16 * 197**2 * 2 * 768 + 6 * 17**2 * 2 * 768) / 1e9
    assert preset.attention_gmacs == pytest.approx(by_hand, rel=1e-4)


LABELS = ("hug", "kick", "push", "wave")


def test_counts_by_hand() -> None:
    predicted = [0, 0, 1, 1, 1, 0]
    targets = np.array([0, 0, 0, 1, 1, 2])  # no video of wave
    logits = np.eye(4, dtype=np.float32)[predicted]
    report = score(logits, targets, LABELS)
    assert report.num_videos == 6
    assert report.top1 == pytest.approx(4 / 6)
    assert report.top5 == 1.0
    assert report.recalls[0] == pytest.approx(2 / 3)
    assert report.recalls[1:] == (1.0, 0.0, None)
    assert report.mean_class == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert report.confusion.tolist() == [[2, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    values = report.to_dict()
    assert values["per_class"] == {"hug": 0.6667, "kick": 1.0, "push": 0.0, "wave": None}


def test_counts_are_those_of_torchmetrics() -> None:
    from torchmetrics.functional import classification as reference  # late, because it takes ten seconds to import

    generator = torch.Generator().manual_seed(0)
    logits_NK, targets_N = torch.randn(200, 8, generator=generator), torch.randint(8, (200,), generator=generator)
    report = score(logits_NK.numpy(), targets_N.numpy(), tuple("abcdefgh"))
    assert report.confusion.tolist() == reference.multiclass_confusion_matrix(logits_NK, targets_N, 8).tolist()
    for value, top_k in ((report.top1, 1), (report.top5, 5)):
        expected = reference.multiclass_accuracy(logits_NK, targets_N, 8, average="micro", top_k=top_k)
        assert value == pytest.approx(float(expected))
    error = reference.multiclass_calibration_error(logits_NK.softmax(1), targets_N, 8, n_bins=15)
    assert calibration_error(logits_NK.numpy(), targets_N.numpy()) == pytest.approx(float(error), abs=1e-6)
    wanted_NK = torch.randint(2, (200, 8), generator=generator)
    several = score_multilabel(logits_NK.numpy(), wanted_NK.float().numpy(), tuple("abcdefgh"))
    expected = reference.multilabel_average_precision(logits_NK.sigmoid(), wanted_NK, 8)
    assert several.mean_ap == pytest.approx(float(expected), abs=1e-6)
    expected = reference.multilabel_f1_score(logits_NK.sigmoid(), wanted_NK, 8, average="micro")
    assert several.f1 == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("num_levels", [2, 5, 1000])
def test_average_precision_is_that_of_scikit_learn_with_ties(num_levels: int) -> None:
    from sklearn.metrics import average_precision_score  # late, because it takes seconds to import

    generator = np.random.default_rng(num_levels)
    for num_videos in (1, 2, 7, 100):
        wanted_N = generator.random(num_videos) < 0.3
        wanted_N[generator.integers(num_videos)] = True
        scores_N = generator.integers(num_levels, size=num_videos).astype(np.float32) - num_levels / 2
        assert average_precision(wanted_N, scores_N) == pytest.approx(average_precision_score(wanted_N, scores_N))


PROBABILITIES = (0.001, 0.025, 0.3, 0.5, 0.9, 0.975)


@pytest.mark.parametrize("a", [0.01, 0.5, 1.0, 1.7, 20.0, 3000.0])
@pytest.mark.parametrize("b", [0.05, 0.5, 1.0, 4.3, 1e5])
def test_quantiles_of_the_beta_distribution_are_those_of_scipy(a: float, b: float) -> None:
    found = [beta_quantile(probability, a, b) for probability in PROBABILITIES]
    assert found == pytest.approx(beta.ppf(PROBABILITIES, a, b), abs=1e-6)


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 30, 199, 20_000])
def test_quantiles_of_t_are_those_of_scipy(freedom: int) -> None:
    for probability in (0.6, 0.9, 0.975, 0.995):
        assert t_quantile(probability, freedom) == pytest.approx(t.ppf(probability, freedom), rel=1e-6)


def test_average_precision_by_hand() -> None:
    targets_NK = np.array([[1.0, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]])
    logits_NK = np.array([[3.0, 2, 1], [1, 1, 1], [2, -1, 1], [-1, -2, 1]])
    report = score_multilabel(logits_NK, targets_NK, LABELS[:3])
    # By falling score, the first label is right, wrong, right: (1/1 + 2/3) / 2. The second is wrong, right, right: (1/2 + 2/3) / 2.
    assert report.average_precisions[0] == pytest.approx((1 + 2 / 3) / 2)
    assert report.average_precisions[1] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert report.average_precisions[2] is None
    assert report.mean_ap == pytest.approx((5 / 6 + 7 / 12) / 2)
    # Above 0.5 there are 3 + 2 + 4 answers, of which 2 + 1 + 0 are right; the videos have 4 labels.
    assert report.f1 == pytest.approx(2 * 3 / (9 + 4))
    assert report == report_of("multilabel", logits_NK, targets_NK, LABELS[:3])
    assert report.lines()[0].startswith("4 videos: mAP 70.8%")
    with pytest.raises(ValueError, match="no videos"):
        score_multilabel(logits_NK[:0], targets_NK[:0], LABELS[:3])


def test_nothing_to_score() -> None:
    with pytest.raises(ValueError, match="no videos"):
        score(np.zeros((0, 4)), np.zeros(0, np.int64), LABELS)


def test_the_interval_of_a_difference_by_hand() -> None:
    gains = [1.0, 0.0, -1.0, 0.0, 1.0, 1.0]
    apart = difference_of(mean_of(gains), list("abcdef"), np.random.default_rng())
    half = float(t.ppf(0.975, 5)) * float(np.std(gains, ddof=1)) / 6**0.5
    assert (apart.value, apart.low, apart.high) == pytest.approx((1 / 3, 1 / 3 - half, 1 / 3 + half))
    together = difference_of(mean_of(gains), list("aabbcc"), np.random.default_rng())  # three observations, not six
    half = float(t.ppf(0.975, 2)) * float(np.std([0.5, -0.5, 1.0], ddof=1)) / 3**0.5
    assert (together.low, together.high, together.num_groups) == pytest.approx((1 / 3 - half, 1 / 3 + half, 3))
    alone = difference_of(mean_of(gains), ["a"] * 6, np.random.default_rng())
    assert (alone.value, alone.low, alone.high) == (1 / 3, -np.inf, np.inf)


def mean_of(values: list[float]) -> Callable[[Indices], float]:
    return lambda rows: float(np.array(values)[rows].mean())


@pytest.mark.parametrize(
    ("num_right", "num_videos", "low", "high"),
    [(20, 20, 0.8316, 1.0), (10, 10, 0.6915, 1.0), (0, 10, 0.0, 0.3085)],  # tables of Clopper and Pearson
)
def test_an_interval_has_a_width_where_all_are_right(num_right: int, num_videos: int, low: float, high: float) -> None:
    values = [1.0] * num_right + [0.0] * (num_videos - num_right)
    interval = interval_of(mean_of(values), list(map(str, range(num_videos))), np.random.default_rng())
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-4)
    assert interval.num_groups == num_videos


def test_an_interval_of_independent_videos_by_hand() -> None:
    values = [1.0] * 18 + [0.0] * 2
    interval = interval_of(mean_of(values), list(map(str, range(20))), np.random.default_rng())
    # Leaving out each video in turn gives the variance p (1 - p) / (n - 1), which is that of 19 videos.
    assert interval.low == pytest.approx(beta.ppf(0.025, 0.9 * 19, 0.1 * 19 + 1))
    assert interval.high == pytest.approx(beta.ppf(0.975, 0.9 * 19 + 1, 0.1 * 19))


def test_equal_videos_of_a_group_count_once() -> None:
    values = [1.0] * 5 + [0.0] * 5 + [1.0] * 10
    interval = interval_of(mean_of(values), list("aaaaabbbbbcccccddddd"), np.random.default_rng())
    assert interval.num_groups == 4
    # The groups are as four coins, the variance of which is that of three. Its quantile is as far out as that of t.
    outside = norm.cdf(-1.959964 * t.ppf(0.975, 3) / t.ppf(0.975, 19))
    assert interval.low == pytest.approx(beta.ppf(outside, 0.75 * 3, 0.25 * 3 + 1), abs=1e-6)
    assert interval.high == pytest.approx(beta.ppf(1 - outside, 0.75 * 3 + 1, 0.25 * 3), abs=1e-6)
    assert str(interval).endswith(" over 4 groups)")
    alone = interval_of(mean_of(values), ["a"] * 20, np.random.default_rng())
    assert (alone.low, alone.high) == (0, 1)
    assert str(alone) == "75.0% (95 % interval 0.0% to 100.0% over 1 group)"


def test_groups_without_a_wrong_video_are_taken_to_be_alike_inside() -> None:
    interval = interval_of(mean_of([1.0] * 160), [str(row // 20) for row in range(160)], np.random.default_rng())
    worth = 160 / (1 + 19 * 0.4)
    outside = norm.cdf(-1.959964 * t.ppf(0.975, 7) / t.ppf(0.975, 159))
    assert interval.low == pytest.approx(
        beta.ppf(outside, worth, 1)
    )  # 77.8 %; 160 independent videos would have 97.7 %
    # A second wrong video counts as one that tells of it, beside two.
    values = [1.0] * 158 + [0.0] * 2  # both in one group
    worse = interval_of(mean_of(values), [str(row // 20) for row in range(160)], np.random.default_rng())
    seen = 7 * float(np.var([138 / 140] * 7 + [1.0])) * 160 / (158 / 160 * 2 / 160)
    worth = 160 / max(seen, (seen + 2 * (1 + 19 * 0.4)) / 3)
    assert worse.low == pytest.approx(beta.ppf(outside, 158 / 160 * worth, 2 / 160 * worth + 1), abs=1e-6)


def test_few_groups_have_a_warning() -> None:
    four = Interval(0.9, 0.5, 1.0, 4)
    assert four.warning.startswith("the interval rests on 4 groups of videos, and fewer than 5 say little of others")
    assert four.to_dict() == {"value": 0.9, "low": 0.5, "high": 1.0, "num_groups": 4, "warning": four.warning}
    five = Interval(0.9, 0.5, 1.0, 5)
    assert five.warning == ""
    assert "warning" not in five.to_dict()


def test_more_groups_than_parts_are_joined() -> None:
    values = (np.random.default_rng(1).random(2000) < 0.8).astype(float).tolist()
    asked = []

    def figure(rows: Indices) -> float:
        asked.append(len(rows))
        return mean_of(values)(rows)

    interval = interval_of(figure, list(map(str, range(2000))), np.random.default_rng(0))
    assert asked == [2000] + [1990] * 200
    half = 1.96 * (0.8 * 0.2 / 2000) ** 0.5
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.15)
    assert interval.num_groups == 2000


def covered(
    num_groups: int, size: int, truth: float, correlation: float, interval: Callable[..., Interval] = interval_of
) -> float:
    """Return the share of 300 drawn data sets whose interval holds the truth; answers inside a group are correlated."""
    draw = np.random.default_rng(0)
    strength = 1 / correlation - 1
    chances = draw.beta(truth * strength, (1 - truth) * strength, (300, num_groups))
    rights, times = np.unique(np.sort(draw.binomial(size, chances)), axis=0, return_counts=True)
    groups = [str(row // size) for row in range(num_groups * size)]
    held = 0
    for counts, number in zip(rights.tolist(), times.tolist(), strict=True):
        found = interval(
            mean_of([float(row < count) for count in counts for row in range(size)]), groups, np.random.default_rng(0)
        )
        held += number * (found.low <= truth <= found.high)
    return held / 300


@pytest.mark.parametrize(
    ("num_groups", "size", "truth", "correlation"),
    [(4, 5, 0.9, 0.1), (4, 20, 0.8, 0.4), (8, 20, 0.95, 0.4), (20, 5, 0.95, 0.4)],
)
def test_intervals_cover_the_truth(num_groups: int, size: int, truth: float, correlation: float) -> None:
    """So they do in 93 % of data sets, with few groups, with large ones, and where nearly every answer is right."""
    assert covered(num_groups, size, truth, correlation) >= 0.93


def drawn_anew(figure: Callable[[Indices], float], groups: list[str], draw: np.random.Generator) -> Interval:
    """Return the percentiles of 200 data sets of whole groups drawn with replacement."""
    size = groups.count(groups[0])
    starts = size * draw.integers(len(set(groups)), size=(200, len(set(groups)), 1))
    values = [figure((start + np.arange(size)).ravel()) for start in starts]
    low, high = np.quantile(values, [0.025, 0.975]).tolist()
    return Interval(figure(np.arange(len(groups))), low, high, len(set(groups)))


def test_drawing_few_groups_anew_does_not_cover_the_truth() -> None:
    """The test above would find it."""
    assert covered(4, 5, 0.9, 0.1, drawn_anew) < 0.9
    assert covered(8, 20, 0.95, 0.4, drawn_anew) < 0.8


def test_temperature_and_calibration() -> None:
    generator = np.random.default_rng(0)
    logits_NK = generator.standard_normal((4000, 3), dtype=np.float32)
    # The largest of logits with Gumbel noise is drawn with the chance that the softmax gives it.
    targets_N = (logits_NK + generator.gumbel(size=logits_NK.shape)).argmax(axis=1)
    assert fit_temperature(3 * logits_NK, targets_N) == pytest.approx(3, rel=0.1)
    assert calibration_error(logits_NK, targets_N) < 0.03
    assert calibration_error(3 * logits_NK, targets_N) > 0.15


def test_too_sure_and_too_doubtful_do_not_cancel() -> None:
    sure = np.log([0.95, 0.05])
    doubtful = np.log([0.55, 0.45])
    error = calibration_error(np.stack([sure, doubtful]), np.array([1, 0]))  # wrong, and right
    assert error == pytest.approx((0.95 + 0.45) / 2)


def test_rejection_by_hand() -> None:
    confidence_N = np.linspace(4, 1, 10)
    logits_NK = np.stack([confidence_N, np.zeros(10)], axis=1)
    targets_N = np.array([0, 0, 0, 0, 1, 0, 1, 1, 1, 1])
    curve = rejection_curve(logits_NK[::-1], targets_N[::-1])
    assert curve[3] == (0.4, 1.0)
    assert curve[4] == (0.5, 0.8)
    assert curve[-1] == (1.0, 0.5)


def test_reliability_counts_answers_of_like_confidence() -> None:
    confidence_N, right_N = np.array([0.55, 0.65, 0.85, 0.95, 0.95, 1.0]), np.array([0, 1, 1, 1, 0, 1])
    (only,) = reliability(confidence_N, right_N, num_bins=2)
    assert [only.confidence, only.right, only.num_videos] == pytest.approx([4.95 / 6, 4 / 6, 6])
    last = reliability(confidence_N, right_N)[-1]
    assert [last.confidence, last.right, last.num_videos] == pytest.approx([2.9 / 3, 2 / 3, 3])
    assert sum(part.num_videos for part in reliability(confidence_N, right_N)) == 6
