"""A log in a folder keeps the contract, and is whole and exact for every reader after a kill at any step."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import signal
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

from modelstream.errors import ConfigurationError, GoneError, NumberTakenError, UnavailableError
from modelstream.logs.contract import WHOLE_ROWS
from modelstream.logs.file import FOOTER, VERSION, Footer, LogFile
from modelstream.logs.parquet import ABANDONED_SECONDS, ParquetLog
from tests.contract.log_contract import SCHEMA, LogContract, checkpoint, deliver, positions, state, table


def hidden_files(folder: Path) -> list[Path]:
    """Return the files that are half written, or abandoned."""
    return [
        path
        for path in (folder.parent / f".{folder.name}.writing").iterdir()
        if not LogFile.of_part(path.name) and path.suffix != ".lock"
    ]


def published(folder: Path) -> pd.DataFrame:
    """Publish what waits, and return all rows as any program reads them."""
    log = ParquetLog(folder, SCHEMA, 0)
    assert log.publish()
    assert not log.waiting()
    return pd.read_parquet(folder)


def large(offset: int) -> pa.Table:
    """Return rows that become a file by themselves."""
    return table(*range(offset * WHOLE_ROWS, (offset + 1) * WHOLE_ROWS))


def append_and_die(folder: Path, step: str, call: int, *, after: bool) -> None:
    """Append a second file, and get killed (SIGKILL) at a call of an `os` function, before or after its effect."""
    log = ParquetLog(folder, SCHEMA, 0)
    known = log.checkpoint(0)
    original: Callable[..., Any] = getattr(os, step)
    calls = 0

    def deadly(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(os, step, deadly)
    known.offset, known.counters = 1, {"events": 4}
    known.watermarks.set("f", 0, 3)
    log.append(0, table(2, 3), known)


def deliver_until_killed(folder: Path) -> None:
    log = ParquetLog(folder, SCHEMA, 0)
    first = max(0, log.checkpoint(0).offset - 3)  # some messages come again
    deliver(log, 0, ((offset, [2 * offset, 2 * offset + 1]) for offset in itertools.count(first)))


class TestLogInAFolder(LogContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path / "data" / "events"

    def open(self, place: Path, schema: pa.Schema = SCHEMA, epoch: int = 0, definition: str = "") -> ParquetLog:
        return ParquetLog(place, schema, epoch, definition)

    # Readers.

    def test_any_reader_reads_the_folder(self, log: ParquetLog, place: Path) -> None:
        log.append(1, table(3, shard=1), checkpoint(0))
        log.append(0, table(0, 1), checkpoint(0))
        log.append(0, table(2), checkpoint(1))
        frame = published(place)
        assert frame["position"].tolist() == [0, 1, 2, 3]
        assert frame["label"].tolist() == [0, 1, 0, 1]
        assert ds.dataset(place, format="parquet").to_table().equals(pa.Table.from_batches(log.scan()))

    def test_log_without_rows_reads_as_a_table_with_its_columns(self, log: ParquetLog, place: Path) -> None:
        log.checkpoint(0)
        frame = pd.read_parquet(place)
        assert list(frame.columns) == SCHEMA.names
        assert len(frame) == 0
        assert str(frame["at"].dtype) == "datetime64[us, UTC]"

    def test_only_whole_files_stand_in_the_folder(
        self, log: ParquetLog, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log.append(0, table(0), checkpoint(0))
        assert log.publish()
        seen = []
        sync = os.fsync

        def observed(descriptor: int) -> None:
            seen.append((sorted(path.name for path in place.iterdir()), len(pd.read_parquet(place))))
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", observed)
        log.append(0, table(1, 2), checkpoint(1))
        assert log.publish()
        names = ["00-00-00000000.parquet", "schema.parquet"]
        assert {len(files) for files, _ in seen} == {2}
        assert [rows for _, rows in seen] == [1] * (len(seen) - 1) + [3]
        assert seen[-1][0] == names

    # Kills and faults.

    @pytest.mark.parametrize("after", [False, True])
    @pytest.mark.parametrize(
        ("step", "call"), [("open", 1), ("pwrite", 1), ("fsync", 1), ("link", 1), ("fsync", 2), ("unlink", 1)]
    )
    def test_killed_at_any_step_the_log_has_the_rows_and_their_checkpoint_or_neither(
        self, log: ParquetLog, place: Path, step: str, call: int, after: bool
    ) -> None:
        log.append(0, table(0, 1), checkpoint(0, {("f", 0): 1}, events=2))
        victim = get_context("fork").Process(target=append_and_die, args=(place, step, call), kwargs={"after": after})
        victim.start()
        victim.join(30)
        assert victim.exitcode == -signal.SIGKILL
        found = state(ParquetLog(place, SCHEMA, 0).checkpoint(0))
        before, done = (0, {"f": {"0": 1}}, {"events": 2}), (1, {"f": {"0": 3}}, {"events": 4})
        linked = (step, call, after) in {("link", 1, True)} or step == "unlink" or (step, call) == ("fsync", 2)
        assert found == (done if linked else before)
        assert positions(log) == ([0, 1, 2, 3] if linked else [0, 1])
        assert published(place)["position"].tolist() == positions(log)
        deliver(ParquetLog(place, SCHEMA, 0), 0, [(0, [0, 1]), (1, [2, 3]), (2, [4])])
        assert positions(log) == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
    @pytest.mark.parametrize(
        ("step", "call"), [("open", 1), ("pwrite", 1), ("fsync", 1), ("link", 1), ("open", 2), ("fsync", 2)]
    )
    def test_failing_disk_is_an_outage_and_the_same_call_mends_it(
        self, log: ParquetLog, place: Path, monkeypatch: pytest.MonkeyPatch, step: str, call: int, code: int
    ) -> None:
        log.append(0, table(0, 1), checkpoint(0, {("f", 0): 1}))
        original = getattr(os, step)
        calls = 0

        def failing(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                raise OSError(code, os.strerror(code))
            return original(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, step, failing)
            with pytest.raises(UnavailableError) as caught:
                log.append(0, table(2, 3), checkpoint(1, {("f", 0): 3}))
        assert os.strerror(code) in str(caught.value)
        assert caught.value.remedy
        assert hidden_files(place) == []
        deliver(log, 0, [(1, [2, 3])])
        assert positions(log) == [0, 1, 2, 3]
        assert state(log.checkpoint(0))[0] == 1

    def test_disk_that_takes_a_part_gets_the_rest(self, log: ParquetLog, monkeypatch: pytest.MonkeyPatch) -> None:
        write = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda file, view, at: write(file, view[:1000], at))
        log.append(0, table(*range(5000)), checkpoint(0))
        assert positions(log) == list(range(5000))

    def test_content_and_number_are_synced_in_this_order(
        self, log: ParquetLog, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log.checkpoint(0)
        done = []
        sync, link = os.fsync, os.link

        def synced(descriptor: int) -> None:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            done.append(
                "folder" if path == place.parent / ".events.writing" else f"content of {path.stat().st_size > 0}"
            )
            sync(descriptor)

        def linked(source: Any, target: Any) -> None:
            done.append("number")
            link(source, target)

        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "link", linked)
        log.append(0, table(0), checkpoint(0))
        assert done == ["content of True", "number", "folder"]

    def test_what_a_killed_process_linked_is_synced_before_it_counts(
        self, log: ParquetLog, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log.append(0, table(0), checkpoint(0))
        synced = []
        sync = os.fsync

        def observed(descriptor: int) -> None:
            synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", observed)
        assert ParquetLog(place, SCHEMA, 0).checkpoint(0).offset == 0
        assert synced == [place.parent / ".events.writing", place]

    def test_killed_at_random_moments_every_row_is_there_once(self, place: Path) -> None:
        choice = random.Random(2)
        log = ParquetLog(place, SCHEMA, 0)
        for _ in range(8):
            workers = [get_context("fork").Process(target=deliver_until_killed, args=(place,)) for _ in range(2)]
            before, deadline = log.count(), time.monotonic() + 30
            for worker in workers:
                worker.start()
            while log.count() == before:
                assert time.monotonic() < deadline
            time.sleep(choice.random() * 0.05)
            for worker in workers:
                assert worker.pid is not None
                os.kill(worker.pid, signal.SIGKILL)
                worker.join()
            found = published(place)["position"].tolist()
            assert found == list(range(len(found)))
            assert log.checkpoint(0).offset * 2 + 2 == log.count() == len(found)

    def test_abandoned_hidden_files_go_and_young_ones_stay(self, log: ParquetLog, place: Path) -> None:
        log.append(0, table(0), checkpoint(0))
        hidden = place.parent / ".events.writing"
        names = [f"00-{shard:02d}-00000001.parquet.{age}" for shard in (0, 1) for age in ("old", "young")]
        for name in names:
            (hidden / name).write_bytes(b"half a file")
            if name.endswith("old"):
                os.utime(hidden / name, (1, time.time() - ABANDONED_SECONDS - 1))
        log.checkpoint(0)
        assert sorted(path.name for path in hidden_files(place)) == names[1:]
        assert positions(log) == [0]

    # Damage.

    @pytest.mark.parametrize("missing", [0, 1])
    def test_missing_number_is_named(self, log: ParquetLog, place: Path, missing: int) -> None:
        for offset in range(3):
            log.append(0, large(offset), checkpoint(offset))
        (place / f"00-00-{missing:08d}.parquet").unlink()
        for action in (lambda: log.checkpoint(1), lambda: list(log.scan()), log.count):
            with pytest.raises(ConfigurationError, match=f"00-00-{missing:08d}.parquet is missing") as caught:
                action()
            assert caught.value.remedy

    @pytest.mark.parametrize("left", [0, 100, -8])
    def test_footer_that_can_not_be_read_is_named(self, log: ParquetLog, place: Path, left: int) -> None:
        log.append(0, table(0), checkpoint(0))
        assert log.publish()
        path = place / "00-00-00000000.parquet"
        os.truncate(path, left if left >= 0 else path.stat().st_size + left)
        for action in (lambda: ParquetLog(place, SCHEMA, 0).checkpoint(0), lambda: list(log.scan())):
            with pytest.raises(ConfigurationError, match=r"00-00-00000000.parquet can't be read") as caught:
                action()
            assert caught.value.remedy

    def test_file_of_others_is_named(self, log: ParquetLog, place: Path) -> None:
        log.checkpoint(0)
        pq.write_table(table(0), place / "00-00-00000000.parquet")
        with pytest.raises(ConfigurationError, match="not written by this pipeline"):
            log.checkpoint(0)

    def test_file_under_another_number_is_named(self, log: ParquetLog, place: Path) -> None:
        log.append(0, table(0), checkpoint(0))
        assert log.publish()
        (place / "00-00-00000000.parquet").rename(place / "00-03-00000000.parquet")
        with pytest.raises(ConfigurationError, match=r"03-00000000.parquet was renamed: .* 00-00-00000000"):
            log.checkpoint(3)

    @pytest.mark.parametrize("name", ["00-00-00000000.parquet", "schema.parquet"])
    def test_newer_version_is_refused(self, log: ParquetLog, place: Path, name: str) -> None:
        log.append(0, table(0), checkpoint(0))
        assert log.publish()
        stored = pq.read_table(place / name)
        footer = msgspec.json.decode(stored.schema.metadata[FOOTER]) | {"version": VERSION + 1, "offset": {"new": 1}}
        pq.write_table(stored.replace_schema_metadata({FOOTER: msgspec.json.encode(footer)}), place / name)
        with pytest.raises(ConfigurationError, match=f"version {VERSION + 1}") as caught:
            ParquetLog(place, SCHEMA, 0).checkpoint(0)
        assert caught.value.remedy

    def test_files_that_are_no_parquet_do_not_matter(self, log: ParquetLog, place: Path) -> None:
        log.append(0, table(0), checkpoint(0))
        (place / ".notes").write_text("mine")
        assert positions(log) == [0]
        assert log.checkpoint(0).offset == 0

    def test_log_in_a_linked_folder_works(self, tmp_path: Path) -> None:
        (tmp_path / "disk").mkdir()
        (tmp_path / "elsewhere" / "log").mkdir(parents=True)
        (tmp_path / "disk" / "events").symlink_to(tmp_path / "elsewhere" / "log")
        log = ParquetLog(tmp_path / "disk" / "events", SCHEMA, 0)
        log.append(0, table(0), checkpoint(0))
        assert positions(log) == [0]
        assert [path.name for path in (tmp_path / "disk").iterdir()] == ["events"]

    def test_footer_says_what_a_person_wants_to_know(self, log: ParquetLog, place: Path) -> None:
        log.append(3, table(0, 1), checkpoint(9, {("f", 5): 1}, events=2))
        assert log.publish()
        stored = pq.read_metadata(place / "00-03-00000000.parquet").metadata[FOOTER]
        assert msgspec.json.decode(stored, type=Footer) == Footer(
            epoch=0, shard=3, number=0, commits=1, rows=2, offset=9, watermarks={"f": {"5": 1}}, counters={"events": 2}
        )


@pytest.mark.parametrize(
    "gone", ["", "log/schema.parquet", "log/00-00-00000000.parquet", ".log.writing/00-00-00000001.part"]
)
def test_no_rows_are_added_to_a_log_that_was_deleted(tmp_path: Path, gone: str) -> None:
    log = ParquetLog(tmp_path / "log", SCHEMA, 0)
    log.append(0, large(0), checkpoint(0))
    log.append(0, table(1), checkpoint(0))
    if gone:
        (tmp_path / gone).unlink()
    else:
        shutil.rmtree(tmp_path / "log")
    with pytest.raises(GoneError, match="was deleted"):
        log.append(0, table(2), checkpoint(1))
    if not gone:
        with pytest.raises(GoneError, match="log was deleted"):
            log.checkpoint(0)  # which would make a new one
        assert not (tmp_path / "log").exists()


def test_a_log_without_hard_links_is_whole_and_refuses_a_number_that_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*names: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    one, other = (ParquetLog(tmp_path / "log", SCHEMA, 0) for _ in range(2))
    for log in (one, other):
        log.checkpoint(0)
    one.append(0, table(1), checkpoint(0))
    with pytest.raises(NumberTakenError):
        other.append(0, table(2), checkpoint(0))
    assert positions(one) == [1]
    assert hidden_files(tmp_path / "log") == []
