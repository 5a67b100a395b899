"""Streams, tables and logs on SQLite with random input, the functions' modules, and what must come out."""

from __future__ import annotations

import random
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from modelstream import notebooks
from modelstream.logs.parquet import ParquetLog
from modelstream.messages.identity import bucket_of
from modelstream.model.onnx import as_input, load_model
from modelstream.project import load_project
from modelstream.settings import StoreUrls
from modelstream.streams import Streams, open_streams
from modelstream.streams.letters import read_letters
from modelstream.tables import Tables, open_tables
from modelstream.use_case.file import load_use_case
from tests.faults import inputs
from tests.faults.expected import Truth
from tests.nuclio import probe

ROOT = Path(__file__).parents[2]
CHURN = load_use_case(ROOT / "use_cases" / "churn.yaml")
CHAIN = ("event-handler", "stream-to-features", "model-server", "inference-logger")
SHARDS = 4
KEYS = tuple(f"user-{i}" for i in range(12))


class Scene:
    """A pipeline's stores in a folder, with messages in its first stream."""

    def __init__(self, folder: Path, rng: random.Random, messages: int) -> None:
        self.folder = folder
        self.project = load_project(ROOT / "project.yaml")
        self.truth = Truth(CHURN)
        for name in self.project.params.streams:
            self.streams.create(name, SHARDS)
        keys, values = pa.array(inputs.VALUES, pa.string()), pa.array(inputs.VALUES.values(), pa.float64())
        self.tables.lookup("enrichment").load([pa.record_batch({"key": keys, "value": values})])
        for _ in range(messages):
            shard = rng.randrange(SHARDS)
            mine = [key for key in KEYS if bucket_of(key) % SHARDS == shard]
            self.streams.append("generated", [(shard, inputs.body(rng, mine, CHURN))])
        for shard in range(SHARDS):
            for message in self.streams.read("generated", shard, 0, 1 << 20, 1 << 40):
                self.truth.append(0, shard, message.offset, SHARDS, message.body)

    @cached_property
    def streams(self) -> Streams:
        """The streams, as the test itself has them."""
        return open_streams(f"sqlite://{self.folder}/streams")

    @cached_property
    def tables(self) -> Tables:
        """The tables, as the test itself has them."""
        return open_tables(f"sqlite://{self.folder}/tables")

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of a function, which commits often enough to be caught in the middle."""
        project = self.project
        wiring = project.params.wiring[name]
        registry = str(self.folder / "models")
        settings = project.settings(
            name, StoreUrls().within(self.folder), folder=ROOT, registry=registry, shards=SHARDS
        )
        values = msgspec.structs.replace(settings, commit_ms=30.0, linger_ms=1.0).environment() | {
            probe.WRONG: str(self.folder / "wrong"),
            probe.KEEPS: wiring.log or wiring.table,
        }
        if wiring.class_name:
            params = msgspec.structs.replace(
                project.params, use_case=str(ROOT / project.params.use_case), model=str(ROOT / project.params.model)
            )
            values["SERVING_SPEC_ENV"] = msgspec.structs.replace(project, params=params).serving_spec(name)
        return values

    def module(self, name: str) -> tuple[Path, str]:
        """Write a function's code as MLRun embeds it, with the probe after it; return its folder and its name."""
        code = notebooks.code(self.project.notebook(name)) + self.footer(name)
        folder = self.folder / "code" / name
        folder.mkdir(parents=True)
        module = f"{self.project.notebook(name).stem}-nuclio"
        (folder / f"{module}.py").write_text(code)
        return folder, module

    def footer(self, name: str) -> str:
        """Return what follows a function's code."""
        if not self.project.params.wiring[name].class_name:
            return probe.FOOTER
        from modelstream.stages.model_server import entry_points

        return entry_points() + probe.FOOTER

    def wrong(self) -> list[str]:
        """Return what the probes have noted."""
        path = self.folder / "wrong"
        return path.read_text().splitlines() if path.exists() else []

    def check(self, *, predictions: bool = True) -> None:
        """Compare everything with the events applied one at a time: each once, to the last bit."""
        schemas = {"events": CHURN.events_log_schema, "inference": CHURN.inference_log_schema}
        logs = {name: ParquetLog(self.folder / name, schema, 0) for name, schema in schemas.items()}
        self.truth.check_events(logs["events"], self.folder / "events")
        self.truth.check_rows(self.tables.features(CHURN.row_schema))
        self.truth.check_letters(list(read_letters(self.streams, "dead-letters")))
        vectors = sum(len(rows) for rows in self.truth.vectors.values())
        assert vectors > 100, "the input is worth the test"
        if predictions:
            self._check_predictions(logs["inference"])

    def _check_predictions(self, log: ParquetLog) -> None:
        model = load_model(ROOT / self.project.params.model, CHURN.features)

        def probability_of(vector: list[float]) -> float:
            return float(model.predict(as_input([np.array([value]) for value in vector]))[0])

        self.truth.check_predictions(log, self.folder / "inference", probability_of)
