"""The cycle of a stage: take what waits, of all shards at once; send; save what is due; acknowledge.

While a cycle works, messages gather, and the next one takes all of them: the more waits, the less a message costs. A
message that comes while nothing else does is taken at once.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import msgspec
import nuclio_sdk

from modelstream.errors import LostStateError, UnavailableError
from modelstream.messages.identity import Checkpoint
from modelstream.settings import Settings
from modelstream.stages.counters import Counters
from modelstream.stages.holding import GivenUpError, Holding, located
from modelstream.stages.inbox import Inbox
from modelstream.stages.poison import PoisonWatch, deadly
from modelstream.stages.shard import Incoming, Records, Shard
from modelstream.streams import Streams

QUIET = 0.001
"""Seconds without a message after which a busy stage waits for no more: Nuclio delivers one in 0.3 to 0.4 ms."""
PATIENCE = 1.0
"""Seconds that a message waits in the handler for room. Nuclio calls the drain callback only when the handler has
returned; a message that found no room is read from the stream later."""
DRAIN_SECONDS = 1.0
"""Seconds in which steps of a drain are repeated. A drain then takes less than 2 s; a rebalance waits longer."""
PAUSE = 0.1
"""Seconds without a message after which what was applied waits for its commit no longer than it has to."""
COMMIT_SHARE, LONGEST_WAIT = 8, 3
"""While messages keep coming, commits take at most an eighth of the time: those of a table of millions of rows write a
page for almost every row, unless they have many. They wait at most three times as long for that."""
AHEAD_MESSAGES, AHEAD_BYTES = 256, 1_000_000
"""Of a shard that is behind, the stage itself reads so much for one cycle."""

_OF_ONE_MOMENT = (
    "restore streams, tables and logs from the same moment; or start over: --fresh with the --data folder "
    "that they belong to, or another prefix"
)


class Steps(Protocol):
    """What a stage does in a cycle: see `stages.base.Stage`, which has an example."""

    @property
    def saves_together(self) -> bool:
        """Whether `save_all` makes many shards durable at once."""

    def open(self, shard: int) -> Checkpoint | None:
        """Read the durable state of a shard."""

    def drop(self, shards: Iterable[int]) -> None:
        """Forget what is in memory of shards, which may be another worker's from now on."""

    def take_all(self, groups: Sequence[tuple[Shard, list[Incoming]]]) -> list[int]:
        """Apply messages to the state in memory; return the rows of each shard."""

    def save_all(self, shards: Sequence[Shard]) -> Sequence[Shard]:
        """Make the state of shards durable; return those of which it is."""


