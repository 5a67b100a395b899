"""What the engine reads of a batch of events before their users are looked at, as arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelstream.features.conditions import Conditions
from modelstream.features.hashes import hashes_of
from modelstream.features.plan import inputs_of
from modelstream.features.users import texts
from modelstream.use_case.columns import INGESTED_AT
from modelstream.use_case.declared import FieldType, UseCase

Bools = npt.NDArray[np.bool_]
Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


class NoEventsError(ValueError):
    """Rows that are no events of the use case: the event-handler lets none through. `FeatureEngine.apply` raises it."""


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
    """float64[numbers, n], contiguous: the fields `plan.Inputs.numbers`."""
    takes: Int64s
    """int64[n]: bit g is set if group g takes such events, by their type, their value and `where`."""
    shares: Int64s
    """int64[n]: bit g is set if the event meets the `share` of group g; of length 0 if no group has one."""
    hashes: Int64s
    """int64[hashed, n]: the fields `plan.Inputs.hashed`."""
    ids: Int64s
    """int64[n]: hashes of ids; of length 0 if events have none."""
    has_id: Bools
    """bool[n], or of length 0."""
    early: Bools
    """bool[n]: whether the event lies too far ahead of its arrival; of length 0 if none does."""
    rows: Int64s | None = None
    """int64[n], rising: the rows of `events` that these are, None for all of them."""

    def part(self, rows: Int64s) -> Prepared:
        """Return those events that are in `rows` (int64[k], rising)."""
        places, user = np.unique(self.user[rows], return_inverse=True)
        return replace(
            self,
            users=[self.users[place] for place in places.tolist()],
            user=user,
            codes=self.codes[rows],
            times=self.times[rows],
            values=np.ascontiguousarray(self.values[:, rows]),
            takes=self.takes[rows],
            shares=self.shares[rows] if len(self.shares) else self.shares,
            hashes=np.ascontiguousarray(self.hashes[:, rows]),
            ids=self.ids[rows] if len(self.ids) else self.ids,
            has_id=self.has_id[rows] if len(self.has_id) else self.has_id,
            early=self.early[rows] if len(self.early) else self.early,
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
    >>> found.users, found.codes.tolist(), found.takes.tolist(), found.part(np.array([1])).users
    (['h1', 'h2'], [0, -1], [1, 0], ['h2'])
    """
    keys, times = events.column(use_case.key), events.column(use_case.time)
    if keys.null_count or times.null_count:
        raise NoEventsError(f"events without {use_case.key} or {use_case.time}")
    encoded = keys.dictionary_encode()
    # Copies, as numba would compile anew for the read-only arrays that Arrow gives.
    user: Int64s = encoded.indices.to_numpy().astype(np.int64)
    when: Int64s = times.to_numpy(zero_copy_only=False).astype(np.int64)
    codes = _codes(events.column(use_case.type), use_case.event_codes)
    columns = _Columns(use_case, events, codes)
    columns.check_needs()
    inputs = columns.asked.inputs
    values = np.empty((len(inputs.numbers), events.num_rows))
    for row, field in zip(values, inputs.numbers, strict=True):
        row[:] = columns.number(field)
    hashes = np.zeros((len(inputs.hashed), events.num_rows), np.int64)
    for hashed, field in zip(hashes, inputs.hashed, strict=True):
        if field in events.schema.names:
            hashed[:] = hashes_of(events.column(field))
    takes, shares = columns.takes_and_shares()
    ids, has_id = columns.ids()
    early = columns.early(when)
    return Prepared(
        events, texts(encoded.dictionary), user, codes, when, values, takes, shares, hashes, ids, has_id, early
    )


class _Asked:
    """What follows from a use case alone; worked out once, as it takes as long as an event."""

    def __init__(self, use_case: UseCase) -> None:
        names, groups = use_case.event_names, use_case.groups.values()
        self.inputs = inputs_of(use_case)
        needed: dict[str, list[int]] = {}
        for code, name in enumerate(names):
            for field in use_case.needs(name):
                needed.setdefault(field, []).append(code)
        self.needed = {field: _flags(codes, len(names)) for field, codes in needed.items()}
        self.groups = np.zeros(len(names) + 1, np.int64)
        """int64[types + 1]: the bits of the groups of each type; an unknown type, -1, is the last."""
        for g, group in enumerate(groups):
            self.groups[[names.index(name) for name in group.of]] |= 1 << g
        self.shares = any(group.share for group in groups)
        self.conditional = [
            (g, group, group.value is not None and any(group.value not in use_case.needs(name) for name in group.of))
            for g, group in enumerate(groups)
        ]
        """The groups that don't take every event of their types, and whether their value may be missing."""
        self.conditional = [each for each in self.conditional if each[1].where or each[1].share or each[2]]


