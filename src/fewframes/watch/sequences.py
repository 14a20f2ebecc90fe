"""Make events of sequences: A, then B within some seconds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo

from fewframes.core.hours import is_within
from fewframes.watch.event import Event, new_id
from fewframes.watch.rules import Sequence


@dataclass(frozen=True)
class _Chain:
    """The events of the first steps of a sequence, in the order of the steps."""

    events: tuple[Event, ...]

    def takes(self, event: Event, within_s: float) -> bool:
        """Return True if an event that begins follows the last one soon enough."""
        last = self.events[-1]
        ended_s = event.start_s if last.end_s is None else last.end_s
        return event.start_s >= last.start_s and event.start_s - ended_s <= within_s

    def holds(self, event: Event) -> bool:
        """Return True if an event is one of the chain's."""
        return any(old.id == event.id for old in self.events)

    def updated(self, event: Event) -> _Chain:
        """Return the chain with an event as it is now."""
        return _Chain(tuple(event if old.id == event.id else old for old in self.events))


@dataclass
class _Progress:
    """A sequence in one source, with one model: the newest chain of each number of steps, and its own event."""

    chains: dict[int, _Chain] = field(default_factory=dict)
    event: Event | None = None
    last_id: str = ""
    """The id of the last step's event, with which the own event ends."""
    ready_s: float = float("-inf")
    """The time from which another event may begin."""


class Sequences:
    """The sequences of all sources. A sequence never has two events of one source and model that go on at once."""

    def __init__(self, sequences: tuple[Sequence, ...], zone: tzinfo | None) -> None:
        self._sequences, self._zone = sequences, zone
        self._progress: dict[tuple[str, str, str], _Progress] = {}

    def step(self, event: Event) -> list[Event]:
        """Return the events of sequences that start or end with an event of a single action."""
        told = []
        for sequence in self._sequences:
            if not sequence.sources or event.source in sequence.sources:
                progress = self._progress.setdefault((event.source, event.model, sequence.name), _Progress())
                told += self._ended(sequence, progress, event) if event.end_s is not None else []
                told += self._started(sequence, progress, event) if event.end_s is None else []
        return told

    def forget(self, source: str) -> None:
        """Forget the steps of a source: it has ended, or its clock began anew."""
        for key in [key for key in self._progress if key[0] == source]:
            del self._progress[key]

    def _started(self, sequence: Sequence, progress: _Progress, event: Event) -> list[Event]:
        # The last step first, so that one event is never two steps of the same chain.
        for index in reversed(range(len(sequence.steps))):
            step = sequence.steps[index]
            if event.label != step.label or step.zone not in (None, event.zone):
                continue
            before = progress.chains.get(index)
            if index == 0:
                progress.chains[1] = _Chain((event,))
            elif before is not None and before.takes(event, sequence.within_s):
                progress.chains[index + 1] = _Chain((*before.events, event))
        whole = progress.chains.pop(len(sequence.steps), None)
        if whole is None:
            return []
        progress.chains.clear()
        is_free = progress.event is None and event.start_s >= progress.ready_s
        if not is_free or not is_within(datetime.fromisoformat(event.started_at), sequence.ranges, self._zone):
            return []
        first = whole.events[0]
        progress.last_id = event.id
        progress.event = replace(
            event,
            id=new_id(),
            label=sequence.name,
            confidence=min(each.confidence for each in whole.events),
            start_s=first.start_s,
            started_at=first.started_at,
        )
        return [progress.event]

    def _ended(self, sequence: Sequence, progress: _Progress, event: Event) -> list[Event]:
        progress.chains = {
            size: chain.updated(event)
            for size, chain in progress.chains.items()
            if not (event.withdrawn and chain.holds(event))
        }
        own = progress.event
        if own is None or event.id != progress.last_id or event.end_s is None:
            return []
        progress.event, progress.ready_s = None, event.end_s + sequence.cooldown_s
        return [replace(own, end_s=event.end_s, ended_at=event.ended_at, withdrawn=event.withdrawn)]
