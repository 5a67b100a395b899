"""A pipeline in one process, in virtual time, with real stores, and everything that can go wrong between two steps.

The stages, streams, tables and logs are the real ones. What is played is the platform (processes, who owns which
shard, deliveries, acknowledgements), the source, the clients, and the faults: at every call that reaches outside a
process may be killed before or after it, the store may be away for some calls, or may do what it was asked and
report that it failed.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import shutil
import types
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nuclio_sdk
import nuclio_sdk.event
import pyarrow as pa
import pytest
import xxhash

from modelstream import dead_letters, identity, log, sqlite_files, use_case
from modelstream.errors import NumberTakenError, UnavailableError
from modelstream.events import Rows
from modelstream.lines import Lines, LineSplitter
from modelstream.log import ParquetLog
from modelstream.sender import messages
from modelstream.settings import Settings
from modelstream.stages import base, stream_to_features
from modelstream.stages.base import Stage
from modelstream.stages.event_handler import EventHandler
from modelstream.stages.model_server import ModelServerStage
from modelstream.stages.stream_to_features import StreamToFeatures
from modelstream.streams import Message, Streams, open_streams
from modelstream.tables import Tables, open_tables
from tests.faults import inputs
from tests.faults.virtual_time import VirtualLoop

ROOT = Path(__file__).parent.parent.parent
CHURN = use_case.load(ROOT / "use_cases" / "churn.yaml")

CHAIN = (
    ("event-handler", "generated", "incoming-events"),
    ("stream-to-features", "incoming-events", "serving"),
    ("model-server", "serving", "inference"),
    ("inference-logger", "inference", ""),
)
STREAMS = ("generated", "incoming-events", "serving", "inference", dead_letters.STREAM)
PATIENCE = 120.0
"""Virtual seconds in which everything must have come to its end once nothing goes wrong any more."""


class Crash(BaseException):
    """The process is dead: nothing of it runs any more."""


@dataclass(frozen=True)
class Faults:
    """How often things go wrong, for each call that reaches outside."""

    crash: float = 0.0
    outage: float = 0.0
    """The call fails, and some calls after it."""
    unknown: float = 0.0
    """The call does what it should, and reports that it failed."""
    lost_ack: float = 0.0
    hook: float = 0.0
    """A notebook's hook raises."""
    chaos: float = 0.0
    """Seconds between two of the things that `World.chaos` does, on average; 0: none."""


class Faulty:
    """A store as one process sees it: every call may fail."""

    def __init__(self, process: Process, inner: Any, durable: tuple[str, ...] = ()) -> None:
        self._process = process
        self._inner = inner
        self._durable = durable

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not isinstance(value, types.MethodType):
            return value
        return functools.partial(self._call, name, value)

    def _call(self, name: str, method: Callable[..., Any], *args: Any) -> Any:
        happened = self._process.world.happened
        try:
            result = self._process.reach(functools.partial(method, *args), durable=name in self._durable)
        except NumberTakenError:
            happened["number taken"] += 1
            raise
        happened["refused commit"] += name == "commit" and result is False
        return result


