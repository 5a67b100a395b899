"""A pipeline in one process, in virtual time, with real stores, and everything that can go wrong.

The stages, streams, tables and logs are the real ones. What is played is the platform (processes, who owns which
shard, deliveries, acknowledgements: see `process` and `chaos`) and who sends (`sources`).
"""

from __future__ import annotations

import asyncio
import functools
import random
import shutil
import tempfile
import types
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from modelstream.clients import sqlite as sqlite_files
from modelstream.logs import parquet as log
from modelstream.logs.parquet import ParquetLog
from modelstream.messages import dead_letters
from modelstream.stages import cycle, stream_to_features
from modelstream.streams import Message, Streams, open_streams
from modelstream.streams.letters import read_letters
from modelstream.tables import Tables, open_tables
from tests.faults import inputs
from tests.faults.chaos import Chaos
from tests.faults.process import CHAIN, CHURN, LOGGING, Crash, Faults, FaultyOs, Process
from tests.faults.sources import Sources
from tests.faults.virtual_time import VirtualLoop

STREAMS = ("generated", "incoming-events", "serving", "inference", "dead-letters")
PATIENCE = 120.0
"""Virtual seconds in which everything must have come to its end once nothing goes wrong any more."""


class _Recording:
    """The streams as stages see them, noting what was appended to `generated`, and waking who reads."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.first_offset = world.streams.first_offset

    def append(self, name: str, records: list[tuple[int, bytes]]) -> list[int]:
        offsets = self._world.streams.append(name, records)
        for (shard, body), offset in zip(records, offsets, strict=True):
            if name == "generated":
                self._world.generated[self._world.epoch, shard, offset] = body
        self._world.wake(name)
        return offsets

    def range(self, name: str, shard: int) -> tuple[int, int]:
        return self._world.streams.range(name, shard)

    def acked(self, group: str, name: str) -> dict[int, int]:
        return {shard: self._world.acked(group, shard) for shard in self._world.streams.acked(group, name)}

    def read_once(self, *args: Any) -> list[Message]:
        found = self._world.streams.read_once(*args)
        self._world.happened["read by itself"] += len(found)
        return found


class World:
    """See the module."""

    def __init__(self, folder: Path, rng: random.Random, faults: Faults, *, shards: int, workers: int) -> None:
        self.rng = rng
        self.faults = faults
        self.calm = False
        self.folder = folder
        self.shards = shards
        self.workers = workers
        self.linger_ms = rng.choice((0.0, 5.0, 20.0, 50.0))
        self.commit_ms = rng.choice((0.0, 20.0, 150.0, 600.0))
        self.commit_rows = rng.choice((1, 10, 1000))
        self.cached_bytes = rng.choice((0, 300_000, 1 << 30))
        """None, some or all of the users: the arrays of a shard's first thousand take 230,000."""
        self.few_rows = rng.choice((0, 10, 4000))
        self.many_events = rng.choice((20, 60_000))
        self.pauses = rng.choice(((0, 0, 0, 0.003, 0.05), (0,)))
        """Seconds between two messages that a process gets: without any, much waits for its next cycle."""
        self.ack_may_fall = rng.random() < 0.3
        self.epoch = 0
        self.owners: dict[str, list[Process]] = {}
        self.zombies: list[Process] = []
        self.acting: Any = None
        self.generated: dict[tuple[int, int, int], bytes] = {}
        self.letters: list[dead_letters.DeadLetter] = []
        """Those of earlier epochs."""
        self.happened: Counter[str] = Counter()
        self.defects: list[BaseException] = []
        """Exceptions that came out of a stage."""
        self._acks: dict[tuple[str, int], int] = {}
        self.chaos = Chaos(self)
        self.sources = Sources(self)
        self._open()

    def _open(self) -> None:
        template(self.folder, self.shards, self.epoch)
        self.streams: Streams = open_streams(f"sqlite://{self.folder}/streams-{self.epoch}")
        self.tables: Tables = open_tables(f"sqlite://{self.folder}/tables")
        self.lookup = self.tables.lookup("enrichment")
        self.out = _Recording(self)

    def log(self, function: str) -> ParquetLog:
        """Return the log of a function, opened anew."""
        if function == "event-handler":
            return ParquetLog(self.folder / "events", CHURN.events_log_schema, self.epoch)
        return ParquetLog(self.folder / "inference", CHURN.inference_log_schema, self.epoch)

    # The platform.

    def note(self, task: asyncio.Task[None]) -> None:
        """Note how a process's task ended: nothing but a kill may end it."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Crash):
            self.defects.append(error)

    def wake(self, stream: str) -> None:
        for process in self.processes():
            if process.reads == stream:
                process.wake()

    def acked(self, function: str, shard: int) -> int:
        if self.ack_may_fall:
            return self._acks.get((function, shard), -1)
        return self.streams.acked(function, _reads(function))[shard]

    def acknowledge(self, function: str, shard: int, offset: int) -> None:
        if self.ack_may_fall:  # as on V3IO, where a lower acknowledgement moves the checkpoint back
            self._acks[function, shard] = offset
        else:
            self.streams.ack(function, _reads(function), {shard: offset})

    def processes(self) -> list[Process]:
        """Return those that run, or seem to."""
        return [*self.zombies, *(process for processes in self.owners.values() for process in processes)]

    def _start_all(self) -> None:
        for name, _, _ in CHAIN:
            self.owners[name] = [Process(self, name, set(part)) for part in self._parts()]

    def _parts(self) -> list[range]:
        return [range(worker, self.shards, self.workers) for worker in range(self.workers)]

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(self.rng.choice((0.01, 0.1)))
            self.restart_dead()

    def restart_dead(self) -> None:
        self.zombies = [process for process in self.zombies if not process.dead]
        for name, processes in self.owners.items():
            for place, process in enumerate(processes):
                if process.dead:
                    processes[place] = Process(self, name, process.shards)

    # From begin to end.

    async def live(self, lines: int, bodies: int) -> None:
        """Run everything with faults until all was sent, then without until all has come to its end."""
        self.calm = False
        self._start_all()
        supervisor = asyncio.create_task(self._supervise())
        files = self.sources.files
        work = [self.sources.send(file, min(file.sent + lines, len(file.lines))) for file in files]
        helpers = [asyncio.create_task(self.chaos.reign())] if self.faults.chaos else []
        await asyncio.gather(*work, self.sources.post(bodies))
        await asyncio.sleep(self.rng.choice((0, 0.5, 3)))
        self.calm = True
        for helper in helpers:
            await self._in_time(helper)
        supervisor.cancel()
        await self._settle()
        for process in self.processes():
            process.kill()

    async def _settle(self) -> None:
        for zombie in self.zombies:
            zombie.kill()
        for name, processes in self.owners.items():
            owned = sorted(shard for process in processes for shard in process.shards)
            if owned != list(range(self.shards)) or self.rng.random() < 0.3:
                for process in processes:
                    process.kill()
                self.owners[name] = [Process(self, name, set(part)) for part in self._parts()]
        self.restart_dead()
        for name, _, _ in CHAIN:
            await self._in_time(self._finish(name))
        self.restart_dead()
        for name in LOGGING:
            await self._in_time(self._publish(self.owners[name][0]))

    async def _in_time(self, work: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await work
        except TimeoutError:
            held = {process.name: process.stage.held for process in self.processes()}
            raise AssertionError(f"this comes to no end: {held}") from None

    async def _finish(self, name: str) -> None:
        while any(self._lag(name, shard) for shard in range(self.shards)):
            for process in self.owners[name]:
                await process.drain()
                for shard in process.shards:
                    process.assign(shard)
            await asyncio.sleep(0.5)

    async def _publish(self, process: Process) -> None:
        while self.log(process.name).waiting():
            process.publish()
            await asyncio.sleep(0.5)

    def _lag(self, function: str, shard: int) -> int:
        return self.streams.range(_reads(function), shard)[1] - 1 - self.acked(function, shard)

    def begin_epoch(self, shards: int) -> None:
        """Make the streams anew, with another number of shards. Everything has come to its end."""
        self.letters += read_letters(self.streams, "dead-letters")
        self.close()
        self.epoch = self.tables.raise_epoch()
        self.happened["epoch"] += 1
        self.tables.close()
        self.shards, self._acks = shards, {}
        self._open()
        for file in self.sources.files:
            file.sent = self.rng.choice(file.saved)

    def close(self) -> None:
        """Give back files and connections."""
        self.streams.close()
        self.tables.close()


def _reads(function: str) -> str:
    return next(reads for name, reads, _ in CHAIN if name == function)


@functools.cache
def _templates() -> Path:
    return Path(tempfile.mkdtemp(prefix="modelstream-templates-"))


def template(folder: Path, shards: int, epoch: int) -> None:
    """Make the files of streams and tables in a folder: copies, as making them takes longer than a scenario."""
    made = _templates() / f"{shards}-{epoch}"
    if not made.exists():
        with open_streams(f"sqlite://{made}/streams") as streams:
            for name in STREAMS:
                streams.create(name, shards, epoch)
            streams.acked("nobody", STREAMS[0])
        with open_tables(f"sqlite://{made}/tables") as tables:
            values = inputs.VALUES
            tables.lookup("enrichment").load([pa.record_batch({"key": [*values], "value": [*values.values()]})])
            tables.features(CHURN.row_schema)
            tables.epoch()
    shutil.copytree(made / "streams", folder / f"streams-{epoch}")
    if not (folder / "tables").exists():
        shutil.copytree(made / "tables", folder / "tables")


@contextmanager
def patched(world: World, loop: VirtualLoop) -> Iterator[None]:
    """Put the virtual clock and the faults of the log's files in their places."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cycle, "time", types.SimpleNamespace(time=loop.time))
        patch.setattr(stream_to_features, "CACHED_BYTES", world.cached_bytes)
        patch.setattr(stream_to_features, "FEW_ROWS", world.few_rows)
        patch.setattr(stream_to_features, "MANY_EVENTS", world.many_events)
        faulty = FaultyOs(world)
        patch.setattr(log, "os", faulty)
        patch.setattr(log, "link", faulty.link)
        patch.setattr(log, "sync_folder", lambda _: world.acting.reach(lambda: None, error=OSError(5, "I/O error")))
        connect = sqlite_files.connect
        patch.setattr(sqlite_files, "connect", lambda path, form, **_: connect(path, form, durable=False))
        yield
