"""The format of messages: between functions, bytes that hold a batch; from clients, JSON (see `json_text`).

A message's first bytes tell what it is: raw lines (from a reader, see `raw_lines`), an Arrow IPC stream (between our
functions), or at the edge a JSON object, a JSON array or NDJSON. The first two end with their number of rows and a hash
of everything before it. An Arrow message carries its rows' origin in the schema's metadata and their positions in a
column.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
import pyarrow as pa
import xxhash

from modelstream.base.timestamps import FIRST, LAST
from modelstream.errors import ModelstreamError
from modelstream.messages import raw_lines
from modelstream.messages.identity import MAX_EVENTS_A_MESSAGE, MAX_POSITION, Int64s
from modelstream.messages.untrusted import read_batch
from modelstream.use_case.columns import POSITION

Kind = Literal["lines", "events", "vectors", "predictions"]
"""What the rows of a message are: raw lines, checked events, feature vectors, predictions."""

VERSION = b"1"
LINE = "line"
MAX_MESSAGE_BYTES = 1_000_000
MAX_MESSAGE_EVENTS = 10_000
"""Batches are split at this size: small enough for every backend (V3IO takes 1 MB per record), and large enough that
the 0.3–0.4 ms that Nuclio spends on each message don't matter."""

LINES_SCHEMA = pa.schema([(POSITION, pa.int64()), (LINE, pa.binary())])

_FRAMED = b"\xff\xff\xff"
_ARROW_END = b"\xff\xff\xff\xff" + bytes(4)
_NO_LINE = np.zeros(1, np.int32)
_WITHOUT_ORIGIN = "a message of raw lines without origin: not from this pipeline"


class UnreadableError(ModelstreamError):
    """A message that can never be read: it becomes a dead letter."""


@dataclass(frozen=True)
class Decoded:
    """The rows of a message: what they are, where they came from, and the batch itself.

    `batch` has the columns of its kind's schema; a column in which every row is null may be missing.
    """

    kind: Kind
    origin: str
    batch: pa.RecordBatch
    metadata: Mapping[str, str]


def encode(kind: Kind, origin: str, batch: pa.RecordBatch, **metadata: str) -> bytes:
    """Return the message of a batch. Columns in which every row is null are left out.

    >>> body = encode("lines", "a.ndjson", pa.record_batch([[7], [b"{}"]], schema=LINES_SCHEMA))
    >>> rows = decode(body)
    >>> rows.kind, rows.origin, rows.batch.num_rows
    ('lines', 'a.ndjson', 1)
    """
    count = batch.num_rows
    if kind == "lines":
        lines = batch.column(LINE)
        _, limits, text = lines.buffers()
        places = np.frombuffer(limits, np.int32)[lines.offset : lines.offset + count + 1] if count else _NO_LINE
        return encode_lines(origin, batch.column(POSITION).to_numpy(), places, memoryview(text or b""), **metadata)
    present = [i for i, column in enumerate(batch.columns) if column.null_count < count]
    if len(present) < batch.num_columns and count:
        batch = batch.select(present)
    described = {"kind": kind, "origin": origin, "version": VERSION, **metadata}
    # The parts of an IPC stream by themselves: a writer for them takes as long as a small message.
    end = _ARROW_END + count.to_bytes(8, "little")
    parts = (batch.schema.with_metadata(described).serialize(), batch.serialize(), end)
    digest = xxhash.xxh3_64()
    for part in parts:
        digest.update(part)
    return b"".join((*parts, digest.digest()))


def encode_lines(
    origin: str, positions: Int64s, limits: raw_lines.Int32s, text: bytes | memoryview, **metadata: str
) -> bytes:
    """Return the message of raw lines: the line i is `text[limits[i]:limits[i + 1]]`, at `positions[i]`.

    >>> body = encode_lines("a.ndjson", np.array([7, 8]), np.array([1, 3, 5], np.int32), b".{}[]")
    >>> decode(body).batch.to_pydict()
    {'position': [7, 8], 'line': [b'{}', b'[]']}
    """
    first = int(limits[0])
    description = {"origin": origin, **metadata}
    return raw_lines.pack(description, positions, limits[1:] - limits[0], memoryview(text)[first : int(limits[-1])])


