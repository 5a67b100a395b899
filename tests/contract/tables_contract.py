"""What every backend of tables promises. A test class of a backend inherits this and gives a `url`."""

from __future__ import annotations

import math
import struct
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelstream.errors import ConfigurationError
from modelstream.messages.identity import Checkpoint, Watermarks
from modelstream.tables import Input, Tables, open_tables

ROWS = pa.schema(
    [
        ("user", pa.string()),
        ("applied", pa.int64()),
        ("since", pa.timestamp("us", tz="UTC")),
        ("city", pa.string()),
        ("age", pa.int64()),
        ("member", pa.bool_()),
        ("index", pa.float64()),
        ("bet_sum", pa.float64()),
    ]
)
PACKED = pa.schema(
    [
        ("user", pa.string()),
        ("applied", pa.int64()),
        ("bet_sum", pa.float64()),
        ("clock", pa.timestamp("us", tz="UTC")),
        ("packed", pa.binary()),
    ]
)
ODD_KEYS = ["", "a", "A", "a ", "a\0b", "a'b", 'a"b', "ä", "日本", "\U0001f600", "%", "1", "01", "null"]
SOME_FLOATS = [0.0, 0.1, -1e308, 5e-324, math.inf, -math.inf, 1e300, 2.0**53 + 2]


def sums(found: pa.RecordBatch) -> dict[str, float]:
    """Return `bet_sum` by user: `get_many` gives rows in no special order."""
    return dict(zip(found.column(0).to_pylist(), found.column("bet_sum").to_pylist(), strict=True))


def rows(*values: tuple[Any, ...]) -> pa.RecordBatch:
    """Return rows of (user, applied, bet_sum), the rest null, or of all columns."""
    full = [value if len(value) > 3 else (*value[:2], *[None] * 5, value[2]) for value in values]
    columns: list[Sequence[Any]] = list(zip(*full, strict=True)) or [()] * len(ROWS)
    return pa.RecordBatch.from_arrays(
        [pa.array(column, kind) for column, kind in zip(columns, ROWS.types, strict=True)], schema=ROWS
    )


def checkpoint(offset: int, marks: dict[tuple[str, int], int] | None = None, **counters: int) -> Checkpoint:
    watermarks = Watermarks()
    for (origin, bucket), position in (marks or {}).items():
        watermarks.set(origin, bucket, position)
    return Checkpoint(offset, watermarks, counters)


def same(left: Checkpoint, right: Checkpoint) -> bool:
    return (left.offset, left.watermarks.to_json(), left.counters) == (
        right.offset,
        right.watermarks.to_json(),
        right.counters,
    )


def held(table: Any) -> dict[str, tuple[int, float]]:
    """Return {user: (applied, bet_sum)} of a table of features."""
    return {row["user"]: (row["applied"], row["bet_sum"]) for batch in table.scan() for row in batch.to_pylist()}


def fill(tables: Tables) -> None:
    """Put something into every kind of table, in two epochs."""
    for epoch in range(2):
        before = {("f", bucket): epoch for bucket in range(3)}
        tables.features(ROWS).commit(epoch, rows(("a", epoch + 1, 1.0)), checkpoint(epoch, before, vectors=1))
        tables.lookup("enrichment").load([pa.record_batch({"key": ["a"], "value": [1.0]})])
        tables.inputs().register("a", Input(origin="a", kind="file"))
        tables.inputs().save_progress("a", epoch, 10, "x", False)
        if not epoch:
            assert tables.raise_epoch() == 1


@dataclass
class Oracle:
    """The table of features as plain dicts."""

    users: dict[str, tuple[int, float]] = field(default_factory=dict)
    marks: dict[int, dict[tuple[str, int], int]] = field(default_factory=dict)
    offsets: dict[int, tuple[int, int]] = field(default_factory=dict)

    def commit(
        self, shard: int, users: dict[str, tuple[int, float]], offset: int, marks: dict[tuple[str, int], int]
    ) -> bool:
        for user, row in users.items():
            if row[0] > self.users.get(user, (-1, 0.0))[0]:
                self.users[user] = row
        mine = self.marks.setdefault(shard, {})
        for mark, position in marks.items():
            mine[mark] = max(position, mine.get(mark, -1))
        if offset <= self.offsets.get(shard, (-1, 0))[0]:
            return False
        self.offsets[shard] = offset, offset * 10
        return True


