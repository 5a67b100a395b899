"""A stage sends, then commits, then acknowledges; whatever fails, it loses no message and shows nothing half done."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from modelstream.errors import ConfigurationError, GoneError, HookError, LostStateError, UnavailableError
from modelstream.messages.codec import UnreadableError
from modelstream.messages.identity import Checkpoint, Watermarks, stream_position
from modelstream.stages.base import Stage
from modelstream.stages.cycle import DRAIN_SECONDS, PATIENCE
from modelstream.stages.holding import LAST_BACKOFF
from modelstream.stages.inbox import ROOM_BYTES
from modelstream.stages.shard import Incoming, Shard
from tests.stages.harness import APPENDED_AT, Harness, event, settings


class Adder(Stage):
    """Adds up the numbers in its messages, by shard, and sends every sum; `durable` is what it has saved."""

    def __init__(self, harness: Harness, stateless: bool = False, epoch: int = 0, **changed: Any) -> None:
        super().__init__(harness.context, settings(**changed), harness.streams, epoch)
        self.effects = harness.effects
        self.durable: dict[int, tuple[int, int]] = {}
        self.stateless = stateless
        self.origins = 1
        self.misfit = -1
        """The offset of a message whose rows don't fit the others: a hook may return such."""
        self.sums: dict[int, int] = {}
        self.fail: dict[str, list[BaseException]] = {"open": [], "take": [], "save": []}

    def open(self, shard: int) -> Checkpoint | None:
        self._maybe_fail("open")
        offset, self.sums[shard] = self.durable.get(shard, (-1, 0))
        return None if self.stateless else Checkpoint(offset, Watermarks())

    def take(self, shard: Shard, message: Incoming) -> int:
        self.sums[shard.number] += 1_000_000  # half done
        self._maybe_fail("take")
        if message.body == b"bad":
            self.sums[shard.number] -= 1_000_000
            raise UnreadableError("bad")
        self.sums[shard.number] += int(message.body) - 1_000_000
        column = "total" if message.offset == self.misfit else "sum"
        row = {"position": np.array([message.offset]), column: np.array([self.sums[shard.number]])}
        shard.send(shard.number, "events", f"o/{message.offset % self.origins}", pa.record_batch(row))
        return 1

    def save(self, shard: Shard) -> None:
        self._maybe_fail("save")
        self.effects.append(("save", shard.number, shard.checkpoint.offset))
        self.durable[shard.number] = (shard.checkpoint.offset, self.sums[shard.number])

    def _maybe_fail(self, what: str) -> None:
        if self.fail[what]:
            raise self.fail[what].pop(0)


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    made = Harness(monkeypatch)
    yield made
    made.close()


def numbers(*values: int, shard: int = 0, first: int = 0) -> list[Any]:
    return [event(first + i, str(value).encode(), shard) for i, value in enumerate(values)]


def sums(harness: Harness, shard: int = 0) -> list[int]:
    """Return the sums that a consumer who drops repeated positions sees."""
    marks, found = -1, []
    for to, rows in harness.sent():
        for position, value in zip(*(column.to_pylist() for column in rows.batch.columns), strict=True):
            if to == shard and position > marks:
                marks = position
                found.append(value)
    return found


AWAY = UnavailableError("the disk is full", remedy="free space")


# What a message is.


def test_incoming_is_what_the_platform_delivered() -> None:
    assert Incoming.of(event(7, b"x", 3)) == Incoming(3, 7, b"x", APPENDED_AT)


def test_times_of_messages_with_a_zone_are_taken_as_they_are() -> None:
    message = event(7, b"x")
    message.timestamp = datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=1)))
    assert Incoming.of(message).appended_at == 3_600_000_000


def test_a_body_that_the_platform_has_decoded_is_json_again() -> None:
    assert Incoming.of(event(7, {"a": 1})).body == b'{"a":1}'  # type: ignore[arg-type]


def test_a_function_that_reads_no_stream_is_told(harness: Harness) -> None:
    with pytest.raises(ConfigurationError, match="the-stage reads no stream") as raised:
        Adder(harness, reads="")
    assert "`reads` under `wiring` in project.yaml" in raised.value.remedy


# The order of effects.


def test_a_message_is_sent_then_saved_then_acknowledged(harness: Harness) -> None:
    stage = Adder(harness)
    harness.handle(stage, *numbers(1, 2))
    harness.run(stage.drain())
    places = {effect: place for place, effect in enumerate(harness.effects)}
    assert places["append", "out"] < places["save", 0, 1] < places["ack", 0, 1]
    assert harness.effects.count(("append", "out")) >= 1
    assert sums(harness) == [1, 3]


