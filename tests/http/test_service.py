"""What `serve` does besides HTTP: it ends when it is told."""

from __future__ import annotations

import os
import signal

import pytest

from modelstream.http import service as module
from modelstream.runner.signals import ENDING


@pytest.mark.parametrize("number", ENDING)
def test_the_first_signal_asks_to_end_and_the_second_ends_at_once(number: signal.Signals) -> None:
    usual = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests run under nohup
    before = signal.getsignal(number)
    with module._stopping() as stopping:
        assert not stopping.is_set()
        os.kill(os.getpid(), number)
        assert stopping.wait(5)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            stopping.wait(0)
    assert signal.getsignal(number) is before
    signal.signal(signal.SIGHUP, usual)
