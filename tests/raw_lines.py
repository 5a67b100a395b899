"""A batch of raw lines, as a reader's messages hold them."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import xxhash

from modelstream.messages.codec import LINES_SCHEMA
from modelstream.messages.identity import Int64s


def lines_batch(lines: Sequence[bytes], positions: Sequence[int] | Int64s) -> pa.RecordBatch:
    """Return a batch of raw lines (`LINES_SCHEMA`)."""
    return pa.record_batch([pa.array(positions, pa.int64()), pa.array(lines, pa.binary())], LINES_SCHEMA)


def as_arrow(batch: pa.RecordBatch, **described: str) -> bytes:
    """Return a batch as an Arrow message, with a right hash; of lines, as earlier versions wrote them."""
    schema = batch.schema.with_metadata(described)
    body: bytes = schema.serialize().to_pybytes() + batch.serialize().to_pybytes()
    return body + xxhash.xxh3_64_digest(body)