def test_dead_letters_are_sent_before_the_commit(harness: Harness) -> None:
    stage = Adder(harness, dead_letters="letters")
    harness.handle(stage, event(0, b"bad"))
    harness.run(stage.drain())
    assert harness.effects == [("append", "letters"), ("save", 0, 0), ("ack", 0, 0)]
    assert [one.position for one in harness.letters("letters")] == [0]
    assert stage.counters.dead_letters == 1


def test_a_message_that_can_not_be_read_is_a_letter_under_the_identity_that_its_place_gives(harness: Harness) -> None:
    stage = Adder(harness, epoch=2)
    harness.handle(stage, *numbers(1), event(1, b"bad"), event(2, b"2"))
    (found,) = harness.letters()
    assert (found.reason, found.origin, found.position) == ("bad", "in/0", stream_position(2, 1))
    assert (found.stream, found.shard, found.offset, found.content()) == ("in", 0, 1, b"bad")
    assert sums(harness) == [1, 3]


@pytest.mark.parametrize(("stateless", "letters"), [(False, 1), (True, 2)])
def test_a_message_is_refused_once_by_a_stage_that_keeps_watermarks(
    harness: Harness, stateless: bool, letters: int
) -> None:
    stage = Adder(harness, stateless=stateless, commit_ms=10_000.0, commit_rows=9)
    harness.handle(stage, event(0, b"bad"))
    shard = stage.cycle._shards[0]
    shard.checkpoint.offset = -1  # it comes again, as after a restart
    harness.handle(stage, event(0, b"bad"))
    assert len(harness.letters()) == letters


def test_nothing_is_acknowledged_before_it_is_saved(harness: Harness) -> None:
    stage = Adder(harness, commit_ms=10_000.0, commit_rows=3)
    stage_started(harness, stage)
    harness.handle(stage, *numbers(1, 2))
    harness.wait(5)
    assert sums(harness) == [1, 3]  # sent on in time…
    assert harness.acks == []  # …but kept only in memory
    harness.handle(stage, *numbers(3, first=2))
    harness.wait(0.1)
    assert harness.acks == [(0, 2)]
    assert stage.durable == {0: (2, 6)}


def stage_started(harness: Harness, stage: Stage) -> None:
    async def start() -> None:
        stage.start()

    harness.run(start())


def test_messages_are_committed_in_time_without_another_one(harness: Harness) -> None:
    stage = Adder(harness, linger_ms=10.0, commit_ms=500.0, commit_rows=1000)
    stage_started(harness, stage)
    harness.handle(stage, *numbers(1), *numbers(2, shard=1))
    harness.wait(0.1)
    assert (sums(harness), sums(harness, 1), harness.acks) == ([1], [2], [])
    harness.wait(0.5)
    assert sorted(harness.acks) == [(0, 0), (1, 0)]


def test_messages_that_follow_closely_are_sent_together(harness: Harness) -> None:
    stage = Adder(harness, linger_ms=50.0, commit_ms=10_000.0, commit_rows=1000)
    stage_started(harness, stage)
    harness.handle(stage, *numbers(*range(20)))
    harness.wait(0.2)
    assert sums(harness) == list(itertools.accumulate(range(20)))
    assert len(harness.sent()) <= 3


def test_rows_of_different_origins_are_not_mixed(harness: Harness) -> None:
    stage = Adder(harness, linger_ms=50.0)
    stage.origins = 3
    harness.handle(stage, *numbers(*range(9)))
    harness.run(stage.drain())
    found = [(position, rows.origin) for _, rows in harness.sent() for position in rows.batch.column(0).to_pylist()]
    assert found == [(position, f"o/{position % 3}") for position in range(9)]


def test_rows_and_commits_are_counted(harness: Harness) -> None:
    stage = Adder(harness)
    harness.handle(stage, *numbers(1, 2, 3), event(3, b"bad"))
    harness.run(stage.drain())
    done = stage.counters
    assert (done.rows_in, done.rows_out, done.dead_letters, stage.held) == (4, 3, 1, "")
    assert done.commits >= 1


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


def positions(harness: Harness) -> list[int]:
    """Return the offsets of the messages whose sums were sent, in order."""
    return [row for _, rows in harness.sent() for row in rows.batch.column("position").to_pylist()]


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


# Failures.


