"""A use case: what the events, the features, the label and the model of a business case are.

It is a YAML file, for example in `use_cases/`; all that the pipeline knows of a business comes from it.
"""

from __future__ import annotations

import enum
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from modelstream.base.yamlfile import YamlFile
from modelstream.errors import ConfigurationError
from modelstream.use_case import check as use_case_check
from modelstream.use_case import columns

MICROSECONDS_AN_HOUR = 3_600_000_000


class FieldType(enum.StrEnum):
    """What a field of an event holds; `columns.FIELD_TYPES` has the Arrow types."""

    KEY = "key"
    TIME = "time"
    TEXT = "text"
    NUMBER = "number"
    INTEGER = "integer"
    IDENTIFIER = "identifier"
    BOOLEAN = "boolean"


class Statistic(enum.StrEnum):
    """A running statistic of the values of an event; `modelstream.features.statistics` has the formulas."""

    SUM = "sum"
    MEAN = "mean"
    COUNT = "count"
    VAR = "var"


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a use-case file."""


class Event(_Part, frozen=True):
    """A type of event: other names for it, and the field whose statistics are features."""

    aliases: tuple[str, ...] = ()
    value: str | None = None


class Profile(_Part, frozen=True):
    """The event that makes a user known, and what is kept of it: its time under a name, and fields."""

    event: str
    time: str
    fields: tuple[str, ...] = ()


class Lookup(_Part, frozen=True):
    """A value that is looked up in a table when the profile arrives; `default` stands in for none."""

    table: str
    by: str
    value: str
    default: float = 0.0


class Window(_Part, frozen=True):
    """Events count from the first event of type `opens` on, for so many hours of event time."""

    opens: str
    hours: float

    @property
    def microseconds(self) -> int:
        """The length of the window."""
        return round(self.hours * MICROSECONDS_AN_HOUR)


class Label(_Part, frozen=True):
    """The field that holds what really happened, and its value in the case that the model looks for.

    It comes with the profile, or with a later event of the type `event`. With `wait`, hours of event time, that event
    must follow within so long after a vector; where none did, the other case happened.
    """

    field: str
    positive: bool | int | str = 1
    event: str | None = None
    wait: float | None = None


class Model(_Part, frozen=True):
    """The model's name, the column for its decision, and the probability from which on it is 1."""

    name: str
    prediction: str
    threshold: float = 0.5


