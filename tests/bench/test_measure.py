"""Systems side by side: what is measured, in which ways, and how it is told."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fewframes.bench.clip import write_clip
from fewframes.bench.measure import bench
from fewframes.bench.results import Bench, BenchResult, Measurement, UnmeasuredBaseline
from fewframes.bench.scaling import Point, scale
from fewframes.bench.stopwatch import RunMode, Runner, in_own_process, percentile, significant
from fewframes.bench.tables import bench_text, figure_1, scaling_figure, scaling_text, write_picture
from fewframes.bench.turns import Shortcuts, costs_of, read_views, report_on, take_turn
from fewframes.data.dataset import VideoSet
from fewframes.data.layouts import Sample
from fewframes.errors import BenchError, ConfigError, MissingDependency, MissingVideo, WeightsError
from fewframes.models.baselines.catalogue import BASELINES, MODERN, OF_THE_PAPER, OURS, baseline_of
from fewframes.models.baselines.systems import Baseline, BaselineNetwork, Published, build
from fewframes.models.cost import Cost
from fewframes.models.devices import may_pay
from fewframes.models.presets import PRESETS
from fewframes.runtime import torch_runtime
from fewframes.sampling import Views
from fewframes.video.source import open_video
from fewframes.video.view import ViewConfig
from helpers.commands import run
from helpers.own_process import fails, peak_of_ones

CPU = torch.device("cpu")
TOO_LARGE = {"stam-32", "stam-64", "nonlocal-r101", "faster32", "vivit-b", "vjepa2-l", "swin3d-b"}
"""More than 250 GMACs a view; what they are built of is run by smaller ones."""


def square(size_px: int) -> ViewConfig:
    """Frames of this size, pixels as they are."""
    return ViewConfig(resize_px=size_px, crop_px=size_px, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


class Summing(nn.Module):
    """A network whose logits can be worked out by hand: the sum of what it is given, at class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, inputs: torch.Tensor | list[torch.Tensor]) -> torch.Tensor:
        parts = inputs if isinstance(inputs, list) else [inputs]
        self.seen += [tuple(part.shape) for part in parts]
        return sum(part.flatten(1).sum(1, keepdim=True) for part in parts) * self.weight * torch.tensor([[1.0, 0.0]])


def row(name: str = "tiny", *, passes: int = 2, batch: int = 4, decode_s: float | None = None) -> BenchResult:
    baseline = Baseline(
        build=Summing,
        frames=8,
        view=square(32),
        views=Views(num_clips=passes, num_crops=1),
        published=Published(top1=70.0),
    )
    mode = RunMode("float32", channels_last=False, batch=batch)
    turns = tuple(
        Measurement(
            mode, (seconds,) * 3, (0.1, 0.2), None if decode_s is None else decode_s * seconds, 5_000_000, 6.0, 1e12
        )
        for seconds in (1.0, 2.0, 4.0)
    )
    cost = Cost(2_000_000, 30.0, 10.0)
    return BenchResult(name, baseline, cost, cost, turns)


def test_seconds_of_a_video_are_those_of_all_its_views() -> None:
    one = row(decode_s=1.0)
    assert one.video_s == [0.5, 1.0, 2.0]  # two views of 1, 2, 4 s for four
    assert one.videos_s == 1.0
    assert one.videos_s_decoded == 1 / (1.0 + 2.0)
    assert row().videos_s_decoded is None
    assert one.rate_fraction == pytest.approx(
        80e9 * 4 / 2.0 / 1e12
    )  # FLOPs of four views over the middle turn's seconds
    values = one.to_dict()
    assert values["frames_read"] == 16
    assert values["joules_a_video"] == pytest.approx(6.0 / 3 / 4 * 2)
    assert (values["videos_s_least"], values["videos_s_most"]) == (0.5, 2.0)
    assert (values["memory_mb"], values["passes_timed"]) == (5, 9)


def test_percentiles_and_digits() -> None:
    assert [percentile([1.0, 2.0, 3.0, 4.0], fraction) for fraction in (0.0, 0.5, 0.75, 0.95)] == [1, 2, 3, 4]
    assert percentile([7.0], 0.95) == 7
    assert significant(0.0123456) == 0.01235


