"""Peers must give the golden vectors before they are measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl

from bench.measure import CommandError
from bench.page import ROOT

GOLDEN = ROOT / "tests" / "golden"


def check(scratch: Path, name: str, run: Callable[..., object], tolerance: float = 0.0) -> None:
    """Run a peer on the golden events with options of files and `--output FILE`; raise CommandError if it is off."""
    output = scratch / "check.parquet"
    files = ["--input", str(GOLDEN / "reference_events.ndjson"), "--enrichment", str(GOLDEN / "enrichment.csv")]
    run(*files, "--output", str(output))
    compare(name, pl.read_parquet(output), tolerance)


def compare(name: str, found: pl.DataFrame, tolerance: float) -> None:
    """Raise CommandError unless a table has the golden vectors, those of each user in their order."""
    expected = pl.read_parquet(GOLDEN / "expected_vectors.parquet").drop("event_time", "event_type")
    # Peers go through the events user by user or shard by shard, so only each user's order is the same.
    wanted = expected.sort("user_id", maintain_order=True)
    got = found.select(pl.col("user_id").cast(pl.String), pl.exclude("user_id"))
    got = got.sort("user_id", maintain_order=True).select(wanted.columns)
    if not got["user_id"].equals(wanted["user_id"]):
        raise CommandError(f"{name} does not give the golden vectors (of other users): not a fair peer")
    difference = (got.drop("user_id") - wanted.drop("user_id")).select(pl.all().abs().max())
    scale = wanted.drop("user_id").select(pl.max_horizontal(pl.all().abs().max(), 1.0))
    worst = max(difference.row(0)) / scale.item()
    if not worst <= tolerance:
        raise CommandError(f"{name} does not give the golden vectors (off by {worst:.2g}): not a fair peer")
