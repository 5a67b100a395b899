"""Small commits become few files, and whoever reads the files meanwhile sees each row once."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
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
from modelstream.logs import contract, parquet, publish, publisher
from modelstream.logs.contract import WHOLE_ROWS
from modelstream.logs.file import FOOTER, Footer, LogFile
from modelstream.logs.parquet import ParquetLog
from modelstream.logs.part import encode_part
from modelstream.logs.publish import Waiting
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

    def open(self, place: Path, schema: pa.Schema = SCHEMA, epoch: int = 0, definition: str = "") -> ParquetLog:
        return PublishingLog(place, schema, epoch, definition)


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
        assert log.waiting() == {(0, 0): Waiting(3, min(round_, 1) - 1, round_)}
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


def test_rows_of_a_file_stay_where_they_were_when_it_gets_longer(log: ParquetLog, place: Path) -> None:
    fill(log, 0, 50)
    log.publish()
    path = place / files(place)[0]
    for first in range(50, 200, 10):
        before, old = path.read_bytes(), pq.read_metadata(path)
        fill(log, first, first + 10)
        log.publish()
        after, new = path.read_bytes(), pq.read_metadata(path)
        assert after.startswith(before), "for a reader that looked at its size before it opens it"
        groups = [[found.row_group(group).to_dict() for group in range(found.num_row_groups)] for found in (old, new)]
        assert groups[1][:-1] == groups[0]


def test_file_is_larger_each_time_that_it_gets_rows_even_none(log: ParquetLog, place: Path) -> None:
    """By its size other processes see that it was replaced."""
    fill(log, 0, 1)
    log.publish()
    late, size = ParquetLog(place, SCHEMA, 0), 0
    late.checkpoint(0)
    for _ in range(9):
        assert size < (size := (place / files(place)[0]).stat().st_size)
        log.append(0, table(), checkpoint(0, {("f", 0): 0}, events=1))
        log.publish()
    with pytest.raises(NumberTakenError):
        late.append(0, table(100), checkpoint(1))


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

    def killed(*found: Any) -> None:
        ParquetLog._commit_part(late, *found)
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(late, "_commit_part", killed)
        late.append(0, table(100), checkpoint(2))
    assert parts(place) == ["00-00-00000002.part"]
    assert positions(log) == [*range(6)]
    assert state(ParquetLog(place, SCHEMA, 0).checkpoint(0))[0] == 5
    fill(log, 6, 8)
    assert positions(log) == [*range(8)]
    assert log.publish()
    assert read(place) == [*range(8)]
    assert parts(place) == []


def test_part_whose_name_a_late_owner_takes_while_it_is_read_counts_nothing(log: ParquetLog, place: Path) -> None:
    """What was committed under that number is in a file by then, so the reader looks again."""

    class Reader(ParquetLog):
        def _read_part(self, name: str) -> pa.Buffer | None:
            if late not in overtaken:
                overtaken.append(late)
                assert log.publish()
                ParquetLog._commit_part(late, name, encode_part(table(100), footer))
            return super()._read_part(name)

    late, overtaken = ParquetLog(place, SCHEMA, 0), list[ParquetLog]()
    for first, call in enumerate((positions, ParquetLog.row_counts, lambda reader: state(reader.checkpoint(0)))):
        overtaken.clear()
        fill(log, first, first + 1)
        rows = first + 1
        footer = Footer(epoch=0, shard=0, number=-1, commits=rows, rows=100, offset=100, watermarks={}, counters={})
        found = call(Reader(place, SCHEMA, 0))  # type: ignore[operator]
        assert overtaken
        assert found == call(log)  # type: ignore[operator]
        assert positions(log) == [*range(rows)]


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


def test_where_other_machines_write_too_no_file_is_replaced(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(ParquetLog(place, SCHEMA, 0), 0, 3)  # on a disk of this machine
    monkeypatch.setattr(parquet, "shared", lambda _: True)
    log, late = ParquetLog(place, SCHEMA, 0), ParquetLog(place, SCHEMA, 0)
    assert positions(log) == [0, 1, 2]
    assert log.checkpoint(0).offset == late.checkpoint(0).offset == 2
    assert (len(files(place)), parts(place)) == (1, []), "what was left there is published"
    for offset in range(3, 6):
        fill(log, offset, offset + 1)
        assert read(place) == positions(log) == [*range(offset + 1)]
    assert (len(files(place)), parts(place)) == (4, [])
    with pytest.raises(NumberTakenError):
        late.append(0, table(100), checkpoint(3))
    deliver(late, 0, [(offset, [offset]) for offset in range(3, 8)])
    assert read(place) == [*range(8)]
    monkeypatch.setattr(parquet, "shared", lambda _: False)
    again = ParquetLog(place, SCHEMA, 0)
    fill(again, 8, 10)
    assert again.publish()
    assert read(place) == positions(again) == [*range(10)]


# Kills.


STEPS = ("open", "pwrite", "fsync", "link", "replace", "unlink")


def die_after(call: int) -> None:
    """Kill this process after a call of any of these functions of `os`."""
    calls = itertools.count()

    def deadly(original: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            result = original(*arguments, **options)
            if next(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return called

    for step in STEPS:
        setattr(os, step, deadly(getattr(os, step)))


def work(place: Path, done: Callable[[int], object] = lambda _: None) -> None:
    """Append and publish in every way; tell how many rows were appended after each append."""
    log = ParquetLog(place, SCHEMA, 0)
    for offset, (rows, publish_after) in enumerate(WORK):
        start = sum(each for each, _ in WORK[:offset])
        if offset > log.checkpoint(0).offset:
            log.append(0, table(*range(start, start + rows)), checkpoint(offset, {("f", 0): offset}))
            done(start + rows)
        if publish_after:
            log.publish()


LARGE = 50
WORK = [(2, False), (1, True), (3, False), (0, False), (1, True), (LARGE, False), (1, False), (LARGE, True)]
"""Rows, and whether they are published then: into a new file, a longer one, and files of their own with some before."""
ALL_ROWS = sum(rows for rows, _ in WORK)


def work_and_die(place: Path, call: int, seen: Path) -> None:
    die_after(call)
    with seen.open("wb", buffering=0) as file:
        work(place, lambda rows: file.write(f"{rows:8}".encode()))


def test_killed_after_any_step_rows_are_there_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "WHOLE_ROWS", LARGE)
    for call in itertools.count():
        place, seen = tmp_path / f"{call}" / "events", tmp_path / f"{call}" / "seen"
        ParquetLog(place, SCHEMA, 0).checkpoint(0)
        victim = get_context("fork").Process(target=work_and_die, args=(place, call, seen))
        victim.start()
        victim.join(60)
        if victim.exitcode == 0:
            assert call > 60, "there are that many steps"
            break
        assert victim.exitcode == -signal.SIGKILL
        check_and_go_on(place, int(seen.read_text()[-8:].strip() or 0))
        shutil.rmtree(place.parent)


def check_and_go_on(place: Path, appended: int) -> None:
    """Check that a log has the rows whose append has returned, each once, and takes the others."""
    shown = read(place)
    assert shown == [*range(len(shown))]
    log = ParquetLog(place, SCHEMA, 0)
    ours = positions(log)
    assert ours == [*range(len(ours))]
    assert log.count() == len(ours) >= max(appended, len(shown))
    assert len(ours) == sum(rows for rows, _ in WORK[: log.checkpoint(0).offset + 1])
    work(place)
    assert log.publish()
    assert read(place) == positions(log) == [*range(ALL_ROWS)]
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


def test_dataset_of_files_that_were_listed_before_is_whole(
    log: ParquetLog, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who lists files, and opens them after they got longer and others came, has the first rows without a gap."""
    monkeypatch.setattr(publish, "MOST_GROUPS", 3)
    fill(log, 0, 10)
    log.publish()
    for first in range(10, 100, 10):
        before = ds.dataset(place, format="parquet")
        for offset in range(first, first + 10, 2):
            fill(log, offset, offset + 2)
            log.publish()
        found = before.to_table()["position"].to_pylist()
        assert found == [*range(len(found))]
        assert len(found) >= first


# In the background.


def test_steady_traffic_leaves_few_files(log: ParquetLog, place: Path) -> None:
    background, hours, seconds_each = Publisher(ParquetLog(place, SCHEMA, 0)), 2, 12
    log.checkpoint(0)
    for offset in range(hours * 3600 // seconds_each):
        log.append(0, table(offset), checkpoint(offset))
        background.publish_due(now=float(offset * seconds_each))
        shown = sum(pq.read_metadata(place / name).num_rows for name in files(place))
        assert (offset + 1 - shown) * seconds_each <= publisher.WAIT_SECONDS + seconds_each
    assert len(files(place)) <= 6
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
