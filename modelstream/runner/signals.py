"""The signals that end a pipeline: Ctrl-C, a service manager's, and the end of the terminal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def on_ending(handler: Callable[[int, Any], object]) -> Iterator[None]:
    """Let a handler have the signals that end a pipeline, except for a SIGHUP that is ignored, as under `nohup`."""
    taken = [one for one in ENDING if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in taken}
    try:
        yield
    finally:
        for number, usual in before.items():
            signal.signal(number, usual)


def leave_to_the_supervisor() -> None:
    """Ignore them in a worker: they may reach the whole group, and the supervisor then asks its workers to stop."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
