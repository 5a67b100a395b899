"""Which signals end a pipeline, and that workers leave them to their supervisor."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from modelstream.runner.signals import ENDING, on_ending


@pytest.fixture(autouse=True)
def as_a_shell_leaves_them() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_that_ends_reaches_the_handler_only_inside(number: signal.Signals) -> None:
    before, seen = signal.getsignal(number), []
    with on_ending(lambda number, _: seen.append(number)):
        signal.raise_signal(number)
    assert seen == [number]
    assert signal.getsignal(number) is before


def test_the_end_of_the_terminal_is_ignored_under_nohup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    seen = []
    with on_ending(lambda number, _: seen.append(number)):
        signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    assert seen == []
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_worker_survives_them_all() -> None:
    code = (
        "import signal\n"
        "from modelstream.runner.signals import ENDING, leave_to_the_supervisor\n"
        "leave_to_the_supervisor()\n"
        "for number in ENDING: signal.raise_signal(number)\n"
        "print('alive')"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "alive\n"
