"""Make events out of the answers of streams, by rules. Nothing here reads a clock: all times come with the answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fewframes.core.hours import is_within, time_zone_of
from fewframes.inference.alarms import Alarm, is_action
from fewframes.inference.live.spans import LiveSpan
from fewframes.inference.promise import AlarmPromise
from fewframes.results import Floats
from fewframes.watch.event import Event
from fewframes.watch.happening import DetectedActions, Happening, Region, Score
from fewframes.watch.rules import Rule, RuleBook
from fewframes.watch.sequences import Sequences


class StreamAnswer(Protocol):
    """An answer of a stream, as far as events are made of it. `StreamPrediction` is one."""

    @property
    def model(self) -> str:
        """Return the name of the model; empty if only one answers."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the K labels."""

    @property
    def end_s(self) -> float:
        """Return the time of the answer, in seconds on the stream's clock."""

    @property
    def smoothed(self) -> Floats:
        """Return the smoothed scores (K,)."""

    @property
    def is_known(self) -> bool:
        """Return False while the last seconds seem to show none of the model's actions."""

    @property
    def latency_s(self) -> float:
        """Return the seconds from the newest frame to the answer."""

    @property
    def alarm(self) -> Alarm | None:
        """Return the alarm that the answer raises, if any."""

    @property
    def promise(self) -> AlarmPromise | None:
        """Return the promise of false alarms, if the stream raises alarms."""

    @property
    def only(self) -> tuple[str, ...] | None:
        """Return the labels that are told; None for all."""

    @property
    def spans(self) -> tuple[LiveSpan, ...] | None:
        """Return the actions that the model's detector tells with this answer; None if it is not used."""


@dataclass
class _RegionState:
    """The memory of a region: the time of its last answer, its labels that are not idle, and its detected actions."""

    last_s: float
    detected: DetectedActions
    happenings: dict[str, Happening] = field(default_factory=dict)


