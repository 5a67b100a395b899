"""What every stream function does: take messages, send the results on, make the state durable, acknowledge.

The order of effects is the promise (docs/delivery.md): a stage sends downstream, then makes its own state
durable, then acknowledges. A crash anywhere in between repeats messages, and watermarks drop what was seen.

A stage keeps, per shard, the messages that it has taken but not yet made durable. If a step fails in the middle (an
unavailable table, an exception in a hook), the shard's state is dropped and read again from where it is durable, and
those messages are taken again: no half-applied message is ever sent or stored.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import itertools
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import nuclio_sdk
import numpy as np

from modelstream.base.hooks import place_of
from modelstream.errors import ConfigurationError, GoneError, HookError, LostStateError, ModelstreamError
from modelstream.messages.codec import Decoded, Kind, UnreadableError, decode
from modelstream.messages.dead_letters import letter
from modelstream.messages.identity import Checkpoint, stream_origin, stream_position
from modelstream.settings import Settings
from modelstream.stages.counters import Counters, ServedModel
from modelstream.stages.poison import PoisonWatch, deadly
from modelstream.stages.shard import Incoming, Records, Shard
from modelstream.streams import Streams

FIRST_BACKOFF = 0.1
LAST_BACKOFF = 5.0
"""Seconds between tries while a shard is held. 5 s keeps a recovered broker waiting less than a consumer
session's 10 s."""
SHORTEST_PAUSE = 0.001
"""Shortest pause, in seconds, between two checks of what is due: without it, `linger_ms` 0 would keep a core busy
checking."""
TAKE_BYTES = 128_000
"""This many bytes of waiting messages are taken without waiting for more: thousands of events, which then cost 1 µs
each. A single event costs 0.3 to 1 ms by itself, most of it in calls that take as long for a hundred."""


_OF_ONE_MOMENT = (
    "restore streams, tables and logs from the same moment; or start over: --fresh with the --data folder "
    "that they belong to, or another prefix"
)


class _StoppedError(Exception):
    """The worker is ending while a shard is held: no more attempts, and no acknowledgements."""


