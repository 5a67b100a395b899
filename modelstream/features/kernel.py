"""The loop that applies events to users, one by one in order: the only place where features of a history are computed.

It is used online, in replay and for training. However a user's events are batched, the features are bit for bit those
of applying the events one at a time: nothing here looks beyond one event and its user.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelstream.base.compiled import compiled_in_place
from modelstream.base.prefetch import prefetch
from modelstream.features import recent, sessions, statistics, tallies, windows
from modelstream.features.terms import (
    APPLIED,
    ARGUMENT,
    ASK_FEATURES,
    ASK_FEATURES_END,
    ASK_GROUP,
    ASK_TALLY,
    ASK_WINDOW,
    BIT_FACTOR,
    CAPACITY,
    COUNT,
    COUNTED,
    CURRENT,
    DISTINCT,
    FIRST_TAKEN,
    FOLD,
    HASH,
    IN_THE_FUTURE,
    KIND,
    KNOWN_AT,
    LATEST,
    LOOKED_UP,
    NEVER,
    OPEN,
    OPENED,
    OPENER,
    OPERATION,
    PLACE,
    PROFILES,
    RATE,
    READ,
    READ_OR,
    RECENT,
    RECENT_COUNT,
    RECENT_VALUE,
    RECENT_WINDOW,
    REPEATED,
    SHARE,
    SHARED,
    SINCE,
    SINCE_OPEN,
    SIZE,
    SKIPPED,
    SLIDING,
    STD,
    TABLE,
    TOO_LATE,
    UNKNOWN_TYPE,
    UNREGISTERED,
    VALUE,
    VAR,
    VECTORS,
    WINDOW_CLOSED,
    WINDOW_NOT_OPEN,
    WINDOWS,
    WINDOWS_END,
    Batch,
    Output,
    Plan,
    State,
)

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

_HOUR = 3_600_000_000.0
_SECOND = 1_000_000.0

_AHEAD = 4
"""So many events ahead the rows of users are asked for."""

_update = statistics.update
_get_variance = tallies.variance
_take = tallies.update
_merge = tallies.merge
_bounds = windows.bounds
_roll = windows.roll
_tally_of = windows.tally_of
_fold = windows.fold
_move_sessions = sessions.move
_remember_value = recent.remember_value
_value_back = recent.value_back
_remember_id = recent.remember_id
_has_id = recent.has_id
_remember_distinct = recent.remember_distinct
_distinct = recent.distinct
_unseen = recent.unseen


@compiled_in_place
def _refusal(plan: Plan, row: Int64s, batch: Batch, i: int) -> int:
    """Return why an event doesn't count, or COUNTED."""
    code, time = batch.codes[i], batch.times[i]
    if code < 0:
        return UNKNOWN_TYPE
    registers = code == plan.profile
    if plan.profile >= 0 and not registers and row[APPLIED] < 0:
        return UNREGISTERED
    if len(batch.early) and batch.early[i]:
        return IN_THE_FUTURE
    if plan.late >= 0 and row[plan.clock] != NEVER and time < row[plan.clock] - plan.late:
        return TOO_LATE
    if plan.ids >= 0 and batch.has_id[i] and _has_id(row, plan.ids, batch.ids[i]):
        return REPEATED
    if plan.opens >= 0 and not registers:
        opened = row[plan.opened]
        if opened == NEVER:
            return COUNTED if code == plan.opens else WINDOW_NOT_OPEN
        if time - opened > plan.window:
            return WINDOW_CLOSED
        if time < opened and not plan.before:
            return WINDOW_NOT_OPEN
    return COUNTED


@compiled_in_place
def _move(plan: Plan, row: Int64s, floats: Float64s, code: int, time: int) -> None:
    """Move the user's clock, and with it sessions and steps; open windows."""
    if plan.clock >= 0:
        clock = row[plan.clock]
        _move_sessions(plan, row, floats, clock, time)
        if clock == NEVER or time > clock:
            row[plan.clock] = time
            for k in range(len(plan.lengths)):
                current, length = row[plan.steps + k], plan.lengths[k]
                if clock != NEVER and time < (current + 1) * length:
                    continue
                step = time // length
                row[plan.steps + k] = step
                if clock == NEVER:
                    continue
                for s in range(len(plan.sliding)):
                    window = plan.windows[plan.sliding[s]]
                    if window[CURRENT] == plan.steps + k:
                        _roll(window, row, floats, current, step - current)
    for f in range(len(plan.froms)):
        if plan.windows[plan.froms[f], OPENER] == code and row[plan.windows[plan.froms[f], OPENED]] == NEVER:
            row[plan.windows[plan.froms[f], OPENED]] = time