def test_every_baseline_is_built_for_its_own_protocol() -> None:
    assert set(BASELINES) == set(OURS) | set(OF_THE_PAPER) | set(MODERN)
    assert baseline_of("x3d-l").frames_read == 160
    assert baseline_of("x3d-l").passes == 30
    assert baseline_of("slowfast-8x8-r50").frames_read == 320
    assert baseline_of("stam-16").passes == 1
    assert baseline_of("faster32").passes == 1
    assert baseline_of("faster32").frames_read == 256
    assert baseline_of("faster32").frames_a_pass == 256
    assert baseline_of("timesformer-b").frames_read == 8  # its crops are of the same frames


@pytest.mark.filterwarnings("ignore")  # of the libraries that have the networks
@pytest.mark.parametrize("name", BASELINES)
def test_cost_of_a_view_is_what_was_published(name: str) -> None:
    baseline = BASELINES[name]
    cost, _ = costs_of(name, Shortcuts())
    if name in PRESETS:
        assert (cost.num_parameters, round(cost.gmacs, 3)) == (PRESETS[name].num_parameters, PRESETS[name].gmacs)
        return
    published, counted = baseline.published, cost.gmacs + cost.attention_gmacs
    share_off = {"oct-i3d-nl": 1.13, "nonlocal-r101": 0.93, "faster32": 0.90}.get(name, 1.0)  # said in baselines.py
    if published.params_m is not None:
        assert cost.num_parameters / 1e6 == pytest.approx(published.params_m, rel=0.02)
    if published.gmacs is not None:
        assert counted == pytest.approx(share_off * published.gmacs, rel=0.03)
    assert counted > 0


@pytest.mark.filterwarnings("ignore")  # of the libraries that have the networks
@pytest.mark.parametrize("name", [name for name in BASELINES if name not in TOO_LARGE])
def test_every_baseline_runs_on_its_own_views(name: str) -> None:
    baseline = BASELINES[name]
    runner = Runner(build(baseline), baseline, CPU)
    precision = "bfloat16" if may_pay(torch.bfloat16, CPU) else "float32"  # where a CPU has none, one takes minutes
    runner.take(RunMode(precision, channels_last=True))
    logits_VK = runner.run(runner.input_of(1))
    assert logits_VK.shape == (1, PRESETS[name].model.num_classes if name in PRESETS else 400)
    assert logits_VK.isfinite().all()


def test_unknown_names_and_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"no system 'x3dl', and no file of that name; did you mean 'x3d-l'"):
        bench(["x3dl"])
    with pytest.raises(ConfigError, match="no systems were named; there are stam-16"):
        bench([])
    with pytest.raises(ConfigError, match="weights for 'eco', which is not measured"):
        bench(["tsm-r50"], weights={"eco": "x"})
    with pytest.raises(ConfigError, match="weights for 'stam-16', which is ours: name the file itself as a system"):
        bench(["stam-16"], weights={"stam-16": "x"})
    with pytest.raises(ConfigError, match="weights for 'eco': nowhere.pth: no such file"):
        bench(["eco"], weights={"eco": "nowhere.pth"})
    with pytest.raises(ConfigError, match="weights for 'eco' change no speed; they need labelled videos"):
        bench(["eco"], weights={"eco": __file__})
    with pytest.raises(ValueError, match="rounds = 0: needs at least 1"):
        bench(["eco"], rounds=0)
    with pytest.raises(MissingVideo, match="nowhere.mp4"):
        bench(["eco"], clip="nowhere.mp4")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"^needs pytorchvideo; pip install 'fewframes\[baselines\]'"):
        build(baseline_of("x3d-m"))


