"""Follow the actions that go on in live sources, from what each answer says of actions that begin and end."""

from __future__ import annotations

from fewframes.inference.live.results import StreamPrediction
from fewframes.inference.live.spans import LiveSpan

GoingOn = dict[tuple[str, str, str, str, int], LiveSpan]
"""Actions that go on, by source, zone, person, model and number."""


def with_spans(going_on: GoingOn, answer: StreamPrediction) -> list[LiveSpan]:
    """Take in what an answer says of actions that begin and end; return those of its region and model that go on."""
    place = (answer.source, answer.zone, answer.track, answer.model)
    for span in answer.spans or ():
        going_on[*place, span.number] = span
        if span.state != "started":
            del going_on[*place, span.number]
    return [span for key, span in going_on.items() if key[:4] == place]
