"""`pipeline.py peek` shows what the streams hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelstream.commands import output
from modelstream.commands.peek import last_messages, print_messages
from modelstream.commands.view import View
from modelstream.errors import ConfigurationError
from tests.commands.small import LINES, small_folder
from tests.runner.folders import PROJECT, SHARDS, make_folder


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    with small_folder(tmp_path / "data") as view:
        yield view


def rows_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_peek_shows_the_events_of_clients_as_they_sent_them(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    print_messages(view, "generated", 100, as_json=True)
    rows = rows_of(capsys)
    assert sorted(row["line"].encode() for row in rows) == sorted(line for line in LINES if line.endswith(b"}"))
    assert all(row["origin"] == f"generated/{row['shard']}" for row in rows)


def test_peek_decodes_the_messages_between_functions(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    print_messages(view, "incoming-events", 100, as_json=True)
    assert sum(row["user_id"] == "anna" for row in rows_of(capsys)) == 8
    print_messages(view, "inference", 100, as_json=True)
    rows = [row for row in rows_of(capsys) if row["user_id"] == "anna"]
    assert [(row["bet_sum"], row["about_to_churn"]) for row in rows] == [(3.0, 0), (33.5, 1)]
    assert [row["event_time"] for row in rows] == sorted(row["event_time"] for row in rows)


def test_peek_shows_dead_letters_with_their_reason(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    print_messages(view, "dead-letters", 1, as_json=True)
    (row,) = rows_of(capsys)
    assert (row["position"], row["text"]) == (12, LINES[12].decode())
    assert row["reason"].startswith("not JSON")


def test_peek_decodes_lines_and_survives_what_it_cannot_read(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    view.streams.append("generated", [(0, b"\xff\xff\xff\xffnot Arrow"), (1, b"[{]")])
    print_messages(view, "generated", 2, as_json=True)
    assert ["Arrow message that is damaged" in row["unreadable"] for row in rows_of(capsys)] == [True, False]


def test_peek_takes_the_newest_messages_of_all_shards_oldest_first(view: View) -> None:
    for i in range(10):
        view.streams.append("generated", [(i * i % SHARDS, b'{"n": %d}' % i)])
    assert [message.body for message in last_messages(view.streams, "generated", 3)] == [
        b'{"n": %d}' % i for i in (7, 8, 9)
    ]
    assert len(list(last_messages(view.streams, "generated", 1000))) == 10 + SHARDS


def test_a_stream_that_is_not_there_is_an_error_with_what_was_meant(view: View) -> None:
    with pytest.raises(ConfigurationError) as caught:
        print_messages(view, "dead-leters", 1, as_json=True)
    assert "did you mean 'dead-letters'?" in caught.value.remedy


def test_peek_says_that_a_stream_is_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with make_folder(tmp_path / "data", [], {}), View(tmp_path / "data", PROJECT) as view:
        print_messages(view, "dead-letters", 1, as_json=True)
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "dead-letters has no messages\n")


def test_peek_fits_a_terminal(view: View, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "90")
    print_messages(view, "inference", 100, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 90
    assert any("user_id" in line and "about_to_churn" in line for line in lines)
    assert "more columns: about_to_churn_probability, socioeconomic_idx" in " ".join(" ".join(lines).split())