class Cycle:
    """Brings messages through the steps of one stage. `stages.base.Stage` has an example."""

    def __init__(self, steps: Steps, context: Any, settings: Settings, streams: Streams, counters: Counters) -> None:
        self.holding = Holding(settings.function, lambda: context.logger)
        self.lock = asyncio.Lock()
        """Held during a cycle."""
        self.task: asyncio.Task[None] | None = None
        self._steps, self._context, self._settings, self._streams = steps, context, settings, streams
        self._counters = counters
        self._inbox = Inbox()
        self._shards: dict[int, Shard] = {}
        self._done: dict[int, int] = {}
        """The last offset of each shard whose effects this process knows to be durable."""
        self._poison = PoisonWatch.of(settings)
        self._suspects: dict[int, set[int]] = {}
        self._unsent: list[tuple[str, Records]] = []
        self._acks: dict[int, int] = {}
        self._topic = settings.reads
        self._stopping = False
        self._drains = 0
        """How many have begun and not ended: in a rebalance, one follows another."""
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._ended = -math.inf
        """When the last cycle ended."""
        self._applied = -math.inf
        """When the last messages were applied."""
        self._saving = 0.0
        """Seconds that the last commit took."""

    # What the platform calls.

    def start(self) -> None:
        """Begin to run cycles, in the worker's event loop."""
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def put(self, message: Incoming, topic: str) -> None:
        """Take a message over. Returns when there is room for the next; never raises."""
        self._topic = topic or self._topic
        room = await self._has_room()
        self._inbox.put(message, keep=room)
        self._work.set()
        if room:
            await self._has_room()

    async def _has_room(self) -> bool:
        """Wait until there is room, but not for long; return whether there is."""
        if self._inbox.full:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    while self._inbox.full:
                        self._room.clear()
                        await self._room.wait()
        return not self._inbox.full

    def stop(self) -> None:
        """Repeat no step any more: the worker is about to end."""
        self._stopping = True
        self.holding.give_up_at(-math.inf)

    async def drain(self) -> None:
        """Finish what can be finished in time, and drop the rest: another worker may own the shards next."""
        self._drains += 1
        if not self._stopping:
            self.holding.give_up_at(asyncio.get_running_loop().time() + DRAIN_SECONDS)
        async with self.lock:
            await self._cycle(everything=True)
            self._inbox.clear()
            self._steps.drop(self._shards)
            self._shards.clear()
            self._unsent.clear()
            self._room.set()
        self._drains -= 1
        if not self._stopping and not self._drains:
            self.holding.give_up_at(math.inf)

    # What a stage may use.

    def check(self, shards: Sequence[int]) -> None:
        """Raise LostStateError if effects of acknowledged messages are missing."""
        acked = self._streams.acked(self._settings.function, self._settings.reads)
        for shard in shards:
            kept = self._steps.open(shard)
            if kept is not None:
                self._check_end(shard, kept)
                self._check_acked(shard, kept, acked[shard])

    def forget(self, shard: int) -> None:
        """Drop a shard whose durable state is ahead of this one; its next message reads that state first."""
        if self._shards.pop(shard, None):
            self._steps.drop([shard])

    # When.

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._work.wait()
            await self._gather()
            self._work.clear()
            await self.once()
            if self._inbox.waiting() and not self._stopping:
                self._work.set()
            elif (due := self._next_commit()) < math.inf:
                if self._alarm is not None:
                    self._alarm.cancel()
                self._alarm = loop.call_at(due + QUIET, self._work.set)  # a timer may be early by the clock's grain
            await asyncio.sleep(0)

    async def _gather(self) -> None:
        """Let messages gather that follow closely; but a message that comes after a pause waits for no other."""
        now = asyncio.get_running_loop().time
        if now() - self._ended > self._settings.linger_ms / 1000:
            return
        end = now() + self._settings.linger_ms / 1000
        seen = -1
        while seen != self._inbox.count and not self._inbox.full and now() < end:
            seen = self._inbox.count
            await asyncio.sleep(min(QUIET, self._settings.linger_ms / 1000))

    def _next_commit(self) -> float:
        """Return when the oldest message that is not durable is due, if no other comes."""
        times = (shard.since for shard in self._shards.values() if shard.unsaved)
        due = min(times, default=math.inf) + self._settings.commit_ms / 1000
        return max(due, self._applied + PAUSE) if self._longer() else due

    def _longer(self) -> float:
        """Return how many seconds longer than usual a commit waits while messages keep coming."""
        usual = self._settings.commit_ms / 1000
        return max(0.0, min(COMMIT_SHARE * self._saving, LONGEST_WAIT * usual) - usual)

    async def once(self) -> None:
        """Run one cycle."""
        async with self.lock:
            await self._cycle(everything=False)

    async def _cycle(self, *, everything: bool) -> None:
        with suppress(GivenUpError):
            if self._inbox.waiting():
                await self.holding.until_done(f"take from {self._settings.reads}", self._take)
                self._room.set()
            await self._send()
            while due := self._due(everything=everything):
                which = "shard" if len(due) == 1 else "shards"
                what = f"commit of {which} {', '.join(str(shard.number) for shard in due)}"
                await self.holding.until_done(what, partial(self._save, due))
                if not everything:
                    break  # messages that came meanwhile go before the commit of other shards
        await self._acknowledge()
        self._ended = asyncio.get_running_loop().time()

    # Take.

    def _take(self) -> None:
        """Take the messages that follow those that were taken, of all shards at once."""
        shards = [self._ready(number) for number in sorted(self._inbox.waiting())]
        read = {shard.number: self._read(shard) for shard in shards if self._inbox.first(shard.number) > shard.next}
        fresh: dict[int, list[Incoming]] = {}
        for shard in shards:
            messages = read.get(shard.number, [])
            more, repeated = self._inbox.take(shard.number, messages[-1].offset + 1 if messages else shard.next)
            if messages or more:
                fresh[shard.number] = [*messages, *more]
            elif repeated and shard.saved >= self._streams.first_offset:
                self._acks[shard.number] = shard.saved
        self._apply(fresh)

    def _ready(self, number: int) -> Shard:
        """Return the state of a shard, which was read again if it doesn't go on where the last message ended."""
        shard = self._shards.get(number)
        if shard is None or self._inbox.first(number) - 1 > max(shard.checkpoint.offset, shard.reads_to):
            shard = self._open(number)  # new here, or another worker had the shard in between
        return shard

    def _open(self, number: int) -> Shard:
        """Read a shard's durable state."""
        self.forget(number)
        kept = self._steps.open(number)
        self._suspects[number] = self._poison.suspects(number)
        checkpoint = Checkpoint(self._done_before(number)) if kept is None else kept
        if kept is not None:
            self._check_end(number, kept)
            if self._inbox.first(number) > max(kept.offset, self._streams.first_offset - 1) + 1:
                self._check_acked(number, kept, self._acked(number))
        checkpoint.offset = max(checkpoint.offset, self._streams.first_offset - 1)
        shard = Shard(number, checkpoint, checkpoint.offset, keeps=kept is not None)
        shard.reads_to = self._inbox.last(number)
        self._shards[number] = shard
        return shard

    def _done_before(self, number: int) -> int:
        """Return up to which offset a shard is done, where the stage keeps no state.

        Its first message may be another than the next: a process that held the one before may have been killed.
        """
        return max(self._acked(number), self._done.get(number, -1))

    def _acked(self, number: int) -> int:
        return self._streams.acked(self._settings.function, self._settings.reads)[number]

    def _check_end(self, shard: int, kept: Checkpoint) -> None:
        """Raise LostStateError if the state is ahead of the stream.

        New messages would have offsets that were already applied, and be dropped as already seen.
        """
        if kept.offset >= (end := self._streams.range(self._settings.reads, shard)[1]):
            raise LostStateError(
                f"{self._settings.reads} ends at offset {end - 1} of shard {shard}, but messages up to {kept.offset} "
                "were already applied: the stream was restored from an older copy, or deleted and made again",
                remedy=_OF_ONE_MOMENT,
            )

    def _check_acked(self, shard: int, kept: Checkpoint, acked: int) -> None:
        """Raise LostStateError if messages were acknowledged of which the state knows nothing."""
        if acked >= self._streams.first_offset and kept.offset < acked:
            raise self._missing(shard, kept.offset, acked + 1)

    def _missing(self, shard: int, kept: int, goes_on: int) -> LostStateError:
        return LostStateError(
            f"{self._settings.reads} continues at offset {goes_on} of shard {shard}, but the stored state ends at "
            f"offset {kept}: the effects of the messages in between are lost",
            remedy=_OF_ONE_MOMENT,
        )

    def _read(self, shard: Shard) -> list[Incoming]:
        """Read messages from the stream that come before those that are here."""
        reads, number = self._settings.reads, shard.number
        count = min(self._inbox.first(number) - shard.next, AHEAD_MESSAGES)
        found = self._streams.read_once(reads, number, shard.next, count, AHEAD_BYTES)
        first = found[0].offset if found else self._streams.range(reads, number)[0]
        if not found and first <= shard.next:
            raise UnavailableError(f"{reads} doesn't show offset {shard.next} of shard {number} yet")
        if first > shard.next:
            if shard.keeps:
                raise self._missing(number, shard.checkpoint.offset, first)
            # Others deleted what all had acknowledged: this function's acknowledgement was late, or was lost.
            shard.checkpoint.offset = shard.saved = first - 1
        return [
            Incoming(number, one.offset, one.body, one.appended_at)
            for one in found
            if one.offset < self._inbox.first(number)
        ]

    def _apply(self, fresh: Mapping[int, list[Incoming]]) -> None:
        """Take the messages of shards.

        If that fails, drop the shards' state, since part of the batch may be applied. It is then read again from where
        it is durable, and the messages since then from the stream.
        """
        groups = [(self._shards[number], self._marked(number, messages)) for number, messages in fresh.items()]
        self._poison.taking({shard.number: (many[0].offset, many[-1].offset + 1) for shard, many in groups})
        try:
            rows = self._steps.take_all(groups)
        except BaseException:
            for shard, messages in groups:
                self._inbox.put(messages[-1], keep=False)
                self.forget(shard.number)
            raise
        finally:
            self._poison.taking({})
        self._applied = now = asyncio.get_running_loop().time()
        for (shard, messages), count in zip(groups, rows, strict=True):
            shard.since = shard.since if shard.unsaved else now
            shard.checkpoint.offset = messages[-1].offset
            shard.rows += count
            self._counters.rows_in += count

    def _marked(self, number: int, messages: list[Incoming]) -> list[Incoming]:
        """Return messages with the poison among them marked: a process that took them may have ended on one."""
        suspects = [message.offset for message in messages if message.offset in self._suspects.get(number, ())]
        if not suspects:
            return messages
        self._suspects[number].difference_update(suspects)
        of_offset = {message.offset: message for message in messages}
        found = deadly([of_offset[offset].body for offset in suspects], self._settings.use_case)
        for offset in (suspects[place] for place in found):
            self._context.logger.error_with(
                "A message ends every process that takes it: it becomes a dead letter", shard=number, offset=offset
            )
            of_offset[offset] = msgspec.structs.replace(of_offset[offset], poison=True)
        return list(of_offset.values())

    # Send.

    async def _send(self) -> None:
        """Append the outboxes. The same records are appended again until they are confirmed, and nothing after them."""
        if any(shard.outbox or shard.letters for shard in self._shards.values()):
            await self.holding.until_done("encode", self._encode)
        while self._unsent:
            stream, records = self._unsent[0]
            await self.holding.until_done(f"append to {stream}", partial(self._append, stream, records))
            del self._unsent[0]

    def _append(self, stream: str, records: Records) -> None:
        self._streams.append(stream, records)

    def _encode(self) -> None:
        """Encode the outboxes of all shards as records; if that fails for one, of none."""
        rows: Records = []
        letters: Records = []
        for shard in self._shards.values():
            of_shard = shard.encoded(self._settings.meaning)
            rows += of_shard[0]
            letters += of_shard[1]
        records = ((self._settings.writes, rows), (self._settings.dead_letters, letters))
        self._unsent.extend(entry for entry in records if entry[1])
        for shard in self._shards.values():
            self._counters.rows_out += sum(batch.num_rows for *_, batch in shard.outbox)
            self._counters.dead_letters += len(shard.letters)
            shard.outbox.clear()
            shard.letters.clear()

    # Save, and acknowledge.

    def _due(self, *, everything: bool) -> list[Shard]:
        """Return the shards to save, the oldest first.

        All that are half as old as one that is due go with it; where many are saved at once, all.
        """
        unsaved = sorted((shard for shard in self._shards.values() if shard.unsaved), key=lambda shard: shard.since)
        if everything or not unsaved:
            return unsaved
        now, seconds = asyncio.get_running_loop().time(), self._settings.commit_ms / 1000
        seconds += self._longer() if now < self._applied + PAUSE else 0.0
        least = seconds / 2 if now >= unsaved[0].since + seconds else math.inf
        rows = self._settings.commit_rows
        if self._steps.saves_together:
            many = sum(one.rows for one in unsaved) >= rows * len(self._shards)
            return unsaved if many or now >= unsaved[0].since + seconds else []
        return [one for one in unsaved if now >= one.since + least or one.rows >= rows]

    def _save(self, due: Sequence[Shard]) -> None:
        now = asyncio.get_running_loop().time
        begun = now()
        saved = self._steps.save_all(due)
        self._saving = now() - begun
        for shard in saved:
            self._done[shard.number] = shard.saved = shard.checkpoint.offset
            # What a stage without state takes again may be acknowledged already, though not to be seen yet: on V3IO, an
            # acknowledgement of less would move the checkpoint back.
            if shard.keeps or shard.saved >= shard.reads_to:
                self._acks[shard.number] = shard.saved
            shard.rows = 0
            self._counters.commits += 1
        self._counters.committed_at = time.time()

    async def _acknowledge(self) -> None:
        acks, self._acks = self._acks, {}
        for shard, offset in acks.items():
            try:
                await self._context.platform.explicit_ack(nuclio_sdk.QualifiedOffset(self._topic, shard, offset))
            except Exception as error:  # it may be late or lost: messages are then repeated
                self._acks.setdefault(shard, offset)
                self._context.logger.warn_with("Can't acknowledge", shard=shard, offset=offset, why=located(error))