def test_an_outage_of_the_stream_repeats_the_same_records_and_nothing_after_them(harness: Harness) -> None:
    stage = Adder(harness)
    harness.streams.failures = [AWAY, AWAY, AWAY]
    harness.handle(stage, *numbers(1, 2, 3))
    harness.run(stage.drain())
    assert sums(harness) == [1, 3, 6]
    assert sum(rows.batch.num_rows for _, rows in harness.sent()) == 3
    assert harness.acks[-1] == (0, 2)


def test_an_outage_is_told_once_with_its_remedy_and_forgotten(harness: Harness) -> None:
    stage = Adder(harness)
    harness.streams.failures = [AWAY] * 5
    handling = harness.loop.create_task(harness.handling(stage, numbers(1)[0]))
    harness.wait(0.05)
    assert stage.held == "the disk is full; free space"
    harness.run(handling)
    assert stage.held == ""
    assert [(entry["message"], entry["why"]) for entry in harness.logged] == [
        ("Holding", "the disk is full; free space")
    ]


@pytest.mark.parametrize("what", ["open", "take", "save"])
def test_a_file_that_is_gone_holds_the_stage_for_good(harness: Harness, what: str) -> None:
    stage = Adder(harness)
    stage.fail[what] = [GoneError("features.db")] * 2
    harness.handle(stage, *numbers(1))
    assert str(stage.gone) == "features.db was deleted, moved or replaced while it was in use"


def test_waits_grow_to_a_limit(harness: Harness) -> None:
    stage = Adder(harness)
    harness.streams.failures = [AWAY] * 20
    begun = harness.loop.time()
    harness.handle(stage, *numbers(1))
    assert 50 < harness.loop.time() - begun < 20 * LAST_BACKOFF


@pytest.mark.parametrize("what", ["open", "take", "save"])
@pytest.mark.parametrize("error", [AWAY, ZeroDivisionError("a hook"), ConfigurationError("wrong", remedy="mend")])
def test_a_failure_holds_the_shard_and_loses_nothing(harness: Harness, what: str, error: Exception) -> None:
    stage = Adder(harness)
    stage.fail[what] = [error, error]
    harness.handle(stage, *numbers(1, 2, 3), *numbers(10, shard=1))
    harness.run(stage.drain())
    assert (sums(harness), sums(harness, 1)) == ([1, 3, 6], [10])
    assert stage.durable == {0: (2, 6), 1: (0, 10)}
    assert dict(harness.acks) == {0: 2, 1: 0}


def test_a_message_that_fails_in_the_middle_shows_nothing_of_itself(harness: Harness) -> None:
    """Those before it that were not saved are taken again, from the durable state."""
    stage = Adder(harness, commit_ms=10_000.0, commit_rows=1000)
    harness.handle(stage, *numbers(1, 2))
    stage.fail["take"] = [AWAY, AWAY]
    stage.fail["open"] = [AWAY]
    harness.handle(stage, *numbers(3, first=2))
    harness.run(stage.drain())
    assert sums(harness) == [1, 3, 6]
    assert stage.durable == {0: (2, 6)}


def test_an_unexpected_error_is_told_with_its_place(harness: Harness) -> None:
    stage = Adder(harness)
    stage.fail["take"] = [ZeroDivisionError("oh")]
    harness.handle(stage, *numbers(1))
    assert harness.logged[0]["why"].startswith("ZeroDivisionError ("), "its text may quote an event"
    assert "line" in harness.logged[0]["why"]


@pytest.mark.parametrize(("error", "hopeless"), [(HookError("wrong"), True), (AWAY, False), (KeyError("x"), False)])
def test_only_a_mistake_in_a_hook_is_hopeless_and_only_while_it_holds(
    harness: Harness, error: Exception, hopeless: bool
) -> None:
    stage = Adder(harness)
    seen = []
    stage.fail["take"] = [error]
    handling = harness.loop.create_task(harness.handling(stage, numbers(1)[0]))
    harness.wait(0.01)
    seen.append((bool(stage.held), stage.hopeless))
    harness.wait(30)
    assert handling.done()
    assert [*seen, (bool(stage.held), stage.hopeless)] == [(True, hopeless), (False, False)]


def test_rows_that_do_not_fit_each_other_hold_the_shards_and_lose_nothing(harness: Harness) -> None:
    stage = Adder(harness, linger_ms=1000.0)
    stage.misfit = 2
    stage_started(harness, stage)
    harness.handle(stage, *numbers(5, shard=1), *numbers(1, 2, 3), *numbers(6, shard=1, first=1))
    harness.wait(20)
    assert "sum" in stage.held
    harness.run(stage.drain())
    assert dict(harness.acks).keys() <= {1}
    end(harness, stage)
    stage = Adder(harness)  # with the hook mended
    harness.handle(stage, *numbers(5, 6, shard=1), *numbers(1, 2, 3))
    harness.run(stage.drain())
    assert (sums(harness), sums(harness, 1)) == ([1, 3, 6], [5, 11])


