"""The loop that applies events to users, one by one in order: the only place where features are computed.

It is used online, in replay and for training. However a user's events are batched, the features are bit for bit those
of applying the events one at a time: nothing here looks beyond one event and its user.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from modelstream.base.compiled import compiled_in_place
from modelstream.features import statistics

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NEVER = int(np.iinfo(np.int64).min)
"""The time of something that has not happened."""

UNKNOWN_TYPE, UNREGISTERED, WINDOW_NOT_OPEN, WINDOW_CLOSED, COUNTED, SKIPPED, PROFILES, VECTORS = range(8)
REASONS = ("unknown_type", "unregistered", "window_not_open", "window_closed")
"""Reasons why an event does not count; the first that applies is reported. `use_case.reasons` explains each."""

_update = statistics.update
_get = statistics.get


class Plan(NamedTuple):
    """A use case in the kernel's terms; event types are codes 0 to m-1, and -1 means none.

    `apply` has an example.
    """

    profile: int
    """The type of event that makes a user known; -1: users are known from their first event on."""
    opens: int
    """The event that opens the window; -1: there is no window."""
    window: int
    """Microseconds."""
    value_of: Int64s
    """int64[m]: for each type of event, the index of its value among the e values, or -1."""
    predicts: Bools
    """bool[m]: whether a vector follows each type of event."""
    statistics: Int64s
    """The statistics of each value that are features."""
    lookup: bool
    """Whether the first feature is the value looked up."""
    default: float
    """The value of that feature for a user for whom nothing was found."""


class State(NamedTuple):
    """The users' rows as arrays, with one place ("slot") per user; times are microseconds since 1970 UTC.

    `apply` has an example.
    """

    applied: Int64s
    """The position of the last event that changed the row; -1: none."""
    known: Bools
    """Whether the user has a row."""
    changed: Bools
    """Whether the row has changes that are not stored."""
    known_at: Int64s
    """The time of the profile."""
    looked_up: Float64s
    """NaN: nothing was found."""
    opened: Int64s
    """The time of the event that opened the window, or NEVER."""
    statistics: Float64s
    """float64[users, e, 4], see `modelstream.features.statistics`."""


class Batch(NamedTuple):
    """n events in order; times are microseconds since 1970 UTC.

    `apply` has an example.
    """

    slots: Int64s
    codes: Int64s
    """-1: a type that the use case doesn't know."""
    positions: Int64s
    times: Int64s
    values: Float64s
    """float64[e, n]: each event's value in the row of its type, NaN in the other rows."""
    looked_up: Float64s
    """float64[n], read at profiles; empty if the batch holds none."""


class Output(NamedTuple):
    """The arrays that the kernel fills.

    `apply` has an example.
    """

    indices: Int64s
    """int64[n]: the events that got a vector."""
    vectors: Float64s
    """float64[features, n]: a vector is a column, so that a feature becomes an Arrow array without a copy."""
    profiles: Int64s
    """The events that were taken as profiles."""
    counts: Int64s
    """int64[8]: by reason, COUNTED, SKIPPED, PROFILES, VECTORS."""


@compiled_in_place
def first_without_value(value_of: Int64s, codes: Int64s, values: Float64s) -> int:
    """Return the first event that should have a value but has no finite one, or -1.

    `engine.prepare` raises for it.
    """
    for i in range(len(codes)):
        code = codes[i]
        if code >= 0 and value_of[code] >= 0 and not np.isfinite(values[value_of[code], i]):
            return i
    return -1


@compiled_in_place
def _refusal(plan: Plan, state: State, slot: int, code: int, time: int) -> int:
    """Return why an event doesn't count, or COUNTED."""
    if code < 0:
        return UNKNOWN_TYPE
    if code == plan.profile:
        return COUNTED
    if plan.profile >= 0 and not state.known[slot]:
        return UNREGISTERED
    if plan.opens >= 0:
        if state.opened[slot] == NEVER:
            return COUNTED if code == plan.opens else WINDOW_NOT_OPEN
        if time - state.opened[slot] > plan.window:
            return WINDOW_CLOSED
    return COUNTED


@compiled_in_place
def _write_vector(plan: Plan, state: State, slot: int, vectors: Float64s, column: int) -> None:
    feature = 0
    if plan.lookup:
        looked_up = state.looked_up[slot]
        vectors[0, column] = plan.default if np.isnan(looked_up) else looked_up
        feature = 1
    for value in range(state.statistics.shape[1]):
        for statistic in plan.statistics:
            vectors[feature, column] = _get(state.statistics[slot, value], statistic)
            feature += 1


@compiled_in_place
def apply(plan: Plan, state: State, batch: Batch, output: Output) -> None:
    """Apply the events of `batch` to `state` in order, and fill `output`.

    An event at or below the position that its user's row has applied is skipped: the row holds it already.

    >>> plan = Plan(profile=-1, opens=-1, window=0, value_of=np.array([0]), predicts=np.array([True]),
    ...     statistics=np.array([statistics.MEAN, statistics.COUNT]), lookup=False, default=0.0)
    >>> state = State(applied=np.array([-1]), known=np.zeros(1, np.bool_), changed=np.zeros(1, np.bool_),
    ...     known_at=np.array([NEVER]), looked_up=np.array([np.nan]), opened=np.array([NEVER]),
    ...     statistics=np.zeros((1, 1, 4)))
    >>> batch = Batch(slots=np.array([0, 0]), codes=np.array([0, 0]), positions=np.array([7, 8]),
    ...     times=np.array([0, 1]), values=np.array([[20.0, 21.0]]), looked_up=np.empty(0))
    >>> output = Output(np.empty(2, np.int64), np.empty((2, 2)), np.empty(0, np.int64), np.zeros(8, np.int64))
    >>> apply(plan, state, batch, output)
    >>> output.vectors.T.tolist(), state.applied.tolist(), int(output.counts[VECTORS])
    ([[20.0, 1.0], [20.5, 2.0]], [8], 2)
    """
    counts = output.counts
    for i in range(len(batch.codes)):
        slot, code, time = batch.slots[i], batch.codes[i], batch.times[i]
        if batch.positions[i] <= state.applied[slot]:
            counts[SKIPPED] += 1
            continue
        outcome = _refusal(plan, state, slot, code, time)
        counts[outcome] += 1
        if outcome != COUNTED:
            continue
        if code == plan.profile:
            state.known_at[slot] = time
            if plan.lookup:
                state.looked_up[slot] = batch.looked_up[i]
            output.profiles[counts[PROFILES]] = i
            counts[PROFILES] += 1
        elif code == plan.opens and state.opened[slot] == NEVER:
            state.opened[slot] = time
        if plan.value_of[code] >= 0:
            value = plan.value_of[code]
            _update(state.statistics[slot, value], batch.values[value, i])
        state.known[slot] = True
        state.changed[slot] = True
        state.applied[slot] = batch.positions[i]
        if plan.predicts[code]:
            _write_vector(plan, state, slot, output.vectors, counts[VECTORS])
            output.indices[counts[VECTORS]] = i
            counts[VECTORS] += 1
