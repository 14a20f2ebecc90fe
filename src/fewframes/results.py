"""Results as frozen data classes: `Clip` goes from the decoder to the network, `Prediction` from the network to the caller."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewframes.core.arguments import whole_number
from fewframes.core.text import count_of, html_of, json_line
from fewframes.errors import FewframesError, MissingVideo

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Reading:
    """The work of reading a video since it was opened."""

    frames_decoded: int
    """The number of frames that were decoded."""
    frames_left_out: int
    """The number of frames that were skipped because no other frame needs them for decoding."""
    jumps: int
    """The number of seeks to key frames."""
    bytes_read: int
    """The number of bytes of the video that were fetched. For a local file, the bytes of the packets that were read."""

    def __add__(self, other: Reading) -> Reading:
        """Return the work of both."""
        return Reading(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


class Work(NamedTuple):
    """The work that reading frames is expected to be, before it is done."""

    seconds: float
    """About how many seconds of video are decoded."""
    num_bytes: float
    """About how many bytes are read; 0 where that is not known."""


class ClockStep(NamedTuple):
    """A gap in the timestamps of a recording: `at_s` seconds from its start they jump ahead by `by_s` seconds without a frame."""

    at_s: float
    by_s: float


@dataclass(frozen=True, eq=False)
class Clip:
    """The frames that were sampled from one video."""

    frames: NDArray[np.uint8]
    """The pixels: (T, C, H, W) uint8 RGB."""
    times_s: NDArray[np.float64]
    """The timestamps (T,): when each frame is first shown, in seconds from the start of the video."""
    duration_s: float
    """The duration of the whole video, in seconds."""
    source: str
    """The path or address of the video."""
    reading: Reading
    """The work of reading the frames."""
    steps: tuple[ClockStep, ...] = ()
    """The gaps in the video's timestamps. The timestamps in `times_s` were chosen around them."""

    def __repr__(self) -> str:
        num_frames, _, height, width = self.frames.shape
        return f"Clip({self.source!r}, {count_of(num_frames, 'frame')} of {width}x{height} px out of {self.duration_s:.2f} s)"


UNKNOWN = "unknown"
"""The answer for a video that shows none of the actions."""
BACKGROUND = frozenset({"background", "none", "no action", "nothing", "other"})
"""The labels that stand for none of the actions, in small letters and with spaces between words."""

NEGATIONS = ("no", "non", "not", "without")
"""Words that turn the name of an action into a name for its absence."""


def is_background(label: str) -> bool:
    """Return True if a label, such as the name of a folder, stands for none of the actions: `background`, `Other`, `no_action`."""
    return _words(label) in BACKGROUND


def background_labels(labels: Iterable[str]) -> frozenset[str]:
    """Return those of these labels that stand for none of the actions.

    That are background (`is_background`) and the negations of other labels: `noFight`, `no_fight` or `not fight` beside `fight`.
    """
    names = {label: _words(label) for label in labels}
    plain = {name.replace(" ", "") for name in names.values()}

    def is_negation(name: str) -> bool:
        joined = name.replace(" ", "")
        return any(joined.startswith(no) and joined.removeprefix(no) in plain for no in NEGATIONS)

    return frozenset(label for label, name in names.items() if name in BACKGROUND or is_negation(name))


def _words(label: str) -> str:
    """Return a label in small letters, with a space between words."""
    return " ".join(label.replace("_", " ").replace("-", " ").casefold().split())


@dataclass(frozen=True)
class Familiarity:
    """The judgement whether a video shows one of the model's actions at all, and whether anything like it was learned from."""

    known: float
    """The probability that the video shows one of the actions, 0-1, if known and unknown videos were equally many."""
    threshold: float
    """The value of `known` below which the answer is `unknown`."""
    unfamiliar: bool
    """True if the model has learned from nothing like this video: another place, another camera. It says nothing of the action."""
    reason: str
    """The reason in plain words; empty for a video that is known and familiar."""

    @property
    def is_unknown(self) -> bool:
        """Return True if the video shows none of the actions, as far as the model can tell."""
        return self.known < self.threshold

    def to_dict(self) -> dict[str, object]:
        """Return plain values, as `fewframes predict --json` writes them."""
        return {
            "known": round(self.known, 4),
            "unknown_below": round(self.threshold, 4),
            "unfamiliar": self.unfamiliar,
            "reason": self.reason,
        }


class Label(NamedTuple):
    """An action by name, and its score (0-1)."""

    label: str
    score: float


def named(**names: str) -> dict[str, str]:
    """Return those of these names that are not empty, such as those of a model, a zone or a track of an answer."""
    return {what: name for what, name in names.items() if name}


