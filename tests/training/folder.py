"""A data folder of generated events that have gone through all functions, without running them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelstream import notebooks
from modelstream.commands.view import View
from modelstream.runner.training import training_environment
from modelstream.settings import Settings, from_environment
from modelstream.source.generator import GeneratorOptions, GeneratorSource, enrichment_table
from modelstream.training.snapshot.data import Data, open_data
from modelstream.use_case.file import load_use_case
from tests.runner.folders import PROJECT, ROOT, make_folder

USE_CASE = load_use_case(ROOT / "use_cases" / "churn.yaml")
END = 1_767_225_600_000_000
"""2026-01-01."""


def generated(path: Path, users: int = 150, events: int = 60) -> View:
    """Return a data folder of so many generated users."""
    distributions = notebooks.load(PROJECT.notebook("data-generator")).DISTRIBUTIONS
    source = GeneratorSource(USE_CASE, distributions, GeneratorOptions(users, events, 1, END))
    lines = b"".join(source.texts()).splitlines()
    table = enrichment_table(distributions.enrichment, 1).to_pydict()
    return make_folder(path, lines, dict(zip(*table.values(), strict=True)))


def settings(view: View) -> Settings:
    """Return a training job's settings for a folder."""
    return from_environment(training_environment(PROJECT, view.path))


@contextmanager
def opened(view: View) -> Iterator[Data]:
    """Open a folder as a training job does."""
    with open_data(settings(view)) as data:
        yield data