def is_framed(body: bytes) -> bool:
    """Tell whether a message comes from one of our functions, or pretends to; if not it is text, or should be."""
    return body.startswith(_FRAMED)


def row_count(body: bytes) -> int:
    r"""Return how many rows a message holds, at least 1: of JSON its lines, otherwise what stands before the hash.

    This costs less than 1 us, so streams may count the rows of every message that is appended.

    >>> row_count(encode("lines", "a.ndjson", pa.record_batch([[7, 8], [b"{}", b"{}"]], schema=LINES_SCHEMA)))
    2
    >>> row_count(b'{"a": 1}\n{"a": 2}\n')
    2
    """
    if not is_framed(body):
        return body.count(b"\n") + (not body.endswith(b"\n"))
    rows = raw_lines.count_of(body)
    known = body.startswith(raw_lines.MAGIC) or body[-24:-16] == _ARROW_END
    if not known or not 0 < rows <= MAX_EVENTS_A_MESSAGE:  # written before rows stood there
        try:
            rows = decode(body).batch.num_rows
        except UnreadableError:
            rows = 1
    return max(1, rows)


def decode(body: bytes) -> Decoded:
    """Return the rows of a message between functions, without copying them. Raises `UnreadableError`.

    The last eight bytes are a hash (XXH3) of the rest, which tells damage; a foreign message may have a right one.
    """
    _check_hash(body)
    if body.startswith(raw_lines.MAGIC):
        return _decode_lines(body)
    try:
        batch = read_batch(body)
    except (pa.ArrowException, ValueError, EOFError, OSError) as error:
        raise UnreadableError(f"not a readable Arrow message: {error}") from error
    described = (batch.schema.metadata or {}).items()
    metadata = {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in described}
    kind = metadata.pop("kind", None)
    if kind not in get_args(Kind) or "origin" not in metadata or not _has_positions(batch, rising=kind == "lines"):
        raise UnreadableError("an Arrow message without kind, origin or positions: not from this pipeline")
    if kind == "lines" and (not batch.schema.equals(LINES_SCHEMA) or batch.column(LINE).null_count):
        raise UnreadableError("an Arrow message of lines with other columns: not from this pipeline")
    if metadata.pop("version", None) != VERSION.decode():
        raise UnreadableError("an Arrow message of another version of this pipeline")
    if batch.num_rows > MAX_EVENTS_A_MESSAGE:
        raise UnreadableError(f"{batch.num_rows} rows in a message; {MAX_EVENTS_A_MESSAGE} are allowed")
    return Decoded(cast(Kind, kind), metadata.pop("origin"), batch, metadata)


def one_line(body: bytes) -> tuple[dict[str, str], int, bytes] | None:
    """Return the description (with the origin), position and text of a message of one raw line, else None.

    The same is in what `decode` returns, which takes ten times as long. Raises `UnreadableError`.

    >>> body = encode("lines", "a.ndjson", pa.record_batch([[7], [b"{}"]], schema=LINES_SCHEMA), note="x")
    >>> one_line(body)
    ({'origin': 'a.ndjson', 'note': 'x'}, 7, b'{}')
    """
    if not body.startswith(raw_lines.MAGIC):
        return None
    _check_hash(body)
    try:
        found = raw_lines.unpack_one(body)
    except ValueError as error:
        raise _unreadable_lines(error) from error
    if found is not None and "origin" not in found[0]:
        raise UnreadableError(_WITHOUT_ORIGIN)
    return found


def _check_hash(body: bytes) -> None:
    if xxhash.xxh3_64_digest(memoryview(body)[:-8]) != body[-8:]:
        raise UnreadableError("a message that is damaged, or not from this pipeline")


