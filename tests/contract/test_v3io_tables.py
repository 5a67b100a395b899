"""Tables of V3IO keep the contract, against the stand-in (servers/v3io), also when it fails or is killed."""

from __future__ import annotations

import random
import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from typing import Any

import pyarrow as pa
import pytest

from modelstream.clients.v3io import Container, V3ioAddress
from modelstream.errors import ConfigurationError, UnavailableError
from modelstream.tables import Tables, open_tables
from modelstream.tables.v3io_items import SEGMENTS
from servers.v3io.process import V3ioServer
from tests.contract.tables_contract import ROWS, TablesContract, checkpoint, held, rows
from tests.contract.v3io_places import new_url, no_faults, server

__all__ = ["no_faults", "server"]

THIRD = 1 / 3
"""A float with more digits than V3IO keeps."""


def commit_until_killed(url: str, shard: int, confirmed: Any) -> None:
    """Commit the number n as rows, watermark, offset and count, for n = 0, 1, …"""
    with open_tables(url) as tables:
        features = tables.features(ROWS)
        number = features.checkpoint(shard).offset + 1
        while True:
            done = rows(*((f"{shard}-{user}", number, number * THIRD) for user in range(50)))
            assert features.commit(shard, done, checkpoint(number, {("f", shard): number}, vectors=number))
            confirmed.send(number)
            number += 1


def until_done(action: Any) -> Any:
    """Repeat a call over its outages, as whoever holds a shard does."""
    while True:
        try:
            return action()
        except UnavailableError as error:
            assert error.remedy


