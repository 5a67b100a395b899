from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from modelstream.errors import ConfigurationError, HookError
from modelstream.features.engine import Applied, FeatureEngine, no_lookup, no_rows
from modelstream.features.vectors import Derive, Vectors
from modelstream.replay.recompute import derive_in
from modelstream.use_case.declared import UseCase
from modelstream.use_case.file import parse_use_case

HEATING = """
{version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count],
 fields: {house: key, at: time, kind: text, celsius: number, wind: number},
 events: {reading: {value: celsius, aliases: [measure]}}, predict_on: [reading],
 model: {name: frost, prediction: will_freeze}}
"""


def use_case(derived: str = "[]") -> UseCase:
    return parse_use_case(HEATING.replace("statistics:", f"derived: {derived}, statistics:"))


def applied_events(case: UseCase) -> tuple[pa.RecordBatch, Applied]:
    schema = pa.schema([field for field in case.event_schema if field.name not in ("extra", "wind")])
    rows = [
        {"position": i, "ingested_at": i, "house": "h1", "at": i, "kind": kind, "celsius": celsius}
        for i, (kind, celsius) in enumerate([("reading", 20.0), ("login", None), ("measure", 21.0)])
    ]
    events = pa.RecordBatch.from_pylist(rows, schema)
    engine = FeatureEngine(case)
    engine.load(engine.missing(["h1"]), no_rows(case))
    return events, engine.apply(events, np.arange(3), no_lookup)


def test_vectors_stand_beside_their_events_with_aliases_resolved() -> None:
    case = use_case()
    vectors = Vectors(case).batch(*applied_events(case))
    assert vectors.schema.equals(case.vector_schema)
    assert vectors.column("position").to_pylist() == [0, 2]
    assert vectors.column("kind").to_pylist() == ["reading", "reading"]
    assert vectors.column("reading_mean").to_pylist() == [20.0, 20.5]


def test_column_that_a_message_left_out_is_null() -> None:
    case = use_case()
    events, applied = applied_events(case)
    vectors = Vectors(case).batch(events.drop_columns(["ingested_at"]), applied)
    assert vectors.column("ingested_at").to_pylist() == [None, None]


def test_hook_adds_the_features_that_the_use_case_lists() -> None:
    case = use_case("[difference]")
    assert case.features == ("reading_mean", "reading_count", "difference")

    def derive(batch: pa.RecordBatch, vectors: pa.RecordBatch) -> pa.RecordBatch:
        difference = pc.subtract(batch.column("celsius"), vectors.column("reading_mean"))
        return vectors.append_column("difference", difference)

    vectors = Vectors(case, derive).batch(*applied_events(case))
    assert vectors.column("difference").to_pylist() == [0.0, 0.5]
    assert vectors.schema.equals(case.vector_schema)


def test_hook_sees_every_field_also_one_that_the_message_left_out() -> None:
    case = use_case()
    seen: list[pa.RecordBatch] = []

    def derive(batch: pa.RecordBatch, vectors: pa.RecordBatch) -> pa.RecordBatch:
        seen.append(batch)
        return vectors

    Vectors(case, derive).batch(*applied_events(case))
    assert seen[0].column("wind").to_pylist() == [None, None]
    assert seen[0].column("celsius").to_pylist() == [20.0, 21.0]


def test_features_that_nothing_computes_are_refused() -> None:
    with pytest.raises(
        ConfigurationError, match="heating lists derived features, but no hook computes them: difference, wet"
    ) as raised:
        Vectors(use_case("[difference, wet]"))
    assert "derive(batch, vectors)" in raised.value.remedy


def test_notebook_has_the_hook_or_has_not(tmp_path: Path) -> None:
    def hook_of(code: str) -> Derive | None:
        cell = {"cell_type": "code", "source": f"# mlrun: start-code\n{code}\n# mlrun: end-code"}
        path = tmp_path / "stream-to-features.ipynb"
        path.write_text(json.dumps({"cells": [cell]}))
        return derive_in(path)

    assert derive_in(None) is None
    assert hook_of("x = 1") is None
    assert hook_of("derive = None") is None
    hook = hook_of("def derive(batch, vectors): return vectors.slice(1)")
    assert hook is not None
    case = use_case()
    with pytest.raises(ConfigurationError, match="one row for each vector"):
        Vectors(case, hook).batch(*applied_events(case))


def fewer_rows(batch: pa.RecordBatch, vectors: pa.RecordBatch) -> pa.RecordBatch:
    return vectors.slice(1)


def other_columns(batch: pa.RecordBatch, vectors: pa.RecordBatch) -> pa.RecordBatch:
    return vectors.append_column("difference", vectors.column("reading_mean"))


@pytest.mark.parametrize(
    ("derived", "hook", "said"),
    [
        ("[]", fewer_rows, "one row for each vector"),
        ("[]", other_columns, "returned the columns"),
        ("[difference]", lambda batch, vectors: vectors, "returned the columns"),
    ],
)
def test_hook_that_returns_something_else_is_refused(derived: str, hook: Derive, said: str) -> None:
    case = use_case(derived)
    with pytest.raises(ConfigurationError, match=said):
        Vectors(case, hook).batch(*applied_events(case))


def test_derived_feature_must_not_have_the_name_of_another_column() -> None:
    with pytest.raises(ConfigurationError, match="two columns"):
        use_case("[celsius, reading_mean]")


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 1e39, -1e300, None])
def test_a_number_that_no_model_can_use_is_told_with_its_place(value: float | None) -> None:
    case = use_case("[ratio]")

    def derive(batch: pa.RecordBatch, vectors: pa.RecordBatch) -> pa.RecordBatch:
        return vectors.append_column("ratio", pa.array([3.4e38, value], pa.float64()))

    at_row = re.escape(f"returned {value} for 'ratio' at the row {{\"position\": 2, ")
    with pytest.raises(HookError, match=at_row) as told:
        Vectors(case, derive).batch(*applied_events(case))
    assert "h1" in str(told.value) and "h1" not in told.value.logged, "logs don't hold values of events"


def test_what_the_engine_could_not_find_is_not_the_hooks_mistake() -> None:
    case = use_case()
    events, applied = applied_events(case)
    applied.vectors[0, 0] = float("nan")
    found = Vectors(case, lambda batch, vectors: vectors).batch(events, applied)
    assert found.column("reading_mean").is_valid().to_pylist() == [True, True]
    applied.vectors[0, 0] = 0.0

    def spoil(batch: pa.RecordBatch, vectors: pa.RecordBatch) -> pa.RecordBatch:
        place = vectors.schema.get_field_index("reading_mean")
        return vectors.set_column(place, "reading_mean", pa.array([float("inf")] * 2))

    with pytest.raises(HookError, match=r"returned inf for 'reading_mean' at the row \{\"position\": 0"):
        Vectors(case, spoil).batch(events, applied)


def test_the_vector_that_a_hook_fails_at_is_told() -> None:
    def fails(_: pa.RecordBatch, vectors: pa.RecordBatch) -> pa.RecordBatch:
        assert 2 not in vectors.column("position").to_pylist()
        return vectors

    with pytest.raises(HookError, match=r"derive\(batch, vectors\): AssertionError") as told:
        Vectors(use_case(), fails).batch(*applied_events(use_case()))
    assert str(told.value).startswith(f"{__file__}, line ")
    assert 'at the row {"position": 2, "house": "h1"' in str(told.value)
