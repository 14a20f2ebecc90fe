"""The data that travels: `Clip` from the decoder to the network, `Prediction` from the network to the caller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol

from typing_extensions import TypeVar

from fewframes.core.arguments import whole_number
from fewframes.core.text import for_html, json_line
from fewframes.errors import FewframesError, MissingVideo

if TYPE_CHECKING:  # exported graphs answer in arrays, and where they do torch is not loaded
    from torch import Tensor


class ArrayLike(Protocol):
    """What tensors and arrays have in common here."""

    @property
    def shape(self) -> Sequence[int]: ...

    def tolist(self) -> Any: ...

    def __len__(self) -> int: ...


Array = TypeVar("Array", bound=ArrayLike, default="Tensor")
"""Tensors everywhere but where exported graphs run (exported_predictor.py): there numpy arrays."""


@dataclass(frozen=True)
class Reading:
    """What reading a video has taken since it was opened: pictures decoded, pictures left out because no other needed them,
    jumps to key frames, and bytes of the video fetched (of packets read, where the file is at hand)."""

    frames_decoded: int
    frames_left_out: int
    jumps: int
    bytes_read: int


class ClockStep(NamedTuple):
    """A step of a recording's clock: at `at_s` (seconds from the start) it goes on by `by_s` seconds without a picture."""

    at_s: float
    by_s: float


@dataclass(frozen=True, eq=False)
class Clip(Generic[Array]):
    """Frames of one video: `frames` (T, C, H, W) uint8 RGB, and `times_s` (T,), the moment each was first shown, in
    seconds from the start of the video. `duration_s` is the whole video's, `reading` what it took."""

    frames: Array
    times_s: Array
    duration_s: float
    source: str
    reading: Reading
    steps: tuple[ClockStep, ...] = ()
    """Steps of the video's clock, around which the moments were chosen."""

    def __repr__(self) -> str:
        num_frames, _, height, width = self.frames.shape
        return f"Clip({self.source!r}, {num_frames} frames of {width}x{height} px out of {self.duration_s:.2f} s)"


class Label(NamedTuple):
    """One named action and its share of the scores (0-1)."""

    label: str
    score: float


def top_labels(scores_K: ArrayLike, labels: tuple[str, ...], k: int) -> list[Label]:
    """The `k` labels of the highest scores (K,), all when there are fewer, best first."""
    whole_number("k", k, 1)
    scores: list[float] = scores_K.tolist()
    best = sorted(range(len(scores)), key=lambda index: -scores[index])[:k]
    return [Label(labels[index], scores[index]) for index in best]


@dataclass(frozen=True)
class Timing:
    """Where the time of one video went, in seconds: opening and decoding, making the network's input, the network.

    In a batch, the network's time is shared equally by its videos.
    """

    decode_s: float
    transform_s: float
    network_s: float

    @property
    def total_s(self) -> float:
        """The three together."""
        return self.decode_s + self.transform_s + self.network_s


