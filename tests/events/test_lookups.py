"""Values are looked up for events once a batch and distinct key, as lookup keys are written, and counted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from modelstream.events.lookups import EventLookups
from modelstream.events.parsing import LineParser
from tests.events.payments import PAYMENTS, line

TABLES = {"terminals": {"7": 0.5, "m1": 0.25}, "shops": {"7.0": 1.0, "x": 2.0}}


class Asked:
    """Lookup tables that note what they are asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []

    def __call__(self, table: str, keys: Sequence[str]) -> list[float | None]:
        self.calls.append((table, list(keys)))
        return [TABLES[table].get(key) for key in keys]


def parsed(*lines: bytes) -> pa.RecordBatch:
    return LineParser(PAYMENTS).parse(list(lines), np.arange(len(lines)), 0).events


def test_each_table_is_asked_once_for_distinct_keys_as_they_are_written_there() -> None:
    events = parsed(
        line(terminal=7, shop=" x "),
        line(terminal="7.0", shop="7.0"),
        line(terminal=" 8", merchant=7, shop="x"),
        line(terminal=None, shop="  "),
    )
    asked = Asked()
    lookups = EventLookups(PAYMENTS, asked)
    found = lookups.fill(events)
    assert asked.calls == [("terminals", ["7", "8", "m1"]), ("shops", ["x", "7.0"])]
    assert found.schema == PAYMENTS.event_schema
    assert found.column("risk").to_pylist() == [0.5, 0.5, None, None]
    assert found.column("merchant_risk").to_pylist() == [0.25, 0.25, 0.5, 0.25]
    assert found.column("shop_risk").to_pylist() == [2.0, 1.0, 2.0, None]  # null, not the default
    assert lookups.counted(found) == (3 + 4 + 4, 1 + 0 + 1)
    assert lookups.counted(pa.Table.from_batches([found])) == (11, 2)
    kept = [name for name in events.schema.names if name not in PAYMENTS.event_lookups]
    assert found.select(kept).equals(events.select(kept))


def test_nothing_is_asked_for_events_without_a_key() -> None:
    asked = Asked()
    lookups = EventLookups(PAYMENTS, asked)
    for events in (parsed(line(merchant=None)), parsed(line(merchant=None)).slice(0, 0)):
        found = lookups.fill(events)
        assert found.column("risk").null_count == events.num_rows
        assert lookups.counted(found) == (0, 0)
    assert asked.calls == []
