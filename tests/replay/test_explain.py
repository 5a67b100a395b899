"""What is known of a user is what the log, the table and the predictions hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelstream.commands.explain import print_explanation
from modelstream.commands.view import View
from modelstream.messages.identity import bucket_of
from modelstream.replay.explain import explain
from tests.commands.small import again, small_folder
from tests.runner.folders import PROJECT, SHARDS


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    with small_folder(tmp_path / "data") as view:
        yield view


def test_explain_says_of_every_event_whether_it_counted_and_why_not(view: View) -> None:
    found = explain(again(view), PROJECT, SHARDS, "anna", 100)
    assert [event["counted"] for event in found.last_events] == [
        *("unregistered", "counted", "window_not_open", "counted", "counted", "unknown_type", "counted"),
        "window_closed",
    ]
    assert (found.events, found.counted, found.vectors, found.predictions) == (8, 4, 2, 2)
    assert found.not_counted == {"unregistered": 1, "window_not_open": 1, "unknown_type": 1, "window_closed": 1}
    assert [event.get("about_to_churn") for event in found.last_events if event["event_type"] == "bet"] == [
        *(None, None, 0, 1, None),
    ]
    assert found.shard == bucket_of("anna") % SHARDS
    assert found.last_events[1]["postcode"] == "20000", "as it came, though replay looks up otherwise"


def test_explain_gives_the_vector_that_was_served_and_the_row(view: View) -> None:
    found = explain(again(view), PROJECT, SHARDS, "anna", 3)
    assert found.vector is not None
    assert found.row is not None
    assert {name: found.vector[name] for name in ("socioeconomic_idx", "purchase_sum", "bet_sum", "bet_count")} == {
        "socioeconomic_idx": 2.5,
        "purchase_sum": 50.0,
        "bet_sum": 33.5,
        "bet_count": 2.0,
    }
    assert found.row["label"] == 1


@pytest.mark.parametrize("last", [1, 2, 3, 8])
def test_the_number_of_events_shown_changes_nothing_else(view: View, last: int) -> None:
    whole, some = (
        explain(again(view), PROJECT, SHARDS, "anna", 100),
        explain(again(view), PROJECT, SHARDS, "anna", last),
    )
    assert some.last_events == whole.last_events[-last:]
    some.last_events = whole.last_events
    assert some == whole


def test_explain_of_a_user_without_predictions_or_profile(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    found = explain(again(view), PROJECT, SHARDS, "bert", 5)
    assert (found.events, found.vector, found.predictions) == (1, None, 0)
    print_explanation(found, view.use_case, view.names.features)
    assert "has led to a feature vector" in capsys.readouterr().out