class TestV3ioTables(TablesContract):
    @pytest.fixture(autouse=True)
    def running(self, server: V3ioServer) -> None:
        self.server = server

    @pytest.fixture
    def url(self) -> str:
        return self.url_in("")

    def url_in(self, folder: str) -> str:
        return new_url("tables")

    def test_rows_of_a_commit_are_in_flight_together(self, tables: Tables) -> None:
        features = tables.features(ROWS)
        self.server.fail(delay_seconds=0.02)
        features.commit(0, rows(*((f"u{user}", 1, 1.0) for user in range(200))), checkpoint(0, {("f", 0): 1}))
        seen = self.server.seen()
        assert seen.most_at_once >= 8
        assert seen.calls == {"PutItem": 202, "UpdateItem": 1}, "rows, the origin's name, the offset; the watermark"
        self.server.fail(delay_seconds=0.02)
        assert features.get_many([f"u{user}" for user in range(100)]).num_rows == 100
        assert self.server.seen().most_at_once >= 8

    def test_offset_is_put_when_rows_and_watermarks_are_there(self, tables: Tables) -> None:
        features = tables.features(ROWS)
        for seed in range(30):
            position = seed + 1
            many = rows(*((f"u{user}", position, 1.0) for user in range(20)))
            self.server.fail(unavailable=0.04, seed=seed)
            committed = False
            with suppress(UnavailableError):
                committed = features.commit(0, many, checkpoint(position, {("f", 0): position, ("g", 1): position}))
            self.server.fail()
            stored = features.checkpoint(0)
            if stored.offset == position or committed:
                assert set(held(features).values()) == {(position, 1.0)}
                assert stored.watermarks.to_json() == {"f": {"0": position}, "g": {"1": position}}

    def test_lost_answers_change_nothing_of_what_is_stored(self, tables: Tables, url: str) -> None:
        features = tables.features(ROWS)
        self.server.fail(drop_answers=0.1)
        for number in range(30):
            done = rows(*((f"u{user}", number, number * THIRD) for user in range(10)))
            reached = checkpoint(number, {("f", 3): number}, vectors=number)
            until_done(partial(features.commit, 0, done, reached))
        self.server.fail()
        with open_tables(url) as others:
            stored = others.features(ROWS).checkpoint(0)
            assert (stored.offset, stored.counters) == (29, {"vectors": 29})
            assert stored.watermarks.to_json() == {"f": {"3": 29}}
            assert held(others.features(ROWS)) == {f"u{user}": (29, 29 * THIRD) for user in range(10)}

    def test_outages_use_up_no_connections(self, tables: Tables) -> None:
        features = tables.features(ROWS)
        keys = [f"u{user}" for user in range(40)]
        features.commit(0, rows(*((key, 1, 1.0) for key in keys)), checkpoint(0))
        outages = 0
        self.server.fail(drop_answers=0.8)
        for _ in range(20):
            try:
                features.get_many(keys)
            except UnavailableError:
                outages += 1
        self.server.fail()
        assert outages > 10
        assert features.get_many(keys).num_rows == 40

    def test_killed_committers_leave_what_can_be_gone_on_with(self, tables: Tables, url: str) -> None:
        choice = random.Random(1)
        last = [-1, -1]
        for turn in range(6):
            pipes = [get_context("fork").Pipe(duplex=False) for _ in last]
            workers = []
            for shard, (_, child) in enumerate(pipes):
                workers.append(get_context("fork").Process(target=commit_until_killed, args=(url, shard, child)))
                workers[-1].start()
                child.close()
            for parent, _ in pipes:
                assert parent.poll(30)
            time.sleep(choice.random() * 0.1)
            if turn % 3 == 2:
                self.server.kill()
            for worker in workers:
                worker.kill()
                worker.join()
            if turn % 3 == 2:
                self.server.start()
            features = until_done(lambda: tables.features(ROWS))
            for shard, (parent, _) in enumerate(pipes):
                try:
                    while True:
                        last[shard] = parent.recv()
                except EOFError:
                    pass
                stored = features.checkpoint(shard)
                assert stored.offset in (last[shard], last[shard] + 1)
                assert stored.counters == {"vectors": stored.offset}
                assert stored.watermarks.get("f", shard) in (stored.offset, stored.offset + 1)
                for applied, bet_sum in (held(features)[f"{shard}-{user}"] for user in range(50)):
                    assert applied in (stored.offset, stored.offset + 1)
                    assert bet_sum == applied * THIRD
        assert min(last) > 5

    def test_restart_of_the_server_is_an_outage_that_ends(self, tables: Tables) -> None:
        features = tables.features(ROWS)
        features.commit(0, rows(("a", 1, THIRD)), checkpoint(0, {("f", 0): 1}))
        self.server.kill()
        with pytest.raises(UnavailableError, match="V3IO at"):
            features.commit(0, rows(("a", 2, 2.0)), checkpoint(1))
        self.server.start()
        assert held(features) == {"a": (1, THIRD)}
        assert features.commit(0, rows(("a", 2, 2.0)), checkpoint(1, {("f", 0): 2}))

    def test_floats_are_exact_although_v3io_is_not(self, tables: Tables, url: str) -> None:
        tables.features(ROWS).commit(0, rows(("a", 1, THIRD)), checkpoint(0))
        tables.lookup("enrichment").load([pa.record_batch({"key": ["a"], "value": [THIRD]})])
        assert self.item(url, "features", "a")["bet_sum"] != THIRD, "the stand-in must be as inexact as V3IO"
        assert tables.features(ROWS).get("a").column("bet_sum").to_pylist() == [THIRD]
        assert tables.lookup("enrichment").get_many(["a"]) == [THIRD]

    def test_others_can_read_the_features(self, tables: Tables, url: str) -> None:
        stored = rows(("a", 1, 1_700_000_000_123_456, "Köln", 5, True, None, 0.5))
        tables.features(ROWS).commit(0, stored, checkpoint(0))
        item = self.item(url, "features", "a")
        item.pop("_floats")
        assert item.pop("since").replace(microsecond=0) == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
        assert item == {"user": "a", "applied": 1, "city": "Köln", "age": 5, "member": True, "bet_sum": 0.5}
        with closing(Container(V3ioAddress.of(url))) as schema:
            response = schema.call("object", "get", path=schema.path("features/.#schema"))
        assert b'"key":"user"' in response.body
        assert b'{"name":"since","type":"timestamp","nullable":true}' in response.body

    def test_lookup_that_others_wrote_is_read(self, tables: Tables, url: str) -> None:
        """A data frame of key and value, written by v3io-frames, gives these and nothing else."""
        lookup = tables.lookup("enrichment")
        lookup.load([pa.record_batch({"key": ["a", "b"], "value": [THIRD, 2.0]})])
        with closing(Container(V3ioAddress.of(url))) as container:
            table = container.path("enrichment")
            container.call("kv", "put", table_path=table, key="c", attributes={"key": "c", "value": 7})
            container.call("kv", "update", table_path=table, key="b", attributes={"value": 2.5})
        assert lookup.get_many(["a", "b", "c"]) == [THIRD, 2.5, 7.0]
        assert pa.Table.from_batches(lookup.scan()).to_pydict() == {"key": ["a", "b", "c"], "value": [THIRD, 2.5, 7.0]}
        assert lookup.count() == 3

    def test_load_puts_only_what_differs(self, tables: Tables) -> None:
        lookup = tables.lookup("enrichment")
        before = pa.record_batch({"key": ["a", "b", "c", "d", "e"], "value": [THIRD, 2.0, None, None, 5.0]})
        lookup.load([before])
        self.server.fail()
        after = pa.record_batch({"key": ["a", "b", "c", "d", "f", "b"], "value": [THIRD, 3.0, None, 4.0, 6.0, 2.0]})
        assert lookup.load([after]) == 6
        assert self.server.seen().calls["PutItem"] == 3, "b, whose last value is the old one, d and f"
        assert lookup.get_many(["a", "b", "c", "d", "e", "f"]) == [THIRD, 2.0, None, 4.0, 5.0, 6.0]

    def test_scan_goes_on_after_pages_without_items(self, tables: Tables) -> None:
        features = tables.features(ROWS)
        self.server.fail(empty_pages=True)
        features.commit(0, rows(("a", 1, 1.0)), checkpoint(0, {("f", 0): 1}))
        assert held(features) == {"a": (1, 1.0)}
        assert features.count() == 1
        assert features.checkpoint(0).watermarks.get("f", 0) == 1

    def test_segments_of_a_scan_are_read_at_once(self, tables: Tables) -> None:
        features = tables.features(ROWS)
        features.commit(0, rows(*((f"{number:05d}", 1, float(number)) for number in range(100))), checkpoint(0))
        self.server.fail(delay_seconds=0.05)
        assert held(features) == {f"{number:05d}": (1, float(number)) for number in range(100)}
        seen = self.server.seen()
        assert seen.most_at_once == SEGMENTS
        assert features.count() == 100

    def test_more_rows_than_a_page_come_back(self, tables: Tables) -> None:
        features = tables.features(ROWS)
        features.commit(0, rows(*((f"{number:05d}", 1, float(number)) for number in range(5000))), checkpoint(0))
        assert held(features) == {f"{number:05d}": (1, float(number)) for number in range(5000)}
        assert features.count() == 5000

    def test_what_no_name_or_text_of_v3io_can_be_is_kept(self, tables: Tables) -> None:
        keys = ["k" * 256, "k" * 256 + "x", "ä" * 100, ".#schema", "..", "a/b", " a"]
        features = tables.features(ROWS)
        texts = ["y" * 70_000, "a\0b", "", "x" * 61_199, "ü" * 61_200, "/", " "]
        stored = rows(*((key, 1, None, text, 1, None, None, 1.0) for key, text in zip(keys, texts, strict=True)))
        features.commit(0, stored, checkpoint(0))
        assert features.get_many(keys).equals(stored)
        assert features.count() == len(keys)

    def test_times_of_all_centuries_come_back(self, tables: Tables) -> None:
        times = [
            0,
            -1,
            1,
            2**32 * 10**6,
            2**32 * 10**6 - 1,
            -(2**32) * 10**6 + 1,
            2**62,
            -(2**62),
            1_699_999_999_999_999,
            *(2**power * 10**6 + 333_333 for power in range(30, 40)),
        ]
        stored = rows(*((f"k{number}", 1, t, None, 1, None, None, 1.0) for number, t in enumerate(times)))
        features = tables.features(ROWS)
        features.commit(0, stored, checkpoint(0))
        assert features.get_many([f"k{number}" for number in range(len(times))]).equals(stored)

    def test_streams_at_the_same_path_outlive_the_tables(self, tables: Tables, url: str) -> None:
        with closing(Container(V3ioAddress.of(url))) as container:
            container.call("stream", "create", stream_path=container.path("events"), shard_count=1)
            tables.features(ROWS).commit(0, rows(("a", 1, 1.0)), checkpoint(0))
            tables.raise_epoch()
            tables.remove()
            assert container.folders() == ["events"]
        with open_tables(url) as others:
            assert others.epoch() == 0
            assert others.features(ROWS).count() == 0

    @pytest.mark.parametrize("name", ["features", "features-shards", "registry", "inputs", "../x", ""])
    def test_lookup_table_can_not_take_the_name_of_another(self, tables: Tables, name: str) -> None:
        with pytest.raises(ConfigurationError, match="name"):
            tables.lookup(name)

    @pytest.mark.parametrize("column", ["a-b", "1a", "__name", "set", "ä", ""])
    def test_column_that_can_not_be_an_attribute_is_named(self, tables: Tables, column: str) -> None:
        with pytest.raises(ConfigurationError, match=f"'{column}'") as caught:
            tables.features(pa.schema([*ROWS, (column, pa.int64())]))
        assert caught.value.remedy

    def test_column_that_can_not_be_stored_is_named(self, tables: Tables) -> None:
        with pytest.raises(ConfigurationError, match="'tags'"):
            tables.features(pa.schema([*ROWS, ("tags", pa.list_(pa.string()))]))

    def item(self, url: str, table: str, key: str) -> dict[str, Any]:
        """Return an item as v3io-py gives it."""
        with closing(Container(V3ioAddress.of(url))) as container:
            item: dict[str, Any] = container.call("kv", "get", table_path=container.path(table), key=key).output.item
        return item
