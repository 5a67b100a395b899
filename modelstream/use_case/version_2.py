"""Reads use-case files of version 2: each part by itself, so that an error can name the line that it is about."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from modelstream.base.yamlfile import OTHERS, Place, YamlFile, suggestion
from modelstream.errors import ConfigurationError
from modelstream.use_case.declared import (
    Clock,
    Event,
    Field,
    FieldType,
    Label,
    ModelDeclaration,
    Profile,
    Unit,
    UseCase,
)
from modelstream.use_case.durations import DURATION
from modelstream.use_case.vocabulary import (
    FORMS,
    AllTime,
    Category,
    Condition,
    Form,
    From,
    Group,
    Recent,
    Session,
    Sliding,
    Statistic,
    Window,
)

ALL_TIME = "all time"
UNLIMITED = "unlimited"
_LENGTHS = ("ahead", "late", "for", "last", "session", "wait")
_WINDOWS: dict[str, type[From | Sliding | Session]] = {"from": From, "last": Sliding, "session": Session}
_CONSTANTS = (bool, int, float, str)


class Errors(list[ConfigurationError]):
    """Gathers the errors of several parts: what fails under `with errors:` is noted, and the next part is read.

    >>> errors = Errors()
    >>> with errors:
    ...     raise ConfigurationError("no such file")
    >>> len(errors)
    1
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, ConfigurationError):
            self.append(error)
        return isinstance(error, ConfigurationError)


def read(file: YamlFile, folder: Path | None, errors: Errors) -> UseCase | None:
    """Return what a file says, with the tables of categories that it names; note in `errors` what can't be read.

    Features that can't be read are left out; None if it is something else. Whether the parts fit together is for
    `check`. Paths of tables begin in `folder`.
    """
    data = dict(file.data)
    parts: dict[str, type[Any]] = {"profile": Profile, "window": From, "label": Label, "model": ModelDeclaration}
    if isinstance(data.get("time"), dict):
        parts["time"] = Clock
        with errors:
            data["time"] = _clock(file, data["time"])
    for name, kind in parts.items():
        if data.get(name) is not None:
            with errors:
                check_lengths(file, data[name], (name,))
                file.convert(data[name], kind, (name,))
    check_fields(file, errors)
    data["events"] = events_of(file, Event, errors)
    check_names(file, UseCase, errors)
    forms = data.pop("features", None)
    head = None
    if not errors:
        with errors:
            head = file.convert(data, UseCase)
    found = dict(_forms(file, {} if forms is None else forms, folder, errors))
    return head and msgspec.structs.replace(head, forms=found)


def check_names(file: YamlFile, kind: type[msgspec.Struct], errors: Errors) -> None:
    """Note in `errors` the names at the top of a file that are unknown, and those that are missing."""
    fields = msgspec.structs.fields(kind)
    known = [field.encode_name for field in fields]
    errors += [file.error((name,), "unknown name", suggestion(name, known)) for name in file.data if name not in known]
    missing = [field.encode_name for field in fields if field.required and field.encode_name not in file.data]
    errors += [file.error((), f"{name!r} is missing", f"add a line `{name}: …`") for name in missing]


def check_fields(file: YamlFile, errors: Errors) -> None:
    """Note in `errors` what can't be the declaration of a field, in any version."""
    fields = file.data.get("fields")
    for name, value in fields.items() if isinstance(fields, dict) else ():
        with errors:
            if not isinstance(value, dict):
                file.convert(value, FieldType, ("fields", name))
                continue
            if value.get("type") is not None:
                file.convert(value["type"], FieldType, ("fields", name, "type"))
            if value.get("epoch") is not None:
                file.convert(value["epoch"], Unit, ("fields", name, "epoch"))
            file.convert(value, Field, ("fields", name))


def events_of(file: YamlFile, kind: type[msgspec.Struct], errors: Errors) -> object:
    """Return the types of events of a file, each of which can be read as `kind`, in any version."""
    events = file.data.get("events")
    if not isinstance(events, dict):
        return events
    # `login:` declares an event without further details.
    events = {name: {} if value is None else value for name, value in events.items()}
    for name, value in events.items():
        with errors:
            file.convert(value, kind, ("events", name))
    return events


