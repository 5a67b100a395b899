"""Puts a use case into the kernel's terms: its groups, windows and features, and the words in which they lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from modelstream.errors import ConfigurationError
from modelstream.features import terms
from modelstream.features.layout import Layout, tally_parts
from modelstream.features.terms import PARTS, Plan
from modelstream.use_case.declared import UseCase
from modelstream.use_case.stored import (
    CLOCK,
    LATEST,
    OPENED,
    has_table,
    is_numeric,
    is_opened_by_its_first,
    needs_clock,
)
from modelstream.use_case.vocabulary import (
    AllTime,
    From,
    Group,
    Recent,
    Session,
    Sliding,
    Statistic,
    Window,
)

Int64s = npt.NDArray[np.int64]

_MICROSECONDS_AN_HOUR = 3_600_000_000
_READ = {Statistic.SUM: terms.SUM, Statistic.MEAN: terms.MEAN, Statistic.COUNT: terms.COUNT}
_READ_OR = {
    Statistic.MIN: terms.MIN,
    Statistic.MAX: terms.MAX,
    Statistic.FIRST: terms.FIRST,
    Statistic.LAST: terms.LAST,
}
_OTHERS = {
    Statistic.VAR: terms.VAR,
    Statistic.STD: terms.STD,
    Statistic.RATE: terms.RATE,
    Statistic.SINCE: terms.SINCE,
    Statistic.SINCE_OPEN: terms.SINCE_OPEN,
    Statistic.DISTINCT: terms.DISTINCT,
    Statistic.UNSEEN: terms.UNSEEN,
    Statistic.SHARE: terms.SHARE,
}
_SIMPLE = {terms.READ, terms.VAR}
_WITHOUT_TALLY = {Statistic.SINCE, Statistic.SINCE_OPEN, Statistic.DISTINCT, Statistic.UNSEEN}


class Inputs(NamedTuple):
    """The fields whose values the kernel needs of each event.

    `plan_of` has an example.
    """

    numbers: tuple[str, ...]
    """As they are, in the rows of `Batch.values`."""
    hashed: tuple[str, ...]
    """Hashed, in the rows of `Batch.hashes`."""


def inputs_of(use_case: UseCase) -> Inputs:
    """Return the fields that the groups of a use case read.

    `plan_of` has an example.
    """
    groups = use_case.groups.values()
    numbers = (group.value for group in groups if group.value is not None and is_numeric(use_case, group))
    hashed = (group.value for group in groups if group.value is not None and has_table(group))
    return Inputs(tuple(dict.fromkeys(numbers)), tuple(dict.fromkeys(hashed)))


def shape_of(parts: Sequence[str]) -> Int64s:
    """Return the shape of a tally that keeps some parts in that order, int64[terms.MORE + 1].

    >>> shape_of(("count", "sum")).tolist()
    [0, 1, -1, -1, -1, -1, -1, -1, -1, 2, 0]
    """
    places = [parts.index(part) if part in parts else -1 for part in PARTS]
    return np.array([*places, len(parts), max(places[terms.MIN :]) >= 0], np.int64)


def plan_of(use_case: UseCase) -> Plan:
    """Return the plan of a use case.

    >>> from modelstream.use_case.file import parse_use_case
    >>> use_case = parse_use_case('''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count],
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {reading: {value: celsius}}, predict_on: [reading],
    ...  model: {name: frost, prediction: will_freeze}}''')
    >>> plan = plan_of(use_case)
    >>> plan.profile, len(plan.groups), len(plan.windows), plan.features[:, terms.PLACE].tolist(), inputs_of(use_case)
    (-1, 1, 1, [0, 1], Inputs(numbers=('celsius',), hashed=()))
    """
    return _Planner(use_case).plan()


class _Planner:
    """Numbers the windows of all groups one after the other, and the features by what asks for them."""

    def __init__(self, use_case: UseCase) -> None:
        for name, group in use_case.groups.items():
            _check(name, group)
        self._use_case = use_case
        self._layout = Layout(use_case)
        self._word = self._layout.word
        self._inputs = inputs_of(use_case)
        self._numbers = {
            (name, number): i
            for i, (name, number) in enumerate(
                (name, number) for name, group in use_case.groups.items() for number in range(len(group.windows))
            )
        }
        gaps = (w.microseconds for g in use_case.groups.values() for w in g.windows if isinstance(w, Session))
        self._gaps = tuple(dict.fromkeys(gaps))
        lengths = (w.step for g in use_case.groups.values() for w in g.windows if isinstance(w, Sliding))
        self._lengths = tuple(dict.fromkeys(lengths))

    def plan(self) -> Plan:
        use_case, word = self._use_case, self._word
        names, gate, lookups = use_case.event_names, use_case.window, use_case.profile_lookups
        late = use_case.clock.late_microseconds
        windows = _table(
            terms.WINDOW_COLUMNS,
            (
                self._window(name, group, number, window)
                for name, group in use_case.groups.items()
                for number, window in enumerate(group.windows)
            ),
        )
        groups = _table(terms.GROUP_COLUMNS, (self._group(n, group) for n, group in use_case.groups.items()))
        asks, features, otherwise, before = self._asks()
        by_type = {name: g for g, group in enumerate(use_case.groups.values()) for name in group.of}
        simple = (
            len(by_type) == sum(len(group.of) for group in use_case.groups.values()) > 0
            and not (before or use_case.id or needs_clock(use_case))
            and bool((groups[:, terms.PLAIN] >= 0).all())
            and _SIMPLE.issuperset(features[:, terms.OPERATION].tolist())
        )
        words = self._simple() if simple else []
        return Plan(
            profile=names.index(use_case.profile.event) if use_case.profile else -1,
            opens=names.index(gate.opens) if gate else -1,
            opened=word["column", use_case.first_time] if use_case.first_time else -1,
            window=gate.microseconds if gate else 0,
            before=gate.before if gate else True,
            late=-1 if late is None else late,
            clock=word["column", CLOCK] if needs_clock(use_case) else -1,
            ids=word.get(("ids",), -1),
            sessions=word["session", self._gaps[0]] if self._gaps else -1,
            steps=word["step", self._lengths[0]] if self._lengths else -1,
            predicts=np.array([name in use_case.predict_on for name in names], np.bool_),
            lookups=np.array([use_case.computed.index(name) for name in lookups], np.int64),
            otherwise_found=np.array([lookup.otherwise for lookup in lookups.values()], np.float64),
            gaps=np.array(self._gaps, np.int64),
            lengths=np.array(self._lengths, np.int64),
            froms=np.flatnonzero(windows[:, terms.KIND] == terms.FROM),
            sliding=np.flatnonzero((windows[:, terms.KIND] == terms.SLIDING) & (windows[:, terms.SIZE] > 0)),
            groups=groups,
            windows=windows,
            touched=self._layout.touched,
            bits=terms.BITS,
            asks=asks,
            asked_before=before,
            features=features,
            simple=simple,
            tallies=np.array([groups[by_type.get(name, 0), terms.PLAIN] for name in names if simple], np.int64),
            numbers=np.array([groups[by_type.get(name, 0), terms.VALUE] for name in names if simple], np.int64),
            words=np.array([word for word, _ in words], np.int64),
            counts=np.array([count for _, count in words], np.int64),
            places=np.array(features[: len(words), terms.PLACE]),
            otherwise=otherwise,
        )

    def _window(self, name: str, group: Group, number: int, window: Window) -> list[int]:
        word = self._word
        row = [*shape_of(tally_parts(self._use_case, group, window)).tolist()]
        row += [-1] * (terms.WINDOW_COLUMNS - len(row))
        row[terms.OPEN] = word.get(("tally", name, number), -1)
        if isinstance(window, AllTime | From):
            row[terms.OPEN] = word["column", f"{name}_{tally_parts(self._use_case, group, window)[0]}"]
            row[terms.OPENED] = word.get(("column", f"{name}_{OPENED}"), -1)
            row[terms.KIND] = terms.ALL_TIME
        if isinstance(window, From):
            row[terms.KIND], row[terms.LENGTH] = terms.FROM, window.microseconds
            row[terms.BEFORE], row[terms.OPENER] = window.before, self._use_case.event_names.index(window.opens)
        if isinstance(window, Session):
            row[terms.KIND], row[terms.LENGTH] = terms.SESSION, window.microseconds
            row[terms.OPENED] = word["session", window.microseconds]
        if isinstance(window, Sliding):
            row[terms.KIND], row[terms.LENGTH], row[terms.STEPS] = terms.SLIDING, window.step, window.steps
            row[terms.CURRENT] = word["step", window.step]
            row[terms.HELD] = word.get(("held", name, number), -1)
            row[terms.RING] = word.get(("ring", name, number), -1)
            row[terms.FOLD] = word.get(("fold", name, number), -1)
            row[terms.FOLDED] = word.get(("folded", name, number), -1)
        return row

    def _group(self, name: str, group: Group) -> list[int]:
        use_case, word, first = self._use_case, self._word, self._numbers[name, 0]
        row = [-1] * terms.GROUP_COLUMNS
        if is_numeric(use_case, group):
            row[terms.VALUE] = self._inputs.numbers.index(group.value or "")
        row[terms.LATEST] = word.get(("column", f"{name}_{LATEST}"), -1) if Statistic.SINCE in group.give else -1
        if is_opened_by_its_first(group):
            row[terms.FIRST_TAKEN] = word["column", f"{name}_{OPENED}"]
        row[terms.WINDOWS], row[terms.WINDOWS_END] = first, first + len(group.windows)
        if has_table(group):
            row[terms.HASH] = self._inputs.hashed.index(group.value or "")
            row[terms.TABLE], row[terms.CAPACITY] = word["table", name], group.at_most
        if ("recent", name) in word:
            row[terms.RECENT] = word["recent", name]
            row[terms.RECENT_COUNT] = max(one.count for one in group.give if isinstance(one, Recent))
            row[terms.RECENT_WINDOW] = first + next(
                number for number, window in enumerate(group.windows) if isinstance(window, AllTime | From)
            )
        if self._is_plain(name, group):
            row[terms.PLAIN] = word["column", f"{name}_sum"]
        return row

    def _is_plain(self, name: str, group: Group) -> bool:
        """Tell whether a group is one tally of all time, with sum, mean, count and m2 in this order."""
        more = {("table", name), ("recent", name), ("column", f"{name}_{OPENED}"), ("column", f"{name}_{LATEST}")}
        parts = tally_parts(self._use_case, group, group.windows[0])
        return (
            len(group.windows) == 1
            and isinstance(group.windows[0], AllTime)
            and parts == ("sum", "mean", "count", "m2")
            and not more.intersection(self._word)
        )

    def _asks(self) -> tuple[Int64s, Int64s, npt.NDArray[np.float64], int]:
        use_case = self._use_case
        place = {name: i for i, name in enumerate(use_case.computed)}
        phases: tuple[list[list[int]], list[list[int]]] = [], []
        features: list[list[int]] = []
        otherwise: list[float] = []
        seen: set[str] = set()
        for before, asks in zip((True, False), phases, strict=True):
            for g, (name, group) in enumerate(use_case.groups.items()):
                for number, window in enumerate(group.windows):
                    first, tally = len(features), False
                    for feature, given, back in _given(name, group, window):
                        asked_before = group.without is not None or given is Statistic.UNSEEN
                        if asked_before is not before or feature in seen:
                            continue
                        seen.add(feature)
                        operation, argument, nothing = self._feature(group, window, given, back)
                        features.append([operation, place[feature], argument])
                        otherwise.append(nothing)
                        tally |= isinstance(given, Statistic) and given not in _WITHOUT_TALLY
                    if len(features) > first:
                        asks.append([self._numbers[name, number], g, first, len(features), tally])
        return (
            _table(terms.ASK_COLUMNS, phases[0] + phases[1]),
            _table(terms.FEATURE_COLUMNS, features),
            np.array(otherwise, np.float64),
            len(phases[0]),
        )

    def _simple(self) -> list[tuple[int, int]]:
        """Return for each feature of the groups, if all are plain, its word, and that of the count for a variance."""
        found = []
        for name, group in self._use_case.groups.items():
            count = self._word.get(("column", f"{name}_count"), -1)
            for given in group.give:
                is_variance = given is Statistic.VAR
                word = self._word.get(("column", f"{name}_{'m2' if is_variance else given}"), -1)
                found.append((word, count if is_variance else -1))
        return found

    def _feature(self, group: Group, window: Window, given: Statistic | Recent, back: int) -> tuple[int, int, float]:
        if isinstance(given, Recent):
            return terms.RECENT_VALUE, back, group.otherwise
        shape = shape_of(tally_parts(self._use_case, group, window))
        if given in _READ:
            return terms.READ, int(shape[_READ[given]]), 0.0
        if given in _READ_OR:
            return terms.READ_OR, int(shape[_READ_OR[given]]), group.otherwise
        if given is Statistic.RATE and isinstance(window, Sliding):
            return terms.RATE, -1, window.microseconds / _MICROSECONDS_AN_HOUR
        return _OTHERS[given], -1, group.otherwise


def _check(name: str, group: Group) -> None:
    labels = [window.label for window in group.windows if window.label]
    for given in group.give:
        if isinstance(given, Recent) and labels:
            raise ConfigurationError(
                f"the group {name} gives its last {given.count} values in the window {labels[0]}",
                remedy="ask for the last values in the window `all time` or `from` only, in a group of its own",
            )


def _given(name: str, group: Group, window: Window) -> Iterator[tuple[str, Statistic | Recent, int]]:
    """Yield the features of a window as `Group.names` names them: name, statistic, and how far back a last value is."""
    start = f"{name}_{window.label}" if window.label else name
    for given in group.give:
        if isinstance(given, Recent):
            yield from ((f"{start}_last_{back + 1}", given, back) for back in range(given.count))
        elif given is Statistic.SINCE:
            yield f"{name}_since", given, 0
        else:
            yield f"{start}_{given.value}", given, 0


def _table(columns: int, rows: Iterator[list[int]] | list[list[int]]) -> Int64s:
    return np.array(list(rows), np.int64).reshape(-1, columns)
