"""Which records may be unconfirmed together; what the broker makes of them is in tests/contract/test_kafka_streams."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelstream.streams.kafka_writer import turns

SHARDS = st.lists(st.integers(0, 3), max_size=20)


@given(SHARDS, st.sets(st.integers(0, 3)), st.booleans())
def test_each_record_has_one_turn_and_those_of_a_shard_keep_their_order(
    shards: list[int], known: set[int], singly: bool
) -> None:
    found = [index for turn in turns(shards, known, singly=singly) for index in turn]
    assert sorted(found) == list(range(len(shards)))
    for shard in range(4):
        assert [index for index in found if shards[index] == shard] == [
            index for index, one in enumerate(shards) if one == shard
        ]


@given(SHARDS, st.sets(st.integers(0, 3)))
def test_the_first_record_of_a_shard_that_is_not_known_goes_before_its_others(
    shards: list[int], known: set[int]
) -> None:
    found = list(turns(shards, known))
    assert len(found) <= 2
    for shard in set(shards) - known:
        assert [shards[index] for index in found[0]].count(shard) == 1


@given(SHARDS)
def test_singly_no_turn_has_two_records_of_a_shard(shards: list[int]) -> None:
    for turn in turns(shards, {0, 1, 2, 3}, singly=True):
        assert len({shards[index] for index in turn}) == len(turn)