@compiled_in_place
def _take_in(plan: Plan, row: Int64s, floats: Float64s, g: int, batch: Batch, i: int) -> None:
    """Let a group take an event, in each of its windows that the event's time lies in."""
    group, time, taken = plan.groups[g], batch.times[i], False
    x = batch.values[group[VALUE], i] if group[VALUE] >= 0 else 0.0
    shared = len(batch.shares) > 0 and ((batch.shares[i] >> g) & 1) == 1
    for w in range(group[WINDOWS], group[WINDOWS_END]):
        low, high = _bounds(plan.windows[w], row)
        if low <= time <= high:
            taken = True
            if plan.windows[w, SIZE] > 0:
                _take(floats, _tally_of(plan.windows[w], row, floats, time), plan.windows[w], x, shared)
            if w == group[RECENT_WINDOW]:
                _remember_value(row, floats, group[RECENT], group[RECENT_COUNT], x)
    if not taken:
        return
    if group[LATEST] >= 0 and (row[group[LATEST]] == NEVER or time > row[group[LATEST]]):
        row[group[LATEST]] = time
    if group[FIRST_TAKEN] >= 0 and row[group[FIRST_TAKEN]] == NEVER:
        row[group[FIRST_TAKEN]] = time
    if group[TABLE] >= 0:
        _remember_distinct(row, group[TABLE], group[CAPACITY], batch.hashes[group[HASH], i], time)


@compiled_in_place
def _feature(
    plan: Plan, row: Int64s, floats: Float64s, ask: Int64s, f: int, tally: Float64s, at: int, batch: Batch, i: int
) -> float:
    """Return a feature; its window's tally begins at `tally[at]`. NaN for what needs an event, if `i` is -1."""
    window, group = plan.windows[ask[ASK_WINDOW]], plan.groups[ask[ASK_GROUP]]
    operation, argument, otherwise = plan.features[f, OPERATION], plan.features[f, ARGUMENT], plan.otherwise[f]
    if operation == READ:
        return float(tally[at + argument])
    if operation == VAR:
        return float(_get_variance(tally, at, window))
    if operation == STD:
        return float(np.sqrt(_get_variance(tally, at, window)))
    if operation == READ_OR:
        return float(tally[at + argument]) if tally[at + window[COUNT]] > 0.0 else otherwise
    if operation == SHARE:
        count = tally[at + window[COUNT]]
        return float(tally[at + window[SHARED]] / count) if count > 0.0 else 0.0
    if operation == RATE:
        hours = otherwise
        if window[KIND] != SLIDING:
            opened = row[window[OPENED]]
            hours = 0.0 if opened == NEVER else float(row[plan.clock] - opened) / _HOUR
        return float(tally[at + window[COUNT]] / max(1.0, hours))
    if operation == SINCE:
        latest = row[group[LATEST]]
        return otherwise if latest == NEVER else float(row[plan.clock] - latest) / _SECOND
    if operation == SINCE_OPEN:
        opened = row[window[OPENED]]
        return 0.0 if opened == NEVER else float(row[plan.clock] - opened) / _SECOND
    if operation == RECENT_VALUE:
        return float(_value_back(row, floats, group[RECENT], group[RECENT_COUNT], argument, otherwise))
    low, high = _bounds(window, row)
    if operation == DISTINCT:
        return float(_distinct(row, group[TABLE], group[CAPACITY], low, high))
    if i < 0:
        return np.nan
    if ((batch.takes[i] >> ask[ASK_GROUP]) & 1) == 0:
        return 0.0
    return float(_unseen(row, group[TABLE], group[CAPACITY], batch.hashes[group[HASH], i], low, high))


@compiled_in_place
def _answer(
    plan: Plan, row: Int64s, floats: Float64s, first: int, last: int, batch: Batch, i: int, output: Output, column: int
) -> None:
    """Write the features of some asks into a column of the vectors."""
    for a in range(first, last):
        ask = plan.asks[a]
        window = plan.windows[ask[ASK_WINDOW]]
        tally, at = floats, window[OPEN]
        if ask[ASK_TALLY] and window[KIND] == SLIDING:
            _fold(window, row, floats, plan.bits)
            if floats[at + window[COUNT]] == 0.0:
                at = window[FOLD]
            elif floats[window[FOLD] + window[COUNT]] > 0.0:
                for part in range(window[SIZE]):
                    output.scratch[part] = floats[window[FOLD] + part]
                _merge(output.scratch, 0, floats, at, window)
                tally, at = output.scratch, 0
        for f in range(ask[ASK_FEATURES], ask[ASK_FEATURES_END]):
            value = _feature(plan, row, floats, ask, f, tally, at, batch, i)
            output.vectors[plan.features[f, PLACE], column] = value


@compiled_in_place
def _take_simply(plan: Plan, floats: Float64s, batch: Batch, i: int) -> None:
    """Let the one group of the event's type take it, if it is one tally of all time with sum, mean, count and m2."""
    if batch.takes[i] != 0:
        code = batch.codes[i]
        tally = plan.tallies[code]
        _update(floats[tally : tally + 4], batch.values[plan.numbers[code], i])


