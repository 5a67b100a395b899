"""The kernel alone, on one core: 40 features over three sliding windows, for many users.

    python -m bench.feature_kernel [--users 200000] [--batch 8000] [--events 10] [--measured 800000]

Payments and refunds of cards, about four a day of each card, in random order of the cards. First every card gets a
history (`--events` of them each), then the time for further events is taken: of the kernel alone, and of all that the
engine does with a batch, in CPU seconds. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from modelstream.features import kernel
from modelstream.features.engine import FeatureEngine, no_lookup, no_rows, prepare
from modelstream.features.layout import row_bytes
from modelstream.use_case.columns import TIME
from modelstream.use_case.declared import Clock, Event, FieldType, ModelDeclaration, UseCase
from modelstream.use_case.vocabulary import Condition, Group, Sliding, Statistic

WINDOWS = (Sliding("1h", 12), Sliding("24h", 24), Sliding("7d", 28))
BEGIN = 1_700_000_000_000_000
PAUSE = 6 * 3_600_000_000
"""Microseconds between two events of a card, on average."""


def use_case() -> UseCase:
    """Return the use case that is measured.

    >>> len(use_case().features)
    40
    """
    give = {name: tuple(map(Statistic, text.split())) for name, text in GIVEN.items()}
    return UseCase(
        version=2,
        name="cards",
        key="card",
        written_time=Clock("at"),
        type="kind",
        written={
            "card": FieldType.KEY,
            "at": FieldType.TIME,
            "kind": FieldType.TEXT,
            "amount": FieldType.NUMBER,
            "shop": FieldType.IDENTIFIER,
            "online": FieldType.BOOLEAN,
        },
        events={"payment": Event(needs=("amount", "shop")), "refund": Event(needs=("amount",))},
        predict_on=("payment",),
        model=ModelDeclaration("m", "p"),
        forms={
            "spend": Group(("payment",), "amount", windows=WINDOWS, give=give["spend"], without="this"),
            "online": Group(("payment",), "amount", {"online": Condition(True)}, WINDOWS, give["online"]),
            "refunds": Group(("refund",), "amount", windows=WINDOWS, give=give["refunds"]),
            "shops": Group(("payment",), "shop", windows=WINDOWS, give=give["shops"]),
        },
    )


GIVEN = {
    "spend": "sum mean count std min max",
    "online": "sum mean count",
    "refunds": "sum count rate since",
    "shops": "distinct",
}


def batches(users: int, events: int, size: int, seed: int, begin: int) -> Iterator[pa.RecordBatch]:
    """Yield events in batches: cards at random, times that go forward so that a card has one every PAUSE."""
    rng = np.random.default_rng(seed)
    case = use_case()
    cards = pa.array([f"card-{i}" for i in range(users)])
    shops = pa.array([f"shop-{i}" for i in range(5_000)])
    for first in range(0, events, size):
        n = min(size, events - first)
        at = begin + (np.arange(first, first + n) * (PAUSE / users)).astype(np.int64)
        late = rng.random(n) < 0.05
        at -= np.where(late, rng.integers(0, PAUSE, n), 0)
        columns = {
            "card": cards.take(pa.array(rng.integers(0, users, n))),
            "at": pa.array(at).cast(TIME),
            "kind": pa.array(np.where(rng.random(n) < 0.9, "payment", "refund")),
            "amount": pa.array(rng.lognormal(3.0, 1.0, n)),
            "shop": shops.take(pa.array(rng.integers(0, len(shops), n))),
            "online": pa.array(rng.random(n) < 0.4),
        }
        yield pa.RecordBatch.from_pydict(columns, schema=pa.schema([case.event_schema.field(name) for name in columns]))


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=8_000)
    parser.add_argument("--events", type=int, default=10, help="of each card before the measurement")
    parser.add_argument("--measured", type=int, default=800_000, help="events")
    arguments = parser.parse_args()
    pa.set_cpu_count(1)
    case, seconds, position = use_case(), {"kernel": 0.0, "prepare": 0.0, "apply": 0.0}, 0
    compute, clock = kernel.apply, time.process_time

    def timed(*of: object) -> None:
        begun = clock()
        compute(*of)  # type: ignore[arg-type]
        seconds["kernel"] += clock() - begun

    kernel.apply = timed  # type: ignore[assignment]
    cards, vectors = FeatureEngine(case), 0
    history = arguments.users * arguments.events
    begin = BEGIN + arguments.events * PAUSE
    for events, measured in (
        *((batch, False) for batch in batches(arguments.users, history, arguments.batch, 1, BEGIN)),
        *((batch, True) for batch in batches(arguments.users, arguments.measured, arguments.batch, 2, begin)),
    ):
        if not measured:
            seconds = dict.fromkeys(seconds, 0.0)
        start = clock()
        prepared = prepare(case, events)
        prepared_at = clock()
        cards.load(cards.missing(prepared.users), no_rows(case))
        applying = clock()
        positions = np.arange(position, position + events.num_rows)
        vectors += len(cards.apply_prepared(prepared, positions, no_lookup).indices) if measured else 0
        seconds["prepare"] += prepared_at - start
        seconds["apply"] += clock() - applying
        position += events.num_rows
    each = {f"{name}_ns_an_event": round(value / arguments.measured * 1e9) for name, value in seconds.items()}
    shape = {"features": len(case.features), "row_bytes": sum(row_bytes(case).values())}
    print(json.dumps(each | shape | {"users": len(cards), "events": arguments.measured, "vectors": vectors}))


if __name__ == "__main__":
    main()
