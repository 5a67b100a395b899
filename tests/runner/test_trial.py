"""A use case is tried on the first lines of a file: what would be refused, and what would count."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from modelstream.errors import ConfigurationError
from modelstream.runner.trial import MOST_LINES, try_lines
from modelstream.use_case.file import load_use_case, parse_use_case

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
HEATING = parse_use_case(
    """
{version: 2, name: heating, key: house, time: at, type: kind,
 fields: {house: key, at: time, kind: text, celsius: number, room: text},
 events: {reading: {needs: [celsius], aliases: [r]}},
 features: {reading: {of: reading, value: celsius, give: mean}}, predict_on: [reading],
 model: {name: frost, prediction: will_freeze}}
"""
)


def line(house: object, at: str = "2026-01-01", kind: str = "reading", celsius: object = 1.5) -> str:
    return json.dumps({"house": house, "at": at, "kind": kind, "celsius": celsius})


def test_what_becomes_of_each_line_is_counted(tmp_path: Path) -> None:
    lines = [
        line("h1"),
        line("h1", kind="r"),
        line("h2", kind="alarm"),
        line("h2", celsius="warm"),
        "{",
        line("h3", at="2999-01-01"),
    ]
    (tmp_path / "lines").write_text("\n".join(["", *lines]) + "\n")
    found = try_lines(HEATING, tmp_path / "lines")
    assert (found.lines, found.events, found.refused_lines) == (6, {"reading": 3, "alarm": 1}, 2)
    assert (found.users, found.counted, found.vectors) == (3, 2, 2)
    assert found.not_counted == {"unknown_type": 1, "in_the_future": 1}
    assert found.empty_fields == ["room"]
    assert sum(found.refused.values()) == 2 and any("celsius" in reason for reason in found.refused)
    assert found.micros >= 0


def test_only_the_first_lines_are_tried(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("\n".join(line(f"h{i}") for i in range(MOST_LINES + 5)))
    found = try_lines(HEATING, tmp_path / "lines")
    assert (found.lines, found.counted, found.users) == (MOST_LINES, MOST_LINES, MOST_LINES)
    assert try_lines(HEATING, tmp_path / "lines", most=7).counted == 7


def test_golden_events_give_the_golden_number_of_vectors() -> None:
    found = try_lines(load_use_case(ROOT / "use_cases" / "churn.yaml"), GOLDEN / "edge_events.ndjson")
    assert found.vectors == pq.read_metadata(GOLDEN / "edge_expected_vectors.parquet").num_rows
    assert found.lines == found.counted + sum(found.not_counted.values())


def test_a_file_without_events_and_one_of_another_format_are_told(tmp_path: Path) -> None:
    (tmp_path / "blank").write_text("\n\n")
    found = try_lines(HEATING, tmp_path / "blank")
    assert (found.lines, found.events, found.counted, found.empty_fields) == (0, {}, 0, [])
    (tmp_path / "table.csv").write_text("house,at\nh1,2026-01-01\n")
    with pytest.raises(ConfigurationError, match="JSON lines"):
        try_lines(HEATING, tmp_path / "table.csv")