def top_labels(scores_K: Floats, labels: tuple[str, ...], k: int) -> list[Label]:
    """Return the `k` labels with the highest scores (K,), best first; all labels if there are fewer than `k`."""
    whole_number("k", k, 1)
    scores: list[float] = scores_K.tolist()
    best = sorted(range(len(scores)), key=lambda index: -scores[index])[:k]
    return [Label(labels[index], scores[index]) for index in best]


@dataclass(frozen=True)
class Timing:
    """The time that one video took, in seconds, step by step."""

    decode_s: float
    """The time for opening and decoding."""
    transform_s: float
    """The time for making the input of the network from the frames."""
    network_s: float
    """The time in the network. The time of a batch is divided equally among its videos."""

    @property
    def total_s(self) -> float:
        """Return the sum of the three times, in seconds."""
        return self.decode_s + self.transform_s + self.network_s


@dataclass(frozen=True, kw_only=True)
class BudgetUse:
    """The budget of one video, the use that was made of it, and the number of frames that were looked at for that."""

    num_frames: int
    """The number of frames that were looked at."""
    all_frames: int
    """The number of frames that are looked at without a budget."""
    took_ms: float
    """The milliseconds from opening the video to its answer."""
    read_kb: float | None
    """The bytes that were read of it, in thousands; None where they are not counted (pictures, torchcodec)."""
    budget_ms: float | None = None
    """The milliseconds that were allowed; None if any."""
    budget_kb: float | None = None
    """The thousands of bytes that were allowed; None if any."""
    tolerance: float = 0.0
    """The fraction of the interval between frames by which each timestamp could move."""
    is_fitted: bool = True
    """True if the confidence was fitted for so few frames."""
    is_least: bool = False
    """True if no fewer frames could have been looked at."""

    @property
    def over_ms(self) -> float:
        """Return by how many milliseconds the budget was exceeded; 0 if it was kept."""
        return 0.0 if self.budget_ms is None else max(0.0, self.took_ms - self.budget_ms)

    @property
    def over_kb(self) -> float:
        """Return by how many thousands of bytes the budget was exceeded; 0 if it was kept or nothing is counted."""
        return 0.0 if self.budget_kb is None or self.read_kb is None else max(0.0, self.read_kb - self.budget_kb)

    @property
    def is_kept(self) -> bool:
        """Return True if the video took no more than was allowed."""
        return not self.over_ms and not self.over_kb

    @property
    def notices(self) -> list[str]:
        """Return what a user must know of this, one line each; none if the budget was kept and all is fitted."""
        over = [
            f"{over:.{digits}f} {unit}"
            for over, unit, digits in ((self.over_ms, "ms", 0), (self.over_kb, "kB", 1))
            if over
        ]
        why = "the fewest frames take more" if self.is_least else "the last frames took more than expected"
        lines = [f"the budget was not kept: {' and '.join(over)} over; {why}"] if over else []
        if self.budget_kb is not None and self.read_kb is None:
            lines.append("the budget of bytes had no effect: the bytes of this kind of video are not counted")
        if not self.is_fitted:
            lines.append(
                f"its confidence is of {self.num_frames} instead of {self.all_frames} frames, which was not fitted for this "
                "model; it may be surer than right"
            )
        return lines

    def __str__(self) -> str:
        asked = [
            f"{budget:g} {unit}"
            for budget, unit in ((self.budget_ms, "ms"), (self.budget_kb, "kB"))
            if budget is not None
        ]
        took = [f"{self.took_ms:.0f} ms", *([] if self.read_kb is None else [f"{self.read_kb:.1f} kB"])]
        moved = f", moved by up to {self.tolerance:g} of their distance" if self.tolerance else ""
        return f"budget {' and '.join(asked)}: {self.num_frames} of {self.all_frames} frames{moved}, took {' and '.join(took)}"

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {
            "ms": self.budget_ms,
            "took_ms": round(self.took_ms, 3),
            "kb": self.budget_kb,
            "read_kb": None if self.read_kb is None else round(self.read_kb, 3),
            "kept": self.is_kept,
            "frames": self.num_frames,
            "all_frames": self.all_frames,
            "tolerance": self.tolerance,
            "confidence_fitted": self.is_fitted,
        }


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer of a model for one video. All arrays are float32."""

    source: str
    """The path or address of the video."""
    labels: tuple[str, ...]
    """The names of the K actions."""
    scores: Floats
    """The scores (K,) in the order of `labels`. They sum to 1, except that a multi-label model scores each action by itself."""
    times_s: Floats
    """The timestamps (T,) of the frames that the model saw, in seconds from the start of the video."""
    frame_attention: Floats
    """The weight (T,) of each frame in the answer (Fig. 2). The weights sum to 1."""
    embedding: Floats
    """The video embedding (D,): the paper's y (Eq. 12)."""
    frame_embeddings: Floats
    """The frame embeddings (T, D): the paper's f_t (Eq. 10)."""
    timing: Timing
    """The time that each step took."""
    reading: Reading
    """The work of reading the video."""
    steps: tuple[ClockStep, ...] = ()
    """The gaps in the video's timestamps, where no frame was taken. `notices` tell of them."""
    thresholds: tuple[float, ...] = ()
    """The score from which each action counts as present, in the order of `labels`. Empty for models of one action a video."""
    familiarity: Familiarity | None = None
    """The judgement whether it shows one of the actions at all; None if the model has no judge, or was told not to ask it."""

    budget: BudgetUse | None = None
    """The use of the budget; None if none was given."""
    model: str = ""
    """The name of the model, if several answered in one pass; empty if one did."""
    zone: str = ""
    """The name of the zone of the picture that was looked at; empty for the whole picture."""
    track: str = ""
    """The name of the person or thing that was followed; empty for the whole picture."""

    @property
    def present(self) -> list[Label]:
        """Return the actions that a multi-label model says are in the video, best first: those that score above their thresholds.

        It is empty for models of one action a video too; their answer is `label`.
        """
        if not self.thresholds:
            return []
        least = dict(zip(self.labels, self.thresholds, strict=True))
        return [
            found
            for found in self.top(len(self.labels))
            if found.score > least[found.label] and not is_background(found.label)
        ]

    @property
    def label(self) -> str:
        """Return the answer: the likeliest action, or `unknown` if the video seems to show none of the actions."""
        best = self.top(1)[0].label
        is_unknown = self.familiarity is not None and self.familiarity.is_unknown
        return UNKNOWN if is_unknown or is_background(best) else best

    @property
    def known(self) -> float | None:
        """Return how likely the video shows one of the actions at all (0-1), or None if that was not judged."""
        return None if self.familiarity is None else self.familiarity.known

    @property
    def unfamiliar(self) -> bool | None:
        """Return True if the model has learned from nothing like this video, or None if that was not judged."""
        return None if self.familiarity is None else self.familiarity.unfamiliar

    @property
    def reason(self) -> str:
        """Return the reason why the video is unknown or unfamiliar, in plain words; an empty text if it is neither."""
        if self.familiarity is not None and (self.familiarity.is_unknown or not is_background(self.top(1)[0].label)):
            return self.familiarity.reason
        return f"its likeliest label is {self.top(1)[0].label!r}" if is_background(self.top(1)[0].label) else ""

    @property
    def score(self) -> float:
        """Return the score (0-1) of the likeliest action, whether or not the video is taken to show it."""
        return self.top(1)[0].score

    @property
    def distinct_frames(self) -> int:
        """Return the number of different frames. It is less than T if one frame is shown for so long that it was taken twice."""
        return len(set(self.times_s.tolist()))

    @property
    def notices(self) -> list[str]:
        """Return the facts that limit how far the answer can be trusted, one line each."""
        lines = [
            f"its timestamps jump by {step.by_s:.2f} s at {step.at_s:.2f} s; frames from both sides of the gap were used"
            for step in self.steps
        ]
        if self.distinct_frames < len(self.times_s):
            lines.append(f"only {self.distinct_frames} of its {len(self.times_s)} sampled frames are different")
        if self.familiarity is not None and self.familiarity.unfamiliar and not self.familiarity.is_unknown:
            lines.append(f"unfamiliar: {self.familiarity.reason}; how often it is right there was never measured")
        return lines + ([] if self.budget is None else self.budget.notices)

    def top(self, k: int = 5) -> list[Label]:
        """Return the `k` likeliest actions, best first; all actions if there are fewer than `k`."""
        return top_labels(self.scores, self.labels, k)

    def to_dict(self, topk: int = 5) -> dict[str, object]:
        """Return plain values, as `fewframes predict --json` writes them, with the `topk` likeliest actions."""
        return {
            "source": self.source,
            **named(model=self.model, zone=self.zone, track=self.track),
            "label": self.label,
            "known": None if self.known is None else round(self.known, 4),
            "unknown_below": None if self.familiarity is None else round(self.familiarity.threshold, 4),
            "unfamiliar": self.unfamiliar,
            "reason": self.reason,
            "top": [{"label": label, "score": round(score, 6)} for label, score in self.top(topk)],
            **({"present": [found.label for found in self.present]} if self.thresholds else {}),
            "times_s": [round(time, 6) for time in self.times_s.tolist()],
            "frame_attention": [round(weight, 6) for weight in self.frame_attention.tolist()],
            "timing_s": {
                "decode": round(self.timing.decode_s, 6),
                "transform": round(self.timing.transform_s, 6),
                "network": round(self.timing.network_s, 6),
            },
            "reading": asdict(self.reading),
            "distinct_frames": self.distinct_frames,
            **({} if self.budget is None else {"budget": self.budget.to_dict()}),
            "notices": self.notices,
        }

    def to_json(self, topk: int = 5) -> str:
        """Return `to_dict` as one line of JSON."""
        return json_line(self.to_dict(topk))

    def __repr__(self) -> str:
        best = ", ".join(f"{label} {score:.1%}" for label, score in self.top(3))
        best = f"{UNKNOWN}; {best}" if self.label == UNKNOWN else best
        return (
            f"Prediction({self.source!r}: {best}; {count_of(len(self.times_s), 'frame')}, {self.timing.total_s:.2f} s)"
        )

    def _repr_html_(self) -> str:
        """Return the likeliest actions as a table for notebooks, with the attention to each frame."""
        top = self.top()
        caption = f"{self.source}: {count_of(len(self.times_s), 'frame')}, {self.timing.total_s:.2f} s"
        caption += f"; {self.label}: {self.reason}" if self.label == UNKNOWN else ""
        times_s, weights = self.times_s.tolist(), self.frame_attention.tolist()
        width = 1 / len(weights)
        marks = [
            Mark(number * width, 0.9 * width, weight / max(weights), f"{time_s:.2f} s: {weight:.1%}")
            for number, (time_s, weight) in enumerate(zip(times_s, weights, strict=True))
        ]
        below = f"attention to each frame, from {times_s[0]:.2f} s to {times_s[-1]:.2f} s; at most {max(weights):.1%}"
        actions, scores = [(label,) for label, _ in top], [score for _, score in top]
        return bars_html(caption, ("action",), actions, scores, marks=marks, below=below)


