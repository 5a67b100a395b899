"""Tables in a folder keep the contract, survive kills and full disks, and refuse what they can't read."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from modelstream.clients import sqlite as sqlite_files
from modelstream.errors import ConfigurationError, GoneError, UnavailableError
from modelstream.tables import Input, Tables, open_tables
from modelstream.tables.sqlite_features import SqliteFeatureTable
from tests.contract.tables_contract import ROWS, TablesContract, checkpoint, held, rows, same, sums


def commit_until_killed(url: str, shard: int, confirmed: Any) -> None:
    """Commit the number n as row, watermark, offset and count, for n = 0, 1, …"""
    with open_tables(url) as tables:
        features = tables.features(ROWS)
        number = features.checkpoint(shard).offset + 1
        while True:
            done = rows(*((f"{shard}-{user}", number, float(number)) for user in range(50)))
            assert features.commit(shard, done, checkpoint(number, {("f", shard): number}, vectors=number))
            confirmed.send(number)
            number += 1


def commit_two_until_killed(url: str, confirmed: Any) -> None:
    """Commit the number n for two shards at once, as rows, watermarks, offsets and counts, for n = 0, 1, …"""
    with open_tables(url) as tables:
        features = tables.features(ROWS)
        number = features.checkpoint(0).offset + 1
        while True:
            commits = [
                (
                    shard,
                    rows(*((f"{user}-{shard}", number, float(number)) for user in range(500))),
                    checkpoint(number, {("f", shard): number}, vectors=number),
                )
                for shard in range(2)
            ]
            assert features.commit_all(commits) == [True, True]
            confirmed.send(number)
            number += 1


class TestSqliteTables(TablesContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return self.url_in(str(tmp_path))

    def url_in(self, folder: str) -> str:
        return f"sqlite://{folder}/tables"

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "tables"

    def test_killed_committers_leave_whole_commits(self, tables: Tables, url: str) -> None:
        choice = random.Random(1)
        last = [-1, -1]
        for _ in range(8):
            pipes = [get_context("fork").Pipe(duplex=False) for _ in last]
            workers = []
            for shard, (_, child) in enumerate(pipes):
                workers.append(get_context("fork").Process(target=commit_until_killed, args=(url, shard, child)))
                workers[-1].start()
                child.close()
            for parent, _ in pipes:
                assert parent.poll(30)
            time.sleep(choice.random() * 0.05)
            for worker in workers:
                assert worker.pid is not None
                os.kill(worker.pid, signal.SIGKILL)
                worker.join()
            features = tables.features(ROWS)
            for shard, (parent, _) in enumerate(pipes):
                try:
                    while True:
                        last[shard] = parent.recv()
                except EOFError:
                    pass
                stored = features.checkpoint(shard)
                assert stored.offset in (last[shard], last[shard] + 1)
                assert stored.watermarks.get("f", shard) == stored.offset
                assert stored.counters == {"vectors": stored.offset}
                for user in range(50):
                    expected = rows((f"{shard}-{user}", stored.offset, float(stored.offset)))
                    assert features.get(f"{shard}-{user}").equals(expected)
        assert min(last) > 10

    def test_killed_committers_of_two_shards_leave_both_or_none(self, tables: Tables, url: str) -> None:
        choice, last = random.Random(2), -1
        for _ in range(12):
            parent, child = get_context("fork").Pipe(duplex=False)
            worker = get_context("fork").Process(target=commit_two_until_killed, args=(url, child))
            worker.start()
            child.close()
            assert parent.poll(30)
            time.sleep(choice.random() * 0.05)
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()
            with suppress(EOFError):
                while True:
                    last = parent.recv()
            features = tables.features(ROWS)
            stored = features.checkpoint(0).offset
            assert stored in (last, last + 1)
            for shard in range(2):
                assert same(features.checkpoint(shard), checkpoint(stored, {("f", shard): stored}, vectors=stored))
            assert set(held(features).values()) == {(stored, float(stored))}
        assert last > 10

    def test_table_of_an_earlier_checkout_in_the_order_of_its_keys_goes_on(self, url: str, folder: Path) -> None:
        with open_tables(url) as tables:
            assert tables.features(ROWS).commit(0, rows(), checkpoint(0, {("f", 0): 1}))
        connection = sqlite3.connect(folder / "features.db")
        (made,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'features'").fetchone()
        assert "ROWID" not in made
        connection.executescript(f"DROP TABLE features; {made} WITHOUT ROWID;")
        connection.execute("INSERT INTO features (user, applied, bet_sum) VALUES ('b', 5, 0.5)")
        connection.commit()
        connection.close()
        with open_tables(url) as tables:
            features = tables.features(ROWS)
            many = rows(("c", 1, 1.0), ("a", 1, 1.0), ("b", 4, 4.0))
            assert (
                features.commit_all([(0, many, checkpoint(1)), (1, rows(("d", 9, 9.0)), checkpoint(0))]) == [True] * 2
            )
            assert held(features) == {"a": (1, 1.0), "b": (5, 0.5), "c": (1, 1.0), "d": (9, 9.0)}
            assert sums(features.get_many(["b", "x", "c"])) == {"b": 0.5, "c": 1.0}
            assert features.count() == 4

    def test_person_can_read_the_features(self, tables: Tables, folder: Path) -> None:
        stored = rows(("a", 1, 1_700_000_000_000_000, "Köln", 5, True, None, 0.5))
        tables.features(ROWS).commit(0, stored, checkpoint(0))
        connection = sqlite3.connect(folder / "features.db")
        found = connection.execute(
            "SELECT user, datetime(since / 1000000, 'unixepoch'), city, age, bet_sum FROM features"
        ).fetchall()
        connection.close()
        assert found == [("a", "2023-11-14 22:13:20", "Köln", 5, 0.5)]

    def test_commits_are_safe_against_power_loss(self, tables: Tables) -> None:
        features = tables.features(ROWS)
        assert isinstance(features, SqliteFeatureTable)
        assert features.file.connection.execute("PRAGMA synchronous").fetchone() == (2,)

    def test_watermarks_that_did_not_change_are_not_written_again(self, tables: Tables) -> None:
        features = tables.features(ROWS)
        assert isinstance(features, SqliteFeatureTable)
        marks = {("f", bucket): 1 for bucket in range(64)}
        features.commit(0, rows(), checkpoint(0, marks))
        statements: list[str] = []
        features.file.connection.set_trace_callback(statements.append)
        features.commit(0, rows(), checkpoint(1, marks | {("f", 3): 2}))
        assert len([statement for statement in statements if "INTO watermarks" in statement]) == 1
        assert features.checkpoint(0).watermarks.get("f", 3) == 2

    def test_failed_commit_is_repeated_as_a_whole(self, tables: Tables, url: str) -> None:
        features = tables.features(ROWS)
        assert isinstance(features, SqliteFeatureTable)
        features.commit(0, rows(("a", 1, 1.0)), checkpoint(0, {("f", 0): 1}))
        connection = features.file.connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")
        many = rows(*((f"user {number}", 1, 1.0) for number in range(5000)))
        marks = {("f", 0): 2, ("f", 1): 1}
        with pytest.raises(UnavailableError, match="full"):
            features.commit_all([(1, rows(("b", 1, 1.0)), checkpoint(5)), (0, many, checkpoint(1, marks))])
        assert features.checkpoint(1).offset == -1
        with pytest.raises(UnavailableError, match="full"):
            features.commit(0, many, checkpoint(1, marks))
        with open_tables(url) as others:
            assert others.features(ROWS).count() == 1
            assert others.features(ROWS).checkpoint(0).offset == 0
        connection.execute("PRAGMA max_page_count=1000000")
        assert features.commit(0, many, checkpoint(1, marks))
        assert features.checkpoint(0).watermarks.to_json() == {"f": {"0": 2, "1": 1}}
        assert features.count() == 5001

    def test_locked_table_is_an_outage_that_ends(
        self, tables: Tables, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        features = tables.features(ROWS)
        features.commit(0, rows(("a", 1, 1.0)), checkpoint(0))
        monkeypatch.setattr(sqlite_files, "LOCK_WAIT_SECONDS", 0.05)
        holder = sqlite3.connect(folder / "features.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError, match="locked"):
            features.commit(0, rows(("a", 2, 2.0)), checkpoint(1))
        assert held(features) == {"a": (1, 1.0)}, "reading must not wait for a writer"
        holder.execute("ROLLBACK")
        holder.close()
        assert features.commit(0, rows(("a", 2, 2.0)), checkpoint(1))

    def test_scan_leaves_the_log_free_to_be_cut(self, tables: Tables, folder: Path) -> None:
        features = tables.features(ROWS)
        features.commit(0, rows(*((f"{number:04d}", 1, 1.0) for number in range(500))), checkpoint(0))
        batches = features.scan(100)
        next(batches)
        beside = sqlite3.connect(folder / "features.db", isolation_level=None)
        assert beside.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        beside.close()
        assert sum(batch.num_rows for batch in batches) == 400

    @pytest.mark.parametrize("file", ["registry", "features", "enrichment"])
    @pytest.mark.parametrize(
        ("damage", "said"),
        [("PRAGMA user_version=2", "version 2"), ("PRAGMA application_id=7", "is not a"), ("", "broken")],
    )
    def test_file_that_is_no_table_of_ours_is_refused(
        self, url: str, folder: Path, file: str, damage: str, said: str
    ) -> None:
        def use() -> None:
            with open_tables(url) as tables:
                if file == "registry":
                    tables.inputs().register("a", Input(origin="a", kind="file"))
                elif file == "features":
                    tables.features(ROWS).count()
                else:
                    tables.lookup("enrichment").count()

        use()
        if damage:
            connection = sqlite3.connect(folder / f"{file}.db")
            connection.execute(damage)
            connection.close()
        else:
            (folder / f"{file}.db").write_bytes(b"something else" * 100)
        with pytest.raises(ConfigurationError, match=said) as caught:
            use()
        assert f"{file}.db" in str(caught.value)
        assert caught.value.remedy

    def test_corrupt_pages_are_a_broken_file(self, url: str, folder: Path) -> None:
        with open_tables(url) as tables:
            tables.lookup("enrichment").load(
                [pa.record_batch({"key": [str(number) for number in range(5000)], "value": [1.0] * 5000})]
            )
        with (folder / "enrichment.db").open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 50_000)
        with open_tables(url) as tables, pytest.raises(ConfigurationError, match="broken"):
            list(tables.lookup("enrichment").scan())

    def test_lookup_table_can_not_take_the_name_of_another_file(self, tables: Tables) -> None:
        for name in ("features", "registry", "../x", ""):
            with pytest.raises(ConfigurationError, match="name"):
                tables.lookup(name)

    def test_column_that_can_not_be_stored_is_named(self, tables: Tables) -> None:
        with pytest.raises(ConfigurationError, match="'tags'"):
            tables.features(pa.schema([*ROWS, ("tags", pa.list_(pa.string()))]))


@pytest.mark.parametrize("name", ["features", "enrichment", "registry"])
def test_nothing_is_stored_in_a_table_whose_file_is_gone(tmp_path: Path, name: str) -> None:
    with open_tables(f"sqlite://{tmp_path}") as tables:
        features, lookup, inputs = tables.features(ROWS), tables.lookup("enrichment"), tables.inputs()
        writes: dict[str, Callable[[], object]] = {
            "features": lambda: features.commit(0, rows(("u", 1, 1.0)), checkpoint(0)),
            "enrichment": lambda: lookup.load([pa.record_batch({"key": ["k"], "value": [1.0]})]),
            "registry": lambda: inputs.register("f", Input(origin="f", kind="file", path="f", options={})),
        }
        writes[name]()
        (tmp_path / f"{name}.db").unlink()
        with pytest.raises(GoneError, match=f"{name}.db was deleted"):
            writes[name]()
