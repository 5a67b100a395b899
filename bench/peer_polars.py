"""The same job once, without a pipeline: Polars on all cores reads the file and writes the two data sets.

    python -m bench.peer_polars --input events.ndjson --enrichment postcodes.csv --model FOLDER --output FOLDER

It computes the 13 features of the churn use case (docs/use-case.md) as someone would write them by hand in Polars:
names and types are in the code, and it only reads the generator's format of times. Variances come from cumulative sums
of squares (Polars has no running variance), so they equal the pipeline's to about 1e-9 and not to the bit. Nothing here
survives a crash, and a bad line ends it.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import polars as pl

SCHEMA = {
    "user_id": pl.String,
    "event_time": pl.String,
    "event_type": pl.String,
    "amount": pl.Float64,
    "bet_amount": pl.Float64,
    "win_amount": pl.Float64,
    "name": pl.String,
    "date_of_birth": pl.String,
    "street_address": pl.String,
    "city": pl.String,
    "country": pl.String,
    "postcode": pl.String,
    "affiliate_url": pl.String,
    "campaign": pl.String,
    "label": pl.Int64,
}
ALIASES = {
    "new_registration": "registration",
    "new_purchase": "purchase",
    "new_purchases": "purchase",
    "new_bet": "bet",
    "new_win": "win",
}
TYPES = pl.Enum(["registration", "purchase", "bet", "win"])
VALUES = {"purchase": "amount", "bet": "bet_amount", "win": "win_amount"}
FEATURES = [
    "socioeconomic_idx",
    *(f"{event}_{statistic}" for event in VALUES for statistic in ("sum", "mean", "count", "var")),
]
WINDOW = pl.duration(hours=24)
BATCH = 65_536


def read_events(path: Path) -> pl.DataFrame:
    """Return the events of an NDJSON file in their order, all fields typed, with their line number as `position`."""
    return (
        pl.scan_ndjson(path, schema=SCHEMA)
        .with_columns(
            pl.col("user_id").cast(pl.Categorical),
            pl.col("event_time").str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", time_zone="UTC"),
            pl.col("event_type").replace(ALIASES).cast(TYPES, strict=False),
        )
        .with_row_index("position")
        .collect(engine="in-memory")  # a quarter less CPU than the streaming engine over this file
    )


def read_enrichment(path: Path) -> pl.DataFrame:
    """Return the lookup table of a CSV file: its first column is the postcode, its second the index."""
    table = pl.read_csv(path, schema_overrides=[pl.String, pl.Float64])
    table.columns = ["postcode", "socioeconomic_idx"]
    return table


def vectors(events: pl.LazyFrame, enrichment: pl.LazyFrame) -> pl.LazyFrame:
    """Return the features after every counted bet or win, in the order of the events.

    Columns: position, user_id, event_time, event_type, then FEATURES.
    """
    kind, position = pl.col("event_type"), pl.col("position")
    identity = ["position", "user_id", "event_time", "event_type"]
    registrations = (
        events.filter(kind == "registration")
        .select("position", "user_id", "postcode")
        .join(enrichment, on="postcode", how="left", maintain_order="left")
        .select("position", "user_id", pl.col("socioeconomic_idx").fill_null(0.0))
    )
    registered = registrations.group_by("user_id").agg(position.min().alias("registered"))
    # A user's first purchase after the registration opens the window.
    windows = (
        events.filter(kind == "purchase")
        .select(identity)
        .join(registered, on="user_id", maintain_order="left")
        .filter(position > pl.col("registered"))
        .group_by("user_id", maintain_order=True)
        .agg(position.first().alias("opened"), pl.col("event_time").first().alias("first_time"))
    )
    counted = (
        events.filter(kind != "registration")
        .select(*identity, *VALUES.values())
        .join(windows, on="user_id", maintain_order="left")
        .filter((position >= pl.col("opened")) & (pl.col("event_time") - pl.col("first_time") <= WINDOW))
    )
    served = counted.with_columns(_running()).filter(kind != "purchase")
    # A second registration may bring another index: the last one before the event holds.
    return served.join_asof(registrations, on="position", by="user_id", check_sortedness=False).select(
        *identity, *_features()
    )


def _running() -> list[pl.Expr]:
    """Return each user's running sum, count and sum of squares of every kind of event."""
    columns = []
    for event, value in VALUES.items():
        is_event = pl.col("event_type") == event
        x = pl.when(is_event).then(pl.col(value)).otherwise(0.0)
        for name, addend in (("sum", x), ("count", is_event.cast(pl.UInt32)), ("squares", x * x)):
            columns.append(addend.cum_sum().over("user_id").alias(f"{event}_{name}"))
    return columns


