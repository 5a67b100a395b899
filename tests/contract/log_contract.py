"""What every backend of the log promises. A test class of a backend inherits this and says how to open one."""

from __future__ import annotations

from collections.abc import Iterable
from multiprocessing import get_context
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modelstream.errors import ConfigurationError, NumberTakenError
from modelstream.logs import Log
from modelstream.messages.identity import Checkpoint, Watermarks

SCHEMA = pa.schema(
    [
        ("user", pa.string()),
        ("at", pa.timestamp("us", tz="UTC")),
        ("amount", pa.float64()),
        ("label", pa.int8()),
        ("origin", pa.string()),
        ("position", pa.int64()),
        ("shard", pa.int16()),
    ]
)


def table(*positions: int, origin: str = "f", shard: int = 0) -> pa.Table:
    """Return rows of an origin at some positions; the other columns follow from the position."""
    count = len(positions)
    return pa.table(
        {
            "user": [f"user {position % 7}" for position in positions],
            "at": pa.array([1_700_000_000_000_000 + position for position in positions], pa.int64()),
            "amount": [None if position % 5 == 0 else position / 3 for position in positions],
            "label": pa.array([position % 2 for position in positions], pa.int8()),
            "origin": [origin] * count,
            "position": list(positions),
            "shard": pa.array([shard] * count, pa.int16()),
        }
    ).cast(SCHEMA)


def checkpoint(offset: int, marks: dict[tuple[str, int], int] | None = None, **counters: int) -> Checkpoint:
    watermarks = Watermarks()
    for (origin, bucket), position in (marks or {}).items():
        watermarks.set(origin, bucket, position)
    return Checkpoint(offset, watermarks, counters)


def state(found: Checkpoint) -> tuple[int, dict[str, dict[str, int]], dict[str, int]]:
    return found.offset, found.watermarks.to_json(), found.counters


def positions(log: Log, **which: Any) -> list[int]:
    return [position for batch in log.scan(["position"], **which) for position in batch.column(0).to_pylist()]


def deliver(log: Log, shard: int, messages: Iterable[tuple[int, list[int]]]) -> None:
    """Append each message (offset, positions) once, as a stage does that shares the shard with others."""
    known = log.checkpoint(shard)
    for offset, message in messages:
        while True:
            wanted = np.array(message, np.int64)
            marks = Watermarks.from_json(known.watermarks.to_json())
            new = marks.advance("f", wanted, np.zeros(len(wanted), np.uint8))
            after = Checkpoint(max(offset, known.offset), marks, {})
            try:
                log.append(shard, table(*wanted[new].tolist(), shard=shard), after)
            except NumberTakenError:
                known = log.checkpoint(shard)
            else:
                known = after
                break


