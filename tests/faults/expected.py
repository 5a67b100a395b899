"""What must be in the stores at the end, from what was appended to `generated`: each event once, one at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from modelstream.logs import Log
from modelstream.messages import dead_letters
from modelstream.messages.codec import LINE, UnreadableError, decode, is_framed
from modelstream.messages.dead_letters import DeadLetter
from modelstream.messages.identity import MAX_EVENTS_A_MESSAGE, bucket_of, stream_origin, stream_position
from modelstream.messages.json_text import split_body
from modelstream.tables import FeatureTable
from modelstream.use_case.declared import UseCase
from tests.faults import inputs
from tests.lines_oracle import Expected, Unreadable, read_line
from tests.oracle import Oracle

Place = tuple[int, int]
"""Epoch and shard."""
Identity = tuple[str, int]
"""Origin and position."""


@dataclass
class Truth:
    """What must come of what was appended."""

    use_case: UseCase
    values: Mapping[str, float] = field(default_factory=lambda: inputs.VALUES)
    """The lookup table."""
    events: dict[Place, list[tuple[Identity, Expected]]] = field(default_factory=dict)
    """By the shard that they were taken from, in order."""
    vectors: dict[Place, list[tuple[Identity, list[Any]]]] = field(default_factory=dict)
    """Key, time, type and features, by the shard of their key, in order."""
    letters: dict[tuple[str, int, int], bytes] = field(default_factory=dict)
    """The bytes of what can't be read, by origin, shard and position."""

    def __post_init__(self) -> None:
        self.oracle = Oracle(self.use_case, dict(self.values))
        self._seen: set[Identity] = set()
        self._taken = 0

    def append(self, epoch: int, shard: int, offset: int, shards: int, body: bytes) -> None:
        """Take in a message: call this for the messages of each shard in order, shard by shard, epoch by epoch."""
        try:
            origin, rows = _rows(epoch, shard, offset, body)
        except UnreadableError:
            self.letters[stream_origin("generated", shard), shard, stream_position(epoch, offset)] = body
            return
        for position, line in rows:
            if (origin, position) not in self._seen:
                self._seen.add((origin, position))
                self._append_line(epoch, shard, shards, (origin, position), line)

    def _append_line(self, epoch: int, shard: int, shards: int, identity: Identity, line: bytes) -> None:
        try:
            found = read_line(line, self.use_case)
        except Unreadable:
            self.letters[identity[0], shard, identity[1]] = line
            return
        self.events.setdefault((epoch, shard), []).append((identity, found))
        self._taken += 1
        vector = self.oracle.apply(found.values, self._taken)
        if vector is not None:
            use_case = self.use_case
            key, time = found.values[use_case.key], found.values[use_case.time]
            name = use_case.event_names[use_case.event_codes[found.values[use_case.type]]]
            place = (epoch, bucket_of(key) % shards)
            self.vectors.setdefault(place, []).append((identity, [key, time, name, *vector]))

    # Comparisons. They go by `repr`, so that numbers are equal only if they are to the last bit.

    def check_events(self, log: Log, folder: Path) -> None:
        """Check the log of events: every row, its fields and its order."""
        found: dict[Place, list[Any]] = {}
        for epoch, shard, row in _logged(log, folder):
            assert row.pop("shard") == shard
            identity = (row.pop("origin"), row.pop("position"))
            extra = row.pop("extra")
            del row["offset"], row["ingested_at"]
            values = {name: value for name, value in row.items() if value is not None}
            found.setdefault((epoch, shard), []).append((identity, values, extra and json.loads(extra)))
        expected = {
            place: [(identity, _in_order(row.values, self.use_case), row.extra) for identity, row in rows]
            for place, rows in self.events.items()
        }
        _same(found, expected, "events")

    def check_predictions(
        self, log: Log, folder: Path, probability_of: Callable[[list[float]], float] | None = None
    ) -> None:
        """Check the log of predictions: every vector, and (if it is known) what the model says of it."""
        use_case = self.use_case
        found: dict[Place, list[Any]] = {}
        for epoch, shard, row in _logged(log, folder):
            values = [row[name] for name in (use_case.key, use_case.time, use_case.type, *use_case.features)]
            said = [row[use_case.prediction], row[use_case.probability]] if probability_of else []
            found.setdefault((epoch, shard), []).append(((row["origin"], row["position"]), values, said))
        expected: dict[Place, list[Any]] = {}
        for place, rows in self.vectors.items():
            expected[place] = []
            for identity, values in rows:
                vector = [float(x) for x in values[3:]]
                says = probability_of(vector) if probability_of else 0.0
                said = [int(says >= 0.5), says] if probability_of else []
                expected[place].append((identity, [*values[:3], *vector], said))
        _same(found, expected, "inference")

    def check_rows(self, table: FeatureTable) -> None:
        """Check the users' rows."""
        rows = [row for batch in table.scan() for row in _plain(batch)]
        found = {row.pop(self.use_case.key): row for row in rows}
        expected = {row.pop(self.use_case.key): row for row in self.oracle.rows()}
        for row in (*found.values(), *expected.values()):
            del row["applied"]  # depends on how events were batched
        _same(found, expected, "features")

    def check_letters(self, letters: list[DeadLetter]) -> None:
        """Check the dead letters: each identity once, and its bytes."""
        identities = [(letter.origin, letter.shard, letter.position) for letter in letters]
        assert len(set(identities)) == len(identities), "a dead letter counts twice"
        found = dict(zip(identities, letters, strict=True))
        missing, surplus = sorted({*self.letters} - {*found}), sorted({*found} - {*self.letters})
        assert not missing and not surplus, f"dead letters: {missing} are missing, {surplus} should not be there"
        for identity, letter in found.items():
            assert letter.content() == self.letters[identity][: dead_letters.MAX_BYTES]

    def check_counters(self, counters: Mapping[str, int]) -> None:
        """Check what the stage has counted."""
        vectors = sum(len(rows) for rows in self.vectors.values())
        oracle = self.oracle
        looked_up = {"lookups": oracle.lookups, "lookup_misses": oracle.lookup_misses}
        expected = {"vectors": vectors, **looked_up, **oracle.not_counted}
        assert {name: n for name, n in counters.items() if n} == {name: n for name, n in expected.items() if n}


