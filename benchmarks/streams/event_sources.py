"""Events made of the detector's actions, beside events made of smoothed scores: how many are right, and how late they are told.

    python -m benchmarks.streams.event_sources DATA > benchmarks/streams/event_sources.json

The films are those of `benchmarks.streams.boundaries` (movements, three seeds), and so are the models. Each film is streamed once
with the settings that `fewframes stream` begins with. Two makers of events get the same answers: one with the actions of the
detector (`detector`), and one without them (`scores`: enter 0.5, leave 0.3). Both have no other rules.

A true action is found if an event of its label overlaps it by 0.5 of both together (`f1_at_0.5`); `f1_at_0.1` forgives events that
lie late or are too long. Events that were withdrawn do not count as found. `start_late_s` and `end_late_s` are the seconds from the
true start, or end, until the event was told as started or ended, for pairs at 0.1: the median, and what 90 % keep to. `taken_back`
are the events, per hundred, that were told as started and withdrawn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import over_seeds, write_result
from benchmarks.streams.boundaries import Film
from benchmarks.streams.live_spans import detecting, matches
from benchmarks.streams.timeline import compose, parts_of, segments_of
from fewframes.core.cache import EmbeddingCache
from fewframes.inference.detection.spans import Span
from fewframes.inference.predictor import Predictor
from fewframes.watch.event import Event
from fewframes.watch.happening import Region
from fewframes.watch.maker import EventMaker
from fewframes.watch.rules import RuleBook

WAYS = ("scores", "detector")
OVERLAPS = (0.5, 0.1)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
Told = list[tuple[float, Event]]
"""Events, each with the time of the film at which it is told."""


def told_by(predictor: Predictor, film: Film) -> dict[str, Told]:
    """What each way tells of a film."""
    makers = {way: EventMaker(RuleBook(time_zone="UTC")) for way in WAYS}
    told: dict[str, Told] = {way: [] for way in WAYS}
    region = Region("film", "", "", "")
    for answer in predictor.stream(str(film["path"])):
        for way, maker in makers.items():
            own = answer if way == "detector" else replace(answer, spans=None)
            told[way] += [(answer.end_s, event) for event in maker.step(region, own, NOW)]
    for way, maker in makers.items():
        told[way] += [(film["duration_s"], event) for event in maker.end("film")]
    return told


def figures(told: Sequence[Told], films: Sequence[Film]) -> dict[str, Any]:
    """The figures of one way over all films."""
    hits, num_found, num_true, num_started, num_withdrawn = dict.fromkeys(OVERLAPS, 0), 0, 0, 0, 0
    late: dict[str, list[float]] = {"started": [], "ended": []}
    for own, film in zip(told, films, strict=True):
        true = [Span(entry["start_s"], entry["end_s"], entry["label"]) for entry in film["spans"]]
        at = {(event.id, event.state): time_s for time_s, event in own}
        ended = [event for _, event in own if event.state == "ended"]
        found = [Span(event.start_s, event.end_s or event.start_s, event.label, event.confidence) for event in ended]
        num_found, num_true = num_found + len(found), num_true + len(true)
        num_started += sum(event.state == "started" for _, event in own)
        num_withdrawn += sum(event.state == "withdrawn" for _, event in own)
        for least in OVERLAPS:
            hits[least] += len(matches(found, true, least))
        for index, number in matches(found, true, min(OVERLAPS)):
            late["started"].append(at[ended[index].id, "started"] - true[number].start_s)
            late["ended"].append(at[ended[index].id, "ended"] - true[number].end_s)
    loose = hits[min(OVERLAPS)]
    return {
        **{f"f1_at_{least:g}": round(200 * hits[least] / (num_found + num_true), 1) for least in OVERLAPS},
        "precision_at_0.1": round(100 * loose / max(1, num_found), 1),
        "recall_at_0.1": round(100 * loose / num_true, 1),
        "taken_back": round(100 * num_withdrawn / max(1, num_started), 1),
        "start_late_s": [round(float(np.quantile(late["started"], q)), 2) for q in (0.5, 0.9)],
        "end_late_s": [round(float(np.quantile(late["ended"], q)), 2) for q in (0.5, 0.9)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("build/boundaries"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    cache = EmbeddingCache(options.folder / "embeddings")
    parts, each = parts_of(segments_of(options.data)), []
    for seed in range(options.seeds):
        films = compose(parts["test"], options.folder / f"test{seed}", seed)
        predictor = detecting(parts["test_taught"], options.folder / f"movements{seed}", cache, seed)
        told = [told_by(predictor, film) for film in films]
        each.append({way: figures([own[way] for own in told], films) for way in WAYS})
        print(each[-1], file=sys.stderr)
    write_result(
        films=len(films),
        ways={
            way: {
                key: over_seeds([own[way][key] for own in each])
                for key, value in each[0][way].items()
                if not isinstance(value, list)
            }
            for way in WAYS
        },
        each=each,
    )


if __name__ == "__main__":
    main()
