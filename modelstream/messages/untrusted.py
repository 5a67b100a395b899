"""Reads an Arrow batch from bytes that anyone may have written.

Arrow trusts what it reads: an IPC message of another kind than expected, or a type that this pipeline never sends, may
end the process. So everything that can be asked before the batch is read is asked first, and everything else before
anybody looks at a value. Found by changing messages at random: of 20,000, Arrow alone crashed on some 10.
"""

from __future__ import annotations

import struct
from functools import lru_cache

import pyarrow as pa

from modelstream.base.timestamps import TIMESTAMP

TYPES = frozenset((pa.bool_(), pa.int8(), pa.int64(), pa.float64(), pa.string(), pa.binary(), TIMESTAMP))
"""The types of all columns in all messages: flat, and with buffers that Arrow validates fully."""

_CONTINUES = 0xFFFFFFFF
"""An IPC message begins with this, and with the size of its metadata."""
_PREFIX = struct.Struct("<II")
_MOST_REMEMBERED = 16_384
"""Bytes of the largest schema that is remembered."""
_RECORD_BATCH_COMPRESSION = 3
_MESSAGE_HEADER = 2
"""Numbers of fields in Arrow's Message.fbs."""


def read_batch(content: bytes | memoryview) -> pa.RecordBatch:
    """Return the batch of an Arrow IPC stream, with the schema's metadata, without copying it.

    Raises ValueError (pyarrow.ArrowInvalid is one), EOFError or OSError for anything but a whole, valid and
    uncompressed batch of flat columns with names of their own.

    >>> batch = pa.record_batch({"position": [7, 9]})
    >>> read_batch(batch.schema.serialize().to_pybytes() + batch.serialize().to_pybytes()).to_pydict()
    {'position': [7, 9]}
    """
    begins, size = _PREFIX.unpack_from(content) if len(content) >= _PREFIX.size else (0, 0)
    if begins != _CONTINUES:
        raise ValueError("no Arrow message")
    size += _PREFIX.size
    known = _schema if size <= _MOST_REMEMBERED else _schema.__wrapped__
    schema = known(bytes(content[:size]))
    source = pa.BufferReader(content)
    source.seek(size)
    message = _message(source, "record batch")
    if _is_compressed(message.metadata):
        raise ValueError("a compressed batch, which may be of any size")
    batch = pa.ipc.read_record_batch(message, schema)
    batch.validate(full=True)
    return batch


@lru_cache(maxsize=256)
def _schema(content: bytes) -> pa.Schema:
    """Return the schema of an IPC stream's first message, which is the same in all messages of one kind and origin."""
    source = pa.BufferReader(content)
    schema = pa.ipc.read_schema(_message(source, "schema"))
    if source.tell() != len(content):
        raise ValueError("a schema with a body")
    names = schema.names  # UnicodeDecodeError, a ValueError, for one that is not UTF-8
    if len(set(names)) != len(names):
        raise ValueError("two columns of one name")
    if not TYPES.issuperset(schema.types):
        raise ValueError("a column of a type that no message has")
    return schema


def _message(source: pa.BufferReader, kind: str) -> pa.Message:
    message = pa.ipc.read_message(source)
    if message.type != kind:  # reading it as another kind ends the process
        raise ValueError(f"no {kind}")
    return message


def _is_compressed(metadata: pa.Buffer) -> bool:
    """Tell whether a record batch's message says that its buffers are compressed (Arrow has no way to ask this)."""
    content = memoryview(metadata)

    def place(table: int, field: int) -> int:
        """Return where a field of a flatbuffer's table is, 0 if it is absent."""
        fields = table - struct.unpack_from("<i", content, table)[0]
        size, slot = struct.unpack_from("<H", content, fields)[0], 4 + 2 * field
        offset: int = struct.unpack_from("<H", content, fields + slot)[0] if slot < size else 0
        return table + offset if offset else 0

    try:
        header = place(struct.unpack_from("<I", content, 0)[0], _MESSAGE_HEADER)
        return bool(place(header + struct.unpack_from("<I", content, header)[0], _RECORD_BATCH_COMPRESSION))
    except struct.error as error:
        raise ValueError(f"broken metadata: {error}") from error