def test_a_baseline_gets_its_own_kind_of_input() -> None:
    pixels_BTCHW = torch.rand(1, 32, 3, 2, 2)
    view = ViewConfig(resize_px=2, crop_px=2, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    shapes = {
        "clip": [(1, 3, 32, 2, 2)],
        "clips": [(1, 3, 32, 2, 2)],
        "frames": [(1, 32, 3, 2, 2)],
        "pathways": [(1, 3, 8, 2, 2), (1, 3, 32, 2, 2)],
    }
    normal = (pixels_BTCHW - torch.tensor(view.mean).view(3, 1, 1)) / torch.tensor(view.std).view(3, 1, 1)
    for takes, wanted in shapes.items():
        network = Summing()
        logits_BK = BaselineNetwork(network, takes, view)(pixels_BTCHW)  # type: ignore[arg-type]
        assert network.seen == wanted
        slow = normal[:, [0, 4, 8, 13, 17, 22, 26, 31]].sum() if takes == "pathways" else 0
        assert_close(logits_BK[0, 0], normal.sum() + slow)


def test_ways_are_found_and_taken() -> None:
    first = nn.Conv3d(3, 8, 3, padding=1)
    network = nn.Sequential(first, nn.AdaptiveAvgPool3d(1), nn.Flatten())
    baseline = Baseline(build=Summing, frames=4, view=square(16))
    runner = Runner(BaselineNetwork(network, "clip", square(16)), baseline, CPU)
    mode = runner.best_mode(0.01)
    assert mode.dtype in {"float32", "bfloat16"}
    assert mode.batch >= 1
    runner.take(RunMode("bfloat16", channels_last=True))
    assert first.weight.dtype == torch.bfloat16
    assert first.weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert runner.input_of(3).shape == (3, 4, 3, 16, 16)
    assert len(runner.seconds_of(1, 0)) == 1
    assert len(runner.seconds_of(1, 1e-9)) == 2
    assert all(seconds > 0 for seconds in runner.seconds_of(1, 0.01))


def test_a_model_of_ours_is_measured_with_as_many_frames_at_once_as_it_predicts_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    baseline = BASELINES["lite0-16"]
    runner = Runner(build(baseline), baseline, CPU)
    assert runner.predictor is not None
    runtime, sizes = runner.predictor.torch, set()

    def embedded(part: torch.Tensor) -> torch.Tensor:
        sizes.add(len(part))
        return torch.zeros(len(part), runtime.frame_width)

    monkeypatch.setattr(runtime, "_embed", embedded)
    monkeypatch.setattr(torch_runtime, "num_threads", lambda: 1)
    for name, at_once in (("float32", 4), ("bfloat16", 8)):
        sizes.clear()
        runner.take(RunMode(name, channels_last=True))
        runner.run(runner.input_of(1))
        assert sizes == {at_once}


def test_scores_are_the_mean_over_views() -> None:
    runner = Runner(
        BaselineNetwork(Summing(), "clip", square(1)), Baseline(build=Summing, frames=1, view=square(1)), CPU
    )
    views_VTCHW = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1, 1).expand(2, 1, 3, 1, 1)
    sums = torch.tensor([0.0, 3.0])
    expected = torch.stack([sums, torch.zeros(2)], 1).softmax(1).mean(0)
    assert_close(runner.scores(views_VTCHW), expected)


def test_memory_is_what_is_held_above_an_empty_process() -> None:
    peak_bytes = in_own_process(peak_of_ones)
    if peak_bytes is None:
        pytest.skip("this system does not say what a process holds")
    assert 45 * 2**20 < peak_bytes < 95 * 2**20


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raise", "ZeroDivisionError: by nothing"),
        ("own", "out of something"),
        ("exit", "most likely for want of memory"),
    ],
)
def test_what_fails_in_its_own_process_is_told_here(name: str, said: str) -> None:
    with pytest.raises(BenchError, match=said):
        in_own_process(fails, name)


def test_a_made_clip_is_ten_seconds(tmp_path: Path) -> None:
    with closing(open_video(str(write_clip(tmp_path / "clip.mp4")))) as video:
        assert video.duration_s == pytest.approx(10, abs=0.05)
        frames_TCHW = video.frames_at(np.array([1.0, 9.0])).frames
    assert frames_TCHW.shape == (2, 3, 256, 340)
    assert not np.array_equal(frames_TCHW[0], frames_TCHW[1])


