"""`pipeline.py peek` shows what the streams hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelstream.commands import output
from modelstream.commands.peek import last_rows, print_last, print_new
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
    print_last(view, "generated", 100, as_json=True)
    rows = rows_of(capsys)
    assert sorted(row["line"].encode() for row in rows) == sorted(line for line in LINES if line.endswith(b"}"))
    assert all(row["origin"] == f"generated/{row['shard']}" for row in rows)


def test_peek_decodes_the_messages_between_functions(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    print_last(view, "incoming-events", 100, as_json=True)
    assert sum(row["user_id"] == "anna" for row in rows_of(capsys)) == 8
    print_last(view, "inference", 100, as_json=True)
    rows = [row for row in rows_of(capsys) if row["user_id"] == "anna"]
    assert [(row["bet_sum"], row["about_to_churn"]) for row in rows] == [(3.0, 0), (33.5, 1)]
    assert [row["event_time"] for row in rows] == sorted(row["event_time"] for row in rows)


def test_peek_shows_dead_letters_with_their_reason(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    print_last(view, "dead-letters", 1, as_json=True)
    (row,) = rows_of(capsys)
    assert (row["position"], row["text"]) == (12, LINES[12].decode())
    assert row["reason"].startswith("not JSON")


def test_peek_decodes_lines_and_survives_what_it_cannot_read(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    view.streams.append("generated", [(0, b"\xff\xff\xff\xffnot Arrow"), (1, b"[{]")])
    print_last(view, "generated", 2, as_json=True)
    assert ["a message that is damaged" in row["unreadable"] for row in rows_of(capsys)] == [True, False]


def test_peek_takes_the_newest_rows_of_all_shards_oldest_first(view: View) -> None:
    for i in range(10):
        view.streams.append("generated", [(i * i % SHARDS, b'[{"n": %d}, {"n": %d}]' % (2 * i, 2 * i + 1))])
    ends = {shard: end for shard, (_, end) in view.streams.ranges("generated").items()}
    for count in (1, 2, 3, 4, 7):
        found = [row["line"] for row in last_rows(view, "generated", count, ends)]
        assert found == [json.dumps({"n": n}) for n in range(20 - count, 20)]
    assert len(list(last_rows(view, "generated", 1000, ends))) == 20 + sum(line.endswith(b"}") for line in LINES)


def test_follow_shows_every_new_row_once_and_in_order(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    ends = print_last(view, "generated", 1, as_json=True)
    coming = iter([[b'{"n": 0}', b'[{"n": 1}, {"n": 2}]'], [], [b'{"n": 3}']])

    def append(_: float) -> None:
        bodies = next(coming, None)
        if bodies is None:
            raise KeyboardInterrupt
        for n, body in enumerate(bodies):
            view.streams.append("generated", [(n % SHARDS, body)])

    with pytest.raises(KeyboardInterrupt):
        print_new(view, "generated", ends, as_json=True, wait=append)
    before, *rows = rows_of(capsys)
    assert json.loads(before["line"])["user_id"]
    assert [json.loads(row["line"])["n"] for row in rows] == [0, 1, 2, 3]


def test_a_stream_that_is_not_there_is_an_error_with_what_was_meant(view: View) -> None:
    with pytest.raises(ConfigurationError) as caught:
        print_last(view, "dead-leters", 1, as_json=True)
    assert "did you mean 'dead-letters'?" in caught.value.remedy


def test_peek_says_that_a_stream_is_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with make_folder(tmp_path / "data", [], {}), View(tmp_path / "data", PROJECT) as view:
        print_last(view, "dead-letters", 1, as_json=True)
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "dead-letters has no messages\n")


def test_peek_fits_a_terminal(view: View, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "90")
    print_last(view, "inference", 100, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 90
    assert any("user_id" in line and "probability" in line for line in lines)
    assert "more columns: purchase_sum, purchase_mean" in " ".join(" ".join(lines).split())
