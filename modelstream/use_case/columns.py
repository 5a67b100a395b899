"""The columns of every message, stored row and log: their names and Arrow types.

Two kinds of columns stand side by side: those that a use case names (its fields and features), and those that
the pipeline adds, whose names are the constants here. A use case may not use the latter for its own.
All times are `timestamp("us", tz="UTC")`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from modelstream.use_case.declared import UseCase

POSITION = "position"
"""The position of an event within its origin (int64)."""
INGESTED_AT = "ingested_at"
"""When the pipeline took the event in."""
EXTRA = "extra"
"""The fields of an event that the use case doesn't name: JSON text, null if there are none."""
ORIGIN = "origin"
"""The input that an event came from."""
SHARD = "shard"
"""The shard that an event was taken from (int16)."""
OFFSET = "offset"
"""The offset of the message that an event was taken from (int64)."""
APPLIED = "applied"
"""The position, in its stream, of the last event that changed a user's row (int64)."""
MODEL = "model"
MODEL_VERSION = "model_version"
PREDICTED_AT = "predicted_at"

ADDED = (
    *(POSITION, INGESTED_AT, EXTRA, ORIGIN, SHARD, OFFSET),
    *(APPLIED, MODEL, MODEL_VERSION, PREDICTED_AT),
)
"""Every name that the pipeline adds."""

TIME = pa.timestamp("us", tz="UTC")

FIELD_TYPES: dict[str, pa.DataType] = {
    "key": pa.string(),
    "time": TIME,
    "text": pa.string(),
    "number": pa.float64(),
    "integer": pa.int64(),
    "identifier": pa.string(),
    "boolean": pa.bool_(),
}
"""The Arrow type of each type of field (see `modelstream.use_case.declared.FieldType`)."""

STORED_STATISTICS = ("sum", "mean", "count", "m2")
"""What a row holds of each event with a value; `m2` is the sum of squared differences from the mean."""


def event_schema(use_case: UseCase) -> pa.Schema:
    """Return the columns of a batch of events: position, ingested_at, the use case's fields, extra."""
    return pa.schema([(POSITION, pa.int64()), (INGESTED_AT, TIME), *_fields(use_case), (EXTRA, pa.string())])


def row_schema(use_case: UseCase) -> pa.Schema:
    """Return the columns of a user's stored row: key, applied, profile, lookup value, window, statistics."""
    columns: list[tuple[str, pa.DataType]] = [(use_case.key, pa.string()), (APPLIED, pa.int64())]
    columns += _profile(use_case)
    if use_case.lookup:
        columns.append((use_case.lookup.value, pa.float64()))
    if use_case.first_time:
        columns.append((use_case.first_time, TIME))
    columns += _floats(f"{event}_{name}" for event in use_case.value_events for name in STORED_STATISTICS)
    return pa.schema(columns)


def features_schema(use_case: UseCase) -> pa.Schema:
    """Return a row as a person or a model looks at it: key, profile, features by name."""
    return pa.schema([(use_case.key, pa.string()), *_profile(use_case), *_floats(use_case.computed)])


def vector_schema(use_case: UseCase) -> pa.Schema:
    """Return the columns of a batch of feature vectors: what event each stands after, and the features."""
    return pa.schema([(POSITION, pa.int64()), (INGESTED_AT, TIME), *_vector(use_case)])


def prediction_schema(use_case: UseCase) -> pa.Schema:
    """Return the columns of a batch of predictions: the vectors, and what the model says of each."""
    return pa.schema([*vector_schema(use_case), *_prediction(use_case), (PREDICTED_AT, TIME)])


def events_log_schema(use_case: UseCase) -> pa.Schema:
    """Return the columns of the log of events."""
    place = [(ORIGIN, pa.string()), (POSITION, pa.int64()), (SHARD, pa.int16()), (OFFSET, pa.int64())]
    return pa.schema([*_fields(use_case), (EXTRA, pa.string()), *place, (INGESTED_AT, TIME)])


def inference_log_schema(use_case: UseCase) -> pa.Schema:
    """Return the columns of the log of predictions."""
    place = [(ORIGIN, pa.string()), (POSITION, pa.int64()), (PREDICTED_AT, TIME)]
    return pa.schema([*_vector(use_case), *_prediction(use_case), *place])


Columns = list[tuple[str, pa.DataType]]


def _floats(names: Iterable[str]) -> Columns:
    return [(name, pa.float64()) for name in names]


def _fields(use_case: UseCase) -> Columns:
    return [(name, FIELD_TYPES[type_]) for name, type_ in use_case.fields.items()]


def _profile(use_case: UseCase) -> Columns:
    if use_case.profile is None:
        return []
    fields = [(name, FIELD_TYPES[use_case.fields[name]]) for name in use_case.profile.fields]
    return [(use_case.profile.time, TIME), *fields]


def _vector(use_case: UseCase) -> Columns:
    event: Columns = [(use_case.key, pa.string()), (use_case.time, TIME), (use_case.type, pa.string())]
    return event + _floats(use_case.features)


def _prediction(use_case: UseCase) -> Columns:
    return [
        (use_case.prediction, pa.int8()),
        (use_case.probability, pa.float64()),
        (MODEL, pa.string()),
        (MODEL_VERSION, pa.string()),
    ]