def test_views_are_read_clip_after_clip(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    baseline = Baseline(build=Summing, frames=4, view=square(64), views=Views(num_clips=2, num_crops=3, clip_s=1.0))
    assert read_views(baseline, str(clip)).shape == (6, 4, 3, 64, 64)
    merged = Baseline(
        build=Summing, frames=4, view=square(64), views=Views(num_clips=2, num_crops=1, clip_s=1.0), takes="clips"
    )
    assert read_views(merged, str(clip)).shape == (1, 8, 3, 64, 64)


def test_baselines_take_turns_and_one_that_fails_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path
) -> None:
    taken: list[tuple[str, bool]] = []

    def noted(work: Callable[..., object], *arguments: object) -> object:
        if arguments[0] == "tsm-r50" and work is take_turn:
            raise BenchError("out of something")
        if work is take_turn:
            taken.append((str(arguments[0]), arguments[3] is None))
        return work(*arguments)

    monkeypatch.setattr("fewframes.bench.measure.in_own_process", noted)
    one, other = str(tiny_model), str(tmp_path / "other.safetensors")
    Path(other).write_bytes(tiny_model.read_bytes())
    result = bench([one, "tsm-r50", other, one], rounds=2, seconds=0.01, device="cpu")
    assert taken == [(one, True), (other, True), (one, False), (other, False)]  # the mode is looked for once
    assert [row.name for row in result.rows] == [one, other]
    for measured in result.rows:
        assert measured.videos_s > 0
        assert measured.turns[0].mode == measured.turns[1].mode
    assert result.missed == (UnmeasuredBaseline("tsm-r50", "out of something"),)
    assert set(result.matrix_gflops_s) <= {"float32", "bfloat16"}


def test_an_interruption_leaves_what_was_measured(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    def interrupted(work: Callable[..., object], *arguments: object) -> object:
        if work is take_turn and arguments[3] is not None:
            raise KeyboardInterrupt
        return work(*arguments)

    monkeypatch.setattr("fewframes.bench.measure.in_own_process", interrupted)
    result = bench([str(tiny_model)], rounds=2, seconds=0.01, device="cpu")
    assert result.interrupted
    assert len(result.rows[0].turns) == 1


def test_only_those_with_weights_are_evaluated(videos: Path, tiny_model: Path) -> None:
    labelled = VideoSet(
        (Sample(path=str(videos / "a.mp4"), labels=("hug",)), Sample(path=str(videos / "b.mp4"), labels=("kick",))),
        "two",
    )
    report = report_on(str(tiny_model), labelled, None, "cpu")
    assert report is not None
    assert report.num_videos == 2
    assert report_on("tsm-r50", labelled, None, "cpu") is None


def test_a_baseline_with_weights_is_evaluated_by_kinetics_names(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = nn.Linear(3, 400)
    nn.init.zeros_(head.weight)
    with torch.no_grad():
        head.bias[:] = torch.eye(400)[5]  # always arm wrestling
    network = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), head)
    torch.save({"model_state": network.state_dict(), "epoch": 7}, tmp_path / "weights.pth")  # as PyTorchVideo has them
    monkeypatch.setitem(BASELINES, "always", Baseline(build=lambda: network, frames=2, view=square(16)))
    labelled = VideoSet(
        (
            Sample(path=str(videos / "a.mp4"), labels=("Arm_Wrestling",)),
            Sample(path=str(videos / "b.mp4"), labels=("archery",)),
        ),
        "two",
    )
    report = report_on("always", labelled, str(tmp_path / "weights.pth"), "cpu")
    assert report is not None
    assert report.top1 == 0.5
    assert report.confusion[5, 5] == 1
    with pytest.raises(WeightsError, match="do not fit this network"):
        report_on("always", labelled, str(_wrong(tmp_path)), "cpu")


def _wrong(folder: Path) -> Path:
    torch.save({"other": torch.ones(1)}, folder / "wrong.pth")
    return folder / "wrong.pth"


