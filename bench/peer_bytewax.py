"""The feature stage alone, in Bytewax: one `stateful_map` over events that are in memory already.

    python bench/peer_bytewax.py --input events.ndjson --enrichment postcodes.csv

Bytewax gets every advantage: parsing is not counted, nothing is stored (no recovery), and vectors are dropped by the
sink. State and arithmetic are the pipeline's (DESIGN section 5), so the vectors are equal to the bit. One worker: its
workers are threads that share Python's lock.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from pathlib import Path

import bytewax.operators as op
import polars as pl
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main
from peer_polars import FEATURES, VALUES, read_enrichment, read_events

Value = tuple[int, int, float]
"""Kind, time in µs, and the amount, or for a registration the index that was looked up."""
Vector = tuple[float, ...]

REGISTRATION, PURCHASE = 0, 1
DAY = 24 * 3600 * 1_000_000
BATCH = 1_000


class User:
    """A user's state: the index looked up, the time of the first purchase, and [sum, mean, count, M2] a kind."""

    __slots__ = ("first", "index", "statistics")

    def __init__(self) -> None:
        self.index: float | None = None
        self.first: int | None = None
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


class _Batches(StatelessSourcePartition[tuple[str, Value]]):
    def __init__(self, events: list[tuple[str, Value]]) -> None:
        self._events = events
        self._next = 0

    def next_batch(self) -> list[tuple[str, Value]]:
        batch = self._events[self._next : self._next + BATCH]
        if not batch:
            raise StopIteration
        self._next += BATCH
        return batch


class Memory(DynamicSource[tuple[str, Value]]):
    """Events in memory, in batches."""

    def __init__(self, events: list[tuple[str, Value]]) -> None:
        self._events = events

    def build(self, *_worker: object) -> _Batches:
        """Return the only partition."""
        return _Batches(self._events)


class Vectors(DynamicSink[tuple[str, Vector | None]], StatelessSinkPartition[tuple[str, Vector | None]]):
    """Counts vectors, and keeps them if asked to."""

    def __init__(self, *, keep: bool) -> None:
        self.count = 0
        self.kept: list[tuple[str, Vector | None]] | None = [] if keep else None

    def build(self, *_worker: object) -> Vectors:
        """Return the only partition: itself."""
        return self

    def write_batch(self, items: list[tuple[str, Vector | None]]) -> None:
        """Take a batch."""
        vectors = [item for item in items if item[1] is not None]
        self.count += len(vectors)
        if self.kept is not None:
            self.kept.extend(vectors)


def load(input: Path, enrichment: Path) -> list[tuple[str, Value]]:
    """Return the events of a file as (user, value), with the index of registrations looked up."""
    events = read_events(input)
    index = dict(read_enrichment(enrichment).iter_rows())
    kinds = events["event_type"].to_physical().to_list()
    amounts = zip(*(events[name].to_list() for name in VALUES.values()), strict=True)
    return [
        (user, (kind, when, index.get(postcode) or 0.0 if kind == REGISTRATION else amount[kind - 1]))
        for user, kind, when, postcode, amount in zip(
            events["user_id"].cast(str).to_list(),
            kinds,
            events["event_time"].to_physical().to_list(),
            events["postcode"].to_list(),
            amounts,
            strict=True,
        )
        if kind is not None
    ]


def run(events: list[tuple[str, Value]], *, keep: bool = False) -> Vectors:
    """Run the dataflow to its end, and return the sink."""
    sink = Vectors(keep=keep)
    flow = Dataflow("features")
    keyed = op.input("events", flow, Memory(events))
    op.output("vectors", op.stateful_map("apply", keyed, apply), sink)
    run_main(flow)
    return sink


def main() -> None:
    """Run the dataflow and print one JSON object: events, vectors, seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--enrichment", type=Path, required=True)
    parser.add_argument("--output", type=Path, help="keep the vectors and write them to this Parquet file")
    arguments = parser.parse_args()
    events = load(arguments.input, arguments.enrichment)
    gc.freeze()  # or Python's garbage collector goes through all events again and again
    begun = time.perf_counter()
    sink = run(events, keep=arguments.output is not None)
    seconds = time.perf_counter() - begun
    if sink.kept is not None:
        columns = ["user_id", *FEATURES]
        rows = [(user, *vector) for user, vector in sink.kept]
        pl.DataFrame(rows, schema=columns, orient="row").write_parquet(arguments.output)
    print(json.dumps({"events": len(events), "vectors": sink.count, "seconds": seconds}))


if __name__ == "__main__":
    main()
