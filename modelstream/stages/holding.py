"""A step is tried again until it succeeds: meanwhile its shards are held, and the reason is shown."""

from __future__ import annotations

import asyncio
import itertools
import math
import traceback
from collections.abc import Callable
from typing import Any

from modelstream.base.hooks import place_of
from modelstream.errors import GoneError, HookError, ModelstreamError

FIRST_BACKOFF = 0.1
LAST_BACKOFF = 5.0
"""Seconds between tries while a shard is held. 5 s keeps a recovered broker waiting less than a consumer
session's 10 s."""


class GivenUpError(Exception):
    """The time for a step is over: no more attempts, and no acknowledgements.

    `Holding` has an example.
    """


class Holding:
    """Performs the steps of one function.

    >>> from types import SimpleNamespace
    >>> tries = iter([ZeroDivisionError("of a hook"), None])
    >>> def step():
    ...     if error := next(tries):
    ...         raise error
    >>> holding = Holding("the-function", lambda: SimpleNamespace(error_with=lambda said, **_: print(said)))
    >>> asyncio.run(holding.until_done("take", step))
    Holding
    >>> holding.reason
    ''
    """

    def __init__(self, function: str, logger: Callable[[], Any]) -> None:
        self.reason = ""
        """Why the function is held, with the row that a hook failed at; empty if it is not."""
        self.logged = ""
        """The same without values of events."""
        self.gone: GoneError | None = None
        """Why it is held for good: a file that it uses was deleted."""
        self.hopeless = False
        """It is held, and no further attempt will succeed: a hook of the notebook is wrong."""
        self._function, self._logger = function, logger
        self._end = math.inf
        self._ends_sooner = asyncio.Event()

    def give_up_at(self, end: float) -> None:
        """Let steps fail for good when they fail after a time of the event loop; infinity: they never do."""
        self._end = end
        self._ends_sooner.set()

    async def until_done(self, what: str, action: Callable[[], None]) -> None:
        """Perform an action; while it fails, show the reason, and wait. Raises GivenUpError."""
        for attempt in itertools.count():
            try:
                action()
            except Exception as error:  # an outage within a hook, or a defect: hold the shard, never lose a row
                self._show(what, error)
                if not await self._wait(min(FIRST_BACKOFF * 2 ** min(attempt, 10), LAST_BACKOFF)):
                    raise GivenUpError(self.logged) from error
            else:
                self.reason, self.logged, self.hopeless = "", "", False
                return

    def _show(self, what: str, error: Exception) -> None:
        self.hopeless = isinstance(error, HookError)
        if isinstance(error, ModelstreamError):
            self.gone = error if isinstance(error, GoneError) else self.gone
            reason, logged = (
                f"{said}; {error.remedy}" if error.remedy else said for said in (str(error), error.logged)
            )
        else:
            reason, logged = located(error), _without_values(error)
        if self.reason != reason:
            self._logger().error_with("Holding", function=self._function, what=what, why=logged)
        self.reason, self.logged = reason, logged

    async def _wait(self, seconds: float) -> bool:
        """Wait before the next attempt; return whether there may be one."""
        loop = asyncio.get_running_loop()
        again = loop.time() + seconds
        while self._end > loop.time():
            self._ends_sooner.clear()
            try:
                async with asyncio.timeout_at(min(again, self._end)):
                    await self._ends_sooner.wait()
            except TimeoutError:
                return again < self._end
        return False


def located(error: Exception) -> str:
    """Return an unexpected error with the place in the notebook that it came from, or else in the code.

    >>> located(KeyError("x"))
    "KeyError: 'x'"
    """
    place = place_of(error.__traceback__).removesuffix(": ")
    if not place and (frames := traceback.extract_tb(error.__traceback__)):
        place = f"{frames[-1].filename}, line {frames[-1].lineno}"
    return f"{type(error).__name__}: {error}" + (f" ({place})" if place else "")


def _without_values(error: Exception) -> str:
    """Return an unexpected error as it may be logged: what a hook raised may quote an event, so only its class."""
    if place := place_of(error.__traceback__).removesuffix(": "):
        return f"{type(error).__name__} ({place})"
    return located(error)