class _FaultyOs:
    """The module `os` for the log: a kill or an error may come right before or after a file gets its number."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def link(self, source: Path, target: Path) -> None:
        process = self._world.acting
        process.reach(lambda: os.link(source, target), durable=True, error=OSError(5, "Input/output error"))

    def fsync(self, descriptor: int) -> None:
        """Nothing here survives a power loss, and nothing has to."""


class Process:
    """A worker of a function, on some shards. It runs until it is killed or finds out that it is no owner any more."""

    def __init__(self, world: World, name: str, shards: set[int]) -> None:
        self.world = world
        self.name = name
        self.dead = False
        self.paused = False
        self._away = 0
        self._offsets: dict[int, int] = {}
        self._wake = asyncio.Event()
        self.reads = next(reads for function, reads, _ in CHAIN if function == name)
        self.context = self._new_context()
        self.stage = self._new_stage()
        self.stage.start()
        for shard in shards:
            self.assign(shard)
        self._task = asyncio.get_running_loop().create_task(self._pump())
        for task in (self._task, self.stage._timer):
            task.add_done_callback(world.note)

    @property
    def shards(self) -> set[int]:
        """The shards that it believes to own."""
        return set(self._offsets)

    def assign(self, shard: int) -> None:
        """Own a shard: messages come from after the last that was acknowledged."""
        acked = self.world.acked(self.name, shard)
        first = self.world.streams.range(self.reads, shard)[0]
        self._offsets[shard] = max(acked + 1, first)
        self._wake.set()

    def unassign(self, shard: int) -> None:
        """Get no more messages of a shard."""
        self._offsets.pop(shard, None)

    def wake(self) -> None:
        """Look for messages."""
        self._wake.set()

    def kill(self) -> None:
        """End at once, as by kill -9."""
        self.dead = True
        for task in (self._task, self.stage._timer):
            if task is not None and task is not asyncio.current_task():
                task.cancel()

    async def suspend(self, seconds: float) -> None:
        """Stand still, as by a debugger or a suspended machine, then go on as if nothing had been."""
        async with self.stage._lock:
            await asyncio.sleep(seconds)

    async def drain(self) -> None:
        """Call the drain callback, as a platform does before a rebalance."""
        self.paused = True
        await self._guarded(self.context.platform._on_signal("drain"))
        self.paused = False
        self._wake.set()

    async def terminate(self) -> None:
        """Call the termination callback, then end."""
        self.paused = True
        self.stage.give_up()
        await self._guarded(self.context.platform._on_signal("termination"))
        self.kill()

    def reach(self, action: Callable[[], Any], *, durable: bool = False, error: Exception | None = None) -> Any:
        """Do something outside of the process: anything may go wrong."""
        if self.dead:
            raise Crash
        self.world.acting = self
        failure = error or UnavailableError("away", remedy="wait")
        self._maybe_die()
        if self._away or self._dice(self.world.faults.outage, "outage"):
            self._away = self._away - 1 if self._away else self.world.rng.randint(0, 3)
            raise failure
        result = action()
        self._maybe_die()
        if durable and self._dice(self.world.faults.unknown, "unknown outcome"):
            raise failure
        return result

    def hook(self, value: Any, *_: Any) -> Any:
        """Stand for a notebook's hook: return the value, or raise."""
        if self._dice(self.world.faults.hook, "hook"):
            raise ZeroDivisionError("a hook with a defect")
        return value

    def _dice(self, chance: float, what: str) -> bool:
        thrown = chance > 0 and not self.world.calm and self.world.rng.random() < chance
        self.world.happened[what] += thrown
        return thrown

    def _maybe_die(self) -> None:
        if self._dice(self.world.faults.crash, "crash"):
            self.kill()
            raise Crash

    async def _guarded(self, work: Any) -> None:
        with suppress(Crash):
            await work

    async def _pump(self) -> None:
        rng, streams = self.world.rng, self.world.streams
        while True:
            found = False
            for shard in sorted(self._offsets):
                if self.paused or shard not in self._offsets:
                    continue
                next_offset = self._offsets[shard]
                for message in streams.read(self.reads, shard, next_offset, rng.choice((1, 3, 10)), 10**7):
                    found = True
                    try:
                        await self.stage.handle(self._event(message))
                    except Crash:
                        return
                    if self.paused or self._offsets.get(shard) != next_offset:
                        break  # drained or assigned anew meanwhile
                    next_offset = self._offsets[shard] = message.offset + 1
                    await asyncio.sleep(rng.choice((0, 0, 0, 0.003, 0.05)))
            if not found:
                self._wake.clear()
                await self._wake.wait()
                await asyncio.sleep(rng.choice((0, 0.001, 0.02)))

    def _event(self, message: Message) -> Any:
        stamp = datetime.fromtimestamp(message.appended_at / 1e6, UTC).replace(tzinfo=None)
        return nuclio_sdk.Event(
            body=message.body,
            trigger=self.context.trigger,
            path=self.reads,
            topic=self.reads,
            timestamp=stamp,
            shard_id=message.shard,
            offset=message.offset,
        )

    def _new_context(self) -> Any:
        platform = nuclio_sdk.Platform("local", "test", on_control_callback=self._acknowledge)
        logger = types.SimpleNamespace(error_with=self._log, warn_with=self._log)
        return nuclio_sdk.Context(logger, platform, "0", nuclio_sdk.event.TriggerInfo("test", self.reads))

    def _log(self, *_: Any, **__: Any) -> None:
        return

    async def _acknowledge(self, message: Mapping[str, Any]) -> None:
        if self.dead:
            raise Crash
        if self._dice(self.world.faults.lost_ack, "lost ack"):
            if self.world.rng.random() < 0.5:
                return
            raise ConnectionError("the platform is away")
        attributes = message["attributes"]
        assert attributes["topic"] == self.reads
        self.world.acknowledge(self.name, attributes["partition"], attributes["offset"])

    def _new_stage(self) -> Stage:
        world = self.world
        settings = Settings(
            function=self.name,
            use_case="",
            streams="",
            tables="",
            reads=self.reads,
            writes=next(writes for function, _, writes in CHAIN if function == self.name),
            rows="predictions" if self.name == "inference-logger" else "events",
            shards=world.shards,
            linger_ms=world.linger_ms,
            commit_ms=world.commit_ms,
            commit_rows=world.commit_rows,
        )
        streams: Any = Faulty(self, world.out, ("append",))
        if self.name in ("event-handler", "inference-logger"):
            store: Any = Faulty(self, world.log(self.name))
            hooks = (self.hook,) if world.faults.hook and self.name == "event-handler" else ()
            return EventHandler(self.context, settings, streams, CHURN, store, world.epoch, *hooks)
        if self.name == "model-server":
            return ModelServerStage(self.context, settings, streams, world.epoch, lambda rows: self.hook(predict(rows)))
        table: Any = Faulty(self, world.tables.features(CHURN.row_schema), ("commit",))
        lookup: Any = Faulty(self, world.lookup)
        hooks = ((lambda _, vectors: self.hook(vectors)),) if world.faults.hook else ()
        return StreamToFeatures(self.context, settings, streams, CHURN, table, lookup, world.epoch, *hooks)


