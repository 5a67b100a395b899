"""Where everything that is kept of a user lies: the words of its row.

A row is one array of 64-bit words. First come those that are columns of the stored row, then some that are only in
memory (so that what is needed for every event lies together), then those that are stored packed, in one column of
bytes: what most events touch first, rings and tables last.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelstream.features.terms import IDS, KNOWN_AT, LOOKED_UP, NEVER, PARTS
from modelstream.use_case.columns import APPLIED, TIME
from modelstream.use_case.declared import UseCase
from modelstream.use_case.stored import CLOCK, PACKED, has_table, stored_columns, stored_parts
from modelstream.use_case.vocabulary import AllTime, From, Group, Recent, Session, Sliding, Statistic, Window

Int64s = npt.NDArray[np.int64]
Key = tuple[str | int, ...]

OTHERS, SESSIONS, IDENTITIES = "times and values looked up", "sessions", "ids"
"""What parts of a row are called that belong to no group."""


class Layout:
    """The words of a row by what they hold.

    Keys are `("column", NAME)` for columns of the stored row; `("ids",)`, `("session", GAP)`; of a group `("table", G)`
    and `("recent", G)`; of its windows by their number `("tally" | "held" | "ring", G, W)`; and, in memory only,
    `("step", LENGTH)` and `("folded" | "fold", G, W)`.

    >>> from modelstream.use_case.file import parse_use_case
    >>> use_case = parse_use_case('''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count],
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {reading: {value: celsius}}, predict_on: [reading],
    ...  model: {name: frost, prediction: will_freeze}}''')
    >>> layout = Layout(use_case)
    >>> layout.words, layout.word["column", "reading_sum"], layout.packed
    (6, 2, range(6, 6))
    """

    def __init__(self, use_case: UseCase) -> None:
        self._areas: tuple[dict[Key, int], ...] = ({}, {}, {}, {})
        self.parts: dict[str, int] = {}
        """The stored bytes of each part: a group, or what belongs to none."""
        columns, memory, hot, cold = self._areas
        columns |= {("column", APPLIED): 1, ("known at",): 1}
        columns |= {("column", name): 1 for name in use_case.profile_lookups}
        self._count(OTHERS, len(columns))
        for column in stored_columns(use_case):
            if column.name != PACKED:
                columns["column", column.name] = 1
                self._count(column.group or OTHERS, 1)
        windows = [window for group in use_case.groups.values() for window in group.windows]
        memory |= {("step", window.step): 1 for window in windows if isinstance(window, Sliding)}
        hot |= {("session", window.microseconds): 1 for window in windows if isinstance(window, Session)}
        if hot:
            self._count(SESSIONS, len(hot))
        for name, group in use_case.groups.items():
            before = sum(hot.values()) + sum(cold.values())
            self._group(use_case, name, group)
            self._count(name, sum(hot.values()) + sum(cold.values()) - before)
        if use_case.id:
            cold["ids",] = 1 + IDS
            self._count(IDENTITIES, 1 + IDS)
        self.word: dict[Key, int] = {}
        place = 0
        starts = []
        for area in self._areas:
            starts.append(place)
            for key, words in area.items():
                self.word[key] = place
                place += words
        self.words = place
        self.touched = starts[3]
        """So many words are what most events touch."""
        self.packed = range(starts[2], place)
        """The words that are stored packed."""
        self.empty = self._empty(use_case)
        """int64[words]: the row of a user of whom nothing is known."""

    def _group(self, use_case: UseCase, name: str, group: Group) -> None:
        _, memory, hot, cold = self._areas
        for number, window in enumerate(group.windows):
            size = len(tally_parts(use_case, group, window))
            if isinstance(window, Sliding) and size:
                memory |= {("folded", name, number): 1, ("fold", name, number): size}
                hot |= {("held", name, number): 1, ("tally", name, number): size}
                cold["ring", name, number] = (window.steps - 1) * size
            elif isinstance(window, Session) and size:
                hot["tally", name, number] = size
        most = max((one.count for one in group.give if isinstance(one, Recent)), default=0)
        if most:
            hot["recent", name] = 1 + most
        if has_table(group):
            cold["table", name] = 1 + 2 * group.at_most

    def _count(self, part: str, words: int) -> None:
        self.parts[part] = self.parts.get(part, 0) + 8 * words

    def _empty(self, use_case: UseCase) -> Int64s:
        words = np.zeros(self.words, np.int64)
        words[self.word["column", APPLIED]] = -1
        words[KNOWN_AT] = NEVER
        words[LOOKED_UP : LOOKED_UP + len(use_case.profile_lookups)].view(np.float64)[:] = np.nan
        for column in stored_columns(use_case):
            if column.type == TIME:
                words[self.word["column", column.name]] = NEVER
        for key, word in self.word.items():
            if key[0] in {"session", "step"}:
                words[word] = NEVER
        return words

    def finish(self, words: Int64s) -> Int64s:
        """Return rows, int64[n, words], whose stored words are filled, with what is only in memory worked out."""
        for key, word in self.word.items():
            if key[0] == "step":
                clock = words[:, self.word["column", CLOCK]]
                words[:, word] = np.where(clock == NEVER, NEVER, clock // int(key[1]))
        return words


def row_bytes(use_case: UseCase) -> dict[str, int]:
    """Return the bytes of a user's row by part: what belongs to no group, and each group. Texts are not counted.

    >>> from modelstream.use_case.file import parse_use_case
    >>> row_bytes(parse_use_case('''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count],
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {reading: {value: celsius}}, predict_on: [reading],
    ...  model: {name: frost, prediction: will_freeze}}'''))
    {'times and values looked up': 16, 'reading': 32}
    """
    return Layout(use_case).parts


def tally_parts(use_case: UseCase, group: Group, window: Window) -> tuple[str, ...]:
    """Return what the tally of a window keeps, in its order: columns of the row, or only what the statistics need.

    `Layout`, which uses it, has an example.
    """
    if isinstance(window, AllTime | From):
        return stored_parts(use_case, group)
    needed = {part for one in group.give if isinstance(one, Statistic) for part in _NEEDED.get(one, ())}
    return tuple(part for part in PARTS if part in needed)


_NEEDED = {
    Statistic.SUM: ("count", "sum"),
    Statistic.MEAN: ("count", "mean"),
    Statistic.COUNT: ("count",),
    Statistic.VAR: ("count", "mean", "m2"),
    Statistic.STD: ("count", "mean", "m2"),
    Statistic.MIN: ("count", "min"),
    Statistic.MAX: ("count", "max"),
    Statistic.FIRST: ("count", "first"),
    Statistic.LAST: ("count", "last"),
    Statistic.RATE: ("count",),
    Statistic.SHARE: ("count", "shared"),
}
