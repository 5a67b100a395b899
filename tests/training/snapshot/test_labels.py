"""Labels: from the profile, from a later event, or from a file."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.errors import ConfigurationError
from modelstream.training.snapshot.clock import LogClock
from modelstream.training.snapshot.labels import NEVER, UNKNOWN, Finder, Labels, read_labels
from modelstream.use_case.declared import Label, UseCase
from modelstream.use_case.file import load_use_case, parse_use_case

ROOT = Path(__file__).parents[3]
CHURN = load_use_case(ROOT / "use_cases" / "churn.yaml")
HOUR = 3_600_000_000

LOANS = parse_use_case("""
version: 1
name: loans
key: loan
time: at
type: kind
fields: {loan: key, at: time, kind: text, amount: number, defaulted: boolean}
events: {payment: {value: amount}, closed: {aliases: [ended]}}
predict_on: [payment]
label: {field: defaulted, positive: true, event: closed, wait: 2}
model: {name: loans, prediction: will_default}
""")


def log(use_case: UseCase, rows: list[dict[str, object]]) -> pa.RecordBatch:
    """Return rows of the log of events; times are microseconds."""
    return pa.RecordBatch.from_pylist(rows, schema=use_case.events_log_schema)


class Reader:
    """Reads a log, as training does."""

    def __init__(self, use_case: UseCase) -> None:
        self._clock, self._finder = LogClock(use_case), Finder(use_case)

    def add(self, batch: pa.RecordBatch) -> None:
        self._finder.add(batch, self._clock.add(batch))

    def found(self) -> Labels:
        return self._finder.found(self._clock.end())


def loans(*rows: tuple[str, int, str, bool | None]) -> pa.RecordBatch:
    """Return (loan, hour, kind, defaulted) as rows of the log."""
    names = ("loan", "at", "kind", "defaulted")
    return log(LOANS, [dict(zip(names, (a, hour * HOUR, kind, d), strict=True)) for a, hour, kind, d in rows])


def at(labels: Labels, key: str, *hours: float) -> list[int]:
    """Return the labels of a user's vectors at some hours."""
    values, times = labels.of_users([key] * len(hours))
    found: list[int] = labels.at(values, times, np.array([round(hour * HOUR) for hour in hours])).tolist()
    return found


def test_label_comes_with_the_profile_and_a_second_profile_refreshes_it() -> None:
    finder = Reader(CHURN)
    rows = [("a", "registration", 1), ("b", "new_registration", 0), ("a", "registration", None), ("b", "bet", 1)]
    finder.add(log(CHURN, [{"user_id": k, "event_time": 0, "event_type": t, "label": v} for k, t, v in rows]))
    assert finder.found().known == {"a": (1, NEVER), "b": (0, NEVER)}
    finder.add(log(CHURN, [{"user_id": "b", "event_time": 9, "event_type": "registration", "label": 1}]))
    assert finder.found().known["b"] == (1, NEVER)


def test_later_event_labels_the_vectors_before_it_and_only_those() -> None:
    finder = Reader(LOANS)
    finder.add(loans(("a", 10, "closed", True), ("b", 10, "ended", False), ("a", 12, "closed", False)))
    finder.add(loans(("c", 100, "payment", True)))
    labels = finder.found()
    assert at(labels, "a", 7.5, 8, 9.9, 10, 11) == [0, 1, 1, UNKNOWN, UNKNOWN]
    assert at(labels, "b", 9) == [0]


def test_without_an_event_the_label_is_negative_once_the_wait_is_over() -> None:
    finder = Reader(LOANS)
    finder.add(loans(("a", 10, "payment", None)))
    assert at(finder.found(), "a", 7, 8, 8.1) == [0, 0, UNKNOWN]


def test_without_a_wait_nothing_is_known_until_the_event_comes() -> None:
    assert LOANS.label is not None
    patient = msgspec.structs.replace(LOANS, label=msgspec.structs.replace(LOANS.label, wait=None))
    finder = Reader(patient)
    finder.add(loans(("a", 10, "closed", True), ("b", 1000, "payment", None)))
    assert at(finder.found(), "a", 1, 9) == [1, 1]
    assert at(finder.found(), "b", 1) == [UNKNOWN]


def arriving(hour: int, *rows: tuple[str, int, str, bool | None]) -> pa.RecordBatch:
    """Return (loan, hour, kind, defaulted) as rows of the log that arrive at an hour."""
    batch = loans(*rows)
    column = pa.array([hour * HOUR] * len(rows), batch.schema.field("ingested_at").type)
    return batch.set_column(batch.schema.get_field_index("ingested_at"), "ingested_at", column)


