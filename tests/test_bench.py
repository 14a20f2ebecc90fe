"""Systems side by side: what is measured, in which ways, and how it is told."""

from __future__ import annotations

import csv
import io
import json
import math
from contextlib import closing
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fewframes import stopwatch
from fewframes.bench import Bench, Missed, Row, Turn, bench, cost_of, read_views, report_on, take_turn, write_clip
from fewframes.compared import bench_text, figure_1, scaling_figure, scaling_text, write_picture
from fewframes.contenders import (
    CONTENDERS,
    MODERN,
    OF_THE_PAPER,
    OURS,
    Contender,
    Published,
    Rival,
    build,
    contender_of,
)
from fewframes.data import VideoSet
from fewframes.errors import ConfigError, MissingDependency, WeightsError
from fewframes.layouts import Sample
from fewframes.metrics import Cost
from fewframes.presets import PRESETS
from fewframes.sampling import Views
from fewframes.scaling import Point, scale
from fewframes.stopwatch import Runner, Way, matrix_flops_s, percentile, significant
from fewframes.video import open_video
from test_cli import run

CPU = torch.device("cpu")


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


def row(name: str = "tiny", *, passes: int = 2, batch: int = 4, decode_s: tuple[float, ...] = ()) -> Row:
    contender = Contender(
        build=Summing, frames=8, size_px=32, views=Views(num_clips=passes, num_crops=1), published=Published(top1=70.0)
    )
    way = Way("float32", channels_last=False, batch=batch)
    turns = tuple(Turn(way, (seconds,) * 3, (0.1, 0.2), 5_000_000, 6.0, 1e12) for seconds in (1.0, 2.0, 4.0))
    return Row(name, contender, Cost(2_000_000, 30.0, 10.0), turns, decode_s)


def test_seconds_of_a_video_are_those_of_all_its_views() -> None:
    one = row(decode_s=(3.0, 1.0, 2.0))
    assert one.video_s == [0.5, 1.0, 2.0]  # two views of 1, 2, 4 s for four
    assert one.videos_s == 1.0
    assert one.videos_s_decoded == 1 / (1.0 + 2.0)
    assert row().videos_s_decoded is None
    assert one.rate_share == pytest.approx(80e9 * 4 / 2.0 / 1e12)  # FLOPs of four views over the middle turn's seconds
    values = one.to_dict()
    assert values["frames_read"] == 16
    assert values["joules_a_video"] == pytest.approx(6.0 / 3 / 4 * 2)
    assert values["videos_s_least"], values["videos_s_most"] == (0.5, 2.0)
    assert values["memory_mb"] == 5


def test_percentiles_and_digits() -> None:
    assert [percentile([1.0, 2.0, 3.0, 4.0], share) for share in (0.0, 0.5, 0.75, 0.95)] == [1, 2, 3, 4]
    assert percentile([7.0], 0.95) == 7
    assert significant(0.0123456) == 0.01235


def test_every_contender_is_built_for_its_own_protocol() -> None:
    assert set(CONTENDERS) == set(OURS) | set(OF_THE_PAPER) | set(MODERN)
    assert contender_of("x3d-l").frames_read == 160
    assert contender_of("x3d-l").passes == 30
    assert contender_of("slowfast-8x8-r50").frames_read == 320
    assert contender_of("stam-16").passes == 1
    assert contender_of("faster32").passes == 1
    assert contender_of("faster32").frames_read == 256
    assert contender_of("timesformer-b").frames_read == 8  # its crops are of the same frames


@pytest.mark.filterwarnings("ignore")  # of the libraries that have the networks
@pytest.mark.parametrize("name", CONTENDERS)
def test_cost_of_a_view_is_what_was_published(name: str) -> None:
    contender = CONTENDERS[name]
    cost = cost_of(name)
    if name in PRESETS:
        assert cost == Cost(
            *(getattr(PRESETS[name], part) for part in ("num_parameters", "gmacs", "attention_gmacs"))
        ) or (cost.gmacs == pytest.approx(PRESETS[name].gmacs, abs=1e-3))
        return
    published = contender.published
    short_by = {"oct-i3d-nl": 0.13, "nonlocal-r101": 0.08, "faster32": 0.11}  # said in baselines.py
    if published.params_m is not None:
        assert cost.num_parameters / 1e6 == pytest.approx(published.params_m, rel=0.02)
    if published.gmacs is not None:
        attention = cost.attention_gmacs
        assert cost.gmacs + attention == pytest.approx(published.gmacs, rel=short_by.get(name, 0.03))