def _features() -> list[pl.Expr]:
    columns = [pl.col("socioeconomic_idx")]
    for event in VALUES:
        total, count = pl.col(f"{event}_sum"), pl.col(f"{event}_count").cast(pl.Float64)
        mean = pl.when(count > 0).then(total / count).otherwise(0.0)
        m2 = pl.col(f"{event}_squares") - total * mean
        variance = pl.when(count > 1).then(m2 / (count - 1)).otherwise(0.0)
        for name, expression in (("sum", total), ("mean", mean), ("count", count), ("var", variance)):
            columns.append(expression.alias(f"{event}_{name}"))
    return columns


def score(table: pl.DataFrame, model: Path) -> npt.NDArray[np.float64]:
    """Return the probability of the positive class for each vector, float64, from the ONNX model on all cores."""
    session = onnxruntime.InferenceSession(model / "model.onnx", providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    inputs = table.select(pl.col(FEATURES).cast(pl.Float32)).to_numpy(order="c")
    parts = [
        session.run(["probabilities"], {name: inputs[start : start + BATCH]})[0][:, -1]
        for start in range(0, len(inputs), BATCH)
    ]
    return np.concatenate(parts).astype(np.float64) if parts else np.empty(0)


def write(table: pl.LazyFrame, folder: Path) -> pl.LazyFrame:
    """Return the writing of a data set in one file, as the pipeline compresses its logs."""
    folder.mkdir(parents=True, exist_ok=True)
    return table.sink_parquet(
        folder / "part-0.parquet", compression="zstd", compression_level=1, lazy=True, engine="streaming"
    )


def main() -> None:
    """Run the job and print one JSON object: counts, and the seconds of each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--enrichment", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="folder with model.onnx")
    parser.add_argument("--output", type=Path, required=True, help="folder for events/ and inference/")
    arguments = parser.parse_args()

    clock = Clock()
    events = read_events(arguments.input)
    enrichment = read_enrichment(arguments.enrichment)
    clock.lap("read")
    table = vectors(events.lazy(), enrichment.lazy()).collect(engine="in-memory")
    clock.lap("vectors")
    probability = score(table, arguments.model)
    clock.lap("score")
    predictions = table.with_columns(
        about_to_churn=pl.Series(probability >= 0.5, dtype=pl.Int8),
        about_to_churn_probability=pl.Series(probability),
        predicted_at=pl.lit(datetime.now(UTC)),
    )
    folder = arguments.output
    pl.collect_all([write(events.lazy(), folder / "events"), write(predictions.lazy(), folder / "inference")])
    clock.lap("write")
    result = {"events": events.height, "vectors": table.height, "predictions": len(probability)}
    print(json.dumps(result | {"parts": clock.laps, "seconds": sum(clock.laps.values())}))


class Clock:
    """Seconds of wall time of each part."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._begun = time.perf_counter()

    def lap(self, part: str) -> None:
        """Note the time since the last part ended."""
        now = time.perf_counter()
        self.laps[part] = now - self._begun
        self._begun = now


if __name__ == "__main__":
    main()
