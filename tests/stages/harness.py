"""A stage by itself: a platform that notes acknowledgements, streams in memory, and a clock that the test moves."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

import nuclio_sdk
import nuclio_sdk.event
import pytest

from modelstream.messages.codec import Decoded, decode
from modelstream.messages.dead_letters import DeadLetter, decode_letters
from modelstream.settings import Settings
from modelstream.stages import cycle
from modelstream.stages.base import Stage
from modelstream.stages.shard import Incoming
from modelstream.streams import Message
from tests.faults.virtual_time import VirtualLoop

T = TypeVar("T")
APPENDED_AT = 1_764_000_000_000_000


def settings(**changed: Any) -> Settings:
    """Return settings with which a stage takes, sends and commits at once, unless told otherwise."""
    usual: dict[str, Any] = {
        "function": "the-stage",
        "use_case": "",
        "streams": "",
        "tables": "",
        "reads": "in",
        "writes": "out",
        "shards": 4,
        "linger_ms": 0.0,
        "commit_ms": 0.0,
        "commit_rows": 0,
    }
    return Settings(**(usual | changed))


def event(offset: int, body: bytes, shard: int = 0, stream: str = "in") -> Any:
    """Return a message as Nuclio hands it over."""
    return nuclio_sdk.Event(
        body=body,
        path=stream,
        topic=stream,
        shard_id=shard,
        offset=offset,
        timestamp=datetime.fromtimestamp(APPENDED_AT / 1e6, UTC).replace(tzinfo=None),
        trigger=nuclio_sdk.event.TriggerInfo("test", stream),
    )


class MemoryStreams:
    """Streams that keep what is appended. `failures` are raised first, one a call."""

    first_offset = 0

    def __init__(self, effects: list[tuple[Any, ...]]) -> None:
        self.records: dict[str, list[tuple[int, bytes]]] = {}
        self.failures: list[BaseException] = []
        self.given: dict[int, dict[int, Message]] = {}
        """What a test has handed to the stage, or left for it to read, by shard and offset."""
        self.begins: dict[int, int] = {}
        self.done: dict[int, int] = {}
        """The last offset of each shard that was acknowledged."""
        self._effects = effects

    def expect_appends(self) -> None:
        pass

    def append(self, name: str, records: list[tuple[int, bytes]]) -> list[int]:
        if self.failures:
            raise self.failures.pop(0)
        self._effects.append(("append", name))
        self.records.setdefault(name, []).extend(records)
        return [0] * len(records)

    def range(self, name: str, shard: int) -> tuple[int, int]:
        return self.begins.get(shard, self.first_offset), 1 << 40

    def acked(self, group: str, name: str) -> dict[int, int]:
        return {shard: self.done.get(shard, self.first_offset - 1) for shard in range(8)}

    def read_once(self, name: str, shard: int, offset: int, limit_messages: int, limit_bytes: int) -> list[Message]:
        found = sorted(at for at in self.given.get(shard, {}) if at >= max(offset, self.begins.get(shard, 0)))
        return [self.given[shard][at] for at in found[:limit_messages]]

    def give(self, event: Any) -> None:
        """Note that a message is in the stream."""
        message = Incoming.of(event)
        body = Message(message.shard, message.offset, message.body, message.appended_at)
        self.given.setdefault(message.shard, {})[message.offset] = body


class Harness:
    """What a stage needs, and what it did: `effects` in their order."""

    def __init__(self, patch: pytest.MonkeyPatch, reads: str = "in") -> None:
        self.reads = reads
        self.effects: list[tuple[Any, ...]] = []
        self.streams: Any = MemoryStreams(self.effects)
        self.logged: list[dict[str, Any]] = []
        self.ack_failures: list[BaseException] = []
        self.loop = VirtualLoop()
        patch.setattr(cycle, "time", types.SimpleNamespace(time=self.loop.time))
        platform = nuclio_sdk.Platform("local", "test", on_control_callback=self._acknowledge)
        logger = types.SimpleNamespace(error_with=self._log, warn_with=self._log)
        trigger = nuclio_sdk.event.TriggerInfo("test", reads)
        self.context: Any = nuclio_sdk.Context(logger, platform, "0", trigger)

    async def _acknowledge(self, message: dict[str, Any]) -> None:
        if self.ack_failures:
            raise self.ack_failures.pop(0)
        attributes = message["attributes"]
        assert attributes["topic"] == self.reads
        self.effects.append(("ack", attributes["partition"], attributes["offset"]))
        self.streams.done[attributes["partition"]] = attributes["offset"]

    def _log(self, message: str, **fields: Any) -> None:
        self.logged.append({"message": message, **fields})

    def run(self, work: Coroutine[Any, Any, T] | asyncio.Future[T]) -> T:
        """Run a coroutine. Waiting takes no time."""
        return self.loop.run_until_complete(work)

    def handle(self, stage: Stage, *events: Any) -> None:
        """Hand messages to a stage, one after the other, each in a cycle of its own if it was not started."""
        for one in events:
            self.run(self.handling(stage, one))

    async def handling(self, stage: Stage, event: Any) -> None:
        """Hand a message to a stage; return when it has been taken."""
        self.streams.give(event)
        await stage.handle(event)
        if stage.cycle.task is None:
            await stage.cycle.once()

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.run(asyncio.sleep(seconds))

    def close(self) -> None:
        """End what the stage has started."""
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.run(asyncio.sleep(0))
        self.loop.close()

    @property
    def acks(self) -> list[tuple[int, int]]:
        """The acknowledged (shard, offset), in order."""
        return [effect[1:] for effect in self.effects if effect[0] == "ack"]

    def sent(self, stream: str = "out") -> list[tuple[int, Decoded]]:
        """Return the messages sent: (shard, rows)."""
        return [(shard, decode(body)) for shard, body in self.streams.records.get(stream, [])]

    def letters(self, stream: str = "dead-letters") -> list[DeadLetter]:
        """Return the dead letters sent."""
        return [one for _, body in self.streams.records.get(stream, []) for one in decode_letters(body)]
