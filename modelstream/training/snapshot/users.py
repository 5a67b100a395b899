"""The users of a log: their keys, their labels, and whether each is to learn from or to test on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from modelstream.errors import ConfigurationError
from modelstream.training.snapshot.clock import LogClock, LogEnd
from modelstream.training.snapshot.data import Data
from modelstream.training.snapshot.examples import Bools, Int8s, Int32s, Int64s, hash_of, uniform
from modelstream.training.snapshot.labels import UNKNOWN, Finder, Labels
from modelstream.training.snapshot.selection import OnProgress, Selection
from modelstream.use_case.columns import INGESTED_AT, PREDICTED_AT

SIDE, THIN = -2, -4
"""Places (see `examples.uniform`) of a user's random numbers for the split; no vector has these places."""


@dataclass(frozen=True)
class LogUsers:
    """All users of a log that the model may have been asked about, by number."""

    numbers: dict[str, int]
    """Number of each key."""
    hashes: npt.NDArray[np.uint64]
    labels: Labels
    values: Int8s
    times: Int64s
    """Label of each user and when it was known, for `Labels.at`."""
    learns: Bools
    tests: Bools
    """Masks of the users to learn from and of those to test on; no user is in both."""
    test_rate: float
    """Share of the test users' vectors to take."""
    end: LogEnd
    """Where the log ends, and how many rows it has."""

    @property
    def keys(self) -> list[str]:
        """The users' keys, in the order of their numbers."""
        return list(self.numbers)

    def of(self, keys: pa.Array) -> Int32s:
        """Return the numbers int32[n] of users."""
        encoded = keys.dictionary_encode()
        numbers = np.array([self.numbers[key] for key in encoded.dictionary.to_pylist()], np.int32)
        result: Int32s = numbers[encoded.indices.to_numpy()]
        return result

    def labels_at(self, users: Int32s, moments: Int64s) -> Int8s:
        """Return the labels int8[n] of vectors."""
        return self.labels.at(self.values[users], self.times[users], moments)


def is_test(hashes: npt.NDArray[np.uint64], share: float) -> Bools:
    """Return for each user whether it is among the about `share` that the model is tested on.

    A user's side depends only on the key and the seed: more users, or the log of another day, move nobody.

    >>> hashes = hashes_of([f"user {i}" for i in range(10_000)], seed=1)
    >>> int(is_test(hashes, 0.2).sum()), bool((is_test(hashes[:99], 0.2) == is_test(hashes, 0.2)[:99]).all())
    (1949, True)
    """
    result: Bools = uniform(hashes, np.full(len(hashes), SIDE)) < share
    return result


def hashes_of(keys: Sequence[str], seed: int) -> npt.NDArray[np.uint64]:
    """Return 64 bits for each user, uint64[n]."""
    return np.fromiter((hash_of(key, seed) for key in keys), np.uint64, len(keys))


def read_users(data: Data, labels: Labels | None, selection: Selection, progress: OnProgress) -> LogUsers:
    """Read the log once, for the users, and for their labels unless they are given. Raises ConfigurationError."""
    finder = Finder(data.use_case) if labels is None else None
    stores = data.stores
    from_events = finder is not None or stores.events_log.count() > 0
    log = stores.events_log if from_events else stores.inference_log
    total = log.count()
    if not total:
        raise ConfigurationError(
            f"{log.place()} holds nothing to learn from",
            remedy="run `python pipeline.py run` first, or give its folder with --data",
        )
    use_case = data.use_case
    clock = LogClock(use_case, INGESTED_AT if from_events else PREDICTED_AT)
    columns = dict.fromkeys([use_case.type, *clock.columns, *(finder.columns if finder else ())])
    codes = {use_case.event_codes[name] for name in use_case.predict_on}
    asking = pa.array([name for name, code in use_case.event_codes.items() if code in codes], pa.string())
    counts: Counter[str] = Counter()
    events = 0
    for batch in log.scan(list(columns)):
        asked = batch.column(use_case.key).filter(pc.is_in(batch.column(use_case.type), value_set=asking))
        found = pc.value_counts(asked)
        counts.update(dict(zip(found.field(0).to_pylist(), found.field(1).to_pylist(), strict=True)))
        future = clock.add(batch)
        if finder:
            finder.add(batch, future)
        events += batch.num_rows
        progress("labels", events, total)
    end = clock.end()
    if finder:
        labels = finder.found(end)
    assert labels is not None
    return _chosen(counts, labels, selection, end)


def _chosen(counts: Counter[str], labels: Labels, selection: Selection, end: LogEnd) -> LogUsers:
    keys = sorted(counts)
    asked = np.array([counts[key] for key in keys], np.int64)
    values, times = labels.of_users(keys)
    known = np.ones(len(keys), np.bool_) if labels.wait is not None else values != UNKNOWN
    hashes = hashes_of(keys, selection.seed)
    tests = is_test(hashes, selection.test_share)
    learns, tests = known & ~tests, known & tests
    share = selection.most / max(float(selection.expected(asked)[learns].sum()), 1.0)
    learns &= uniform(hashes, np.full(len(keys), THIN)) < share
    return LogUsers(
        numbers={key: number for number, key in enumerate(keys)},
        hashes=hashes,
        labels=labels,
        values=values,
        times=times,
        learns=learns,
        tests=tests,
        test_rate=min(1.0, selection.most / max(int(asked[tests].sum()), 1)),
        end=end,
    )
