"""The meaning of a use case: what stored rows, vectors and log files depend on, and how two of them differ, in words.

Left out is what no stored value depends on: title, description, what the model card says of the model's use, comments,
the use case's own name, the order of names where it has no meaning, and the model's name, which every prediction
carries itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import xxhash

from modelstream.base.words import counted
from modelstream.base.yamlfile import Place
from modelstream.errors import ConfigurationError
from modelstream.use_case import arithmetic
from modelstream.use_case.declared import UseCase
from modelstream.use_case.durations import duration, microseconds
from modelstream.use_case.version_1 import UseCaseV1, closest, translated
from modelstream.use_case.version_2 import UNLIMITED, form_of
from modelstream.use_case.vocabulary import AllTime, Category, Compute, Condition, From

Meaning = dict[str, Any]
"""What a use case means, as plain data for JSON. Values that are their defaults are left out, so that files keep their
meaning when the format gains a setting."""

_WITHOUT_MEANING = ("version", "name", "title", "description")
_UNORDERED = ("needs", "aliases", "of", "where", "share")
_DURATIONS = ("ahead", "late", "wait")
_LIMITS: Collection[Place] = (("time", "ahead"), ("time", "late"))
_NOTHING: Collection[Any] = (None, "", [], {}, ())
_ORDERED: Collection[Place] = (("fields",), ("features",))
"""Where the order of names has a meaning: that of the columns, and that of the features."""


@dataclass(frozen=True)
class Difference:
    """Something in which two use cases differ."""

    place: Place
    """Where it stands in the use-case file."""
    text: str

    def __str__(self) -> str:
        return self.text


def meaning_of(use_case: UseCase) -> Meaning:
    """Return what a use case means: equal for two exactly if the same events lead to the same stored values.

    What version 1 of use-case files could say is said as there, so that what was stored before keeps its hash.

    >>> from modelstream.use_case.file import parse_use_case
    >>> text = '''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count], title: Cold houses,
    ...  fields: {house: key, at: time, kind: text, celsius: number}, events: {reading: {value: celsius}},
    ...  predict_on: [reading], model: {name: frost, prediction: will_freeze, threshold: 0.5}}'''
    >>> found = meaning_of(parse_use_case(text))
    >>> found["events"], found["model"]
    ({'reading': {'value': 'celsius'}}, {'prediction': 'will_freeze'})
    >>> found == meaning_of(parse_use_case(text.replace("Cold houses", "Warm houses")))
    True
    """
    found, old = _plain(use_case, defaults=False), closest(use_case)
    return _as_stored_before(old) if digest(_plain(translated(old), defaults=False)) == digest(found) else found


def digest(found: Mapping[str, Any]) -> str:
    """Return a hash of plain data, such as a meaning; the order of names counts.

    >>> digest({"key": "house"}) == digest({"key": "house"}), len(digest({}))
    (True, 32)
    """
    return xxhash.xxh3_128_hexdigest(msgspec.json.encode(found))


def use_case_of(meaning: Meaning) -> UseCase:
    """Return a use case of this meaning, which may have been stored by an earlier version.

    Raises ConfigurationError for one that this version can't know.
    """
    data = {"name": "", **meaning, "model": {"name": "", **meaning.get("model", {})}}
    try:
        if "features" not in meaning:  # stored before there was version 2
            return translated(msgspec.convert({"version": 1, **data}, UseCaseV1))
        forms = data.pop("features")
        head = msgspec.convert({"version": 2, **data}, UseCase)
        return msgspec.structs.replace(head, forms={name: form_of(form) for name, form in forms.items()})
    except (msgspec.ValidationError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ConfigurationError(
            f"a use case was stored by another version of modelstream: {error}", remedy="update modelstream"
        ) from None


def check_meaning(kept: str, use_case: UseCase, what: str) -> None:
    """Raise ConfigurationError, with each difference, if stored data were made with another definition than a use case.

    `kept` is the meaning that was stored with them, as JSON; `what` is what the error calls them.

    >>> from modelstream.use_case.file import parse_use_case
    >>> text = '''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count],
    ...  fields: {house: key, at: time, kind: text, celsius: number}, events: {reading: {value: celsius}},
    ...  predict_on: [reading], model: {name: frost, prediction: will_freeze}}'''
    >>> kept = msgspec.json.encode(meaning_of(parse_use_case(text))).decode()
    >>> check_meaning(kept, parse_use_case(text), "the rows")
    >>> check_meaning(kept, parse_use_case(text.replace("house: key", "house: key, x: text")), "the rows")
    Traceback (most recent call last):
    modelstream.errors.ConfigurationError: the rows were made with another definition: fields.x: none before, text now
    """
    found = differences(use_case_of(msgspec.json.decode(kept, type=Meaning)), use_case)
    if found:
        listed = f" {found[0]}" if len(found) == 1 else "".join(f"\n  {one}" for one in found)
        raise ConfigurationError(
            f"{what} were made with another definition:{listed}",
            remedy="put the use case back, or begin anew in another place",
        )


def differences(before: UseCase, now: UseCase) -> list[Difference]:
    """Return in words what two use cases mean differently; nothing if they mean the same.

    >>> from modelstream.use_case.file import parse_use_case
    >>> text = '''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count],
    ...  fields: {house: key, at: time, kind: text, celsius: number}, window: {opens: reading, hours: 24},
    ...  events: {reading: {value: celsius}}, predict_on: [reading], model: {name: frost, prediction: will_freeze}}'''
    >>> before = parse_use_case(text)
    >>> now = parse_use_case(text.replace("24", "48").replace("mean, count", "mean"))
    >>> print(*differences(before, now), sep="; ")
    window: 24h before, 48h now; features.reading.give: mean, count before, mean now
    """
    return list(changes(_plain(before, defaults=True), _plain(now, defaults=True), ordered=_ORDERED))


def changes(
    before: Mapping[str, Any], now: Mapping[str, Any], place: Place = (), *, ordered: Collection[Place] = ()
) -> Iterator[Difference]:
    """Yield where plain data differ; mappings at a place in `ordered` differ also by the order of their names.

    >>> print(*changes({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": [3, 4]}, "d": True}), sep="; ")
    a.c: 2 before, 3, 4 now; d: none before, true now
    """
    same = True
    for name in dict.fromkeys((*now, *before)):
        old, new, inner = before.get(name), now.get(name), (*place, name)
        if isinstance(old, dict) and isinstance(new, dict):
            found = list(changes(old, new, inner, ordered=ordered))
        else:
            found = [_difference(inner, old, new)] if old != new or (name in before) != (name in now) else []
        same = same and not found
        yield from found
    if same and place in ordered and [*before] != [*now]:
        shown = f"{', '.join(before)} before, {', '.join(now)} now"
        yield Difference(place, f"the order of {'.'.join(map(str, place))}: {shown}")


def _as_stored_before(old: UseCaseV1) -> Meaning:
    """Return the meaning of a use case of version 1 as it was stored when there was no other."""
    return _with_meaning(_builtins(old, defaults=False))


def _with_meaning(found: Meaning) -> Meaning:
    for name in _WITHOUT_MEANING:
        found.pop(name, None)
    for name in ("name", "intended_use", "limits"):
        found["model"].pop(name, None)
    found["predict_on"] = sorted(found["predict_on"])
    return found


def _plain(use_case: UseCase, *, defaults: bool) -> Meaning:
    found = _with_meaning(_builtins(use_case, defaults))
    found["events"] = dict(sorted(found["events"].items()))
    found["time"] = _builtins(use_case.clock, defaults)
    found.setdefault("features", {})
    return found


def _builtins(value: Any, defaults: bool) -> Any:
    """Return declared values as plain data, with or without those that are their defaults.

    What can be written in several ways, and means the same, is written in one.
    """
    if isinstance(value, AllTime):
        return "all time"
    if isinstance(value, msgspec.Struct):
        fields = [(field, getattr(value, field.name)) for field in msgspec.structs.fields(value)]
        found = {
            field.encode_name: _one_way(field.encode_name, _builtins(inner, defaults))
            for field, inner in fields
            if defaults or inner != _default(field)
        }
        if isinstance(value, From):
            found["for"] = duration(value.microseconds)
        if isinstance(value, Condition) and found.get("in"):
            found["in"] = sorted(found["in"], key=repr)
        if isinstance(value, Compute):
            found["compute"] = arithmetic.rewritten(value.compute)
        if isinstance(value, Category):
            found.pop("values", None)
            if value.values:  # where they are missing, this is a meaning that was stored
                rows = counted(len(value.values), "row")
                found["table"] = f"{rows} with the hash {digest(dict(sorted(value.values.items())))}"
        return found
    if isinstance(value, dict):
        return {name: _builtins(inner, defaults) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_builtins(inner, defaults) for inner in value]
    return msgspec.to_builtins(value)


def _default(field: Any) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _one_way(name: str, value: Any) -> Any:
    """Return a setting in the one way in which it is written here."""
    if name in _UNORDERED:
        return dict(sorted(value.items())) if isinstance(value, dict) else sorted(value, key=str)
    if name in _DURATIONS and isinstance(value, str):
        return duration(microseconds(value) or 0)
    return value


def _difference(place: Place, old: object, new: object) -> Difference:
    said = place[:-1] if place[-1] == "for" and place[0] == "window" else place
    if place in _LIMITS:
        old, new = old or UNLIMITED, new or UNLIMITED
    return Difference(place, f"{'.'.join(map(str, said))}: {_words(old)} before, {_words(new)} now")


def _words(value: object) -> str:
    if value in _NOTHING:
        return "none"
    if isinstance(value, dict):
        told = [f"{name} {_words(inner)}" for name, inner in value.items() if inner not in _NOTHING]
        return ", ".join(told) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.15g}"
    return str(value)
