"""The columns of a user's stored row that hold the state of the features: times, running statistics, and packed words.

Statistics of all time or of a window that an event opens are columns of their own, which anybody can read. What has
many parts, such as the steps of a sliding window, lies in one column of bytes, `packed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import pyarrow as pa

from modelstream.use_case.columns import TIME
from modelstream.use_case.vocabulary import AllTime, From, Group, Recent, Session, Sliding, Statistic, Window

STORED_STATISTICS = ("sum", "mean", "count", "m2")
"""What a row stores of each group with a number; `m2` is the sum of squared differences from the mean."""
CLOCK = "clock"
"""The column of the greatest time of a user's counted events."""
PACKED = "packed"
"""The column of everything that is no column of its own, as bytes."""
OPENED, LATEST = "opened", "at"
"""The columns of a group for when its window was opened, and for the greatest time of its events."""

_MORE = ("min", "max", "first", "last", "share")
_OF_THE_CLOCK = {Statistic.RATE, Statistic.SINCE, Statistic.SINCE_OPEN}
_WITHOUT_TALLY = {Statistic.SINCE, Statistic.SINCE_OPEN, Statistic.DISTINCT, Statistic.UNSEEN}
_OF_DISTINCT = {Statistic.DISTINCT, Statistic.UNSEEN}


class Limits(Protocol):
    """What the columns of a row need to know of `declared.Clock`."""

    @property
    def late(self) -> str | None:
        """How far an event may lie behind the user's clock."""


class Declaration(Protocol):
    """What the columns of a row need to know of `declared.UseCase`, which has them as its schema."""

    @property
    def first_time(self) -> str | None:
        """The column of the time of the event that opened the window of all."""

    @property
    def fields(self) -> Mapping[str, str]:
        """The types of fields."""

    @property
    def groups(self) -> Mapping[str, Group]:
        """The groups of statistics."""

    @property
    def clock(self) -> Limits:
        """The limits of times."""

    @property
    def id(self) -> str | None:
        """The field of the id."""


class Stored(NamedTuple):
    """A column of a user's row."""

    name: str
    type: pa.DataType
    group: str = ""
    """The group that it belongs to; empty for what belongs to all."""
    part: str = ""
    """What it holds of the group: `sum`, …, or `opened`, `at`."""


def stored_columns(use_case: Declaration) -> list[Stored]:
    """Return the columns of a row behind those of the profile and the lookups, in their order.

    >>> from modelstream.use_case.file import parse_use_case
    >>> use_case = parse_use_case('''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count],
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {reading: {value: celsius}}, predict_on: [reading],
    ...  model: {name: frost, prediction: will_freeze}}''')
    >>> [column.name for column in stored_columns(use_case)]
    ['reading_sum', 'reading_mean', 'reading_count', 'reading_m2']
    """
    columns = []
    if use_case.first_time:
        columns.append(Stored(use_case.first_time, TIME))
    if needs_clock(use_case):
        columns.append(Stored(CLOCK, TIME))
    for name, group in use_case.groups.items():
        columns += [Stored(f"{name}_{part}", TIME, name, part) for part in _times(group)]
        if unlabelled(group):
            columns += [Stored(f"{name}_{part}", pa.float64(), name, part) for part in stored_parts(use_case, group)]
    if _is_packed(use_case):
        columns.append(Stored(PACKED, pa.binary()))
    return columns


def unlabelled(group: Group) -> bool:
    """Tell whether a group has a window of all time or one that an event opens: its tally is columns of the row."""
    return any(isinstance(window, AllTime | From) for window in group.windows)


def stored_parts(use_case: Declaration, group: Group) -> tuple[str, ...]:
    """Return the parts of the tally of a group's unlabelled window, in the order of their columns."""
    parts = STORED_STATISTICS if is_numeric(use_case, group) else ("count",)
    given = {one.value for one in group.give if isinstance(one, Statistic)}
    return (*parts, *("shared" if part == "share" else part for part in _MORE if part in given))


def is_numeric(use_case: Declaration, group: Group) -> bool:
    """Tell whether a group's value is a number that has statistics, and not one whose distinct values are counted."""
    return group.value is not None and use_case.fields[group.value] == "number"


def has_table(group: Group) -> bool:
    """Tell whether a group keeps a table of its distinct values."""
    return bool(_OF_DISTINCT.intersection(_statistics(group)))


def has_tally(group: Group) -> bool:
    """Tell whether a sliding window of a group has a tally: for `since` and the distinct values it needs none."""
    return not _WITHOUT_TALLY.issuperset(_statistics(group))


def is_opened_by_its_first(group: Group) -> bool:
    """Tell whether a row keeps when a group of all time took its first event."""
    asked = {Statistic.RATE, Statistic.SINCE_OPEN}.intersection(_statistics(group))
    return bool(asked) and any(isinstance(window, AllTime) for window in group.windows)


def needs_clock(use_case: Declaration) -> bool:
    """Tell whether a row holds the clock of its user."""
    return use_case.clock.late is not None or any(map(_needs_clock, use_case.groups.values()))


def _needs_clock(group: Group) -> bool:
    windows: tuple[Window, ...] = group.windows
    return any(isinstance(w, Sliding | Session) for w in windows) or bool(
        _OF_THE_CLOCK.intersection(_statistics(group))
    )


def _times(group: Group) -> tuple[str, ...]:
    opened = any(isinstance(window, From) for window in group.windows) or is_opened_by_its_first(group)
    return (*((OPENED,) if opened else ()), *((LATEST,) if Statistic.SINCE in group.give else ()))


def _is_packed(use_case: Declaration) -> bool:
    return use_case.id is not None or any(
        has_table(group)
        or any(isinstance(one, Recent) for one in group.give)
        or any(isinstance(window, Session) for window in group.windows)
        or (any(isinstance(window, Sliding) for window in group.windows) and has_tally(group))
        for group in use_case.groups.values()
    )


def _statistics(group: Group) -> list[Statistic]:
    return [one for one in group.give if isinstance(one, Statistic)]