@dataclass(frozen=True, eq=False)
class Prediction(Generic[Array]):
    """What the model says of one video.

    `scores` (K,) in the order of `labels` sum to 1, or are each for itself where the model is multi-label; `times_s` (T,)
    are the moments looked at; `frame_attention` (T,) says how much each counted (Fig. 2; rows sum to 1); `embedding` (D,)
    is the paper's y (Eq. 12), `frame_embeddings` (T, D) its f_t (Eq. 10). All are float32 on the CPU. `timing` and
    `reading` say what it took; `steps` of the video's clock were left out, as `notices` say.
    """

    source: str
    labels: tuple[str, ...]
    scores: Array
    times_s: Array
    frame_attention: Array
    embedding: Array
    frame_embeddings: Array
    timing: Timing
    reading: Reading
    steps: tuple[ClockStep, ...] = ()

    @property
    def label(self) -> str:
        """Return the likeliest action."""
        return self.top(1)[0].label

    @property
    def score(self) -> float:
        """Return the score (0-1) of the likeliest action."""
        return self.top(1)[0].score

    @property
    def distinct_frames(self) -> int:
        """Return how many different pictures were looked at: fewer than `times_s` where one is shown for long."""
        return len(set(self.times_s.tolist()))

    @property
    def notices(self) -> list[str]:
        """Return what should be known before the answer is believed, a line each."""
        lines = [
            f"its clock steps on by {step.by_s:.2f} s at {step.at_s:.2f} s; looked at both sides of that"
            for step in self.steps
        ]
        if self.distinct_frames < len(self.times_s):
            lines.append(
                f"{len(self.times_s)} frames were looked at, {self.distinct_frames} of them different pictures"
            )
        return lines

    def top(self, k: int = 5) -> list[Label]:
        """The `k` likeliest actions (all of them when there are fewer), best first."""
        return top_labels(self.scores, self.labels, k)

    def to_dict(self, topk: int = 5) -> dict[str, object]:
        """Plain values, as `fewframes predict --json` writes them."""
        return {
            "source": self.source,
            "top": [{"label": label, "score": round(score, 6)} for label, score in self.top(topk)],
            "times_s": [round(time, 6) for time in self.times_s.tolist()],
            "frame_attention": [round(weight, 6) for weight in self.frame_attention.tolist()],
            "timing_s": {
                "decode": round(self.timing.decode_s, 6),
                "transform": round(self.timing.transform_s, 6),
                "network": round(self.timing.network_s, 6),
            },
            "reading": asdict(self.reading),
            "distinct_frames": self.distinct_frames,
            "notices": self.notices,
        }

    def to_json(self, topk: int = 5) -> str:
        """`to_dict` as one line of JSON."""
        return json_line(self.to_dict(topk))

    def to_row(self) -> dict[str, object]:
        """One flat row for a data frame: source, label, score, times and one column for each label's score."""
        best = self.top(1)[0]
        return {
            "source": self.source,
            "label": best.label,
            "score": best.score,
            "decode_s": self.timing.decode_s,
            "transform_s": self.timing.transform_s,
            "network_s": self.timing.network_s,
            **asdict(self.reading),
            "distinct_frames": self.distinct_frames,
            **{f"score_{label}": score for label, score in zip(self.labels, self.scores.tolist(), strict=True)},
        }

    def __repr__(self) -> str:
        best = ", ".join(f"{label} {score:.1%}" for label, score in self.top(3))
        return f"Prediction({self.source!r}: {best}; {len(self.times_s)} frames, {self.timing.total_s:.2f} s)"

    def _repr_html_(self) -> str:
        """Return the likeliest actions as a table for notebooks."""
        top = self.top()
        caption = f"{self.source}: {len(self.times_s)} frames, {self.timing.total_s:.2f} s"
        return bars_html(caption, ("action",), [(label,) for label, _ in top], [score for _, score in top])


@dataclass(frozen=True)
class Failure:
    """A video of a batch that could not be labelled, and why."""

    source: str
    error: str
    exit_code: int = 1
    """What a command that was given this video alone ends with."""
    missing: bool = False
    """Whether there is no such video, rather than one that cannot be read."""
    start_s: float = 0.0
    end_s: float | None = None
    """The part of the video that was asked for; its end where None."""

    @classmethod
    def of(cls, source: str, error: FewframesError, start_s: float = 0.0, end_s: float | None = None) -> Failure:
        """What went wrong with this video."""
        return cls(source, str(error), error.exit_code, isinstance(error, MissingVideo), start_s, end_s)

    def to_dict(self) -> dict[str, object]:
        """Plain values, as `fewframes predict --json` writes them."""
        part = {"start_s": self.start_s, "end_s": self.end_s} if self.start_s or self.end_s is not None else {}
        return {"source": self.source, "error": self.error, "missing": self.missing, **part}


def tally(done: int, verb: str, failures: Sequence[Failure]) -> str:
    """`115 evaluated, 3 failed, 2 missing`: what became of many videos."""
    missing = sum(failure.missing for failure in failures)
    return f"{done} {verb}, {len(failures) - missing} failed, {missing} missing"


def bars_html(caption: str, header: Sequence[str], rows: Sequence[Sequence[object]], fractions: Sequence[float]) -> str:
    """Return a table for notebooks; each row ends with a fraction (0-1), as a bar and in percent. All words are escaped.

    Args:
        caption: A line above the table.
        header: Names of the columns of `rows`.
        rows: Cells of each row.
        fractions: The fraction of each row.
    """
    head = "".join(f"<th style='text-align:left'>{for_html(name)}</th>" for name in (*header, "score"))
    lines = []
    for row, fraction in zip(rows, fractions, strict=True):
        cells = "".join(f"<td style='text-align:left'>{for_html(cell)}</td>" for cell in row)
        width_px = round(120 * min(1.0, max(0.0, fraction)))
        bar = f"<span style='display:inline-block;height:.7em;width:{width_px}px;background:#1f5fa8'></span>"
        lines.append(f"<tr>{cells}<td style='text-align:left'>{bar} {fraction:.1%}</td></tr>")
    return f"<table><caption>{for_html(caption)}</caption><tr>{head}</tr>{''.join(lines)}</table>"
