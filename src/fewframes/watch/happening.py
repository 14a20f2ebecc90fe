"""Follow what happens in a region: by the scores of each label, or by the actions that the model's detector tells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from fewframes.inference.live.spans import LiveSpan
from fewframes.watch.event import Event, iso, new_id
from fewframes.watch.rules import Rule


class Region(NamedTuple):
    """A part of the picture of a source that one model answers about."""

    source: str
    zone: str
    track: str
    model: str


class Score(NamedTuple):
    """A score of a label: its value, whether an action that goes on is seen in it, and the longest time without such a score."""

    value: float
    is_held: bool
    gap_s: float


@dataclass(frozen=True)
class _Pending:
    """An action that began under a rule."""

    rule: Rule
    start_s: float
    started: datetime


class Happening:
    """A label of a region. At any time it has at most one event that goes on."""

    def __init__(self, region: Region, label: str) -> None:
        self._region, self._label = region, label
        self._pending: _Pending | None = None
        self._event: Event | None = None
        self._held_s = self._confidence = 0.0
        self.ready_s = float("-inf")
        """The time from which another event may begin."""

    @property
    def is_idle(self) -> bool:
        """Return True if nothing goes on."""
        return self._pending is None

    @property
    def rule(self) -> Rule | None:
        """Return the rule of what goes on, if anything does."""
        return None if self._pending is None else self._pending.rule

    def step(self, now_s: float, at: datetime, score: Score, rule: Rule | None) -> list[tuple[Rule, Event]]:
        """Return the events that end and start now, each with its rule.

        Args:
            now_s: The time on the stream's clock.
            at: The same time by the clock of this machine.
            score: The score.
            rule: The rule by which an event may begin now, if any.
        """
        changes = []
        if self._pending is not None and not score.is_held and not now_s - self._held_s <= score.gap_s:
            changes += self.end()
        if self._pending is None and rule is not None and now_s >= self.ready_s:
            self._pending = _Pending(rule, now_s, at)
            self._confidence, score = 0.0, score._replace(is_held=True)
        if self._pending is not None and score.is_held:
            changes += self._hold(self._pending, now_s, score.value)
        return changes

    def _hold(self, pending: _Pending, now_s: float, value: float) -> list[tuple[Rule, Event]]:
        self._held_s, self._confidence = now_s, max(self._confidence, value)
        if self._event is not None or now_s - pending.start_s < pending.rule.min_s:
            return []
        self._event = Event(
            id=new_id(),
            **self._region._asdict(),
            label=self._label,
            confidence=self._confidence,
            start_s=pending.start_s,
            started_at=iso(pending.started),
        )
        return [(pending.rule, self._event)]

    def end(self) -> list[tuple[Rule, Event]]:
        """End what goes on, at the last time at which it was seen. Return its event, if it had become one."""
        pending, event, self._pending, self._event = self._pending, self._event, None, None
        if pending is None or event is None:
            return []
        self.ready_s = self._held_s + pending.rule.cooldown_s
        ended = pending.started + timedelta(seconds=self._held_s - pending.start_s)
        return [(pending.rule, replace(event, confidence=self._confidence, end_s=self._held_s, ended_at=iso(ended)))]


@dataclass
class _Action:
    """An action that the detector has told as begun, with the rule that it fell under."""

    rule: Rule
    span: LiveSpan
    started: datetime
    """The time of its beginning by the clock of this machine."""
    event: Event | None = None

    def correct(self, span: LiveSpan) -> None:
        """Take over what the detector says at the end, when it may have corrected the beginning."""
        self.started += timedelta(seconds=span.start_s - self.span.start_s)
        self.span = span


class DetectedActions:
    """The actions of a region by its model's detector. Two of one label may go on at once for a moment: one is told as begun
    before the end of the other is certain."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._actions: dict[int, _Action] = {}
        self._ready_s: dict[str, float] = {}

    def begin(
        self, spans: Sequence[LiveSpan], now_s: float, at: datetime, rule_of: Callable[[str, datetime], Rule | None]
    ) -> list[tuple[Rule, Event]]:
        """Return the events that start now: of actions that have begun, and of those that have lasted long enough now.

        Args:
            spans: What the detector tells with this answer.
            now_s: The time on the stream's clock.
            at: The same time by the clock of this machine.
            rule_of: Returns the rule for a label and the time of its beginning, or None.
        """
        for span in spans:
            started = at - timedelta(seconds=now_s - span.start_s)
            rule = rule_of(span.label, started) if span.state == "started" else None
            if rule is not None and span.start_s >= self._ready_s.get(span.label, float("-inf")):
                self._actions[span.number] = _Action(rule, span, started)
        due = [each for each in self._actions.values() if now_s - each.span.start_s >= each.rule.min_s]
        return [(each.rule, self._told(each)) for each in due if each.event is None]

    def finish(self, spans: Sequence[LiveSpan]) -> list[tuple[Rule, Event]]:
        """Return the events that end with what the detector tells, or are withdrawn. One that is told only now starts with it."""
        changes = []
        for span in spans:
            action = self._actions.pop(span.number, None) if span.state != "started" else None
            if action is not None:
                action.correct(span)
                changes += self._ended(action, span.end_s or span.start_s, withdrawn=span.state == "withdrawn")
        return changes

    def end(self, last_s: float) -> list[tuple[Rule, Event]]:
        """End what goes on, at the time of the last answer. Return the events that end."""
        actions, self._actions = self._actions, {}
        return [change for action in actions.values() for change in self._ended(action, last_s)]

    def move(self, jump_s: float) -> None:
        """Take into account that the stream's clock has jumped: what is left of a cooldown stays."""
        self._ready_s = {label: ready_s + jump_s for label, ready_s in self._ready_s.items()}

    def _told(self, action: _Action) -> Event:
        """Return the event of an action that starts."""
        action.event = Event(
            id=new_id(),
            **self._region._asdict(),
            label=action.span.label,
            confidence=action.span.confidence,
            start_s=action.span.start_s,
            started_at=iso(action.started),
            detected=True,
        )
        return action.event

    def _ended(self, action: _Action, end_s: float, *, withdrawn: bool = False) -> list[tuple[Rule, Event]]:
        span, rule = action.span, action.rule
        is_told = action.event is not None
        if not is_told and (withdrawn or end_s - span.start_s < rule.min_s):
            return []
        started = action.event or self._told(action)
        if not withdrawn:
            self._ready_s[span.label] = end_s + rule.cooldown_s
        ended = replace(
            started,
            confidence=max(started.confidence, span.confidence),
            start_s=span.start_s,
            started_at=iso(action.started),
            end_s=end_s,
            ended_at=iso(action.started + timedelta(seconds=end_s - span.start_s)),
            withdrawn=withdrawn,
        )
        return [*([] if is_told else [(rule, started)]), (rule, ended)]
