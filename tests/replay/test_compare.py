"""A replay finds every difference, and none where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelstream.commands.replay import summary
from modelstream.commands.view import View
from modelstream.messages.identity import Checkpoint, bucket_of
from modelstream.replay.compare import Findings, compare
from modelstream.replay.explain import explain
from modelstream.use_case.columns import APPLIED, ORIGIN, POSITION
from tests.commands.small import ENRICHMENT, again, event, small_folder
from tests.runner.folders import ORIGIN_NAME, PROJECT, SHARDS, make_folder


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    with small_folder(tmp_path / "data") as view:
        yield view


def test_replay_finds_that_everything_is_equal(view: View) -> None:
    found = compare(again(view), PROJECT)
    assert (found.equal, found.settled, found.events, found.vectors, found.rows) == (True, True, 13, 4, 3)
    assert "bit for bit" in summary(found, 1.0)


def change_log(view: View, name: str, shard: int, change: Any) -> None:
    """Rewrite the file of a shard's log with a changed table; its footer stays."""
    path = view.path / name / f"00-{shard:02d}-00000000.parquet"
    changed = pq.ParquetFile(path).read()
    metadata = changed.schema.metadata
    pq.write_table(change(changed).replace_schema_metadata(metadata), path)


def shard_of(user: str) -> int:
    return bucket_of(user) % SHARDS


def set_value(name: str, user: str, value: Any) -> Any:
    def change(rows: pa.Table) -> pa.Table:
        index = rows.schema.get_field_index(name)
        place = rows.column("user_id").to_pylist().index(user)
        values = rows.column(name).to_pylist()
        values[place] = value(values[place]) if callable(value) else value
        return rows.set_column(index, rows.schema.field(index), pa.array(values, rows.schema.field(index).type))

    return change


def test_a_vector_that_differs_in_its_last_bit_is_found(view: View) -> None:
    change_log(view, "inference", shard_of("anna"), set_value("bet_mean", "anna", lambda v: np.nextafter(v, 9)))
    found = compare(again(view), PROJECT)
    assert (found.equal, found.differing.count, found.vectors, found.rows) == (False, 1, 3, 3)
    assert "bet_mean was served as 3.0000000000000004 and is 3.0 in the replay" in found.differing.first[0]
    assert "DIFFERENT" in summary(found, 1.0)


def test_minus_zero_is_not_zero_in_a_vector(view: View) -> None:
    change_log(view, "inference", shard_of("anna"), set_value("win_sum", "anna", -0.0))
    assert compare(again(view), PROJECT).differing.count == 1


def test_a_vector_of_another_event_is_found(view: View) -> None:
    change_log(view, "inference", shard_of("7"), set_value(POSITION, "7", 9))
    found = compare(again(view), PROJECT)
    assert not found.equal
    assert (
        f"after the event 10 of {ORIGIN_NAME}, that of the inference log the one of 7 after the event 9"
        in (found.differing.first[0])
    )
    change_log(view, "inference", shard_of("7"), set_value(POSITION, "7", 10))
    assert compare(again(view), PROJECT).equal
    change_log(view, "inference", shard_of("7"), set_value(ORIGIN, "7", "elsewhere"))
    assert not compare(again(view), PROJECT).equal


def test_vectors_that_were_not_served_are_found(view: View) -> None:
    change_log(view, "inference", shard_of("anna"), lambda rows: rows.slice(0, 1))
    found = compare(again(view), PROJECT)
    assert (found.equal, found.unmatched.count) == (False, 1)
    assert "1 vector missing from the inference log, the first of anna" in found.unmatched.first[0]


def test_vectors_that_no_event_explains_are_found(view: View) -> None:
    change_log(view, "inference", shard_of("anna"), lambda rows: pa.concat_tables([rows, rows]))
    found = compare(again(view), PROJECT)
    assert (found.equal, found.differing.count) == (False, 0)
    assert "vectors in the inference log for which the log of events has no event" in found.unmatched.first[0]


