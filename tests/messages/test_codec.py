"""A message holds what was put in, a client's body is taken apart as JSON reads it, and no bytes end in a traceback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelstream.messages.codec import (
    LINE,
    LINES_SCHEMA,
    MAX_MESSAGE_BYTES,
    MAX_MESSAGE_EVENTS,
    UnreadableError,
    decode,
    encode,
    is_framed,
    row_count,
    split_rows,
)
from modelstream.messages.identity import MAX_EVENTS_A_MESSAGE
from modelstream.use_case.columns import POSITION
from modelstream.use_case.file import load_use_case
from tests.raw_lines import lines_batch

ROOT = Path(__file__).parents[2]
CHURN = load_use_case(ROOT / "use_cases" / "churn.yaml")


def vectors(rows: int) -> pa.RecordBatch:
    columns = [pa.array(np.arange(rows)).cast(field.type) for field in CHURN.vector_schema]
    return pa.RecordBatch.from_arrays(columns, schema=CHURN.vector_schema)


# Messages.


def test_a_message_holds_the_rows_that_were_put_in() -> None:
    rows = decode(encode("vectors", "a/ü ☂.ndjson", vectors(5), note="x"))
    assert (rows.kind, rows.origin, dict(rows.metadata)) == ("vectors", "a/ü ☂.ndjson", {"note": "x"})
    assert rows.batch.equals(vectors(5))


def test_the_rows_of_a_message_are_known_without_reading_it() -> None:
    body = encode("vectors", "a", vectors(5))
    assert row_count(body) == 5
    older = body[:-16] + xxhash.xxh3_64_digest(body[:-16])
    assert (row_count(older), decode(older).batch.num_rows) == (5, 5), "as an earlier checkout wrote it"
    assert [row_count(line) for line in (b"", b"{}", b"{}\n", b"{}\n{}", b"{}\n{}\n")] == [1, 1, 1, 2, 2]
    assert [row_count(damaged) for damaged in (body[:40], body[:-1], older[:-1])] == [1, 1, 1]


@given(st.lists(st.binary()), st.integers(0, 2**52))
def test_lines_are_kept_byte_for_byte(lines: list[bytes], start: int) -> None:
    rows = decode(encode("lines", "a", lines_batch(lines, range(start, start + len(lines)))))
    assert rows.batch.column(LINE).to_pylist() == lines if lines else rows.batch.num_rows == 0
    assert rows.batch.column(POSITION).to_pylist() == list(range(start, start + len(lines)))


def test_columns_without_a_value_are_left_out() -> None:
    batch = pa.record_batch({"position": [1, 2], "a": pa.array([None, None], pa.string()), "b": ["x", None]})
    assert decode(encode("events", "o", batch)).batch.schema.names == ["position", "b"]


def test_a_message_without_rows_keeps_its_columns() -> None:
    assert decode(encode("vectors", "o", vectors(0))).batch.schema.equals(CHURN.vector_schema)


def test_a_slice_is_sent_without_the_rows_around_it() -> None:
    part = vectors(10_000).slice(7, 3)
    assert len(encode("vectors", "o", part)) < 10_000
    assert decode(encode("vectors", "o", part)).batch.equals(part)


def raw(batch: pa.RecordBatch, **metadata: str) -> bytes:
    """Return an Arrow message that is not made by `encode`."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema.with_metadata(metadata)) as writer:
        writer.write_batch(batch)
    return sealed(sink.getvalue().to_pybytes())


def sealed(body: bytes) -> bytes:
    """Return a body with the hash that a message ends with."""
    return body + xxhash.xxh3_64_digest(body)


