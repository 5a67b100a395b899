"""A step that fails is repeated: meanwhile the shards are held, the reason is shown, and nothing is lost."""

from __future__ import annotations

import pytest

from modelstream.errors import ConfigurationError, GoneError, HookError
from modelstream.stages.holding import LAST_BACKOFF
from tests.stages.adder import AWAY, Adder, end, numbers, stage_started, sums
from tests.stages.harness import Harness

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
