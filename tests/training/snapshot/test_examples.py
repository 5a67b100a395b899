"""Examples: rows of users, sampled so that a user's rows depend on nobody else."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modelstream.training.learn.splits import folds
from modelstream.training.snapshot.examples import Examples, ordinals, uniform

KEYS = [f"user {i}" for i in range(12)]


def made(users: list[int], keys: list[str] = KEYS) -> Examples:
    """Return examples of users in this order; a vector is its row's number."""
    count = len(users)
    return Examples(
        vectors=np.arange(count, dtype=np.float32)[:, None],
        labels=(np.array(users, np.int64) % 2).astype(np.int8),
        users=np.array(users, np.int32),
        keys=keys,
        kinds=np.zeros(count, np.int8),
        moments=np.arange(count, dtype=np.int64),
        hours=np.zeros(count, np.float32),
    )


some_users = st.lists(st.integers(0, len(KEYS) - 1), max_size=60)


@given(some_users)
def test_ordinals_count_earlier_rows_of_the_same_user(users: list[int]) -> None:
    assert ordinals(np.array(users, np.int64)).tolist() == [users[:i].count(user) for i, user in enumerate(users)]


@given(some_users)
def test_final_is_each_users_last_row(users: list[int]) -> None:
    last = {user: row for row, user in enumerate(users)}
    final = made(users).final()
    assert dict(zip(final.users.tolist(), final.vectors[:, 0].tolist(), strict=True)) == last
    assert len(final) == len(last)


@given(some_users, st.integers(1, 5), st.integers(0, 3))
def test_sample_holds_at_most_so_many_of_each_user(users: list[int], most: int, seed: int) -> None:
    sampled = made(users).sampled(most, seed)
    counts = np.bincount(sampled.users, minlength=len(KEYS))
    assert counts.tolist() == [min(most, users.count(user)) for user in range(len(KEYS))]
    assert (np.diff(sampled.vectors[:, 0]) > 0).all(), "in their order"


@given(some_users)
def test_sample_of_a_user_depends_on_no_other_user(users: list[int]) -> None:
    """The same user under another number, alone, gets the same rows."""
    for user in set(users):
        among = ordinals(np.array(users))[made(users).sampled(2, 1).of_users([user]).vectors[:, 0].astype(int)]
        alone = made([0] * users.count(user), [KEYS[user]]).sampled(2, 1).vectors[:, 0]
        assert among.tolist() == alone.tolist()


def test_draws_are_even() -> None:
    drawn = uniform(np.arange(200_000, dtype=np.uint64), np.zeros(200_000, np.int64))
    counts, _ = np.histogram(drawn, 20, (0, 1))
    assert abs(counts - 10_000).max() < 500, "five standard deviations"
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.01


@given(some_users, st.integers(2, 5), st.integers(0, 3))
def test_folds_judge_each_row_once_and_no_user_is_on_both_sides(users: list[int], count: int, seed: int) -> None:
    examples = made(users)
    judged = []
    for rows, others in folds(examples, count, seed):
        assert not set(examples.users[rows]) & set(examples.users[others])
        assert sorted([*rows, *others]) == list(range(len(users)))
        judged += others.tolist()
    assert sorted(judged) == list(range(len(users)))


def test_folds_have_both_classes_when_there_are_enough_users() -> None:
    examples = made(list(range(12)))
    for _, judged in folds(examples, 5, 1):
        assert set(examples.labels[judged]) == {0, 1}


@given(st.integers(5, 40), st.integers(0, 6), st.booleans(), st.integers(0, 20))
def test_rare_class_is_in_every_fold_where_users_change_class(
    others: int, changing: int, turned: bool, seed: int
) -> None:
    """As with a label that is waited for: of five users who are ever positive, some were negative before."""
    users = np.repeat(np.arange(others + 5), 3)
    labels = np.zeros((others + 5, 3), np.int8)
    labels[others:] = 1
    labels[others : others + min(changing, 5), :2] = 0
    examples = made(users.tolist(), [f"user {i}" for i in range(others + 5)])
    examples = dataclasses.replace(examples, labels=labels.ravel() ^ turned)
    for rows, judged in folds(examples, 5, seed):
        assert set(examples.labels[rows]) == {0, 1}
        assert int(not turned) in examples.labels[judged], "the rare class is in every fold"
