"""Folds for cross-validation; no user is on both sides. (The test users are chosen by `users.is_test`.)"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from modelstream.training.snapshot.examples import Examples, Int64s, uniform
from modelstream.training.snapshot.users import hashes_of

FOLD = -3
"""The place (see `examples.uniform`) of a user's random number for the fold; no vector has this place."""


def folds(examples: Examples, count: int, seed: int) -> Iterator[tuple[Int64s, Int64s]]:
    """Yield rows to learn from and rows to judge by, `count` times: each user is judged once.

    Users are dealt out class by class, so that each fold has both classes if there are enough of them.
    """
    users, first = np.unique(examples.users, return_index=True)
    drawn = uniform(hashes_of([examples.keys[user] for user in users], seed), np.full(len(users), FOLD))
    order = np.lexsort((drawn, examples.labels[first]))
    fold_of = np.empty(len(examples.keys), np.int64)
    fold_of[users[order]] = np.arange(len(users)) % count
    fold = fold_of[examples.users]
    for number in range(count):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)
