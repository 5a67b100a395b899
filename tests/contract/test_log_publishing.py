"""Small commits become few files, and whoever reads the files meanwhile sees each row once."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from modelstream.errors import ConfigurationError, NumberTakenError, UnavailableError
from modelstream.logs import parquet, publish, publisher
from modelstream.logs.contract import WHOLE_ROWS
from modelstream.logs.file import FOOTER, LogFile
from modelstream.logs.parquet import ParquetLog
from modelstream.logs.publisher import Publisher
from modelstream.messages.identity import Checkpoint
from tests.contract.log_contract import SCHEMA, LogContract, checkpoint, deliver, positions, state, table


class PublishingLog(ParquetLog):
    """A log that is published after every append."""

    def append(self, shard: int, table: pa.Table, checkpoint: Checkpoint) -> None:
        super().append(shard, table, checkpoint)
        self.publish([shard])


class TestPublishedLogKeepsTheContract(LogContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path / "data" / "events"

    def open(self, place: Path, schema: pa.Schema = SCHEMA, epoch: int = 0) -> ParquetLog:
        return PublishingLog(place, schema, epoch)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "data" / "events"


@pytest.fixture
def log(place: Path) -> ParquetLog:
    return ParquetLog(place, SCHEMA, 0)


def parts(place: Path) -> list[str]:
    return sorted(path.name for path in (place.parent / ".events.writing").glob("*.part"))


def files(place: Path) -> list[str]:
    return sorted(path.name for path in place.glob("0*.parquet"))


def read(place: Path) -> list[int]:
    found: list[int] = pd.read_parquet(place)["position"].tolist()
    return found


def fill(log: ParquetLog, first: int, end: int, shard: int = 0) -> None:
    """Append a row for each offset from `first` up to `end`."""
    log.checkpoint(shard)
    for offset in range(first, end):
        after = checkpoint(offset, {("f", shard): offset}, events=offset + 1)
        log.append(shard, table(offset, shard=shard), after)


def test_rows_are_published_into_one_file_that_gets_longer(log: ParquetLog, place: Path) -> None:
    rows = []
    for round_ in range(5):
        fill(log, 3 * round_, 3 * round_ + 3)
        assert positions(log) == [*range(3 * round_ + 3)]
        assert log.waiting() == {(0, 0): (3, round_)}
        assert read(place) == [*range(3 * round_)]
        assert log.publish()
        assert (files(place), parts(place), log.waiting()) == (["00-00-00000000.parquet"], [], {})
        rows.append(read(place))
        assert positions(log) == rows[-1] == [*range(3 * round_ + 3)]
        assert log.count() == 3 * round_ + 3
        found = ParquetLog(place, SCHEMA, 0).checkpoint(0)
        assert state(found) == (3 * round_ + 2, {"f": {"0": 3 * round_ + 2}}, {"events": 3 * round_ + 3})
    assert pa.Table.from_batches(log.scan()).equals(table(*range(15)))
    assert log.publish(), "nothing is left to do"


def test_large_commits_are_files_at_once_after_what_waits(log: ParquetLog, place: Path) -> None:
    first = table(*range(WHOLE_ROWS))
    log.append(0, first, checkpoint(0))
    assert (len(files(place)), parts(place), len(read(place))) == (1, [], WHOLE_ROWS)
    log.append(0, table(WHOLE_ROWS), checkpoint(1))
    assert (len(files(place)), len(parts(place))) == (1, 1)
    log.append(0, table(*range(WHOLE_ROWS + 1, 2 * WHOLE_ROWS + 1)), checkpoint(2))
    assert (len(files(place)), parts(place)) == (2, [])
    assert read(place) == positions(log) == [*range(2 * WHOLE_ROWS + 1)]


def test_commit_without_rows_is_published(log: ParquetLog, place: Path) -> None:
    log.append(0, table(), checkpoint(1))
    assert log.publish()
    log.append(0, table(1), checkpoint(2))
    assert log.publish()
    log.append(0, table(), checkpoint(9, {("f", 0): 9}))
    assert log.publish()
    assert read(place) == positions(log) == [1]
    assert state(ParquetLog(place, SCHEMA, 0).checkpoint(0)) == (9, {"f": {"0": 9}}, {})


def test_after_counts_rows_wherever_they_are(log: ParquetLog) -> None:
    fill(log, 0, 4)
    known = log.row_counts()
    fill(log, 4, 7)
    assert positions(log, after=known) == [4, 5, 6]
    assert log.publish()
    fill(log, 7, 9)
    assert positions(log, after=known) == [4, 5, 6, 7, 8]
    assert positions(log, after=log.row_counts()) == []


def test_file_that_is_full_is_left_and_the_next_begins(
    log: ParquetLog, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "MOST_GROUPS", 3)
    for offset in range(7):
        fill(log, offset, offset + 1)
        log.publish()
    assert [pq.read_metadata(place / name).num_rows for name in files(place)] == [3, 3, 1]
    monkeypatch.setattr(parquet, "FULL_BYTES", 1000)
    fill(log, 7, 8)
    log.publish()
    assert len(files(place)) == 4
    assert read(place) == positions(log) == [*range(8)]


def test_rows_of_parts_are_taken_in_portions(log: ParquetLog, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "ROWS_AT_ONCE", 5)
    log.checkpoint(0)
    for offset in range(6):
        log.append(0, table(2 * offset, 2 * offset + 1), checkpoint(offset))
    assert log.publish()
    assert pq.read_metadata(place / files(place)[0]).num_row_groups == 3
    assert read(place) == [*range(12)]


def test_dataset_that_is_kept_finds_its_rows_when_the_file_got_longer(log: ParquetLog, place: Path) -> None:
    fill(log, 0, 50)
    log.publish()
    kept = ds.dataset(place, format="parquet")
    assert kept.to_table().num_rows == kept.count_rows() == 50
    held = pq.ParquetFile(place / files(place)[0])
    for first in range(50, 300, 50):
        fill(log, first, first + 50)
        log.publish()
        found = kept.to_table()["position"].to_pylist()
        assert found in ([*range(50)], [*range(first + 50)])
    assert held.read()["position"].to_pylist() == [*range(50)]
    held.close()


def test_bytes_of_rows_stay_where_they_were(log: ParquetLog, place: Path) -> None:
    fill(log, 0, 50)
    log.publish()
    path = place / files(place)[0]
    before, rows = path.read_bytes(), pq.read_metadata(path)
    end = len(before) - 8 - int.from_bytes(before[-8:-4], "little")
    fill(log, 50, 60)
    log.publish()
    assert path.read_bytes()[:end] == before[:end]
    after = pq.read_metadata(path)
    for column in range(rows.num_columns):
        old, new = (found.row_group(0).column(column) for found in (rows, after))
        assert old.to_dict() == new.to_dict()


# Several owners.


def test_late_owner_whose_number_is_free_again_is_late(log: ParquetLog, place: Path) -> None:
    late = ParquetLog(place, SCHEMA, 0)
    fill(log, 0, 2)
    late.checkpoint(0)
    fill(log, 2, 6)
    assert log.publish()
    with pytest.raises(NumberTakenError):
        late.append(0, table(100), checkpoint(2))
    assert parts(place) == []
    assert read(place) == positions(log) == [*range(6)]
    deliver(late, 0, [(offset, [offset]) for offset in range(2, 8)])
    assert positions(log) == [*range(8)]


def test_part_of_a_late_owner_that_was_killed_counts_nothing(
    log: ParquetLog, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = ParquetLog(place, SCHEMA, 0)
    fill(log, 0, 2)
    late.checkpoint(0)
    fill(log, 2, 6)
    assert log.publish()

    def killed(*_: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(late, "_commit_part", lambda *found: (ParquetLog._commit_part(late, *found), killed()))
        late.append(0, table(100), checkpoint(2))
    assert parts(place) == ["00-00-00000002.part"]
    assert positions(log) == [*range(6)]
    assert state(ParquetLog(place, SCHEMA, 0).checkpoint(0))[0] == 5
    fill(log, 6, 8)
    assert positions(log) == [*range(8)]
    assert log.publish()
    assert read(place) == [*range(8)]
    assert parts(place) == []


def test_publishing_by_one_is_left_alone_by_others(log: ParquetLog, place: Path) -> None:
    fill(log, 0, 2)
    with (place.parent / ".events.writing" / "00-00.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert not log.publish()
        log.append(0, table(*range(2, 2 + WHOLE_ROWS)), checkpoint(2))
        assert len(parts(place)) == 3
        assert read(place) == []
    assert log.publish()
    assert read(place) == positions(log) == [*range(2 + WHOLE_ROWS)]


def test_without_locks_no_file_is_replaced(log: ParquetLog, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refused)
    for offset in range(3):
        fill(log, offset, offset + 1)
        assert log.publish()
    assert len(files(place)) == 3
    assert read(place) == positions(log) == [0, 1, 2]


# Kills.


@contextmanager
def deadly(step: str, call: int, *, after: bool) -> Iterator[None]:
    """Kill this process at a call of an `os` function, before or after its effect."""
    original: Callable[..., Any] = getattr(os, step)
    calls = itertools.count(1)

    def called(*arguments: Any, **options: Any) -> Any:
        now = next(calls) == call
        if now and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(os, step, called)
    yield
    setattr(os, step, original)


def publish_and_die(place: Path, step: str, call: int, *, after: bool) -> None:
    log = ParquetLog(place, SCHEMA, 0)
    with deadly(step, call, after=after):
        log.publish()


LONGER = [("open", 2), ("fsync", 1), ("fsync", 2), ("replace", 1), ("fsync", 3), ("unlink", 2), ("unlink", 3)]
NEW = [("open", 2), ("pwrite", 1), ("fsync", 1), ("link", 1), ("fsync", 2), ("unlink", 1), ("unlink", 2)]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("first", "step", "call"), [*((2, *step) for step in LONGER), *((0, *step) for step in NEW)])
def test_killed_at_any_step_of_publishing_rows_are_there_once(
    log: ParquetLog, place: Path, first: int, step: str, call: int, after: bool
) -> None:
    fill(log, 0, first)
    log.publish()
    fill(log, first, first + 3)
    victim = get_context("fork").Process(target=publish_and_die, args=(place, step, call), kwargs={"after": after})
    victim.start()
    victim.join(30)
    assert victim.exitcode == -signal.SIGKILL, "there is such a step"
    everything = [*range(first + 3)]
    assert read(place) in ([*range(first)], everything)
    other = ParquetLog(place, SCHEMA, 0)
    assert positions(other) == everything
    assert other.count() == len(everything)
    assert state(other.checkpoint(0)) == (first + 2, {"f": {"0": first + 2}}, {"events": first + 3})
    fill(other, first + 3, first + 5)
    assert other.publish()
    assert read(place) == positions(other) == [*range(first + 5)]
    assert parts(place) == []


@pytest.mark.parametrize("step", ["open", "fsync", "replace", "unlink"])
def test_outage_while_publishing_leaves_all_rows(
    log: ParquetLog, place: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    fill(log, 0, 2)
    log.publish()
    fill(log, 2, 4)

    def failing(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, failing)
        with pytest.raises(UnavailableError, match="No space"):
            log.publish()
    assert positions(log) == [*range(4)]
    assert log.publish()
    assert read(place) == positions(log) == [*range(4)]


def write_until_killed(place: Path, shard: int) -> None:
    log = ParquetLog(place, SCHEMA, 0)
    stop = threading.Event()

    def publish_all() -> None:
        other = ParquetLog(place, SCHEMA, 0)
        while not stop.is_set():
            other.publish()

    threading.Thread(target=publish_all, daemon=True).start()
    first = max(0, log.checkpoint(shard).offset - 3)
    deliver(log, shard, ((offset, [2 * offset, 2 * offset + 1]) for offset in itertools.count(first)))


def test_reader_of_the_folder_sees_each_row_once_while_writers_publish_and_are_killed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "MOST_GROUPS", 5)
    choice = random.Random(3)
    log = ParquetLog(place, SCHEMA, 0)
    log.checkpoint(0)
    seen, reads, kept = [0, 0], 0, 0
    for round_ in range(6):
        start = get_context("fork").Process
        workers = [start(target=write_until_killed, args=(place, shard)) for shard in (0, 0, 1)]
        for worker in workers:
            worker.start()
        deadline, before = time.monotonic() + 60, log.count()
        enough = time.monotonic() + choice.random()
        while time.monotonic() < enough or kept <= before or reads < 4 * round_:
            assert time.monotonic() < deadline
            found = ds.dataset(place, format="parquet").to_table(columns=["shard", "position"])
            reads += 1
            for shard in (0, 1):
                rows = found.filter(pa.compute.field("shard") == shard)["position"].to_pylist()
                assert rows == [*range(len(rows))], "each row once, in order"
                assert len(rows) >= seen[shard], "no row goes"
                seen[shard] = len(rows)
            ours = positions(log, shards=[0])
            assert ours == [*range(len(ours))]
            kept = log.count()
            assert kept >= sum(seen)
        for worker in workers:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()
    assert reads >= 20
    assert log.publish()
    assert len(pd.read_parquet(place)) == log.count()
    assert log.checkpoint(0).offset * 2 + 2 == len(positions(log, shards=[0]))


# In the background.


def test_steady_traffic_leaves_few_files(log: ParquetLog, place: Path) -> None:
    background, hours, seconds_each = Publisher(ParquetLog(place, SCHEMA, 0)), 2, 12
    log.checkpoint(0)
    for offset in range(hours * 3600 // seconds_each):
        log.append(0, table(offset), checkpoint(offset))
        background.publish_due(now=float(offset * seconds_each))
        shown = sum(pq.read_metadata(place / name).num_rows for name in files(place))
        assert (offset + 1 - shown) * seconds_each <= publisher.WAIT_SECONDS + seconds_each
    assert len(files(place)) <= 4
    assert len(parts(place)) * seconds_each <= publisher.WAIT_SECONDS + seconds_each
    assert positions(log) == [*range(hours * 3600 // seconds_each)]


def test_rows_in_a_new_folder_are_published_within_seconds(log: ParquetLog, place: Path) -> None:
    background = Publisher(ParquetLog(place, SCHEMA, 0))
    fill(log, 0, 1)
    background.publish_due(now=100.0)
    assert read(place) == []
    background.publish_due(now=100.0 + publisher.FIRST_WAIT_SECONDS)
    assert read(place) == [0]


def test_many_parts_do_not_wait(log: ParquetLog, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "MANY_PARTS", 5)
    background = Publisher(ParquetLog(place, SCHEMA, 0))
    fill(log, 0, 5)
    background.publish_due(now=0.0)
    assert read(place) == [*range(5)]


def test_publisher_publishes_what_was_left_and_what_comes(
    log: ParquetLog, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "FIRST_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(publisher, "LOOK_SECONDS", 0.01)
    fill(log, 0, 3)
    background = Publisher(ParquetLog(place, SCHEMA, 0))
    background.start()
    deadline = time.monotonic() + 30
    for end in (3, 5):
        fill(log, max(0, end - 2) if end > 3 else 3, end)
        while read(place) != [*range(end)]:
            assert time.monotonic() < deadline
    background.stop()
    assert not background.is_alive()


# Versions and damage.


def test_folder_of_the_version_before_goes_on(log: ParquetLog, place: Path) -> None:
    for offset in range(3):
        log.append(0, table(*range(offset * WHOLE_ROWS, (offset + 1) * WHOLE_ROWS)), checkpoint(offset))
    for name in [*files(place), "schema.parquet"]:
        stored = pq.read_table(place / name)
        footer = msgspec.json.decode(stored.schema.metadata[FOOTER]) | {"version": 1}
        for added in ("commits", "groups"):
            footer.pop(added)
        pq.write_table(stored.replace_schema_metadata({FOOTER: msgspec.json.encode(footer)}), place / name)
    again = ParquetLog(place, SCHEMA, 0)
    assert again.checkpoint(0).offset == 2
    again.append(0, table(3 * WHOLE_ROWS), checkpoint(3))
    assert again.publish()
    assert (len(files(place)), parts(place)) == (3, [])
    assert read(place) == positions(again) == [*range(3 * WHOLE_ROWS + 1)]


def test_part_that_is_missing_is_named(log: ParquetLog, place: Path) -> None:
    fill(log, 0, 3)
    (place.parent / ".events.writing" / "00-00-00000001.part").unlink()
    for action in (lambda: log.checkpoint(0), lambda: list(log.scan()), log.count, log.publish):
        with pytest.raises(ConfigurationError, match=r"00-00-00000001.part of .* is missing") as caught:
            action()
        assert caught.value.remedy


def test_broken_part_is_named(log: ParquetLog, place: Path) -> None:
    fill(log, 0, 1)
    path = place.parent / ".events.writing" / parts(place)[0]
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ConfigurationError, match=r"00-00-00000000.part can't be read"):
        list(log.scan())


def test_parts_of_an_earlier_epoch_are_published_and_their_watermarks_inherited(log: ParquetLog, place: Path) -> None:
    fill(log, 0, 3)
    after = ParquetLog(place, SCHEMA, 1)
    assert state(after.checkpoint(0)) == (-1, {"f": {"0": 2}}, {})
    after.append(0, table(7), checkpoint(0))
    assert after.publish()
    assert files(place) == [LogFile(0, 0, 0).name, LogFile(1, 0, 0).name]
    assert read(place) == positions(after) == [0, 1, 2, 7]


def test_removed_log_leaves_nothing(log: ParquetLog, place: Path) -> None:
    fill(log, 0, 3)
    log.publish()
    fill(log, 3, 4)
    log.remove()
    assert list(place.parent.iterdir()) == []
