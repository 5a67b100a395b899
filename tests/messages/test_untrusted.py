"""What Arrow would read, or end the process over, is refused before it is read."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from modelstream.messages.untrusted import read_batch

BATCH = pa.record_batch({"position": [1, 2], "line": pa.array([b"{}", b"x" * 1000])})


def stream(batch: pa.RecordBatch, **options: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def test_a_plain_batch_is_read() -> None:
    assert read_batch(stream(BATCH)).equals(BATCH)
    assert read_batch(memoryview(stream(BATCH.slice(0, 0)))).num_rows == 0


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (BATCH.serialize().to_pybytes(), "no schema|Expected to be able to read"),
        (BATCH.schema.serialize().to_pybytes() * 2, "no record batch"),
        (stream(BATCH, compression="zstd"), "compressed"),
        (stream(BATCH, compression="lz4"), "compressed"),
        (stream(pa.record_batch({"a": pa.array([[1]])})), "a type that no message has"),
        (stream(pa.record_batch({"a": pa.array(["x"]).dictionary_encode()})), "a type that no message has"),
        (stream(pa.record_batch([pa.array([1]), pa.array([2])], names=["a", "a"])), "two columns of one name"),
    ],
    ids=["a batch first", "two schemas", "zstd", "lz4", "lists", "dictionary", "names"],
)
def test_anything_else_is_refused(content: bytes, why: str) -> None:
    with pytest.raises((ValueError, OSError), match=why):
        read_batch(content)


@pytest.mark.parametrize("cut", [0, 3, 8, 100, -9])
def test_a_part_is_refused(cut: int) -> None:
    with pytest.raises((ValueError, EOFError, OSError)):
        read_batch(stream(BATCH)[:cut])


def test_a_schema_that_was_read_before_says_nothing_about_the_batch_after_it() -> None:
    """Schemas are remembered; each batch is still validated in full."""
    good = stream(BATCH)
    assert read_batch(good).equals(BATCH)
    offsets, beyond = (np.array([0, 2, last], np.int32).tobytes() for last in (1002, 10**6))
    broken = good.replace(offsets, beyond)
    assert broken != good
    with pytest.raises(ValueError, match="column"):
        read_batch(broken)
    other = pa.record_batch({"position": ["1"], "line": pa.array([b"{}"])})
    assert read_batch(stream(other)).schema.equals(other.schema)
