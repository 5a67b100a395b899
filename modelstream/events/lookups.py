"""Looks values up for events as they are taken in: each becomes a column of the events and of their log."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from modelstream.use_case.declared import UseCase
from modelstream.use_case.lookups import lookup_key

LookUpFunction = Callable[[str, Sequence[str]], Sequence[float | None]]
"""Takes the name of a table and distinct keys; returns the value of each, None for a key without one."""


class EventLookups:
    """What a use case looks up at each event.

    >>> from types import SimpleNamespace
    >>> from modelstream.use_case.declared import FieldType
    >>> from modelstream.use_case.vocabulary import LookUp
    >>> risk = {"risk": LookUp("terminals", by="terminal")}
    >>> use_case = SimpleNamespace(event_lookups=risk, fields={"terminal": FieldType.IDENTIFIER})
    >>> lookups = EventLookups(use_case, lambda table, keys: [{"7": 0.5}.get(key) for key in keys])
    >>> events = pa.record_batch({"terminal": [" 7.0", "8", None], "risk": pa.array([None] * 3, pa.float64())})
    >>> found = lookups.fill(events)
    >>> found.column("risk").to_pylist(), lookups.counted(found)
    ([0.5, None, None], (2, 1))
    """

    def __init__(self, use_case: UseCase, look_up: LookUpFunction) -> None:
        self._lookups = use_case.event_lookups
        self._fields = use_case.fields
        self._look_up = look_up

    def __bool__(self) -> bool:
        return bool(self._lookups)

    @property
    def names(self) -> list[str]:
        """The columns that are filled."""
        return list(self._lookups)

    @property
    def tables(self) -> list[str]:
        """The tables that are asked, each once."""
        return list(dict.fromkeys(lookup.look_up for lookup in self._lookups.values()))

    def fill(self, events: pa.RecordBatch) -> pa.RecordBatch:
        """Return events with the values that are found for them; null where none is, or the event has no key.

        Each table is asked once, for distinct keys as `use_case.lookups` writes them. Raises what the tables raise.
        """
        asked = {name: events.column(lookup.by).dictionary_encode() for name, lookup in self._lookups.items()}
        keys = {
            name: [lookup_key(text, self._fields[lookup.by]) for text in asked[name].dictionary.to_pylist()]
            for name, lookup in self._lookups.items()
        }
        found: dict[str, dict[str, float | None]] = {}
        for table in self.tables:
            of_table = [keys[name] for name, lookup in self._lookups.items() if lookup.look_up == table]
            wanted = [key for key in dict.fromkeys(key for some in of_table for key in some) if key]
            found[table] = dict(zip(wanted, self._look_up(table, wanted), strict=True)) if wanted else {}
        for name, lookup in self._lookups.items():
            values = pa.array([found[lookup.look_up].get(key) for key in keys[name]], pa.float64())
            column = events.schema.get_field_index(name)
            events = events.set_column(column, events.schema.field(column), values.take(asked[name].indices))
        return events

    def counted(self, events: pa.RecordBatch | pa.Table) -> tuple[int, int]:
        """Return how many values were looked up for events, and how many were not found.

        An event without the field to look up by counts as neither.
        """
        lookups = misses = 0
        for name, lookup in self._lookups.items():
            asked = pc.is_valid(events.column(lookup.by))
            lookups += pc.sum(asked).as_py() or 0
            misses += pc.sum(pc.and_(asked, pc.is_null(events.column(name)))).as_py() or 0
        return lookups, misses