def probability_of(vector: list[float]) -> float:
    """Return what the model says of a vector: as good as random, and always the same."""
    return xxhash.xxh64_intdigest(" ".join(x.hex() for x in vector).encode()) % 1000 / 1000


def predict(rows: Rows) -> Rows:
    """Return the predictions of a message of vectors."""
    columns = [rows.batch.column(name) for name in CHURN.vector_schema.names]
    vectors = zip(*(rows.batch.column(name).to_pylist() for name in CHURN.features), strict=True)
    said = [probability_of(list(vector)) for vector in vectors]
    count = len(said)
    columns += [pa.array([int(p >= 0.5) for p in said], pa.int8()), pa.array(said, pa.float64())]
    columns += [pa.repeat("churn", count), pa.repeat("1", count), rows.batch.column("ingested_at")]
    batch = pa.RecordBatch.from_arrays(columns, schema=CHURN.prediction_schema)
    return Rows("predictions", rows.origin, batch, {})


@dataclass
class File:
    """An input file, and how far it was sent."""

    origin: str
    texts: list[bytes]
    lines: Lines
    sent: int = 0
    saved: list[int] = field(default_factory=lambda: [0])
    """Progress as it was made durable, each time."""


class _Recording:
    """The streams, noting what was appended to `generated`, and waking who reads."""

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
        self.focus = rng.choice(("", "", "event-handler", "stream-to-features", "stream-to-features"))
        self.cached_users = rng.choice((0, 1, 1000))
        self.ack_may_fall = rng.random() < 0.3
        self.epoch = 0
        self.owners: dict[str, list[Process]] = {}
        self.zombies: list[Process] = []
        self.acting: Any = None
        self.generated: dict[tuple[int, int, int], bytes] = {}
        self.files: list[File] = []
        self.letters: list[dead_letters.DeadLetter] = []
        """Those of earlier epochs."""
        self.happened: Counter[str] = Counter()
        self._suspensions: set[asyncio.Task[None]] = set()
        self.defects: list[BaseException] = []
        """Exceptions that came out of a stage."""
        self._acks: dict[tuple[str, int], int] = {}
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
        for process in self._processes():
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
            self.streams.ack(function, _reads(function), shard, offset)

    def _processes(self) -> list[Process]:
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

    # What people and machines do to it.

    async def chaos(self) -> None:
        """Do something bad now and then, for as long as the world is not calm."""
        actions = (
            *(self._kill_one, self._kill_one, self._kill_several, self._kill_all),
            *(self._make_zombie,) * 4,
            *(self._end_zombie, self._give_back_to_zombie),
            *(self._suspend_one, self._rebalance, self._drain_one, self._terminate_one, self._trim),
        )
        while not self.calm:
            await asyncio.sleep(self.rng.expovariate(1 / self.faults.chaos))
            if not self.calm:
                await self.rng.choice(actions)()

    def _pick(self) -> Process:
        """Return a process; often one of a certain function, and often one that is in trouble already."""
        processes = [process for processes in self.owners.values() for process in processes]
        if self.focus and self.rng.random() < 0.8:
            processes = self.owners[self.focus]
        held = [process for process in processes if process.stage.metrics.held]
        return self.rng.choice(held if held and self.rng.random() < 0.5 else processes)

    async def _kill_one(self) -> None:
        self._pick().kill()

    async def _kill_several(self) -> None:
        for _ in range(self.rng.randint(2, 4)):
            self._pick().kill()

    async def _kill_all(self) -> None:
        for process in self._processes():
            process.kill()

    async def _make_zombie(self) -> None:
        """Give a process's shards to a new one, without telling it."""
        old = self._pick()
        if not old.dead and len(self.zombies) < 5:
            processes = self.owners[old.name]
            new = processes[processes.index(old)] = Process(self, old.name, old.shards)
            self.zombies.append(old)
            self._suspend(self.rng.choice((old, old, new)))
            self.happened["zombie"] += 1

    async def _suspend_one(self) -> None:
        self._suspend(self._pick())

    def _suspend(self, process: Process) -> None:
        task = asyncio.create_task(process.suspend(self.rng.choice((0.05, 0.3, 2))))
        self._suspensions.add(task)
        task.add_done_callback(self._suspensions.discard)

    async def _end_zombie(self) -> None:
        if self.zombies:
            self.zombies.pop(self.rng.randrange(len(self.zombies))).kill()

    async def _give_back_to_zombie(self) -> None:
        """Kill the owner; who had its shards before gets them again, and goes on with what it holds in memory."""
        for zombie in self.zombies:
            processes = self.owners[zombie.name]
            for place, owner in enumerate(processes):
                if not zombie.dead and owner.shards == zombie.shards:
                    owner.kill()
                    processes[place] = zombie
                    self.zombies.remove(zombie)
                    for shard in zombie.shards:
                        zombie.assign(shard)
                    return

    async def _rebalance(self) -> None:
        """Move a shard, after draining everybody or nobody."""
        processes = self.owners[self._pick().name]
        if len(processes) < 2 or any(process.dead for process in processes):
            return
        told = self.rng.random() < 0.5
        if told:
            await asyncio.gather(*(process.drain() for process in processes))
        giver, taker = self.rng.sample(processes, 2)
        if giver.shards and not giver.dead and not taker.dead:
            shard = self.rng.choice(sorted(giver.shards))
            giver.unassign(shard)
            taker.assign(shard)
            self.happened["rebalance"] += 1
        if told:
            for process in processes:
                for shard in process.shards:
                    process.assign(shard)

    async def _drain_one(self) -> None:
        process = self._pick()
        if not process.dead:
            await process.drain()
            for shard in process.shards:
                process.assign(shard)

    async def _terminate_one(self) -> None:
        await self._pick().terminate()
        self.happened["terminate"] += 1

    async def _trim(self) -> None:
        if self.ack_may_fall:
            return
        for name, reads, _ in CHAIN:
            self.streams.trim(reads, [name], 2**62)

    # Sources.

    def add_file(self, origin: str, texts: list[bytes]) -> None:
        """Add an input file; `send` sends what was not sent of it."""
        lines = LineSplitter(CHURN.key).feed(b"\n".join(texts), last=True).lines
        self.files.append(File(origin, texts, lines))

    async def send(self, file: File, upto: int) -> None:
        """Send a file's lines up to one, with crashes of the sender and from an older progress again."""
        while file.sent < upto:
            at = file.sent
            count = min(self.rng.choice((1, 3, 12)), upto - at)
            records = messages(file.lines.slice(at, at + count), self.shards, file.origin, self._now(), most=7)
            await self._surely(records)
            file.sent = at + count
            if self.rng.random() < 0.5:
                file.saved.append(file.sent)
            if not self.calm and self.rng.random() < 0.1:  # killed: goes on from where progress was saved
                file.sent = self.rng.choice(file.saved)
            await asyncio.sleep(self.rng.choice((0, 0.01, 0.1, 0.5)))

    async def post(self, count: int) -> None:
        """Post bodies as clients do; one that gets no answer posts again."""
        of_shard: dict[int, list[str | int]] = {}
        for key in inputs.KEYS:
            of_shard.setdefault(identity.bucket_of(str(key)) % self.shards, []).append(key)
        for _ in range(count):
            shard = self.rng.choice(sorted(of_shard))
            await self._surely([(shard, inputs.body(self.rng, of_shard[shard], CHURN))])
            await asyncio.sleep(self.rng.choice((0, 0.01, 0.1, 0.5)))

    async def _surely(self, records: list[tuple[int, bytes]]) -> None:
        while True:
            self.out.append("generated", records)
            if self.calm or self.rng.random() >= self.faults.unknown:
                return
            await asyncio.sleep(0.05)

    def _now(self) -> int:
        return int(asyncio.get_running_loop().time() * 1e6)

    # From begin to end.

    async def live(self, lines: int, bodies: int) -> None:
        """Run everything with faults until all was sent, then without until all has come to its end."""
        self.calm = False
        self._start_all()
        supervisor = asyncio.create_task(self._supervise())
        work = [self.send(file, min(file.sent + lines, len(file.lines))) for file in self.files]
        helpers = [asyncio.create_task(self.chaos())] if self.faults.chaos else []
        await asyncio.gather(*work, self.post(bodies))
        await asyncio.sleep(self.rng.choice((0, 0.5, 3)))
        self.calm = True
        await asyncio.gather(*helpers)
        supervisor.cancel()
        await self._settle()
        for process in self._processes():
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
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._finish(name)
            except TimeoutError:
                held = [process.stage.metrics.held for process in self.owners[name]]
                raise AssertionError(f"{name} comes to no end: {held}") from None

    async def _finish(self, name: str) -> None:
        while any(self._lag(name, shard) for shard in range(self.shards)):
            for process in self.owners[name]:
                await process.drain()
                for shard in process.shards:
                    process.assign(shard)
            await asyncio.sleep(0.5)

    def _lag(self, function: str, shard: int) -> int:
        return self.streams.range(_reads(function), shard)[1] - 1 - self.acked(function, shard)

    def begin_epoch(self, shards: int) -> None:
        """Make the streams anew, with another number of shards. Everything has come to its end."""
        self.letters += dead_letters.read_letters(self.streams)
        self.close()
        self.epoch = self.tables.raise_epoch()
        self.happened["epoch"] += 1
        self.tables.close()
        self.shards, self._acks = shards, {}
        self._open()
        for file in self.files:
            file.sent = self.rng.choice(file.saved)

    def close(self) -> None:
        """Give back files and connections."""
        self.streams.close()
        self.tables.close()


def _reads(function: str) -> str:
    return next(reads for name, reads, _ in CHAIN if name == function)


@functools.cache
def _templates() -> Path:
    import tempfile

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
        patch.setattr(base, "time", types.SimpleNamespace(monotonic=loop.time, time=loop.time))
        patch.setattr(base, "STARTED", [])
        patch.setattr(stream_to_features, "CACHED_USERS", world.cached_users)
        patch.setattr(log, "os", _FaultyOs(world))
        patch.setattr(log, "sync_folder", lambda _: world.acting.reach(lambda: None, error=OSError(5, "I/O error")))
        connect = sqlite_files.connect
        patch.setattr(sqlite_files, "connect", lambda path, form, **_: connect(path, form, durable=False))
        yield
