"""What each type of field makes of each spelling of a value, whichever way a line is read, and wherever it stands."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstream.events.flat_lines import FlatReader
from modelstream.events.parsing import LineParser
from modelstream.events.values import held as held_as
from modelstream.events.values import misfit
from modelstream.messages.identity import bucket_of
from modelstream.messages.json_text import key_of
from modelstream.source.key_finder import KeyFinder
from modelstream.use_case.declared import Field, Unit, UseCase
from modelstream.use_case.file import parse_use_case
from tests.events.test_parsing import assert_as_json_reads, checked

TYPES = {
    "key": "key",
    "id": "identifier",
    "whole": "integer",
    "number": "number",
    "text": "text",
    "truth": "boolean",
    "time": "time",
    **{unit: f"{{type: time, epoch: {unit}}}" for unit in ("s", "ms", "us", "ns")},
}


def use_case(prefix: str = "") -> UseCase:
    """Return a use case with a field of each type, all of them at a prefix such as `after.`."""
    fields = []
    for name, type_ in TYPES.items():
        inside = type_.strip("{}").removeprefix("type: ")
        fields.append(f"{name}: {{type: {inside}, path: {prefix}{name}}}" if prefix else f"{name}: {type_}")
    at, kind = (f"{{type: {type_}, path: {prefix}{name}}}" for name, type_ in (("at", "time"), ("kind", "text")))
    return parse_use_case(
        f"{{version: 1, name: values, key: key, time: at, type: kind, statistics: [sum], predict_on: [seen], "
        f"fields: {{at: {at}, kind: {kind}, {', '.join(fields)}}}, "
        "events: {seen: {value: number}, other: {}}, model: {name: m, prediction: p}}"
    )


FLAT, ENVELOPED, DEEP = use_case(), use_case("after."), use_case("payload.after.")
NOON = 1_767_268_800_000_000  # 2026-01-01 12:00 UTC

SPELLED: list[tuple[str, str, Any]] = [
    # A number without a fraction is an integer, however it is written, up to 2^53.
    *((kind, "10001", "10001") for kind in ("key", "id")),
    *((kind, "10001.0", "10001") for kind in ("key", "id")),
    *((kind, "10001.000", "10001") for kind in ("key", "id")),
    *((kind, "1.0001e4", "10001") for kind in ("key", "id")),
    *((kind, "0.0", "0") for kind in ("key", "id")),
    *((kind, "-0.0", "0") for kind in ("key", "id")),
    *((kind, "-7.0", "-7") for kind in ("key", "id")),
    *((kind, '"10001.0"', "10001.0") for kind in ("key", "id")),
    *((kind, '"007"', "007") for kind in ("key", "id")),
    *((kind, "123456789012345.0", "123456789012345") for kind in ("key", "id")),
    *((kind, "9007199254740992.0", "9007199254740992") for kind in ("key", "id")),
    *((kind, "9007199254740994.0", None) for kind in ("key", "id")),
    *((kind, "123456789012345678901", "123456789012345678901") for kind in ("key", "id")),
    *((kind, "10001.5", None) for kind in ("key", "id")),
    *((kind, "1e300", None) for kind in ("key", "id")),
    *((kind, "true", None) for kind in ("key", "id")),
    ("whole", "1", 1),
    ("whole", "1.0", 1),
    ("whole", "-1.00", -1),
    ("whole", "-0.0", 0),
    ("whole", "2e3", 2000),
    ("whole", "1.5", None),
    ("whole", '"1"', None),
    ("whole", "9223372036854775807", 2**63 - 1),
    ("whole", "9223372036854775808", None),
    ("whole", "9.223372036854775807e18", None),
    ("whole", "true", None),
    ("number", "3", 3.0),
    ("number", "3.0", 3.0),
    ("number", "3e-1", 0.3),
    ("number", '"3"', None),
    ("number", "true", None),
    ("text", '"3.0"', "3.0"),
    ("text", "3.0", None),
    ("truth", "true", True),
    ("truth", "1", None),
    # Times: text is ISO 8601, a number counts from 1970 in the declared unit.
    ("time", '"2026-01-01 12:00:00"', NOON),
    ("time", '"2026-01-01 12:00:00 UTC"', NOON),
    ("time", '"2026-01-01T13:00+01:00"', NOON),
    ("time", '"20260101T120000Z"', NOON),
    ("time", '"2026-W01-4T12:00"', NOON),
    ("time", '"2026-01-01"', NOON - 43_200_000_000),
    ("time", '"20260101"', NOON - 43_200_000_000),
    ("time", '"1767268800"', None),
    ("time", "1767268800", None),
    ("time", '"01/02/2026"', None),
    ("time", '"9999-12-31T23:59:59-05:00"', None),
    ("time", '"0001-01-01T00:00:00+02:00"', None),
    *((unit, '"2026-01-01T12:00Z"', NOON) for unit in ("s", "ms", "us", "ns")),
    *((unit, "true", None) for unit in ("s", "ms", "us", "ns")),
    ("s", "1767268800", NOON),
    ("s", "1767268800.0", NOON),
    ("s", "1.7672688e9", NOON),
    ("s", "1767268800.25", NOON + 250_000),
    ("s", "1767268800.1234567", NOON + 123_456),
    ("s", "-1", -1_000_000),
    ("s", "253402300799", 253_402_300_799_000_000),
    ("s", "253402300800", None),
    ("s", "-62135596801", None),
    ("s", "1767268800000", None),  # milliseconds
    ("s", "9" * 18, None),
    ("s", "1e300", None),
    ("ms", "1767268800000", NOON),
    ("ms", "1767268800000.0", NOON),
    ("ms", "1767268800000.5", NOON + 500),
    ("us", "1767268800000001", NOON + 1),
    ("us", "-62135596800000000", -62_135_596_800_000_000),
    ("us", "-62135596800000001", None),
    ("ns", "1767268800000000999", NOON),
    ("ns", "-1", -1),
]


def line(field: str, text: str, envelopes: tuple[str, ...] = (), more: str = "") -> bytes:
    """Return a line with a value of the field, and what every event has."""
    usual = {"at": '"2026-01-01"', "kind": '"other"', "key": '"u1"'} | {field: text}
    inner = ", ".join(f'"{name}": {value}' for name, value in usual.items()) + more
    for name in reversed(envelopes):
        inner = f'"op": "c", "{name}": {{{inner}}}'
    return f"{{{inner}}}".encode()


def held(text: bytes, case: UseCase, field: str) -> Any:
    """Return what becomes of the field; None if the line is refused."""
    found = checked([text], case)[0]
    if isinstance(found, str):
        assert found.startswith(f"{field}: ")
        return None
    return found[field]


@pytest.mark.parametrize(("field", "text", "value"), SPELLED)
def test_a_spelling_means_the_same_wherever_and_however_it_is_read(field: str, text: str, value: Any) -> None:
    flat = line(field, text)
    wanted = repr(value)
    assert repr(held(flat, FLAT, field)) == wanted
    assert repr(held(line(field, text, more=', "x": "\\n"'), FLAT, field)) == wanted  # the lenient way
    assert repr(held(flat.replace(b'"kind"', b'"k\\u0069nd"'), FLAT, field)) == wanted  # the strict way
    assert repr(held(line(field, text, ("after",)), ENVELOPED, field)) == wanted
    assert repr(held(line(field, text, ("payload", "after")), DEEP, field)) == wanted
    assert_as_json_reads([flat])
    if field == "key":
        for case, envelopes in ((FLAT, ()), (ENVELOPED, ("after",)), (DEEP, ("payload", "after"))):
            whole = line(field, text, envelopes)
            assert key_of(whole, case.key_path) == (value or "")
            assert KeyFinder(case.key_path).find(whole + b"\n").buckets.tolist() == [bucket_of(value or "")]


@pytest.mark.parametrize(
    "text",
    [
        line("key", "10001.0"),
        line("id", "10001.0"),
        line("whole", "-1.0"),
        line("time", '"2026-01-01 12:00:00 UTC"'),
        *(line(unit, "1767268800") for unit in ("s", "ms", "us", "ns")),
    ],
)
def test_usual_spellings_take_the_fast_way(text: bytes) -> None:
    assert FlatReader(FLAT).read(pa.array([text], pa.binary())).good.all()
    assert KeyFinder("key").find(text + b"\n").slow == 0


# Any values, in an envelope.

NUMBERS = st.one_of(
    st.integers(-(10**20), 10**20),
    st.integers(-(10**6), 10**6).map(float),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(10**9, 2 * 10**18),
)
VALUES = st.one_of(NUMBERS, st.text(max_size=4), st.booleans(), st.none(), st.just({}), st.just({"key": "u2"}))


@st.composite
def enveloped(draw: st.DrawFn) -> bytes:
    fields = {"at": "2026-01-01", "kind": "other", "key": draw(st.sampled_from(["u1", 7, 7.0, 7.5]))}
    for name in draw(st.lists(st.sampled_from([*TYPES, "x"]), max_size=3)):
        fields[name] = draw(VALUES)
    event: Any = {"before": None, "after": fields, **draw(st.sampled_from([{}, {"op": "c"}, {"key": "u9"}]))}
    return json.dumps(
        draw(st.sampled_from([event, event, event, {"after": None}, {"after": [fields]}, fields]))
    ).encode()


@settings(deadline=None, max_examples=150)
@given(st.lists(enveloped(), max_size=6))
def test_any_events_in_envelopes_are_read_as_json_reads_them(batch: list[bytes]) -> None:
    assert_as_json_reads(batch, ENVELOPED)
    block = b"".join(text + b"\n" for text in batch)
    found = KeyFinder(ENVELOPED.key_path).find(block).buckets.tolist()
    assert found == [bucket_of(key_of(text, ENVELOPED.key_path)) for text in batch]
    for index, row in checked(batch, ENVELOPED).items():
        assert isinstance(row, str) or found[index] == bucket_of(row["key"])


@settings(deadline=None, max_examples=150)
@given(st.sampled_from([*TYPES]), NUMBERS)
def test_any_number_in_any_field_is_read_as_json_reads_it(field: str, number: float) -> None:
    assert_as_json_reads([line(field, json.dumps(number))], FLAT)


def test_what_stands_beside_the_fields_of_an_envelope_is_kept_and_what_stands_elsewhere_is_no_field() -> None:
    row = checked(
        [b'{"op": "c", "key": "no", "after": {"at": "2026-01-01", "kind": "x", "key": 1.0, "z": [1.0]}}'], ENVELOPED
    )
    assert row[0]["key"] == "1"  # type: ignore[index]
    assert row[0]["extra"] == '{"op": "c", "key": "no", "after": {"z": [1.0]}}'  # type: ignore[index]


def test_a_field_may_have_another_name_in_the_events() -> None:
    case = parse_use_case(
        "{version: 1, name: renamed, key: user, time: at, type: kind, statistics: [sum], predict_on: [seen], "
        "fields: {user: {type: key, path: anonymousId}, at: {type: time, path: timestamp}, "
        "kind: {type: text, path: event}, amount: {type: number, path: properties.amount}}, "
        "events: {seen: {value: amount}}, model: {name: m, prediction: p}}"
    )
    segment = (
        b'{"anonymousId": "a1", "timestamp": "2026-01-01T12:00:00Z", "event": "seen", "properties": {"amount": 2}}'
    )
    parsed = LineParser(case).parse([segment], np.zeros(1, np.int64), 0)
    row = parsed.events.to_pylist()[0]
    assert (row["user"], row["kind"], row["amount"], row["extra"]) == ("a1", "seen", 2.0, None)
    assert key_of(segment, case.key_path) == "a1"


@pytest.mark.parametrize(
    ("number", "unit"),
    [(b"1767268800", "s"), (b"1767268800000", "ms"), (b"1767268800000000", "us"), (b"-1767268800000000000", "ns")],
)
def test_a_number_in_a_time_without_a_unit_is_told_with_the_unit_that_fits(number: bytes, unit: str) -> None:
    told = misfit("at", Field("time"), number)  # type: ignore[arg-type]
    assert told.endswith(f"declare the unit: at: {{type: time, epoch: {unit}}}")
    year = held_as(Field("time", epoch=Unit(unit)), int(number))  # type: ignore[arg-type]
    assert abs(year) == NOON
