"""A worker of a function as a platform runs it, with the real stage, and all that can fail between two of its steps.

At every call that reaches outside, the process may be killed before or after it, the store may be away for some
calls, or may do what it was asked and report that it failed.
"""

from __future__ import annotations

import asyncio
import functools
import os
import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nuclio_sdk
import nuclio_sdk.event
import pyarrow as pa
import xxhash

from modelstream.errors import NumberTakenError, UnavailableError
from modelstream.messages.codec import Decoded
from modelstream.settings import Settings
from modelstream.stages.base import Stage
from modelstream.stages.event_handler import EventHandler
from modelstream.stages.model_server import ModelServerStage
from modelstream.stages.stream_to_features import StreamToFeatures
from modelstream.streams import Message
from modelstream.use_case.file import load_use_case

if TYPE_CHECKING:
    from tests.faults.world import World

ROOT = Path(__file__).parents[2]
CHURN = load_use_case(ROOT / "use_cases" / "churn.yaml")

CHAIN = (
    ("event-handler", "generated", "incoming-events"),
    ("stream-to-features", "incoming-events", "serving"),
    ("model-server", "serving", "inference"),
    ("inference-logger", "inference", ""),
)


LOGGING = ("event-handler", "inference-logger")
"""Those that keep a log."""


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

    def expect_appends(self) -> None:
        """Reaches nothing outside, so nothing can go wrong."""

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
        if name == "commit_all":
            happened["refused commit"] += result.count(False)
            happened["commit of several shards"] += len(result) > 1
        return result


class FaultyOs:
    """The module `os` for the log: a kill or an error may come right before or after a file gets its number."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def link(self, source: Path, target: Path) -> None:
        process = self._world.acting
        process.reach(lambda: os.link(source, target), durable=True, error=OSError(5, "Input/output error"))

    def replace(self, source: Path, target: Path) -> None:
        """Put a longer file in the place of one."""
        process = self._world.acting
        process.reach(lambda: source.replace(target), durable=True, error=OSError(5, "Input/output error"))

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
        assert self.stage.cycle.task is not None
        for task in (self._task, self.stage.cycle.task):
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

    def follow(self, old: Process) -> None:
        """Get the messages after those that another process was given, whatever became of them.

        Nuclio does so when it kills a worker in the middle of a rebalance.
        """
        for shard in self._offsets.keys() & old._offsets.keys():
            self._offsets[shard] = max(self._offsets[shard], old._offsets[shard])

    def unassign(self, shard: int) -> None:
        """Get no more messages of a shard."""
        self._offsets.pop(shard, None)

    def wake(self) -> None:
        """Look for messages."""
        self._wake.set()

    def kill(self) -> None:
        """End at once, as by kill -9."""
        self.dead = True
        for task in (self._task, self.stage.cycle.task):
            if task is not None and task is not asyncio.current_task():
                task.cancel()

    async def suspend(self, seconds: float) -> None:
        """Stand still, as by a debugger or a suspended machine, then go on as if nothing had been."""
        async with self.stage.cycle.lock:
            await asyncio.sleep(seconds)

    def publish(self) -> None:
        """Publish its log, as its background thread does: the process may die of it."""
        with suppress(Crash, UnavailableError):
            self._log_again.publish()

    def lose_stores(self, calls: int) -> None:
        """Let the next calls that reach outside fail."""
        self._away = max(self._away, calls)

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
                    await asyncio.sleep(rng.choice(self.world.pauses))
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
        if self.name in LOGGING:
            store: Any = Faulty(self, world.log(self.name))
            self._log_again = Faulty(self, world.log(self.name))
            transform = self.hook if world.faults.hook and self.name == "event-handler" else None
            return EventHandler(self.context, settings, streams, CHURN, store, world.epoch, transform)
        if self.name == "model-server":
            return ModelServerStage(self.context, settings, streams, world.epoch, lambda rows: self.hook(predict(rows)))
        table: Any = Faulty(self, world.tables.features(CHURN.row_schema), ("commit_all",))
        lookup: Any = Faulty(self, world.lookup)
        derive = (lambda _, vectors: self.hook(vectors)) if world.faults.hook else None
        return StreamToFeatures(
            self.context, settings, streams, CHURN, table, lambda _, keys: lookup.get_many(keys), world.epoch, derive
        )


def probability_of(vector: list[float]) -> float:
    """Return what the model says of a vector: as good as random, and always the same."""
    return xxhash.xxh64_intdigest(" ".join(x.hex() for x in vector).encode()) % 1000 / 1000


def predict(rows: Decoded) -> Decoded:
    """Return the predictions of a message of vectors."""
    columns = [rows.batch.column(name) for name in CHURN.vector_schema.names]
    vectors = zip(*(rows.batch.column(name).to_pylist() for name in CHURN.features), strict=True)
    said = [probability_of(list(vector)) for vector in vectors]
    count = len(said)
    columns += [pa.array([int(p >= 0.5) for p in said], pa.int8()), pa.array(said, pa.float64())]
    columns += [pa.repeat("churn", count), pa.repeat("1", count), rows.batch.column("ingested_at")]
    batch = pa.RecordBatch.from_arrays(columns, schema=CHURN.prediction_schema)
    return Decoded("predictions", rows.origin, batch, {})
