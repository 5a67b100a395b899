"""What was looked up for a profile comes from the user's row, although the table has changed since."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from modelstream.events.parsing import LineParser
from modelstream.messages.identity import Checkpoint
from modelstream.replay.recompute import Piece, StoredLookup
from modelstream.tables import Tables, open_tables
from modelstream.use_case.declared import UseCase
from modelstream.use_case.file import parse_use_case
from modelstream.use_case.vocabulary import LookUp

_OLD = parse_use_case("""
{version: 1, name: shops, key: card, time: at, type: kind, statistics: [sum],
 fields: {card: key, at: time, kind: text, amount: number, home: identifier, work: identifier},
 events: {opened: {}, payment: {value: amount}}, predict_on: [payment],
 profile: {event: opened, time: since}, lookup: {table: areas, by: home, value: wealth},
 model: {name: fraud, prediction: is_fraud}}
""")
SHOPS: UseCase = msgspec.structs.replace(
    _OLD,
    forms={
        **_OLD.forms,
        "office": LookUp("areas", by="work", at="profile"),
        "risk": LookUp("risks", by="home", at="profile"),
    },
)
NOW = {"areas": {"1": 10.0, "2": 20.0}, "risks": {"1": 0.5}}


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Tables]:
    with open_tables(f"sqlite://{tmp_path}") as opened:
        yield opened


def events(*rows: dict[str, Any]) -> pa.RecordBatch:
    usual = {"at": "2026-03-28 20:00", "kind": "opened"}
    lines = [json.dumps(usual | row).encode() for row in rows]
    return LineParser(SHOPS).parse(lines, np.arange(len(lines)), 1_800_000_000_000_000).events


def stored(tables: Tables, *rows: dict[str, Any], profiles: dict[str, int]) -> StoredLookup:
    table = tables.features(SHOPS.row_schema)
    zeros = {name: 0.0 for name in SHOPS.row_schema.names if name.startswith("payment_")}
    whole = [{"applied": 1, "since": 0} | zeros | row for row in rows]
    table.commit(0, pa.RecordBatch.from_pylist(whole, SHOPS.row_schema), Checkpoint(1))
    return StoredLookup(SHOPS, table, look_up, Counter(profiles))


def look_up(table: str, keys: Sequence[str]) -> list[float | None]:
    assert len(set(keys)) == len(keys) > 0
    return [NOW[table].get(key) for key in keys]


def test_values_come_from_the_rows_and_of_earlier_profiles_from_the_tables(tables: Tables) -> None:
    rows = [{"card": "a", "wealth": 1.0, "office": None, "risk": 0.25}]
    lookup = stored(tables, *rows, profiles={"a": 2, "gone": 1})
    batch = events(
        {"card": "a", "home": 2},
        {"card": "gone", "home": 2, "work": " 1.0"},
        {"card": "a", "kind": "payment", "amount": 1.0},
        {"card": "a", "home": "1", "work": "3"},
    )
    (first, second) = lookup.pieces(batch)
    assert (first.events.num_rows, second.events.num_rows) == (3, 1)  # home 1: the table has 10.0 now, the row 1.0
    assert first.values == {("areas", "2"): 20.0, ("areas", "1"): 10.0, ("risks", "2"): None}
    assert second.values == {("areas", "1"): 1.0, ("areas", "3"): None, ("risks", "1"): 0.25}
    assert pa.Table.from_batches([first.events, second.events]).combine_chunks().to_batches()[0].equals(batch)
    lookup.use(second)
    assert lookup("areas", ["3", "1"]) == [None, 1.0]


def test_events_are_cut_only_where_a_key_has_another_value(tables: Tables) -> None:
    cards = [f"c{number}" for number in range(6)]
    before = [{"card": card, "wealth": 1.0, "risk": 0.5} for card in cards[:3]]
    after = [{"card": card, "wealth": 2.0, "risk": 0.5} for card in cards[3:]]
    lookup = stored(tables, *before, *after, profiles=dict.fromkeys(cards, 1))
    batch = events(*({"card": card, "home": 1} for card in cards), {"card": "c0", "kind": "payment", "amount": 1.0})
    found = [*lookup.pieces(batch.slice(0, 2)), *lookup.pieces(batch.slice(2))]
    assert [piece.events.num_rows for piece in found] == [2, 1, 4]
    assert [piece.values["areas", "1"] for piece in found] == [1.0, 1.0, 2.0]


def test_events_without_a_profile_are_one_piece(tables: Tables) -> None:
    batch = events({"card": "a", "kind": "payment", "amount": 1.0})
    assert [*stored(tables, profiles={}).pieces(batch)] == [Piece(batch, {})]
