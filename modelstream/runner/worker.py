"""A worker: a process that runs one function on some shards, as Nuclio's Python wrapper does.

The function sees the real `nuclio_sdk` classes and the contract of `docs/architecture.md`: `init_context` once,
then `handler` for one message at a time, in order per shard; a message is delivered again after a restart
unless it was acknowledged; drain and termination callbacks.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import logging
import os
import sys
import threading
import time
import types
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import nuclio_sdk
import nuclio_sdk.event
import nuclio_sdk.logger

from modelstream import notebooks
from modelstream.base.timestamps import datetime_of
from modelstream.base.without_pandas import start_without_pandas
from modelstream.errors import GoneError, ModelstreamError, UnavailableError
from modelstream.runner.acknowledging import Acknowledgements
from modelstream.runner.line import OUTAGE, Command, Line, Report, obey
from modelstream.runner.signals import leave_to_the_supervisor
from modelstream.settings import from_environment
from modelstream.stores import Stores
from modelstream.streams import Message, Streams

if TYPE_CHECKING:
    from modelstream.stages.base import Stage

FIRST_PAUSE, LAST_PAUSE = 0.002, 0.010
"""Seconds between two checks for new messages, where a stream can't wake us. A check costs about 10 µs; four hops of 10
ms each delay an event by 40 ms."""
IDLE_PAUSE = 0.1
"""The same where it can: a process that is killed between its append and the bell wakes nobody."""
BATCH_MESSAGES, BATCH_BYTES = 2048, 8_000_000
REPORT_EVERY = 0.2
GRACE = 3.0
"""Seconds in which a worker may flush when it is asked to stop; after that it ends at once, and loses nothing."""


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker runs, besides the settings in its environment: its command line, as JSON."""

    notebook: str
    serving: bool = False
    """An MLRun serving function: its entry points are those that MLRun appends to the notebook's code."""
    shards: tuple[int, ...]
    worker: int = 0
    socket: str = ""
    """Path of the Unix socket at which the function answers HTTP events, if it does."""


