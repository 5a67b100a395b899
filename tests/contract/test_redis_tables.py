"""Tables in Redis keep the contract, take one trip a batch, and say when the server lost what it had confirmed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import redis

from modelstream.errors import ConfigurationError, LostStateError, UnavailableError
from modelstream.messages.identity import Checkpoint
from modelstream.tables import Input, Tables, open_tables, redis_features
from modelstream.tables.redis_client import PASSWORD, USERNAME
from servers.redis import RedisServer
from tests.contract.tables_contract import ROWS, TablesContract, checkpoint, fill, held, rows, same
from tests.required import require


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    require(RedisServer)
    with RedisServer() as server:
        yield server


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of what was sent to the server, an entry for each time."""
    sent: list[int] = []
    send: Any = redis.Connection.send_packed_command

    def counted(self: Any, command: Any, check_health: bool = True) -> Any:
        sent.append(len(command) if isinstance(command, bytes) else sum(map(len, command)))
        return send(self, command, check_health)

    monkeypatch.setattr(redis.Connection, "send_packed_command", counted)
    return sent


class TestRedisTables(TablesContract):
    _server: RedisServer

    @pytest.fixture(autouse=True)
    def _use(self, server: RedisServer) -> None:
        type(self)._server = server

    @pytest.fixture
    def prefix(self) -> str:
        return uuid.uuid4().hex

    @pytest.fixture
    def url(self, prefix: str) -> str:
        return self._server.url(prefix)

    def url_in(self, folder: str) -> str:
        return self._server.url(uuid.uuid4().hex)

    # Batches.

    def test_features_that_are_in_a_table_of_another_name_are_told(self, url: str) -> None:
        for kept, asked in (("features", "players"), ("players", "features")):
            with open_tables(url) as tables:
                tables.features(ROWS, kept)
                with pytest.raises(ConfigurationError, match=f"features in the table '{kept}', not in '{asked}'"):
                    tables.features(ROWS, asked)
                tables.remove()

    def test_flush_of_2000_rows_is_one_trip(self, tables: Tables, trips: list[int]) -> None:
        features = tables.features(ROWS)
        features.commit(0, rows(), checkpoint(0))
        trips.clear()
        many = rows(*((f"user {number}", 1, float(number)) for number in range(2000)))
        assert features.commit(0, many, checkpoint(1, {("f", bucket): 1 for bucket in range(64)}))
        assert len(trips) == 1
        assert features.get_many(many.column(0).to_pylist()).equals(many)
        assert len(trips) == 2
        assert features.count() == 2000

    def test_look_up_of_many_keys_is_one_trip_and_known_ones_are_none(self, tables: Tables, trips: list[int]) -> None:
        lookup = tables.lookup("enrichment")
        keys = [str(number) for number in range(3000)]
        lookup.load([pa.record_batch({"key": keys, "value": [float(key) for key in keys]})])
        trips.clear()
        assert lookup.get_many([*keys, "x"]) == [*map(float, keys), None]
        assert lookup.get_many(["x", *keys[:10]]) == [None, *map(float, keys[:10])]
        assert len(trips) == 1

    def test_commit_of_more_rows_than_a_script_takes(
        self, tables: Tables, monkeypatch: pytest.MonkeyPatch, trips: list[int]
    ) -> None:
        monkeypatch.setattr(redis_features, "ROWS_A_COMMIT", 100)
        features = tables.features(ROWS)
        features.commit(0, rows(), checkpoint(0))
        trips.clear()
        many = rows(*((f"{number:04d}", 1, float(number)) for number in range(250)))
        assert features.commit(0, many, checkpoint(1, {("f", 0): 1}))
        assert len(trips) == 3
        assert next(features.scan()).equals(many)
        assert same(features.checkpoint(0), checkpoint(1, {("f", 0): 1}))

    def test_more_rows_than_the_scripts_take_at_a_time_rise_one_by_one(self, tables: Tables) -> None:
        features = tables.features(ROWS)
        old, new = ([(f"{number:04d}", at, float(at)) for number in range(5000)] for at in (5, 6))
        features.commit(0, rows(*old), checkpoint(0))
        stale = [row if number % 3 else (row[0], 4, 4.0) for number, row in enumerate(new)]
        features.commit(0, rows(*stale), checkpoint(1))
        assert held(features) == {row[0]: (6, 6.0) if n % 3 else (5, 5.0) for n, row in enumerate(new)}
        assert features.count() == sum(batch.num_rows for batch in features.scan(4999)) == 5000

    def test_watermarks_that_did_not_change_are_not_sent_again(self, tables: Tables, trips: list[int]) -> None:
        features = tables.features(ROWS)
        marks = {("f", bucket): 1 for bucket in range(64)}
        features.commit(0, rows(), checkpoint(0, marks))
        trips.clear()
        features.commit(0, rows(), checkpoint(1, marks | {("f", 3): 2}))
        features.commit(0, rows(), checkpoint(2, {mark: position + 1 for mark, position in marks.items()}))
        assert trips[0] < trips[1] / 3
        assert features.checkpoint(0).watermarks.get("f", 3) == 2

    def test_scripts_that_the_server_forgot_are_sent_again(self, tables: Tables) -> None:
        features = tables.features(ROWS)
        for offset in range(3):
            self._server.client().script_flush()
            assert features.commit(0, rows(("a", offset, 1.0)), checkpoint(offset))

    def test_key_that_comes_twice_in_a_batch_keeps_its_higher_row(self, tables: Tables) -> None:
        features = tables.features(ROWS)
        features.commit(0, rows(("a", 7, 7.0), ("a", 6, 6.0)), checkpoint(0))
        assert held(features) == {"a": (7, 7.0)}

    # What a person sees.

    def test_person_can_read_what_is_stored(self, tables: Tables, prefix: str) -> None:
        stored = rows(("a", 17, 1_700_000_000_000_000, "Köln", 5, True, None, 0.5))
        tables.features(ROWS).commit(3, stored, checkpoint(9, {("events.ndjson", 63): 12}, vectors=4))
        tables.lookup("enrichment").load([pa.record_batch({"key": ["10115", "1"], "value": [2.5, None]})])
        tables.inputs().register("a.ndjson", Input(origin="a.ndjson", kind="file", path="/a.ndjson"))
        client = self._server.client()
        assert client.hget(f"{prefix}:features", "a") == (
            '0000000000000017 {"since":"2023-11-14 22:13:20.000000","city":"Köln","age":5,'
            '"member":true,"index":null,"bet_sum":0.5}'
        )
        assert client.hgetall(f"{prefix}:lookup:enrichment") == {"10115": "2.5", "1": ""}
        assert client.hgetall(f"{prefix}:shards") == {"0:3": '0000000000000009 {"vectors":4}'}
        assert client.hgetall(f"{prefix}:watermarks:0:3") == {"63 events.ndjson": "0000000000000012"}
        assert client.hget(f"{prefix}:inputs:progress", "a.ndjson") == (
            '0000000000000000 {"bytes":0,"digest":"","finished":false}'
        )

    @pytest.mark.parametrize("time", [-(2**62), 2**62, 253_402_300_800_000_000, -62_135_596_800_000_001])
    def test_times_that_no_calendar_has_come_back(self, tables: Tables, time: int) -> None:
        other = 1_700_000_000_123_456
        stored = rows(("a", 1, time, *[None] * 5), ("b", 1, other, *[None] * 5), ("c", 1, *[None] * 6))
        tables.features(ROWS).commit(0, stored, checkpoint(0))
        assert tables.features(ROWS).get_many(["a", "b", "c"]).equals(stored)

    def test_tables_of_other_prefixes_and_databases_are_apart(self, tables: Tables, prefix: str) -> None:
        tables.features(ROWS).commit(0, rows(("a", 1, 1.0)), checkpoint(0))
        tables.raise_epoch()
        for url in (self._server.url(prefix + "x"), self._server.url(prefix, db=1)):
            with open_tables(url) as others:
                assert others.features(ROWS).count() == others.epoch() == 0

    def test_removing_deletes_the_keys_of_its_tables_and_no_others(
        self, tables: Tables, prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("modelstream.tables.redis.PAIRS", 3)
        client = self._server.client()
        # A prefix may begin with another one, and even look like a table of it.
        others = {
            f"{prefix}x:about",
            f"{prefix}:lookup:x:about",
            f"{prefix}:watermarks:0:1:features",
            f"{prefix}:notes",
        }
        for key in others:
            client.set(key, "kept")
        fill(tables)
        for number in range(20):
            tables.lookup(f"table-{number}").load([pa.record_batch({"key": ["a"], "value": [1.0]})])
        tables.remove()
        assert set(client.keys(f"{prefix}*")) == others

    # Outages, and a server that lost something.

    def test_commit_with_unknown_outcome_may_be_repeated(self, url: str) -> None:
        with open_tables(url + "&timeout=0.2") as tables:
            features = tables.features(ROWS)
            features.commit(0, rows(), checkpoint(0))
            again = rows(("a", 5, 5.0)), checkpoint(1, {("f", 0): 5}, vectors=1)
            with self._server.suspended(), pytest.raises(UnavailableError) as caught:
                features.commit(0, *again)
            assert caught.value.remedy
            features.commit(0, *again)
            assert same(features.checkpoint(0), again[1])
            assert held(features) == {"a": (5, 5.0)}
            assert features.commit(0, rows(("a", 6, 6.0)), checkpoint(2, {("f", 0): 6}))

    def test_server_that_was_restarted_is_used_again(self, tmp_path: Path) -> None:
        with RedisServer(tmp_path) as server, open_tables(server.url("p")) as tables:
            features = tables.features(ROWS)
            features.commit(0, rows(("a", 1, 1.0)), checkpoint(0, {("f", 0): 1}))
            server.kill()
            for _ in range(2):
                with pytest.raises(UnavailableError, match=server.address) as caught:
                    features.commit(0, rows(("a", 2, 2.0)), checkpoint(1, {("f", 0): 2}))
            assert "server runs" in caught.value.remedy
            server.start()
            assert features.commit(0, rows(("a", 2, 2.0)), checkpoint(1, {("f", 0): 2}))
            assert held(features) == {"a": (2, 2.0)}
            assert features.checkpoint(0).watermarks.get("f", 0) == 2

    def test_server_that_lost_what_it_confirmed_is_found_out_until_it_is_restored(
        self, tables: Tables, url: str, prefix: str
    ) -> None:
        client: Any = redis.Redis(port=self._server.port)  # its types leave open what it returns

        def copy() -> dict[bytes, bytes]:
            return {name: client.dump(name) for name in client.keys(f"{prefix}:*")}

        def replace(copied: dict[bytes, bytes]) -> None:
            client.delete(*client.keys(f"{prefix}:*"))
            for name, content in copied.items():
                client.restore(name, 0, content)

        features, copies = tables.features(ROWS), []
        marks: dict[tuple[str, int], int] = {}
        for offset in range(3):
            copies.append(copy())
            marks[("f", offset)] = 1
            assert features.commit(0, rows((f"u{offset}", 1, 1.0)), checkpoint(offset, marks))
        copies[2] = copy()
        after = rows(("u3", 1, 1.0)), checkpoint(3, marks | {("f", 3): 1})
        assert len(copies) == 3
        replace(copies[1])
        for _ in range(2):
            with pytest.raises(LostStateError, match="offset 2 of shard 0 is gone") as caught:
                features.commit(0, *after)
        assert caught.value.remedy
        assert held(features) == {"u0": (1, 1.0)}, "what was lost is not to be covered up"
        with open_tables(url) as others:
            assert same(others.features(ROWS).checkpoint(0), checkpoint(0, {("f", 0): 1}))
        replace(copies[2])
        assert features.commit(0, *after)
        assert same(features.checkpoint(0), after[1])
        assert held(features) == {f"u{number}": (1, 1.0) for number in range(4)}

    def test_server_that_lost_everything_is_found_out(self, tables: Tables) -> None:
        features = tables.features(ROWS)
        features.checkpoint(0)
        assert features.commit(0, rows(("a", 1, 1.0)), checkpoint(0))
        self._server.client().flushdb()
        with pytest.raises(LostStateError):
            features.commit(0, rows(("b", 2, 1.0)), checkpoint(1))
        assert same(features.checkpoint(0), Checkpoint())
        assert features.count() == 0

    # Errors that a person will meet.

    def test_password_is_asked_for_and_taken_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        client, name = self._server.client(), uuid.uuid4().hex
        client.acl_setuser(name, enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"])
        client.acl_setuser("nobody", enabled=True, nopass=True, keys=["*"], commands=["+ping"])
        url = self._server.url("p").replace("redis://", f"redis://{name}@")
        with open_tables(url) as tables, pytest.raises(ConfigurationError) as caught:
            tables.epoch()
        assert PASSWORD in caught.value.remedy
        monkeypatch.setenv(PASSWORD, "secret")
        with open_tables(url) as tables:
            assert tables.epoch() == 0
        monkeypatch.setenv(USERNAME, "nobody")
        with open_tables(self._server.url("p")) as tables, pytest.raises(ConfigurationError, match="permission"):
            tables.epoch()

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("redis://h/0?prefx=a", "prefx"),
            ("redis://h/0?prefix=a b", "prefix"),
            ("redis://h/x", "not the URL"),
            ("redis://h:http/0", "not the URL"),
            ("redis:///0", "has no host"),
            ("redis://h/0?timeout=soon", "timeout"),
            ("redis://:sesame@h/0", "password"),
        ],
    )
    def test_url_that_is_wrong_is_refused(self, url: str, said: str) -> None:
        with pytest.raises(ConfigurationError, match=said) as caught:
            open_tables(url)
        assert caught.value.remedy
        assert "sesame" not in str(caught.value)

    def test_database_that_the_server_does_not_have_is_named(self) -> None:
        with open_tables(self._server.url("p", db=4000)) as tables, pytest.raises(ConfigurationError, match="4000"):
            tables.epoch()

    def test_keys_of_something_else_are_not_touched(self, url: str, prefix: str) -> None:
        client = self._server.client()
        client.set(f"{prefix}:about", "mine")
        with open_tables(url) as tables, pytest.raises(ConfigurationError, match="WRONGTYPE") as caught:
            tables.features(ROWS)
        assert "prefix" in caught.value.remedy
        assert client.get(f"{prefix}:about") == "mine"

    def test_newer_version_is_refused(self, url: str, prefix: str) -> None:
        self._server.client().hset(f"{prefix}:about", "version", "2")
        with open_tables(url) as tables, pytest.raises(ConfigurationError, match="format 2"):
            tables.epoch()

    def test_server_that_throws_keys_away_is_refused(self, url: str) -> None:
        client = self._server.client()
        client.config_set("maxmemory", "1gb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            with open_tables(url) as tables, pytest.raises(ConfigurationError, match="allkeys-lru") as caught:
                tables.epoch()
            assert "noeviction" in caught.value.remedy
        finally:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", "0")

    def test_full_server_is_an_outage_that_ends(self, tables: Tables) -> None:
        features, client = tables.features(ROWS), self._server.client()
        features.commit(0, rows(("a", 1, 1.0)), checkpoint(0))
        client.config_set("maxmemory", "1")
        try:
            with pytest.raises(UnavailableError, match="maxmemory") as caught:
                features.commit(0, rows(("a", 2, 2.0)), checkpoint(1))
            assert "memory" in caught.value.remedy
            with pytest.raises(UnavailableError):
                tables.lookup("enrichment").load([pa.record_batch({"key": ["a"], "value": [1.0]})])
        finally:
            client.config_set("maxmemory", "0")
        assert features.commit(0, rows(("a", 2, 2.0)), checkpoint(1))

    @pytest.mark.parametrize("value", ["", "x", "0000000000000001 {", '0000000000000001 {"age":1}'])
    def test_row_that_can_not_be_read_is_named(self, tables: Tables, prefix: str, value: str) -> None:
        features = tables.features(ROWS)
        features.commit(0, rows(("a", 1, 1.0)), checkpoint(0))
        self._server.client().hset(f"{prefix}:features", "a", value)
        with pytest.raises(ConfigurationError, match="features can't be read") as caught:
            features.get("a")
        assert caught.value.remedy

    def test_lookup_table_can_not_take_an_odd_name(self, tables: Tables) -> None:
        for name in ("features", "registry", "../x", ""):
            with pytest.raises(ConfigurationError, match="name"):
                tables.lookup(name)

    def test_column_that_can_not_be_stored_is_named(self, tables: Tables) -> None:
        with pytest.raises(ConfigurationError, match="'tags'"):
            tables.features(pa.schema([*ROWS, ("tags", pa.list_(pa.string()))]))


def test_client_is_imported_only_when_its_url_is_used() -> None:
    code = "import sys, modelstream.tables as tables; tables.open_tables(sys.argv[1]); print('redis' in sys.modules)"
    with tempfile.TemporaryDirectory() as folder:
        for url, expected in ((f"sqlite://{folder}", "False"), ("redis://127.0.0.1:1/0", "True")):
            run = subprocess.run([sys.executable, "-c", code, url], check=True, capture_output=True, text=True)
            assert run.stdout.strip() == expected
