"""The columns of a user's stored row that hold the state of the features: times, running statistics, and packed words.

Statistics of all time or of a window that an event opens are columns of their own, which anybody can read. What has
many parts, such as the steps of a sliding window, lies in one column of bytes, `packed`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from modelstream.use_case.columns import TIME
from modelstream.use_case.vocabulary import AllTime, From, Group, Statistic

if TYPE_CHECKING:
    from modelstream.use_case.declared import UseCase

STORED_STATISTICS = ("sum", "mean", "count", "m2")
"""What a row stores of each group with a value; `m2` is the sum of squared differences from the mean."""


class Stored(NamedTuple):
    """A column of a user's row."""

    name: str
    type: pa.DataType
    group: str = ""
    """The group that it belongs to; empty for what belongs to all."""
    part: str = ""
    """What it holds of the group: `sum`, …, or `opened`, `at`."""


def stored_columns(use_case: UseCase) -> list[Stored]:
    """Return the columns of a row behind those of the profile and the lookups, in their order."""
    columns = []
    if use_case.first_time:
        columns.append(Stored(use_case.first_time, TIME))
    for name, group in use_case.groups.items():
        columns += [Stored(f"{name}_{part}", pa.float64(), name, part) for part in _parts(group)]
    return columns


def _parts(group: Group) -> tuple[str, ...]:
    if not any(isinstance(window, AllTime | From) for window in group.windows):
        return ()
    parts = STORED_STATISTICS if group.value is not None else ("count",)
    given = {one.value for one in group.give if isinstance(one, Statistic)}
    return (*parts, *(part for part in ("min", "max", "first", "last") if part in given))