def test_unknown_names_and_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"no contender 'x3dl', and no file of that name; did you mean 'x3d-l'"):
        bench(["x3dl"])
    with pytest.raises(ConfigError, match="no contenders were named; there are stam-16"):
        bench([])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"^needs pytorchvideo; pip install 'fewframes\[baselines\]'"):
        build(contender_of("x3d-m"))


def test_a_rival_gets_its_own_kind_of_input() -> None:
    pixels_BTCHW = torch.rand(1, 8, 3, 4, 4)
    shapes = {
        "clip": [(1, 3, 8, 4, 4)],
        "clips": [(1, 3, 8, 4, 4)],
        "frames": [(1, 8, 3, 4, 4)],
        "pathways": [(1, 3, 2, 4, 4), (1, 3, 8, 4, 4)],
    }
    for takes, wanted in shapes.items():
        network = Summing()
        logits_BK = Rival(network, takes)(pixels_BTCHW)  # type: ignore[arg-type]
        assert network.seen == wanted
        if takes != "pathways":
            assert_close(logits_BK[0, 0], ((pixels_BTCHW - 0.45) / 0.225).sum())


def test_ways_are_found_and_taken() -> None:
    first = nn.Conv3d(3, 8, 3, padding=1)
    network = nn.Sequential(first, nn.AdaptiveAvgPool3d(1), nn.Flatten())
    contender = Contender(build=Summing, frames=4, size_px=16)
    runner = Runner(Rival(network, "clip"), contender, CPU)
    way = runner.best_way(0.01)
    assert way.dtype in {"float32", "bfloat16"}
    assert way.batch >= 1
    runner.take(Way("bfloat16", channels_last=True))
    assert first.weight.dtype == torch.bfloat16
    assert first.weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert runner.input_of(3).shape == (3, 4, 3, 16, 16)
    assert len(runner.seconds_of(1, 0)) == 1
    assert len(runner.seconds_of(1, 1e-9)) == 2
    assert all(seconds > 0 for seconds in runner.seconds_of(1, 0.01))


def test_scores_are_the_mean_over_views() -> None:
    runner = Runner(Rival(Summing(), "clip"), Contender(build=Summing, frames=1, size_px=1), CPU)
    views_VTCHW = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1, 1).expand(2, 1, 3, 1, 1)
    sums = torch.tensor([3 * (0 - 0.45) / 0.225, 3 * (1 - 0.45) / 0.225])
    expected = torch.stack([sums, torch.zeros(2)], 1).softmax(1).mean(0)
    assert_close(runner.scores(views_VTCHW), expected)


def test_the_rate_of_matrix_products_is_no_slower_than_one_of_them() -> None:
    assert math.isfinite(matrix_flops_s(torch.float32, CPU, 0.0))


def test_a_made_clip_is_ten_seconds(tmp_path: Path) -> None:
    with closing(open_video(str(write_clip(tmp_path / "clip.mp4")))) as video:
        assert video.duration_s == pytest.approx(10, abs=0.05)
        frames_TCHW = video.frames_at(torch.tensor([1.0, 9.0])).frames
    assert frames_TCHW.shape == (2, 3, 256, 340)
    assert not torch.equal(frames_TCHW[0], frames_TCHW[1])