def _rows(epoch: int, shard: int, offset: int, body: bytes) -> tuple[str, list[tuple[int, bytes]]]:
    if is_framed(body):
        rows = decode(body)
        if rows.kind != "lines":
            raise UnreadableError("not lines")
        positions = rows.batch.column("position").to_pylist()
        return rows.origin, list(zip(positions, rows.batch.column(LINE).to_pylist(), strict=True))
    lines = split_body(body)
    assert len(lines) <= MAX_EVENTS_A_MESSAGE
    first = stream_position(epoch, offset)
    return stream_origin("generated", shard), list(enumerate(lines, first))


def _logged(log: Log, folder: Path) -> list[tuple[int, int, dict[str, Any]]]:
    """Return (epoch, shard, row) of every row of a log, in its order, from the names of its files."""
    assert log.publish()
    found = []
    epochs = {int(path.name[:2]) for path in folder.glob("??-*.parquet")}
    for epoch in sorted(epochs):
        for shard in range(64):
            for path in sorted(folder.glob(f"{epoch:02d}-{shard:02d}-*.parquet")):
                for batch in pq.ParquetFile(path).read().to_batches():
                    found += [(epoch, shard, row) for row in _plain(batch)]
    assert log.count() == len(found)
    return found


def _plain(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return rows as dicts, times as microseconds."""
    columns = [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in batch.columns]
    found: list[dict[str, Any]] = pa.RecordBatch.from_arrays(columns, names=batch.schema.names).to_pylist()
    return found


def _in_order(values: Mapping[str, Any], use_case: UseCase) -> dict[str, Any]:
    return {name: values[name] for name in use_case.fields if name in values}


def _same(found: Mapping[Any, Any], expected: Mapping[Any, Any], what: str) -> None:
    """Raise an AssertionError that tells the first difference."""
    for place in sorted({*found, *expected}):
        ours, theirs = found.get(place), expected.get(place)
        if repr(ours) == repr(theirs):
            continue
        if isinstance(ours, list) and isinstance(theirs, list):
            pairs = enumerate(zip(ours, theirs, strict=False))
            at = next((i for i, (one, other) in pairs if repr(one) != repr(other)), min(len(ours), len(theirs)))
            raise AssertionError(
                f"{what} {place}: {len(ours)} rows, expected {len(theirs)}; row {at} is\n"
                f"{ours[at] if at < len(ours) else None}, expected\n{theirs[at] if at < len(theirs) else None}"
            )
        raise AssertionError(f"{what} {place}: {ours}, expected {theirs}")
