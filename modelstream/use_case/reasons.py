"""Why an event does not count: each reason in a sentence. Their names are in `modelstream.features.terms`."""

from __future__ import annotations

from collections.abc import Iterable

from modelstream.use_case.declared import UseCase
from modelstream.use_case.durations import duration


def explained(reasons: Iterable[str], use_case: UseCase) -> list[str]:
    """Return a line for each reason that is known: its name, and what it means in this use case.

    >>> from modelstream.use_case.file import parse_use_case
    >>> use_case = parse_use_case('''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean],
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {started: {}, reading: {value: celsius}}, predict_on: [reading], window: {opens: started, hours: 1.5},
    ...  model: {name: frost, prediction: will_freeze}}''')
    >>> explained(["window_closed", "unknown_type"], use_case)  # doctest: +NORMALIZE_WHITESPACE
    ["window_closed: the event happened more than 1h30m after the user's first started",
     'unknown_type: the use case heating has no such type of event']
    """
    profile, window = use_case.profile, use_case.window
    registers, opens = profile.event if profile else "profile", window.opens if window else "first"
    clock, length = use_case.clock, duration(window.microseconds) if window else "?"
    sentences = {
        "unknown_type": f"the use case {use_case.name} has no such type of event",
        "unregistered": f"no {registers} of the user came before the event",
        "window_not_open": f"no {opens} of the user came before the event: the first one opens the window",
        "window_closed": f"the event happened more than {length} after the user's first {opens}",
        "in_the_future": f"the event is dated more than {clock.ahead} later than it arrived",
        "too_late": f"the event happened more than {clock.late} before the user's latest event",
        "repeated": f"one of the user's last 64 events had the same {use_case.id}: the source sent it again",
    }
    return [f"{reason}: {sentences[reason]}" for reason in reasons if reason in sentences]