class LogContract:
    """Inherit it, and give `place` (where no log is yet) and `open`."""

    start = "fork"
    """How processes are started."""

    @pytest.fixture
    def place(self) -> Any:
        raise NotImplementedError

    def open(self, place: Any, schema: pa.Schema = SCHEMA, epoch: int = 0, definition: str = "") -> Log:
        raise NotImplementedError

    @pytest.fixture
    def log(self, place: Any) -> Log:
        return self.open(place)

    def test_new_log_is_empty(self, log: Log) -> None:
        assert log.count() == 0
        assert list(log.scan()) == []
        assert state(log.checkpoint(0)) == (-1, {}, {})
        assert log.count() == 0

    def test_rows_and_checkpoint_are_there_for_others(self, log: Log, place: Any) -> None:
        after = checkpoint(7, {("f", 3): 2, ("serving/1", 63): 2**52}, events=3, unknown_type=1)
        log.append(2, table(0, 1, 2, shard=2), after)
        other = self.open(place)
        assert state(other.checkpoint(2)) == state(after)
        assert state(other.checkpoint(0)) == (-1, {}, {})
        assert pa.Table.from_batches(other.scan()).equals(table(0, 1, 2, shard=2))
        assert other.count() == 3

    def test_rows_of_another_definition_are_told_where_that_matters(self, place: Any) -> None:
        for number, definition in enumerate(("", "old", "old", "new", "new", "old", "")):
            log = self.open(place, definition=definition)
            log.checkpoint(0)
            log.append(0, table(number), checkpoint(number))
        everything = list(range(7))
        for published in (False, True):
            assert positions(log) == positions(log, same_definition=True) == everything
            for name, first in (("old", 3), ("new", 1)):
                log = self.open(place, definition=name)
                assert positions(log) == everything
                found = []
                with pytest.raises(ConfigurationError, match="another definition"):
                    for batch in log.scan(["position"], same_definition=True):
                        found += batch.column(0).to_pylist()
                assert found == everything[:first]
            log = self.open(place)
            assert published or log.publish()

    def test_checkpoint_returned_belongs_to_the_caller(self, log: Log) -> None:
        log.append(0, table(0), checkpoint(0, {("f", 0): 0}, events=1))
        found = log.checkpoint(0)
        found.offset, found.counters["events"] = 100, 100
        found.watermarks.set("f", 0, 100)
        assert state(log.checkpoint(0)) == (0, {"f": {"0": 0}}, {"events": 1})

    def test_append_without_rows_moves_the_checkpoint(self, log: Log, place: Any) -> None:
        log.append(0, table(1), checkpoint(0))
        log.append(0, table(), checkpoint(5, {("f", 0): 9}))
        assert state(self.open(place).checkpoint(0)) == (5, {"f": {"0": 9}}, {})
        assert positions(log) == [1]
        assert log.count() == 1

    def test_scan_goes_by_shard_and_then_as_appended(self, log: Log) -> None:
        log.append(1, table(10, 11, shard=1), checkpoint(0))
        log.append(0, table(0, 1), checkpoint(0))
        log.append(1, table(12, shard=1), checkpoint(1))
        for offset in range(1, 12):
            log.append(0, table(offset + 1), checkpoint(offset))
        assert positions(log) == [*range(13), 10, 11, 12]
        assert positions(log, shards=[1]) == [10, 11, 12]
        assert log.count() == 16
        known = log.row_counts()
        assert known == {(log.epoch, 0): 13, (log.epoch, 1): 3}
        assert list(log.scan(after=known)) == []
        log.append(1, table(13, shard=1), checkpoint(2))
        assert positions(log, after=known) == [13]
        assert sum(batch.num_rows for batch in log.scan(after={})) == log.count() == 17
        assert {tuple(batch.schema.names) for batch in log.scan(["label", "user"], [1])} == {("label", "user")}

    def test_late_owner_finds_its_number_taken(self, log: Log, place: Any) -> None:
        other = self.open(place)
        log.append(0, table(0), checkpoint(0))
        assert state(other.checkpoint(0))[0] == 0
        other.append(0, table(1), checkpoint(1))
        for _ in range(2):
            with pytest.raises(NumberTakenError):
                log.append(0, table(2), checkpoint(2))
        log.checkpoint(0)
        log.append(0, table(2), checkpoint(2))
        assert positions(log) == [0, 1, 2]

    def test_late_owner_of_a_new_shard_finds_its_number_taken(self, log: Log, place: Any) -> None:
        log.checkpoint(0)
        self.open(place).append(0, table(0), checkpoint(0))
        with pytest.raises(NumberTakenError):
            log.append(0, table(0), checkpoint(0))
        log.append(1, table(5, shard=1), checkpoint(0))
        assert positions(log) == [0, 5]

    def test_processes_that_race_append_each_row_once(self, log: Log, place: Any) -> None:
        messages = [(offset, [3 * offset, 3 * offset + 1, 3 * offset + 2]) for offset in range(25)]
        context: Any = get_context(self.start)
        racers = [context.Process(target=deliver, args=(self.open(place), 0, messages)) for _ in range(3)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join(60)
        assert [racer.exitcode for racer in racers] == [0] * 3
        assert positions(log) == list(range(75))
        assert log.count() == 75
        assert state(log.checkpoint(0)) == (24, {"f": {"0": 74}}, {})

    def test_offset_may_not_fall(self, log: Log, place: Any) -> None:
        log.append(0, table(0), checkpoint(5))
        with pytest.raises(ValueError, match=f"offset 4 after 5 in shard 0 of {place}$"):
            log.append(0, table(1), checkpoint(4))
        log.append(0, table(1), checkpoint(5))
        assert positions(log) == [0, 1]

    def test_rows_of_other_columns_are_not_taken(self, log: Log) -> None:
        with pytest.raises((KeyError, ValueError)):
            log.append(0, table(0).drop_columns(["user"]), checkpoint(0))
        log.append(0, table(0).select(SCHEMA.names[::-1]), checkpoint(0))
        assert pa.Table.from_batches(log.scan()).equals(table(0))

    def test_large_and_repetitive_rows_come_back_as_they_were(self, log: Log) -> None:
        choice = np.random.default_rng(1)
        count = 20_000
        rows = pa.table(
            {
                "user": [f"user {number}" for number in choice.integers(0, 9000, count)],
                "at": pa.array(choice.integers(0, 2**60, count)),
                "amount": choice.normal(size=count),
                "label": pa.nulls(count, pa.int8()),
                "origin": ["f"] * count,
                "position": np.arange(count) * 3,
                "shard": pa.array(np.zeros(count, np.int16)),
            }
        ).cast(SCHEMA)
        log.append(0, rows, checkpoint(0))
        log.append(0, pa.concat_tables([rows.slice(0, 10), rows.slice(15_000, 10)]), checkpoint(1))
        found = pa.Table.from_batches(log.scan())
        assert found.slice(0, count).equals(rows)
        assert found.num_rows == count + 20

    def test_watermarks_outlive_an_epoch_and_offsets_do_not(self, log: Log, place: Any) -> None:
        log.append(0, table(0), checkpoint(0, {("f", 0): 1}))
        log.append(0, table(1), checkpoint(1, {("f", 0): 5, ("g", 1): 9, ("g", 2): 8}, events=2))
        log.append(1, table(2), checkpoint(8, {("f", 0): 6, ("f", 2): 1, ("g", 2): 7}))
        after = self.open(place, epoch=1)
        inherited = {"f": {"0": 6, "2": 1}, "g": {"1": 9, "2": 8}}
        assert state(after.checkpoint(0)) == (-1, inherited, {})
        assert state(after.checkpoint(5)) == (-1, inherited, {})
        after.append(0, table(3), checkpoint(0, {("f", 0): 7}))
        assert state(after.checkpoint(0)) == (0, {"f": {"0": 7}}, {})
        assert positions(after) == [0, 1, 2, 3]
        assert after.count() == 4

    def test_newer_epoch_is_refused(self, log: Log, place: Any) -> None:
        self.open(place, epoch=2).append(0, table(0), checkpoint(0))
        with pytest.raises(ConfigurationError, match=f"^{place} has files of epoch 2") as caught:
            log.append(1, table(1), checkpoint(0))
        assert caught.value.remedy

    @pytest.mark.parametrize(
        ("other", "said"),
        [
            (pa.schema([*SCHEMA, ("extra", pa.string())]), "extra"),
            (pa.schema(list(SCHEMA)[:-1]), "shard"),
            (pa.schema([*list(SCHEMA)[:-1], ("shard", pa.int32())]), "shard"),
            (pa.schema(list(SCHEMA)[::-1]), "order"),
        ],
    )
    def test_log_of_another_use_case_is_refused(self, log: Log, place: Any, other: pa.Schema, said: str) -> None:
        log.checkpoint(0)
        with pytest.raises(ConfigurationError, match=said) as caught:
            self.open(place, schema=other).checkpoint(0)
        assert caught.value.remedy

    def test_reading_columns_that_the_log_of_another_use_case_lacks_is_refused(self, log: Log, place: Any) -> None:
        log.append(0, table(0), checkpoint(0))
        renamed = pa.schema([field.with_name("price") if field.name == "amount" else field for field in SCHEMA])
        other = self.open(place, schema=renamed)
        with pytest.raises(ConfigurationError, match=r"made for another use case \(differing columns: price\)") as told:
            list(other.scan(["price"]))
        assert told.value.remedy
        assert positions(other) == [0], "what both have can be read"

    def test_counters_of_all_shards_are_added_up(self, log: Log) -> None:
        log.append(0, table(0), checkpoint(0, missing=2))
        log.append(0, table(1), checkpoint(1, missing=3))
        log.append(1, table(2, shard=1), checkpoint(0, missing=1, others=7))
        assert log.counters() == {"missing": 4, "others": 7}
