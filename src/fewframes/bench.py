"""Contenders -> what each costs on this machine: videos/s, latency, memory, energy, in turns and each in a process of its own.

A turn of a contender is a fresh process: it builds the network, warms up, measures, and ends, so that no one's memory, threads
or kernels are in another's way. All contenders have their first turn before any has its second (A B A B).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

import av
import torch
from torch import Tensor
from torch.nn import functional as F

from fewframes.config import ViewConfig
from fewframes.contenders import CONTENDERS, FPS, NUM_CLASSES, Contender, Rival, build, contender_of, has_weights
from fewframes.data import VideoSet
from fewframes.errors import ConfigError, DataError, FewframesError, VideoError
from fewframes.evaluate import places_of, targets_for
from fewframes.judge import judge
from fewframes.metrics import Cost, Report, count_cost, score
from fewframes.predictor import choose_device, load, machine_name
from fewframes.stopwatch import (
    Energy,
    Runner,
    Way,
    in_own_process,
    matrix_flops_s,
    memory_peak,
    percentile,
    significant,
)
from fewframes.tensor_files import read_tensors
from fewframes.transforms import crops_of
from fewframes.video import open_video
from fewframes.weights import kinetics_labels, load_strictly

Progress = Callable[[str, int, int, str], None]
"""Called with the stage, how much of it is done, how much there is, and what is done now."""
MADE_WIDTH, MADE_HEIGHT = 340, 256


@dataclass(frozen=True)
class Turn:
    """What one turn measured: seconds of each pass of `way.batch` views, seconds of each pass of one view, bytes of memory
    above the empty process, joules of all passes where the platform counts them, and the machine's rate of matrix products in
    `way`'s precision, in FLOP/s. The first turn also tries other ways, so its memory counts only where there is no other."""

    way: Way
    pass_s: tuple[float, ...]
    view_s: tuple[float, ...]
    memory_bytes: int
    joules: float | None
    matrix_flops_s: float


@dataclass(frozen=True)
class Row:
    """One contender: what it costs by count, what was measured in each turn, and how long decoding takes for its views."""

    name: str
    contender: Contender = field(repr=False)
    cost: Cost
    turns: tuple[Turn, ...]
    decode_s: tuple[float, ...] = ()
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
    def videos_s_decoded(self) -> float | None:
        """Videos/s with decoding and the network one after the other; None where no file was decoded."""
        if not self.decode_s:
            return None
        return 1 / (statistics.median(self.video_s) + statistics.median(self.decode_s))

    @property
    def rate_share(self) -> float:
        """Share of the machine's rate of matrix products, attention's included, median over turns."""
        flops = 1e9 * self.cost.gflops
        shares = [flops * turn.way.batch / statistics.median(turn.pass_s) / turn.matrix_flops_s for turn in self.turns]
        return statistics.median(shares)

    def to_dict(self) -> dict[str, object]:
        """Plain values: a line of the table."""
        way, contender = self.turns[0].way, self.contender
        view_s = sorted(seconds for turn in self.turns for seconds in turn.view_s)
        joules = [turn.joules / len(turn.pass_s) / way.batch for turn in self.turns if turn.joules is not None]
        decoded = self.videos_s_decoded
        return {
            "name": self.name,
            "parameters_m": round(self.cost.num_parameters / 1e6, 2),
            "gmacs_a_view": round(self.cost.gmacs, 2),
            "attention_gmacs_a_view": round(self.cost.attention_gmacs, 2),
            "views": contender.passes,
            "frames_read": contender.frames_read,
            "videos_s": significant(self.videos_s),
            "videos_s_least": significant(1 / max(self.video_s)),
            "videos_s_most": significant(1 / min(self.video_s)),
            "videos_s_decoded": None if decoded is None else significant(decoded),
            "decode_s": significant(statistics.median(self.decode_s)) if self.decode_s else None,
            "view_ms_p50": significant(1e3 * percentile(view_s, 0.5)),
            "view_ms_p95": significant(1e3 * percentile(view_s, 0.95)),
            "views_a_pass": way.batch,
            "precision": way.dtype,
            "channels_last": way.channels_last,
            "share_of_matrix_rate": round(self.rate_share, 3),
            "memory_mb": round(max(turn.memory_bytes for turn in self.turns[1:] or self.turns) / 1e6),
            "top1": None if self.report is None else round(100 * self.report.top1, 1),
            "videos_judged": None if self.report is None else self.report.num_videos,
            "joules_a_video": significant(statistics.median(joules) * contender.passes) if joules else None,
            "published": asdict(contender.published),
        }