@dataclass(frozen=True)
class Failure:
    """A video of a batch that could not be labelled, and the reason."""

    source: str
    """The path or address of the video."""
    error: str
    """The reason, in one line."""
    exit_code: int = 1
    """The exit code of a command that is given this video alone."""
    missing: bool = False
    """True if the video does not exist; False if it exists but cannot be read."""
    start_s: float = 0.0
    """The start of the requested part of the video, in seconds."""
    end_s: float | None = None
    """The end of the requested part of the video, in seconds; None is the end of the video."""

    @classmethod
    def of(cls, source: str, error: FewframesError, start_s: float = 0.0, end_s: float | None = None) -> Failure:
        """Return the failure that stands for this error.

        Args:
            source: the path or address of the video.
            error: the error that was raised for it.
            start_s: the start of the requested part of the video, in seconds.
            end_s: the end of that part; None is the end of the video.
        """
        return cls(source, str(error), error.exit_code, isinstance(error, MissingVideo), start_s, end_s)

    def to_dict(self) -> dict[str, object]:
        """Return plain values, as `fewframes predict --json` writes them."""
        part = {"start_s": self.start_s, "end_s": self.end_s} if self.start_s or self.end_s is not None else {}
        return {"source": self.source, "error": self.error, "missing": self.missing, **part}


