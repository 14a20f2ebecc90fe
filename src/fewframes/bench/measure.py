"""Contenders -> what each costs on this machine: videos/s, latency, memory, energy, in turns and each in a process of its own.

A turn of a contender is a fresh process: it builds the network, warms up, measures, and ends, so that no one's memory, threads
or kernels are in another's way. All contenders have their first turn before any has its second (A B A B).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import av
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewframes.bench.contenders import (
    CONTENDERS,
    FPS,
    NUM_CLASSES,
    OURS,
    Baseline,
    BaselineNetwork,
    build,
    contender_of,
    has_weights,
    load_weights,
)
from fewframes.bench.stopwatch import Energy, Memory, RunMode, Runner, in_own_process, percentile, significant
from fewframes.core.devices import choose_device, machine_name, matrix_flops_s
from fewframes.core.metrics import Cost, Report, count_cost, score
from fewframes.core.settings import settings_from
from fewframes.data.dataset import VideoSet
from fewframes.errors import ConfigError, DataError, FewframesError, VideoError, nearest
from fewframes.inference.predictor import DTYPES, Predictor
from fewframes.models.hub import load_checkpoint
from fewframes.models.release import kinetics_labels
from fewframes.models.stam import STAM, SpatialEncoder
from fewframes.models.token_merging import merge_tokens
from fewframes.training.evaluate import indices_of, targets_for
from fewframes.training.scoring import score_videos
from fewframes.video.sampling import Views
from fewframes.video.source import open_video
from fewframes.video.transforms import crops_of

Progress = Callable[[str, int, int, str], None]
"""Called with the stage, how much of it is done, how much there is, and what is done now."""
PACKAGES = ("torch", "torchvision", "timm", "transformers", "pytorchvideo", "av", "fewframes")
MADE_WIDTH, MADE_HEIGHT = 340, 256
RATE_SIDES = {"cpu": 4096, "cuda": 8192}


@dataclass(frozen=True)
class Shortcuts:
    """What of ours is made cheaper; others are as they are."""

    tolerance: float = 0.0
    merge: int = 0

    def contender(self, name: str) -> Baseline:
        """The contender of this name, its moments as free as they may be."""
        contender = contender_of(name)
        if not self.tolerance or (name in CONTENDERS and name not in OURS):
            return contender
        views = settings_from(Views, {**vars(contender.views), "tolerance": self.tolerance}, "bench")
        return replace(contender, views=views)

    def merged(self, network: nn.Module) -> int:
        """Patches to merge in each block of this network: none where it is no ViT of ours."""
        return self.merge if isinstance(getattr(network, "frame_encoder", None), SpatialEncoder) else 0


NO_LEVERS = Shortcuts()


@dataclass(frozen=True)
class Measurement:
    """What one turn measured: seconds of each pass of `way.batch` views, seconds of each pass of one view, seconds to decode all
    views of the clip, bytes of memory above an empty process, joules of all passes where the platform counts them, and the
    machine's rate of matrix products in `way`'s precision, in FLOP/s."""

    way: RunMode
    pass_s: tuple[float, ...]
    view_s: tuple[float, ...]
    decode_s: float | None
    memory_bytes: int | None
    joules: float | None
    matrix_flops_s: float
    tried: Mapping[RunMode, float | None] = field(default_factory=dict)
    """Seconds of a view in each way that was looked at; None where it failed."""


@dataclass(frozen=True)
class BenchResult:
    """One contender: what it costs by count, what was measured in each turn, and how it did on labelled videos."""

    name: str
    contender: Baseline = field(repr=False)
    cost: Cost
    """By the whole network."""
    computed: Cost
    """As it is run: ours without the part of the last block that nothing reads, and with patches merged."""
    turns: tuple[Measurement, ...]
    report: Report | None = None
    """On the user's videos, where it has weights."""

    @property
    def video_s(self) -> list[float]:
        """Seconds that the network needs for one video, all views, by turn."""
        return [self.contender.passes * statistics.median(turn.pass_s) / turn.way.batch for turn in self.turns]

    @property
    def videos_s(self) -> float:
        """Videos/s of the network alone, median over turns."""
        return 1 / statistics.median(self.video_s)

    @property
    def decode_s(self) -> float | None:
        """Seconds to decode all views of the clip, median over turns; None where nothing was decoded."""
        seconds = [turn.decode_s for turn in self.turns if turn.decode_s is not None]
        return statistics.median(seconds) if seconds else None

    @property
    def videos_s_decoded(self) -> float | None:
        """Videos/s with decoding and the network one after the other; None where nothing was decoded."""
        return None if self.decode_s is None else 1 / (statistics.median(self.video_s) + self.decode_s)

    @property
    def rate_share(self) -> float:
        """Share of the machine's rate of matrix products, attention's included, median over turns."""
        flops = 1e9 * self.computed.gflops
        shares = [flops * turn.way.batch / statistics.median(turn.pass_s) / turn.matrix_flops_s for turn in self.turns]
        return statistics.median(shares)

    def to_dict(self) -> dict[str, object]:
        """Plain values: a line of the table."""
        way, contender = self.turns[0].way, self.contender
        view_s = sorted(seconds for turn in self.turns for seconds in turn.view_s)
        joules = [turn.joules / len(turn.pass_s) / way.batch for turn in self.turns if turn.joules is not None]
        memory = [turn.memory_bytes for turn in self.turns if turn.memory_bytes is not None]
        decoded = self.videos_s_decoded
        return {
            "name": self.name,
            "parameters_m": round(self.cost.num_parameters / 1e6, 2),
            "gmacs_a_view": round(self.cost.gmacs, 2),
            "attention_gmacs_a_view": round(self.cost.attention_gmacs, 2),
            "gmacs_computed_a_view": round(self.computed.gmacs + self.computed.attention_gmacs, 2),
            "tolerance": contender.views.tolerance,
            "views": contender.passes,
            "frames_read": contender.frames_read,
            "videos_s": significant(self.videos_s),
            "videos_s_least": significant(1 / max(self.video_s)),
            "videos_s_most": significant(1 / min(self.video_s)),
            "videos_s_decoded": None if decoded is None else significant(decoded),
            "decode_s": None if self.decode_s is None else significant(self.decode_s),
            "view_ms_p50": significant(1e3 * percentile(view_s, 0.5)),
            "view_ms_p95": significant(1e3 * percentile(view_s, 0.95)),
            "views_a_pass": way.batch,
            "precision": way.dtype,
            "channels_last": way.channels_last,
            "ms_a_view_in_other_ways": {
                tried.describe(): None if view_s is None else significant(1e3 * view_s)
                for tried, view_s in self.turns[0].tried.items()
            },
            "share_of_matrix_rate": round(self.rate_share, 3),
            "memory_mb": round(max(memory) / 1e6) if memory else None,
            "passes_timed": sum(len(turn.pass_s) for turn in self.turns),
            "top1": None if self.report is None else round(100 * self.report.top1, 1),
            "videos_judged": None if self.report is None else self.report.num_videos,
            "joules_a_video": significant(statistics.median(joules) * contender.passes) if joules else None,
            "published": asdict(contender.published),
        }


