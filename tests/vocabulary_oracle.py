"""What the features of version 2 must be, written for people: plain Python, one event at a time.

Nothing is shared with the engine.
It reads the declaration (an object with the attributes of a use case) and follows `docs/vocabulary.md` sentence by
sentence. Times are microseconds since 1970 UTC, events are dicts; a field that an event does not have is not there.
"""

from __future__ import annotations

import math
import re
from typing import Any

Event = dict[str, Any]

UNITS = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000}


def length_of(text: str) -> int:
    """Return a length of time such as `1h30m` in microseconds.

    >>> length_of("1h30m")
    5400000000
    """
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)([dhms])", text))


class Tally:
    """Statistics of the events of a window, or of a step of one."""

    def __init__(self) -> None:
        self.count = self.sum = self.mean = self.m2 = self.shared = 0.0
        self.min: float | None = None
        self.max: float | None = None
        self.first: float | None = None
        self.last: float | None = None

    def add(self, x: float | None, shared: bool) -> None:
        self.count += 1
        self.shared += shared
        if x is None:
            return
        self.sum += x
        d = x - self.mean
        self.mean += d / self.count
        self.m2 += d * (x - self.mean)
        self.min = x if self.min is None or x < self.min else self.min
        self.max = x if self.max is None or x > self.max else self.max
        self.first = x if self.count == 1 else self.first
        self.last = x

    def get(self, statistic: str, otherwise: float) -> float:
        if statistic in {"min", "max", "first", "last"}:
            value: float | None = getattr(self, statistic)
            return otherwise if value is None else value
        if statistic == "var":
            return self.m2 / (max(2, self.count) - 1)
        if statistic == "std":
            return math.sqrt(self.m2 / (max(2, self.count) - 1))
        if statistic == "share":
            return self.shared / self.count if self.count else 0.0
        found: float = getattr(self, statistic)
        return found


def merge(a: Tally, b: Tally) -> Tally:
    """Merge two tallies, `a` is the older."""
    if b.count == 0:
        return a
    if a.count == 0:
        return b
    both = Tally()
    both.count = a.count + b.count
    d = b.mean - a.mean
    both.mean = a.mean + d * (b.count / both.count)
    both.m2 = a.m2 + b.m2 + d * d * (a.count * b.count / both.count)
    both.sum = a.sum + b.sum
    both.shared = a.shared + b.shared
    if a.min is not None and b.min is not None and a.max is not None and b.max is not None:
        both.min, both.max = min(a.min, b.min), max(a.max, b.max)
        both.first, both.last = a.first, b.last
    return both


class GroupOfUser:
    """What is known of a group of a user."""

    def __init__(self, windows: int) -> None:
        self.opened: int | None = None
        self.first_taken: int | None = None
        self.latest: int | None = None
        self.tallies: list[dict[int, Tally]] = [{} for _ in range(windows)]
        """By the step of a sliding window, the number of a session; all else has the number 0."""
        self.values: list[float] = []
        self.table: list[list[Any]] = []
        """Values with the greatest time of each."""


class User:
    """What is known of a user."""

    def __init__(self, use_case: Any) -> None:
        self.registered = False
        self.opened: int | None = None
        self.clock: int | None = None
        self.ids: list[str] = []
        self.looked_up: dict[str, float | None] = {}
        self.sessions: dict[int, list[int]] = {}
        """By gap: start, end and number of the current session."""
        self.groups = {name: GroupOfUser(len(group.windows)) for name, group in use_case.groups.items()}