@dataclass(frozen=True)
class Missed:
    """A contender that could not be measured, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Bench:
    """All of it: the rows, who is missing, the machine, and what was done."""

    rows: tuple[Row, ...]
    missed: tuple[Missed, ...]
    machine: str
    rounds: int
    seconds: float
    clip: str
    matrix_gflops_s: dict[str, float]

    def to_dict(self) -> dict[str, object]:
        """Plain values."""
        return {
            "machine": self.machine,
            "torch": torch.__version__,
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
    progress: Progress = lambda stage, done, total, words: None,
) -> Bench:
    """Measure these contenders by turns: `rounds` turns each, of about `seconds`; `clip` is the video that is decoded (none:
    decoding is not measured). With `data`, those that have weights, of their own or the file that `weights` has for their name,
    are judged as well. One that cannot be built or run is reported, the others go on. ConfigError for a name that is unknown."""
    for name in (*names, *(weights or ())):
        contender_of(name)
    if not names:
        raise ConfigError(f"no contenders were named; there are {', '.join(CONTENDERS)}")
    reports = {} if data is None else {name: report_on(name, data, (weights or {}).get(name), device) for name in names}
    chosen = choose_device(device)
    costs: dict[str, Cost] = {}
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    missed: dict[str, Missed] = {}
    for number in range(rounds):
        for place, name in enumerate(names):
            done = number * len(names) + place
            progress("measuring", done, rounds * len(names), f"turn {number + 1} of {rounds}: {name}")
            if name in missed:
                continue
            try:
                if name not in costs:
                    costs[name] = in_own_process(cost_of, name)
                way = turns[name][0].way if turns[name] else None
                turns[name].append(in_own_process(take_turn, name, str(chosen), seconds, way))
            except (FewframesError, RuntimeError, MemoryError, BrokenProcessPool, ImportError) as error:
                missed[name] = Missed(name, (str(error).strip() or type(error).__name__).splitlines()[0])
    decoded = {
        name: tuple(decoding_s(contender_of(name), clip) for _ in range(rounds)) if clip is not None else ()
        for name in names
        if name not in missed
    }
    rows = tuple(
        Row(name, contender_of(name), costs[name], tuple(turns[name]), decoded[name], reports.get(name))
        for name in decoded
    )
    rates: dict[str, list[float]] = {}
    for turn in (turn for row in rows for turn in row.turns):
        rates.setdefault(turn.way.dtype, []).append(turn.matrix_flops_s / 1e9)
    return Bench(
        rows=rows,
        missed=tuple(missed.values()),
        machine=machine_name(chosen),
        rounds=rounds,
        seconds=seconds,
        clip=clip or "",
        matrix_gflops_s={dtype: significant(statistics.median(values)) for dtype, values in rates.items()},
    )


def cost_of(name: str) -> Cost:
    """What one view of a contender costs, counted without computing."""
    contender = contender_of(name)
    with torch.device("meta"):
        network = build(contender)
    frames = contender.frames * (contender.views.num_clips if contender.takes == "clips" else 1)
    return count_cost(network, frames, contender.size_px)


def take_turn(name: str, device_name: str, seconds: float, way: Way | None) -> Turn:
    """One turn: without a `way` the best one is looked for first."""
    device = torch.device(device_name)
    idle_bytes = memory_peak(device)
    contender = contender_of(name)
    network = build(contender)
    runner = Runner(network, contender, device)
    if way is None:
        way = runner.best_way(seconds / 4)
    runner.take(way)
    runner.seconds_of(way.batch, 0)  # warm-up
    with Energy(device) as energy:
        pass_s = runner.seconds_of(way.batch, seconds)
    view_s = pass_s if way.batch == 1 else runner.seconds_of(1, seconds / 2)
    memory_bytes = max(0, memory_peak(device) - idle_bytes)
    return Turn(
        way=way,
        pass_s=tuple(pass_s),
        view_s=tuple(view_s),
        memory_bytes=memory_bytes,
        joules=energy.joules,
        matrix_flops_s=matrix_flops_s(getattr(torch, way.dtype), device, min(seconds, 1.0)),
    )


def report_on(name: str, data: VideoSet, weights: str | None, device: str) -> Report | None:
    """How often a contender is right by its own protocol; None where it has no weights. Ours are judged as `evaluate` judges
    them; a rival by `weights` under its library's names of tensors, with Kinetics-400's labels."""
    if weights is None:
        if not has_weights(name):
            return None
        predictor = load(name, device=device)
        judged = judge(data, predictor)
        return score(judged.logits, targets_for(data, predictor)[judged.places].argmax(dim=1), predictor.labels)
    contender, chosen = contender_of(name), choose_device(device)
    rival = build(contender)
    assert isinstance(rival, Rival)
    load_strictly(rival.network, read_tensors(Path(weights)), weights)
    runner = Runner(rival, contender, chosen)
    labels = kinetics_labels(NUM_CLASSES)
    places = torch.tensor(places_of(data.labels, labels, f"{data.name}: {name}"))
    logits: list[Tensor] = []
    rows: list[int] = []
    for row, sample in enumerate(data.samples):
        try:
            views_VTCHW = read_views(contender, sample.path, sample.start_s, sample.end_s)
        except VideoError:
            continue
        rows.append(row)
        logits.append(runner.scores(views_VTCHW).log())
    if not rows:
        raise DataError(f"{data.name}: none of {len(data.samples)} videos could be read")
    targets_N = places[data.multi_hot()[rows].argmax(dim=1)]
    return score(torch.stack(logits), targets_N, labels)


def decoding_s(contender: Contender, clip: str) -> float:
    """Seconds to open a video and read the frames of all views of a contender, resized and cropped."""
    began = time.perf_counter()
    read_views(contender, clip)
    return time.perf_counter() - began


def read_views(contender: Contender, path: str, start_s: float = 0.0, end_s: float | None = None) -> Tensor:
    """All views of a video as the contender's protocol has them: (V, T, C, H, W) uint8, clip after clip, of each its crops."""
    view, num_crops = ViewConfig(resize_px=contender.size_px, crop_px=contender.size_px), contender.views.num_crops
    with closing(open_video(path, threads=0)) as video:
        times_s = contender.views.times(video.duration_s, contender.frames, start_s=start_s, end_s=end_s)
        frames_NSCHW = video.frames_at(times_s.flatten(), lambda frame: crops_of(frame, view, num_crops)).frames
    frames_GTSCHW = frames_NSCHW.unflatten(0, (contender.views.num_clips, contender.frames))
    if contender.takes == "clips":
        frames_GTSCHW = frames_GTSCHW.flatten(0, 1)[None]
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