def change_features(view: View, statement: str) -> None:
    connection = view.features.file.connection  # type: ignore[attr-defined]
    assert connection.execute(statement).rowcount == 1


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE features SET bet_m2 = bet_m2 + 1e-9 WHERE user_id = 'anna'", "the row of anna: bet_m2 is"),
        ("UPDATE features SET label = 0 WHERE user_id = 'anna'", "the row of anna: label is 0 in the table and 1"),
        ("UPDATE features SET label = NULL WHERE user_id = 'anna'", "the row of anna: label is None in the table"),
        ("UPDATE features SET first_purchase_time = NULL WHERE user_id = '7'", "the row of 7: first_purchase_time"),
        ("DELETE FROM features WHERE user_id = 'bert'", "1 user without a row in the table, such as bert"),
        (
            "INSERT INTO features SELECT 'carl', applied, registration_time, date_of_birth, affiliate_url, label, "
            "socioeconomic_idx, first_purchase_time, purchase_sum, purchase_mean, purchase_count, purchase_m2, "
            "bet_sum, bet_mean, bet_count, bet_m2, win_sum, win_mean, win_count, win_m2 FROM features "
            "WHERE user_id = 'anna'",
            "1 row of the table that no event of the log explains, such as carl",
        ),
    ],
)
def test_a_row_that_differs_is_found(view: View, statement: str, reason: str) -> None:
    change_features(view, statement)
    found = compare(again(view), PROJECT)
    assert (found.equal, found.unmatched.count) == (False, 1), found
    assert reason in found.unmatched.first[0]
    assert found.vectors == 4


def test_only_the_first_differences_are_told_but_all_are_counted(tmp_path: Path) -> None:
    view = make_folder(tmp_path / "data", [event(f"u{i}", "registration") for i in range(50)], {})
    view.features.file.connection.execute("UPDATE features SET label = 9")  # type: ignore[attr-defined]
    found = compare(again(view), PROJECT)
    assert (found.unmatched.count, len(found.unmatched.first)) == (50, 10)
    assert "50 differences in all" in summary(found, 1.0)


def test_while_events_are_on_their_way_rows_prove_nothing_but_vectors_do(view: View) -> None:
    view.streams.append("incoming-events", [(0, b"on its way")])
    change_features(view, "UPDATE features SET bet_sum = 1 WHERE user_id = 'anna'")
    found = compare(again(view), PROJECT)
    assert (found.equal, found.settled, found.unmatched.count) == (True, False, 1)
    assert "events are still being processed" in summary(found, 1.0)
    change_log(view, "inference", shard_of("anna"), set_value("bet_mean", "anna", 5.0))
    assert not compare(again(view), PROJECT).equal


def test_events_that_come_in_during_the_replay_are_noticed(view: View) -> None:
    other = again(view)

    def progress(_: int) -> None:
        other.streams.append("generated", [(0, b"{}")])

    assert not compare(view, PROJECT, progress).settled


def test_replay_takes_the_value_that_was_looked_up_from_the_row(tmp_path: Path) -> None:
    lines = [
        event("dora", "registration", postcode=20000),
        event("dora", "purchase", amount=1),
        event("dora", "bet", bet_amount=1),
        event("emil", "registration", postcode=20000),
        event("emil", "purchase", amount=1),
        event("emil", "bet", bet_amount=1),
        event("emil", "registration", postcode=10001),
        event("emil", "bet", bet_amount=1),
    ]
    view = make_folder(tmp_path / "data", lines, ENRICHMENT)
    assert compare(again(view), PROJECT).equal
    change = pa.record_batch({"key": ["10001"], "value": [9.0]})
    view.tables.lookup("enrichment").load([change])  # what the last profile event found has changed since
    assert compare(again(view), PROJECT).equal
    assert compare(again(view), PROJECT).vectors == 3
    cut_log(view, "events", shard_of("emil"), 3)  # between emil's registrations, wherever dora's events are
    assert compare(again(view), PROJECT).equal
    last = explain(again(view), PROJECT, SHARDS, "emil", 1)
    assert last.vector is not None
    assert last.vector["socioeconomic_idx"] == 4.0


def test_findings_of_nothing_are_equal() -> None:
    assert Findings().equal


def cut_log(view: View, name: str, shard: int, rows: int) -> None:
    """Put the rows of a shard's only file, but for the first ones, into a second file."""
    whole = pq.ParquetFile(view.path / name / f"00-{shard:02d}-00000000.parquet").read()
    change_log(view, name, shard, lambda _: whole.slice(0, rows))
    log = view.parquet_logs[name]
    log.append(shard, whole.slice(rows).replace_schema_metadata(None), Checkpoint(1))


def test_replay_goes_over_several_files_of_a_shard(view: View) -> None:
    """The log of events and the inference log are cut at different places."""
    cut_log(view, "events", shard_of("anna"), 3)
    cut_log(view, "inference", shard_of("anna"), 1)
    found = compare(again(view), PROJECT)
    assert (found.equal, found.vectors, found.rows) == (True, 4, 3)


def test_stored_rows_carry_their_stream_position(view: View) -> None:
    assert view.features.get("anna").column(APPLIED)[0].as_py() >= 0
