"""What every stream function does: take messages, send the results on, make the state durable, acknowledge.

The order of effects is the promise (docs/delivery.md): a stage sends downstream, then makes its own state
durable, then acknowledges. A crash anywhere in between repeats messages, and watermarks drop what was seen.

This module has what a subclass sees. `cycle` brings messages through the steps, `inbox` keeps those that wait, and
`holding` repeats a step that fails. If one fails in the middle (an unavailable table, an exception in a hook), the
shard's state is dropped and read again from where it is durable, and the messages since then are taken again: no
half-applied message is ever sent or stored.
"""

from __future__ import annotations

import abc
import asyncio
import signal
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from modelstream.errors import ConfigurationError, GoneError
from modelstream.messages.codec import Decoded, Kind, UnreadableError, decode
from modelstream.messages.dead_letters import letter
from modelstream.messages.identity import Checkpoint, stream_origin, stream_position
from modelstream.settings import Settings
from modelstream.stages.counters import Counters, ServedModel
from modelstream.stages.cycle import Cycle
from modelstream.stages.shard import Incoming, Shard
from modelstream.streams import Streams

DRAIN = signal.SIGUSR2
"""The signal by which Nuclio's processor asks a worker to drain."""


class Stage(abc.ABC):
    """A function between two streams. Subclasses say what a message does (`take`) and what is kept (`save`).

    >>> import tempfile
    >>> import asyncio
    >>> import nuclio_sdk
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
        self.model: ServedModel | None = None
        """The model that it serves, if it has one."""
        self.cycle = Cycle(self, context, settings, streams, self.counters)
        self._context = context
        self._heeds = False
        self._draining: asyncio.Task[None] | None = None

    # What a subclass is.

    @abc.abstractmethod
    def open(self, shard: int) -> Checkpoint | None:
        """Read the shard's durable state, replacing any in memory.

        Return None if the stage keeps no state: then what was acknowledged is done.
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

    def save_all(self, shards: Sequence[Shard]) -> Sequence[Shard]:
        """Make the state of shards durable, the oldest first; return those that are done, at least one.

        Here it is one, since messages that came meanwhile go before the next; a subclass may do all at once.
        """
        self.save(shards[0])
        return shards[:1]

    @property
    def saves_together(self) -> bool:
        """Whether `save_all` makes many shards durable at once."""
        return False

    def drop(self, shards: Iterable[int]) -> None:  # noqa: B027 (most keep nothing beside the checkpoint)
        """Forget what is in memory of shards, which may be another worker's from now on."""

    # What a subclass may use.

    def decoded(self, message: Incoming, kind: Kind) -> Decoded:
        """Return the rows of a message. Raises UnreadableError, also if they are of another kind.

        Raises ConfigurationError for rows that another definition made, which holds the shard.
        """
        self.check_poison(message)
        rows = decode(message.body)
        if rows.kind != kind:
            raise UnreadableError(f"a message of {rows.kind} in the stream {self.settings.reads}, which is for {kind}")
        made, ours = rows.metadata.get("definition", ""), self.settings.meaning
        if made and ours and made != ours:
            raise ConfigurationError(
                f"{rows.kind} in {self.settings.reads} were made with another definition of the features than this "
                f"function has ({made[:8]}… instead of {ours[:8]}…), at offset {message.offset} of shard "
                f"{message.shard}",
                remedy="give all functions the same use-case file, and deploy them together",
            )
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

    def forget(self, shard: int) -> None:
        """Drop a shard whose durable state is ahead of this one; its next message reads that state first."""
        self.cycle.forget(shard)

    # What the platform calls, and sees.

    def start(self) -> None:
        """Register the callbacks and start to work. Call it inside the worker's event loop.

        The stage is then at `context.platform.stage`, because MLRun's graph server passes on only the platform of
        Nuclio's context, not `user_data`.
        """
        platform = self._context.platform
        platform.set_drain_callback(self.drain)
        platform.set_termination_callback(self.terminate)
        platform.stage = self
        self.streams.expect_appends()
        self.cycle.start()

    def check(self, shards: Sequence[int]) -> None:
        """Raise LostStateError if effects of acknowledged messages are missing, because an older copy was restored.

        The next message would show this too, but there may be none.
        """
        self.cycle.check(shards)

    async def handle(self, event: Any) -> None:
        """Take a message over. Returns when there is room for the next; never raises."""
        if not self._heeds:
            self._heeds = True
            self._heed_drains()
        await self.cycle.put(Incoming.of(event), event.topic or event.path)

    def _heed_drains(self) -> None:
        """Drain when the signal comes, in place of Nuclio's wrapper, where that is what runs this worker.

        The wrapper would throw away, without an answer, what it is given from then on, and what is on its way. But the
        processor gives a worker one more message of each partition that waits for it, and waits for the answer: each
        would cost 5 s, and the worker's life.
        """
        if signal.getsignal(DRAIN) in (signal.SIG_DFL, signal.SIG_IGN):
            return

        def drain() -> None:
            self._draining = asyncio.get_running_loop().create_task(self.drain())

        asyncio.get_running_loop().add_signal_handler(DRAIN, drain)

    async def drain(self) -> None:
        """Finish what can be finished in a second or two, and drop all shards: another worker may own them next."""
        await self.cycle.drain()

    def give_up(self) -> None:
        """Stop retrying held shards: the worker is about to end."""
        self.cycle.stop()

    async def terminate(self) -> None:
        """Finish what can be finished without waiting, and take no more messages."""
        self.give_up()
        await self.drain()

    @property
    def held(self) -> str:
        """Why the stage is held, with the row that a hook failed at; empty if it is not."""
        return self.cycle.holding.reason

    @property
    def held_logged(self) -> str:
        """The same without values of events."""
        return self.cycle.holding.logged

    @property
    def gone(self) -> GoneError | None:
        """Why it is held for good: a file that it uses was deleted."""
        return self.cycle.holding.gone

    @property
    def hopeless(self) -> bool:
        """It is held, and no further attempt will succeed: a hook of the notebook is wrong."""
        return self.cycle.holding.hopeless
