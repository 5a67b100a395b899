"""Why an event does not count: each reason in a sentence. Their names are in `modelstream.features.kernel`."""

from __future__ import annotations

from collections.abc import Iterable

from modelstream.use_case.declared import UseCase


def explained(reasons: Iterable[str], use_case: UseCase) -> list[str]:
    """Return a line for each reason that is known: its name, and what it means in this use case.

    >>> from modelstream.use_case.file import parse_use_case
    >>> use_case = parse_use_case('''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean],
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {started: {}, reading: {value: celsius}}, predict_on: [reading], window: {opens: started, hours: 1.5},
    ...  model: {name: frost, prediction: will_freeze}}''')
    >>> explained(["window_closed", "unknown_type"], use_case)  # doctest: +NORMALIZE_WHITESPACE
    ["window_closed: the event happened more than 1.5 hours after the user's first started",
     'unknown_type: the use case heating has no such type of event']
    """
    profile, window = use_case.profile, use_case.window
    registers, opens = profile.event if profile else "profile", window.opens if window else "first"
    hours = f"{window.hours:g}" if window else "?"
    sentences = {
        "unknown_type": f"the use case {use_case.name} has no such type of event",
        "unregistered": f"no {registers} of the user came before the event",
        "window_not_open": f"no {opens} of the user came before the event: the first one opens the window",
        "window_closed": f"the event happened more than {hours} hours after the user's first {opens}",
    }
    return [f"{reason}: {sentences[reason]}" for reason in reasons if reason in sentences]
