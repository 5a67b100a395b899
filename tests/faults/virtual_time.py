"""An event loop whose clock jumps to the next timer: a minute of waiting takes no time, and every run is the same."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class Deadlock(AssertionError):  # noqa: N818
    """Every task waits, and no timer is set."""


class _Selector(selectors.SelectSelector):
    now = 1_000_000.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise Deadlock("nothing will ever happen again")
        self.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._virtual.now

    def go_on(self, seconds: float) -> None:
        """Let time pass while nothing else can run."""
        self._virtual.now += seconds
