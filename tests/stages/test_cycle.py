"""Where a stage begins, what it reads by itself, what waits is taken at once, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest

from modelstream.errors import LostStateError
from modelstream.stages.cycle import DRAIN_SECONDS, PATIENCE
from modelstream.stages.holding import LAST_BACKOFF
from modelstream.stages.inbox import ROOM_BYTES
from tests.stages.adder import AWAY, Adder, numbers, positions, stage_started, sums
from tests.stages.harness import Harness, event

# What was seen before.


def test_a_repeated_message_changes_nothing_and_is_acknowledged_again(harness: Harness) -> None:
    stage = Adder(harness)
    harness.handle(stage, *numbers(1, 2))
    harness.run(stage.drain())
    before = len(harness.effects)
    harness.handle(stage, *numbers(1, 2), *numbers(3, first=2))
    harness.run(stage.drain())
    assert sums(harness) == [1, 3, 6]
    assert set(harness.effects[before:]) == {("ack", 0, 1), ("append", "out"), ("save", 0, 2), ("ack", 0, 2)}


def test_a_repeated_message_that_is_not_saved_is_not_acknowledged(harness: Harness) -> None:
    stage = Adder(harness, commit_ms=10_000.0, commit_rows=1000)
    harness.handle(stage, *numbers(1, 2), *numbers(1, 2))
    harness.wait(1)
    assert harness.acks == []
    harness.run(stage.drain())
    assert harness.acks == [(0, 1)]
    assert sums(harness) == [1, 3]


def test_a_new_process_goes_on_from_what_was_saved(harness: Harness) -> None:
    first = Adder(harness, commit_ms=10_000.0, commit_rows=2)
    harness.handle(first, *numbers(1, 2, 3))
    second = Adder(harness)
    second.durable = dict(first.durable)
    harness.handle(second, *numbers(1, 2, 3, 4))
    harness.run(second.drain())
    assert second.durable == {0: (3, 10)}
    assert sums(harness) == [1, 3, 6, 10]


def test_after_a_gap_the_durable_state_is_read_first(harness: Harness) -> None:
    """Another worker had the shard in between."""
    stage = Adder(harness)
    harness.handle(stage, *numbers(1))
    harness.run(asyncio.sleep(0))
    stage.durable[0] = (4, 100)
    harness.handle(stage, *numbers(7, first=5))
    harness.run(stage.drain())
    assert stage.durable == {0: (5, 107)}


def test_a_shard_that_is_forgotten_is_read_anew(harness: Harness) -> None:
    stage = Adder(harness, commit_ms=10_000.0, commit_rows=1000)
    harness.handle(stage, *numbers(1, 2, 3))
    stage.durable[0] = (3, 50)
    stage.forget(0)
    harness.handle(stage, *numbers(3, 4, 5, first=2))
    harness.run(stage.drain())
    assert stage.durable == {0: (4, 55)}


def test_a_start_beyond_what_was_applied_is_held_and_said(harness: Harness) -> None:
    stage = Adder(harness)
    stage.durable[0] = (3, 6)
    harness.streams.done[0] = 6
    handling = harness.loop.create_task(harness.handling(stage, numbers(9, first=7)[0]))
    harness.wait(30)
    assert "the stored state ends at offset 3" in stage.held
    assert "--fresh" in stage.held
    assert harness.effects == []
    stage.durable[0] = (6, 10)  # restored
    harness.wait(LAST_BACKOFF)
    assert handling.done()
    harness.run(stage.drain())
    assert stage.durable == {0: (7, 19)}
    assert stage.held == ""


@pytest.mark.parametrize(("kept", "refused"), [(5, False), (4, True), (-1, True), (6, False), (9, False), (10, True)])
def test_stores_of_different_moments_are_refused_before_any_message(harness: Harness, kept: int, refused: bool) -> None:
    stage = Adder(harness)
    harness.streams.acked = lambda function, stream: {0: 5, 1: -1, 2: 99}
    harness.streams.range = lambda stream, shard: (2, 10) if shard == 0 else (0, 0)
    if kept >= 0:
        stage.durable[0] = (kept, 6)
    with pytest.raises(LostStateError, match="of shard 0") if refused else contextlib.nullcontext():
        stage.check([0, 1])


def test_a_stream_may_begin_at_another_offset(harness: Harness) -> None:
    """V3IO counts from 1."""
    harness.streams.first_offset = 1
    stage = Adder(harness)
    harness.handle(stage, *numbers(5, first=1))
    harness.run(stage.drain())
    assert harness.acks == [(0, 1)]


@pytest.mark.parametrize("stateless", [True, False])
def test_messages_that_another_process_was_given_and_did_not_finish_are_read_from_the_stream(
    harness: Harness, stateless: bool
) -> None:
    """It was killed in the middle, and this one is handed what follows: to acknowledge that would lose them."""
    for one in numbers(*range(1, 21)):
        harness.streams.give(one)
    harness.streams.done[0] = 6
    stage = Adder(harness, stateless=stateless)
    stage.durable[0] = (6, 28)
    harness.handle(stage, *numbers(10, first=9))
    harness.run(stage.drain())
    assert positions(harness) == [7, 8, 9]
    assert harness.acks == [(0, 9)]


def test_acknowledgements_do_not_go_back_where_what_was_acknowledged_shows_late(harness: Harness) -> None:
    """On V3IO, that would move the checkpoint back."""
    for one in numbers(*range(1, 1001)):
        harness.streams.give(one)
    harness.streams.done[0] = 2  # though it is 899
    stage = Adder(harness, stateless=True)
    stage_started(harness, stage)
    harness.handle(stage, *numbers(901, first=900))
    harness.wait(1)
    assert positions(harness) == list(range(3, 901))
    assert harness.acks == [(0, 900)]


def test_a_stage_without_state_asks_once_what_is_acknowledged(harness: Harness) -> None:
    asked = []
    acked = harness.streams.acked

    def counted(*names: str) -> dict[int, int]:
        asked.append(names)
        return dict(acked(*names))

    harness.streams.acked = counted
    stage = Adder(harness, stateless=True)
    harness.handle(stage, *numbers(*range(50)))
    assert asked == [("the-stage", "in")]


def test_a_stage_without_state_begins_where_its_stream_begins(harness: Harness) -> None:
    """The messages before were deleted, so all groups had acknowledged them, though ours is late."""
    for one in numbers(*range(1, 21)):
        harness.streams.give(one)
    harness.streams.done[0], harness.streams.begins[0] = 2, 5
    stage = Adder(harness, stateless=True)
    harness.handle(stage, *numbers(8, first=7))
    assert positions(harness) == [5, 6, 7]
    assert stage.held == ""


def test_state_that_ends_before_the_stream_begins_is_held(harness: Harness) -> None:
    for one in numbers(*range(1, 21)):
        harness.streams.give(one)
    harness.streams.begins[0] = 5
    stage = Adder(harness)
    stage.durable[0] = (2, 6)
    handling = harness.loop.create_task(harness.handling(stage, numbers(8, first=7)[0]))
    harness.wait(30)
    assert "continues at offset 5 of shard 0, but the stored state ends at offset 2" in stage.held
    assert harness.effects == []
    handling.cancel()


def test_a_gap_between_two_messages_is_read_from_the_stream(harness: Harness) -> None:
    """Another worker had the shard in between, and this one was not told."""
    for one in numbers(*range(1, 1001)):
        harness.streams.give(one)
    stage = Adder(harness, stateless=True, commit_ms=10_000.0, commit_rows=1000)
    stage_started(harness, stage)
    harness.handle(stage, *numbers(1, 2), *numbers(1000, first=999))
    harness.wait(20)
    assert positions(harness)[-998:] == list(range(2, 1000))
    assert harness.acks[-1] == (0, 999)
    assert stage.held == ""


# Ends.


def test_drain_saves_and_drops_everything(harness: Harness) -> None:
    stage = Adder(harness, commit_ms=10_000.0, commit_rows=1000, linger_ms=1000.0)
    harness.handle(stage, *numbers(1, 2), *numbers(5, shard=3))
    harness.run(stage.drain())
    assert stage.durable == {0: (1, 3), 3: (0, 5)}
    stage.durable[0] = (6, 100)  # another worker
    harness.handle(stage, *numbers(1, first=7))
    harness.run(stage.drain())
    assert stage.durable[0] == (7, 101)


@pytest.mark.parametrize("what", ["append", "open", "take", "save"])
def test_a_drain_during_an_outage_ends_in_time_and_loses_nothing(harness: Harness, what: str) -> None:
    stage = Adder(harness)
    stage_started(harness, stage)
    if what == "append":
        harness.streams.failures = [AWAY] * 40
    else:
        stage.fail[what] = [AWAY] * 40
    for one in numbers(*range(1, 31)):
        harness.streams.give(one)
        harness.run(stage.handle(one))
    harness.wait(30)
    assert stage.held
    begun = harness.loop.time()
    harness.run(stage.drain())
    assert harness.loop.time() - begun <= DRAIN_SECONDS
    assert harness.acks == []
    harness.wait(300)
    assert harness.acks == [], "what was dropped is not the stage's any more"
    harness.handle(stage, *numbers(*range(1, 31)))
    harness.wait(300)
    assert harness.acks[-1] == (0, 29)
    assert sums(harness) == list(itertools.accumulate(range(1, 31)))


def test_a_held_stage_keeps_no_message_in_the_handler_for_long_and_reads_it_later(harness: Harness) -> None:
    """Nuclio calls the drain callback only when the handler has returned."""
    stage = Adder(harness)
    stage_started(harness, stage)
    stage.fail["take"] = [AWAY] * 12
    for i in range(6):
        one = event(i, str(i).encode() + b" " * 50_000)
        harness.streams.give(one)
        begun = harness.loop.time()
        harness.run(stage.handle(one))
        assert harness.loop.time() - begun <= PATIENCE
    assert stage.cycle._inbox.bytes < 2 * ROOM_BYTES
    harness.wait(60)
    assert sums(harness) == list(itertools.accumulate(range(6)))
    assert harness.acks[-1] == (0, 5)


def test_what_waits_is_taken_at_once(harness: Harness) -> None:
    stage = Adder(harness, linger_ms=10.0, commit_ms=0.0)
    stage_started(harness, stage)

    async def give() -> None:
        for i in range(300):
            for shard in range(4):
                one = event(i, b"1", shard)
                harness.streams.give(one)
                await stage.handle(one)

    harness.run(give())
    harness.wait(0.001)
    assert [effect for effect in harness.effects if effect[0] == "append"] == [("append", "out")]
    assert len(harness.sent()) == 4
    harness.wait(0.1)
    assert dict(harness.acks) == dict.fromkeys(range(4), 299)


def test_an_event_on_an_idle_pipeline_is_passed_on_at_once(harness: Harness) -> None:
    stage = Adder(harness, linger_ms=50.0, commit_ms=500.0, commit_rows=1000)
    stage_started(harness, stage)
    for i in range(5):
        harness.wait(1.0)
        begun = harness.loop.time()
        harness.handle(stage, *numbers(1, first=i))
        harness.wait(0)
        assert len(sums(harness)) == i + 1
        assert harness.loop.time() == begun


def test_the_platform_calls_drain_and_terminate(harness: Harness) -> None:
    stage = Adder(harness, commit_ms=10_000.0, commit_rows=1000)
    stage_started(harness, stage)
    harness.handle(stage, *numbers(1))
    harness.run(harness.context.platform._on_signal("drain"))
    assert harness.acks == [(0, 0)]
    harness.handle(stage, *numbers(2, first=1))
    harness.run(harness.context.platform._on_signal("termination"))
    assert harness.acks == [(0, 0), (0, 1)]


@pytest.mark.parametrize("what", ["append", "open", "take", "save"])
def test_a_stage_that_ends_during_an_outage_neither_waits_nor_acknowledges(harness: Harness, what: str) -> None:
    stage = Adder(harness, commit_ms=100.0, commit_rows=1000)
    stage_started(harness, stage)
    if what == "append":
        harness.streams.failures = [AWAY] * 1000
    else:
        stage.fail[what] = [AWAY] * 1000
    handling = harness.loop.create_task(harness.handling(stage, numbers(1)[0]))
    harness.wait(1)
    stage.give_up()
    begun = harness.loop.time()
    harness.run(stage.terminate())
    harness.run(handling)
    assert harness.loop.time() - begun < 2 * LAST_BACKOFF
    harness.streams.failures.clear()
    harness.run(stage.drain())  # a second signal
    assert harness.acks == []
    assert stage.durable == {}


def test_unsent_rows_are_not_given_up_when_the_table_works_and_the_stream_does_not(harness: Harness) -> None:
    """Saved and acknowledged without having been sent, they would be lost."""
    stage = Adder(harness, commit_ms=10_000.0, commit_rows=1000)
    harness.streams.failures = [AWAY, AWAY]
    stage.give_up()
    harness.handle(stage, *numbers(1))
    harness.run(stage.terminate())
    assert harness.effects == []
    assert stage.durable == {}


def test_drains_that_overlap_end_in_time_during_an_outage(harness: Harness) -> None:
    """In a rebalance each partition asks for one."""
    stage = Adder(harness, commit_ms=10_000.0, commit_rows=1000)
    harness.handle(stage, *numbers(1))
    stage.fail["save"] = [AWAY] * 1000
    begun = harness.loop.time()

    async def drained_and_given_the_next() -> None:
        await stage.drain()
        harness.streams.give(message := numbers(2, shard=1)[0])
        await stage.handle(message)

    async def overlapping() -> None:
        first = asyncio.create_task(drained_and_given_the_next())
        await asyncio.sleep(DRAIN_SECONDS / 2)
        await asyncio.gather(first, stage.drain())

    harness.run(overlapping())
    assert harness.loop.time() - begun < 3 * DRAIN_SECONDS
