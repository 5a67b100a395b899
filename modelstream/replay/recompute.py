"""Shared by replay, explain and training: applies the events of the log again, as they were applied online.

The value that was looked up for a user's profile is in the user's row and is taken from there, because the lookup table
may have changed since. If a user has several profile events, all but the last take their value from the table as it is
now. What was looked up at an event stands in the log beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelstream import notebooks
from modelstream.events.lookups import LookUpFunction
from modelstream.features.engine import Applied
from modelstream.features.vectors import Derive, Vectors
from modelstream.stores import Stores
from modelstream.tables import FeatureTable
from modelstream.use_case.declared import UseCase
from modelstream.use_case.lookups import lookup_key

Values = dict[tuple[str, str], float | None]
"""Values of lookup tables, by the name of the table and the key."""


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
        self.lookup = StoredLookup(use_case, stores.features, stores.look_up, self._profiles())
        self._vectors = Vectors(use_case, derive)

    def pieces(self) -> Iterator[Piece]:
        """Yield the events in the order in which they were applied, with what was looked up for their profiles."""
        for batch in self._scan(None):
            yield from self.lookup.pieces(batch)

    def events(self) -> Iterator[pa.RecordBatch]:
        """Yield the events alone; `lookup` gives the values for those that were yielded last."""
        for piece in self.pieces():
            self.lookup.use(piece)
            yield piece.events

    def vectors(self, events: pa.RecordBatch, applied: Applied) -> pa.RecordBatch:
        """Return the vectors that followed from events, in `UseCase.vector_schema`, the notebook's hook included."""
        return self._vectors.batch(events, applied)

    def _profiles(self) -> Counter[str]:
        """Count the profile events of each user, without those who have none."""
        use_case = self._use_case
        counts: Counter[str] = Counter()
        if use_case.profile_lookups:
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


@dataclass(frozen=True)
class Piece:
    """Consecutive events, and the values that were looked up for the profiles among them, by table and key.

    An example would need a table of features: `StoredLookup` makes pieces of one.
    """

    events: pa.RecordBatch
    values: Values


class StoredLookup:
    """Gives each profile event the values that were looked up for it.

    A key may have had other values for one user than for another, because the table has changed in between. So events
    are cut into pieces in which every key has one value: one piece, where the table has not changed.

    An example would need a table of features: `Recomputation` gives it one.
    """

    def __init__(
        self, use_case: UseCase, features: FeatureTable, look_up: LookUpFunction, profiles: Counter[str]
    ) -> None:
        self._use_case = use_case
        self._features = features
        self._look_up = look_up
        self._left = profiles
        self._values: Values = {}

    def __call__(self, table: str, keys: Sequence[str]) -> list[float | None]:
        """Return the values of keys in a table, for the events in use."""
        return [self._values[table, key] for key in keys]

    def use(self, piece: Piece) -> None:
        """Give the values for the events of a piece from now on."""
        self._values = piece.values

    def pieces(self, events: pa.RecordBatch) -> Iterator[Piece]:
        """Yield events in pieces that have one value for each key of each table."""
        places = np.flatnonzero(is_profile(events, self._use_case).to_numpy(zero_copy_only=False))
        if not len(places) or not self._use_case.profile_lookups:
            yield Piece(events, {})
            return
        first, values = 0, Values()
        for place, found in zip(places.tolist(), self._of_profiles(events.take(pa.array(places))), strict=True):
            if any(values.get(key, value) != value for key, value in found.items()):
                yield Piece(events.slice(first, place - first), values)
                first, values = place, {}
            values |= found
        yield Piece(events.slice(first), values)

    def _of_profiles(self, profiles: pa.RecordBatch) -> Iterator[Values]:
        """Yield what was looked up for each of some profile events."""
        lookups, fields = self._use_case.profile_lookups, self._use_case.fields
        users = profiles.column(self._use_case.key).to_pylist()
        self._left.subtract(users)
        last = {user: place for place, user in enumerate(users) if self._left[user] == 0}
        stored = self._features.get_many(list(last))
        of_user = dict(zip(stored.column(0).to_pylist(), stored.select(list(lookups)).to_pylist(), strict=True))
        asked = {
            name: [
                lookup_key(text, fields[lookup.by]) if text is not None else ""
                for text in profiles.column(lookup.by).to_pylist()
            ]
            for name, lookup in lookups.items()
        }
        known = [last.get(user) == place and user in of_user for place, user in enumerate(users)]
        of_table: Values = {}
        for name, lookup in lookups.items():
            others = {key for key, is_known in zip(asked[name], known, strict=True) if key and not is_known}
            wanted = sorted(key for key in others if (lookup.look_up, key) not in of_table)
            found = self._look_up(lookup.look_up, wanted) if wanted else []
            of_table |= {(lookup.look_up, key): value for key, value in zip(wanted, found, strict=True)}
        for place, user in enumerate(users):
            found_here: Values = {}
            for name, lookup in lookups.items():
                if key := asked[name][place]:
                    at = (lookup.look_up, key)
                    found_here[at] = of_user[user][name] if known[place] else of_table[at]
            yield found_here


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