def _asked(use_case: UseCase) -> _Asked:
    kept = vars(use_case)  # where its cached properties are
    if "_asked" not in kept:
        kept["_asked"] = _Asked(use_case)
    asked: _Asked = kept["_asked"]
    return asked


class _Columns:
    """The columns of a batch of events; a field that no event has is not there."""

    def __init__(self, use_case: UseCase, events: pa.RecordBatch, codes: Int64s) -> None:
        self.asked = _asked(use_case)
        self._use_case = use_case
        self._events = events
        self._codes = codes
        self._numbers: dict[str, Float64s] = {}

    def number(self, field: str) -> Float64s:
        """Return a field of numbers, NaN where there is none."""
        if field not in self._numbers:
            if field in self._events.schema.names:
                self._numbers[field] = self._events.column(field).to_numpy(zero_copy_only=False)
            else:
                self._numbers[field] = np.full(len(self._codes), np.nan)
        return self._numbers[field]

    def check_needs(self) -> None:
        """Raise NoEventsError if an event is without a field that its type needs."""
        use_case, bad = self._use_case, []
        for field, flags in self.asked.needed.items():
            lacking = flags[self._codes] & ~self._known(field)
            if lacking.any():
                bad.append((int(np.argmax(lacking)), field))
        if bad:
            row, field = min(bad)
            finite = "finite " if use_case.fields[field] == FieldType.NUMBER else ""
            name = use_case.event_names[self._codes[row]]
            raise NoEventsError(f"event {row} of the batch ({name}) has no {finite}{field}")

    def takes_and_shares(self) -> tuple[Int64s, Int64s]:
        """Return the bits of the groups that take each event, and whose share it counts for."""
        codes, asked = self._codes, self.asked
        takes: Int64s = asked.groups[codes]
        shares = np.zeros(len(codes) if asked.shares else 0, np.int64)
        if not asked.conditional:
            return takes, shares
        conditions = Conditions(self._use_case, self._events, codes)
        for g, group, may_be_missing in asked.conditional:
            if group.where:
                takes &= np.where(conditions.met(group.where), -1, ~(1 << g))
            if may_be_missing:
                takes &= np.where(self._known(group.value or ""), -1, ~(1 << g))
            if group.share:
                shares |= np.where(conditions.met(group.share), 1 << g, 0)
        return takes, shares

    def ids(self) -> tuple[Int64s, Bools]:
        """Return hashes of the ids of events, and which events have one."""
        field = self._use_case.id
        if field is None:
            return np.empty(0, np.int64), np.empty(0, np.bool_)
        if field not in self._events.schema.names:
            return np.zeros(len(self._codes), np.int64), np.zeros(len(self._codes), np.bool_)
        return hashes_of(self._events.column(field)), self._known(field).copy()

    def early(self, times: Int64s) -> Bools:
        """Return which events lie too far ahead of their arrival; events without a time of arrival don't."""
        ahead = self._use_case.clock.ahead_microseconds
        if ahead is None or INGESTED_AT not in self._events.schema.names:
            return np.empty(0, np.bool_)
        arrived = self._events.column(INGESTED_AT)
        known = arrived.is_valid().to_numpy(zero_copy_only=False)
        early: Bools = known & (times > arrived.cast(pa.int64()).fill_null(0).to_numpy() + ahead)
        return early if early.any() else np.empty(0, np.bool_)

    def _known(self, field: str) -> Bools:
        """Return which events have a field; a number has to be finite."""
        if self._use_case.fields[field] == FieldType.NUMBER:
            return np.isfinite(self.number(field))
        if field not in self._events.schema.names:
            return np.zeros(len(self._codes), np.bool_)
        known: Bools = self._events.column(field).is_valid().to_numpy(zero_copy_only=False)
        return known


def _flags(codes: list[int], count: int) -> Bools:
    """Return for each code, and for an unknown one, which is the last, whether it is among some."""
    flags = np.zeros(count + 1, np.bool_)
    flags[codes] = True
    return flags


def _codes(types: pa.Array, known: dict[str, int]) -> Int64s:
    encoded = types.dictionary_encode()
    codes = np.array([known.get(name, -1) for name in texts(encoded.dictionary)] + [-1], np.int64)
    indices = encoded.indices.fill_null(len(codes) - 1) if encoded.null_count else encoded.indices
    result: Int64s = codes[indices.to_numpy()]
    return result