@compiled_in_place
def _answer_simply(plan: Plan, floats: Float64s, vectors: Float64s, column: int) -> None:
    """Write the features of such groups, each of which is a word of the row, or a variance."""
    for f in range(len(plan.words)):
        value = floats[plan.words[f]]
        if plan.counts[f] >= 0:
            value = value / (max(2.0, floats[plan.counts[f]]) - 1.0)
        vectors[plan.places[f], column] = value


@compiled_in_place
def _found(plan: Plan, floats: Float64s, vectors: Float64s, column: int) -> None:
    """Write the values that were looked up with the profile."""
    for found in range(len(plan.lookups)):
        value = floats[LOOKED_UP + found]
        vectors[plan.lookups[found], column] = plan.otherwise_found[found] if np.isnan(value) else value


@compiled_in_place
def _counts(plan: Plan, state: State, batch: Batch, i: int, output: Output) -> bool:
    """Tell whether an event counts, note its outcome, and what it says of its user and the window of all."""
    slot, code, counts = batch.slots[i], batch.codes[i], output.counts
    if i + _AHEAD < len(batch.codes):
        for word in range(0, plan.touched, 8):  # 64 bytes come at once
            prefetch(state.words, batch.slots[i + _AHEAD], word)
    row, floats = state.words[slot], state.floats[slot]
    if batch.positions[i] <= row[APPLIED]:
        counts[SKIPPED] += 1
        return False
    outcome = _refusal(plan, row, batch, i)
    counts[outcome] += 1
    if outcome != COUNTED:
        return False
    if code == plan.profile:
        row[KNOWN_AT] = batch.times[i]
        for found in range(len(plan.lookups)):
            floats[LOOKED_UP + found] = batch.looked_up[found, i]
        output.profiles[counts[PROFILES]] = i
        counts[PROFILES] += 1
    elif code == plan.opens and row[plan.opened] == NEVER:
        row[plan.opened] = batch.times[i]
    row[APPLIED] = batch.positions[i]
    state.changed[slot] = True
    return True


@compiled_in_place
def _noted(plan: Plan, floats: Float64s, i: int, output: Output) -> None:
    """Complete the vector of an event, and note it."""
    column = output.counts[VECTORS]
    _found(plan, floats, output.vectors, column)
    output.indices[column] = i
    output.counts[VECTORS] += 1


@compiled_in_place
def _apply_simply(plan: Plan, state: State, batch: Batch, output: Output) -> None:
    """Apply events to plain groups: half of the time of `apply`'s loop, which does everything."""
    for i in range(len(batch.codes)):
        if _counts(plan, state, batch, i, output):
            floats = state.floats[batch.slots[i]]
            _take_simply(plan, floats, batch, i)
            if plan.predicts[batch.codes[i]]:
                _answer_simply(plan, floats, output.vectors, output.counts[VECTORS])
                _noted(plan, floats, i, output)


@compiled_in_place
def apply(plan: Plan, state: State, batch: Batch, output: Output) -> None:
    """Apply the events of `batch` to `state` in order, and fill `output`.

    An event at or below the position that its user's row has applied is skipped: the row holds it already.

    `engine.FeatureEngine` has an example.
    """
    if plan.simple:
        _apply_simply(plan, state, batch, output)
        return
    for i in range(len(batch.codes)):
        if not _counts(plan, state, batch, i, output):
            continue
        row, floats = state.words[batch.slots[i]], state.floats[batch.slots[i]]
        if plan.ids >= 0 and batch.has_id[i]:
            _remember_id(row, plan.ids, batch.ids[i])
        _move(plan, row, floats, batch.codes[i], batch.times[i])
        predicts = plan.predicts[batch.codes[i]]
        # Twice round: what is asked as before the event, then what is asked after it. `_answer` is inlined once.
        for after in range(0 if predicts and plan.asked_before else 1, 2):
            first, last = 0, plan.asked_before
            if after:
                first, last = plan.asked_before, len(plan.asks)
                takes = batch.takes[i]
                while takes != 0:
                    lowest = takes & -takes
                    takes ^= lowest
                    _take_in(plan, row, floats, plan.bits[((lowest * BIT_FACTOR) >> 58) & 63], batch, i)
            if predicts:
                _answer(plan, row, floats, first, last, batch, i, output, output.counts[VECTORS])
        if predicts:
            _noted(plan, floats, i, output)


@compiled_in_place
def view(plan: Plan, state: State, batch: Batch, output: Output) -> None:
    """Write the features of the users in `batch.slots` as they stand; NaN for what needs an event.

    `engine.replay` has an example, of `engine.features_of`, which uses it.
    """
    for i in range(len(batch.slots)):
        row, floats = state.words[batch.slots[i]], state.floats[batch.slots[i]]
        _answer(plan, row, floats, 0, len(plan.asks), batch, -1, output, i)
        _found(plan, floats, output.vectors, i)
