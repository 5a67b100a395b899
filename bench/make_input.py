"""Write the file that everything is measured on: the generator's default events, and its enrichment table.

python -m bench.make_input FOLDER [--users 2000] [--events-per-user 1000]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from modelstream import notebooks
from modelstream.source.generator import GeneratorOptions, GeneratorSource, enrichment_table
from modelstream.use_case.file import load_use_case

ROOT = Path(__file__).resolve().parents[1]
SEED = 1
END = 1_790_000_000_000_000
"""Microseconds; a fixed time, so that the file is the same on every machine."""


def main() -> None:
    """Write events.ndjson and enrichment.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--events-per-user", type=int, default=1000)
    arguments = parser.parse_args()
    use_case = load_use_case(ROOT / "use_cases" / "churn.yaml")
    distributions = notebooks.load(ROOT / "functions" / "data-generator.ipynb").DISTRIBUTIONS
    options = GeneratorOptions(arguments.users, arguments.events_per_user, SEED, END)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    ((name, lookup),) = use_case.profile_lookups.items()
    table = pa.Table.from_batches([enrichment_table(distributions.enrichment, SEED)])
    table = table.rename_columns([lookup.by, name])
    csv.write_csv(table, arguments.folder / "enrichment.csv", csv.WriteOptions(quoting_style="needed"))
    with (arguments.folder / "events.ndjson").open("wb") as file:
        for text in GeneratorSource(use_case, distributions, options).texts():
            file.write(text)


if __name__ == "__main__":
    main()
