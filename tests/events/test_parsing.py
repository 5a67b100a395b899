"""Every line is either read as the `json` module reads it, or rejected with its reason; neither touches the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelstream.events.parsing import Checker, LineParser, Parsed
from modelstream.features.engine import FeatureEngine, replay
from modelstream.messages.json_text import key_of
from modelstream.use_case.declared import UseCase
from modelstream.use_case.file import load_use_case
from tests.lines_oracle import MAX_NESTING, Unreadable, read_line
from tests.oracle import bits, lookup_in, read_values

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
CHURN = load_use_case(ROOT / "use_cases" / "churn.yaml")
BOILERS = load_use_case(ROOT / "tests" / "use_cases" / "boilers.yaml")
INGESTED = 1_800_000_000_000_000

GOOD = b'{"user_id": "u1", "event_time": "2026-03-28 20:00:00", "event_type": "bet", "bet_amount": 2.5}'


def parse(lines: list[bytes], case: UseCase = CHURN, parser: LineParser | None = None) -> Parsed:
    positions = np.arange(0, 10 * len(lines), 10, dtype=np.int64)
    return (parser or LineParser(case)).parse(lines, positions, INGESTED)


def checked(
    lines: list[bytes], case: UseCase = CHURN, parser: LineParser | None = None
) -> dict[int, dict[str, Any] | str]:
    """Return what became of each line: its row, or the reason why it was rejected."""
    parsed = parse(lines, case, parser)
    assert parsed.events.schema.equals(case.event_schema)
    parsed.events.validate(full=True)
    lacking = {reject.index: reject.reason for reject in Checker(case).check(parsed.events)}
    times = [name for name in case.fields if case.fields[name] == "time"]
    events = parsed.events
    for name in [*times, "ingested_at"]:
        place = events.schema.get_field_index(name)
        events = events.set_column(place, name, events.column(name).cast(pa.int64()))
    found: dict[int, dict[str, Any] | str] = {reject.index: reject.reason for reject in parsed.rejects}
    assert len(found) == len(parsed.rejects)
    for place, (index, row) in enumerate(zip(parsed.indices.tolist(), events.to_pylist(), strict=True)):
        assert index not in found
        assert row.pop("position") == 10 * index
        assert row.pop("ingested_at") == INGESTED
        found[index] = lacking.get(place, row)
    assert sorted(found) == list(range(len(lines)))
    return found


def assert_as_json_reads(lines: list[bytes], case: UseCase = CHURN, parser: LineParser | None = None) -> None:
    found = checked(lines, case, parser)
    for index, line in enumerate(lines):
        try:
            expected = read_line(line, case)
        except Unreadable as error:
            assert isinstance(found[index], str), f"{line!r} was read, but {error}"
            continue
        row = found[index]
        assert not isinstance(row, str), f"{line!r} was rejected: {row}"
        extra = row.pop("extra")
        held = {name: value for name, value in row.items() if value is not None}
        assert repr(held) == repr({name: expected.values[name] for name in row if name in expected.values})
        assert (None if extra is None else json.loads(extra)) == expected.extra


# Good rows.


@pytest.mark.parametrize("name", ["reference_events", "edge_events"])
def test_golden_lines_are_read_as_json_reads_them(name: str) -> None:
    lines = [line for line in (GOLDEN / f"{name}.ndjson").read_bytes().split(b"\n") if line.strip()]
    parser = LineParser(CHURN)
    for start in range(0, len(lines), 997):
        assert_as_json_reads(lines[start : start + 997], parser=parser)


@pytest.mark.parametrize("name", ["", "edge_"])
def test_golden_lines_give_the_golden_vectors(name: str) -> None:
    source = "edge_events" if name else "reference_events"
    lines = [line for line in (GOLDEN / f"{source}.ndjson").read_bytes().split(b"\n") if line.strip()]
    lookup = lookup_in(read_values(GOLDEN / "enrichment.csv"))
    events = parse(lines).events
    ((_, applied),) = replay(CHURN, [events], lookup, FeatureEngine(CHURN))
    expected = pq.read_table(GOLDEN / f"{name}expected_vectors.parquet").select(list(CHURN.features))
    columns = [expected[feature].to_pylist() for feature in CHURN.features]
    assert bits(applied.vectors.tolist()) == bits(zip(*columns, strict=True))


def test_no_lines_give_no_events() -> None:
    parsed = parse([])
    assert parsed.events.num_rows == 0
    assert parsed.events.schema.equals(CHURN.event_schema)
    assert parsed.rejects == []


@pytest.mark.parametrize(
    ("fields", "held"),
    [
        ({"user_id": 123}, {"user_id": "123"}),
        ({"user_id": -7}, {"user_id": "-7"}),
        ({"user_id": 123456789012345678901234567890}, {"user_id": "123456789012345678901234567890"}),
        ({"user_id": " u\t1 "}, {"user_id": " u\t1 "}),
        ({"user_id": "ü☂😀"}, {"user_id": "ü☂😀"}),
        ({"user_id": "\x00"}, {"user_id": "\x00"}),
        ({"postcode": 1234}, {"postcode": "1234"}),
        ({"postcode": "01234"}, {"postcode": "01234"}),
        ({"bet_amount": 3}, {"bet_amount": 3.0}),
        ({"bet_amount": -0.0}, {"bet_amount": -0.0}),
        ({"bet_amount": 5e-324}, {"bet_amount": 5e-324}),
        ({"bet_amount": 1.7976931348623157e308}, {"bet_amount": 1.7976931348623157e308}),
        ({"bet_amount": 10**300}, {"bet_amount": 1e300}),
        ({"label": 2**63 - 1}, {"label": 2**63 - 1}),
        ({"name": None, "city": ""}, {"name": None, "city": ""}),
        ({"event_type": "login"}, {"event_type": "login"}),
        ({"event_type": "", "bet_amount": None}, {"event_type": "", "bet_amount": None}),
    ],
)
def test_readable_values(fields: dict[str, Any], held: dict[str, Any]) -> None:
    line = json.dumps(json.loads(GOOD) | fields).encode()
    row = checked([line])[0]
    assert not isinstance(row, str)
    assert {name: repr(row[name]) for name in held} == {name: repr(value) for name, value in held.items()}
    assert_as_json_reads([line])


def test_escapes_in_names_and_values_are_the_characters_that_they_mean() -> None:
    plain = checked([GOOD])[0]
    escaped = GOOD.replace(b'"user_id": "u1"', rb'"\u0075ser_\u0069d": "\u00751"').replace(b'"bet"', rb'"b\u0065t"')
    assert checked([escaped])[0] == plain


def test_of_a_field_that_stands_twice_the_last_holds() -> None:
    assert checked([GOOD[:-1] + b', "user_id": "u2"}'])[0]["user_id"] == "u2"  # type: ignore[index]
    assert checked([b'{"user_id": [1], ' + GOOD[1:]])[0] == checked([GOOD])[0]
    assert isinstance(checked([GOOD[:-1] + b', "user_id": [1]}'])[0], str)


def test_fields_that_the_use_case_does_not_name_are_kept_as_their_text() -> None:
    line = GOOD[:-1] + rb', "device": {"os":  "x", "v": [1, 2e1]}, "\u00fc\"": null, "position": 1e999, "extra": "y"}'
    row = checked([line])[0]
    assert not isinstance(row, str)
    assert row["extra"] == '{"device": {"os":  "x", "v": [1, 2e1]}, "ü\\"": null, "position": 1e999, "extra": "y"}'


# Bad rows.

NESTED = 100_000
BAD: dict[str, tuple[bytes, str]] = {
    "broken": (GOOD[:-1], "not JSON"),
    "cut in a text": (GOOD[:20], "not JSON"),
    "nothing but a brace": (b"{", "not JSON"),
    "two objects": (GOOD + GOOD, "not JSON"),
    "trailing comma": (GOOD[:-1] + b",}", "not JSON"),
    "single quotes": (GOOD.replace(b'"', b"'"), "not JSON"),
    "comment": (GOOD + b" // bet", "not JSON"),
    "NaN": (GOOD.replace(b"2.5", b"NaN"), "not JSON"),
    "Infinity": (GOOD.replace(b"2.5", b"Infinity"), "not JSON"),
    "-Infinity": (GOOD.replace(b"2.5", b"-Infinity"), "not JSON"),
    "leading zero": (GOOD.replace(b"2.5", b"02.5"), "not JSON"),
    "plus sign": (GOOD.replace(b"2.5", b"+2.5"), "not JSON"),
    "control character": (GOOD.replace(b"u1", b"u\x01"), "not JSON"),
    "lone surrogate": (
        GOOD.replace(b"u1", rb"\ud800"),
        r"\ud800 at byte 13 is half a UTF-16 surrogate pair, not a character",
    ),
    "lone surrogate in another field": (GOOD[:-1] + rb', "x": "a\udc00b"}', r"\udc00 at byte 102 is half a UTF-16"),
    "half a pair at the end of a text": (GOOD[:-1] + rb', "x": "\ud83d\ude00\ud83d"}', r"\ud83d at byte 113 is half a"),
    "lone surrogate and broken": (GOOD.replace(b"u1", rb"\ud800")[:-1], "not JSON"),
    "invalid UTF-8 in a value": (GOOD.replace(b"u1", b"u\xff"), "not UTF-8"),
    "invalid UTF-8 in a name": (GOOD.replace(b"user_id", b"user\xff"), "not UTF-8"),
    "invalid UTF-8 in another field": (GOOD[:-1] + b', "x": "\xc3"}', "not UTF-8"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "not UTF-8 text: byte 0 of the line; it looks like UTF-16: send UTF-8"),
    "UTF-16 without a mark": (GOOD.decode().encode("utf-16-le"), "not UTF-8 text; it looks like UTF-16: send UTF-8"),
    "UTF-16 without a mark, other order": (GOOD.decode().encode("utf-16-be"), "not UTF-8 text; it looks like UTF-16"),
    "binary": (bytes(range(256)), "not UTF-8"),
    "text": (b'"u1"', "not a JSON object"),
    "number": (b"17", "not a JSON object"),
    "null": (b"null", "not a JSON object"),
    "array": (b"[" + GOOD + b"]", "not a JSON object"),
    "empty object": (b"{}", "user_id: missing"),
    "no key": (GOOD.replace(b"user_id", b"user"), "user_id: missing"),
    "null key": (GOOD.replace(b'"u1"', b"null"), "user_id: missing"),
    "empty key": (GOOD.replace(b"u1", b""), "user_id: empty"),
    "key a fraction": (GOOD.replace(b'"u1"', b"1.5"), "user_id: expected text or an integer, got 1.5"),
    "key a number above 2^53": (GOOD.replace(b'"u1"', b"1e16"), "user_id: expected text or an integer, got 1e+16"),
    "key true": (GOOD.replace(b'"u1"', b"true"), "user_id: expected text or an integer, got true"),
    "key an array": (GOOD.replace(b'"u1"', b'["u1"]'), 'user_id: expected text or an integer, got ["u1"]'),
    "key of 5,000 digits": (GOOD.replace(b'"u1"', b"9" * 5000), "user_id: expected text or an integer, got 999"),
    "no time": (GOOD.replace(b"event_time", b"at"), "event_time: missing"),
    "null time": (GOOD.replace(b'"2026-03-28 20:00:00"', b"null"), "event_time: missing"),
    "time a number": (
        GOOD.replace(b'"2026-03-28 20:00:00"', b"1764000000"),
        "event_time: expected text with an ISO 8601 time, got 1764000000; if it counts from 1970, declare the unit: "
        "event_time: {type: time, epoch: s}",
    ),
    "time in the year 10000 in UTC": (
        GOOD.replace(b"2026-03-28 20:00:00", b"9999-12-31T23:59:59-05:00"),
        "event_time: outside the years 1 to 9999 in UTC: 9999-12-31T23:59:59-05:00",
    ),
    "time in the year 0 in UTC": (
        GOOD.replace(b"2026-03-28 20:00:00", b"0001-01-01T00:00:00+02:00"),
        "event_time: outside the years 1 to 9999 in UTC: 0001-01-01",
    ),
    "not a time": (GOOD.replace(b"2026-03-28", b"28.3.2026"), "event_time: not an ISO 8601 time: 28.3.2026"),
    "no such day": (GOOD.replace(b"03-28", b"02-30"), "event_time: not an ISO 8601 time: 2026-02-30"),
    "no type": (GOOD.replace(b"event_type", b"kind"), "event_type: missing"),
    "null type": (GOOD.replace(b'"bet"', b"null"), "event_type: missing"),
    "type a number": (GOOD.replace(b'"bet"', b"3"), "event_type: expected text, got 3"),
    "no amount": (GOOD.replace(b"bet_amount", b"amount"), "bet_amount: missing"),
    "no amount for an alias": (GOOD.replace(b'"bet", "bet_amount"', b'"new_win", "bet_amount"'), "win_amount: missing"),
    "null amount": (GOOD.replace(b"2.5", b"null"), "bet_amount: missing"),
    "amount as text": (GOOD.replace(b"2.5", b'"2.5"'), 'bet_amount: expected a finite number, got "2.5"'),
    "amount true": (GOOD.replace(b"2.5", b"true"), "bet_amount: expected a finite number, got true"),
    "amount too large": (GOOD.replace(b"2.5", b"1e999"), "bet_amount: expected a finite number, got 1e999"),
    "amount an integer too large": (GOOD.replace(b"2.5", b"9" * 400), "bet_amount: expected a finite number, got 999"),
    "wrong type in a field that does not count": (GOOD[:-1] + b', "name": 5}', "name: expected text, got 5"),
    "label a fraction": (GOOD[:-1] + b', "label": 0.5}', "label: expected a 64-bit integer, got 0.5"),
    "label too large": (GOOD[:-1] + b', "label": 9223372036854775808}', "label: expected a 64-bit integer"),
    "deep arrays": (GOOD[:-1] + b', "x": ' + b"[" * NESTED + b"]" * NESTED + b"}", "JSON nested too deeply"),
    "deep objects": (
        GOOD[:-1] + b', "x": ' + b'{"a":' * NESTED + b"1" + b"}" * NESTED + b"}",
        "JSON nested too deeply",
    ),
    "deep and never closed": (b'{"a":' * NESTED, "JSON nested too deeply"),
    "deep in the key": (GOOD.replace(b'"u1"', b"[" * NESTED + b"]" * NESTED), "JSON nested too deeply"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_rejected_with_its_reason_and_the_rows_around_it_are_read(name: str) -> None:
    line, reason = BAD[name]
    alone = checked([GOOD])[0]
    found = checked([GOOD, line, GOOD])
    assert found[0] == found[2] == alone
    assert isinstance(found[1], str)
    assert found[1].startswith(reason)
    assert len(found[1]) < 200
    assert_as_json_reads([line])


def test_bad_rows_are_rejected_whatever_stands_around_them() -> None:
    lines = [line for bad, _ in BAD.values() for line in (GOOD, bad)]
    alone = [checked([bad])[0] for bad, _ in BAD.values()]
    found = checked(lines)
    assert [found[index] for index in range(1, len(lines), 2)] == alone
    assert all(found[index] == checked([GOOD])[0] for index in range(0, len(lines), 2))


def nested(depth: int) -> bytes:
    """Return a line with values nested so deep: the line itself is one level."""
    return GOOD[:-1] + b', "x": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def called_deep(frames: int, line: bytes) -> dict[str, Any] | str:
    return checked([line])[0] if frames == 0 else called_deep(frames - 1, line)


def test_how_deep_a_line_may_be_does_not_depend_on_who_parses_it() -> None:
    """A message that is taken again must be read the same, and Python's limit counts the caller's frames too."""
    for frames in (0, 300, 500):
        assert not isinstance(called_deep(frames, nested(MAX_NESTING)), str)
        assert called_deep(frames, nested(MAX_NESTING + 1)) == "JSON nested too deeply"


def test_brackets_in_texts_are_no_nesting() -> None:
    line = GOOD[:-1] + b', "x": "' + b'[{\\"' * 1000 + b'"}'
    assert not isinstance(checked([line])[0], str)


def test_a_row_with_two_mistakes_is_rejected_once() -> None:
    line = b'{"boiler": "b", "what": "installed", "measured_at": "soon", "warranty_until": "later"}'
    assert checked([line], BOILERS)[0] == "measured_at: not an ISO 8601 time: soon"


# Any rows.

TEXTS = st.one_of(st.text(max_size=6), st.sampled_from(["u1", "u2", "", "bet", "new_win", "purchase", "registration"]))
TIMES = st.sampled_from(
    [
        *("2026-03-28 20:00:00", "2026-03-28T20:00:00.5+02:00", "2026-02-30 00:00:00", "soon", "0001-01-01 00:00"),
        *("2026-03-28 20:00 UTC", "20260328", "2026-W13-6", "9999-12-31T23:59:59-05:00", "0001-01-01T00:00+02:00"),
    ]
)
VALUES: st.SearchStrategy[Any] = st.one_of(
    TEXTS,
    TIMES,
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
    st.none(),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(TEXTS, st.integers(), max_size=2),
)


@st.composite
def objects(draw: st.DrawFn, case: UseCase) -> dict[str, Any]:
    """Return an event that is nearly right."""
    usual = {
        "key": st.sampled_from(["u1", "u2", 7, "ü"]),
        "identifier": st.one_of(st.integers(), TEXTS),
        "time": TIMES,
        "text": TEXTS,
        "number": st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-5, 5)),
        "integer": st.integers(-3, 3),
        "boolean": st.booleans(),
    }
    event = {name: draw(usual[kind]) for name, kind in case.fields.items() if draw(st.integers(0, 5))}
    if case.type in event:
        event[case.type] = draw(st.sampled_from([*case.event_codes, "login"]))
    for name in draw(st.lists(st.one_of(st.sampled_from(sorted(case.fields)), TEXTS), max_size=2)):
        event[name] = draw(VALUES)
    return event


@st.composite
def lines(draw: st.DrawFn, case: UseCase) -> bytes:
    """Return a line that is nearly right: some bytes of it may have been changed."""
    event = draw(objects(case))
    line = json.dumps(event, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    for place, byte in draw(st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=2)), max_size=2)):
        at = place % (len(line) + 1)
        line = line[:at] + byte + line[at + draw(st.integers(0, 2)) :]
    return line


@settings(deadline=None, max_examples=150)
@given(st.lists(lines(CHURN), max_size=8))
@example([b""])
@example([b'{"user_id": "u1"\x00}'])
def test_any_lines_are_read_as_json_reads_them(batch: list[bytes]) -> None:
    assert_as_json_reads(batch)


@settings(deadline=None, max_examples=60)
@given(st.lists(lines(BOILERS), max_size=8))
def test_any_lines_of_another_use_case_are_read_as_json_reads_them(batch: list[bytes]) -> None:
    assert_as_json_reads(batch, BOILERS)


@settings(deadline=None, max_examples=100)
@given(st.lists(lines(CHURN), min_size=1, max_size=12), st.lists(st.integers(1, 5), max_size=12))
def test_how_lines_are_batched_does_not_show(batch: list[bytes], sizes: list[int]) -> None:
    """Which decoder takes a line depends on the lines before it: the result may not."""
    whole = checked(batch)
    parser = LineParser(CHURN)
    start = 0
    for size in [*sizes, len(batch)]:
        part = batch[start : start + size]
        for index, found in checked(part, parser=parser).items():
            assert repr(found) == repr(whole[start + index])
        start += len(part)


@settings(deadline=None, max_examples=100)
@given(lines(CHURN))
def test_the_key_of_a_readable_line_is_the_one_that_parsing_finds(line: bytes) -> None:
    found = checked([line])[0]
    if not isinstance(found, str):
        assert key_of(line, CHURN.key) == found[CHURN.key]


def test_the_key_of_a_bad_line_is_found_or_empty_but_never_an_error() -> None:
    for line, _ in BAD.values():
        assert key_of(line, CHURN.key) in ("u1", "", "u", "\x01")
