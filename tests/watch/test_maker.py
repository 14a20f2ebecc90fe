"""Events begin and end as their rules say, whatever the scores do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewframes.core.hours import hours_of, is_within
from fewframes.core.settings import settings_from
from fewframes.errors import ConfigError
from fewframes.inference.alarms import AlarmRaiser
from fewframes.inference.detection.spans import Span
from fewframes.inference.live.spans import ActionLog, LiveSpan
from fewframes.watch.event import Event, State
from fewframes.watch.happening import Region
from fewframes.watch.maker import EventMaker
from fewframes.watch.rules import RuleBook
from helpers.stream_answers import LABELS, answer_of, promise_of

NOON = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
HERE = Region("cam1", "", "", "")
DOOR = "opening door"


def maker_of(**values: Any) -> EventMaker:
    return EventMaker(settings_from(RuleBook, {"time_zone": "UTC", **values}, "rules"))


def events_of(
    maker: EventMaker, scores: Iterable[float | Mapping[str, float]], *, step_s: float = 1.0, began: datetime = NOON
) -> list[Event]:
    """Return the events of scores (a number is that of the door) at steady times from 0 s on, and of the end of the source."""
    told = []
    for index, score in enumerate(scores):
        values = score if isinstance(score, Mapping) else {DOOR: score}
        at = began + timedelta(seconds=index * step_s)
        told += maker.step(HERE, answer_of(index * step_s, values), at)
    return told + maker.end("cam1")


def spans_of(events: Iterable[Event]) -> list[tuple[str, float, float]]:
    return [(event.label, event.start_s, event.end_s) for event in events if event.end_s is not None]


def test_an_event_begins_at_enter_and_ends_below_leave() -> None:
    told = events_of(maker_of(), [0.4, 0.5, 0.9, 0.3, 0.29, 0.4, 0.1])
    assert [event.state for event in told] == ["started", "ended"]
    started, ended = told
    assert (started.id, started.start_s, ended.start_s, ended.end_s) == (ended.id, 1.0, 1.0, 3.0)
    assert [started.confidence, ended.confidence] == pytest.approx([0.5, 0.9])
    assert (ended.started_at, ended.ended_at) == ("2026-11-29T12:00:01.000Z", "2026-11-29T12:00:03.000Z")


def test_labels_have_thresholds_of_their_own() -> None:
    maker = maker_of(
        rules=[{"labels": ["carrying"], "enter": 0.2, "leave": 0.1}, {"labels": [DOOR], "enter": 0.9, "leave": 0.8}]
    )
    told = events_of(maker, [{DOOR: 0.7, "carrying": 0.25}, {DOOR: 0.95, "carrying": 0.15}, {DOOR: 0.7}])
    assert spans_of(told) == [("carrying", 0.0, 1.0), (DOOR, 1.0, 1.0)]


def test_background_and_unknown_begin_nothing() -> None:
    maker = maker_of()
    assert events_of(maker, [{"background": 0.99}]) == []
    assert maker.step(HERE, answer_of(5.0, {DOOR: 0.9}, is_known=False), NOON) == []


def test_an_event_is_told_after_its_minimum_and_begins_before_it() -> None:
    maker = maker_of(rules=[{"enter": 0.5, "min_s": 2.0}])
    told = events_of(maker, [0.6, 0.6, 0.1, 0.6, 0.6, 0.6, 0.6, 0.1])
    assert spans_of(told) == [(DOOR, 3.0, 6.0)]  # the first was too short


def test_hours_over_midnight_are_kept() -> None:
    maker = maker_of(rules=[{"enter": 0.5, "hours": ["22:00-06:00"]}])
    # Every half an hour, with a pause between: a day from noon on.
    told = events_of(maker, [0.9, 0.0] * 24, step_s=1800.0)
    hours = {datetime.fromisoformat(event.started_at).hour for event in told}
    assert hours == {22, 23, 0, 1, 2, 3, 4, 5}


def test_the_first_fitting_rule_holds_at_its_hours_and_the_next_one_at_others() -> None:
    night = {"labels": [DOOR], "hours": ["22:00-06:00"], "enter": 0.3, "leave": 0.3}
    book = {"rules": [night, {"enter": 0.8}]}
    assert len(events_of(maker_of(**book), [0.5])) == 0
    assert len(events_of(maker_of(**book), [0.5], began=NOON + timedelta(hours=12))) == 2


def test_alarms_of_the_stream_are_events_and_no_others() -> None:
    promise = promise_of(0.7, gap_s=2.0)
    raiser = AlarmRaiser(promise, LABELS, "single")
    maker, told = maker_of(), []
    for index, score in enumerate([0.6, 0.8, 0.1, 0.75, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1]):
        values = {DOOR: score, "background": 1 - score}
        alarm = raiser.step(answer_of(0, values).smoothed, float(index))
        told += maker.step(HERE, answer_of(float(index), values, alarm=alarm, promise=promise), NOON)
    assert spans_of(told) == [(DOOR, 1.0, 3.0), (DOOR, 7.0, 7.0)]
    assert raiser.count == 2


def test_a_clock_that_goes_back_ends_events_and_keeps_the_rest_of_a_cooldown() -> None:
    maker = maker_of(rules=[{"enter": 0.5, "cooldown_s": 10.0}])
    told = maker.step(HERE, answer_of(100.0, {DOOR: 0.9}), NOON)
    told += maker.step(HERE, answer_of(5.0, {DOOR: 0.9}), NOON)
    assert spans_of(told) == [(DOOR, 100.0, 100.0)]
    assert maker.step(HERE, answer_of(14.0, {DOOR: 0.9}), NOON) == []
    assert [event.start_s for event in maker.step(HERE, answer_of(15.0, {DOOR: 0.9}), NOON)] == [15.0]


def test_events_of_a_zone_or_person_without_answers_end() -> None:
    maker = maker_of()
    person = HERE._replace(zone="door", track="7")
    (started,) = maker.step(person, answer_of(0.0, {DOOR: 0.9}), NOON)
    assert maker.step(HERE, answer_of(10.0, {}), NOON) == []
    (ended,) = maker.step(HERE, answer_of(10.5, {}), NOON)
    assert (ended.id, ended.zone, ended.track, ended.end_s) == (started.id, "door", "7", 0.0)


@pytest.mark.parametrize(
    ("gap_s", "num_told"),
    [(9.0, 1), (11.0, 0)],
)
def test_a_sequence_needs_its_second_step_in_time(gap_s: float, num_told: int) -> None:
    maker = maker_of(
        rules=[{"enter": 0.5, "leave": 0.5, "tell": False}],
        sequences=[{"name": "delivery", "steps": [{"label": "carrying"}, {"label": DOOR}], "within_s": 10.0}],
    )
    scores: list[Mapping[str, float]] = [{"carrying": 0.8}, *[{}] * int(gap_s - 1), {DOOR: 0.9}, {}]
    told = events_of(maker, scores)
    assert [event.label for event in told] == ["delivery"] * (2 * num_told)
    if told:
        assert (told[0].start_s, told[1].end_s) == (0.0, gap_s)
        assert told[0].confidence == pytest.approx(0.8)


def test_a_sequence_goes_across_zones_in_its_order_only() -> None:
    steps = [{"label": DOOR, "zone": "gate"}, {"label": DOOR, "zone": "door"}]
    gate, door = HERE._replace(zone="gate"), HERE._replace(zone="door")
    for first, second, names in ((gate, door, ["in"]), (door, gate, [])):
        maker = maker_of(rules=[{"tell": False}], sequences=[{"name": "in", "steps": steps}])
        told = maker.step(first, answer_of(0.0, {DOOR: 0.9}), NOON)
        told += maker.step(second, answer_of(2.0, {DOOR: 0.9}), NOON)
        assert [event.label for event in told] == names


def test_one_event_is_not_two_steps_of_a_sequence() -> None:
    maker = maker_of(
        rules=[{"tell": False}], sequences=[{"name": "twice", "steps": [{"label": DOOR}, {"label": DOOR}]}]
    )
    assert events_of(maker, [0.9, 0.9, 0.9]) == []
    assert len(events_of(maker, [0.9, 0.0, 0.9])) == 2


def test_wrong_rules_are_errors_that_say_what_is_wrong() -> None:
    for values, words in (
        ({"rules": [{"enter": 0.3, "leave": 0.5}]}, "leave 0.5 is above enter 0.3"),
        ({"rules": [{"leave": 0.2}]}, "leave needs enter"),
        ({"rules": [{"enter": 1.5}]}, "less than or equal to 1"),
        ({"rules": [{"labels": DOOR}]}, "valid array"),
        ({"rules": [{"min_s": -1.0}]}, "greater than or equal to 0"),
        ({"sequences": [{"name": "a", "steps": [{"label": DOOR}]}]}, "at least 2"),
        ({"time_zone": "Nowhere"}, "time_zone 'Nowhere'"),
        ({"rulez": []}, "did you mean 'rules'"),
    ):
        with pytest.raises(ConfigError, match=words):
            maker_of(**values)


def test_rules_about_labels_that_the_model_lacks_are_errors() -> None:
    for label, words in (("open door", "did you mean 'opening door'"), ("background", "none of the actions")):
        book = settings_from(RuleBook, {"rules": [{"labels": [label]}]}, "rules")
        with pytest.raises(ConfigError, match=words):
            book.check_labels(LABELS, "m")


RULES = st.fixed_dictionaries(
    {
        "enter": st.sampled_from([0.4, 0.6, 0.9]),
        "leave": st.sampled_from([0.1, 0.4]),
        "min_s": st.sampled_from([0.0, 2.0, 7.0]),
        "cooldown_s": st.sampled_from([0.0, 3.0, 60.0]),
        "hours": st.sampled_from([[], ["12:01-12:02"], ["22:00-12:01"], ["12:00-12:01", "12:02-12:30"]]),
    }
)
ANSWERS = st.lists(
    st.tuples(
        st.sampled_from(["", "door"]),
        st.sampled_from(["", "1"]),
        st.floats(0.1, 14.0),
        st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]),
        st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(rule=RULES, answers=ANSWERS)
def test_invariants_of_events(rule: dict[str, Any], answers: list[tuple[str, str, float, float, float]]) -> None:
    maker, now_s, told = maker_of(rules=[rule]), 0.0, []
    for zone, track, step_s, door, carrying in answers:
        now_s += step_s
        at = NOON + timedelta(seconds=now_s)
        told += maker.step(Region("cam1", zone, track, ""), answer_of(now_s, {DOOR: door, "carrying": carrying}), at)
    told += maker.end("cam1")
    going: dict[tuple[str, str, str], Event] = {}
    ended: dict[tuple[str, str, str], list[Event]] = defaultdict(list)
    for event in told:
        key = (event.zone, event.track, event.label)
        if event.state == "started":
            assert key not in going, "two events of one label of one zone"
            going[key] = event
            assert is_within(datetime.fromisoformat(event.started_at), tuple(map(hours_of, rule["hours"])), UTC)
            if ended[key]:
                assert event.start_s >= (ended[key][-1].end_s or 0.0) + rule["cooldown_s"]
        else:
            assert event.id == going.pop(key).id
            assert (event.duration_s or 0.0) >= rule["min_s"]
            ended[key].append(event)
    assert not going, "an event without an end"
    assert len({event.key for event in told}) == len(told)


def span(number: int, state: State, start_s: float, end_s: float | None = None, label: str = DOOR) -> LiveSpan:
    return LiveSpan(number, state, label, start_s, end_s, confidence=0.8 if state == "started" else 0.9)


def detected(
    maker: EventMaker, spans: Mapping[int, Iterable[LiveSpan]], score: float = 0.0, **values: Any
) -> list[Event]:
    """Return the events of a stream whose detector tells actions at some times (in whole seconds up to 30)."""
    told = []
    for now_s in range(31):
        answer = answer_of(float(now_s), {DOOR: score}, spans=tuple(spans.get(now_s, ())), **values)
        told += maker.step(HERE, answer, NOON + timedelta(seconds=now_s))
    return told + maker.end("cam1")


def test_a_detector_says_when_events_begin_and_end_and_scores_do_not() -> None:
    told = detected(
        maker_of(), {6: [span(1, "started", 3.5)], 9: [span(1, "ended", 3.0, 8.0)], 20: [span(2, "started", 19.0)]}, 0.9
    )
    assert [event.state for event in told] == ["started", "ended", "started", "ended"]
    assert spans_of(told) == [(DOOR, 3.0, 8.0), (DOOR, 19.0, 30.0)]  # the start was corrected; the last one goes on
    first, ended, *_ = told
    assert (first.start_s, first.confidence, ended.confidence) == (3.5, 0.8, 0.9)
    assert first.detected
    assert (first.started_at, ended.started_at) == ("2026-11-29T12:00:03.500Z", "2026-11-29T12:00:03.000Z")
    assert ended.ended_at == "2026-11-29T12:00:08.000Z"


def test_what_the_detector_takes_back_is_told_as_withdrawn() -> None:
    told = detected(maker_of(), {6: [span(1, "started", 3.5)], 8: [span(1, "withdrawn", 3.5, 7.0)]})
    assert [(event.state, event.id) for event in told] == [("started", told[0].id), ("withdrawn", told[0].id)]
    assert Event.from_dict(told[1].to_dict()) == told[1]
    maker = maker_of(rules=[{"min_s": 6.0}])  # one that was not told yet is not told at all
    assert detected(maker, {6: [span(1, "started", 3.5)], 8: [span(1, "withdrawn", 3.5, 7.0)]}) == []


def test_rules_hold_for_detected_actions_too() -> None:
    door = {4: [span(1, "started", 3.0)], 7: [span(1, "ended", 3.0, 6.0)], 9: [span(2, "started", 8.0)]}
    assert spans_of(detected(maker_of(rules=[{"min_s": 4.0}]), door)) == [(DOOR, 8.0, 30.0)]
    assert spans_of(detected(maker_of(rules=[{"cooldown_s": 5.0}]), door)) == [(DOOR, 3.0, 6.0)]
    assert detected(maker_of(rules=[{"labels": ["carrying"]}]), door) == []
    assert detected(maker_of(rules=[{"hours": ["22:00-06:00"]}]), door) == []
    scored = detected(maker_of(rules=[{"enter": 0.5}]), door, 0.7)  # a rule with thresholds is about scores
    assert spans_of(scored) == [(DOOR, 0.0, 30.0)]


def test_an_action_that_is_told_late_lasts_long_enough_at_once() -> None:
    told = detected(maker_of(rules=[{"min_s": 4.0}]), {5: [span(1, "started", 3.0)], 6: [span(1, "ended", 1.0, 6.0)]})
    assert [event.state for event in told] == ["started", "ended"]
    assert spans_of(told) == [(DOOR, 1.0, 6.0)]


def test_the_last_actions_before_a_clock_goes_back_end_where_they_ended() -> None:
    maker = maker_of()
    maker.step(HERE, answer_of(100.0, {}, spans=(span(1, "started", 97.0),)), NOON)
    told = maker.step(HERE, answer_of(2.0, {}, spans=(span(1, "ended", 97.0, 99.0),)), NOON)
    assert spans_of(told) == [(DOOR, 97.0, 99.0)]


def test_a_sequence_is_taken_back_with_its_last_step_and_does_not_count_one_that_was_none() -> None:
    sequence = [{"name": "away", "steps": [{"label": DOOR}, {"label": "carrying"}]}]
    steps = {4: [span(1, "started", 3.0)], 6: [span(2, "started", 5.0, label="carrying")]}
    last = {**steps, 8: [span(2, "withdrawn", 5.0, 7.0, "carrying")]}
    told = [event for event in detected(maker_of(sequences=sequence), last) if event.label == "away"]
    assert [event.state for event in told] == ["started", "withdrawn"]
    first = {4: [span(1, "started", 3.0)], 5: [span(1, "withdrawn", 3.0, 4.0)], 6: steps[6]}
    assert [event for event in detected(maker_of(sequences=sequence), first) if event.label == "away"] == []


def test_labels_that_are_not_wanted_begin_nothing() -> None:
    scores = {DOOR: 0.9, "carrying": 0.7}
    told = maker_of().step(HERE, answer_of(1.0, scores, only=("carrying",)), NOON)
    assert [event.label for event in told] == ["carrying"]


LOOKS = st.lists(
    st.lists(
        st.tuples(st.sampled_from([DOOR, "carrying"]), st.floats(-8, 0), st.floats(0.3, 8), st.floats(0.2, 1)),
        max_size=3,
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(rule=RULES, looks=LOOKS)
def test_every_detected_event_ends_once_whatever_the_detector_sees(
    rule: dict[str, Any], looks: list[list[tuple[str, float, float, float]]]
) -> None:
    own = {name: value for name, value in rule.items() if name not in ("enter", "leave")}
    maker, log, told = maker_of(rules=[own]), ActionLog(threshold=0.5, interval_s=0.5), []
    for number, look in enumerate(looks):
        now_s = 0.5 * number
        spans = [
            Span(now_s + start_s, now_s + start_s + length_s, label, sure) for label, start_s, length_s, sure in look
        ]
        answer = answer_of(now_s, {}, spans=tuple(log.look(spans, now_s)))
        told += maker.step(HERE, answer, NOON + timedelta(seconds=now_s))
    told += maker.end("cam1")
    states = defaultdict(list)
    for event in told:
        states[event.id].append(event.state)
    assert all(own in (["started", "ended"], ["started", "withdrawn"]) for own in states.values())
