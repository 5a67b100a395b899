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

    Users are dealt out class by class, those with vectors of both classes in between. So the vectors of a class that
    `count` users have are in every fold, and the others always have both classes to learn from.
    """
    users, of_user = np.unique(examples.users, return_inverse=True)
    positive = np.bincount(of_user, examples.labels == 1) > 0
    negative = np.bincount(of_user, examples.labels == 0) > 0
    drawn = uniform(hashes_of([examples.keys[user] for user in users], seed), np.full(len(users), FOLD))
    order = np.lexsort((drawn, positive.astype(np.int8) - negative))
    fold_of = np.empty(len(examples.keys), np.int64)
    fold_of[users[order]] = np.arange(len(users)) % count
    fold = fold_of[examples.users]
    for number in range(count):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)