class TablesContract:
    """Inherit it, and give `url`: where no table is yet."""

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    def url_in(self, folder: str) -> str:
        """Return a URL without tables, for a test that needs many. The folder is new."""
        raise NotImplementedError

    @pytest.fixture
    def tables(self, url: str) -> Iterator[Tables]:
        with open_tables(url) as tables:
            yield tables

    # Lookup tables.

    def test_lookup_gives_values_in_the_order_of_the_keys(self, tables: Tables, url: str) -> None:
        lookup = tables.lookup("enrichment")
        assert lookup.count() == 0
        assert lookup.get_many(["a"]) == [None]
        first = pa.record_batch({"key": ["a", "b"], "value": [1.5, None]})
        second = pa.record_batch({"key": ["c"], "value": [0.0]})
        assert lookup.load([first, second]) == 3
        with open_tables(url) as others:
            assert others.lookup("enrichment").get_many(["c", "x", "b", "a", "c"]) == [0.0, None, None, 1.5, 0.0]
        assert lookup.count() == 3

    def test_last_value_of_a_key_holds(self, tables: Tables) -> None:
        lookup = tables.lookup("enrichment")
        lookup.load([pa.record_batch({"key": ["a", "b", "a"], "value": [1.0, 2.0, 3.0]})])
        lookup.load([pa.record_batch({"key": ["b"], "value": [pa.scalar(None, pa.float64())]})])
        assert lookup.get_many(["a", "b"]) == [3.0, None]
        assert lookup.count() == 2

    def test_load_that_fails_leaves_the_table_as_it_was(self, tables: Tables) -> None:
        lookup = tables.lookup("enrichment")
        lookup.load([pa.record_batch({"key": ["a"], "value": [1.0]})])

        def batches() -> Iterator[pa.RecordBatch]:
            yield pa.record_batch({"key": ["a", "b"], "value": [2.0, 2.0]})
            raise ConfigurationError("line 3 of postcodes.csv")

        with pytest.raises(ConfigurationError, match="line 3"):
            lookup.load(batches())
        assert lookup.get_many(["a", "b"]) == [1.0, None]

    def test_lookup_keeps_odd_keys_apart(self, tables: Tables) -> None:
        lookup = tables.lookup("enrichment")
        values = [float(number) for number in range(len(ODD_KEYS))]
        lookup.load([pa.record_batch({"key": ODD_KEYS, "value": values})])
        assert lookup.get_many(ODD_KEYS) == values

    def test_lookup_scans_in_the_order_of_its_keys(self, tables: Tables) -> None:
        lookup = tables.lookup("enrichment")
        keys = [f"{number:05d}" for number in range(2500)]
        shuffled = sorted(keys, key=lambda key: key[::-1])
        lookup.load([pa.record_batch({"key": shuffled, "value": [float(key) for key in shuffled]})])
        batches = list(lookup.scan(batch_size=1000))
        assert [batch.num_rows for batch in batches] == [1000, 1000, 500]
        table = pa.Table.from_batches(batches)
        assert table.column("key").to_pylist() == keys
        assert table.column("value").to_pylist() == [float(key) for key in keys]
        assert [key for batch in lookup.scan(1000, after="00009") for key in batch["key"].to_pylist()] == keys[10:]

    def test_lookup_tables_are_apart(self, tables: Tables) -> None:
        tables.lookup("enrichment").load([pa.record_batch({"key": ["a"], "value": [1.0]})])
        assert tables.lookup("other").get_many(["a"]) == [None]

    # Features.

    def test_new_table_of_features_is_empty(self, tables: Tables) -> None:
        features = tables.features(ROWS)
        assert same(features.checkpoint(0), Checkpoint())
        assert features.count() == 0
        assert features.get("a").num_rows == 0
        assert features.get_many([]).schema == ROWS
        assert list(features.scan()) == []

    def test_commit_is_there_for_others(self, tables: Tables, url: str) -> None:
        committed = checkpoint(4, {("file", 3): 17, ("serving/1", 63): 2**52}, vectors=7, unregistered=1)
        assert tables.features(ROWS).commit(1, rows(("a", 5, 0.5), ("b", 6, 1.5)), committed)
        with open_tables(url) as others:
            features = others.features(ROWS)
            assert same(features.checkpoint(1), committed)
            assert same(features.checkpoint(0), Checkpoint())
            assert held(features) == {"a": (5, 0.5), "b": (6, 1.5)}
            assert features.count() == 2
            assert features.get_many(["x", "b"]).equals(rows(("b", 6, 1.5)))
            assert features.get("a").equals(rows(("a", 5, 0.5)))

    def test_rows_come_back_as_they_were(self, tables: Tables) -> None:
        stored = rows(
            ("a", 1, 1_700_000_000_123_456, "Köln", -5, True, 0.1, 0.2),
            ("b", 2, -1, "", 2**62, False, None, math.inf),
            ("c", 3, None, None, None, None, None, None),
            ("d", 4, 0, "a\0b", 0, None, 5e-324, -1e308),
        )
        features = tables.features(ROWS)
        features.commit(0, stored, checkpoint(0))
        assert features.get_many(["a", "b", "c", "d"]).equals(stored)
        assert next(features.scan()).equals(stored)

    def test_not_a_number_comes_back_as_it_was(self, tables: Tables) -> None:
        features = tables.features(ROWS)
        features.commit(0, rows(("a", 1, math.nan), ("b", 2, None), ("c", 3, 1.0)), checkpoint(0))
        found = features.get_many(["a", "b", "c"]).column("bet_sum").to_pylist()
        assert math.isnan(found[0])
        assert found[1:] == [None, 1.0]

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=20))
    def test_floats_come_back_to_the_bit(self, values: list[float]) -> None:
        values = [value + 0.0 for value in values]  # -0.0 may become 0.0
        with tempfile.TemporaryDirectory() as folder, open_tables(self.url_in(folder)) as tables:
            features = tables.features(ROWS)
            keys = [str(number) for number in range(len(values))]
            features.commit(0, rows(*((key, 0, value) for key, value in zip(keys, values, strict=True))), checkpoint(0))
            found = sums(features.get_many(keys))
        assert [struct.pack("d", found[key]) for key in keys] == [struct.pack("d", value) for value in values]

    def test_bytes_and_the_clock_of_a_row_come_back_as_they_were(self, tables: Tables, url: str) -> None:
        features = tables.features(PACKED)
        every_byte = bytes(range(256)) * 32  # 8 KB, the most that a row may have
        values = [every_byte, b"", None, b"\0", b"'\xff\n"]
        stored = [{"user": str(n), "applied": 1, "clock": n or None, "packed": one} for n, one in enumerate(values)]
        assert features.commit(0, pa.RecordBatch.from_pylist(stored, PACKED), checkpoint(0))
        with open_tables(url) as others:
            again = others.features(PACKED)
            found = again.get_many([str(number) for number in range(len(values))])
            assert found.schema == PACKED
            packed = dict(zip(found.column("user").to_pylist(), found.column("packed").to_pylist(), strict=True))
            assert packed == {str(number): one for number, one in enumerate(values)}
            scanned = pa.Table.from_batches(again.scan(2), PACKED)
            assert scanned.column("packed").to_pylist() == values
            assert scanned.column("clock").cast(pa.int64()).to_pylist() == [None, 1, 2, 3, 4]
            changed = pa.RecordBatch.from_pylist([{"user": "0", "applied": 2, "packed": b"new"}], PACKED)
            assert again.commit(0, changed, checkpoint(1))
        assert features.get("0").column("packed").to_pylist() == [b"new"]

    def test_row_is_written_only_if_its_position_rises(self, tables: Tables) -> None:
        features = tables.features(ROWS)
        features.commit(0, rows(("a", 5, 5.0), ("b", 5, 5.0), ("c", 5, 5.0)), checkpoint(1))
        assert features.commit(0, rows(("a", 4, 4.0), ("b", 5, 9.0), ("c", 6, 6.0)), checkpoint(2))
        assert held(features) == {"a": (5, 5.0), "b": (5, 5.0), "c": (6, 6.0)}

    def test_late_owner_of_a_shard_is_told_and_changes_nothing(self, tables: Tables, url: str) -> None:
        mine = tables.features(ROWS)
        mine.commit(0, rows(("a", 10, 1.0)), checkpoint(1, {("f", 0): 10}, vectors=1))
        with open_tables(url) as others:
            theirs = others.features(ROWS)
            theirs.checkpoint(0)
            newer = checkpoint(3, {("f", 0): 30}, vectors=3)
            assert theirs.commit(0, rows(("a", 30, 3.0)), newer)
            for offset in (2, 3):
                late = checkpoint(offset, {("f", 0): 20}, vectors=2)
                assert not mine.commit(0, rows(("a", 20, 2.0)), late)
            assert same(mine.checkpoint(0), newer)
            assert held(mine) == {"a": (30, 3.0)}
            assert mine.commit(0, rows(), checkpoint(4, {("f", 0): 40}, vectors=4))

    def test_shards_that_are_committed_at_once_are_told_each_what_a_commit_tells(
        self, tables: Tables, url: str
    ) -> None:
        mine = tables.features(ROWS)
        mine.commit(1, rows(("b", 10, 1.0)), checkpoint(5, {("f", 1): 10}))
        first = (0, rows(("a", 3, 3.0)), checkpoint(2, {("f", 0): 3}, vectors=1))
        late = (1, rows(("b", 9, 9.0), ("c", 1, 1.0)), checkpoint(4, {("f", 1): 9, ("g", 1): 7}, vectors=2))
        none = (2, rows(), checkpoint(0))
        assert mine.commit_all([late, first, none]) == [False, True, True]
        assert mine.commit_all([]) == []
        with open_tables(url) as others:
            theirs = others.features(ROWS)
            assert held(theirs) == {"a": (3, 3.0), "b": (10, 1.0), "c": (1, 1.0)}
            assert same(theirs.checkpoint(0), first[2])
            assert same(theirs.checkpoint(1), checkpoint(5, {("f", 1): 10, ("g", 1): 7}))
            assert same(theirs.checkpoint(2), none[2])

    def test_checkpoint_without_rows_is_kept(self, tables: Tables) -> None:
        features = tables.features(ROWS)
        committed = checkpoint(8, {("f", 1): 3}, unknown_type=2)
        assert features.commit(2, rows(), committed)
        assert same(features.checkpoint(2), committed)

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(
            st.tuples(
                st.integers(0, 1),
                st.integers(0, 1),
                st.dictionaries(st.sampled_from("abc"), st.tuples(st.integers(0, 9), st.sampled_from(SOME_FLOATS))),
                st.integers(0, 9),
                st.dictionaries(st.tuples(st.sampled_from("fg"), st.integers(0, 2)), st.integers(0, 9)),
                st.booleans(),
            ),
            max_size=12,
        )
    )
    def test_any_commits_of_two_owners_agree_with_dicts(self, commits: list[Any]) -> None:
        oracle = Oracle()
        with tempfile.TemporaryDirectory() as folder:
            url = self.url_in(folder)
            with open_tables(url) as first, open_tables(url) as second:
                owners = [first.features(ROWS), second.features(ROWS)]
                for owner, shard, users, offset, marks, load_first in commits:
                    if load_first:
                        owners[owner].checkpoint(shard)
                    batch = rows(*((user, *row) for user, row in users.items()))
                    done = owners[owner].commit(shard, batch, checkpoint(offset, marks, vectors=offset * 10))
                    assert done == oracle.commit(shard, users, offset, marks)
                assert held(owners[0]) == oracle.users
                for shard in (0, 1):
                    offset, vectors = oracle.offsets.get(shard, (-1, 0))
                    expected = checkpoint(offset, oracle.marks.get(shard), vectors=vectors)
                    if offset < 0:
                        expected.counters = {}
                    assert same(owners[1].checkpoint(shard), expected)

    def test_watermarks_outlive_an_epoch_and_offsets_do_not(self, tables: Tables, url: str) -> None:
        before = tables.features(ROWS)
        before.commit(0, rows(("a", 1, 1.0)), checkpoint(7, {("f", 0): 5, ("g", 1): 9}, vectors=3))
        before.commit(1, rows(), checkpoint(8, {("f", 0): 6, ("f", 2): 1}))
        assert tables.raise_epoch() == 1
        with open_tables(url) as others:
            after = others.features(ROWS)
            inherited = checkpoint(-1, {("f", 0): 6, ("g", 1): 9, ("f", 2): 1})
            assert same(after.checkpoint(0), inherited)
            assert same(after.checkpoint(5), inherited)
            assert after.commit(0, rows(("a", 2**48, 2.0)), checkpoint(0, {("f", 0): 7, ("g", 1): 9, ("f", 2): 1}))
            assert same(after.checkpoint(0), checkpoint(0, {("f", 0): 7, ("g", 1): 9, ("f", 2): 1}))
            assert held(after) == {"a": (2**48, 2.0)}

    def test_features_scan_in_batches_in_the_order_of_their_keys(self, tables: Tables) -> None:
        features = tables.features(ROWS)
        keys = [f"{number:04d}" for number in range(250)]
        features.commit(0, rows(*((key, 1, float(key)) for key in reversed(keys))), checkpoint(0))
        batches = list(features.scan(batch_size=100))
        assert [batch.num_rows for batch in batches] == [100, 100, 50]
        assert [key for batch in batches for key in batch.column("user").to_pylist()] == keys
        assert [batch.num_rows for batch in features.scan(batch_size=125)] == [125, 125]
        assert [batch.num_rows for batch in features.scan(100, after="0099")] == [100, 50]
        assert [key for batch in features.scan(100, after="01") for key in batch.column("user").to_pylist()] == keys[
            100:
        ]
        assert list(features.scan(100, after=keys[-1])) == []

    def test_rows_of_many_users_are_found_whatever_their_number(self, tables: Tables) -> None:
        features = tables.features(ROWS)
        keys = [str(number) for number in range(0, 1200, 2)]
        features.commit(0, rows(*((key, 1, float(key)) for key in keys)), checkpoint(0))
        for count in (1, 7, 8, 9, 63, 64, 65, 511, 512, 513, 1200):
            asked = [str(number) for number in range(count)]
            assert sums(features.get_many(asked)) == {key: float(key) for key in asked if int(key) % 2 == 0}

    def test_features_keep_odd_keys_apart(self, tables: Tables) -> None:
        features = tables.features(ROWS)
        features.commit(0, rows(*((key, 1, float(number)) for number, key in enumerate(ODD_KEYS))), checkpoint(0))
        assert sums(features.get_many(ODD_KEYS)) == {key: float(number) for number, key in enumerate(ODD_KEYS)}
        assert [key for batch in features.scan(3) for key in batch.column(0).to_pylist()] == sorted(
            ODD_KEYS, key=str.encode
        )

    @pytest.mark.parametrize(
        "other",
        [
            pa.schema([*ROWS, ("win_sum", pa.float64())]),
            pa.schema(list(ROWS)[:-1]),
            pa.schema([*list(ROWS)[:-1], ("win_sum", pa.float64())]),
            pa.schema([*list(ROWS)[:-1], ("bet_sum", pa.string())]),
        ],
    )
    def test_features_of_another_use_case_are_refused(self, tables: Tables, url: str, other: pa.Schema) -> None:
        tables.features(ROWS).count()
        with open_tables(url) as others, pytest.raises(ConfigurationError, match="_sum") as caught:
            others.features(other).count()
        assert "use case" in str(caught.value)
        assert caught.value.remedy

    # Inputs and the epoch.

    def test_input_is_registered_once(self, tables: Tables, url: str) -> None:
        record = Input(origin="a", kind="file", path="/data/a b.ndjson", options={"seed": 1, "end": None, "x": [1.5]})
        assert tables.inputs().get("a") is None
        assert tables.inputs().register("a", record) == record
        tables.inputs().save_progress("a", 10, 1000, "abc", False)
        with open_tables(url) as others:
            stored = others.inputs().register("a", Input(origin="a", kind="other"))
            assert stored == Input(
                origin="a", kind="file", path=record.path, options=record.options, lines=10, bytes=1000, digest="abc"
            )
            assert others.inputs().get("a") == stored

    def test_progress_of_an_input_only_rises(self, tables: Tables) -> None:
        inputs = tables.inputs()
        inputs.register("a", Input(origin="a", kind="file"))
        inputs.save_progress("a", 10, 1000, "ten", False)
        inputs.save_progress("a", 9, 900, "nine", True)
        stored = inputs.get("a")
        assert stored is not None
        assert (stored.lines, stored.bytes, stored.digest, stored.finished) == (10, 1000, "ten", False)
        inputs.save_progress("a", 10, 1000, "ten", True)
        stored = inputs.get("a")
        assert stored is not None
        assert stored.finished is True

    def test_progress_of_an_unknown_input_is_an_error(self, tables: Tables) -> None:
        with pytest.raises(ConfigurationError, match="'b'"):
            tables.inputs().save_progress("b", 1, 1, "", False)

    def test_inputs_are_listed_as_they_came(self, tables: Tables) -> None:
        for origin in ("z", "a", "m"):
            tables.inputs().register(origin, Input(origin=origin, kind="file"))
        assert [record.origin for record in tables.inputs().all()] == ["z", "a", "m"]

    def test_epoch_rises_up_to_its_limit(self, tables: Tables, url: str) -> None:
        assert tables.epoch() == 0
        assert [tables.raise_epoch() for _ in range(31)] == list(range(1, 32))
        with pytest.raises(ConfigurationError, match="31"):
            tables.raise_epoch()
        with open_tables(url) as others:
            assert others.epoch() == 31

    def test_the_first_definition_is_kept(self, tables: Tables, url: str) -> None:
        assert tables.definition() == ""
        assert tables.definition('{"a": "ü"}') == '{"a": "ü"}'
        with open_tables(url) as others:
            assert others.definition("another") == others.definition() == '{"a": "ü"}'
        tables.remove()
        with open_tables(url) as others:
            assert others.definition("another") == "another"

    # Removing.

    def test_features_may_have_another_name(self, tables: Tables, url: str) -> None:
        assert tables.features(ROWS, "players").commit(0, rows(("a", 1, 2.5)), checkpoint(7))
        tables.lookup("enrichment").load([pa.record_batch({"key": ["a"], "value": [1.5]})])
        with open_tables(url) as again:
            assert held(again.features(ROWS, "players")) == {"a": (1, 2.5)}
            assert again.features(ROWS, "players").checkpoint(0).offset == 7
        tables.remove()
        with open_tables(url) as again:
            assert held(again.features(ROWS, "others")) == {}
            assert again.features(ROWS, "others").checkpoint(0).offset == -1

    @pytest.mark.parametrize("name", ["", "registry", "a/b", "../up", "a b"])
    def test_name_that_no_table_can_have_is_refused(self, tables: Tables, name: str) -> None:
        for make in (tables.lookup, partial(tables.features, ROWS)):
            with pytest.raises(ConfigurationError, match="can't be the name of a table"):
                make(name)

    def test_removed_tables_are_as_new_and_others_stay(self, tables: Tables, url: str) -> None:
        tables.remove()  # nothing was there
        with tempfile.TemporaryDirectory() as folder, open_tables(self.url_in(folder)) as others:
            fill(others)
            fill(tables)
            tables.remove()
            tables.remove()
            with open_tables(url) as again:
                assert again.epoch() == 0
                assert again.lookup("enrichment").count() == 0
                assert again.inputs().all() == []
                other = pa.schema([("user", pa.string()), ("applied", pa.int64())])
                for shard in range(2):
                    assert same(again.features(other).checkpoint(shard), Checkpoint())
                assert again.features(other).count() == 0
            tables.remove()
            fill(tables)
            for kept in (others, tables):
                assert kept.epoch() == 1
                assert held(kept.features(ROWS)) == {"a": (2, 1.0)}
                assert kept.lookup("enrichment").get_many(["a"]) == [1.0]
                assert [one.origin for one in kept.inputs().all()] == ["a"]
