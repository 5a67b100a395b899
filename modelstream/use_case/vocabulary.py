"""What a feature can be: the forms that stand under `features` in a use-case file.

`docs/vocabulary.md` explains each with examples. `features_of_file` in `file` reads them, `check_features` checks them.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import msgspec

from modelstream.use_case.durations import microseconds


class Statistic(enum.StrEnum):
    """A statistic of a group's events in a window; `modelstream.features` has the formulas."""

    SUM = "sum"
    MEAN = "mean"
    COUNT = "count"
    VAR = "var"
    STD = "std"
    MIN = "min"
    MAX = "max"
    FIRST = "first"
    LAST = "last"
    RATE = "rate"
    SINCE = "since"
    SINCE_OPEN = "since_open"
    DISTINCT = "distinct"
    UNSEEN = "unseen"
    SHARE = "share"


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a use-case file."""


class AllTime(Part, frozen=True):
    """Every counted event."""

    @property
    def label(self) -> str:
        """What stands for the window in the names of features."""
        return ""


class From(Part, frozen=True, rename={"event": "from", "length": "for"}):
    """From the first event of a type on, for some time of events; with `before` also what happened before it."""

    event: str
    length: str
    before: bool = True

    @property
    def label(self) -> str:
        """What stands for the window in the names of features."""
        return ""

    @property
    def opens(self) -> str:
        """The event that opens the window."""
        return self.event

    @property
    def microseconds(self) -> int:
        """The length of the window."""
        return microseconds(self.length) or 0

    @property
    def hours(self) -> float:
        """The length of the window."""
        return self.microseconds / 3_600_000_000


class Sliding(Part, frozen=True, rename={"length": "last"}):
    """The last so much time, in steps: the step of the user's clock, and those before it."""

    length: str
    steps: int

    @property
    def label(self) -> str:
        """What stands for the window in the names of features."""
        return self.length

    @property
    def microseconds(self) -> int:
        """The length of the window."""
        return microseconds(self.length) or 0

    @property
    def step(self) -> int:
        """The length of a step, in microseconds."""
        return self.microseconds // self.steps


class Session(Part, frozen=True, rename={"gap": "session"}):
    """The user's session, which ends when nothing comes for `gap`."""

    gap: str

    @property
    def label(self) -> str:
        """What stands for the window in the names of features."""
        return f"session_{self.gap}"

    @property
    def microseconds(self) -> int:
        """The gap that ends a session."""
        return microseconds(self.gap) or 0


Window = AllTime | From | Sliding | Session
if TYPE_CHECKING:
    Windows = tuple[Window, ...]
else:  # msgspec can't tell several structs apart: `version_2` does
    Windows = tuple[Any, ...]

Constant = bool | int | float | str


class Condition(Part, frozen=True, rename={"is_": "is", "in_": "in"}):
    """What a field must be: all that is given must hold. An event without the field doesn't meet it."""

    is_: Constant | None = None
    is_not: Constant | None = None
    in_: tuple[Constant, ...] | None = None
    above: float | None = None
    below: float | None = None


class Recent(Part, frozen=True, rename={"count": "last"}):
    """The last so many values, the newest first."""

    count: int


class Group(Part, frozen=True):
    """Statistics of events, in one or several windows."""

    of: tuple[str, ...]
    value: str | None = None
    where: dict[str, Condition] = {}
    windows: Windows = msgspec.field(name="in", default=(AllTime(),))
    give: tuple[Statistic | Recent, ...] = ()
    share: dict[str, Condition] = {}
    at_most: int = 64
    without: str | None = None
    otherwise: float = 0.0

    def names(self, name: str) -> tuple[str, ...]:
        """Return the names of the features of a group called `name`, in the order of the vector.

        >>> windows, give = (AllTime(), Sliding("1h", 6)), (Statistic.COUNT, Statistic.SINCE)
        >>> group = Group(of=("reading",), windows=windows, give=give)
        >>> group.names("heat")
        ('heat_count', 'heat_since', 'heat_1h_count')
        """
        found = []
        for window in self.windows:
            start = f"{name}_{window.label}" if window.label else name
            for given in self.give:
                if isinstance(given, Recent):
                    found += [f"{start}_last_{i}" for i in range(1, given.count + 1)]
                elif given is Statistic.SINCE:
                    found.append(f"{name}_since")
                else:
                    found.append(f"{start}_{given.value}")
        return tuple(dict.fromkeys(found))


class LookUp(Part, frozen=True):
    """A value of a table, by a field: when the profile arrives, or at each event, as it is taken in."""

    look_up: str
    by: str
    at: str | None = None
    """`profile`, or None: each event."""
    otherwise: float = 0.0


class Number(Part, frozen=True):
    """A number, integer or boolean of the event itself."""

    number: str
    otherwise: float = 0.0


class Hour(Part, frozen=True):
    """The hour of a time of the event itself, 0 to 23, at a fixed offset from UTC."""

    hour: str
    offset: str = "+00:00"


class Weekday(Part, frozen=True):
    """The day of the week of a time of the event itself, Monday is 0, at a fixed offset from UTC."""

    weekday: str
    offset: str = "+00:00"


class Category(Part, frozen=True):
    """A value of the event itself: a column for each of some values and one for all others, or by a frozen table."""

    category: str
    one_of: tuple[str, ...] = ()
    table: str | None = None
    """A CSV file with the columns `category` and `value`; its path begins where the use-case file is."""
    otherwise: float = 0.0
    values: dict[str, float] = {}
    """What the table says: read from it with the use case."""

    def names(self, name: str) -> tuple[str, ...]:
        """Return the names of the features of a category called `name`.

        >>> Category("country", one_of=("DE", "FR")).names("country")
        ('country_DE', 'country_FR', 'country_other')
        """
        return (name,) if self.table else tuple(f"{name}_{value}" for value in (*self.one_of, "other"))


class Compute(Part, frozen=True):
    """Arithmetic over other features, by name."""

    compute: str
    otherwise: float = 0.0
    """The value where it divides by zero, or has no finite result."""


Form = Group | LookUp | Number | Hour | Weekday | Category | Compute
"""What stands under a name of `features`. The first name inside tells which: `of`, `look_up`, `number`, …"""
if TYPE_CHECKING:
    Forms = dict[str, Form]
else:
    Forms = dict[str, Any]

FORMS: dict[str, type[Form]] = {
    "of": Group,
    "look_up": LookUp,
    "number": Number,
    "hour": Hour,
    "weekday": Weekday,
    "category": Category,
    "compute": Compute,
}


def names_of(name: str, form: Form) -> tuple[str, ...]:
    """Return the names of the features that stand under a name.

    >>> names_of("hour", Hour("at")), names_of("heat", Group(of=("reading",), give=(Statistic.COUNT,)))
    (('hour',), ('heat_count',))
    """
    return form.names(name) if isinstance(form, Group | Category) else (name,)