def check_lengths(file: YamlFile, value: object, place: Place) -> None:
    """Raise ConfigurationError for a length of time that is not text, such as a number without a unit."""
    for name, length in value.items() if isinstance(value, dict) else ():
        if name in _LENGTHS and length is not None and not isinstance(length, str):
            raise file.error((*place, name), f"{length!r} is not a length of time", DURATION)


def _clock(file: YamlFile, written: dict[str, Any]) -> dict[str, Any]:
    """Return the limits of the clock as `Clock` has them: None for `unlimited`."""
    for name in ("ahead", "late"):
        if name in written and written[name] is None:
            raise file.error(
                ("time", name), "it says nothing", f"write `{UNLIMITED}`, or {DURATION.removeprefix('write ')}"
            )
    return {name: None if value == UNLIMITED else value for name, value in written.items()}


def _forms(file: YamlFile, data: object, folder: Path | None, errors: Errors) -> Iterator[tuple[str, Form]]:
    with errors:
        if not isinstance(data, dict):
            remedy = "write lines such as `age: {number: age}`"
            raise file.error(("features",), "not a mapping of names to features", remedy)
    for name, value in data.items() if isinstance(data, dict) else ():
        known, form = len(errors), None
        with errors:
            form = _form(file, name, value, folder, errors)
        if form is not None and len(errors) == known:
            yield name, form


def _form(file: YamlFile, name: object, value: object, folder: Path | None, errors: Errors) -> Form:
    place: Place = ("features", str(name))
    if not isinstance(name, str):
        raise file.error(place, f"{name!r} is not text", f"put the name in quotes: {OTHERS}")
    if not isinstance(value, dict):
        remedy = "write what it is, such as {number: FIELD} or {of: EVENT, give: [count]}"
        raise file.error(place, f"{value!r} is not a feature", remedy)
    told = [word for word in FORMS if word in value]
    if len(told) != 1:
        listed = f"{' and '.join(told)} are there" if told else "nothing says what kind of feature it is"
        raise file.error(place, listed, f"give just one of: {', '.join(FORMS)}")
    kind = FORMS[told[0]]
    if kind is Group:
        return _group(file, value, place, errors)
    _check_texts(file, value, place, "one_of")
    if kind is Category and "values" in value:
        remedy = "give a `table`, a file with the columns category, value"
        raise file.error((*place, "values"), "unknown name", remedy)
    form = file.convert(value, kind, place)
    if isinstance(form, Category) and form.table is not None:
        return msgspec.structs.replace(form, values=_table(file, form.table, folder, (*place, "table")))
    return form


def form_of(data: dict[str, Any]) -> Form:
    """Return the feature that plain data say, as `meaning` stores them.

    Raises msgspec.ValidationError, or KeyError, for data of another version.

    >>> form_of({"number": "celsius"})
    Number(number='celsius', otherwise=0.0)
    """
    kind = FORMS[next(word for word in FORMS if word in data)]
    rest = dict(data)
    windows = rest.pop("in", [ALL_TIME])
    form: Form = msgspec.convert(rest, kind)
    if isinstance(form, Group):
        form = msgspec.structs.replace(form, windows=tuple(map(_window_of, windows)))
    return form


def _window_of(data: object) -> Window:
    if not isinstance(data, dict):
        return AllTime()
    return msgspec.convert(data, next(kind for word, kind in _WINDOWS.items() if word in data))


def _check_texts(file: YamlFile, value: dict[str, Any], place: Place, name: str) -> None:
    """Check that a list, where there is one, is of texts: to YAML, no, on and 1 are of other types."""
    for i, item in enumerate(value[name] if isinstance(value.get(name), list) else ()):
        if not isinstance(item, str):
            raise file.error((*place, name, i), f"{item!r} is not text", f"put it in quotes: {OTHERS}")


