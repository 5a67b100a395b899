"""A small stage whose results are easy to foresee, and what is sent by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from modelstream.errors import UnavailableError
from modelstream.messages.codec import UnreadableError
from modelstream.messages.identity import Checkpoint, Watermarks
from modelstream.stages.base import Stage
from modelstream.stages.shard import Incoming, Shard
from tests.stages.harness import Harness, event, settings


class Adder(Stage):
    """Adds up the numbers in its messages, by shard, and sends every sum; `durable` is what it has saved."""

    def __init__(self, harness: Harness, stateless: bool = False, epoch: int = 0, **changed: Any) -> None:
        super().__init__(harness.context, settings(**changed), harness.streams, epoch)
        self.effects = harness.effects
        self.durable: dict[int, tuple[int, int]] = {}
        self.stateless = stateless
        self.origins = 1
        self.misfit = -1
        """The offset of a message whose rows don't fit the others: a hook may return such."""
        self.sums: dict[int, int] = {}
        self.fail: dict[str, list[BaseException]] = {"open": [], "take": [], "save": []}

    def open(self, shard: int) -> Checkpoint | None:
        self._maybe_fail("open")
        offset, self.sums[shard] = self.durable.get(shard, (-1, 0))
        return None if self.stateless else Checkpoint(offset, Watermarks())

    def take(self, shard: Shard, message: Incoming) -> int:
        self.sums[shard.number] += 1_000_000  # half done
        self._maybe_fail("take")
        if message.body == b"bad":
            self.sums[shard.number] -= 1_000_000
            raise UnreadableError("bad")
        self.sums[shard.number] += int(message.body) - 1_000_000
        column = "total" if message.offset == self.misfit else "sum"
        row = {"position": np.array([message.offset]), column: np.array([self.sums[shard.number]])}
        shard.send(shard.number, "events", f"o/{message.offset % self.origins}", pa.record_batch(row))
        return 1

    def save(self, shard: Shard) -> None:
        self._maybe_fail("save")
        self.effects.append(("save", shard.number, shard.checkpoint.offset))
        self.durable[shard.number] = (shard.checkpoint.offset, self.sums[shard.number])

    def _maybe_fail(self, what: str) -> None:
        if self.fail[what]:
            raise self.fail[what].pop(0)


def numbers(*values: int, shard: int = 0, first: int = 0) -> list[Any]:
    return [event(first + i, str(value).encode(), shard) for i, value in enumerate(values)]


def sums(harness: Harness, shard: int = 0) -> list[int]:
    """Return the sums that a consumer who drops repeated positions sees."""
    marks, found = -1, []
    for to, rows in harness.sent():
        for position, value in zip(*(column.to_pylist() for column in rows.batch.columns), strict=True):
            if to == shard and position > marks:
                marks = position
                found.append(value)
    return found


AWAY = UnavailableError("the disk is full", remedy="free space")


def stage_started(harness: Harness, stage: Stage) -> None:
    async def start() -> None:
        stage.start()

    harness.run(start())


def positions(harness: Harness) -> list[int]:
    """Return the offsets of the messages whose sums were sent, in order."""
    return [row for _, rows in harness.sent() for row in rows.batch.column("position").to_pylist()]


def end(harness: Harness, stage: Stage) -> None:
    assert stage.cycle.task is not None
    stage.cycle.task.cancel()
    harness.wait(0)
