"""The same vectors in Bytewax: one `stateful_map` over the events of the file, in memory.

    python -m bench.peer_bytewax --input events.ndjson --enrichment postcodes.csv [--parsed]

Lines are decoded a thousand at a time into structs, the fastest that Python has; with --parsed that is done before the
clock starts, so that only the dataflow is measured. State and arithmetic are the pipeline's (docs/use-case.md), so the
vectors are equal to the bit. Nothing is stored: no recovery, and the sink counts vectors and drops them. One worker:
Bytewax's workers are threads that share Python's lock.
"""

from __future__ import annotations

import argparse
import csv
import gc
import itertools
import json
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import bytewax.operators as op
import msgspec
import polars as pl
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

from bench.peer_polars import FEATURES, VALUES

KINDS = {
    name: kind
    for kind, names in enumerate(
        (
            ("registration", "new_registration"),
            ("purchase", "new_purchase", "new_purchases"),
            ("bet", "new_bet"),
            ("win", "new_win"),
        )
    )
    for name in names
}
REGISTRATION, PURCHASE = 0, 1
DAY = timedelta(hours=24)
BATCH = 1_000

Value = tuple[int, datetime, float]
"""Kind, time, and the amount, or for a registration the index that was looked up."""
Keyed = tuple[str, Value]
Vector = tuple[float, ...]
Item = tuple[str, Vector | None]
"""A user, and the vector after an event if it asks for one."""


class Event(msgspec.Struct, gc=False):
    """What is read of a line."""

    user_id: str
    event_type: str
    event_time: datetime
    amount: float = 0.0
    bet_amount: float = 0.0
    win_amount: float = 0.0
    postcode: str | int = ""


class User:
    """A user's state: the index looked up, the time of the first purchase, and [sum, mean, count, M2] a kind."""

    __slots__ = ("first", "index", "statistics")

    def __init__(self) -> None:
        self.index: float | None = None
        self.first: datetime | None = None
        self.statistics = [[0.0] * 4 for _ in VALUES]

    def vector(self) -> Vector:
        """Return the features as they stand."""
        purchase, bet, win = self.statistics
        return (
            self.index or 0.0,
            *(purchase[0], purchase[1], purchase[2], purchase[3] / (max(2.0, purchase[2]) - 1)),
            *(bet[0], bet[1], bet[2], bet[3] / (max(2.0, bet[2]) - 1)),
            *(win[0], win[1], win[2], win[3] / (max(2.0, win[2]) - 1)),
        )


def apply(user: User | None, value: Value) -> tuple[User, Vector | None]:
    """Return the state after an event, and the features if it counts and asks for a prediction."""
    if user is None:
        user = User()
    kind, when, x = value
    if kind == REGISTRATION:
        user.index = x
        return user, None
    if user.index is None:
        return user, None
    if user.first is None:
        if kind != PURCHASE:
            return user, None
        user.first = when
    if when - user.first > DAY:
        return user, None
    statistics = user.statistics[kind - 1]
    statistics[0] += x
    statistics[2] += 1
    difference = x - statistics[1]
    statistics[1] += difference / statistics[2]
    statistics[3] += difference * (x - statistics[1])
    return user, user.vector() if kind != PURCHASE else None


class _Batches(StatelessSourcePartition[Keyed]):  # type: ignore[misc]  # it has no types where mypy runs
    def __init__(self, batches: Iterator[list[Keyed]]) -> None:
        self._batches = batches

    def next_batch(self) -> list[Keyed]:
        return next(self._batches)


class Batches(DynamicSource[Keyed]):  # type: ignore[misc]
    """A source of the batches of an iterator."""

    def __init__(self, batches: Iterator[list[Keyed]]) -> None:
        self._batches = batches

    def build(self, *_worker: object) -> _Batches:
        """Return the only partition."""
        return _Batches(self._batches)


class Vectors(DynamicSink[Item], StatelessSinkPartition[Item]):  # type: ignore[misc]
    """Counts vectors, and keeps them if asked to."""

    def __init__(self, *, keep: bool) -> None:
        self.count = 0
        self.kept: list[Item] | None = [] if keep else None

    def build(self, *_worker: object) -> Vectors:
        """Return the only partition: itself."""
        return self

    def write_batch(self, items: list[Item]) -> None:
        """Take a batch."""
        vectors = [item for item in items if item[1] is not None]
        self.count += len(vectors)
        if self.kept is not None:
            self.kept.extend(vectors)


def read_enrichment(path: Path) -> dict[str, float]:
    """Return the lookup table: its first column is the postcode, its second the index."""
    with path.open(newline="") as file:
        rows = csv.reader(file)
        next(rows)
        return {postcode: float(index) for postcode, index in rows}


def read_events(path: Path, index: dict[str, float]) -> Iterator[list[Keyed]]:
    """Yield the events of a file as (user, value), in batches, with the index of registrations looked up."""
    decoder = msgspec.json.Decoder(Event)
    with path.open("rb") as file:
        while lines := list(itertools.islice(file, BATCH)):
            batch = []
            for event in decoder.decode_lines(b"".join(lines)):
                kind = KINDS.get(event.event_type)
                if kind is not None:
                    values = (event.amount, event.bet_amount, event.win_amount)
                    x = values[kind - 1] if kind else index.get(str(event.postcode), 0.0)
                    batch.append((event.user_id, (kind, event.event_time, x)))
            yield batch


def run(batches: Iterator[list[Keyed]], *, keep: bool = False) -> Vectors:
    """Run the dataflow to its end, and return the sink."""
    sink = Vectors(keep=keep)
    flow = Dataflow("features")
    keyed = op.input("events", flow, Batches(batches))
    op.output("vectors", op.stateful_map("apply", keyed, apply), sink)
    run_main(flow)
    return sink


def main() -> None:
    """Run the dataflow and print one JSON object: vectors, seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--enrichment", type=Path, required=True)
    parser.add_argument("--parsed", action="store_true", help="parse all events before the clock starts")
    parser.add_argument("--output", type=Path, help="keep the vectors and write them to this Parquet file")
    arguments = parser.parse_args()
    batches = read_events(arguments.input, read_enrichment(arguments.enrichment))
    if arguments.parsed:
        batches = iter(list(batches))
    gc.freeze()  # or Python's garbage collector goes through all events again and again
    begun = time.perf_counter()
    sink = run(batches, keep=arguments.output is not None)
    seconds = time.perf_counter() - begun
    if sink.kept is not None:
        columns = ["user_id", *FEATURES]
        rows = [(user, *vector) for user, vector in sink.kept if vector is not None]
        pl.DataFrame(rows, schema=columns, orient="row").write_parquet(arguments.output)
    print(json.dumps({"vectors": sink.count, "seconds": seconds}))


if __name__ == "__main__":
    main()