class Stage(abc.ABC):
    """A function between two streams. Subclasses say what a message does (`take`) and what is kept (`save`).

    >>> import tempfile
    >>> import pyarrow as pa
    >>> from datetime import UTC, datetime
    >>> from modelstream.messages.codec import encode
    >>> from modelstream.streams import open_streams
    >>> class Echo(Stage):
    ...     def open(self, shard): ...  # nothing is kept
    ...     def take(self, shard, message):
    ...         rows = self.decoded(message, "vectors")
    ...         shard.send(shard.number, rows.kind, rows.origin, rows.batch)
    ...         return rows.batch.num_rows
    ...     def save(self, shard): ...
    >>> async def acknowledge(message):
    ...     print("done up to offset", message["attributes"]["offset"])
    >>> context = nuclio_sdk.Context(platform=nuclio_sdk.Platform("local", on_control_callback=acknowledge))
    >>> settings = Settings(function="echo", use_case="", reads="in", writes="out")
    >>> async def work(stage, *bodies):
    ...     stage.start()
    ...     for offset, body in enumerate(bodies):
    ...         await stage.handle(nuclio_sdk.Event(body=body, shard_id=0, offset=offset, timestamp=datetime.now(UTC)))
    ...     await stage.terminate()
    >>> with tempfile.TemporaryDirectory() as folder, open_streams(f"sqlite://{folder}") as streams:
    ...     made = [streams.create(name, shards=8) for name in ("in", "out", "dead-letters")]
    ...     stage = Echo(context, settings, streams, epoch=0)
    ...     asyncio.run(work(stage, encode("vectors", "file", pa.record_batch({"position": [0, 1]})), b"?"))
    ...     stage.counters.rows_in, stage.counters.rows_out, stage.counters.dead_letters
    done up to offset 1
    (3, 2, 1)

    The steps are generators that yield how many seconds to wait before the next attempt.
    """

    def __init__(self, context: Any, settings: Settings, streams: Streams, epoch: int) -> None:
        """Take Nuclio's context, and the epoch of the streams, which is part of stream positions.

        Raises ConfigurationError for a function that reads no stream.
        """
        if not settings.reads:
            raise ConfigurationError(
                f"{settings.function} reads no stream, and takes messages of one",
                remedy="say which it reads: `reads` under `wiring` in project.yaml, which sets MODELSTREAM_READS",
            )
        self.settings = settings
        self.streams = streams
        self.epoch = epoch
        self.counters = Counters(committed_at=time.time())
        self.held = ""
        """Why the stage is held, with the row that a hook failed at; empty if it is not."""
        self.held_logged = ""
        """The same without values of events."""
        self.gone: GoneError | None = None
        """Why it is held for good: a file that it uses was deleted."""
        self.hopeless = False
        """It is held, and no further attempt will succeed: a hook of the notebook is wrong."""
        self.model: ServedModel | None = None
        """The model that it serves, if it has one."""
        self._context = context
        self._shards: dict[int, Shard] = {}
        self._retake: dict[int, list[Incoming]] = {}
        self._poison = PoisonWatch.of(settings)
        self._suspects: dict[int, set[int]] = {}
        self._unsent: list[tuple[str, Records]] = []
        self._acks: dict[int, int] = {}
        self._topic = settings.reads
        self._inbox: list[Incoming] = []
        self._waiting_bytes = 0
        self._taken_at = 0.0
        self._lock = asyncio.Lock()
        self._work = asyncio.Event()
        self._stopping = False
        self._timer: asyncio.Task[None] | None = None

    # What a subclass is.

    @abc.abstractmethod
    def open(self, shard: int) -> Checkpoint | None:
        """Read the shard's durable state, replacing any in memory.

        Return None if the stage keeps no state: it may start anywhere.
        """

    @abc.abstractmethod
    def take(self, shard: Shard, message: Incoming) -> int:
        """Apply a message to the state in memory, and put the results into the outbox; return its number of rows.

        Raises UnreadableError for a message that can never be read, before it has changed anything.
        """

    def take_all(self, groups: Sequence[tuple[Shard, list[Incoming]]]) -> list[int]:
        """Apply the messages of several shards, in order; return the rows of each. A subclass may do them at once."""
        return [sum(self._take_or_refuse(shard, message) for message in messages) for shard, messages in groups]

    @abc.abstractmethod
    def save(self, shard: Shard) -> None:
        """Make the state up to `shard.checkpoint` durable.

        Any exception from this, `open` or `take` holds the shard: the reason is shown, and the step is tried again
        until it succeeds.
        """

    # What a subclass may use.

    def decoded(self, message: Incoming, kind: Kind) -> Decoded:
        """Return the rows of a message. Raises UnreadableError, also if they are of another kind."""
        self.check_poison(message)
        rows = decode(message.body)
        if rows.kind != kind:
            raise UnreadableError(f"a message of {rows.kind} in the stream {self.settings.reads}, which is for {kind}")
        return rows

    def check_poison(self, message: Incoming) -> None:
        """Raise UnreadableError for a message that must not be read."""
        if message.poison:
            raise UnreadableError("a message that ends every process which takes it")

    def identity(self, message: Incoming) -> tuple[str, int]:
        """Return the origin and the first position for a message whose events have no identity of their own."""
        return stream_origin(self.settings.reads, message.shard), stream_position(self.epoch, message.offset)

    def refuse(self, shard: Shard, message: Incoming, reason: str) -> None:
        """Turn a whole message into a dead letter; only once, if the stage keeps watermarks."""
        origin, position = self.identity(message)
        marks = shard.checkpoint.watermarks
        if not shard.keeps or marks.advance(origin, np.array([position]), np.zeros(1, np.uint8))[0]:
            at = (self.settings.reads, message.shard, message.offset)
            shard.letters.append(letter(reason, origin, position, at, message.body))

    def _take_or_refuse(self, shard: Shard, message: Incoming) -> int:
        try:
            return self.take(shard, message)
        except UnreadableError as error:
            self.refuse(shard, message, str(error))
            return 1

    # What the platform calls.

    def start(self) -> None:
        """Register the callbacks and start the flush timer. Call it inside the worker's event loop.

        The stage is then at `context.platform.stage`, because MLRun's graph server passes on only the platform of
        Nuclio's context, not `user_data`.
        """
        platform = self._context.platform
        platform.set_drain_callback(self.drain)
        platform.set_termination_callback(self.terminate)
        platform.stage = self
        self._timer = asyncio.get_running_loop().create_task(self._flush_in_time())

    def check(self, shards: Sequence[int]) -> None:
        """Raise LostStateError if effects of acknowledged messages are missing, because an older copy was restored.

        The next message would show this too, but there may be none.
        """
        acked = self.streams.acked(self.settings.function, self.settings.reads)
        for shard in shards:
            kept = self._open(shard)
            if kept is not None and acked[shard] >= self.streams.first_offset and kept.offset < acked[shard]:
                raise self._missing(shard, kept.offset, acked[shard] + 1)

    def give_up(self) -> None:
        """Stop retrying held shards: the worker is about to end."""
        self._stopping = True

    async def handle(self, event: Any) -> None:
        """Take one message. Returns when the worker may take the next; never raises."""
        async with self._lock:
            await self._drive(self._handling(event))
        self._work.set()

    async def drain(self) -> None:
        """Flush everything, then drop all shards: another worker may own them next."""
        async with self._lock:
            await self._drive(self._flushing(due_only=False))
            self._shards.clear()
            self._retake.clear()
            self._unsent.clear()

    def forget(self, shard: int) -> None:
        """Drop a shard whose durable state is ahead of this one; its next message reads that state first."""
        self._shards.pop(shard, None)

    async def terminate(self) -> None:
        """Flush what can be flushed without waiting, and take no more messages."""
        self._stopping = True
        await self.drain()

    # How it is done.

    async def _drive(self, steps: Iterator[float]) -> None:
        with contextlib.suppress(_StoppedError):
            for wait in steps:
                await asyncio.sleep(wait)
        acks, self._acks = self._acks, {}
        for shard, offset in acks.items():
            try:
                await self._context.platform.explicit_ack(nuclio_sdk.QualifiedOffset(self._topic, shard, offset))
            except Exception as error:  # it may be late or lost: messages are then repeated
                self._acks.setdefault(shard, offset)
                self._context.logger.warn_with("Can't acknowledge", shard=shard, offset=offset, why=_located(error))

    async def _flush_in_time(self) -> None:
        pause = max(self.settings.linger_ms / 3000, SHORTEST_PAUSE)
        while True:
            await self._work.wait()
            async with self._lock:
                await self._drive(self._flushing(due_only=True))
                if not self._inbox and not any(shard.unsaved for shard in self._shards.values()):
                    self._work.clear()
            await asyncio.sleep(pause)

    def _handling(self, event: Any) -> Iterator[float]:
        message = Incoming.of(event)
        self._topic = event.topic or event.path or self._topic
        self._inbox.append(message)
        self._waiting_bytes += len(message.body)
        yield from self._flushing(due_only=True)

    def _taking(self) -> Iterator[float]:
        """Take what is in the inbox."""
        messages, self._inbox, self._waiting_bytes = self._inbox, [], 0
        yield from self._holding(f"take from {self.settings.reads}", partial(self._receive, messages))
        self._taken_at = time.monotonic()

    def _holding(self, what: str, action: Callable[[], None]) -> Iterator[float]:
        """Perform an action; while it fails, show the reason, and wait."""
        for attempt in itertools.count():
            try:
                action()
            except ModelstreamError as error:
                reason, logged = (
                    f"{said}; {error.remedy}" if error.remedy else said for said in (str(error), error.logged)
                )
                self.gone = error if isinstance(error, GoneError) else self.gone
                self.hopeless = isinstance(error, HookError)
            except Exception as error:  # an outage within a hook, or a defect: hold the shard, never lose a row
                reason, logged = _located(error), _logged(error)
                self.hopeless = False
            else:
                self.held, self.held_logged, self.hopeless = "", "", False
                return
            if self.held != reason:
                self._context.logger.error_with("Holding", function=self.settings.function, what=what, why=logged)
            self.held, self.held_logged = reason, logged
            if self._stopping:
                raise _StoppedError(reason)
            yield min(FIRST_BACKOFF * 2 ** min(attempt, 10), LAST_BACKOFF)

    def _receive(self, messages: list[Incoming]) -> None:
        """Apply those messages that have not been applied, all shards at once."""
        fresh: dict[int, list[Incoming]] = {}
        for message in messages:
            number = message.shard
            shard = self._shards.get(number)
            last = fresh[number][-1].offset if number in fresh else shard.checkpoint.offset if shard else -1
            if shard is None or message.offset > last + 1:
                self._apply(fresh)
                fresh = {}
                shard = self._reopen(message)  # new here, or another worker had the shard in between
                last = shard.checkpoint.offset
            if message.offset > last:
                fresh.setdefault(number, []).append(message)
            elif 0 <= message.offset <= shard.saved:
                self._acks[number] = shard.saved
        self._apply(fresh)

    def _reopen(self, message: Incoming) -> Shard:
        """Read a shard's durable state, and take the messages after it again."""
        number = message.shard
        old = self._shards.pop(number, None)
        again = self._retake.pop(number, old.unsaved if old is not None else [])
        try:
            kept = self._open(number)
            self._suspects[number] = self._poison.suspects(number)
            checkpoint = Checkpoint((again or [message])[0].offset - 1) if kept is None else kept
            shard = self._shards[number] = Shard(number, checkpoint, checkpoint.offset, keeps=kept is not None)
            self._apply({number: [earlier for earlier in again if earlier.offset > checkpoint.offset]})
            if kept is None:
                checkpoint.offset = max(checkpoint.offset, message.offset - 1)
            if message.offset > max(checkpoint.offset, self.streams.first_offset - 1) + 1:
                raise self._missing(number, checkpoint.offset, message.offset)
        except BaseException:
            self._shards.pop(number, None)
            self._retake[number] = again
            raise
        return shard

    def _open(self, shard: int) -> Checkpoint | None:
        """Read a shard's durable state.

        It must not be ahead of the stream: new messages would have offsets that were already applied, and be dropped as
        already seen.
        """
        kept = self.open(shard)
        if kept is not None and kept.offset >= (end := self.streams.range(self.settings.reads, shard)[1]):
            raise LostStateError(
                f"{self.settings.reads} ends at offset {end - 1} of shard {shard}, but messages up to {kept.offset} "
                "were already applied: the stream was restored from an older copy, or deleted and made again",
                remedy=_OF_ONE_MOMENT,
            )
        return kept

    def _missing(self, shard: int, kept: int, goes_on: int) -> LostStateError:
        return LostStateError(
            f"{self.settings.reads} continues at offset {goes_on} of shard {shard}, but the stored state ends at "
            f"offset {kept}: the effects of the messages in between are lost",
            remedy=_OF_ONE_MOMENT,
        )

    def _apply(self, fresh: Mapping[int, list[Incoming]]) -> None:
        """Take the messages of shards.

        If that fails, drop the shards' state, since part of the batch may be applied.
        """
        groups = [(self._shards[number], self._marked(number, fresh[number])) for number in fresh if fresh[number]]
        self._poison.taking({shard.number: (many[0].offset, many[-1].offset + 1) for shard, many in groups})
        try:
            rows = self.take_all(groups)
        except BaseException:
            for shard, _ in groups:
                self._retake[shard.number] = shard.unsaved
                del self._shards[shard.number]
            raise
        finally:
            self._poison.taking({})
        for (shard, messages), count in zip(groups, rows, strict=True):
            shard.checkpoint.offset = messages[-1].offset
            if not shard.unsaved:
                shard.since = time.monotonic()
            shard.unsaved.extend(messages)
            shard.rows += count
            self.counters.rows_in += count

    def _marked(self, number: int, messages: list[Incoming]) -> list[Incoming]:
        """Return messages with the poison among them marked: a process that took them may have ended on one."""
        suspects = [message.offset for message in messages if message.offset in self._suspects.get(number, ())]
        if not suspects:
            return messages
        self._suspects[number].difference_update(suspects)
        of_offset = {message.offset: message for message in messages}
        found = deadly([of_offset[offset].body for offset in suspects], self.settings.use_case)
        for offset in (suspects[place] for place in found):
            self._context.logger.error_with(
                "A message ends every process that takes it: it becomes a dead letter", shard=number, offset=offset
            )
            of_offset[offset] = replace(of_offset[offset], poison=True)
        return list(of_offset.values())

    def _flushing(self, *, due_only: bool) -> Iterator[float]:
        """Take and send what is due; then commit the shards that are due, once all of their rows are sent.

        Messages that arrive close together wait in the inbox for up to `linger_ms` and are taken together; a message
        that comes after a pause is taken at once.
        """
        now = time.monotonic()
        settings = self.settings
        pause_over = now - self._taken_at >= settings.linger_ms / 1000
        if self._inbox and (pause_over or self._waiting_bytes >= TAKE_BYTES or not due_only):
            yield from self._taking()
        if self._unsent or any(shard.outbox or shard.letters for shard in self._shards.values()):
            yield from self._sending()
        for shard in sorted(self._shards.values(), key=lambda shard: shard.since):
            age = now - shard.since
            due = shard.rows >= settings.commit_rows or age >= settings.commit_ms / 1000 or not due_only
            if shard.unsaved and due:
                yield from self._holding(f"commit of shard {shard.number}", partial(self._commit, shard))
                if due_only:
                    return  # messages that came meanwhile go before the next shard's commit

    def _sending(self) -> Iterator[float]:
        """Append the outboxes. The same records are appended again until they are confirmed, and nothing after them."""
        yield from self._holding("encode", self._encode)
        while self._unsent:
            stream, records = self._unsent[0]
            yield from self._holding(f"append to {stream}", partial(self._append, stream, records))
            del self._unsent[0]

    def _append(self, stream: str, records: Records) -> None:
        self.streams.append(stream, records)

    def _encode(self) -> None:
        """Encode the outboxes of all shards as records; if that fails for one, of none."""
        rows: Records = []
        letters: Records = []
        for shard in self._shards.values():
            of_shard = shard.encoded()
            rows += of_shard[0]
            letters += of_shard[1]
        records = ((self.settings.writes, rows), (self.settings.dead_letters, letters))
        self._unsent.extend(entry for entry in records if entry[1])
        for shard in self._shards.values():
            self.counters.rows_out += sum(batch.num_rows for *_, batch in shard.outbox)
            self.counters.dead_letters += len(shard.letters)
            shard.outbox.clear()
            shard.letters.clear()

    def _commit(self, shard: Shard) -> None:
        self.save(shard)
        shard.saved = shard.checkpoint.offset
        shard.unsaved = []
        shard.rows = 0
        self._acks[shard.number] = shard.saved
        self.counters.commits += 1
        self.counters.committed_at = time.time()


def _located(error: Exception) -> str:
    """Return an unexpected error with the place in the notebook that it came from, or else in the code."""
    place = place_of(error.__traceback__).removesuffix(": ")
    if not place and (frames := traceback.extract_tb(error.__traceback__)):
        place = f"{frames[-1].filename}, line {frames[-1].lineno}"
    return f"{type(error).__name__}: {error}" + (f" ({place})" if place else "")


def _logged(error: Exception) -> str:
    """Return an unexpected error as it may be logged: what a hook raised may quote an event, so only its class."""
    if place := place_of(error.__traceback__).removesuffix(": "):
        return f"{type(error).__name__} ({place})"
    return _located(error)