class EventMaker:
    """The events of all sources. A label of a region never has two events that go on at once."""

    def __init__(self, book: RuleBook) -> None:
        """Prepare to make events. Raises ConfigError if the time zone of the rules is unknown."""
        self._book, self._zone = book, time_zone_of(book.time_zone)
        self._regions: dict[Region, _RegionState] = {}
        self._sequences = Sequences(book.sequences, self._zone)
        self._kept_s = book.lost_s + max([rule.cooldown_s for rule in book.rules], default=0.0)
        """Seconds without an answer after which a region is forgotten."""
        self._lowest = min([book.enter, *(rule.enter for rule in book.rules if rule.enter is not None)])
        """The lowest score with which an event may begin without an alarm."""

    @property
    def sources(self) -> list[str]:
        """Return the names of the sources that have answered and have not ended."""
        return list(dict.fromkeys(region.source for region in self._regions))

    def step(self, region: Region, answer: StreamAnswer, at: datetime) -> list[Event]:
        """Return the events that end and start with one more answer, in order.

        Args:
            region: The region that the answer is about.
            answer: The answer.
            at: The time of its `end_s` by the clock of this machine, with a time zone.
        """
        now_s = answer.end_s
        told = self._told(self._end_lost(region.source, now_s))
        state = self._regions.setdefault(region, _RegionState(now_s, DetectedActions(region)))
        told += self._told(state.detected.finish(answer.spans or ()))  # before the clock may begin anew
        if now_s < state.last_s:
            told += self._restart(region.source, now_s - state.last_s)
        state.last_s = now_s
        beginning = self._beginning(region, answer, at)
        changes = state.detected.begin(answer.spans or (), now_s, at, partial(self._detected_rule, region, answer))
        for label in dict.fromkeys([*state.happenings, *beginning]):
            happening = state.happenings.setdefault(label, Happening(region, label))
            rule = beginning.get(label)
            changes += happening.step(now_s, at, self._score(answer, label, happening.rule or rule), rule)
            if happening.is_idle and happening.ready_s <= now_s:
                del state.happenings[label]
        return [*told, *self._told(changes)]

    def _restart(self, source: str, jump_s: float) -> list[Event]:
        """End what goes on in a source whose clock went back. What was left of a cooldown is left by the new clock."""
        changes = []
        for state in [state for region, state in self._regions.items() if region.source == source]:
            changes += _end_all(state)
            state.last_s += jump_s
            state.detected.move(jump_s)
            for happening in state.happenings.values():
                happening.ready_s += jump_s
        told = self._told(changes)
        self._sequences.forget(source)
        return told

    def end(self, source: str, zone: str | None = None, track: str | None = None) -> list[Event]:
        """End what goes on in a source, or in those of its regions that have this zone or track. Return the events that end."""
        changes = []
        for region in [region for region in self._regions if region.source == source]:
            if zone in (None, region.zone) and track in (None, region.track):
                changes += _end_all(self._regions.pop(region))
        told = self._told(changes)
        if zone is None and track is None:
            self._sequences.forget(source)
        return told

    def _told(self, changes: list[tuple[Rule, Event]]) -> list[Event]:
        told = []
        for rule, event in changes:
            told += [event] if rule.tell else []
            told += self._sequences.step(event)
        return told

    def _end_lost(self, source: str, now_s: float) -> list[tuple[Rule, Event]]:
        """End the events of regions of a source that have had no answer for long, and forget the regions after longer."""
        changes = []
        for region, state in [item for item in self._regions.items() if item[0].source == source]:
            if now_s - state.last_s > self._book.lost_s:
                changes += _end_all(state)
            if now_s - state.last_s > self._kept_s:
                del self._regions[region]
        return changes

    def _beginning(self, region: Region, answer: StreamAnswer, at: datetime) -> dict[str, Rule]:
        """Return the labels of which an event may begin with this answer, each with its rule."""
        if not answer.is_known:
            return {}
        alarmed = None if answer.alarm is None else answer.alarm.label
        lowest = np.float32(0 if alarmed is not None else self._lowest)
        found = {}
        for index in np.flatnonzero((answer.smoothed >= lowest) & _wanted(answer.labels, answer.only)).tolist():
            label = answer.labels[index]
            rule = self._rule_of(region, label, at)
            if rule is None or _follows_detector(rule, answer):
                continue
            enter = np.float32(self._book.enter if rule.enter is None else rule.enter)
            if label == alarmed if _follows_alarms(rule, answer) else answer.smoothed[index] >= enter:
                found[label] = rule
        return found

    def _rule_of(self, region: Region, label: str, at: datetime) -> Rule | None:
        """Return the first rule that fits a label of a region at this hour."""
        fitting = (rule for rule in self._book.rules if rule.fits(region.source, region.zone, label))
        return next((rule for rule in fitting if is_within(at, rule.ranges, self._zone)), None)

    def _detected_rule(self, region: Region, answer: StreamAnswer, label: str, started: datetime) -> Rule | None:
        """Return the rule by which a detected action is an event, if there is one."""
        rule = self._rule_of(region, label, started)
        return rule if rule is not None and _follows_detector(rule, answer) else None

    def _score(self, answer: StreamAnswer, label: str, rule: Rule | None) -> Score:
        """Return the score of a label, held against the rule of what goes on or begins; None if neither does."""
        value = float(answer.smoothed[answer.labels.index(label)])
        if rule is None:
            return Score(value, is_held=False, gap_s=0.0)
        if answer.promise is not None and _follows_alarms(rule, answer):
            return Score(value, value > answer.promise.overall.threshold, answer.promise.alarm_gap_s)
        leave = self._book.leave if rule.leave is None else rule.leave
        enter = self._book.enter if rule.enter is None else rule.enter
        return Score(value, value >= min(leave, enter), 0.0)


@cache
def _wanted(labels: tuple[str, ...], only: tuple[str, ...] | None) -> NDArray[np.bool_]:
    """Return a mark (K,) of the actions that are told."""
    return is_action(labels) & np.array([only is None or label in only for label in labels])


def _follows_alarms(rule: Rule, answer: StreamAnswer) -> bool:
    """Return True if the events of a rule are the alarms of the stream."""
    return rule.enter is None and answer.promise is not None


def _follows_detector(rule: Rule, answer: StreamAnswer) -> bool:
    """Return True if the events of a rule are the actions that the model's detector tells."""
    return rule.enter is None and answer.promise is None and answer.spans is not None


def _end_all(state: _RegionState) -> list[tuple[Rule, Event]]:
    changes = [change for happening in state.happenings.values() for change in happening.end()]
    return changes + state.detected.end(state.last_s)
