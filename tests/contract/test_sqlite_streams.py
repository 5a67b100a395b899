"""Streams in a folder keep the contract, survive kills and full disks, and refuse what they can't read."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelstream.clients import sqlite as sqlite_files
from modelstream.errors import ConfigurationError, GoneError, UnavailableError
from modelstream.messages.codec import encode
from modelstream.streams import Streams, open_streams
from modelstream.streams import body_files as body_files_module
from modelstream.streams import sqlite as sqlite_streams
from modelstream.streams.sqlite import SqliteStreams
from tests.contract.streams_contract import FOREVER, MEGABYTE, StreamsContract, read_all

LARGE = 200_000


def body_of(number: int) -> bytes:
    """Return a body that its number tells; every third goes to a body file."""
    return b"%d:" % number + bytes([number % 251]) * (LARGE + number if number % 3 == 0 else number % 100)


def append_until_killed(url: str, confirmed: Any) -> None:
    with open_streams(url) as streams:
        number = streams.range("events", 0)[1]
        while True:
            assert streams.append("events", [(0, body_of(number)), (1, body_of(number))]) == [number, number]
            confirmed.send(number)
            number += 1


def read_beside(url: str, shard: int) -> int:
    with open_streams(url) as streams:
        return streams.range("events", shard)[1]


class TestSqliteStreams(StreamsContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return self.url_in(str(tmp_path))

    def url_in(self, folder: str) -> str:
        return f"sqlite://{folder}/streams"

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "streams"

    def test_killed_writer_leaves_all_it_confirmed_and_whole_messages(self, streams: Streams, url: str) -> None:
        choice = random.Random(1)
        last = -1
        for _ in range(12):
            parent, child = get_context("fork").Pipe(duplex=False)
            writer = get_context("fork").Process(target=append_until_killed, args=(url, child))
            writer.start()
            child.close()
            assert parent.poll(30)
            time.sleep(choice.random() * 0.05)
            assert writer.pid is not None
            os.kill(writer.pid, signal.SIGKILL)
            writer.join()
            while True:
                try:
                    last = parent.recv()
                except EOFError:
                    break
            ends = {streams.range("events", shard)[1] for shard in (0, 1)}
            assert len(ends) == 1, "an append was half done"
            assert ends.pop() - 1 in (last, last + 1)
        assert last > 20
        for shard in (0, 1):
            for number, message in enumerate(read_all(streams, shard)):
                assert message.body == body_of(number)

    def test_bodies_are_synced_before_their_rows_are_committed(
        self, streams: Streams, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []
        sync = os.fdatasync

        def observed(descriptor: int) -> None:
            seen.append(read_beside(url, 0))
            sync(descriptor)

        monkeypatch.setattr(os, "fdatasync", observed)
        streams.append("events", [(0, bytes(LARGE))])
        assert seen == [0]
        assert read_beside(url, 0) == 1

    def test_name_of_a_new_body_file_is_synced(self, streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
        synced: list[Path] = []
        monkeypatch.setattr(body_files_module, "FILE_BYTES", 2 * LARGE)
        monkeypatch.setattr(body_files_module, "sync_folder", synced.append)
        counts = []
        for _ in range(4):
            streams.append("events", [(0, bytes(LARGE))])
            counts.append(len(synced))
        assert counts == [1, 1, 2, 2]

    def test_commits_are_safe_against_power_loss(self, streams: Streams) -> None:
        assert isinstance(streams, SqliteStreams)
        writer = streams._open("events").writer.connection
        assert writer.execute("PRAGMA synchronous").fetchone() == (2,)
        assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    @pytest.mark.parametrize("failing", ["fdatasync", "pwrite"])
    def test_full_disk_holds_the_append_and_mends(
        self, streams: Streams, monkeypatch: pytest.MonkeyPatch, failing: str
    ) -> None:
        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        streams.append("events", [(0, bytes(LARGE))])
        with monkeypatch.context() as patch:
            patch.setattr(os, failing, full)
            with pytest.raises(UnavailableError, match="No space left") as caught:
                streams.append("events", [(0, b"lost" * LARGE), (1, b"lost")])
            assert caught.value.remedy
        assert streams.append("events", [(0, b"l" * LARGE), (1, b"s")]) == [1, 0]
        assert [m.body for m in read_all(streams, 0)] == [bytes(LARGE), b"l" * LARGE]

    def test_full_database_holds_the_append_and_mends(self, streams: Streams) -> None:
        assert isinstance(streams, SqliteStreams)
        writer = streams._open("events").writer.connection
        (pages,) = writer.execute("PRAGMA page_count").fetchone()
        writer.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(UnavailableError, match="full"):
            for _ in range(100):
                streams.append("events", [(0, bytes(10_000)), (1, b"with it")])
        writer.execute("PRAGMA max_page_count=1000000")
        end = streams.append("events", [(0, b"after"), (1, b"after")])
        assert end[0] == end[1]
        assert read_all(streams, 0)[-1].body == b"after"

    def test_locked_file_is_an_outage_that_ends(
        self, streams: Streams, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_files, "LOCK_WAIT_SECONDS", 0.05)
        streams.append("events", [(0, b"before")])
        holder = sqlite3.connect(folder / "events.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError, match="locked"):
            streams.append("events", [(0, b"held")])
        assert [m.body for m in read_all(streams, 0)] == [b"before"], "reading must not wait for a writer"
        holder.execute("ROLLBACK")
        holder.close()
        assert streams.append("events", [(0, b"after")]) == [1]

    def test_reading_a_backlog_leaves_the_log_free_to_be_cut(self, streams: Streams, folder: Path) -> None:
        for _ in range(50):
            streams.append("events", [(0, bytes(1000))] * 20)
        assert len(streams.read("events", 0, 0, 5, MEGABYTE)) == 5
        assert len(streams.read("events", 0, 0, 1000, 5000)) == 5
        beside = sqlite3.connect(folder / "events.db", isolation_level=None)
        busy, _, _ = beside.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        beside.close()
        assert not busy
        assert (folder / "events.db-wal").stat().st_size == 0

    def test_bytes_of_an_append_that_failed_are_written_over(
        self, streams: Streams, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(_: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        for _ in range(3):
            with monkeypatch.context() as patch:
                patch.setattr(os, "fdatasync", fail)
                with pytest.raises(UnavailableError):
                    streams.append("events", [(0, b"x" * LARGE)])
            streams.append("events", [(0, b"y" * LARGE)])
        assert [m.body for m in read_all(streams, 0)] == [b"y" * LARGE] * 3
        assert sum(path.stat().st_size for path in folder.glob("*.bodies")) == 3 * LARGE

    def test_trim_deletes_body_files_that_nothing_points_at(
        self, streams: Streams, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(body_files_module, "FILE_BYTES", LARGE)
        for number in range(6):
            streams.append("events", [(number % 2, bytes([number]) * LARGE)])
        assert len(list(folder.glob("*.bodies"))) == 6
        streams.ack("handler", "events", {0: 2})
        streams.trim("events", ["handler"], FOREVER)
        assert [path.name for path in sorted(folder.glob("*.bodies"))] == [
            f"events.{number:06d}.bodies" for number in (1, 2, 3, 4, 5)
        ], "the first file left holds a message of shard 1"
        streams.ack("handler", "events", {1: 2})
        streams.trim("events", ["handler"], FOREVER)
        assert [path.name for path in folder.glob("*.bodies")] == ["events.000005.bodies"]
        streams.append("events", [(0, b"z" * LARGE)])
        assert [m.body for m in read_all(streams, 0)] == [b"z" * LARGE]

    def test_trim_keeps_a_body_file_until_its_last_message_goes(
        self, streams: Streams, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(body_files_module, "FILE_BYTES", 2 * LARGE)
        for number in range(4):
            streams.append("events", [(0, bytes([number]) * LARGE)])
        for upto, files in ((0, 2), (1, 1)):
            streams.ack("handler", "events", {0: upto})
            streams.trim("events", ["handler"], FOREVER)
            assert len(list(folder.glob("*.bodies"))) == files
            assert [m.body[0] for m in read_all(streams, 0)] == list(range(upto + 1, 4))

    def test_trim_of_many_messages_goes_in_pieces(self, streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite_streams, "TRIM_AT_ONCE", 7)
        streams.append("events", [(0, b"%d" % number) for number in range(40)])
        streams.ack("handler", "events", {0: 35})
        assert streams.trim("events", ["handler"], FOREVER) == 36
        assert [m.body for m in read_all(streams, 0)] == [b"36", b"37", b"38", b"39"]

    def test_reader_that_a_trim_overtakes_goes_on_with_what_is_left(
        self, streams: Streams, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(body_files_module, "FILE_BYTES", LARGE)
        streams.append("events", [(0, b"a" * LARGE)])
        streams.append("events", [(0, b"b" * LARGE)])
        streams.ack("handler", "events", {0: 0})
        read_rows = sqlite_streams._rows

        def overtaken(*arguments: Any) -> Any:
            rows = read_rows(*arguments)
            with open_streams(url) as others:
                others.trim("events", ["handler"], FOREVER)
            return rows

        monkeypatch.setattr(sqlite_streams, "_rows", overtaken)
        with open_streams(url) as reader:
            assert [m.body[:1] for m in reader.read("events", 0, 0, 10, MEGABYTE)] == [b"b"]

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (lambda folder: (folder / "events.000000.bodies").unlink(), "missing"),
            (lambda folder: os.truncate(folder / "events.000000.bodies", 10), "cut short"),
        ],
    )
    def test_damaged_body_file_is_named(
        self, streams: Streams, url: str, folder: Path, damage: Callable[[Path], None], said: str
    ) -> None:
        streams.append("events", [(0, bytes(LARGE))])
        damage(folder)
        with open_streams(url) as others, pytest.raises(ConfigurationError, match=said) as caught:
            others.read("events", 0, 0, 10, MEGABYTE)
        assert "events.000000.bodies" in str(caught.value)
        assert caught.value.remedy

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "not a stream"),
            (b"no database at all" * 100, "broken"),
            ("PRAGMA user_version=3", "version 3"),
            ("PRAGMA application_id=7", "not a stream"),
        ],
    )
    def test_file_that_is_no_stream_of_ours_is_refused(
        self, url: str, folder: Path, content: bytes | str, said: str
    ) -> None:
        with open_streams(url) as streams:
            streams.create("events", 1)
        if isinstance(content, str):
            connection = sqlite3.connect(folder / "events.db")
            connection.execute(content)
            connection.close()
        else:
            (folder / "events.db").write_bytes(content)
        with open_streams(url) as streams:
            for action in (lambda: streams.range("events", 0), lambda: streams.create("events", 1)):
                with pytest.raises(ConfigurationError, match=said) as caught:
                    action()
                assert str(folder / "events.db") in str(caught.value)
                assert caught.value.remedy

    def test_stream_of_an_earlier_checkout_goes_on_and_its_rows_are_estimated(self, url: str, folder: Path) -> None:
        three = encode("vectors", "a", pa.record_batch({"position": [0, 1, 2]}))
        with open_streams(url) as streams:
            streams.create("events", 2)
            streams.append("events", [(1, three)] * 2)
        connection = sqlite3.connect(folder / "events.db")
        for shard in range(2):
            for column in ("rows", "rows_before"):
                connection.execute(f"ALTER TABLE messages_{shard} DROP COLUMN {column}")
        connection.execute("PRAGMA user_version=1")
        connection.close()
        with open_streams(url) as streams:
            assert streams.append("events", [(1, b"{}"), (0, b"{}")]) == [2, 0]
            assert [message.body for message in streams.read("events", 1, 0, 9, MEGABYTE)] == [three, three, b"{}"]
            assert streams.rows("events", {1: (0, 3), 0: (0, 1)}) == 4 * 3, "all are taken to be like the first"
            assert not streams.counts_rows

    @given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 5)), min_size=1, max_size=12), st.data())
    @settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    def test_rows_are_counted_message_by_message_also_after_a_trim(
        self, sent: list[tuple[int, int]], data: st.DataObject
    ) -> None:
        with tempfile.TemporaryDirectory() as folder, open_streams(f"sqlite://{folder}") as streams:
            streams.create("events", 2)
            of_shard: list[list[int]] = [[], []]
            for shard, rows in sent:
                streams.append("events", [(shard, b"\n".join([b"{}"] * rows))])
                of_shard[shard].append(rows)
                if data.draw(st.booleans()):
                    streams.ack("g", "events", {shard: data.draw(st.integers(0, len(of_shard[shard]) - 1))})
                    streams.trim("events", ["g"], FOREVER)
            for shard, (first, end) in streams.ranges("events").items():
                for start in range(first, end + 1):
                    assert streams.rows("events", {shard: (start, end)}) == sum(of_shard[shard][start:end])
            assert streams.counts_rows

    def test_forked_process_opens_its_own_connections(self, streams: Streams) -> None:
        assert isinstance(streams, SqliteStreams)
        file = streams._open("events").writer
        of_parent = file.connection

        def in_child() -> None:
            assert file.connection is not of_parent
            file.close()
            assert file.connection.execute("SELECT shards FROM stream").fetchone()

        child = get_context("fork").Process(target=in_child)
        child.start()
        child.join(30)
        assert child.exitcode == 0
        assert file.connection is of_parent

    def test_processes_that_create_together_make_one_stream(self, url: str, folder: Path) -> None:
        creators = [get_context("fork").Process(target=create_and_append, args=(url,)) for _ in range(6)]
        for creator in creators:
            creator.start()
        for creator in creators:
            creator.join(60)
        assert [creator.exitcode for creator in creators] == [0] * 6
        with open_streams(url) as streams:
            assert streams.range("events", 0) == (0, 6)
        assert not list(folder.glob(".new-*"))

    def test_url_without_a_known_scheme_is_refused(self) -> None:
        for url in ("", "sqlite://", "/data/streams", "mysql://x"):
            with pytest.raises(ConfigurationError) as caught:
                open_streams(url)
            assert caught.value.remedy


def create_and_append(url: str) -> None:
    with open_streams(url) as streams:
        streams.create("events", 1)
        streams.append("events", [(0, b"here")])


FILES_OF_AN_APPEND = ("events.db", "events.db-wal", "events.db-shm", "events.000000.bodies")


@pytest.mark.parametrize("name", ["", *FILES_OF_AN_APPEND])
def test_an_append_to_files_that_are_gone_is_refused_at_once(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "streams"
    with SqliteStreams(folder) as streams:
        streams.create("events", shards=1)
        streams.append("events", [(0, bytes(LARGE))])
        copy = shutil.copytree(folder, tmp_path / "copy")
        if name:
            (folder / name).unlink()
        else:  # a whole folder that looks the same
            shutil.rmtree(folder)
            copy.rename(folder)
        with pytest.raises(GoneError, match=f"{name or 'events.db'} was deleted"):
            streams.append("events", [(0, bytes(LARGE))])
        if name != "events.000000.bodies":
            with pytest.raises(GoneError, match="was deleted"):
                streams.version("events")
    if not name:
        assert read_beside(f"sqlite://{folder}", 0) == 1


def test_an_acknowledgement_in_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    with SqliteStreams(tmp_path) as streams:
        streams.create("events", shards=1)
        streams.ack("readers", "events", {0: 5})
        (tmp_path / "offsets.db").unlink()
        with pytest.raises(GoneError, match=r"offsets\.db was deleted"):
            streams.ack("readers", "events", {0: 6})


def test_a_file_that_is_deleted_during_a_commit_is_noticed_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that is deleted during the transaction gets no commit: it may only have been moved."""
    path = tmp_path / "events.db"
    with SqliteStreams(tmp_path) as streams:
        streams.create("events", shards=1)
        for looked, stored in ((4, 0), (5, 1)):  # at the first use; before the commit; after it
            looks = itertools.count(1)

            def look(connection: sqlite_files.Connection, looks: Any = looks, looked: int = looked) -> None:
                if next(looks) == looked:
                    raise GoneError(path)

            with monkeypatch.context() as patch, pytest.raises(GoneError):
                patch.setattr(sqlite_files.Connection, "check_there", look)
                streams.append("events", [(0, b"one")])
            assert streams.range("events", 0)[1] == stored