def test_an_acknowledgement_that_fails_raises_nothing_and_is_tried_again(harness: Harness) -> None:
    stage = Adder(harness)
    harness.ack_failures = [ConnectionError("gone")]
    harness.handle(stage, *numbers(1))
    harness.run(stage.drain())
    harness.handle(stage, *numbers(2, first=1))
    harness.run(stage.drain())
    assert harness.acks[-1] == (0, 1)
    assert not [effect for effect in harness.effects if effect[0] == "ack" and effect[2] > 1]


def test_the_timer_survives_every_failure(harness: Harness) -> None:
    stage = Adder(harness, linger_ms=10.0, commit_ms=100.0, commit_rows=1000)
    stage_started(harness, stage)
    harness.handle(stage, *numbers(1))
    stage.fail["save"] = [AWAY, ZeroDivisionError("x")]
    harness.ack_failures = [ConnectionError("gone")]
    harness.wait(5)
    harness.handle(stage, *numbers(2, first=1))
    harness.wait(5)
    assert harness.acks[-1] == (0, 1)


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


# Any order of everything.

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("handle"), st.integers(0, 1), st.integers(1, 3)),
        st.tuples(st.sampled_from(["open", "take", "save", "append", "ack"]), st.integers(1, 3), st.just(0)),
        st.tuples(st.sampled_from(["drain", "restart", "again"]), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("wait"), st.integers(1, 300), st.just(0)),
    ),
    max_size=25,
)


def end(harness: Harness, stage: Stage) -> None:
    assert stage.cycle.task is not None
    stage.cycle.task.cancel()
    harness.wait(0)


def deliver_again(harness: Harness, stage: Stage, delivered: dict[int, int]) -> bool:
    """Deliver what is not acknowledged, as the platform does after a drain; return whether there is any."""
    acked = {0: -1, 1: -1, **dict(harness.acks)}
    for shard, upto in delivered.items():
        values = range(acked[shard] + 2, upto + 1)
        harness.handle(stage, *numbers(*values, shard=shard, first=acked[shard] + 1))
    return any(acked[shard] + 1 < upto for shard, upto in delivered.items())


@hypothesis_settings(deadline=None, max_examples=150)
@given(STEPS, st.sampled_from([0.0, 20.0]), st.sampled_from([0.0, 50.0, 1000.0]), st.sampled_from([1, 3, 1000]))
def test_sums_are_right_whatever_happens(steps: list[Any], linger: float, commit: float, rows: int) -> None:
    with pytest.MonkeyPatch.context() as patch, contextlib.closing(Harness(patch)) as harness:
        options: dict[str, Any] = {"linger_ms": linger, "commit_ms": commit, "commit_rows": rows}
        stage = Adder(harness, **options)
        stage_started(harness, stage)
        delivered = {0: 0, 1: 0}
        for what, one, two in steps:
            if what == "handle":
                for _ in range(two):
                    harness.handle(stage, *numbers(delivered[one] + 1, shard=one, first=delivered[one]))
                    delivered[one] += 1
            elif what == "append":
                harness.streams.failures = [AWAY] * one
            elif what == "ack":
                harness.ack_failures = [ConnectionError("gone")] * one
            elif what in stage.fail:
                stage.fail[what] = [AWAY] * one
            elif what == "wait":
                harness.wait(one / 1000)
            else:
                if what == "drain":
                    harness.run(stage.drain())
                if what == "restart":
                    end(harness, stage)
                    durable, stage = stage.durable, Adder(harness, **options)
                    stage.durable = durable
                    stage_started(harness, stage)
                deliver_again(harness, stage, delivered)
        for _ in range(20):
            harness.run(stage.drain())
            if not deliver_again(harness, stage, delivered):
                break
        end(harness, stage)
        for shard in (0, 1):
            expected = list(itertools.accumulate(range(1, delivered[shard] + 1)))
            assert sums(harness, shard) == expected
            if expected:
                assert stage.durable[shard] == (delivered[shard] - 1, expected[-1])
                assert max((at for number, at in harness.acks if number == shard), default=-1) < delivered[shard]
        for shard in (0, 1):
            offsets = [offset for number, offset in harness.acks if number == shard]
            assert offsets == sorted(offsets)