def test_tables_and_pictures(tmp_path: Path) -> None:
    result = Bench((row(decode_s=1.0), row("other")), (), "a machine", 3, 1.0, "clip.mp4", {"float32": 1000.0})
    assert json.loads(bench_text(result.to_dict(), "json"))["rows"][1]["name"] == "other"
    first = next(csv.DictReader(io.StringIO(bench_text(result.to_dict(), "csv"))))
    assert first["published_top1"] == "70.0"
    lines = bench_text(result.to_dict(), "markdown").splitlines()
    assert lines[0].count("|") == lines[2].count("|") == lines[-1].count("|")
    assert "K400 70.0" in lines[2]
    assert "LFB + NL" in lines[-1]
    assert len(bench_text(result.to_dict(), "table").splitlines()) == 3
    write_picture(figure_1(result.to_dict()), tmp_path / "figure.svg")
    assert "<svg" in (tmp_path / "figure.svg").read_text()
    points = [Point("factorised", 4, 10.0, 1.0, 0.5, 10), Point("joint", 4, 20.0, 11.0, None, None, "too long")]
    assert "too long" in scaling_text(points, "table")
    assert json.loads(scaling_text(points, "json"))[0]["seconds"] == 0.5
    write_picture(scaling_figure(points, "vit-ti-16"), tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").stat().st_size > 1000


def test_joint_attention_grows_with_the_square_of_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewframes.bench.scaling.in_own_process", lambda work, *arguments: work(*arguments))
    monkeypatch.setattr("fewframes.bench.scaling._measure", lambda *arguments: (0.1, 1))
    points = scale(frames=[4, 8], device="cpu")
    attention = {(point.layout, point.frames): point.attention_gmacs for point in points}
    assert attention["joint", 8] / attention["joint", 4] == pytest.approx(4, rel=0.01)
    assert attention["factorised", 8] / attention["factorised", 4] == pytest.approx(2, rel=0.01)
    with pytest.raises(ConfigError, match="has no ViT"):
        scale("lite0-16")
    with pytest.raises(ConfigError, match="no preset 'vit-ti'; did you mean 'vit-ti-16'"):
        scale("vit-ti")


def test_the_command_measures_in_processes_of_their_own(tiny_model: Path, tmp_path: Path) -> None:
    picture = tmp_path / "figure.png"
    done = run(
        "bench",
        str(tiny_model),
        "--rounds",
        "2",
        "--seconds",
        "0.01",
        "--json",
        "--plot",
        str(picture),
        "--output",
        str(tmp_path / "all"),
        "--device",
        "cpu",
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["rows"][0]["decode_s"] > 0
    assert measured["rounds"] == 2
    assert picture.stat().st_size > 1000
    written = {path.name for path in (tmp_path / "all").iterdir()}
    assert written == {"bench.json", "bench.csv", "table.md", "figure1.png"}
    assert json.loads((tmp_path / "all" / "bench.json").read_text()) == measured
    assert run("bench", "--output", "/proc/all").returncode == 2
    assert run("bench", "--plot", tmp_path / "figure.jpg").returncode == 2
    assert run("bench", "--plot", "/proc/figure.png").returncode == 2
    assert run("bench", "--scaling", "--table").returncode == 2
    assert run("bench", "--scaling", "--frames", "4,x").returncode == 2
    assert run("bench", "tsm-r50", "--weights", "tsm-r50").returncode == 2
    listed = run("bench", "--list")
    assert "slowfast-8x8-r50" in listed.stdout


def test_levers_are_of_ours_alone() -> None:
    shortcuts = Shortcuts(tolerance=0.25, merge=13)
    assert shortcuts.baseline("stam-16").views.tolerance == 0.25
    assert shortcuts.baseline("x3d-m") == baseline_of("x3d-m")
    whole, merged = costs_of("stam-16", shortcuts)
    _, plain = costs_of("stam-16", Shortcuts())
    # 12 blocks; of the last one nothing but keys, values and the class token are computed: about a sixth of it is left.
    assert 0.92 < plain.gmacs / whole.gmacs < 0.94
    assert 0.6 < merged.gmacs / whole.gmacs < 0.75
    lite, same = costs_of("lite0-16", shortcuts)
    assert lite == same
