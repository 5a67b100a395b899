"""Nuclio's signal to drain: the stage heeds it itself, and goes on with what it is given before the rebalance ends."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from modelstream.stages.base import DRAIN
from tests.stages.adder import Adder, numbers, sums
from tests.stages.harness import Harness


@pytest.fixture(autouse=True)
def nobody_heeds() -> Iterator[None]:
    assert signal.getsignal(DRAIN) == signal.SIG_DFL
    yield
    assert signal.getsignal(DRAIN) == signal.SIG_DFL


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def test_drains_at_the_signal_and_takes_what_comes_before_it_ends(harness: Harness) -> None:
    heard: list[str] = []

    async def as_in_the_wrapper() -> None:
        asyncio.get_running_loop().add_signal_handler(DRAIN, heard.append, "the wrapper, which throws messages away")
        stage = Adder(harness, commit_ms=600_000.0, commit_rows=1000)
        stage.start()
        await harness.handling(stage, *numbers(1))
        os.kill(os.getpid(), DRAIN)
        await until(lambda: harness.acks == [(0, 0)])
        await harness.handling(stage, *numbers(2, first=1))
        os.kill(os.getpid(), DRAIN)
        await until(lambda: harness.acks == [(0, 0), (0, 1)])
        assert stage.cycle.task is not None
        stage.cycle.task.cancel()
        asyncio.get_running_loop().remove_signal_handler(DRAIN)

    asyncio.run(as_in_the_wrapper())
    assert sums(harness) == [1, 3]
    assert heard == []


def test_signal_is_left_alone_where_nobody_heeds_it(harness: Harness) -> None:
    """As in the local runner: there it means nothing."""

    async def without_a_wrapper() -> None:
        stage = Adder(harness)
        await harness.handling(stage, *numbers(1))
        assert signal.getsignal(DRAIN) == signal.SIG_DFL

    asyncio.run(without_a_wrapper())