class UseCase(_Part, frozen=True, dict=True):
    """A use case as its file declares it, and what follows from that.

    >>> lines = '''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count],
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {reading: {value: celsius, aliases: [measured]}}, predict_on: [reading],
    ...  model: {name: frost, prediction: will_freeze}}'''
    >>> use_case = parse(lines)
    >>> use_case.features
    ('reading_mean', 'reading_count')
    >>> use_case.event_codes
    {'reading': 0, 'measured': 0}
    """

    version: int
    name: str
    key: str
    time: str
    type: str
    fields: dict[str, FieldType]
    events: dict[str, Event]
    predict_on: tuple[str, ...]
    model: Model
    title: str = ""
    description: str = ""
    profile: Profile | None = None
    lookup: Lookup | None = None
    window: Window | None = None
    statistics: tuple[Statistic, ...] = tuple(Statistic)
    derived: tuple[str, ...] = ()
    """Features that the notebook's `derive` adds."""
    label: Label | None = None

    @cached_property
    def event_names(self) -> tuple[str, ...]:
        """The types of events, in the order of the file: the event with code c is `event_names[c]`."""
        return tuple(self.events)

    @cached_property
    def event_codes(self) -> dict[str, int]:
        """The code of every type of event, by name and by each alias."""
        codes: dict[str, int] = {}
        for code, (name, event) in enumerate(self.events.items()):
            codes |= dict.fromkeys((name, *event.aliases), code)
        return codes

    @cached_property
    def value_events(self) -> tuple[str, ...]:
        """The types of events that have a value."""
        return tuple(name for name, event in self.events.items() if event.value is not None)

    def value_field(self, event: str) -> str | None:
        """Return the field that holds the value of a type of event (by its name, not an alias), or None."""
        return self.events[event].value

    @cached_property
    def computed(self) -> tuple[str, ...]:
        """The features that the engine computes: the value looked up, then each event's statistics."""
        looked_up = (self.lookup.value,) if self.lookup else ()
        return looked_up + tuple(f"{event}_{name}" for event in self.value_events for name in self.statistics)

    @cached_property
    def features(self) -> tuple[str, ...]:
        """The features in the order of the vector: those computed, then those that the notebook derives."""
        return self.computed + self.derived

    @property
    def first_time(self) -> str | None:
        """The column of the time of the event that opened the window; None without a window."""
        return f"first_{self.window.opens}_time" if self.window else None

    @property
    def prediction(self) -> str:
        """The column of the model's decision, 0 or 1."""
        return self.model.prediction

    @property
    def probability(self) -> str:
        """The column of the model's probability."""
        return f"{self.model.prediction}_probability"

    @property
    def model_name(self) -> str:
        """The name of the model, in the registry and in URLs."""
        return self.model.name

    @property
    def threshold(self) -> float:
        """The probability at and above which the decision is 1."""
        return self.model.threshold

    @cached_property
    def event_schema(self) -> pa.Schema:
        """See `columns.event_schema`."""
        return columns.event_schema(self)

    @cached_property
    def row_schema(self) -> pa.Schema:
        """See `columns.row_schema`."""
        return columns.row_schema(self)

    @cached_property
    def features_schema(self) -> pa.Schema:
        """See `columns.features_schema`."""
        return columns.features_schema(self)

    @cached_property
    def vector_schema(self) -> pa.Schema:
        """See `columns.vector_schema`."""
        return columns.vector_schema(self)

    @cached_property
    def prediction_schema(self) -> pa.Schema:
        """See `columns.prediction_schema`."""
        return columns.prediction_schema(self)

    @cached_property
    def events_log_schema(self) -> pa.Schema:
        """See `columns.events_log_schema`."""
        return columns.events_log_schema(self)

    @cached_property
    def inference_log_schema(self) -> pa.Schema:
        """See `columns.inference_log_schema`."""
        return columns.inference_log_schema(self)


def load(path: Path | str) -> UseCase:
    """Return the use case that a file declares.

    Raises ConfigurationError: the file, the place in it, and a remedy.
    """
    try:
        text = Path(path).read_text("utf-8")
    except OSError as error:
        problem = f"{path}: can't read the use-case file: {error.strerror or error}"
        raise ConfigurationError(problem, remedy="give the path of a use-case file") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8: {error}", remedy="save the file as UTF-8") from None
    return parse(text, str(path))


def parse(text: str, source: str = "use case") -> UseCase:
    """Return the use case that YAML text declares.

    `source` is what errors call it. Raises ConfigurationError.
    """
    file = YamlFile(text, source)
    version = file.data.get("version")
    if type(version) is int and version > use_case_check.VERSION:
        problem = f"{version} is newer than {use_case_check.VERSION}, the newest known here"
        raise file.error(("version",), problem, "update modelstream")
    _check_parts(file)
    use_case = file.convert(file.data, UseCase)
    use_case_check.check(use_case, file)
    return use_case


def _check_parts(file: YamlFile) -> None:
    """Convert each part by itself, so that an error can name the event or field that it is about."""
    parts: dict[str, type[_Part]] = {"profile": Profile, "lookup": Lookup, "window": Window}
    parts |= {"label": Label, "model": Model}
    for name, kind in parts.items():
        if file.data.get(name) is not None:
            file.convert(file.data[name], kind, (name,))
    for name, value in _items(file.data.get("fields")):
        file.convert(value, FieldType, ("fields", name))
    for name, value in _items(file.data.get("events")):
        if value is None:  # `login:` declares an event without further details
            value = file.data["events"][name] = {}
        file.convert(value, Event, ("events", name))
    statistics = file.data.get("statistics")
    for index, value in enumerate(statistics if isinstance(statistics, list) else ()):
        file.convert(value, Statistic, ("statistics", index))


def _items(part: object) -> list[tuple[str, Any]]:
    return list(part.items()) if isinstance(part, dict) else []
