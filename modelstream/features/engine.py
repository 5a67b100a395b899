"""The feature engine: events in, feature vectors out; it keeps the users' rows in between.

The use case says which events count and what the features are. What is read of events is in `prepared`, the loop over
them in `kernel`, the users' rows in memory are in `users`, and features of the event itself in `own`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelstream.features import kernel
from modelstream.features.own import OwnFeatures
from modelstream.features.plan import inputs_of, plan_of
from modelstream.features.prepared import NoEventsError, Prepared, prepare
from modelstream.features.terms import (
    APPLIED,
    COUNTED,
    OPERATION,
    OUTCOMES,
    PLACE,
    PROFILES,
    REASONS,
    SIZE,
    SKIPPED,
    UNSEEN,
    VECTORS,
    Batch,
    Output,
)
from modelstream.features.users import Users, texts
from modelstream.use_case.declared import UseCase
from modelstream.use_case.lookups import lookup_key
from modelstream.use_case.vocabulary import Compute, Group, LookUp, names_of

__all__ = [
    "Applied",
    "FeatureEngine",
    "LookupFunction",
    "NoEventsError",
    "Prepared",
    "features_of",
    "no_lookup",
    "no_rows",
    "prepare",
    "replay",
]

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

LookupFunction = Callable[[str, Sequence[str]], Sequence[float | None]]
"""Returns the value of each key in the lookup table of a name, None for a key without one."""


@dataclass(frozen=True)
class Applied:
    """What became of a batch of n events: `counted + sum(not_counted) + skipped == n`.

    `FeatureEngine.apply` returns it, and has an example.
    """

    indices: Int64s
    """int64[k], rising: rows in the batch of the events that led to a vector."""
    codes: Int64s
    """int64[k]: their types, as indices into `UseCase.event_names` (aliases are resolved)."""
    vectors: Float64s
    """float64[k, features], in the order of `UseCase.computed`; each column is contiguous in memory."""
    counted: int
    """Events that changed their user's row, including profile events."""
    not_counted: dict[str, int]
    """Events that changed nothing, by reason (`terms.REASONS`); only reasons that occurred."""
    skipped: int
    """Events that the user's row already contained."""
    lookups: int = 0
    """Values that were looked up: for each profile event one for each lookup."""
    lookup_misses: int = 0
    """Those of them that were not found, or for which there was no key to look up by."""


