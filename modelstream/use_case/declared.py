"""A use case: the events, features, label and model of a business case.

Everything that the pipeline knows about a business comes from it. `file` reads it from a YAML file.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from functools import cached_property

import msgspec
import pyarrow as pa

from modelstream.use_case.columns import (
    APPLIED,
    EXTRA,
    FIELD_TYPES,
    INGESTED_AT,
    MODEL,
    MODEL_VERSION,
    OFFSET,
    ORIGIN,
    POSITION,
    PREDICTED_AT,
    SHARD,
    TIME,
)
from modelstream.use_case.durations import microseconds
from modelstream.use_case.stored import stored_columns
from modelstream.use_case.vocabulary import Forms, From, Group, LookUp, Part, names_of

MICROSECONDS_AN_HOUR = 3_600_000_000

Columns = list[tuple[str, pa.DataType]]
"""Names and types, as `pyarrow.schema` takes them."""


class FieldType(enum.StrEnum):
    """What a field of an event holds; `columns.FIELD_TYPES` has the Arrow types."""

    KEY = "key"
    TIME = "time"
    TEXT = "text"
    NUMBER = "number"
    INTEGER = "integer"
    IDENTIFIER = "identifier"
    BOOLEAN = "boolean"


class Unit(enum.StrEnum):
    """The unit of numbers that count from 1970 UTC."""

    SECONDS = "s"
    MILLISECONDS = "ms"
    MICROSECONDS = "us"
    NANOSECONDS = "ns"


class Field(Part, frozen=True):
    """A field of an event: its type, where it stands, and what numbers mean in it.

    `path` is where it stands in an event's JSON: names with dots between them, such as `after.house`; empty if it
    stands under its own name. `epoch` is the unit of numbers in a time, which count from 1970 UTC; None if they are
    refused.
    """

    type: FieldType
    path: str = ""
    epoch: Unit | None = None


class Event(Part, frozen=True):
    """A type of event: other names for it, and the fields that it must have; a number must be finite."""

    aliases: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


class Profile(Part, frozen=True):
    """The event that registers a user, and what is kept from it: its time, under a name, and some fields."""

    event: str
    time: str
    fields: tuple[str, ...] = ()


class Clock(Part, frozen=True):
    """The field of an event's time, and how far it may lie from the user's clock and from its arrival."""

    field: str
    ahead: str | None = "24h"
    """What happened longer than this after it arrived is not counted; None: anything is."""
    late: str | None = None
    """What happened longer than this before the user's latest event is not counted; None: anything is."""

    @property
    def ahead_microseconds(self) -> int | None:
        """`ahead` in microseconds."""
        return microseconds(self.ahead) if self.ahead else None

    @property
    def late_microseconds(self) -> int | None:
        """`late` in microseconds."""
        return microseconds(self.late) if self.late else None


class Label(Part, frozen=True):
    """The field that holds the outcome, and its value in the case that the model looks for.

    It comes with the profile, or with a later event of the type `event`. With `wait` (such as `48h` of event time),
    that event must follow within that time after a vector; if it does not, the other case happened.
    """

    field: str
    positive: bool | int | str = 1
    event: str | None = None
    wait: str | None = None

    @property
    def wait_microseconds(self) -> int | None:
        """`wait` in microseconds."""
        return microseconds(self.wait) if self.wait else None


class ModelDeclaration(Part, frozen=True):
    """The model's name, the column of its decision, and the threshold: from this probability on the decision is 1."""

    name: str
    prediction: str
    threshold: float = 0.5
    intended_use: tuple[str, ...] = ()
    """Sentences for the model card: what the model is for."""
    limits: tuple[str, ...] = ()
    """Sentences for the model card: what it is not for, and what is not known."""


