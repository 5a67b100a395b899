"""Checks of what only use-case files of version 2 say: windows, features, the clock and identities."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

from modelstream.base.yamlfile import OTHERS, Place
from modelstream.use_case import arithmetic
from modelstream.use_case.check import LONGEST, NAME, NAME_REMEDY, Problem, no_event, repeated, unknown
from modelstream.use_case.declared import FieldType, UseCase
from modelstream.use_case.durations import DURATION, microseconds, offset_microseconds
from modelstream.use_case.vocabulary import (
    Category,
    Compute,
    Condition,
    From,
    Group,
    Hour,
    LookUp,
    Number,
    Recent,
    Session,
    Sliding,
    Statistic,
    Weekday,
    Window,
    names_of,
)

MOST_GROUPS = 63
"""Which groups an event is one of is a set of bits of an int64."""
MOST_STEPS = 64
MOST_VALUES = 64
"""Of a table of distinct values, and of the last values."""
MOST_CATEGORIES = 64
SHORTEST_STEP = 1_000_000
"""In microseconds."""

_NUMBERS = ("number", "integer")
_COUNTS = ("integer", "boolean")
"""A group only tells their values apart."""
_NAMES = ("text", "identifier", "key")
_OF_VALUES = frozenset(
    (
        *(Statistic.SUM, Statistic.MEAN, Statistic.VAR, Statistic.STD),
        *(Statistic.MIN, Statistic.MAX, Statistic.FIRST, Statistic.LAST),
    )
)
_OF_TABLES = frozenset((Statistic.DISTINCT, Statistic.UNSEEN))


def problems(use_case: UseCase) -> Iterator[Problem]:
    """Yield every mistake in these parts.

    `file.parse_use_case` raises the first.
    """
    yield from _needs(use_case)
    yield from _clock(use_case)
    if use_case.window is not None:
        yield from _from(use_case, use_case.window, ("window",))
    if use_case.label is not None and use_case.label.wait is not None:
        yield from _duration(("label", "wait"), use_case.label.wait)
    for name, form in use_case.forms.items():
        yield from _form(use_case, name, form)
    if len(use_case.groups) > MOST_GROUPS:
        yield ("features",), f"there are {len(use_case.groups)} groups of events", f"{MOST_GROUPS} are possible"
    if not use_case.features:
        yield ("features",), "there is no feature", "list at least one"
    yield from _arithmetic(use_case)


def _duration(place: Place, text: str) -> Iterator[Problem]:
    length = microseconds(text)
    if length is None:
        yield place, f"{text!r} is not a length of time", DURATION
    elif length > LONGEST:
        yield place, f"{text} is more than a century", "give a shorter time"


def _field(use_case: UseCase, place: Place, name: str, kinds: tuple[str, ...]) -> Iterator[Problem]:
    """Check that a field is there, and of one of some types; none: of any."""
    if name not in use_case.fields:
        yield unknown(place, "field", name, use_case.fields)
    elif kinds and use_case.fields[name] not in kinds:
        remedy = f"take a field of type {' or '.join(kinds)}, or declare it so under fields"
        yield place, f"{name!r} is of type {use_case.fields[name]}", remedy


def _needs(use_case: UseCase) -> Iterator[Problem]:
    for event, declared in use_case.events.items():
        place = ("events", event, "needs")
        for name in declared.needs:
            yield from _field(use_case, place, name, ())
        yield from repeated(place, declared.needs)


def _clock(use_case: UseCase) -> Iterator[Problem]:
    for name in ("ahead", "late"):
        text = getattr(use_case.clock, name)
        if text is not None:
            yield from _duration(("time", name), text)
    if use_case.id is not None:
        yield from _field(use_case, ("id",), use_case.id, ("text", "identifier", "integer"))


def _from(use_case: UseCase, window: From, place: Place) -> Iterator[Problem]:
    if window.event not in use_case.events:
        yield no_event(use_case, (*place, "from"), window.event)
    elif use_case.profile and window.event == use_case.profile.event:
        yield (*place, "from"), "the profile event can't open a window", "take another event"
    yield from _duration((*place, "for"), window.length)


def _form(use_case: UseCase, name: str, form: object) -> Iterator[Problem]:
    place: Place = ("features", name)
    if not NAME.fullmatch(name):
        yield place, "not a valid name", NAME_REMEDY
    if not math.isfinite(getattr(form, "otherwise", 0.0)):
        yield (*place, "otherwise"), "not a finite number", "give one, such as 0"
    match form:
        case Group():
            yield from _group(use_case, form, place)
        case LookUp():
            yield from _look_up(use_case, form, place)
        case Number(field):
            yield from _field(use_case, (*place, "number"), field, (*_NUMBERS, "boolean"))
        case Hour(field, offset) | Weekday(field, offset):
            yield from _field(use_case, (*place, "hour" if isinstance(form, Hour) else "weekday"), field, ("time",))
            if offset_microseconds(offset) is None:
                yield (*place, "offset"), f"{offset!r} is not an offset from UTC", 'write it as "+01:00", in quotes'
        case Category():
            yield from _category(use_case, form, place)


def _look_up(use_case: UseCase, form: LookUp, place: Place) -> Iterator[Problem]:
    yield from _field(use_case, (*place, "by"), form.by, _NAMES)
    if form.at not in (None, "profile"):
        remedy = "write `at: profile`, or leave it out to look a value up for each event"
        yield (*place, "at"), f"{form.at!r} is unknown", remedy
    elif form.at and use_case.profile is None:
        yield (*place, "at"), "it is to be looked up when the profile arrives, but there is no profile", "add `profile`"


def _category(use_case: UseCase, form: Category, place: Place) -> Iterator[Problem]:
    yield from _field(use_case, (*place, "category"), form.category, (*_NAMES, "integer", "boolean"))
    if bool(form.one_of) == (form.table is not None):
        yield place, "it needs either `one_of` or `table`", "list the values that get a column, or name a file"
    yield from repeated((*place, "one_of"), form.one_of)
    if len(form.one_of) > MOST_CATEGORIES:
        remedy = f"{MOST_CATEGORIES} are possible; a `table` takes any number"
        yield (*place, "one_of"), f"there are {len(form.one_of)} values", remedy
    for value in form.one_of:
        if not re.fullmatch(r"[A-Za-z0-9_]+", value):
            remedy = "take values of letters, digits and _; or a `table`, which takes any"
            yield (*place, "one_of"), f"{value!r} can't be part of a feature's name", remedy
        elif value == "other":
            yield (*place, "one_of"), "'other' is the column of all others", "leave it out"


def _group(use_case: UseCase, group: Group, place: Place) -> Iterator[Problem]:
    if not group.of:
        yield (*place, "of"), "no event is named", "name the events that it counts"
    for event in group.of:
        if event not in use_case.events:
            yield no_event(use_case, (*place, "of"), event)
    yield from repeated((*place, "of"), group.of)
    if group.value is not None:
        yield from _field(use_case, (*place, "value"), group.value, (*_NUMBERS, "boolean", *_NAMES))
    for name, conditions in (("where", group.where), ("share", group.share)):
        yield from _conditions(use_case, conditions, (*place, name))
    if group.without not in (None, "this"):
        yield (*place, "without"), f"{group.without!r} is unknown", "write `without: this`, or leave it out"
    if not 1 <= group.at_most <= MOST_VALUES:
        yield (*place, "at_most"), f"{group.at_most} is not in 1 to {MOST_VALUES}", "give a number of values"
    yield from _windows(use_case, group, place)
    yield from _given(use_case, group, place)


def _windows(use_case: UseCase, group: Group, place: Place) -> Iterator[Problem]:
    if not group.windows:
        yield (*place, "in"), "no window is given", "write `all time`, or leave it out"
    if sum(not window.label for window in group.windows) > 1:
        yield (*place, "in"), "two windows would give features of the same names", "write a group for each"
    yield from repeated((*place, "in"), (window.label for window in group.windows if window.label))
    for i, window in enumerate(group.windows):
        where = (*place, "in", i)
        match window:
            case From():
                yield from _from(use_case, window, where)
            case Session(gap):
                yield from _duration((*where, "session"), gap)
                yield from _label(where, window)
            case Sliding():
                yield from _sliding(window, where)


def _sliding(window: Sliding, place: Place) -> Iterator[Problem]:
    found = [*_duration((*place, "last"), window.length), *_label(place, window)]
    yield from found
    if found:
        return
    length = window.microseconds
    if not 1 <= window.steps <= MOST_STEPS:
        yield (*place, "steps"), f"{window.steps} is not in 1 to {MOST_STEPS}", "take fewer steps, each of them longer"
    elif length % window.steps:
        whole = [n for n in range(1, MOST_STEPS + 1) if length % n == 0 and length // n >= SHORTEST_STEP]
        close = sorted(whole, key=lambda n: abs(n - window.steps))[:3]
        remedy = f"take {' or '.join(map(str, sorted(close)))} steps" if close else "take a longer window"
        yield (*place, "steps"), f"{window.length} can't be divided into {window.steps} equal steps", remedy
    elif window.step < SHORTEST_STEP:
        yield (*place, "steps"), f"each of {window.steps} steps would be shorter than a second", "take fewer steps"


def _label(place: Place, window: Window) -> Iterator[Problem]:
    if not re.fullmatch(r"[A-Za-z0-9_]+", window.label):
        yield place, f"{window.label!r} can't be part of a feature's name", "write it in whole seconds"


def _given(use_case: UseCase, group: Group, place: Place) -> Iterator[Problem]:
    where = (*place, "give")
    yield from repeated(where, (one.value for one in group.give if isinstance(one, Statistic)))
    if sum(isinstance(one, Recent) for one in group.give) > 1:
        yield where, "the last values are listed twice", "keep the longer: it has the others"
    kind = use_case.fields.get(group.value) if group.value is not None else None
    numeric = kind == FieldType.NUMBER
    shared = Statistic.SHARE in group.give
    if shared != bool(group.share):
        there = "give" if shared else "share"
        problem = "`share` is to be given, but nothing says of what" if shared else "nothing gives this share"
        remedy = "add `share: {FIELD: VALUE}`" if shared else "add share to `give`, or remove this"
        yield (*place, there), problem, remedy
    for i, one in enumerate(group.give):
        of_values = isinstance(one, Recent) or one in _OF_VALUES
        if of_values and not numeric:
            told = f"{group.value!r} is of type {kind}" if kind else "the group has no `value`"
            remedy = (
                f"declare {group.value} as number under fields" if kind in _COUNTS else "give a `value` of type number"
            )
            yield (*where, i), f"{_told(one)} needs a number, but {told}", remedy
        if isinstance(one, Statistic) and one in _OF_TABLES and group.value is None:
            yield (*where, i), f"{one.value} needs values to tell apart", "give a `value`, the field that holds them"
        if isinstance(one, Recent) and not 1 <= one.count <= MOST_VALUES:
            yield (*where, i), f"{one.count} is not in 1 to {MOST_VALUES}", "give a number of values"
        for window in group.windows:
            if isinstance(one, Recent) and window.label:
                remedy = "write a group of its own, over all time"
                yield (*where, i), "the last values are kept over all time only", remedy
            if one is Statistic.SINCE_OPEN and isinstance(window, Sliding):
                remedy = "write a group of its own, over all time, a session, or `from` an event"
                yield (*where, i), f"the last {window.length} never open", remedy


def _told(one: Statistic | Recent) -> str:
    return f"last {one.count}" if isinstance(one, Recent) else one.value


def _conditions(use_case: UseCase, conditions: Mapping[str, Condition], place: Place) -> Iterator[Problem]:
    for name, condition in conditions.items():
        where = (*place, name)
        found = [*_field(use_case, where, name, ())]
        yield from found
        if found:
            continue
        kind = use_case.fields[name]
        if kind == FieldType.TIME:
            yield where, f"{name!r} is a time, which can't be a condition", "take another field"
        constants = [one for one in (condition.is_, condition.is_not, *(condition.in_ or ())) if one is not None]
        for constant in constants:
            if not _fits(constant, kind):
                said = str(constant).lower() if isinstance(constant, bool) else repr(constant)
                remedy = f"put it in quotes: {OTHERS}" if kind in _NAMES else "give one that it has"
                yield where, f"{said} is not a value of {name!r}, which is of type {kind}", remedy
            elif name == use_case.type and constant not in use_case.events:
                yield no_event(use_case, where, str(constant))
        for limit in (condition.above, condition.below):
            if limit is not None and kind not in _NUMBERS:
                yield where, f"{name!r} is of type {kind}, which is not above or below anything", "take a number field"
            elif limit is not None and not math.isfinite(limit):
                yield where, "not a finite number", "give one, such as 0"


def _fits(constant: object, kind: FieldType) -> bool:
    if kind == FieldType.BOOLEAN:
        return isinstance(constant, bool)
    if kind == FieldType.NUMBER:
        return type(constant) in (int, float) and math.isfinite(float(constant))  # type: ignore[arg-type]
    if kind == FieldType.INTEGER:
        return type(constant) is int
    return isinstance(constant, str)


def _arithmetic(use_case: UseCase) -> Iterator[Problem]:
    known = {feature for name, form in use_case.forms.items() for feature in names_of(name, form)}
    graph: dict[str, list[str]] = {}
    for name, form in use_case.forms.items():
        if not isinstance(form, Compute):
            continue
        place = ("features", name, "compute")
        try:
            used = arithmetic.names(arithmetic.parse(form.compute))
        except arithmetic.ExpressionError as error:
            yield place, str(error), "write arithmetic over features, such as celsius / heat_7d_mean"
            continue
        graph[name] = used
        for one in used:
            if one in use_case.forms and one not in known:
                several = ", ".join(names_of(one, use_case.forms[one]))
                yield place, f"{one!r} stands for several features", f"name one of them: {several}"
            elif one not in known:
                yield unknown(place, "feature", one, sorted(known))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        around = error.args[1][::-1]
        place = ("features", around[0], "compute")
        yield place, f"it depends on itself: {' → '.join(around)}", "take one of them out"
