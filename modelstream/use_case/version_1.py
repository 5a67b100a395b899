"""Use-case files of version 1, which read on: their form, and what each part is called in version 2.

A file of version 1 says four statistics of the values of events, over one window, and one value looked up with the
profile. The names, their order and every bit of the features stay what they were.
"""

from __future__ import annotations

from typing import Any

from modelstream.base.yamlfile import YamlFile
from modelstream.use_case.declared import Clock, Event, Field, FieldType, Label, ModelDeclaration, Profile, UseCase
from modelstream.use_case.durations import MICROSECONDS, duration
from modelstream.use_case.version_2 import Errors, check_fields, check_names, events_of
from modelstream.use_case.vocabulary import AllTime, Form, From, Group, LookUp, Part, Statistic

STATISTICS = (Statistic.SUM, Statistic.MEAN, Statistic.COUNT, Statistic.VAR)


class EventV1(Part, frozen=True):
    """A type of event: other names for it, and the field whose statistics are features."""

    aliases: tuple[str, ...] = ()
    value: str | None = None


class LookupV1(Part, frozen=True):
    """A value that is looked up in a table when the profile arrives; `default` is used if none is found."""

    table: str
    by: str
    value: str
    default: float = 0.0


class WindowV1(Part, frozen=True):
    """Events count from the first event of type `opens` on, for `hours` of event time."""

    opens: str
    hours: float


class LabelV1(Part, frozen=True):
    """The field that holds the outcome; `wait` is in hours of event time."""

    field: str
    positive: bool | int | str = 1
    event: str | None = None
    wait: float | None = None


class UseCaseV1(Part, frozen=True):
    """A use case as a file of version 1 declares it."""

    version: int
    name: str
    key: str
    time: str
    type: str
    fields: dict[str, FieldType | Field]
    events: dict[str, EventV1]
    predict_on: tuple[str, ...]
    model: ModelDeclaration
    title: str = ""
    description: str = ""
    profile: Profile | None = None
    lookup: LookupV1 | None = None
    window: WindowV1 | None = None
    statistics: tuple[Statistic, ...] = STATISTICS
    derived: tuple[str, ...] = ()
    label: LabelV1 | None = None


def read(file: YamlFile, errors: Errors) -> UseCaseV1 | None:
    """Return what a file says, None if that can't be read; `errors` then says why.

    Whether the parts fit together is for `check_version_1`.
    """
    data = dict(file.data)
    parts: dict[str, type[Any]] = {"profile": Profile, "lookup": LookupV1, "window": WindowV1}
    parts |= {"label": LabelV1, "model": ModelDeclaration}
    for name, kind in parts.items():
        if data.get(name) is not None:
            with errors:
                file.convert(data[name], kind, (name,))
    check_fields(file, errors)
    data["events"] = events_of(file, EventV1, errors)
    statistics = data.get("statistics")
    for index, value in enumerate(statistics if isinstance(statistics, list) else ()):
        with errors:
            file.convert(value, Statistic, ("statistics", index))
    check_names(file, UseCaseV1, errors)
    if not errors:
        with errors:
            return file.convert(data, UseCaseV1)
    return None


def translated(old: UseCaseV1) -> UseCase:
    """Return the use case of version 2 that means the same.

    `file.parse_use_case` has an example.
    """
    forms: dict[str, Form] = {}
    if old.lookup:
        forms[old.lookup.value] = LookUp(old.lookup.table, old.lookup.by, "profile", old.lookup.default)
    for name, event in old.events.items():
        if event.value is not None:
            forms[name] = Group((name,), event.value, windows=(AllTime(),), give=old.statistics)
    label = old.label
    wait = _hours(label.wait) if label and label.wait is not None else None
    return UseCase(
        version=2,
        name=old.name,
        key=old.key,
        written_time=Clock(old.time, ahead=None),
        type=old.type,
        written=old.fields,
        events={n: Event(e.aliases, (e.value,) if e.value is not None else ()) for n, e in old.events.items()},
        predict_on=old.predict_on,
        model=old.model,
        title=old.title,
        description=old.description,
        profile=old.profile,
        window=From(old.window.opens, _hours(old.window.hours)) if old.window else None,
        forms=forms,
        derived=old.derived,
        label=Label(label.field, label.positive, label.event, wait) if label else None,
    )


def closest(use_case: UseCase) -> UseCaseV1:
    """Return the use case of version 1 that comes closest to one of version 2: of what it can't say, nothing is left.

    Two use cases mean the same if `translated` gives back what the first means, and so it is found out whether the
    first can be said in version 1 (`meaning.meaning_of`).
    """
    groups, window, label = use_case.groups, use_case.window, use_case.label
    values = {group.of[0]: group.value for group in groups.values() if group.of}
    given = next((group.give for group in groups.values()), STATISTICS)
    lookups = [LookupV1(one.look_up, one.by, name, one.otherwise) for name, one in use_case.profile_lookups.items()]
    wait = label.wait_microseconds if label else None
    ordered = [name for name in dict.fromkeys((*values, *sorted(use_case.events))) if name in use_case.events]
    return UseCaseV1(
        version=1,
        name=use_case.name,
        key=use_case.key,
        time=use_case.time,
        type=use_case.type,
        fields=use_case.written,
        events={name: EventV1(use_case.events[name].aliases, values.get(name)) for name in ordered},
        predict_on=use_case.predict_on,
        model=use_case.model,
        profile=use_case.profile,
        lookup=lookups[0] if lookups else None,
        window=WindowV1(window.event, window.hours) if window else None,
        statistics=tuple(one for one in given if isinstance(one, Statistic) and one in STATISTICS),
        derived=use_case.derived,
        label=LabelV1(label.field, label.positive, label.event, wait / MICROSECONDS["h"] if wait else None)
        if label
        else None,
    )


def _hours(hours: float) -> str:
    return duration(round(hours * MICROSECONDS["h"]))
