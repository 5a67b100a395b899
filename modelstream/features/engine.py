"""The feature engine: events in, feature vectors out; it keeps the users' rows in between.

The use case says which events count and what the features are. The loop over events is in
`modelstream.features.kernel`, the users' rows in memory are in `modelstream.features.users`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelstream.features import kernel, statistics
from modelstream.features.users import Users, texts
from modelstream.use_case.columns import STORED_STATISTICS
from modelstream.use_case.declared import UseCase
from modelstream.use_case.lookups import lookup_key, lookup_key_type

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

LookupFunction = Callable[[Sequence[str]], Sequence[float | None]]
"""Returns the value of each key, None for a key without one."""


class NoEventsError(ValueError):
    """Rows that are no events of the use case: the event-handler lets none through. `FeatureEngine.apply` raises it."""


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
    """Events that changed nothing, by reason (`kernel.REASONS`); only reasons that occurred."""
    skipped: int
    """Events that the user's row already contained."""
    lookups: int = 0
    """Profile events, for each of which a value was looked up."""
    lookup_misses: int = 0
    """Those of them for which none was found, or which had no key to look up by."""


@dataclass(frozen=True)
class Prepared:
    """What the engine reads of events, whatever its users: many shards' events may be prepared at once.

    `prepare` returns it, and has an example.
    """

    events: pa.RecordBatch
    users: list[str]
    """The distinct keys."""
    user: Int64s
    """int64[n]: the place of each event's key in `users`."""
    codes: Int64s
    """int64[n]: types, as indices into `UseCase.event_names`, -1 for others."""
    times: Int64s
    values: Float64s
    """float64[value events, n], contiguous."""
    rows: Int64s | None = None
    """int64[n], rising: the rows of `events` that these are, None for all of them."""

    def part(self, rows: Int64s) -> Prepared:
        """Return those events that are in `rows` (int64[k], rising)."""
        places, user = np.unique(self.user[rows], return_inverse=True)
        return Prepared(
            events=self.events,
            users=[self.users[place] for place in places.tolist()],
            user=user,
            codes=self.codes[rows],
            times=self.times[rows],
            values=np.ascontiguousarray(self.values[:, rows]),
            rows=rows,
        )

    def places(self, which: Int64s) -> Int64s:
        """Return the rows of `events` that some of these are."""
        return which if self.rows is None else self.rows[which]


