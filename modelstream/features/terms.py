"""A use case, the users' rows and a batch of events in the kernel's terms: numbers in arrays.

What the compiled functions know of a plan stands in tables of int64, a row for each group, window, question and
feature; the constants here are the columns of these tables. `plan` makes them.
"""

# numba compiles anew when a file with the word @compiled changes: the constants here are compiled into the kernel.

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NEVER = int(np.iinfo(np.int64).min)
"""The time of something that has not happened."""
ALWAYS = int(np.iinfo(np.int64).max)
"""A time that nothing is later than."""
IDS = 64
"""Of so many last ids of a user a repeated one is not counted."""

REASONS = (
    "unknown_type",
    "unregistered",
    "in_the_future",
    "too_late",
    "repeated",
    "window_not_open",
    "window_closed",
)
"""Reasons why an event does not count; the first that applies is reported. `use_case.reasons` explains each."""
UNKNOWN_TYPE, UNREGISTERED, IN_THE_FUTURE, TOO_LATE, REPEATED, WINDOW_NOT_OPEN, WINDOW_CLOSED = range(7)
COUNTED, SKIPPED, PROFILES, VECTORS, OUTCOMES = range(7, 12)

# The words of every row, before those that depend on the use case.
APPLIED, KNOWN_AT, LOOKED_UP = range(3)

# The parts of a tally, which are the first columns of `Plan.windows`: where each lies in the tally, -1 if it is not
# kept; then how many words a tally has, and whether it keeps more than COUNT to M2.
COUNT, SUM, MEAN, M2, MIN, MAX, FIRST, LAST, SHARED, SIZE, MORE = range(11)
PARTS = ("count", "sum", "mean", "m2", "min", "max", "first", "last", "shared")

# The further columns of `Plan.windows`; words are places in a row, -1 for what the window does not have.
KIND, OPEN, LENGTH, OPENED, BEFORE, STEPS, HELD, RING, FOLD, FOLDED, CURRENT, OPENER, WINDOW_COLUMNS = range(11, 24)
ALL_TIME, FROM, SLIDING, SESSION = range(4)

# The columns of `Plan.groups`.
(
    VALUE,
    HASH,
    LATEST,
    FIRST_TAKEN,
    WINDOWS,
    WINDOWS_END,
    TABLE,
    CAPACITY,
    RECENT,
    RECENT_COUNT,
    RECENT_WINDOW,
    PLAIN,
    GROUP_COLUMNS,
) = range(13)

# The columns of `Plan.asks`: features of one window, at one moment.
ASK_WINDOW, ASK_GROUP, ASK_FEATURES, ASK_FEATURES_END, ASK_TALLY, ASK_COLUMNS = range(6)

# The columns of `Plan.features`: what is computed, the row of the vectors that it goes to, and a number that it needs.
OPERATION, PLACE, ARGUMENT, FEATURE_COLUMNS = range(4)
READ, READ_OR, VAR, STD, RATE, SHARE, SINCE, SINCE_OPEN, DISTINCT, UNSEEN, RECENT_VALUE = range(11)

BIT_FACTOR = 0x03F79D71B4CB0A89
BITS: Int64s = np.zeros(64, np.int64)
"""The number of a bit b, at the six highest bits of `b * BIT_FACTOR` (a de Bruijn sequence)."""
BITS[[((1 << bit) * BIT_FACTOR >> 58) & 63 for bit in range(64)]] = np.arange(64)