YEARS = 8760 * 70
OPEN = [(f"loan {i}", hour, "payment", None) for i in range(20) for hour in (90, 95, 99)]


@pytest.mark.parametrize(
    ("arrival", "odd"),
    [
        (100, [("late", YEARS, "payment", None)]),
        (100, [("late", YEARS, "payment", None)] * 30),
        (100, [("loan 3", YEARS, "closed", True)]),
        (YEARS + 1, [("late", YEARS, "payment", None)]),
        (20, [("late", YEARS, "payment", None)]),
    ],
    ids=["one", "many of one user", "a label", "a log read long after", "a log of simulated times"],
)
def test_event_of_the_far_future_ends_no_wait(arrival: int, odd: list[tuple[str, int, str, bool | None]]) -> None:
    found = []
    for rows in (OPEN, [*OPEN[:30], *odd, *OPEN[30:]]):
        reader = Reader(LOANS)
        reader.add(arriving(arrival, *rows))
        found.append(reader.found())
    known, poisoned = [at(labels, "loan 7", 90, 95, 97, 97.5, 99) for labels in found]
    assert poisoned == known == [0, 0, 0, UNKNOWN, UNKNOWN]


def test_label_dated_later_than_it_arrived_is_not_believed_and_one_in_time_is() -> None:
    reader = Reader(LOANS)
    odd = [("a", YEARS, "closed", True), ("b", YEARS, "closed", True), ("b", 98, "closed", False)]
    reader.add(arriving(100, *OPEN, ("a", 50, "payment", None), ("b", 97, "payment", None), *odd))
    labels = reader.found()
    assert at(labels, "a", 50, 97) == [UNKNOWN, UNKNOWN]
    assert at(labels, "b", 97, 98) == [0, UNKNOWN]


@given(
    st.one_of(st.none(), st.tuples(st.booleans(), st.integers(0, 20))),
    st.one_of(st.none(), st.integers(1, 10)),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_label_of_a_vector_is_the_oracles(
    event: tuple[bool, int] | None, wait: int | None, moment: int, end: int
) -> None:
    known = {"a": (int(event[0]), event[1])} if event else {}
    labels = Labels(known, wait, end)
    if event and moment >= event[1]:
        expected = UNKNOWN  # the outcome is known already
    elif event and (wait is None or event[1] - moment <= wait):
        expected = int(event[0])
    elif wait is not None and moment + wait <= end:
        expected = 0
    else:
        expected = UNKNOWN
    values, times = labels.of_users(["a"])
    assert labels.at(values, times, np.array([moment])).tolist() == [expected]


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet", "labels.ndjson"])
@pytest.mark.parametrize("columns", [("user_id", "label"), ("key", "label")])
def test_file_of_labels(tmp_path: Path, name: str, columns: tuple[str, str]) -> None:
    keys, values = ["007", "b", "c", "d"], [1, 0, 1, None]
    table = pa.table({columns[0]: keys, "note": ["x"] * 4, columns[1]: pa.array(values, pa.int64())})
    path = tmp_path / name
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    elif path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in table.to_pylist()))
    assert read_labels(path, CHURN).known == {"007": (1, NEVER), "b": (0, NEVER), "c": (1, NEVER)}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("labels.csv", "user,label\na,1\n", "has the columns user, label"),
        ("labels.csv", "user_id,label\na,1\na,0\n", "'a' has two different labels"),
        ("labels.csv", "user_id,label\n", "holds no labels"),
        ("labels.csv", "user_id,label\na,1,2\n", "can't be read"),
        ("labels.parquet", "no parquet", "can't be read"),
        ("labels.ndjson", "{", "can't be read"),
        ("labels.txt", "", "has an unknown ending"),
        ("absent.csv", None, "can't be read: No such file"),
    ],
)
def test_file_that_is_no_file_of_labels_is_refused(tmp_path: Path, name: str, text: str | None, expected: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        read_labels(path, CHURN)
    assert expected in str(raised.value)
    assert str(path) in str(raised.value)
    assert raised.value.remedy


def test_use_case_that_says_not_where_labels_come_from_is_refused() -> None:
    unclear = msgspec.structs.replace(LOANS, label=Label("defaulted", True))
    with pytest.raises(ConfigurationError, match="doesn't say which event brings the label 'defaulted'"):
        Finder(unclear)
    with pytest.raises(ConfigurationError, match="declares no label"):
        Finder(msgspec.structs.replace(LOANS, label=None))
