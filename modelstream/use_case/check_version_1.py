"""Checks of what only use-case files of version 1 say: values of events, the lookup, the window, and the statistics."""

from __future__ import annotations

import math
from collections.abc import Iterator

from modelstream.use_case.check import NAME, NAME_REMEDY, Problem, repeated, unknown
from modelstream.use_case.declared import FieldType
from modelstream.use_case.version_1 import STATISTICS, UseCaseV1


def problems(use_case: UseCaseV1) -> Iterator[Problem]:
    """Yield every mistake in these parts.

    `file.parse_use_case` raises the first.
    """
    if use_case.version != 1:
        yield ("version",), f"{use_case.version} is not a version of this format", "write `version: 1`"
    for part in (_values, _lookup, _window, _features, _wait):
        yield from part(use_case)


def _types(use_case: UseCaseV1) -> dict[str, FieldType]:
    return {name: field if isinstance(field, FieldType) else field.type for name, field in use_case.fields.items()}


def _values(use_case: UseCaseV1) -> Iterator[Problem]:
    types = _types(use_case)
    for event, declared in use_case.events.items():
        if declared.value is None:
            continue
        place = ("events", event, "value")
        if declared.value not in types:
            yield unknown(place, "field", declared.value, types)
        elif types[declared.value] != "number":
            yield place, f"{declared.value!r} is of type {types[declared.value]}", "declare it as number under fields"
        if use_case.profile and event == use_case.profile.event:
            remedy = "remove it, or take another event for the profile"
            yield place, "the profile event can't have a value", remedy


def _lookup(use_case: UseCaseV1) -> Iterator[Problem]:
    lookup, types = use_case.lookup, _types(use_case)
    if lookup is None:
        return
    if not NAME.fullmatch(lookup.value):
        yield ("lookup", "value"), f"{lookup.value!r} is not a valid name", NAME_REMEDY
    if use_case.profile is None:
        yield ("lookup",), "a lookup happens when the profile arrives, but there is no profile", "add `profile`"
    if lookup.by not in types:
        yield unknown(("lookup", "by"), "field", lookup.by, types)
    elif types[lookup.by] not in ("identifier", "text", "key"):
        remedy = "declare it as identifier under fields"
        yield ("lookup", "by"), f"{lookup.by!r} is of type {types[lookup.by]}", remedy
    if not math.isfinite(lookup.default):
        yield ("lookup", "default"), "not a finite number", "give one, such as 0"


def _window(use_case: UseCaseV1) -> Iterator[Problem]:
    window = use_case.window
    if window is None:
        return
    if window.opens not in use_case.events:
        yield unknown(("window", "opens"), "event", window.opens, use_case.events)
    elif use_case.profile and window.opens == use_case.profile.event:
        yield ("window", "opens"), "the profile event can't open the window", "take another event"
    if not 1e-9 < window.hours <= 1_000_000:  # a century; the sum of two times stays an int64
        yield ("window", "hours"), f"{window.hours} is not between 0 and 1,000,000", "give hours of event time"


def _features(use_case: UseCaseV1) -> Iterator[Problem]:
    place = ("statistics",)
    yield from repeated(place, (statistic.value for statistic in use_case.statistics))
    for name in use_case.statistics:
        if name not in STATISTICS:
            remedy = "take one of sum, mean, count, var; or write the file in version 2, which has it"
            yield place, f"{name.value!r} is not in version 1", remedy
    valued = any(event.value is not None for event in use_case.events.values())
    if not use_case.derived and use_case.lookup is None and not (valued and use_case.statistics):
        yield ("events",), "there is no feature", "give an event a `value`, and list `statistics`"


def _wait(use_case: UseCaseV1) -> Iterator[Problem]:
    label = use_case.label
    if label is not None and label.wait is not None and not 1e-9 < label.wait <= 1_000_000:
        yield ("label", "wait"), f"{label.wait} is not in 0 to 1,000,000", "give hours of event time"
