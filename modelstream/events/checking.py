"""Turns the lines of any number of messages into checked events: parsing, the hook `transform`, required fields.

Messages are checked together, because most calls cost as much for one event as for a hundred.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelstream.base.hooks import call_hook, defined_at, row_text
from modelstream.base.timestamps import FIRST, LAST, TIMESTAMP, rows_of
from modelstream.errors import HookError
from modelstream.messages.identity import Int64s, buckets_of, positions_of
from modelstream.messages.json_text import MAX_LINE
from modelstream.use_case.columns import POSITION
from modelstream.use_case.declared import UseCase

if TYPE_CHECKING:
    from modelstream.events.parsing import Reject, Unfit

Transform = Callable[[pa.RecordBatch], pa.RecordBatch]
"""A hook that maps foreign events to the use case's: takes and returns a batch of `UseCase.event_schema`.

It may change values and leave rows out, but must decide from each row alone, because batches are cut anywhere. A value
that does not fit its field is null, and stands in the column `extra` as it came; the row is refused only if the field
is still null afterwards. Columns of values that are looked up at events are null too: they are filled afterwards.
"""


@dataclass
class MessageLines:
    """The raw lines of a message: n texts with their positions (int64, rising) in one origin."""

    origin: str
    texts: pa.BinaryArray
    positions: Int64s
    ingested_at: int | Int64s
    """When they were ingested, in microseconds: one time for all, or one for each."""
    sizes: dict[int, int] = field(default_factory=dict)
    """For lines that the reader cut: the size of the whole line in bytes, by position."""

    def __len__(self) -> int:
        return len(self.texts)

    def uncut(self) -> pa.BinaryArray:
        """Return the texts to parse, with cut ones emptied: a cut line is not an event, even if its beginning is valid
        JSON."""
        if not self.sizes:
            return self.texts
        cut = np.isin(self.positions, list(self.sizes))
        return pa.compute.if_else(pa.array(cut), pa.scalar(b"", pa.binary()), self.texts)


@dataclass(frozen=True)
class Checked:
    """The result of checking n lines, counted over all messages: k events, and the rejects.

    `events` has `UseCase.event_schema`; row i is of line `indices[i]` (int64[k], rising). `buckets` (uint8[n]) are
    those of the events' keys, 0 for lines that are none. `rejects` are in the order of their lines. Lines that the
    transform left out are in neither.
    """

    events: pa.RecordBatch
    indices: Int64s
    buckets: npt.NDArray[np.uint8]
    rejects: list[Reject]


class EventChecker:
    """Parses lines, applies the notebook's hook `transform` if there is one, and checks events against a use case."""

    def __init__(self, use_case: UseCase, transform: Transform | None = None) -> None:
        # numba comes with it, 100 MB: the inference logger, which shares its module with us, does without.
        from modelstream.events.parsing import Checker, LineParser

        self._use_case = use_case
        self._transform = transform
        self._parser = LineParser(use_case, keep_unfit=transform is not None)
        self._checker = Checker(use_case)

    def check(self, messages: Sequence[MessageLines]) -> Checked:
        """Check the lines of messages, of any origins.

        Raises HookError if a transform fails, or does something that it must not.
        """
        sizes = [len(message) for message in messages]
        if len(messages) == 1:
            positions, ingested_at, texts = messages[0].positions, messages[0].ingested_at, messages[0].uncut()
        else:
            positions = np.concatenate([message.positions for message in messages])
            ingested_at = np.concatenate(
                [np.full(size, message.ingested_at, np.int64) for size, message in zip(sizes, messages, strict=True)]
            )
            texts = pa.concat_arrays([message.uncut() for message in messages])
        parsed = self._parser.parse(texts, positions, ingested_at)
        rejects = [self._named(reject, messages, positions) for reject in parsed.rejects]
        events, indices = self._transformed(parsed.events, parsed.indices, np.cumsum(sizes))
        lacking: dict[int, Reject] = {}
        if self._transform is not None or not parsed.complete:
            lacking = {reject.index: reject for reject in self._checker.check(events)}
        if self._transform is not None:
            lacking |= self._after_transform(events, indices, parsed.unfit)
        if lacking:
            rejects += [replace(reject, index=int(indices[reject.index])) for reject in lacking.values()]
            rejects.sort(key=lambda reject: reject.index)
            complete = np.ones(len(indices), np.bool_)
            complete[list(lacking)] = False
            events, indices = events.filter(pa.array(complete)), indices[complete]
        buckets = of_events = buckets_of(events.column(self._use_case.key))
        if len(indices) < len(texts):
            buckets = np.zeros(len(texts), np.uint8)
            buckets[indices] = of_events
        return Checked(events, indices, buckets, rejects)

    def _named(self, reject: Reject, messages: Sequence[MessageLines], positions: Int64s) -> Reject:
        """Return a reject; if its line was cut, with that as the reason."""
        index = reject.index
        for message in messages:
            if index < len(message):
                size = message.sizes.get(int(message.positions[index])) if message.sizes else None
                return replace(reject, reason=f"longer than {MAX_LINE:,} bytes: {size:,}") if size else reject
            index -= len(message)
        raise IndexError(f"no line {reject.index} among {len(positions)}")

    def _transformed(self, events: pa.RecordBatch, indices: Int64s, ends: Int64s) -> tuple[pa.RecordBatch, Int64s]:
        """Return what the transform makes of events, and the indices of those that it left in."""
        if self._transform is None:
            return events, indices
        # Positions tell rows apart within an origin only, so it sees each message alone.
        pieces, kept = [events.slice(0, 0)], [indices[:0]]
        first = 0
        for last in np.searchsorted(indices, ends).tolist():
            if last > first:
                piece = events.slice(first, last - first)
                changed = self._checked_transform(self._transform, piece)
                pieces.append(changed)
                kept.append(indices[first:last][np.isin(positions_of(piece), positions_of(changed))])
            first = last
        return pa.concat_batches(pieces), np.concatenate(kept)

    def _after_transform(self, events: pa.RecordBatch, indices: Int64s, unfit: Sequence[Unfit]) -> dict[int, Reject]:
        """Return the rejects that only a transform leaves, by row: times that no year holds, and fields that have not
        been filled although the line has a value, which does not fit.
        """
        from modelstream.events.parsing import Reject

        rejects: dict[int, Reject] = {}
        for name, column in zip(events.schema.names, events.columns, strict=True):
            if column.type == TIMESTAMP:
                micros = column.view(pa.int64()).fill_null(0).to_numpy()
                for row in np.flatnonzero((micros < FIRST) | (micros > LAST)).tolist():
                    rejects[row] = Reject(row, f"{name}: outside the years 1 to 9999 in UTC, after transform(batch)")
        for value in reversed(unfit):  # of several in a row the first is told
            row = int(np.searchsorted(indices, value.index))
            left_in = row < len(indices) and indices[row] == value.index
            if left_in and not events.column(value.field)[row].is_valid:
                rejects[row] = Reject(row, value.reason)
        return rejects

    def _checked_transform(self, transform: Transform, events: pa.RecordBatch) -> pa.RecordBatch:
        changed = call_hook(
            "transform(batch)",
            lambda first, last: transform(events.slice(first, last - first)),
            events.num_rows,
            lambda row: row_text(rows_of(events.slice(row, 1))[0]),
        )
        wanted = self._use_case.event_schema
        if not isinstance(changed, pa.RecordBatch) or not changed.schema.equals(wanted):
            raise HookError(
                f"{defined_at(transform)}transform(batch) did not return a batch with the columns that it was given"
                f"{_difference(changed, wanted)}",
                remedy=f"return a pyarrow.RecordBatch with the schema {', '.join(wanted.names)}",
            )
        positions = positions_of(changed)
        if not np.isin(positions, positions_of(events)).all() or not (positions[1:] > positions[:-1]).all():
            raise HookError(
                f"{defined_at(transform)}transform(batch) returned rows that it was not given, or changed their order",
                remedy=f"it may change values and leave rows out, but must not change the column {POSITION}",
            )
        return changed


def _difference(changed: object, wanted: pa.Schema) -> str:
    """Return the first column that differs, for an error message."""
    if not isinstance(changed, pa.RecordBatch):
        return f", but {type(changed).__name__}"
    if changed.schema.names != wanted.names:
        return f", but the columns {', '.join(changed.schema.names)}"
    other = next((f for f, right in zip(changed.schema, wanted, strict=True) if f.type != right.type), None)
    return f": {other.name} is {other.type}, not {wanted.field(other.name).type}" if other else ""
