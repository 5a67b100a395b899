"""What the features of version 1 must be, for people: dicts, one event at a time, nothing shared with the engine.

Also small helpers that make batches of events for tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from modelstream.use_case.declared import UseCase

Event = dict[str, Any]
"""A field's value by name: times are microseconds since 1970 UTC, a field that is missing is not there."""


class Running:
    """Welford's running statistics."""

    def __init__(self) -> None:
        self.sum = self.mean = self.count = self.m2 = 0.0

    def update(self, x: float) -> None:
        self.sum += x
        self.count += 1
        d = x - self.mean
        self.mean += d / self.count
        self.m2 += d * (x - self.mean)

    @property
    def var(self) -> float:
        return self.m2 / (max(2, self.count) - 1)


@dataclass
class User:
    """A user as the oracle sees it."""

    values: dict[str, Running]
    profile: dict[str, Any] | None = None
    looked_up: float | None = None
    opened: int | None = None
    applied: int | None = None


@dataclass
class Oracle:
    """Applies events one at a time."""

    use_case: UseCase
    lookup: dict[str, float]
    users: dict[str, User] = field(default_factory=dict)
    not_counted: dict[str, int] = field(default_factory=dict)
    counted: int = 0
    lookups: int = 0
    lookup_misses: int = 0

    def apply(self, event: Event, position: int) -> list[float] | None:
        """Apply an event, and return the vector that stands after it, if one is wanted."""
        use_case = self.use_case
        key = event[use_case.key]
        user = self.users.setdefault(key, User({name: Running() for name in self.use_case.groups}))
        name = self._name(event.get(use_case.type))
        reason = self._refusal(user, name, event[use_case.time])
        if reason:
            self.not_counted[reason] = self.not_counted.get(reason, 0) + 1
            return None
        assert name is not None
        self.counted += 1
        user.applied = position
        if use_case.profile and name == use_case.profile.event:
            user.profile = {use_case.profile.time: event[use_case.time]}
            user.profile |= {field: event.get(field) for field in use_case.profile.fields}
            for lookup in use_case.profile_lookups.values():
                user.looked_up = self.lookup.get(event.get(lookup.by, ""))
                self.lookups += 1
                self.lookup_misses += user.looked_up is None
        elif use_case.window and name == use_case.window.opens and user.opened is None:
            user.opened = event[use_case.time]
        if name in use_case.groups:
            user.values[name].update(event[use_case.groups[name].value or ""])
        return self.vector(key) if name in use_case.predict_on else None

    def vector(self, key: str) -> list[float]:
        """Return a user's features as they stand."""
        user, use_case = self.users[key], self.use_case
        lookups = use_case.profile_lookups.values()
        vector = [lookup.otherwise if user.looked_up is None else user.looked_up for lookup in lookups]
        for name, running in user.values.items():
            vector += [getattr(running, str(statistic)) for statistic in use_case.groups[name].give]
        return vector

    def rows(self) -> list[dict[str, Any]]:
        """Return the stored rows by key, in the order in which users first came."""
        return [self._row(key, user) for key, user in self.users.items() if user.applied is not None]

    def _row(self, key: str, user: User) -> dict[str, Any]:
        use_case = self.use_case
        row: dict[str, Any] = {use_case.key: key, "applied": user.applied, **(user.profile or {})}
        for lookup in use_case.profile_lookups:
            row[lookup] = user.looked_up
        if use_case.window:
            row[f"first_{use_case.window.opens}_time"] = user.opened
        for name, running in user.values.items():
            row |= {f"{name}_{part}": getattr(running, part) for part in ("sum", "mean", "count", "m2")}
        return row

    def _refusal(self, user: User, name: str | None, time: int) -> str | None:
        use_case = self.use_case
        if name is None:
            return "unknown_type"
        if use_case.profile and name == use_case.profile.event:
            return None
        if use_case.profile and user.profile is None:
            return "unregistered"
        if use_case.window:
            if user.opened is None:
                return None if name == use_case.window.opens else "window_not_open"
            if time - user.opened > use_case.window.hours * 3600 * 1_000_000:
                return "window_closed"
        return None

    def _name(self, type_: str | None) -> str | None:
        for name, event in self.use_case.events.items():
            if type_ == name or type_ in event.aliases:
                return name
        return None


def microseconds(text: str) -> int:
    """Return the time that ISO 8601 text says, microseconds since 1970 UTC; no offset means UTC.

    >>> microseconds("1970-01-01T01:00:00.5+01:00")
    500000
    """
    time = datetime.fromisoformat(text)
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def read_events(path: Path, use_case: UseCase) -> list[Event]:
    """Return the readable events of an NDJSON file, in order; blank lines are left out."""
    return [_event(json.loads(line), use_case) for line in path.read_bytes().splitlines() if line.strip()]


TAKEN: dict[str, Callable[[Any], Any]] = {
    "key": str,
    "identifier": str,
    "text": str,
    "time": microseconds,
    "number": float,
    "integer": int,
    "boolean": bool,
}


def _event(raw: dict[str, Any], use_case: UseCase) -> Event:
    known = {name: value for name, value in raw.items() if name in use_case.fields and value is not None}
    return {name: TAKEN[use_case.fields[name]](value) for name, value in known.items()}


def batch_of(events: Sequence[Event], use_case: UseCase) -> pa.RecordBatch:
    """Return events as a batch of `event_schema`, without the columns that no event has anything for."""
    there = {name for event in events for name in event} | {use_case.key, use_case.time, use_case.type}
    wanted = [column for column in use_case.event_schema if column.name in there]
    arrays = [pa.array([event.get(column.name) for event in events], column.type) for column in wanted]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(wanted))


def lookup_in(values: dict[str, float]) -> Callable[[str, Sequence[str]], list[float | None]]:
    """Return the lookup function over a dict, which stands for every table."""
    return lambda _, keys: [values.get(key) for key in keys]


def read_values(path: Path) -> dict[str, float]:
    """Return the lookup table of a CSV file with a heading: key, value."""
    rows = (line.split(",") for line in path.read_text().split()[1:])
    return {key: float(value) for key, value in rows}


def bits(rows: Iterable[Iterable[float]]) -> list[list[str]]:
    """Return numbers so that they are equal only if they are to the last bit (and NaN equals NaN).

    >>> bits([[0.1 + 0.2, -0.0]])
    [['0x1.3333333333334p-2', '-0x0.0p+0']]
    """
    return [[float(x).hex() for x in row] for row in rows]
