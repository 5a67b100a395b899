"""The simulation finds what it is there to find: with any rule of delivery broken, some scenario goes wrong."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modelstream.errors import UnavailableError
from modelstream.features.engine import Applied, FeatureEngine
from modelstream.logs.file import LogFile
from modelstream.logs.parquet import ParquetLog
from modelstream.logs.storage import Published
from modelstream.messages.codec import UnreadableError, is_framed
from modelstream.messages.identity import Checkpoint, Watermarks, stream_position
from modelstream.messages.json_text import split_body
from modelstream.stages.base import Stage
from modelstream.stages.cycle import Cycle
from modelstream.stages.event_handler import EventHandler, Kept
from modelstream.stages.shard import Incoming, Shard
from modelstream.stages.stream_to_features import StreamToFeatures
from modelstream.streams import letters
from modelstream.tables.sqlite_features import SqliteFeatureTable
from tests.faults import scenarios
from tests.faults.process import FaultyOs

SCENARIOS = 600
"""Scenarios in which a mutation must show. Most show in the first five; the rarest so far first in number 262."""

Patch = pytest.MonkeyPatch


def acknowledge_before_commit(patch: Patch) -> None:
    apply = Cycle._apply

    def mutated(self: Cycle, fresh: dict[int, list[Incoming]]) -> None:
        apply(self, fresh)
        for shard, messages in fresh.items():
            self._acks[shard] = messages[-1].offset

    patch.setattr(Cycle, "_apply", mutated)


def commit_before_send(patch: Patch) -> None:
    append, save = Cycle._append, Cycle._save
    late: dict[int, list[Any]] = {}

    def mutated_append(self: Cycle, stream: str, records: Any) -> None:
        late.setdefault(id(self), []).append((stream, records))

    def mutated_save(self: Cycle, due: Sequence[Shard]) -> None:
        save(self, due)
        while late.get(id(self)):
            append(self, *late[id(self)][0])
            del late[id(self)][0]

    patch.setattr(Cycle, "_append", mutated_append)
    patch.setattr(Cycle, "_save", mutated_save)


def ignore_watermarks(patch: Patch) -> None:
    advance = Watermarks.advance

    def mutated(self: Watermarks, origin: str, positions: Any, buckets: Any) -> Any:
        return np.ones_like(advance(self, origin, positions, buckets))

    patch.setattr(Watermarks, "advance", mutated)


def keep_watermarks_by_origin_alone(patch: Patch) -> None:
    """One watermark an origin for all shards of a process. (Within a shard that would do: its positions rise.)"""
    advance = Watermarks.advance

    def mutated_advance(self: Watermarks, origin: str, positions: Any, buckets: Any) -> Any:
        return advance(self, origin, positions, np.zeros_like(buckets))

    def mutated(opened: Callable[[Any, int], Checkpoint]) -> Callable[[Any, int], Checkpoint]:
        def open_shared(self: Any, shard: int) -> Checkpoint:
            checkpoint = opened(self, shard)
            shared = self.__dict__.setdefault("_shared", Watermarks())
            for origin, _, position in checkpoint.watermarks.items():
                shared.set(origin, 0, max(position, shared.get(origin, 0)))
            checkpoint.watermarks = shared
            return checkpoint

        return open_shared

    patch.setattr(Watermarks, "advance", mutated_advance)
    for stage in (EventHandler, StreamToFeatures):
        patch.setattr(stage, "open", mutated(stage.open))


def ignore_what_rows_have_applied(patch: Patch) -> None:
    load = FeatureEngine.load

    def mutated(self: FeatureEngine, keys: Any, rows: pa.RecordBatch) -> None:
        never = pa.array(np.full(rows.num_rows, -1, np.int64))
        load(self, keys, rows.set_column(1, rows.schema.field(1), never))

    patch.setattr(FeatureEngine, "load", mutated)


def apply_a_batch_twice(patch: Patch) -> None:
    """Take a message that comes again as if it were a new one."""
    ready = Cycle._ready

    def mutated(self: Cycle, number: int) -> Shard:
        shard, first = ready(self, number), self._inbox.first(number)
        if first <= min(shard.checkpoint.offset, self._inbox.last(number)):
            shard.checkpoint.offset, shard.checkpoint.watermarks = first - 1, Watermarks()
        return shard

    patch.setattr(Cycle, "_ready", mutated)


def go_on_with_what_is_in_memory_after_a_failure(patch: Patch) -> None:
    def mutated(opened: Callable[[Any, int], Checkpoint]) -> Callable[[Any, int], Checkpoint]:
        def open_once(self: Any, shard: int) -> Checkpoint:
            known = self.__dict__.setdefault("_known", {})
            if shard not in known:
                known[shard] = opened(self, shard)
            checkpoint: Checkpoint = known[shard]
            return checkpoint

        return open_once

    for stage in (EventHandler, StreamToFeatures):
        patch.setattr(stage, "open", mutated(stage.open))


def give_numbers_without_exclusion(patch: Patch) -> None:
    def mutated(self: Any, source: Path, target: Path) -> None:
        self._world.acting.reach(lambda: source.replace(target), durable=True, error=OSError(5, "I/O error"))

    patch.setattr(FaultyOs, "link", mutated)


def take_numbers_whose_rows_are_in_a_file(patch: Patch) -> None:
    patch.setattr(ParquetLog, "_in_file", lambda *_: False)


def publish_without_a_part(patch: Patch) -> None:
    put = ParquetLog._put_into_file

    def mutated(self: ParquetLog, published: Published, waiting: Sequence[LogFile]) -> None:
        put(self, published, waiting[1:] or waiting)

    patch.setattr(ParquetLog, "_put_into_file", mutated)


def publish_a_part_twice(patch: Patch) -> None:
    put = ParquetLog._put_into_file

    def mutated(self: ParquetLog, published: Published, waiting: Sequence[LogFile]) -> None:
        put(self, published, [waiting[0], *waiting])

    patch.setattr(ParquetLog, "_put_into_file", mutated)


def keep_rows_that_another_owner_kept(patch: Patch) -> None:
    still_new = EventHandler._still_new

    def mutated(self: EventHandler, shard: Shard, kept: list[Kept]) -> list[Kept]:
        still_new(self, shard, kept)
        return kept

    patch.setattr(EventHandler, "_still_new", mutated)


def write_rows_that_do_not_rise(patch: Patch) -> None:
    init = SqliteFeatureTable.__init__

    def mutated(self: SqliteFeatureTable, *args: Any) -> None:
        init(self, *args)
        self._upsert = self._upsert.rpartition(" WHERE ")[0]

    patch.setattr(SqliteFeatureTable, "__init__", mutated)


def go_on_when_overtaken(patch: Patch) -> None:
    """Don't read the shard's state anew when another owner turns out to be further."""
    apply = FeatureEngine.apply_prepared

    def mutated(self: FeatureEngine, *args: Any) -> Applied:
        return dataclasses.replace(apply(self, *args), skipped=0)

    patch.setattr(FeatureEngine, "apply_prepared", mutated)
    patch.setattr(Stage, "forget", lambda *_: None)


def acknowledge_shards_whose_commit_comes_later(patch: Patch) -> None:
    """Take all shards that are due for durable, when rows of some were few enough for one commit."""
    save_all = StreamToFeatures.save_all

    def mutated(self: StreamToFeatures, shards: Sequence[Shard]) -> Sequence[Shard]:
        save_all(self, shards)
        return shards

    patch.setattr(StreamToFeatures, "save_all", mutated)


def keep_users_of_lost_shards(patch: Patch) -> None:
    """Go on with what is in memory of a shard that another owner has had in between."""
    opened = StreamToFeatures.open

    def mutated(self: StreamToFeatures, shard: int) -> Checkpoint:
        known = self._engines.get(shard)
        checkpoint = opened(self, shard)
        if known is not None:
            self._engines[shard] = known
        return checkpoint

    patch.setattr(StreamToFeatures, "open", mutated)
    patch.setattr(StreamToFeatures, "drop", lambda *_: None)


def send_on_after_a_failure(patch: Patch) -> None:
    """Leave a record whose outcome is unknown for later, and send the next one first."""
    append = Cycle._append
    later: dict[int, list[Any]] = {}

    def mutated(self: Cycle, stream: str, records: Any) -> None:
        waiting = later.pop(id(self), [])
        try:
            append(self, stream, records)
        except UnavailableError:
            waiting.append((stream, records))
        for old in list(waiting):
            try:
                append(self, *old)
                waiting.remove(old)
            except UnavailableError:
                pass
        later[id(self)] = waiting

    patch.setattr(Cycle, "_append", mutated)


def lose_what_was_taken_when_a_batch_fails(patch: Patch) -> None:
    """Go on behind the messages that have to be taken again."""
    apply = Cycle._apply

    def mutated(self: Cycle, fresh: dict[int, list[Incoming]]) -> None:
        try:
            apply(self, fresh)
        except Exception:
            for number, messages in fresh.items():
                shard = Cycle._open(self, number)
                shard.checkpoint.offset = messages[-1].offset
            raise

    patch.setattr(Cycle, "_apply", mutated)


def take_the_first_message_for_the_next_one(patch: Patch) -> None:
    """Let a stage without state begin wherever it is handed a message."""
    patch.setattr(Cycle, "_done_before", lambda self, number: self._inbox.first(number) - 1)


def skip_what_another_process_was_given(patch: Patch) -> None:
    """Let every stage go on with the message that it is handed."""

    def mutated(self: Cycle, shard: Shard) -> list[Incoming]:
        shard.checkpoint.offset = self._inbox.first(shard.number) - 1
        return []

    patch.setattr(Cycle, "_read", mutated)


def give_up_on_unsent_rows_when_stopping(patch: Patch) -> None:
    append = Cycle._append

    def mutated(self: Cycle, stream: str, records: Any) -> None:
        try:
            append(self, stream, records)
        except UnavailableError:
            if not self._stopping:
                raise

    patch.setattr(Cycle, "_append", mutated)


def forget_the_epoch(patch: Patch) -> None:
    identity = EventHandler.identity

    def mutated(self: EventHandler, message: Incoming) -> tuple[str, int]:
        return identity(self, message)[0], stream_position(0, message.offset)

    patch.setattr(EventHandler, "identity", mutated)


def count_letters_each_time(patch: Patch) -> None:
    patch.setattr(letters, "once", lambda letters: letters)


def refuse_messages_out_of_order(patch: Patch) -> None:
    """Look at the unreadable messages of a batch first."""
    take_all = EventHandler.take_all

    def readable(message: Incoming) -> bool:
        try:
            return is_framed(message.body) or split_body(message.body) is not None
        except UnreadableError:
            return False

    def mutated(self: EventHandler, groups: Sequence[tuple[Shard, list[Incoming]]]) -> list[int]:
        return take_all(self, [(shard, sorted(messages, key=readable)) for shard, messages in groups])

    patch.setattr(EventHandler, "take_all", mutated)


MUTATIONS = (
    acknowledge_before_commit,
    commit_before_send,
    ignore_watermarks,
    keep_watermarks_by_origin_alone,
    ignore_what_rows_have_applied,
    apply_a_batch_twice,
    go_on_with_what_is_in_memory_after_a_failure,
    give_numbers_without_exclusion,
    take_numbers_whose_rows_are_in_a_file,
    publish_without_a_part,
    publish_a_part_twice,
    keep_rows_that_another_owner_kept,
    write_rows_that_do_not_rise,
    go_on_when_overtaken,
    acknowledge_shards_whose_commit_comes_later,
    keep_users_of_lost_shards,
    send_on_after_a_failure,
    lose_what_was_taken_when_a_batch_fails,
    take_the_first_message_for_the_next_one,
    skip_what_another_process_was_given,
    give_up_on_unsent_rows_when_stopping,
    forget_the_epoch,
    count_letters_each_time,
    refuse_messages_out_of_order,
)


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_the_simulation_finds(mutate: Callable[[Patch], None], monkeypatch: Patch, tmp_path: Path) -> None:
    mutate(monkeypatch)
    for seed in range(SCENARIOS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            scenarios.run(folder, seed)
        except AssertionError as error:
            print(f"{mutate.__name__}: found by scenario {seed}: {str(error)[:300]}")
            return
        shutil.rmtree(folder)
    raise AssertionError(f"{mutate.__name__} goes unnoticed")
