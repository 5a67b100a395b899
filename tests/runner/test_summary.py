"""A summary tells apart what a run did and what its folder holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.commands.view import View
from modelstream.messages.dead_letters import encode_letters, letter
from modelstream.messages.identity import Checkpoint
from modelstream.runner.summary import Before, Totals, reasons_since, totals_of, versions_since
from modelstream.use_case.columns import MODEL_VERSION
from tests.commands.small import again, small_folder
from tests.runner.folders import PROJECT, SHARDS, make_folder

UNCOUNTED = {"unknown_type": 1, "unregistered": 1, "window_closed": 1, "window_not_open": 1}


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    with small_folder(tmp_path / "data") as view:
        yield view


def test_a_folder_without_a_message_held_nothing(tmp_path: Path) -> None:
    with make_folder(tmp_path / "data", [], {}) as view:
        for name in PROJECT.params.streams:
            view.streams.remove(name)
            view.streams.create(name, SHARDS)
        assert Before.of(view, PROJECT, SHARDS) == Before()


def test_what_a_run_did_is_what_was_added(view: View) -> None:
    before = Before.of(view, PROJECT, SHARDS)
    assert before.totals == Totals(
        events=13, vectors=4, predictions=4, dead_letters=1, lookups=3, lookup_misses=1, not_counted=UNCOUNTED
    )
    assert (totals_of(view, SHARDS) - before.totals, versions_since(view, before)) == (Totals(), {})
    assert reasons_since(view, before) == {}

    reasons = ("x", "y (byte 1)", "y (byte 2)", "z", "y (byte 30)", "z")
    made = [letter(reason, "b", place, ("generated", 0, 9), b"x") for place, reason in enumerate(reasons)]
    view.streams.append("dead-letters", [(0, body) for body in encode_letters(made)] * 2)  # as after a crash
    rows = pa.Table.from_batches(view.inference_log.scan())
    place = rows.column_names.index(MODEL_VERSION)
    for version, shard in (("2", 1), (None, 1), ("3", 2)):
        versions = pa.array([version] * rows.num_rows, pa.string())
        view.inference_log.append(shard, rows.set_column(place, MODEL_VERSION, versions), Checkpoint(7))

    seen = again(view)
    did = totals_of(seen, SHARDS) - before.totals
    assert did == Totals(predictions=12, dead_letters=6)
    assert list(reasons_since(seen, before).items()) == [("y", 3), ("z", 2), ("x", 1)]
    assert versions_since(seen, before) == {"2": 4, "3": 4}
    assert versions_since(seen, Before()) == {"1": 4, "2": 4, "3": 4}


@pytest.mark.parametrize(
    ("reasons", "told"),
    [
        (["n: missing", 'n: expected text, got "a, got 1"', 'n: expected text, got "b"'], "n: expected text"),
        (['n: expected a number, got "a"'] * 2, 'n: expected a number, got "a"'),
        (["at: outside the years 1 to 9999 in UTC: 1", "at: outside the years 1 to 9999 in UTC: 2\n3"],
         "at: outside the years 1 to 9999 in UTC"),
        (["at: not an ISO 8601 time: soon", "at: not an ISO 8601 time: later"], "at: not an ISO 8601 time"),
        ([f"at: expected a time, got {n}; if it counts from 1970, declare the unit: at" for n in (7, 8)],
         "at: expected a time; if it counts from 1970, declare the unit: at"),
    ],
)  # fmt: skip
def test_reasons_that_differ_in_the_value_are_one_reason(view: View, reasons: list[str], told: str) -> None:
    before = Before.of(view, PROJECT, SHARDS)
    made = [letter(reason, "b", place, ("generated", 0, 9), b"x") for place, reason in enumerate(reasons)]
    view.streams.append("dead-letters", [(0, body) for body in encode_letters(made)])
    assert next(iter(reasons_since(again(view), before).items())) == (told, 2)


@given(*[st.dictionaries(st.sampled_from("abc"), st.integers(0, 5))] * 2)
def test_reasons_of_a_run_are_those_whose_number_rose(before: dict[str, int], added: dict[str, int]) -> None:
    after = {reason: before.get(reason, 0) + added.get(reason, 0) for reason in before | added}
    did = Totals(not_counted=after) - Totals(not_counted=before)
    assert did.not_counted == {reason: number for reason, number in added.items() if number}
