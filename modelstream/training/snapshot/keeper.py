"""Collects the vectors of a snapshot, part by part, and makes examples of them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from modelstream.training.snapshot.examples import Examples, Floats, Int8s, Int32s, Int64s
from modelstream.use_case.declared import MICROSECONDS_AN_HOUR

NOT_OPEN = np.iinfo(np.int64).min


@dataclass(frozen=True)
class LabelledVectors:
    """n vectors with their labels, users, types and times; see `Examples`."""

    vectors: Floats
    labels: Int8s
    users: Int32s
    kinds: Int8s
    moments: Int64s

    def take(self, places: Int64s) -> LabelledVectors:
        """Return copies of some rows, so that the rest can be freed."""
        return LabelledVectors(*(getattr(self, field.name)[places] for field in fields(self)))

    @classmethod
    def joined(cls, parts: list[LabelledVectors], features: int) -> LabelledVectors:
        """Return parts as one."""
        empty = (np.empty((0, features), np.float32), np.empty(0, np.int8), np.empty(0, np.int32))
        nothing = cls(*empty, np.empty(0, np.int8), np.empty(0, np.int64))
        return cls(*(np.concatenate([getattr(p, f.name) for p in (nothing, *parts)]) for f in fields(cls)))


class Keeper:
    """Rows to learn from, rows to test on, and each user's last row."""

    def __init__(self, keys: list[str], features: int) -> None:
        """Take the users and the number of features."""
        self._keys = keys
        self._features = features
        self._learn: list[LabelledVectors] = []
        self._test: list[LabelledVectors] = []
        users = len(keys)
        self._last = LabelledVectors(
            np.zeros((users, features), np.float32),
            np.zeros(users, np.int8),
            np.arange(users, dtype=np.int32),
            np.zeros(users, np.int8),
            np.zeros(users, np.int64),
        )
        self._has_last = np.zeros(users, np.bool_)
        self.opened = np.full(users, NOT_OPEN, np.int64)
        """int64[users]: when each user's window opened, microseconds since 1970 UTC."""

    def learn(self, rows: LabelledVectors) -> None:
        """Keep rows to learn from."""
        self._learn.append(rows)

    def test(self, rows: LabelledVectors) -> None:
        """Keep rows to test on."""
        self._test.append(rows)

    def finals(self, rows: LabelledVectors) -> None:
        """Keep the last row of each user."""
        users, reverse = np.unique(rows.users[::-1], return_index=True)
        places = len(rows.users) - 1 - reverse
        for field in fields(LabelledVectors):
            getattr(self._last, field.name)[users] = getattr(rows, field.name)[places]
        self._has_last[users] = True

    def examples(self) -> tuple[Examples, Examples, Examples]:
        """Return what to learn from, what to test on, and the final rows of the users to learn from."""
        learn, test = (LabelledVectors.joined(kept, self._features) for kept in (self._learn, self._test))
        return (
            self._as_examples(learn),
            self._as_examples(test),
            self._as_examples(self._last.take(np.flatnonzero(self._has_last))),
        )

    def _as_examples(self, rows: LabelledVectors) -> Examples:
        opened = self.opened[rows.users]
        hours = (rows.moments - opened) / MICROSECONDS_AN_HOUR
        return Examples(
            vectors=rows.vectors,
            labels=rows.labels,
            users=rows.users,
            keys=self._keys,
            kinds=rows.kinds,
            moments=rows.moments,
            hours=np.where(opened == NOT_OPEN, np.nan, hours).astype(np.float32),
        )