class Worker:
    """Runs the entry points of a function over a part of a stream's shards."""

    def __init__(self, assignment: Assignment, line: Line) -> None:
        self.assignment = assignment
        self._line = line
        self._settings = from_environment()
        self._streams: Streams = Stores.of(self._settings).streams
        self._loop = asyncio.new_event_loop()
        self._draining = self._stopping = False
        self._rung = asyncio.Event()
        self._stage: Stage | None = None
        self._busy = asyncio.Lock()
        self._acks = Acknowledgements(partial(self._streams.ack, self._settings.function), self._cannot_acknowledge)
        self._ids = itertools.count()
        self.context = self._new_context()

    def _new_context(self) -> Any:
        logger = nuclio_sdk.logger.Logger(logging.INFO, self._settings.function)
        logger.set_handler("default", sys.stdout, nuclio_sdk.logger.HumanReadableFormatter())
        if self.assignment.serving:  # at INFO, MLRun logs the notebook's whole namespace, Python's licence included
            for handler in logging.getLogger(self._settings.function).handlers:
                handler.setLevel(logging.WARNING)
        platform = nuclio_sdk.Platform("local", "modelstream", on_control_callback=self._acknowledge)
        trigger = nuclio_sdk.event.TriggerInfo("modelstream", self._settings.reads)
        return nuclio_sdk.Context(logger, platform, str(self.assignment.worker), trigger)

    def run(self) -> int:
        """Run until asked to stop. Returns the exit status."""
        obey(self._line, self._on_command)
        threading.Thread(target=self._report_often, name="reports", daemon=True).start()
        try:
            return self._loop.run_until_complete(self._main())
        except Exception as error:
            known = _known(error)
            if known is None:
                raise
            if isinstance(known, UnavailableError):  # while starting: the supervisor tries again
                print(f"{known}; {known.remedy}", flush=True)
                self._line.send(Report(held=f"{known}; {known.remedy}"))
                return OUTAGE
            self._line.send(Report(error=str(known), remedy=known.remedy, gone=isinstance(known, GoneError)))
            return 2

    async def _main(self) -> int:
        module = notebooks.load(self.assignment.notebook, _footer() if self.assignment.serving else "")
        if hasattr(module, "init_context"):
            await _awaited(module.init_context(self.context))
        self._stage = getattr(self.context.platform, "stage", None)
        if self._stage is not None:
            self._stage.check(self.assignment.shards)
        server = await self._serve_http(module)
        gc.freeze()  # hundreds of thousands of objects that libraries made: never garbage, so never looked at again
        self._line.send(self._report())
        await self._pump(module.handler)
        if server is not None:
            server.close()
        await _awaited(self.context.platform._on_signal("termination"))
        with suppress(ModelstreamError):  # the messages will be repeated
            self._acks.make()
        self._line.send(self._report())
        self._streams.close()
        return 0

    async def _pump(self, handler: Callable[[Any, Any], Any]) -> None:
        """Deliver messages, one at a time per worker, from after the last that was acknowledged."""
        offsets = self._begin()
        bell = self._listen()
        pause = FIRST_PAUSE
        version = None
        while not self._is_stopping():
            now = self._changed()
            found = False
            if now is None or now != version:
                version = now
                for shard in offsets:
                    for message in self._read(shard, offsets[shard]):
                        found = True
                        async with self._busy:
                            await _awaited(handler(self.context, self._event(message)))
                        offsets[shard] = message.offset + 1
                        if self._is_stopping():
                            return
            await asyncio.sleep(0)  # for HTTP, and for a stage's cycle
            if found:
                version, pause = None, FIRST_PAUSE
                continue
            if self._draining:
                self._draining = False
                await _awaited(self.context.platform._on_signal("drain"))
                self._line.send(self._report())
                offsets, version = self._begin(), None  # as in Nuclio, what was not acknowledged comes again
            await self._rest(pause if bell is None else IDLE_PAUSE)
            pause = min(pause * 1.5, LAST_PAUSE)

    def _listen(self) -> int | None:
        """Be woken by what is appended to the stream, where it can do that."""
        bell = self._streams.listen(self._settings.reads)
        if bell is not None:

            def wake() -> None:
                os.read(bell, 1 << 16)
                self._rung.set()

            self._loop.add_reader(bell, wake)
        return bell

    async def _rest(self, seconds: float) -> None:
        """Wait for the bell or a command, but not for long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._rung.wait(), seconds)
        self._rung.clear()

    def _begin(self) -> dict[int, int]:
        """Return the offset of each shard's first message: after the last that was acknowledged."""
        while not self._is_stopping():
            try:
                self._acks.make()
                acked = self._streams.acked(self._settings.function, self._settings.reads)
                ranges = self._streams.ranges(self._settings.reads)
                return {shard: max(acked.get(shard, -1) + 1, ranges[shard][0]) for shard in self.assignment.shards}
            except UnavailableError as error:
                self._cannot_read(error)
        return {}

    def _is_stopping(self) -> bool:
        return self._stopping

    def _changed(self) -> int | None:
        try:
            return self._streams.version(self._settings.reads)
        except UnavailableError:
            return None

    def _read(self, shard: int, offset: int) -> list[Message]:
        try:
            return self._streams.read(self._settings.reads, shard, offset, BATCH_MESSAGES, BATCH_BYTES)
        except UnavailableError as error:
            self._cannot_read(error)
            return []

    def _cannot_read(self, error: UnavailableError) -> None:
        self.context.logger.warn_with("Can't read", stream=self._settings.reads, why=str(error))
        time.sleep(REPORT_EVERY)

    def _cannot_acknowledge(self, error: ModelstreamError) -> None:
        self.context.logger.warn_with("Can't acknowledge yet", stream=self._settings.reads, why=str(error))

    def _event(self, message: Message) -> Any:
        stream = self._settings.reads
        return nuclio_sdk.Event(
            body=message.body,
            content_type="",
            trigger=self.context.trigger,
            _id=str(next(self._ids)),
            path=stream,
            topic=stream,
            size=len(message.body),
            timestamp=datetime_of(message.appended_at).replace(tzinfo=None),
            shard_id=message.shard,
            offset=message.offset,
            method="",
            url="",
            num_shards=0,
            _type="",
            type_version="",
            version="",
        )

    async def _acknowledge(self, message: dict[str, Any]) -> None:
        attributes = message["attributes"]
        self._acks.note(attributes["topic"], attributes["partition"], attributes["offset"])

    async def _serve_http(self, module: types.ModuleType) -> asyncio.Server | None:
        if not self.assignment.socket:
            return None
        from modelstream.runner.rpc import serve

        async def answer(event: Any) -> Any:
            async with self._busy:
                return await _awaited(module.handler(self.context, event))

        return await serve(Path(self.assignment.socket), answer)

    def _on_command(self, command: Command) -> None:
        self._loop.call_soon_threadsafe(self._follow, command)

    def _follow(self, command: Command) -> None:
        if command.do == "drain":
            self._draining = True
            self._rung.set()
        else:
            self._stopping = True
            if self._stage is not None:
                self._stage.give_up()
            self._rung.set()
            threading.Timer(GRACE, lambda: os._exit(0)).start()

    def _report(self) -> Report:
        stage = self._stage
        if stage is None:
            return Report(ready=True)
        report = Report(
            ready=True,
            counters=stage.counters,
            held=stage.held,
            held_logged=stage.held_logged,
            hopeless=stage.hopeless,
            model=stage.model,
        )
        if stage.gone is not None:
            report = msgspec.structs.replace(report, error=str(stage.gone), remedy=stage.gone.remedy, gone=True)
        return report

    def _report_often(self) -> None:
        while True:
            time.sleep(REPORT_EVERY)
            if self._stage is not None:
                self._line.send(self._report())


def _known(error: BaseException | None) -> ModelstreamError | None:
    """Return the ModelstreamError that caused an error, if any: MLRun wraps it when a model can't be loaded."""
    while error is not None and not isinstance(error, ModelstreamError):
        error = error.__cause__
    return error


def _footer() -> str:
    from modelstream.stages.model_server import entry_points

    return entry_points()


async def _awaited(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


def main() -> None:
    """Run the worker that the command line describes."""
    leave_to_the_supervisor()
    start_without_pandas()
    assignment = msgspec.json.decode(sys.argv[1], type=Assignment)
    line = Line.inherited()
    status = Worker(assignment, line).run()
    sys.stdout.flush()
    os._exit(status)  # threads of libraries can't hold up the end


if __name__ == "__main__":
    main()