class FeatureEngine:
    """The state of the users of one shard.

    >>> from modelstream.use_case.file import parse_use_case
    >>> use_case = parse_use_case('''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count],
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {reading: {value: celsius}}, predict_on: [reading],
    ...  model: {name: frost, prediction: will_freeze}}''')
    >>> events = pa.RecordBatch.from_pydict(
    ...     {"house": ["h1", "h1"], "at": [0, 1], "kind": ["reading", "reading"], "celsius": [20.0, 21.0]},
    ...     schema=pa.schema([use_case.event_schema.field(name) for name in use_case.fields]))
    >>> engine = FeatureEngine(use_case)
    >>> engine.load(engine.missing(["h1", "h1"]), no_rows(use_case))
    >>> engine.apply(events, np.array([0, 1]), no_lookup).vectors.tolist()
    [[20.0, 1.0], [20.5, 2.0]]
    >>> engine.changed().to_pydict()["reading_mean"]
    [20.5]
    """

    def __init__(self, use_case: UseCase) -> None:
        self.use_case = use_case
        self._users = Users(use_case)
        self._plan = plan_of(use_case)
        self._own = OwnFeatures(use_case)

    def __len__(self) -> int:
        return len(self._users)

    @property
    def nbytes(self) -> int:
        """The bytes that the users in memory take."""
        return self._users.nbytes

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return the keys, each once, whose rows are not in memory: `load` them before `apply`."""
        return self._users.missing(keys)

    def load(self, keys: Iterable[str], rows: pa.RecordBatch) -> None:
        """Load the stored rows (`row_schema`) of `keys`; keys that are not in `rows` are users without a row.

        Users who are in memory already stay as they are.
        """
        self._users.load(keys, rows)

    def apply(self, events: pa.RecordBatch, stream_positions: Int64s, lookup: LookupFunction) -> Applied:
        """Apply events in order, and return the feature vectors that follow some of them.

        `events`: n rows of the use case's `event_schema`, each with a key, a time and the fields that its type needs;
        columns that would be all null may be absent. `stream_positions`: int64[n], rising; an event at or below the
        position that its user's row has applied is skipped. `lookup` is called at most once for each feature that is
        looked up with the profile, with distinct keys, as `use_case.lookups` writes them.

        Raises NoEventsError, and applies nothing, if the events don't have this form, and ValueError if their users are
        not loaded.
        """
        return self.apply_prepared(prepare(self.use_case, events), stream_positions, lookup)

    def apply_prepared(self, prepared: Prepared, stream_positions: Int64s, lookup: LookupFunction) -> Applied:
        """Apply events that `prepare` returned, as `apply` does. Raises ValueError if their users are not loaded."""
        batch = self._batch(prepared, stream_positions, lookup)
        n = len(prepared.codes)
        lookups = len(self._plan.lookups)
        output = Output(
            indices=np.empty(n, np.int64),
            vectors=np.empty((len(self.use_case.computed), n)),
            profiles=np.empty(np.count_nonzero(batch.codes == self._plan.profile), np.int64),
            counts=np.zeros(OUTCOMES, np.int64),
            scratch=np.empty(SIZE),
        )
        with np.errstate(all="ignore"):  # sums may overflow to inf; without numba numpy would warn
            kernel.apply(self._plan, self._users.state, batch, output)
        counts = output.counts.tolist()
        reasons = zip(REASONS, counts, strict=False)  # counts has more
        profiles = output.profiles[: counts[PROFILES]]
        if len(profiles):
            self._users.set_profiles(batch.slots[profiles], prepared.events, prepared.places(profiles))
        indices = output.indices[: counts[VECTORS]]
        vectors = output.vectors[:, : len(indices)]
        self._own.fill(prepared.events, prepared.places(indices), vectors)
        return Applied(
            indices=indices,
            codes=batch.codes[indices],
            vectors=vectors.T,
            counted=counts[COUNTED],
            not_counted={reason: count for reason, count in reasons if count},
            skipped=counts[SKIPPED],
            lookups=len(profiles) * lookups,
            lookup_misses=int(np.isnan(batch.looked_up[:, profiles]).sum()) if lookups and len(profiles) else 0,
        )

    def changed(self) -> pa.RecordBatch:
        """Return the rows (`row_schema`) of users that changed since `clean`, in no particular order."""
        return self._users.changed()

    def clean(self) -> None:
        """Note that all rows are stored."""
        self._users.clean()

    def forget(self, keys: Iterable[str] | None = None) -> None:
        """Drop some users or all, including changes that are not stored; they are loaded again when needed."""
        self._users.forget(keys)

    def evict(self, limit: int) -> int:
        """Drop the least recently used stored users above `limit`; return how many."""
        return self._users.evict(limit)

    def _batch(self, prepared: Prepared, positions: Int64s, lookup: LookupFunction) -> Batch:
        plan, codes = self._plan, prepared.codes
        if len(positions) != len(codes):
            raise ValueError(f"{len(codes)} events, but {len(positions)} positions")
        try:
            slots = self._users.use(prepared.users)[prepared.user]
        except KeyError as error:
            raise ValueError(f"user {error} was not loaded") from None
        profiles = np.flatnonzero(codes == plan.profile) if len(plan.lookups) else np.empty(0, np.int64)
        profiles = profiles[positions[profiles] > self._users.state.words[slots[profiles], APPLIED]]
        return Batch(
            slots=slots,
            codes=codes,
            positions=np.array(positions, np.int64),
            times=prepared.times,
            takes=prepared.takes,
            shares=prepared.shares,
            values=prepared.values,
            hashes=prepared.hashes,
            ids=prepared.ids,
            has_id=prepared.has_id,
            early=prepared.early,
            looked_up=self._look_up(prepared, profiles, lookup),
        )

    def _look_up(self, prepared: Prepared, profiles: Int64s, lookup: LookupFunction) -> Float64s:
        lookups = self.use_case.profile_lookups.values()
        if not len(profiles):
            return np.empty((len(lookups), 0))
        looked_up = np.full((len(lookups), len(prepared.codes)), np.nan)
        for row, wanted in zip(looked_up, lookups, strict=True):
            if wanted.by in prepared.events.schema.names:
                column = prepared.events.column(wanted.by).take(pa.array(prepared.places(profiles)))
                row[profiles] = self._values(wanted, column, lookup)
        return looked_up

    def _values(self, wanted: LookUp, column: pa.Array, lookup: LookupFunction) -> Float64s:
        asked, kind = column.dictionary_encode(), self.use_case.fields[wanted.by]
        keys = [lookup_key(text, kind) for text in texts(asked.dictionary)]
        distinct = [key for key in dict.fromkeys(keys) if key]
        found = dict(zip(distinct, lookup(wanted.look_up, distinct), strict=True)) if distinct else {}
        # None becomes NaN; the last is for a null key.
        values = np.array([*map(found.get, keys), None], np.float64)
        result: Float64s = values[asked.indices.fill_null(len(keys)).to_numpy()]
        return result


def no_rows(use_case: UseCase) -> pa.RecordBatch:
    """Return an empty batch of rows, as a table returns for unknown users.

    `FeatureEngine` has an example.
    """
    return pa.RecordBatch.from_pylist([], schema=use_case.row_schema)


def no_lookup(table: str, keys: Sequence[str]) -> list[float | None]:  # noqa: ARG001
    """Find nothing, for each key.

    >>> no_lookup("areas", ["a", "b"])
    [None, None]
    """
    return [None] * len(keys)


def features_of(rows: pa.RecordBatch, use_case: UseCase) -> pa.RecordBatch:
    """Return stored rows (`row_schema`) in the form for people (`features_schema`).

    That is key, profile, and features by name, as they stand at the user's clock. A value that was not found is null
    here, not the default, and so is what needs an event: its own features, and arithmetic with them.

    `replay` has an example.
    """
    computed = dict(zip(use_case.computed, _view(rows, use_case), strict=True))
    needs_event = _needing_an_event(use_case)
    schema: pa.Schema = use_case.features_schema
    columns = []
    for field in schema:
        if field.name in needs_event:
            columns.append(pa.nulls(rows.num_rows, field.type))
        elif field.name in computed and field.name not in use_case.profile_lookups:
            columns.append(pa.array(computed[field.name]))
        else:
            columns.append(rows.column(field.name))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _view(rows: pa.RecordBatch, use_case: UseCase) -> Float64s:
    """Return float64[features, rows]; nothing that needs an event is in it."""
    plan, users, n = plan_of(use_case), Users(use_case), rows.num_rows
    keys = texts(rows.column(0))
    users.load(keys, rows)
    nothing, inputs = np.empty(0, np.int64), inputs_of(use_case)
    batch = Batch(
        slots=users.use(keys),
        codes=nothing,
        positions=nothing,
        times=nothing,
        takes=nothing,
        shares=nothing,
        values=np.empty((len(inputs.numbers), 0)),
        hashes=np.empty((len(inputs.hashed), 0), np.int64),
        ids=nothing,
        has_id=np.empty(0, np.bool_),
        early=np.empty(0, np.bool_),
        looked_up=np.empty((len(plan.lookups), 0)),
    )
    output = Output(nothing, np.zeros((len(use_case.computed), n)), nothing, nothing, np.empty(SIZE))
    with np.errstate(all="ignore"):
        kernel.view(plan, users.state, batch, output)
    fields = [field for field in use_case.event_schema if field.name in use_case.fields]
    no_events = pa.RecordBatch.from_arrays([pa.nulls(n, field.type) for field in fields], schema=pa.schema(fields))
    OwnFeatures(use_case).fill(no_events, np.arange(n), output.vectors)
    return output.vectors


def _needing_an_event(use_case: UseCase) -> set[str]:
    """Return the features that are of an event itself, and those that are computed from such ones."""
    plan = plan_of(use_case)
    unseen = plan.features[plan.features[:, OPERATION] == UNSEEN, PLACE].tolist()
    found = {use_case.computed[place] for place in unseen}
    for name, form in use_case.forms.items():
        if not isinstance(form, Group | Compute) and name not in use_case.profile_lookups:
            found.update(names_of(name, form))
    computed = {name: form for name, form in use_case.forms.items() if isinstance(form, Compute)}
    while True:
        more = {n for n, form in computed.items() if not found.isdisjoint(re.findall(r"[^\W\d]\w*", form.compute))}
        if more <= found:
            return found
        found |= more


def replay(
    use_case: UseCase,
    batches: Iterable[pa.RecordBatch],
    lookup: LookupFunction,
    engine: FeatureEngine | None = None,
) -> Iterator[tuple[pa.RecordBatch, Applied]]:
    """Apply batches of events to users without rows, and yield each batch with its result.

    Give an empty `engine` to have the rows afterwards: its `changed()` holds all users.

    Raises ValueError as `FeatureEngine.apply` does.

    >>> from modelstream.use_case.file import parse_use_case
    >>> use_case = parse_use_case('''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count],
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {reading: {value: celsius}}, predict_on: [reading],
    ...  model: {name: frost, prediction: will_freeze}}''')
    >>> schema = pa.schema([use_case.event_schema.field(name) for name in use_case.fields])
    >>> rows = [("h1", 0, "reading", 20.0), ("h2", 0, "reading", 7.0)]
    >>> rows += [("h1", 1, "reading", 21.0), ("h1", 2, "alarm", None)]
    >>> batches = [pa.record_batch([*zip(*rows[i : i + 2])], schema=schema) for i in (0, 2)]
    >>> engine = FeatureEngine(use_case)
    >>> for events, applied in replay(use_case, batches, no_lookup, engine):
    ...     print(applied.indices, applied.vectors.tolist(), applied.not_counted)
    [0 1] [[20.0, 1.0], [7.0, 1.0]] {}
    [0] [[20.5, 2.0]] {'unknown_type': 1}
    >>> features_of(engine.changed(), use_case).to_pydict()
    {'house': ['h1', 'h2'], 'reading_mean': [20.5, 7.0], 'reading_count': [2.0, 1.0]}
    """
    engine = FeatureEngine(use_case) if engine is None else engine
    position = 0
    for events in batches:
        keys = texts(events.column(use_case.key).unique())
        engine.load(engine.missing(keys), no_rows(use_case))
        positions = np.arange(position, position + events.num_rows)
        position += events.num_rows
        yield events, engine.apply(events, positions, lookup)
