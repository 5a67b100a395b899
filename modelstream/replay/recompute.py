"""Shared by replay, explain and training: applies the events of the log again, as they were applied online.

The value that was looked up for a user's profile is in the user's row and is taken from there, because the lookup table
may have changed since. If a user has several profile events, all but the last take their value from the table as it is
now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelstream import notebooks
from modelstream.features.engine import Applied
from modelstream.features.vectors import Derive, Vectors
from modelstream.stores import Stores
from modelstream.tables import FeatureTable, LookupTable
from modelstream.use_case.declared import UseCase
from modelstream.use_case.lookups import lookup_key, lookup_key_type


class Recomputation:
    """The steps of stream-to-features on events of the log, for some shards (None: all).

    An example would need a folder with a log of events: `tests/runner/folders.py` makes one, and
    `tests/training/snapshot/test_snapshot.py` goes over it.
    """

    def __init__(
        self,
        stores: Stores,
        derive: Derive | None = None,
        *,
        shards: Sequence[int] | None = None,
        user: str | None = None,
    ) -> None:
        """Take the stores, for the log of events and the values that were looked up, and the notebook's hook."""
        use_case = self._use_case = stores.use_case
        self._log = stores.events_log
        self._shards = shards
        self._user = user
        self.lookup = StoredLookup(use_case, stores.features, stores.enrichment, self._profiles())
        self._vectors = Vectors(use_case, derive)

    def logged(self) -> Iterator[pa.RecordBatch]:
        """Yield the events in the order in which they were applied, as the log has them."""
        return self._scan(None)

    def events(self) -> Iterator[pa.RecordBatch]:
        """Yield the same, ready to be applied: their field to look up by holds what `lookup` takes."""
        return map(self.lookup.prepare, self.logged())

    def vectors(self, events: pa.RecordBatch, applied: Applied) -> pa.RecordBatch:
        """Return the vectors that followed from events, in `UseCase.vector_schema`, the notebook's hook included."""
        return self._vectors.batch(events, applied)

    def _profiles(self) -> Counter[str]:
        """Count the profile events of each user, without those who have none."""
        use_case = self._use_case
        counts: Counter[str] = Counter()
        if use_case.lookup is not None:
            for batch in self._scan([use_case.key, use_case.type]):
                chosen = is_profile(batch, use_case)
                counts.update(batch.column(use_case.key).filter(chosen).to_pylist())
        return counts

    def _scan(self, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
        for batch in self._log.scan(columns, self._shards):
            if self._user is None:
                yield batch
            else:
                mine = batch.filter(pc.equal(batch.column(self._use_case.key), self._user))
                if mine.num_rows:
                    yield mine


class StoredLookup:
    """Gives each profile event the value that was looked up for it.

    `prepare` puts a token into each event, by which it asks.

    An example would need a table of features: `Recomputation` gives it one.
    """

    def __init__(
        self, use_case: UseCase, features: FeatureTable, table: LookupTable | None, profiles: Counter[str]
    ) -> None:
        self._use_case = use_case
        self._features = features
        self._table = table
        self._left = profiles
        self._values: dict[str, float | None] = {}
        self._tokens = 0

    def __call__(self, tokens: Sequence[str]) -> list[float | None]:
        """Return the values; each token is asked for once."""
        return [self._values.pop(token) for token in tokens]

    def prepare(self, events: pa.RecordBatch) -> pa.RecordBatch:
        """Return events whose field to look up by holds a token, in profile events."""
        lookup, table = self._use_case.lookup, self._table
        if lookup is None or table is None:
            return events
        places = np.flatnonzero(is_profile(events, self._use_case).to_numpy(zero_copy_only=False))
        if not len(places):
            return events
        taken = events.take(pa.array(places))
        keys = taken.column(self._use_case.key).to_pylist()
        self._left.subtract(keys)
        last = {key: place for place, key in enumerate(keys) if self._left[key] == 0}
        stored = self._features.get_many(list(last))
        of_user = dict(zip(stored.column(0).to_pylist(), stored.column(lookup.value).to_pylist(), strict=True))
        asked = taken.column(lookup.by).to_pylist()
        others = [by for place, (key, by) in enumerate(zip(keys, asked, strict=True)) if last.get(key) != place]
        others += [asked[place] for key, place in last.items() if key not in of_user]
        kind = lookup_key_type(self._use_case)
        known = {by: key for by in others if by is not None and (key := lookup_key(by, kind))}
        of_table = dict(zip(known, table.get_many(list(known.values())), strict=True))
        tokens: list[str | None] = [None] * events.num_rows
        for place, (row, key, by) in enumerate(zip(places.tolist(), keys, asked, strict=True)):
            tokens[row] = token = str(self._tokens)
            self._tokens += 1
            from_row = last.get(key) == place and key in of_user
            self._values[token] = of_user[key] if from_row else of_table.get(by)
        column = events.schema.get_field_index(lookup.by)
        return events.set_column(column, lookup.by, pa.array(tokens, pa.string()))


def is_profile(events: pa.RecordBatch, use_case: UseCase) -> pa.BooleanArray:
    """Return for each event whether it is a profile event.

    >>> from types import SimpleNamespace
    >>> codes = {"moved_in": 0, "new": 0, "reading": 1}
    >>> use_case = SimpleNamespace(type="kind", profile=SimpleNamespace(event="moved_in"), event_codes=codes)
    >>> is_profile(pa.record_batch({"kind": ["new", "reading", "moved_in"]}), use_case).to_pylist()
    [True, False, True]
    """
    return is_of_type(events, use_case, use_case.profile.event if use_case.profile else "")


def is_of_type(events: pa.RecordBatch, use_case: UseCase, event: str) -> pa.BooleanArray:
    """Return for each event whether it is of a type, by its name or an alias.

    `is_profile` has an example.
    """
    code = use_case.event_codes.get(event, -1)
    names = [name for name, other in use_case.event_codes.items() if other == code]
    return pc.is_in(events.column(use_case.type), value_set=pa.array(names, pa.string()))


def derive_in(notebook: Path | str | None) -> Derive | None:
    """Return the hook `derive` of a notebook, if there is a notebook and it has one. Raises ConfigurationError.

    The example is `functions/stream-to-features.ipynb`, which may have one.
    """
    return getattr(notebooks.load(notebook), "derive", None) if notebook else None
