"""Examples: feature vectors as they were when the model was asked, with the labels of their users."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

Floats = npt.NDArray[np.float32]
Int8s = npt.NDArray[np.int8]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Examples:
    """n feature vectors, each user's in the order in which they were served; users may be mixed.

    >>> examples = Examples(
    ...     vectors=np.array([[1], [2], [3], [4]], np.float32), labels=np.array([1, 0, 1, 1], np.int8),
    ...     users=np.array([0, 1, 0, 0], np.int32), keys=["ann", "bob"], kinds=np.zeros(4, np.int8),
    ...     moments=np.arange(4), hours=np.arange(4, dtype=np.float32))
    >>> examples.final().vectors.ravel().tolist(), examples.of_users([0]).vectors.ravel().tolist()
    ([4.0, 2.0], [1.0, 3.0, 4.0])
    >>> examples.sampled(per_user=1, seed=1).user_count, len(examples.sampled(per_user=2, seed=1))
    (2, 3)
    """

    vectors: Floats
    """float32[n, features], as `model.onnx.as_input` gives them; columns as in `UseCase.features`."""
    labels: Int8s
    """int8[n]: 1 for the positive class, else 0."""
    users: Int32s
    """int32[n]: indices into `keys`."""
    keys: list[str]
    """The users; also those without a vector here."""
    kinds: Int8s
    """int8[n]: the type of the vector's event, as an index into `UseCase.predict_on`."""
    moments: Int64s
    """int64[n]: the time of that event, microseconds since 1970 UTC."""
    hours: Floats
    """float32[n]: hours of event time from the opening of the user's window to that event; NaN without a window."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def user_count(self) -> int:
        """The number of users who have a vector here."""
        return len(np.unique(self.users))

    def where(self, rows: Bools | Int64s) -> Examples:
        """Return the rows that a mask or indices select; `keys` and user numbers are unchanged."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "keys"]
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in names})

    def of_users(self, users: Sequence[int] | Int32s | Int64s) -> Examples:
        """Return the rows of some users, given as indices into `keys`."""
        return self.where(np.isin(self.users, np.asarray(users)))

    def final(self) -> Examples:
        """Return each user's last vector, in the order of their numbers: what a snapshot of final rows would hold."""
        order = np.argsort(self.users, kind="stable")
        users = self.users[order]
        last = np.flatnonzero(np.append(users[1:] != users[:-1], np.True_)[: len(users)])
        return self.where(order[last])

    def sampled(self, per_user: int, seed: int) -> Examples:
        """Return at most this many rows of each user, drawn evenly; the choice depends only on user and seed."""
        order = np.lexsort((draws(self, seed), self.users))
        rank = ordinals(self.users[order])
        return self.where(np.sort(order[rank < per_user]))


def ordinals(users: Int32s | Int64s) -> Int64s:
    """Return for each row how many rows of the same user stand before it.

    >>> ordinals(np.array([7, 7, 3, 7, 3])).tolist()
    [0, 1, 0, 2, 1]
    """
    order = np.argsort(users, kind="stable")
    ordered = users[order]
    starts = np.flatnonzero(np.append(np.True_, ordered[1:] != ordered[:-1])[: len(ordered)])
    lengths = np.diff(np.append(starts, len(ordered)))
    result = np.empty(len(users), np.int64)
    result[order] = np.arange(len(users)) - np.repeat(starts, lengths)
    return result


def draws(examples: Examples, seed: int) -> npt.NDArray[np.float64]:
    """Return a number from 0 to 1 for each row, from the seed, its user's key and its place among the user's rows."""
    hashes = np.fromiter((hash_of(key, seed) for key in examples.keys), np.uint64, len(examples.keys))
    return uniform(hashes[examples.users], ordinals(examples.users))


def hash_of(key: str, seed: int) -> int:
    """Return 64 bits for a user: the same on every machine, and independent of the other users.

    >>> hash_of("ann", 1) == hash_of("ann", 1), hash_of("ann", 1) == hash_of("ann", 2)
    (True, False)
    """
    return xxhash.xxh3_64_intdigest(key.encode(), seed)


def uniform(hashes: npt.NDArray[np.uint64], places: Int64s) -> npt.NDArray[np.float64]:
    """Return a number from 0 to 1 (without 1) for each pair of 64 random bits and a place: splitmix64's mixing.

    >>> uniform(np.array([1, 1, 2], np.uint64), np.array([0, 1, 0])).round(3).tolist()
    [0.567, 0.746, 0.591]
    """
    with np.errstate(over="ignore"):
        mixed = hashes + (places.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    result: npt.NDArray[np.float64] = (mixed >> np.uint64(11)) * 2.0**-53
    return result
