"""The behaviour of generated users, in numbers that a notebook declares; `modelstream.source.generator` makes events
from them."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelstream.errors import ConfigurationError
from modelstream.use_case.declared import UseCase

if TYPE_CHECKING:
    from faker import Faker

Draw = Callable[["Faker"], Any]
"""Makes a value for a field of the profile."""
Range = tuple[int, int]
"""Whole numbers from the first to the second, both included, all equally likely."""


class Drawn(enum.Enum):
    """Fields of the profile that Faker doesn't make."""

    LOOKUP = "the key of the lookup table"
    GROUP = "the value that the user's group has"


LOOKUP, GROUP = Drawn.LOOKUP, Drawn.GROUP


@dataclass(frozen=True)
class Pause:
    """A break that a user takes now and then: the next event comes only some hours later."""

    chance: float
    """The chance that a step is a pause"""
    hours: Range
    hours_ago: int
    """…if the event before it is at least this many hours before the end."""


@dataclass(frozen=True)
class Group:
    """A kind of user."""

    share: float
    """The share of users in this group; all shares add up to 1."""
    mix: Mapping[str, float]
    """The chance of each type of event; they add up to 1."""
    remainders: Sequence[int]
    """The remainders that the key of the user's lookup may have; see `Enrichment`."""
    fields: Mapping[str, Any]
    """The group's values for the profile fields that are `GROUP`."""
    pause: Pause | None = None


@dataclass(frozen=True)
class Enrichment:
    """The lookup table: a key k, of all whole numbers in `keys`, has a value out of `values[k % len(values)]`.

    A user looks up the key `len(values) * n + r`: n out of `draws`, r one of the group's `remainders`.
    """

    keys: Range
    values: Sequence[Range]
    draws: Range


@dataclass(frozen=True)
class Distributions:
    """What users do."""

    groups: Sequence[Group]
    values: Mapping[str, int]
    """The typical value of each type of event…"""
    spread: Range
    """…and the range, in percent of it, from which a value is drawn (cut to a whole number)."""
    first_hours_ago: Range
    """How many hours before the end a user registers; earlier, if the user's events would go on after the end."""
    step_seconds: Range
    """From one event of a user to the next."""
    profile: Mapping[str, Draw | Drawn]
    """The fields of the profile, in order."""
    enrichment: Enrichment

    def check(self, use_case: UseCase) -> None:
        """Raise ConfigurationError unless a use case can take these events."""
        if not self.values.keys() & use_case.events.keys():
            raise ConfigurationError(
                f"the generator makes events of another use case ({', '.join(self.values)}); "
                f"those of {use_case.name} are {', '.join(use_case.events)}",
                remedy="give a file of events: `python pipeline.py run --input FILE`; "
                "or write their distributions in functions/data-generator.ipynb",
            )
        if use_case.profile is None or not use_case.profile_lookups:
            raise _wrong(f"the use case {use_case.name} needs a profile and a lookup")
        if moved := next((name for name, field in use_case.declared.items() if field.path), None):
            raise _wrong(f"generated events have {moved!r} under its own name, not where the use case reads it")
        for event in self.values:
            if event not in use_case.events or value_field(use_case, event) is None:
                raise _wrong(f"values: the use case {use_case.name} has no event {event!r} with a value")
        _check_sum("the groups' shares", [group.share for group in self.groups])
        for number, group in enumerate(self.groups):
            self._check_group(f"groups[{number}]", group)
        for name in ("spread", "first_hours_ago", "step_seconds"):
            _check_range(name, getattr(self, name), 1 if name == "step_seconds" else 0)
        _check_range("enrichment.keys", self.enrichment.keys, 0)
        _check_range("enrichment.draws", self.enrichment.draws, 0)
        for span in self.enrichment.values:
            _check_range("enrichment.values", span, 0)

    def _check_group(self, name: str, group: Group) -> None:
        _check_sum(f"{name}.mix", list(group.mix.values()))
        for event in group.mix:
            if event not in self.values:
                raise _wrong(f"{name}.mix: {event!r} has no value; known: {', '.join(self.values)}")
        if not group.remainders or not set(group.remainders) <= set(range(len(self.enrichment.values))):
            raise _wrong(f"{name}.remainders must be numbers from 0 to {len(self.enrichment.values) - 1}")
        missing = {field for field, draw in self.profile.items() if draw is GROUP} - set(group.fields)
        if missing:
            raise _wrong(f"{name}.fields has no value for {', '.join(sorted(missing))}")
        if group.pause is not None:
            _check_range(f"{name}.pause.hours", group.pause.hours, 1)


def value_field(use_case: UseCase, event: str) -> str | None:
    """Return the field of an event's value: the first number that it needs; None if it needs none.

    >>> from modelstream.use_case.file import parse_use_case
    >>> use_case = parse_use_case('''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean],
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {reading: {value: celsius}}, predict_on: [reading],
    ...  model: {name: frost, prediction: will_freeze}}''')
    >>> value_field(use_case, "reading")
    'celsius'
    """
    return next((field for field in use_case.needs(event) if use_case.fields[field] == "number"), None)


def _check_sum(name: str, chances: Sequence[float]) -> None:
    if min(chances, default=-1) < 0 or not math.isclose(sum(chances), 1, abs_tol=1e-6):
        raise _wrong(f"{name} must add up to 1, and none may be negative; they are {list(chances)}")


def _check_range(name: str, span: Range, lowest: int) -> None:
    if not lowest <= span[0] <= span[1] < 2**31:
        raise _wrong(f"{name} is {span}: give a pair of the lowest value (at least {lowest}) and the highest")


def _wrong(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"the generator's distributions can't be used: {what}",
        remedy="fix them in functions/data-generator.ipynb",
    )
