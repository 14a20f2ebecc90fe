"""Rules that make events out of the answers of a stream: which labels, where, how sure, how long, and at what hours."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from fewframes.core.hours import Hours, hours_of
from fewframes.core.settings import STRICT, Positive
from fewframes.errors import ConfigError, nearest
from fewframes.results import background_labels

Score = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=86_400 * 7, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Rule:
    """A rule for events of some labels. An answer is held against the first rule that fits its label, source, zone and hour."""

    labels: tuple[Name, ...] = ()
    """The actions; empty for all of the model, without background."""
    sources: tuple[Name, ...] = ()
    """The names of the sources; empty for all."""
    zones: tuple[str, ...] = ()
    """The names of the zones, of which the empty one is the whole picture; empty for all."""
    enter: Score | None = None
    """The smoothed score from which an event begins. None leaves it to the alarms of the stream, or else to the model's detector;
    without these it is the general `enter`."""
    leave: Score | None = None
    """The smoothed score below which an event ends. None is the general `leave`, or `enter` if that is lower."""
    min_s: Seconds = 0.0
    """Seconds that an action has to last. The event is told after them, and begins before them."""
    cooldown_s: Seconds = 0.0
    """Seconds after the end of an event in which no other of its label and zone begins."""
    hours: tuple[str, ...] = ()
    """Hours of the day in which events begin, such as `22:00-06:00`; empty for all."""
    tell: bool = True
    """False tells nobody of the events; they only serve sequences."""

    def __post_init__(self) -> None:
        if self.leave is not None and self.enter is None:
            raise ConfigError(
                "leave needs enter too: without it, events follow the alarms of the stream, or the model's detector"
            )
        if self.leave is not None and self.enter is not None and self.leave > self.enter:
            raise ConfigError(f"leave {self.leave:g} is above enter {self.enter:g}; events would end as they begin")
        _ = self.ranges

    @property
    def ranges(self) -> tuple[Hours, ...]:
        """Return the hours as ranges."""
        return tuple(hours_of(text) for text in self.hours)

    def fits(self, source: str, zone: str, label: str) -> bool:
        """Return True if the rule is about this label of this zone of this source."""
        return (
            (not self.labels or label in self.labels)
            and (not self.sources or source in self.sources)
            and (not self.zones or zone in self.zones)
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Step:
    """A step of a sequence: an event of this label."""

    label: Name
    zone: str | None = None
    """The name of the zone; None for any of the source."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Sequence:
    """A sequence of events of one source, each of which begins while the one before goes on, or soon after its end.

    Its own event has the name of the sequence as its label. It begins to be told with the last step, and ends with it.
    """

    name: Name
    steps: Annotated[tuple[Step, ...], Field(min_length=2)]
    within_s: Positive = 10.0
    """The most seconds from the end of a step to the beginning of the next one."""
    sources: tuple[Name, ...] = ()
    """The names of the sources; empty for all."""
    cooldown_s: Seconds = 0.0
    """Seconds after the end of such an event in which no other begins."""
    hours: tuple[str, ...] = ()
    """Hours of the day in which the last step may begin; empty for all."""

    def __post_init__(self) -> None:
        _ = self.ranges

    @property
    def ranges(self) -> tuple[Hours, ...]:
        """Return the hours as ranges."""
        return tuple(hours_of(text) for text in self.hours)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RuleBook:
    """All rules of a watch."""

    rules: tuple[Rule, ...] = (Rule(),)
    sequences: tuple[Sequence, ...] = ()
    time_zone: str = ""
    """The time zone of the hours, such as `Europe/Berlin`; empty for the machine's own."""
    enter: Score = 0.5
    """The smoothed score from which an event begins, where neither its rule, nor an alarm, nor a detector says so."""
    leave: Score = 0.3
    """The smoothed score below which it ends."""
    lost_s: Positive = 10.0
    """Seconds without an answer about a zone or a followed person after which its events end."""

    def __post_init__(self) -> None:
        names = [sequence.name for sequence in self.sequences]
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise ConfigError(f"two sequences are named {repeated!r}; give each a name of its own")
        if self.leave > self.enter:
            raise ConfigError(f"leave {self.leave:g} is above enter {self.enter:g}; events would end as they begin")

    def check_labels(self, labels: tuple[str, ...], model: str) -> None:
        """Raise ConfigError for a rule or a step about a label that the model does not have, or that is background."""
        actions = [label for label in labels if label not in background_labels(labels)]
        asked = [label for rule in self.rules for label in rule.labels]
        asked += [step.label for sequence in self.sequences for step in sequence.steps]
        for label in asked:
            if label not in actions:
                words = "stands for none of the actions" if label in labels else "is no label of it"
                raise ConfigError(f"{model}: a rule is about {label!r}, which {words}; {nearest(label, actions)}")

    def labels_told(self, source: str, zone: str, labels: tuple[str, ...]) -> list[str]:
        """Return the labels of a zone, and the names of sequences, of which events may be told."""
        nothing = background_labels(labels)
        fitting = [label for label in labels if label not in nothing and self._tells(source, zone, label)]
        sequences = [each.name for each in self.sequences if not each.sources or source in each.sources]
        return fitting + [name for name in sequences if name not in fitting]

    def _tells(self, source: str, zone: str, label: str) -> bool:
        return any(rule.tell and rule.fits(source, zone, label) for rule in self.rules)
