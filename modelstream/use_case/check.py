"""Checks that the parts of a use case fit together: those that every version of its file has."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from modelstream.base.names import PLAIN_NAME
from modelstream.base.yamlfile import Place, suggestion
from modelstream.use_case.columns import ADDED
from modelstream.use_case.declared import UseCase
from modelstream.use_case.vocabulary import names_of

Problem = tuple[Place, str, str]
"""Where, what, and the remedy."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""What can be a column in SQL, Parquet and Python."""
NAME_REMEDY = "use letters, digits and _, beginning with a letter"
LONGEST = 1_000_000 * 3_600_000_000
"""A century: the sum of two times stays an int64."""


def problems(use_case: UseCase) -> Iterator[Problem]:
    """Yield every mistake in what both versions of use-case files say.

    `file.parse_use_case` raises the first.
    """
    for part in (_names, _paths, _key_time_type, _events, _profile, _label, _model):
        yield from part(use_case)


def unknown(place: Place, what: str, word: str, known: Iterable[str]) -> Problem:
    return place, f"no {what} {word!r}", suggestion(word, known)


def no_event(use_case: UseCase, place: Place, word: str) -> Problem:
    """Return what is wrong with a word that is not the name of an event."""
    if word in use_case.event_codes:
        name = use_case.event_names[use_case.event_codes[word]]
        return place, f"{word!r} is another name of the event {name!r}", f"write {name}, which stands for all its names"
    return unknown(place, "event", word, use_case.events)


def repeated(place: Place, words: Iterable[str]) -> Iterator[Problem]:
    yield from ((place, f"{word!r} is listed twice", "keep one") for word, n in Counter(words).items() if n > 1)


def _names(use_case: UseCase) -> Iterator[Problem]:
    """Check names: they become columns in SQL, Parquet and Python, and parts of URLs."""
    names: list[Place] = [("fields", name) for name in use_case.fields]
    names += [("events", name) for name in use_case.events]
    for place in names:
        if not NAME.fullmatch(str(place[-1])):
            yield place, "not a valid name", NAME_REMEDY
    for place, name in ((("name",), use_case.name), (("model", "name"), use_case.model.name)):
        if not PLAIN_NAME.fullmatch(name):
            yield place, f"{name!r} can't be part of a URL", "use letters, digits, - and _"
    added = [(("profile", "time"), use_case.profile.time)] if use_case.profile else []
    for place, name in (*added, (("model", "prediction"), use_case.model.prediction)):
        if not NAME.fullmatch(name):
            yield place, f"{name!r} is not a valid name", NAME_REMEDY


def _paths(use_case: UseCase) -> Iterator[Problem]:
    taken: dict[tuple[str, ...], str] = {}
    for name, path in use_case.paths.items():
        place = ("fields", name, "path")
        if not all(path):
            yield place, f"{'.'.join(path)!r} is not a path", "give names with dots between them, such as after.celsius"
        if path in taken:
            yield place, f"{taken[path]!r} stands there too", "read a value into one field only"
        taken[path] = name
    for name, path in use_case.paths.items():
        for i in range(1, len(path)):
            if other := taken.get(path[:i]):
                yield (
                    *(("fields", name, "path"), f"{other!r} is read from {'.'.join(path[:i])!r}, which holds this one"),
                    "a field is a single value: read only the fields inside",
                )
    for name, field in use_case.declared.items():
        if field.epoch and field.type != "time":
            yield ("fields", name, "epoch"), f"{name!r} is of type {field.type}", "declare it as time, or remove this"


def _key_time_type(use_case: UseCase) -> Iterator[Problem]:
    for part, name, type_ in (
        ("key", use_case.key, "key"),
        ("time", use_case.time, "time"),
        ("type", use_case.type, "text"),
    ):
        if name not in use_case.fields:
            yield unknown((part,), "field", name, use_case.fields)
        elif use_case.fields[name] != type_:
            yield (part,), f"{name!r} is a {use_case.fields[name]}", f"declare it as {type_} under fields"
    for name, field_type in use_case.fields.items():
        if field_type == "key" and name != use_case.key:
            remedy = f"make it an identifier: {use_case.key!r} is the key"
            yield ("fields", name), "only one field may be the key", remedy


def _events(use_case: UseCase) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for event, declared in use_case.events.items():
        for name in (event, *declared.aliases):
            if not name:
                yield ("events", event, "aliases"), "an empty name", "remove it"
            if name in seen:
                yield (
                    ("events", event),
                    f"{name!r} is already a name of the event {seen[name]!r}",
                    "use each name for one event only",
                )
            seen[name] = event
    for name in use_case.predict_on:
        if name not in use_case.events:
            yield no_event(use_case, ("predict_on",), name)
    yield from repeated(("predict_on",), use_case.predict_on)
    if not use_case.predict_on:
        yield ("predict_on",), "no event asks for a prediction", "list at least one"


def _profile(use_case: UseCase) -> Iterator[Problem]:
    profile = use_case.profile
    if profile is None:
        return
    if profile.event not in use_case.events:
        yield no_event(use_case, ("profile", "event"), profile.event)
    for name in profile.fields:
        if name not in use_case.fields:
            yield unknown(("profile", "fields"), "field", name, use_case.fields)
    yield from repeated(("profile", "fields"), profile.fields)


def _label(use_case: UseCase) -> Iterator[Problem]:
    label = use_case.label
    if label is None:
        return
    if label.field not in use_case.fields:
        yield unknown(("label", "field"), "field", label.field, use_case.fields)
    else:
        type_ = use_case.fields[label.field]
        fits = {"integer": int, "boolean": bool, "text": str, "identifier": str}.get(type_)
        if type(label.positive) is not fits:
            yield (
                ("label", "positive"),
                f"{label.positive!r} is not a value of {label.field!r}",
                f"it is of type {type_}",
            )
    if label.event is not None and label.event not in use_case.events:
        yield no_event(use_case, ("label", "event"), label.event)
    if label.wait is not None and (label.event is None or (use_case.profile and label.event == use_case.profile.event)):
        problem = "the label comes with the profile, so there is nothing to wait for"
        yield ("label", "wait"), problem, "name a later `event`"


def _model(use_case: UseCase) -> Iterator[Problem]:
    if not 0 <= use_case.model.threshold <= 1:
        yield ("model", "threshold"), f"{use_case.model.threshold} is not a probability", "give one, 0 to 1"


def columns(use_case: UseCase) -> Iterator[Problem]:
    """Check that no two columns have the same name; in SQL, `A` and `a` are the same."""
    added = {name.lower() for name in ADDED}
    for name in use_case.fields:
        if name.lower() in added:
            yield ("fields", name), "the pipeline adds a column of that name", "rename it"
    for schema in (
        *(use_case.event_schema, use_case.row_schema, use_case.features_schema),
        *(use_case.prediction_schema, use_case.events_log_schema, use_case.inference_log_schema),
    ):
        for name, count in Counter(name.lower() for name in schema.names).items():
            if count > 1:
                forms = [n for n, form in use_case.forms.items() if name in (one.lower() for one in names_of(n, form))]
                place: Place = ("features", forms[-1]) if forms else ()
                yield place, f"two columns would be called {name!r}", "rename the field, the event or the feature"