def test_views_are_read_clip_after_clip(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    contender = Contender(build=Summing, frames=4, size_px=64, views=Views(num_clips=2, num_crops=3, clip_s=1.0))
    assert read_views(contender, str(clip)).shape == (6, 4, 3, 64, 64)
    merged = Contender(
        build=Summing, frames=4, size_px=64, views=Views(num_clips=2, num_crops=1, clip_s=1.0), takes="clips"
    )
    assert read_views(merged, str(clip)).shape == (1, 8, 3, 64, 64)


def test_contenders_take_turns_and_one_that_fails_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path
) -> None:
    turns = []
    real = stopwatch.in_own_process

    def noted(work, *arguments):  # type: ignore[no-untyped-def]
        if work is take_turn:
            turns.append(arguments[0])
        return work(*arguments) if "tsm" not in str(arguments[0]) else real(_fails)

    monkeypatch.setattr("fewframes.bench.in_own_process", noted)
    other = tmp_path / "other.safetensors"
    other.write_bytes(tiny_model.read_bytes())
    result = bench([str(tiny_model), "tsm-r50", str(other)], rounds=2, seconds=0.01, device="cpu")
    assert turns == [str(tiny_model), str(other)] * 2
    assert [row.name for row in result.rows] == [str(tiny_model), str(other)]
    assert all(row.videos_s > 0 and len(row.turns) == 2 for row in result.rows)
    assert {row.turns[0].way for row in result.rows} == {row.turns[1].way for row in result.rows} or len(
        result.rows
    ) == 2
    assert result.missed == (Missed("tsm-r50", "out of something"),)
    assert set(result.matrix_gflops_s) <= {"float32", "bfloat16"}


def _fails() -> None:
    raise RuntimeError("out of something")


def test_only_those_with_weights_are_judged(videos: Path, tiny_model: Path) -> None:
    labelled = VideoSet(
        (Sample(path=str(videos / "a.mp4"), labels=("hug",)), Sample(path=str(videos / "b.mp4"), labels=("kick",))),
        "two",
    )
    report = report_on(str(tiny_model), labelled, None, "cpu")
    assert report is not None
    assert report.num_videos == 2
    assert report_on("tsm-r50", labelled, None, "cpu") is None


def test_a_rival_with_weights_is_judged_by_kinetics_names(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = nn.Linear(3, 400)
    nn.init.zeros_(head.weight)
    with torch.no_grad():
        head.bias[:] = torch.eye(400)[5]  # always arm wrestling
    network = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), head)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    monkeypatch.setitem(CONTENDERS, "always", Contender(build=lambda: network, frames=2, size_px=16))
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
    result = Bench((row(decode_s=(1.0,)), row("other")), (), "a machine", 3, 1.0, "clip.mp4", {"float32": 1000.0})
    assert json.loads(bench_text(result, "json"))["rows"][1]["name"] == "other"
    first = next(csv.DictReader(io.StringIO(bench_text(result, "csv"))))
    assert first["published_top1"] == "70.0"
    lines = bench_text(result, "markdown").splitlines()
    assert lines[0].count("|") == lines[2].count("|") == lines[-1].count("|")
    assert "70.0 (published)" in lines[2]
    assert "LFB + NL" in lines[-1]
    assert len(bench_text(result, "table").splitlines()) == 3
    write_picture(figure_1(result), tmp_path / "figure.svg")
    assert "<svg" in (tmp_path / "figure.svg").read_text()
    points = [Point("factorised", 4, 10.0, 1.0, 0.5, 10), Point("joint", 4, 20.0, 11.0, None, None, "too long")]
    assert "too long" in scaling_text(points, "table")
    assert json.loads(scaling_text(points, "json"))[0]["seconds"] == 0.5
    write_picture(scaling_figure(points, "vit-ti-16"), tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").stat().st_size > 1000


def test_joint_attention_grows_with_the_square_of_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewframes.scaling.in_own_process", lambda work, *arguments: work(*arguments))
    monkeypatch.setattr("fewframes.scaling._measure", lambda *arguments: (0.1, 1, Way("float32", channels_last=False)))
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
        "--device",
        "cpu",
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["rows"][0]["decode_s"] > 0
    assert measured["rounds"] == 2
    assert picture.stat().st_size > 1000
    assert run("bench", "--plot", "figure.jpg").returncode == 2
    assert run("bench", "--scaling", "--frames", "4,x").returncode == 2
    assert run("bench", "tsm-r50", "--weights", "tsm-r50").returncode == 2
    listed = run("bench", "--list")
    assert "slowfast-8x8-r50" in listed.stdout