def _decode_lines(body: bytes) -> Decoded:
    try:
        found = raw_lines.unpack(body)
    except ValueError as error:
        raise _unreadable_lines(error) from error
    if "origin" not in found.description:
        raise UnreadableError(_WITHOUT_ORIGIN)
    ends = np.concatenate([np.zeros(1, np.int32), found.ends])
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(found.text)]
    texts = pa.Array.from_buffers(pa.binary(), len(found.positions), buffers)
    batch = pa.RecordBatch.from_arrays([pa.array(found.positions), texts], schema=LINES_SCHEMA)
    return Decoded("lines", found.description.pop("origin"), batch, found.description)


def _unreadable_lines(error: ValueError) -> UnreadableError:
    return UnreadableError(f"not a readable message of raw lines: {error}")


def check_columns(batch: pa.RecordBatch, schema: pa.Schema, needed: Collection[str]) -> None:
    """Check that a batch has this schema's columns, where one that is all null may be missing, and others may be there.

    Those that are `needed` must be there, without nulls; times must lie in the years 1 to 9999. Raises
    UnreadableError: another pipeline's message, or a forged one.

    >>> schema = pa.schema([("user", pa.string()), ("weight", pa.float64())])
    >>> check_columns(pa.record_batch({"user": ["u1"]}), schema, ["user"])
    >>> check_columns(pa.record_batch({"user": [1]}), schema, ["user"])
    Traceback (most recent call last):
    modelstream.messages.codec.UnreadableError: a message whose column 'user' holds int64, not string
    """
    for field in schema:
        place = batch.schema.get_field_index(field.name)
        if place < 0:
            if field.name in needed and batch.num_rows:
                raise UnreadableError(f"a message without the column {field.name!r}")
            continue
        column = batch.column(place)
        if column.type != field.type:
            raise UnreadableError(f"a message whose column {field.name!r} holds {column.type}, not {field.type}")
        if column.null_count and field.name in needed:
            raise UnreadableError(f"a message with a null in {field.name!r}")
        if pa.types.is_timestamp(field.type) and column.null_count < len(column):
            times = pa.compute.min_max(column.view(pa.int64()))
            if times["min"].as_py() < FIRST or times["max"].as_py() > LAST:
                raise UnreadableError(f"a message with {field.name!r} outside the years 1 to 9999")


def _has_positions(batch: pa.RecordBatch, *, rising: bool) -> bool:
    """Return whether there is a column of positions.

    They must rise in messages from a reader; in later messages a crash may have repeated some.
    """
    place = batch.schema.get_field_index(POSITION)
    if place < 0 or batch.schema.field(place).type != pa.int64() or batch.column(place).null_count:
        return False
    positions = batch.column(place).to_numpy()
    if not len(positions):
        return True
    if positions.min() < 0 or positions.max() > MAX_POSITION:
        return False
    return not (rising and (positions[1:] <= positions[:-1]).any())


def column_or_nulls(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    """Return a column, of nulls if the message left it out because every row was null.

    >>> column_or_nulls(pa.record_batch({"house": ["h1"]}), pa.field("celsius", pa.float64())).to_pylist()
    [None]
    """
    index = batch.schema.get_field_index(field.name)
    return batch.column(index) if index >= 0 else pa.nulls(batch.num_rows, field.type)


def split_rows(batch: pa.RecordBatch) -> list[pa.RecordBatch]:
    """Cut a batch into pieces that each fit a message (10,000 rows and 1 MB, but a single row of any size)."""
    pieces = max(
        -(-batch.num_rows // MAX_MESSAGE_EVENTS),
        -(-batch.nbytes // MAX_MESSAGE_BYTES) if batch.num_rows > 1 else 1,
    )
    if pieces <= 1:
        return [batch]
    size = -(-batch.num_rows // pieces)
    # Rows of unequal size: a piece that is still too large is cut again.
    return [piece for start in range(0, batch.num_rows, size) for piece in split_rows(batch.slice(start, size))]