class VocabularyOracle:
    """Applies events one at a time."""

    def __init__(self, use_case: Any, lookup: dict[tuple[str, str], float]) -> None:
        self.use_case = use_case
        self.lookup = lookup
        self.users: dict[str, User] = {}
        self.not_counted: dict[str, int] = {}
        self.counted = 0

    def apply(self, event: Event) -> list[float] | None:
        """Apply an event, and return the vector that follows it, if one does."""
        case = self.use_case
        user = self.users.setdefault(event[case.key], User(case))
        name = self.name(event)
        reason = self.refusal(user, name, event)
        if reason:
            self.not_counted[reason] = self.not_counted.get(reason, 0) + 1
            return None
        assert name is not None
        self.counted += 1
        self.move(user, name, event)
        before = self.features(user, event, as_before=True) if name in case.predict_on else {}
        for group in case.groups:
            if self.is_of(group, event):
                self.take(user, group, event)
        if name not in case.predict_on:
            return None
        return list((self.features(user, event, as_before=False) | before).values())

    def name(self, event: Event) -> str | None:
        name: str
        written = event.get(self.use_case.type)
        for name, declared in self.use_case.events.items():
            if written == name or written in declared.aliases:
                return name
        return None

    def refusal(self, user: User, name: str | None, event: Event) -> str | None:
        case, time = self.use_case, event[self.use_case.time]
        registers = case.profile is not None and name == case.profile.event
        limits = case.clock
        if name is None:
            return "unknown_type"
        if case.profile is not None and not registers and not user.registered:
            return "unregistered"
        arrived = event.get("ingested_at")
        if limits.ahead and arrived is not None and time > arrived + length_of(limits.ahead):
            return "in_the_future"
        if limits.late and user.clock is not None and time < user.clock - length_of(limits.late):
            return "too_late"
        if case.id and event.get(case.id) is not None and event[case.id] in user.ids[-64:]:
            return "repeated"
        if case.window is None or registers:
            return None
        if user.opened is None:
            return None if name == case.window.event else "window_not_open"
        if time - user.opened > length_of(case.window.length):
            return "window_closed"
        if not case.window.before and time < user.opened:
            return "window_not_open"
        return None

    def move(self, user: User, name: str, event: Event) -> None:
        case, time = self.use_case, event[self.use_case.time]
        user.clock = time if user.clock is None else max(user.clock, time)
        if case.id and event.get(case.id) is not None:
            user.ids.append(event[case.id])
        if case.profile and name == case.profile.event:
            user.registered = True
            for feature, lookup in case.profile_lookups.items():
                user.looked_up[feature] = self.lookup.get((lookup.look_up, event.get(lookup.by, "")))
        elif case.window and name == case.window.event and user.opened is None:
            user.opened = time
        for gap in {length_of(w.gap) for g in case.groups.values() for w in g.windows if kind(w) == "Session"}:
            self.move_session(user, gap, time)
        for group_name, group in case.groups.items():
            for window in group.windows:
                if kind(window) == "From" and window.event == name and user.groups[group_name].opened is None:
                    user.groups[group_name].opened = time

    def move_session(self, user: User, gap: int, time: int) -> None:
        session = user.sessions.get(gap)
        if session is None:
            user.sessions[gap] = [time, time, 0]
        elif time > session[1] + gap:
            user.sessions[gap] = [time, time, session[2] + 1]
        elif time >= session[0] - gap:
            session[0], session[1] = min(session[0], time), max(session[1], time)

    def is_of(self, name: str, event: Event) -> bool:
        group = self.use_case.groups[name]
        has_value = group.value is None or event.get(group.value) is not None
        return self.name(event) in group.of and has_value and self.holds(group.where, event)

    def holds(self, conditions: dict[str, Any], event: Event) -> bool:
        for field, condition in conditions.items():
            value = self.name(event) if field == self.use_case.type else event.get(field)
            if value is None:
                return False
            if condition.is_ is not None and value != condition.is_:
                return False
            if condition.is_not is not None and value == condition.is_not:
                return False
            if condition.in_ is not None and value not in condition.in_:
                return False
            if condition.above is not None and not value > condition.above:
                return False
            if condition.below is not None and not value < condition.below:
                return False
        return True

    def lies_in(self, user: User, name: str, window: Any, time: int) -> bool:
        """Tell whether a time lies in a window of a user, as its clock stands."""
        assert user.clock is not None
        if kind(window) == "AllTime":
            return True
        if kind(window) == "From":
            opened = user.groups[name].opened
            if opened is None or time - opened > length_of(window.length):
                return False
            return bool(window.before) or time >= opened
        if kind(window) == "Sliding":
            step = length_of(window.length) // window.steps
            return bool(user.clock // step - window.steps + 1 <= time // step <= user.clock // step)
        return time >= user.sessions[length_of(window.gap)][0]

    def take(self, user: User, name: str, event: Event) -> None:
        group, state, time = self.use_case.groups[name], user.groups[name], event[self.use_case.time]
        value = event[group.value] if group.value is not None else None
        x = value if group.value is not None and self.use_case.fields[group.value] == "number" else None
        taken = False
        for window, tallies in zip(group.windows, state.tallies, strict=True):
            if not self.lies_in(user, name, window, time):
                continue
            taken, number = True, 0
            if kind(window) == "Sliding":
                number = time // (length_of(window.length) // window.steps)
            if kind(window) == "Session":
                number = user.sessions[length_of(window.gap)][2]
            tallies.setdefault(number, Tally()).add(x, bool(group.share) and self.holds(group.share, event))
            if kind(window) in {"AllTime", "From"} and x is not None:
                state.values.append(x)
        if not taken:
            return
        state.latest = time if state.latest is None else max(state.latest, time)
        state.first_taken = time if state.first_taken is None else state.first_taken
        if any(kind(given) == "Statistic" and given.value in {"distinct", "unseen"} for given in group.give):
            enter(state.table, value, time, group.at_most)

    def value_of(self, user: User, name: str, number: int) -> Tally:
        """Return the tally of a window of a group."""
        window, tallies = self.use_case.groups[name].windows[number], user.groups[name].tallies[number]
        if kind(window) == "Session":
            return tallies.get(user.sessions[length_of(window.gap)][2], Tally())
        if kind(window) != "Sliding":
            return tallies.get(0, Tally())
        assert user.clock is not None
        current = user.clock // (length_of(window.length) // window.steps)
        whole = Tally()
        for step in range(current - window.steps + 1, current):
            whole = merge(whole, tallies.get(step, Tally()))
        return merge(whole, tallies.get(current, Tally()))

    def features(self, user: User, event: Event | None, as_before: bool) -> dict[str, float]:
        """Return the features by name, in their order; those that are not asked at this moment are not final.

        `as_before`: only those that are asked as before the event. Without an event, `unseen` is NaN.
        """
        found: dict[str, float] = {}
        for name, form in self.use_case.forms.items():
            if kind(form) == "LookUp":
                value = user.looked_up.get(name)
                found |= {} if as_before else {name: form.otherwise if value is None else value}
                continue
            for number, window in enumerate(form.windows):
                for given in form.give:
                    early = form.without is not None or getattr(given, "value", "") == "unseen"
                    if early or not as_before:
                        self.feature(found, user, name, number, window, given, event)
        return found

    def feature(
        self, found: dict[str, float], user: User, name: str, number: int, window: Any, given: Any, event: Event | None
    ) -> None:
        group, state = self.use_case.groups[name], user.groups[name]
        label = {"Sliding": lambda w: f"_{w.length}", "Session": lambda w: f"_session_{w.gap}"}
        start = name + label.get(kind(window), lambda _: "")(window)
        assert user.clock is not None
        if kind(given) == "Recent":
            for back in range(1, given.count + 1):
                found[f"{start}_last_{back}"] = state.values[-back] if back <= len(state.values) else group.otherwise
            return
        if given.value == "since":
            latest = state.latest
            found[f"{name}_since"] = group.otherwise if latest is None else (user.clock - latest) / 1_000_000
            return
        found[f"{start}_{given.value}"] = self.statistic(user, name, number, window, given.value, event)

    def statistic(self, user: User, name: str, number: int, window: Any, statistic: str, event: Event | None) -> float:
        group, state = self.use_case.groups[name], user.groups[name]
        assert user.clock is not None
        opened = {"AllTime": state.first_taken, "From": state.opened}.get(kind(window))
        if kind(window) == "Session":
            opened = user.sessions[length_of(window.gap)][0]
        if statistic == "since_open":
            return 0.0 if opened is None else (user.clock - opened) / 1_000_000
        if statistic == "rate":
            hours = 0.0 if opened is None else (user.clock - opened) / 3_600_000_000
            if kind(window) == "Sliding":
                hours = length_of(window.length) / 3_600_000_000
            return self.value_of(user, name, number).count / max(1, hours)
        if statistic in {"distinct", "unseen"}:
            within = [value for value, time in state.table if self.lies_in(user, name, window, time)]
            if statistic == "distinct":
                return float(len(within))
            if event is None:
                return math.nan
            return float(self.is_of(name, event) and event[group.value] not in within)
        return self.value_of(user, name, number).get(statistic, group.otherwise)


def enter(table: list[list[Any]], value: Any, time: int, at_most: int) -> None:
    """Put a value into a table of at most so many."""
    for entry in table:
        if entry[0] == value:
            entry[1] = max(entry[1], time)
            return
    if len(table) < at_most:
        table.append([value, time])
        return
    oldest = min(range(len(table)), key=lambda slot: (table[slot][1], slot))
    if time >= table[oldest][1]:
        table[oldest] = [value, time]


def kind(part: Any) -> str:
    """Return the name of the type of a part of the declaration."""
    return type(part).__name__
