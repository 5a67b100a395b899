"""The columns of every message, stored row and log: their names and Arrow types.

Two kinds of columns stand side by side: those that a use case names (its fields and features), and those that
the pipeline adds, whose names are the constants here. A use case may not use the latter for its own.
All times are `timestamp("us", tz="UTC")`.
"""

from __future__ import annotations

import pyarrow as pa

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
"""The Arrow type for each field type of a use-case file."""