OURS = {"kind": "vectors", "origin": "o", "version": "1"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "damaged, or not from this pipeline"),
        (b"\xff\xff\xff\xff", "damaged, or not from this pipeline"),
        (b'{"user_id": "u1"}', "damaged, or not from this pipeline"),
        (encode("vectors", "o", vectors(5))[:-200], "damaged, or not from this pipeline"),
        (sealed(b"\xff\xff\xff\xff"), "not a readable Arrow message"),
        (sealed(b""), "not a readable Arrow message"),
        (sealed(encode("vectors", "o", vectors(5))[:-200]), "not a readable Arrow message"),
        (raw(vectors(2)), "not from this pipeline"),
        (raw(vectors(2), **{**OURS, "kind": "letters"}), "not from this pipeline"),
        (raw(vectors(2), kind="vectors", version="1"), "not from this pipeline"),
        (raw(vectors(2).drop_columns([POSITION]), **OURS), "not from this pipeline"),
        (raw(vectors(2), **{**OURS, "version": "2"}), "another version"),
        (raw(vectors(MAX_EVENTS_A_MESSAGE + 1), **OURS), "16384 rows in a message; 16383 are allowed"),
        (raw(pa.record_batch({POSITION: ["1"]}), **OURS), "not from this pipeline"),
        (raw(pa.record_batch({POSITION: pa.array([1, None])}), **OURS), "not from this pipeline"),
        (raw(lines_batch([b"{}", b"{}"], [2, 1]), **{**OURS, "kind": "lines"}), "not from this pipeline"),
        (raw(lines_batch([b"{}", b"{}"], [1, 1]), **{**OURS, "kind": "lines"}), "not from this pipeline"),
        (raw(pa.record_batch({POSITION: [-1, 1]}), **OURS), "not from this pipeline"),
        (raw(pa.record_batch({POSITION: [1]}), **{**OURS, "kind": "lines"}), "not from this pipeline"),
        (raw(pa.record_batch({POSITION: [1], LINE: ["{}"]}), **{**OURS, "kind": "lines"}), "not from this pipeline"),
        (
            raw(pa.record_batch([[1], pa.array([None], pa.binary())], LINES_SCHEMA), **{**OURS, "kind": "lines"}),
            "not from this pipeline",
        ),
    ],
)
def test_a_message_that_is_not_ours_is_unreadable(body: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        decode(body)


def test_rows_that_a_crash_repeated_may_stand_in_one_message() -> None:
    """The model server keeps no watermarks: what comes twice goes on twice, in one message if need be."""
    twice = pa.Table.from_batches([vectors(2), vectors(3)]).combine_chunks().to_batches()[0]
    assert decode(encode("vectors", "o", twice)).batch.equals(twice)


MESSAGE = encode("lines", "a.ndjson", lines_batch([b'{"user_id": "u1"}', b"{", b""], [3, 4, 9]), ingested_at="5")


@pytest.mark.parametrize("place", range(0, len(MESSAGE), 7))
def test_a_damaged_message_is_found(place: int) -> None:
    """Arrow trusts its input: some of these would end the process."""
    for byte in {0, 1, 255} - {MESSAGE[place]}:
        with pytest.raises(UnreadableError):
            decode(MESSAGE[:place] + bytes([byte]) + MESSAGE[place + 1 :])
    with pytest.raises(UnreadableError):
        decode(MESSAGE[:place])


@settings(deadline=None)
@given(st.binary())
@example(b"\xff\xff\xff\xff\xff\xff\xff\x7f")
def test_any_bytes_are_read_or_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableError):
        decode(b"\xff\xff\xff\xff" + body)


@pytest.mark.parametrize("rows", [1, MAX_MESSAGE_EVENTS, MAX_MESSAGE_EVENTS + 1, 3 * MAX_MESSAGE_EVENTS + 7])
def test_a_batch_is_cut_into_messages_that_fit(rows: int) -> None:
    batch = vectors(rows)
    pieces = split_rows(batch)
    assert pa.Table.from_batches(pieces).equals(pa.Table.from_batches([batch]))
    assert all(0 < piece.num_rows <= MAX_MESSAGE_EVENTS for piece in pieces)
    assert all(len(encode("vectors", "o", piece)) < 1.2 * MAX_MESSAGE_BYTES for piece in pieces)


def test_a_row_larger_than_a_message_goes_alone() -> None:
    batch = lines_batch([b"x" * 3_000_000], [0])
    assert split_rows(batch) == [batch]


def test_rows_of_unequal_size_are_split_until_each_piece_fits() -> None:
    sizes = [990_000, 990_000, 10, 600_000, 600_000, 1_000_000, 5]
    batch = lines_batch([bytes(size) for size in sizes], list(range(len(sizes))))
    pieces = split_rows(batch)
    assert pa.Table.from_batches(pieces).equals(pa.Table.from_batches([batch]))
    assert all(piece.num_rows == 1 or piece.nbytes <= 1_000_000 for piece in pieces)
    assert max(len(encode("lines", "f", piece)) for piece in pieces) <= 1 << 20, "what V3IO takes"


def test_no_client_body_is_taken_for_a_message_of_ours() -> None:
    assert is_framed(MESSAGE)
    assert not any(map(is_framed, [b"", b"{}", b"[]", b"\xff\xfe{\x00", "ÿÿÿÿ".encode()]))


def test_lines_schema_is_what_readers_send() -> None:
    assert decode(MESSAGE).batch.schema.equals(LINES_SCHEMA)