class UseCase(Part, frozen=True, dict=True):
    """A use case as its file declares it, and what follows from that."""

    version: int
    name: str
    key: str
    written_time: str | Clock = msgspec.field(name="time")
    """The field of an event's time, by itself or in a mapping with its limits."""
    type: str
    written: dict[str, FieldType | Field] = msgspec.field(name="fields")
    """An event's fields, as the file's `fields` has them: `celsius: number` is short for `celsius: {type: number}`.
    """
    events: dict[str, Event]
    predict_on: tuple[str, ...]
    model: ModelDeclaration
    title: str = ""
    description: str = ""
    id: str | None = None
    """The field that tells an event from its repetition by the source."""
    profile: Profile | None = None
    window: From | None = None
    """Events count in this window only; None: all do."""
    forms: Forms = msgspec.field(name="features", default_factory=dict)
    """What stands under `features`."""
    derived: tuple[str, ...] = ()
    """Features that the notebook's `derive` adds."""
    label: Label | None = None

    @cached_property
    def declared(self) -> dict[str, Field]:
        """The fields of an event by name."""
        return {name: field if isinstance(field, Field) else Field(field) for name, field in self.written.items()}

    @cached_property
    def fields(self) -> dict[str, FieldType]:
        """The fields of an event by name, with their types."""
        return {name: field.type for name, field in self.declared.items()}

    @cached_property
    def paths(self) -> dict[str, tuple[str, ...]]:
        """Where each field stands in an event's JSON: the names on the way, one for a field that is in no envelope."""
        return {name: tuple((field.path or name).split(".")) for name, field in self.declared.items()}

    @property
    def key_path(self) -> str:
        """Where the key stands in an event's JSON, names with dots between them, as readers look for it."""
        return self.declared[self.key].path or self.key

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
    def clock(self) -> Clock:
        """The field of an event's time, with its limits."""
        written = self.written_time
        return written if isinstance(written, Clock) else Clock(written)

    @property
    def time(self) -> str:
        """The field of an event's time."""
        return self.clock.field

    def needs(self, event: str) -> tuple[str, ...]:
        """Return the fields that an event of a type (by its name, not an alias) must have."""
        return self.events[event].needs

    @cached_property
    def groups(self) -> dict[str, Group]:
        """The groups of statistics by name, in the order of the file."""
        return {name: form for name, form in self.forms.items() if isinstance(form, Group)}

    @cached_property
    def profile_lookups(self) -> dict[str, LookUp]:
        """What is looked up when the profile arrives, by the name of the feature."""
        return {n: form for n, form in self.forms.items() if isinstance(form, LookUp) and form.at is not None}

    @cached_property
    def event_lookups(self) -> dict[str, LookUp]:
        """What is looked up as an event is taken in, by the name of the feature, which is a column of the events."""
        return {n: form for n, form in self.forms.items() if isinstance(form, LookUp) and form.at is None}

    @cached_property
    def computed(self) -> tuple[str, ...]:
        """The features that the engine computes, in the order of the file."""
        return tuple(feature for name, form in self.forms.items() for feature in names_of(name, form))

    @cached_property
    def features(self) -> tuple[str, ...]:
        """The features in the order of the vector: those computed, then those that the notebook derives."""
        return self.computed + self.derived

    @property
    def first_time(self) -> str | None:
        """The column of the time of the event that opened the window; None without a window."""
        return f"first_{self.window.event}_time" if self.window else None

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
    def intended_use(self) -> tuple[str, ...]:
        """What the model is for, in sentences: as the file says it, or as it follows from the label."""
        outcome = f"{self.prediction} is 1"
        if self.label:
            value = self.label.positive
            outcome = f"{self.label.field} is {str(value).lower() if isinstance(value, bool) else value}"
        asked = " or ".join(self.predict_on)
        return self.model.intended_use or (f"To say after each {asked} how likely it is that {outcome} in the end.",)

    @property
    def threshold(self) -> float:
        """The probability at and above which the decision is 1."""
        return self.model.threshold

    @cached_property
    def event_schema(self) -> pa.Schema:
        """The columns of a batch of events: position, ingested_at, the fields, values looked up, extra."""
        return pa.schema([(POSITION, pa.int64()), (INGESTED_AT, TIME), *self._fields, (EXTRA, pa.string())])

    @property
    def needed_of_event(self) -> list[str]:
        """The columns of a batch of events that every row has a value in."""
        return [POSITION, self.key, self.time, self.type]

    @cached_property
    def row_schema(self) -> pa.Schema:
        """The columns of a user's stored row: key, applied, profile, values looked up, and what `stored` says."""
        columns: Columns = [(self.key, pa.string()), (APPLIED, pa.int64()), *self._profile_fields]
        columns += _floats(self.profile_lookups)
        return pa.schema([*columns, *((one.name, one.type) for one in stored_columns(self))])

    @cached_property
    def features_schema(self) -> pa.Schema:
        """The columns of a row as a person or a model looks at it: key, profile, features by name."""
        return pa.schema([(self.key, pa.string()), *self._profile_fields, *_floats(self.computed)])

    @cached_property
    def vector_schema(self) -> pa.Schema:
        """The columns of a batch of feature vectors: the event of each vector, and the features."""
        return pa.schema([(POSITION, pa.int64()), (INGESTED_AT, TIME), *self._vector])

    @cached_property
    def needed_of_vector(self) -> list[str]:
        """The columns of a batch of feature vectors that every row has a value in."""
        return [POSITION, *(name for name, _ in self._vector)]

    @cached_property
    def prediction_schema(self) -> pa.Schema:
        """The columns of a batch of predictions: the vectors, and the prediction for each."""
        return pa.schema([*self.vector_schema, *self._answer, (PREDICTED_AT, TIME)])

    @cached_property
    def events_log_schema(self) -> pa.Schema:
        """The columns of the log of events."""
        place: Columns = [(ORIGIN, pa.string()), (POSITION, pa.int64()), (SHARD, pa.int16()), (OFFSET, pa.int64())]
        return pa.schema([*self._fields, (EXTRA, pa.string()), *place, (INGESTED_AT, TIME)])

    @cached_property
    def inference_log_schema(self) -> pa.Schema:
        """The columns of the log of predictions."""
        place: Columns = [(ORIGIN, pa.string()), (POSITION, pa.int64()), (PREDICTED_AT, TIME)]
        return pa.schema([*self._vector, *self._answer, *place])

    @property
    def _fields(self) -> Columns:
        fields = [(name, FIELD_TYPES[type_]) for name, type_ in self.fields.items()]
        return [*fields, *_floats(self.event_lookups)]

    @property
    def _profile_fields(self) -> Columns:
        if self.profile is None:
            return []
        return [(self.profile.time, TIME), *((name, FIELD_TYPES[self.fields[name]]) for name in self.profile.fields)]

    @property
    def _vector(self) -> Columns:
        return [(self.key, pa.string()), (self.time, TIME), (self.type, pa.string()), *_floats(self.features)]

    @property
    def _answer(self) -> Columns:
        decision: Columns = [(self.prediction, pa.int8()), (self.probability, pa.float64())]
        return [*decision, (MODEL, pa.string()), (MODEL_VERSION, pa.string())]


def _floats(names: Iterable[str]) -> Columns:
    return [(name, pa.float64()) for name in names]