def prepare(use_case: UseCase, events: pa.RecordBatch) -> Prepared:
    """Return events of `event_schema` as `FeatureEngine.apply_prepared` takes them. Raises NoEventsError.

    >>> from modelstream.use_case.file import parse_use_case
    >>> use_case = parse_use_case('''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count],
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {reading: {value: celsius}}, predict_on: [reading],
    ...  model: {name: frost, prediction: will_freeze}}''')
    >>> events = pa.RecordBatch.from_pydict(
    ...     {"house": ["h1", "h2"], "at": [0, 1], "kind": ["reading", "x"], "celsius": [20.0, None]},
    ...     schema=pa.schema([use_case.event_schema.field(name) for name in use_case.fields]))
    >>> found = prepare(use_case, events)
    >>> found.users, found.codes.tolist(), found.part(np.array([1])).users
    (['h1', 'h2'], [0, -1], ['h2'])
    """
    keys, times = events.column(use_case.key), events.column(use_case.time)
    if keys.null_count or times.null_count:
        raise NoEventsError(f"events without {use_case.key} or {use_case.time}")
    encoded = keys.dictionary_encode()
    user: Int64s = encoded.indices.to_numpy().astype(np.int64)
    # Copies, as numba would compile anew for the read-only arrays that Arrow gives.
    prepared = Prepared(
        events,
        texts(encoded.dictionary),
        user,
        _codes(events.column(use_case.type), use_case.event_codes),
        times.to_numpy(zero_copy_only=False).astype(np.int64),
        _values(events, use_case),
    )
    value_of = _value_of(use_case)
    bad = kernel.first_without_value(value_of, prepared.codes, prepared.values)
    if bad >= 0:
        name = use_case.event_names[prepared.codes[bad]]
        raise NoEventsError(f"event {bad} of the batch ({name}) has no finite {use_case.value_field(name)}")
    return prepared


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
        self._plan = _plan(use_case)
        self._key_type = lookup_key_type(use_case)

    def __len__(self) -> int:
        return len(self._users)

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

        `events`: n rows of the use case's `event_schema`, each with a key, a time and, if its type has one,
        a value; columns that would be all null may be absent. `stream_positions`: int64[n], rising; an event
        at or below the position that its user's row has applied is skipped. `lookup` is called at most once,
        with distinct keys, as `use_case.lookups` writes them.

        Raises NoEventsError, and applies nothing, if the events don't have this form, and ValueError if their users are
        not loaded.
        """
        return self.apply_prepared(prepare(self.use_case, events), stream_positions, lookup)

    def apply_prepared(self, prepared: Prepared, stream_positions: Int64s, lookup: LookupFunction) -> Applied:
        """Apply events that `prepare` returned, as `apply` does. Raises ValueError if their users are not loaded."""
        batch = self._batch(prepared, stream_positions, lookup)
        n = len(prepared.codes)
        output = kernel.Output(
            indices=np.empty(n, np.int64),
            vectors=np.empty((len(self.use_case.computed), n)),
            profiles=np.empty(np.count_nonzero(batch.codes == self._plan.profile), np.int64),
            counts=np.zeros(8, np.int64),
        )
        with np.errstate(all="ignore"):  # sums may overflow to inf; without numba numpy would warn
            kernel.apply(self._plan, self._users.state, batch, output)
        counts = output.counts.tolist()
        reasons = zip(kernel.REASONS, counts, strict=False)  # counts has more
        profiles = output.profiles[: counts[kernel.PROFILES]]
        if len(profiles):
            self._users.set_profiles(batch.slots[profiles], prepared.events, prepared.places(profiles))
        indices = output.indices[: counts[kernel.VECTORS]]
        return Applied(
            indices=indices,
            codes=batch.codes[indices],
            vectors=output.vectors[:, : len(indices)].T,
            counted=counts[kernel.COUNTED],
            not_counted={reason: count for reason, count in reasons if count},
            skipped=counts[kernel.SKIPPED],
            lookups=len(profiles) if self._plan.lookup else 0,
            lookup_misses=int(np.isnan(batch.looked_up[profiles]).sum()) if self._plan.lookup else 0,
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

    def _batch(self, prepared: Prepared, positions: Int64s, lookup: LookupFunction) -> kernel.Batch:
        plan, codes = self._plan, prepared.codes
        if len(positions) != len(codes):
            raise ValueError(f"{len(codes)} events, but {len(positions)} positions")
        try:
            slots = self._users.use(prepared.users)[prepared.user]
        except KeyError as error:
            raise ValueError(f"user {error} was not loaded") from None
        profiles = np.flatnonzero(codes == plan.profile) if plan.lookup else np.empty(0, np.int64)
        profiles = profiles[positions[profiles] > self._users.state.applied[slots[profiles]]]
        return kernel.Batch(
            slots=slots,
            codes=codes,
            positions=np.array(positions, np.int64),
            times=prepared.times,
            values=prepared.values,
            looked_up=self._look_up(prepared, profiles, lookup),
        )

    def _look_up(self, prepared: Prepared, profiles: Int64s, lookup: LookupFunction) -> Float64s:
        if not len(profiles) or self.use_case.lookup is None:
            return np.empty(0)
        looked_up, events = np.full(len(prepared.codes), np.nan), prepared.events
        if self.use_case.lookup.by in events.schema.names:
            asked = events.column(self.use_case.lookup.by).take(pa.array(prepared.places(profiles))).dictionary_encode()
            keys = [lookup_key(text, self._key_type) for text in texts(asked.dictionary)]
            distinct = [key for key in dict.fromkeys(keys) if key]
            found = dict(zip(distinct, lookup(distinct), strict=True)) if distinct else {}
            # None becomes NaN; the last is for a null key.
            values = np.array([*map(found.get, keys), None], np.float64)
            looked_up[profiles] = values[asked.indices.fill_null(len(keys)).to_numpy()]
        return looked_up


def _codes(types: pa.Array, known: dict[str, int]) -> Int64s:
    encoded = types.dictionary_encode()
    codes = np.array([known.get(name, -1) for name in texts(encoded.dictionary)] + [-1], np.int64)
    indices = encoded.indices.fill_null(len(codes) - 1) if encoded.null_count else encoded.indices
    result: Int64s = codes[indices.to_numpy()]
    return result


def _values(events: pa.RecordBatch, use_case: UseCase) -> Float64s:
    values = np.full((len(use_case.value_events), events.num_rows), np.nan)
    for row, event in zip(values, use_case.value_events, strict=True):
        field = use_case.value_field(event)
        if field in events.schema.names:
            row[:] = events.column(field).to_numpy(zero_copy_only=False)
    return values


def _plan(use_case: UseCase) -> kernel.Plan:
    names, lookup = use_case.event_names, use_case.lookup
    return kernel.Plan(
        profile=names.index(use_case.profile.event) if use_case.profile else -1,
        opens=names.index(use_case.window.opens) if use_case.window else -1,
        window=use_case.window.microseconds if use_case.window else 0,
        value_of=_value_of(use_case),
        predicts=np.array([name in use_case.predict_on for name in names], np.bool_),
        statistics=np.array([statistics.STATISTICS[name] for name in use_case.statistics], np.int64),
        lookup=lookup is not None,
        default=lookup.default if lookup else 0.0,
    )


def _value_of(use_case: UseCase) -> Int64s:
    """Return for each type of event the row of its values, -1 for none."""
    names, value_events = use_case.event_names, use_case.value_events
    return np.array([value_events.index(n) if n in value_events else -1 for n in names], np.int64)


def no_rows(use_case: UseCase) -> pa.RecordBatch:
    """Return an empty batch of rows, as a table returns for unknown users.

    `FeatureEngine` has an example.
    """
    return pa.RecordBatch.from_pylist([], schema=use_case.row_schema)


def no_lookup(keys: Sequence[str]) -> list[float | None]:
    """Find nothing, for each key.

    >>> no_lookup(["a", "b"])
    [None, None]
    """
    return [None] * len(keys)


def features_of(rows: pa.RecordBatch, use_case: UseCase) -> pa.RecordBatch:
    """Return stored rows (`row_schema`) in the form for people (`features_schema`).

    That is key, profile, and features by name. A value that was not found is null here, not the default.

    `replay` has an example.
    """
    derived = {}
    for event in use_case.value_events:
        stored = np.column_stack([rows.column(f"{event}_{name}") for name in STORED_STATISTICS])
        for name in use_case.statistics:
            derived[f"{event}_{name}"] = statistics.get_many(stored, statistics.STATISTICS[name])
    schema: pa.Schema = use_case.features_schema
    columns = [pa.array(derived[name]) if name in derived else rows.column(name) for name in schema.names]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


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