@dataclass(frozen=True)
class UnmeasuredBaseline:
    """A contender that could not be measured, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Bench:
    """All of it: the rows, who is missing, the machine, and what was done."""

    rows: tuple[BenchResult, ...]
    missed: tuple[UnmeasuredBaseline, ...]
    machine: str
    rounds: int
    seconds: float
    clip: str
    matrix_gflops_s: dict[str, float]
    interrupted: bool = False

    def to_dict(self) -> dict[str, object]:
        """Plain values."""
        return {
            "machine": self.machine,
            "versions": {package: version(package) for package in PACKAGES if find_spec(package) is not None},
            "interrupted": self.interrupted,
            "rounds": self.rounds,
            "seconds_a_turn": self.seconds,
            "clip": self.clip,
            "matrix_gflops_s": self.matrix_gflops_s,
            "rows": [row.to_dict() for row in self.rows],
            "missed": [asdict(missed) for missed in self.missed],
        }


def bench(
    names: Sequence[str],
    *,
    device: str = "auto",
    rounds: int = 3,
    seconds: float = 3.0,
    clip: str | None = None,
    data: VideoSet | None = None,
    weights: Mapping[str, str] | None = None,
    tolerance: float = 0.0,
    merge: int = 0,
    progress: Progress = lambda stage, done, total, words: None,
) -> Bench:
    """Measure these contenders by turns: `rounds` turns each, of about `seconds`; `clip` is the video that is decoded (none:
    decoding is not measured). With `data`, those that have weights, of their own or the file that `weights` has for their name,
    are judged as well. `tolerance` and `merge` are of ours alone: how far moments may move when the clip is decoded, and how many
    patches are merged in each block of a ViT. One that cannot be built, run or judged is reported, the others go on; an
    interruption (Ctrl-C) ends it with what was measured. Raises ConfigError for a name that is unknown and VideoError for a clip
    that cannot be read."""
    names, weights, levers = list(dict.fromkeys(names)), weights or {}, Shortcuts(tolerance, merge)
    _check(names, weights, rounds, data)
    if clip is not None:
        read_views(contender_of(names[0]), clip)
    chosen = choose_device(device)
    state = _State({name: [] for name in names}, {}, {}, {}, levers)
    interrupted = False
    try:
        for number in range(rounds):
            for place, name in enumerate(names):
                done = number * len(names) + place
                progress("measuring", done, rounds * len(names), f"turn {number + 1} of {rounds}: {name}")
                state.measure(name, str(chosen), seconds, clip)
        for place, name in enumerate(names if data is not None else ()):
            progress("judging", place, len(names), name)
            state.judge(name, data, weights.get(name), device)
    except KeyboardInterrupt:
        interrupted = True
    rows = state.rows()
    rates: dict[str, list[float]] = {}
    for turn in (turn for row in rows for turn in row.turns):
        rates.setdefault(turn.way.dtype, []).append(turn.matrix_flops_s / 1e9)
    return Bench(
        rows=rows,
        missed=tuple(state.missed.values()),
        machine=machine_name(chosen),
        rounds=rounds,
        seconds=seconds,
        clip="" if clip is None else Path(clip).name,
        matrix_gflops_s={dtype: significant(statistics.median(values)) for dtype, values in rates.items()},
        interrupted=interrupted,
    )


@dataclass(frozen=True)
class _State:
    """What is known so far, by name."""

    turns: dict[str, list[Measurement]]
    costs: dict[str, tuple[Cost, Cost]]
    reports: dict[str, Report | None]
    missed: dict[str, UnmeasuredBaseline]
    levers: Shortcuts

    def measure(self, name: str, device: str, seconds: float, clip: str | None) -> None:
        """One more turn of this contender, unless it failed before."""
        if name in self.missed:
            return
        try:
            if name not in self.costs:
                self.costs[name] = in_own_process(costs_of, name, self.levers)
            way = self.turns[name][0].way if self.turns[name] else None
            self.turns[name].append(in_own_process(take_turn, name, device, seconds, way, clip, self.levers))
        except FewframesError as error:
            self.missed[name] = UnmeasuredBaseline(name, str(error))

    def judge(self, name: str, data: VideoSet | None, weights: str | None, device: str) -> None:
        """How often this contender is right, where it has weights."""
        try:
            self.reports[name] = in_own_process(report_on, name, data, weights, device, self.levers)
        except FewframesError as error:
            self.missed.setdefault(name, UnmeasuredBaseline(name, f"not judged: {error}"))

    def rows(self) -> tuple[BenchResult, ...]:
        """Of those that had a turn."""
        return tuple(
            BenchResult(name, self.levers.contender(name), *self.costs[name], tuple(turns), self.reports.get(name))
            for name, turns in self.turns.items()
            if turns
        )


def _check(names: Sequence[str], weights: Mapping[str, str], rounds: int, data: VideoSet | None) -> None:
    """Before minutes of work, not after."""
    if rounds < 1:
        raise ValueError(f"rounds = {rounds}: needs at least 1")
    if not names:
        raise ConfigError(f"no contenders were named; there are {', '.join(CONTENDERS)}")
    for name in names:
        contender_of(name)
    for name, path in weights.items():
        if name not in names:
            raise ConfigError(f"weights for {name!r}, which is not measured; {nearest(name, names)}")
        if name in OURS or name not in CONTENDERS:
            raise ConfigError(f"weights for {name!r}, which is ours: name its file as a contender instead")
        if not Path(path).exists():
            raise ConfigError(f"weights for {name!r}: {path}: no such file")
        if data is None:
            raise ConfigError(f"weights for {name!r} change no speed; they need labelled videos too (--data)")
    if data is not None and data.multilabel:
        raise DataError(f"{data.name}: its videos have any number of actions; only single-label data is judged here")


def costs_of(name: str, levers: Shortcuts) -> tuple[Cost, Cost]:
    """What one view of a contender costs by the whole network, and as it is run; nothing is computed but for a file of ours,
    whose weights are there already."""
    contender = contender_of(name)
    with torch.device("meta"):
        network = build(contender)
    whole = count_cost(network, contender.frames_a_pass, contender.size_px)
    if not isinstance(network, STAM):
        return whole, whole
    merge_tokens(network.eval().frame_encoder, levers.merged(network))
    return whole, count_cost(network, contender.frames_a_pass, contender.size_px)


def take_turn(
    name: str, device_name: str, seconds: float, way: RunMode | None, clip: str | None, levers: Shortcuts = NO_LEVERS
) -> Measurement:
    """One turn: without a `way` the best one is looked for first."""
    device = torch.device(device_name)
    memory = Memory(device)
    contender = levers.contender(name)
    network = build(contender)
    runner = Runner(network, contender, device, levers.merged(network))
    if way is None:
        way = runner.best_way(seconds / 4)
    runner.take(way)
    for batch in {1, way.batch}:
        runner.seconds_of(batch, 0)  # warm-up
    with memory, Energy(device) as energy:
        pass_s = runner.seconds_of(way.batch, seconds)
    view_s = pass_s if way.batch == 1 else runner.seconds_of(1, seconds / 2)
    return Measurement(
        way=way,
        pass_s=tuple(pass_s),
        view_s=tuple(view_s),
        decode_s=None if clip is None else decoding_s(contender, clip),
        memory_bytes=memory.peak_bytes,
        joules=energy.joules,
        matrix_flops_s=matrix_flops_s(
            DTYPES[way.dtype], device, side=RATE_SIDES.get(device.type, 4096), seconds=min(seconds, 1.0)
        ),
        tried=runner.tried,
    )


def report_on(
    name: str, data: VideoSet, weights: str | None, device: str, levers: Shortcuts = NO_LEVERS
) -> Report | None:
    """How often a contender is right by its own protocol; None where it has no weights. Ours are judged as `evaluate` judges
    them; a rival in float32 by `weights` under its library's names of tensors, with Kinetics-400's labels. A video that cannot
    be read is a DataError: figures over different videos cannot stand side by side."""
    if weights is None:
        if not has_weights(name):
            return None
        checkpoint = load_checkpoint(name)
        merge = levers.merged(checkpoint.model) or None
        predictor = Predictor(checkpoint, device=device, merge=merge, name=name)
        judged = score_videos(data, predictor, views=Views(tolerance=levers.tolerance))
        if judged.failures:
            raise DataError(f"{len(judged.failures)} videos cannot be read, the first: {judged.failures[0].error}")
        return score(judged.logits, targets_for(data, predictor).argmax(dim=1), predictor.labels)
    contender, labels = contender_of(name), kinetics_labels(NUM_CLASSES)
    places = torch.tensor(indices_of(data.labels, labels, f"{data.name}: {name}"))
    rival = build(contender)
    assert isinstance(rival, BaselineNetwork)
    load_weights(rival, contender, weights)
    runner = Runner(rival, contender, choose_device(device))
    scores = [
        runner.scores(read_views(contender, sample.path, sample.start_s, sample.end_s)) for sample in data.samples
    ]
    return score(torch.stack(scores).log(), places[data.multi_hot().argmax(dim=1)], labels)


def decoding_s(contender: Baseline, clip: str) -> float:
    """Seconds to open a video and read the frames of all views of a contender, resized and cropped."""
    began = time.perf_counter()
    read_views(contender, clip)
    return time.perf_counter() - began


def read_views(contender: Baseline, path: str, start_s: float = 0.0, end_s: float | None = None) -> Tensor:
    """All views of a video as the contender's protocol has them: (V, T, C, H, W) uint8, clip after clip, of each its crops."""
    num_crops = contender.views.num_crops
    with closing(open_video(path, threads=0)) as video:
        try:
            times_s = contender.views.times(video.duration_s, contender.frames, start_s=start_s, end_s=end_s)
            slack_s = contender.views.tolerance_s(video.duration_s, contender.frames, start_s=start_s, end_s=end_s)
        except ValueError as error:
            raise VideoError(f"{video.name}: {error}") from None
        frames_NSCHW = video.frames_at(
            times_s.flatten(), lambda frame: crops_of(frame, contender.view, num_crops), slack_s
        ).frames
    frames_GTSCHW = frames_NSCHW.unflatten(0, (-1, contender.frames_a_pass))
    return frames_GTSCHW.transpose(1, 2).flatten(0, 1)


def write_clip(path: Path) -> Path:
    """Write a video like those of Kinetics-400: 10 s, 340x256, 30 frames/s, H.264 with a key frame every 12th; what it shows, a
    picture of noise that drifts under grain, costs about as many bytes."""
    generator = torch.Generator().manual_seed(0)
    scene = torch.rand(1, 3, 40, 80, generator=generator)
    scene_CHW = F.interpolate(scene, size=(MADE_HEIGHT, 3 * MADE_WIDTH), mode="bicubic")[0]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "23", "preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = MADE_WIDTH, MADE_HEIGHT, "yuv420p"
        stream.gop_size = 12
        for number in range(10 * FPS):
            frame_CHW = scene_CHW[:, :, 2 * number : 2 * number + MADE_WIDTH]
            grain_CHW = 0.03 * torch.randn(frame_CHW.shape, generator=generator)
            pixels_HWC = (255 * (frame_CHW + grain_CHW).clamp(0, 1)).byte().permute(1, 2, 0).contiguous()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels_HWC.numpy(), format="rgb24")))
        container.mux(stream.encode())
    return path
