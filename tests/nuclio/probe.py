"""What a function's module is given in these tests, in its own process: it watches, and changes nothing.

The text `FOOTER` follows the function's code. Every acknowledgement is compared, before it leaves the process, with
what other connections find in the stores: it must be durable by then. What is wrong goes into a file.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelstream.messages.codec import decode, is_framed
from modelstream.settings import Settings, from_environment
from modelstream.stores import Stores

FOOTER = "\nfrom tests.nuclio.probe import watch\ninit_context, handler = watch(init_context, handler)\n"
WRONG = "TESTS_NUCLIO_WRONG"
"""The environment variable with the file that violations go to."""
KEEPS = "TESTS_NUCLIO_KEEPS"
"""The environment variable with the name of the table or log that the function keeps, empty for none."""


def watch(init_context: Callable[..., Any], handler: Callable[..., Any]) -> tuple[Any, Any]:
    """Return a function's entry points, watched. A synchronous one stays so: Nuclio awaits only what is `async`."""

    async def begin(context: Any) -> None:
        _watch_platform(context)
        await init_context(context)
        _watch_drains(context)

    def begin_now(context: Any) -> None:
        _watch_platform(context)
        init_context(context)
        _watch_drains(context)

    async def handle(context: Any, event: Any) -> Any:
        context.logger.info_with("taken", shard=event.shard_id, offset=event.offset)
        result = handler(context, event)
        return await result if inspect.isawaitable(result) else result

    handle.__module__ = handler.__module__  # where Nuclio looks for init_context
    return begin if inspect.iscoroutinefunction(init_context) else begin_now, handle


def wrong(what: str) -> None:
    """Note a violation. Appending one line is atomic, so many processes may share the file."""
    with Path(os.environ[WRONG]).open("a") as file:
        file.write(what + "\n")


def _watch_platform(context: Any) -> None:
    platform, durable = context.platform, Durable(from_environment())
    acknowledge = platform.explicit_ack

    async def explicit_ack(offset: Any) -> None:
        problem = durable.problem(offset.partition, offset.offset)
        if problem:
            wrong(f"{durable.settings.function} acknowledges {offset.offset} of shard {offset.partition}: {problem}")
        await acknowledge(offset)

    platform.explicit_ack = explicit_ack
    for kind in ("drain", "termination"):
        _watch_callback(context, kind)


def _watch_callback(context: Any, kind: str) -> None:
    register = getattr(context.platform, f"set_{kind}_callback")

    def set_callback(callback: Callable[[], Any]) -> None:
        async def called() -> None:
            result = callback()
            if inspect.isawaitable(result):
                await result
            context.logger.info_with("called back", kind=kind)

        register(called)

    setattr(context.platform, f"set_{kind}_callback", set_callback)


def _watch_drains(context: Any) -> None:
    """Watch the drains that the stage does at Nuclio's signal, without the wrapper."""
    stage = context.platform.stage
    drain = stage.drain

    async def drained() -> None:
        await drain()
        context.logger.info_with("called back", kind="drain")

    stage.drain = drained


class Durable:
    """What of a function's effects others can see: its own connections, opened for this."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._stores = Stores.of(settings)
        self._streams = self._stores.streams
        self._read = dict.fromkeys(range(settings.shards), 0)
        self._sent: set[tuple[str, int]] = set()

    def problem(self, shard: int, offset: int) -> str:
        """Return why a shard must not be acknowledged up to an offset; "" if it may."""
        stores, keeps = self._stores, os.environ[KEEPS]
        if keeps in stores.parquet_logs:
            kept = stores.parquet_logs[keeps].checkpoint(shard).offset
        elif keeps == stores.names.features:
            kept = stores.features.checkpoint(shard).offset
        else:
            return self._not_sent(shard, offset)
        return "" if kept >= offset else f"its state is durable up to {kept}"

    def _not_sent(self, shard: int, offset: int) -> str:
        """Return whether a prediction is missing for the vectors of the message at an offset."""
        while found := self._streams.read(self.settings.writes, shard, self._read[shard], 1000, 1 << 30):
            self._read[shard] = found[-1].offset + 1
            for message in found:
                rows = decode(message.body)
                self._sent.update((rows.origin, position) for position in rows.batch.column("position").to_pylist())
        (message,) = self._streams.read(self.settings.reads, shard, offset, 1, 1)
        if not is_framed(message.body):
            return ""
        rows = decode(message.body)
        missing = {(rows.origin, position) for position in rows.batch.column("position").to_pylist()} - self._sent
        return f"{len(missing)} predictions of it are not sent" if missing else ""