class Plan(NamedTuple):
    """A use case in the kernel's terms; event types are codes 0 to m-1, -1 means none, lengths are microseconds.

    `plan.plan_of` makes it, and has an example.
    """

    profile: int
    """The type of event that makes a user known; -1: users are known from their first event on."""
    opens: int
    """The event that opens the window of all; -1: there is no window."""
    opened: int
    """The word of the time of that event."""
    window: int
    """The length of the window of all."""
    before: bool
    """Whether events count whose time lies before the one that opened the window."""
    late: int
    """How far behind the user's clock an event may lie; -1: any."""
    clock: int
    """The word of the user's clock, -1 if nothing needs it."""
    ids: int
    """The words of the last ids: how many there were, then IDS hashes; -1: events have no id."""
    sessions: int
    """The words of the start of each session."""
    steps: int
    """The words of the current step of each length of steps."""
    predicts: Bools
    """bool[m]: whether a vector follows each type of event."""
    lookups: Int64s
    """int64[l]: the row of the vectors for each value looked up with the profile."""
    otherwise_found: Float64s
    """float64[l]: the value for a user for whom nothing was found."""
    gaps: Int64s
    """int64[s]: the gap that ends each session."""
    lengths: Int64s
    """int64[k]: the length of steps, each once."""
    froms: Int64s
    """The windows that an event opens."""
    sliding: Int64s
    """The windows with steps."""
    groups: Int64s
    windows: Int64s
    touched: int
    """So many words of a row are what most events touch."""
    bits: Int64s
    """`BITS`."""
    asks: Int64s
    asked_before: int
    """So many of `asks` are computed before the event is taken by its groups, the others after it."""
    features: Int64s
    simple: bool
    """Whether every group is one tally of all time with sum, mean, count and m2, no type is taken by two of them, and
    nothing else moves with events."""
    tallies: Int64s
    """int64[m], if it is so: the word of the tally that takes each type of event."""
    numbers: Int64s
    """int64[m], if it is so: the row of the values of each type of event."""
    words: Int64s
    """int64[features], if it is so: the word that each feature is, or that its variance is computed from."""
    counts: Int64s
    """int64[features], if it is so: the word of the count, for a variance, else -1."""
    places: Int64s
    """int64[features], if it is so: `features[:, PLACE]` in one piece."""
    otherwise: Float64s
    """float64[features]: the value of nothing; for a rate in a sliding window, its hours."""


class State(NamedTuple):
    """The users' rows, with one place ("slot") per user; times are microseconds since 1970 UTC.

    `engine.FeatureEngine`, which makes it for the kernel, has an example.
    """

    words: Int64s
    """int64[users, words], as `layout.Layout` says."""
    floats: Float64s
    """The same memory, as float64."""
    changed: Bools
    """bool[users]: whether the row has changes that are not stored."""


class Batch(NamedTuple):
    """n events in order; times are microseconds since 1970 UTC.

    `engine.FeatureEngine`, which makes it for the kernel, has an example.
    """

    slots: Int64s
    codes: Int64s
    """-1: a type that the use case doesn't know."""
    positions: Int64s
    times: Int64s
    takes: Int64s
    """int64[n]: bit g is set if the event is one of group g's, by its type, its value and the conditions of `where`."""
    shares: Int64s
    """int64[n]: bit g is set if the event meets the conditions of the share of group g; empty if no group has one."""
    values: Float64s
    """float64[v, n]: numbers of the events, NaN where an event has none."""
    hashes: Int64s
    """int64[h, n]: hashes of values that are counted once, 0 where an event has none."""
    ids: Int64s
    """int64[n]: hashes of the events' ids; empty if events have none."""
    has_id: Bools
    """bool[n], or empty."""
    early: Bools
    """bool[n]: whether the event lies too far ahead of its arrival; empty if none does."""
    looked_up: Float64s
    """float64[l, n], read at profiles; of no length if the batch holds none."""


class Output(NamedTuple):
    """The arrays that the kernel fills.

    `engine.FeatureEngine`, which makes it for the kernel, has an example.
    """

    indices: Int64s
    """int64[n]: the events that got a vector."""
    vectors: Float64s
    """float64[features, n]: a vector is a column, so that a feature becomes an Arrow array without a copy."""
    profiles: Int64s
    """The events that were taken as profiles."""
    counts: Int64s
    """int64[OUTCOMES]: by reason, COUNTED, SKIPPED, PROFILES, VECTORS."""
    scratch: Float64s
    """float64[SIZE], for the tally of a window."""
