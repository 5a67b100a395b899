"""A worker's acknowledgements: together, repeated until they are made, and only the highest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import pytest

from modelstream.errors import ModelstreamError, UnavailableError
from modelstream.runner.acknowledging import Acknowledgements


class Streams:
    """Acknowledges, but not the first times."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.made: list[tuple[str, dict[int, int]]] = []

    def acknowledge(self, stream: str, offsets: Mapping[int, int]) -> None:
        if self.failures:
            self.failures -= 1
            raise UnavailableError("away")
        self.made.append((stream, dict(offsets)))


async def until_made(streams: Streams, count: int) -> None:
    deadline = time.monotonic() + 30
    while len(streams.made) < count:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def test_those_of_a_cycle_are_made_by_one_call_with_the_highest_offset_of_each_shard() -> None:
    streams = Streams()

    async def work() -> None:
        acks = Acknowledgements(streams.acknowledge, print)
        for shard, offset in ((0, 7), (1, 3), (0, 9), (0, 8)):
            acks.note("serving", shard, offset)
        assert streams.made == []
        await until_made(streams, 1)
        acks.note("serving", 1, 4)
        await until_made(streams, 2)

    asyncio.run(work())
    assert streams.made == [("serving", {0: 9, 1: 3}), ("serving", {1: 4})]


def test_during_an_outage_they_are_kept_and_it_is_told_once() -> None:
    streams, told = Streams(failures=3), list[ModelstreamError]()

    async def work() -> None:
        acks = Acknowledgements(streams.acknowledge, told.append)
        acks.note("serving", 0, 7)
        await asyncio.sleep(0)
        acks.note("serving", 0, 9)
        await until_made(streams, 1)
        acks.note("serving", 0, 10)
        await until_made(streams, 2)

    asyncio.run(work())
    assert streams.made == [("serving", {0: 9}), ("serving", {0: 10})]
    assert [str(error) for error in told] == ["away"]


def test_they_can_be_made_at_once_and_what_fails_stays() -> None:
    streams = Streams(failures=1)

    async def work() -> None:
        acks = Acknowledgements(streams.acknowledge, print)
        acks.note("serving", 0, 7)
        with pytest.raises(UnavailableError):
            acks.make()
        acks.make()
        assert streams.made == [("serving", {0: 7})]
        acks.make()

    asyncio.run(work())
    assert len(streams.made) == 1