def tally(done: int, verb: str, failures: Sequence[Failure]) -> str:
    """Return a summary of many videos in one line, such as `115 evaluated, 3 failed, 2 missing`.

    Args:
        done: the number of videos that were processed.
        verb: the past participle of what was done with them.
        failures: the videos that failed, with the missing ones among them.
    """
    missing = sum(failure.missing for failure in failures)
    return f"{done} {verb}, {len(failures) - missing} failed, {missing} missing"


class Mark(NamedTuple):
    """A mark on a strip that stands for time, in fractions (0-1) of the strip; `title` is shown under the pointer."""

    left: float
    width: float
    height: float = 1.0
    title: str = ""


def bars_html(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    fractions: Sequence[float],
    *,
    score: str = "score",
    form: str = ".1%",
    spans: Sequence[Mark] = (),
    marks: Sequence[Mark] = (),
    below: str = "",
) -> str:
    """Return a table for notebooks; each row ends with a fraction (0-1), as a bar and a number. All words are escaped.

    Args:
        caption: A line above the table.
        header: Names of the columns of `rows`.
        rows: Cells of each row.
        fractions: The fraction of each row.
        score: Name of the column of fractions.
        form: Format of the fractions.
        spans: A mark for each row, on a strip of its own; without any there are no such strips.
        marks: Marks on a strip below the table; without any there is no strip.
        below: A line below the strip.
    """

    def shown(mark: Mark) -> dict[str, object]:
        return {"title": mark.title, "left": 100 * mark.left, "width": 100 * mark.width, "height": 100 * mark.height}

    lines = [
        {
            "cells": row,
            "width_px": round(120 * min(1.0, max(0.0, fraction))),
            "score": f"{fraction:{form}}",
            "span": shown(spans[number]) if spans else None,
        }
        for number, (row, fraction) in enumerate(zip(rows, fractions, strict=True))
    ]
    values = {
        "caption": caption,
        "header": (*header, score),
        "rows": lines,
        "marks": [*map(shown, marks)],
        "below": below,
    }
    return html_of("core/templates/bars.html", values)
