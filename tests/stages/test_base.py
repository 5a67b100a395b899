"""A stage sends, then commits, then acknowledges; whatever fails, it loses no message and shows nothing half done."""

from __future__ import annotations

import contextlib
import itertools
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from modelstream.errors import ConfigurationError
from modelstream.messages.identity import stream_position
from modelstream.stages.base import Stage
from modelstream.stages.shard import Incoming, Shard
from tests.stages.adder import AWAY, Adder, end, numbers, stage_started, sums
from tests.stages.harness import APPENDED_AT, Harness, event

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


def test_messages_are_committed_in_time_without_another_one(harness: Harness) -> None:
    stage = Adder(harness, linger_ms=10.0, commit_ms=500.0, commit_rows=1000)
    stage_started(harness, stage)
    harness.handle(stage, *numbers(1), *numbers(2, shard=1))
    harness.wait(0.1)
    assert (sums(harness), sums(harness, 1), harness.acks) == ([1], [2], [])
    harness.wait(0.5)
    assert sorted(harness.acks) == [(0, 0), (1, 0)]


def test_commits_that_take_long_are_fewer_while_messages_come_and_never_late_by_more_than_said(
    harness: Harness,
) -> None:
    class Slow(Adder):
        seconds = 0.0

        def save(self, shard: Shard) -> None:
            super().save(shard)
            harness.loop.go_on(self.seconds)

    for seconds, commits in ((0.01, 10), (0.25, 5), (5.0, 1)):
        stage = Slow(harness, commit_ms=1000.0, commit_rows=1000)
        stage.seconds = seconds
        stage_started(harness, stage)
        begun, first = harness.loop.time(), len(harness.acks)
        for number in itertools.count():
            harness.handle(stage, *numbers(1, first=number))
            harness.wait(0.05)
            if harness.loop.time() > begun + 10:
                break
        saved = len(harness.acks) - first
        assert saved == pytest.approx(commits, abs=1), seconds
        harness.wait(1.5)
        assert harness.acks[-1] == (0, number), "when nothing more comes, it is committed as soon as usual"
        end(harness, stage)


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
