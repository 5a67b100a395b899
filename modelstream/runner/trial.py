"""Tries a use case on the first lines of a file, without a pipeline: what would be refused, and what would count.

The hooks of the notebooks are not called, and nothing is looked up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from modelstream.events.checking import EventChecker, MessageLines
from modelstream.features.engine import FeatureEngine, no_lookup, no_rows
from modelstream.features.users import texts
from modelstream.runner.summary import most_frequent
from modelstream.source.input_file import check_input
from modelstream.source.readers import FileSource
from modelstream.use_case.declared import UseCase

MOST_LINES = 10_000
AT_ONCE = 2_000
"""Events in a batch, as a busy pipeline has them."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What became of some lines. `try_lines` has an example."""

    lines: int
    events: dict[str, int]
    """Events by type; those of types that the use case doesn't have are under the names that they have."""
    refused: dict[str, int]
    """Lines that are no events, by reason: the most frequent ones."""
    refused_lines: int
    not_counted: dict[str, int]
    """Events that change no features, by reason."""
    counted: int
    users: int
    vectors: int
    empty_fields: list[str]
    """Fields of the use case that no event has a value in."""
    micros: float
    """Microseconds of CPU that the features of an event take, with what else the engine does."""


def try_lines(use_case: UseCase, path: Path, most: int = MOST_LINES) -> Trial:
    """Return what becomes of the first lines of a file of JSON lines.

    Raises ConfigurationError if it can't be read, or is no file of JSON lines.

    >>> import tempfile
    >>> from modelstream.use_case.file import parse_use_case
    >>> use_case = parse_use_case('''
    ... {version: 2, name: heating, key: house, time: at, type: kind,
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {reading: {needs: [celsius]}}, features: {reading: {of: reading, value: celsius, give: mean}},
    ...  predict_on: [reading], model: {name: frost, prediction: will_freeze}}''')
    >>> lines = [f'{{"house": "h{i}", "at": "2026-01-0{i}", "kind": "reading", "celsius": {i}}}' for i in (1, 2)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "lines.ndjson"
    ...     written = path.write_text("\\n".join([*lines, '{"house": "h1"}']))
    ...     found = try_lines(use_case, path)
    >>> found.events, found.refused, found.vectors
    ({'reading': 2}, {'at: missing': 1}, 2)
    """
    check_input(path)
    lines = _first_lines(use_case, path, most)
    checked = EventChecker(use_case).check([lines])
    events = checked.events
    _apply(use_case, events)  # kernels are loaded
    begun = time.process_time()
    counted, not_counted, vectors = _apply(use_case, events)
    used = time.process_time() - begun
    kinds = events.column(use_case.type).value_counts()
    names = zip(kinds.field("values").to_pylist(), kinds.field("counts").to_pylist(), strict=True)
    found: dict[str, int] = {}
    for name, number in names:
        code = use_case.event_codes.get(name)
        known = name if code is None else use_case.event_names[code]
        found[known] = found.get(known, 0) + number
    return Trial(
        lines=len(lines),
        events=dict(sorted(found.items(), key=lambda one: -one[1])),
        refused=most_frequent(reject.reason for reject in checked.rejects),
        refused_lines=len(checked.rejects),
        not_counted=not_counted,
        counted=counted,
        users=len(events.column(use_case.key).unique()),
        vectors=vectors,
        empty_fields=[n for n in use_case.fields if events.num_rows and events.column(n).null_count == events.num_rows],
        micros=1e6 * used / max(1, events.num_rows),
    )


def _first_lines(use_case: UseCase, path: Path, most: int) -> MessageLines:
    lines: list[bytes] = []
    positions: list[int] = []
    sizes: dict[int, int] = {}
    for chunk in FileSource(path.resolve(), use_case.key_path).chunks(lambda: False):
        if len(lines) >= most:
            break
        first = chunk.lines.slice(0, most - len(lines))
        lines += first.texts()
        positions += first.positions.tolist()
        sizes |= first.truncated
    return MessageLines(
        str(path), pa.array(lines, pa.binary()), np.array(positions, np.int64), time.time_ns() // 1000, sizes
    )


def _apply(use_case: UseCase, events: pa.RecordBatch) -> tuple[int, dict[str, int], int]:
    engine, counted, vectors, not_counted = FeatureEngine(use_case), 0, 0, dict[str, int]()
    for first, batch in _batches(events):
        engine.load(engine.missing(texts(batch.column(use_case.key).unique())), no_rows(use_case))
        applied = engine.apply(batch, np.arange(first, first + batch.num_rows), no_lookup)
        counted, vectors = counted + applied.counted, vectors + len(applied.indices)
        for reason, number in applied.not_counted.items():
            not_counted[reason] = not_counted.get(reason, 0) + number
    return counted, not_counted, vectors


def _batches(events: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    for first in range(0, max(1, events.num_rows), AT_ONCE):
        yield first, events.slice(first, AT_ONCE)