def _group(file: YamlFile, data: dict[str, Any], place: Place, errors: Errors) -> Group:
    """Return a group without those of its windows, statistics and conditions that are noted in `errors`."""
    value = dict(data)
    for name in ("of", "give"):
        if name in value and not isinstance(value[name], list):
            value[name] = [value[name]]
    _check_texts(file, value, place, "of")
    windows = value.pop("in", ALL_TIME)
    listed = [(*place, "in", i) for i in range(len(windows))] if isinstance(windows, list) else [(*place, "in")]
    windows = windows if isinstance(windows, list) else [windows]
    for name in ("where", "share"):
        if value.get(name) is not None:
            value[name] = dict(_conditions(file, value[name], (*place, name), errors))
    given = value.pop("give", [])
    if not given:
        remedy = f"list some: {', '.join(one.value for one in Statistic)}, or {{last: 3}}"
        errors.append(file.error((*place, "give"), "it gives no statistic", remedy))
    read: list[Window] = []
    for window, where in zip(windows, listed, strict=True):
        with errors:
            read.append(_window(file, window, where))
    statistics: list[Statistic | Recent] = []
    for i, one in enumerate(given):
        with errors:
            statistics.append(_given(file, one, (*place, "give", i)))
    return msgspec.structs.replace(file.convert(value, Group, place), windows=tuple(read), give=tuple(statistics))


def _window(file: YamlFile, value: object, place: Place) -> Window:
    if value == ALL_TIME:
        return AllTime()
    told = [word for word in _WINDOWS if isinstance(value, dict) and word in value]
    if len(told) != 1:
        remedy = "write `all time`, {from: EVENT, for: 24h}, {last: 1h, steps: 12} or {session: 30m}"
        raise file.error(place, f"{value!r} is not a window", remedy)
    check_lengths(file, value, place)
    return file.convert(value, _WINDOWS[told[0]], place)


def _given(file: YamlFile, value: object, place: Place) -> Statistic | Recent:
    if isinstance(value, dict):
        return file.convert(value, Recent, place)
    return file.convert(value, Statistic, place)


def _conditions(file: YamlFile, data: object, place: Place, errors: Errors) -> Iterator[tuple[str, Condition]]:
    if not isinstance(data, dict) or not data:
        raise file.error(place, f"{data!r} is not a condition", "write {FIELD: VALUE}, or {FIELD: {above: 10}}")
    for name, value in data.items():
        with errors:
            given = {"is": value} if isinstance(value, _CONSTANTS) else value
            condition = file.convert(given, Condition, (*place, name))
            if condition == Condition():
                raise file.error((*place, name), "it says nothing", "give one of: is, is_not, in, above, below")
            yield name, condition


def _table(file: YamlFile, path: str, folder: Path | None, place: Place) -> dict[str, float]:
    """Return the values of a frozen table by category. Raises ConfigurationError."""

    def wrong(problem: str, line: int = 0) -> ConfigurationError:
        where = f"{path}, line {line}" if line else path
        return file.error(
            place, f"{where}: {problem}", "give a CSV file with the header category,value beside this file"
        )

    found: dict[str, float] = {}
    try:
        with ((folder or Path()) / path).open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.reader(lines)
            if next(rows, None) != ["category", "value"]:
                raise wrong("its first line is not category,value", 1)
            for row in rows:
                if not row:
                    continue
                try:
                    category, text = row
                    number = float(text)
                except ValueError:
                    raise wrong(f"{','.join(row)!r} is not a category and a number", rows.line_num) from None
                if not math.isfinite(number):
                    raise wrong(f"{text} is not a finite number", rows.line_num)
                if category in found:
                    raise wrong(f"the category {category!r} appears a second time", rows.line_num)
                found[category] = number
    except OSError as error:
        raise wrong(error.strerror or str(error)) from None
    except (ValueError, csv.Error) as error:
        raise wrong(f"not a CSV file in UTF-8: {error}") from None
    if not found:
        raise wrong("it has no categories")
    return found
