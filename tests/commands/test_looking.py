"""What the inspecting commands say of a data folder is what it holds."""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelstream.commands import output as show_module
from modelstream.commands import peek as look
from modelstream.commands import shared as commands
from modelstream.commands.explain import explain, show
from modelstream.commands.output import table
from modelstream.commands.peek import last_messages, peek, table_
from modelstream.commands.replay import Findings, replay, told
from modelstream.commands.status import ModelStatus, status
from modelstream.commands.status import show as show_status
from modelstream.commands.view import View
from modelstream.errors import ConfigurationError
from modelstream.features.engine import features_of
from modelstream.messages.identity import Checkpoint, bucket_of
from modelstream.registry.registry import Registry
from modelstream.runner.line import Report
from modelstream.runner.served import ServedModels, read_served
from modelstream.runner.supervisor import Process
from modelstream.stages.counters import ServedModel
from modelstream.use_case.columns import APPLIED, ORIGIN, POSITION
from tests.model_files import directory, folder_of
from tests.runner.folders import ORIGIN_NAME, PROJECT, SHARDS, make_folder

TIMES = (f"2026-11-16 {hour:02d}:{minute:02d}:00" for hour in range(24) for minute in range(60))


def event(user: object, kind: str, **fields: Any) -> bytes:
    return json.dumps({"user_id": user, "event_type": kind, "event_time": next(TIMES), **fields}).encode()


LINES = [
    event("anna", "bet", bet_amount=1),  # unregistered
    event("anna", "registration", postcode=20000, label=1),
    event("anna", "bet", bet_amount=2),  # the window is not open
    event("anna", "new_purchase", amount=50),
    event("anna", "bet", bet_amount=3),
    event("anna", "login"),  # unknown
    event("anna", "bet", bet_amount=30.5),
    json.dumps({"user_id": "anna", "event_type": "bet", "event_time": "2026-12-01 00:00:00", "bet_amount": 4}).encode(),
    event(7, "registration", postcode="10001", name="Otto"),
    event(7, "purchase", amount=1e308),
    event(7, "win", win_amount=1e308),
    event(7, "win", win_amount=1e308),
    b'{"user_id": "anna", "event_type": ',
    event("bert", "registration"),
]
ENRICHMENT = {"20000": 2.5, "10001": 4.0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with make_folder(tmp_path_factory.mktemp("made") / "data", LINES, ENRICHMENT) as view:
        return view.path


@pytest.fixture
def view(made: Path, tmp_path: Path) -> Iterator[View]:
    shutil.copytree(made, tmp_path / "data")
    with View(tmp_path / "data", PROJECT) as view:
        yield view


def again(view: View) -> View:
    """Return the folder as another process sees it: nothing is in memory."""
    return View(view.path, PROJECT)


# peek


def rows_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_peek_shows_the_events_of_clients_as_they_sent_them(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    peek(view, "generated", 100, as_json=True)
    rows = rows_of(capsys)
    assert sorted(row["line"].encode() for row in rows) == sorted(line for line in LINES if line.endswith(b"}"))
    assert all(row["origin"] == f"generated/{row['shard']}" for row in rows)


def test_peek_decodes_the_messages_between_functions(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    peek(view, "incoming-events", 100, as_json=True)
    assert sum(row["user_id"] == "anna" for row in rows_of(capsys)) == 8
    peek(view, "inference", 100, as_json=True)
    rows = [row for row in rows_of(capsys) if row["user_id"] == "anna"]
    assert [(row["bet_sum"], row["about_to_churn"]) for row in rows] == [(3.0, 0), (33.5, 1)]
    assert [row["event_time"] for row in rows] == sorted(row["event_time"] for row in rows)


def test_peek_shows_dead_letters_with_their_reason(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    peek(view, "dead-letters", 1, as_json=True)
    (row,) = rows_of(capsys)
    assert (row["position"], row["text"]) == (12, LINES[12].decode())
    assert row["reason"].startswith("not JSON")


def test_peek_decodes_lines_and_survives_what_it_cannot_read(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    view.streams.append("generated", [(0, b"\xff\xff\xff\xffnot Arrow"), (1, b"[{]")])
    peek(view, "generated", 2, as_json=True)
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
        peek(view, "dead-leters", 1, as_json=True)
    assert "did you mean 'dead-letters'?" in caught.value.remedy


def test_peek_fits_a_terminal(view: View, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (look, show_module):
        monkeypatch.setattr(module, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "90")
    peek(view, "inference", 100, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 90
    assert any("user_id" in line and "about_to_churn" in line for line in lines)
    assert "more columns: about_to_churn_probability, socioeconomic_idx" in " ".join(" ".join(lines).split())


# table


def features(view: View) -> pd.DataFrame:
    batches = [features_of(batch, view.use_case) for batch in view.features.scan()]
    return pa.Table.from_batches(batches).to_pandas()


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_features_come_out_as_they_are_stored(view: View, tmp_path: Path, form: str) -> None:
    output = tmp_path / f"rows.{form}"
    table_(view, "features", None, None, output)
    expected = features(view)
    assert len(expected) == 3
    if form == "parquet":
        pd.testing.assert_frame_equal(pd.read_parquet(output), expected)
        return
    written = pd.read_csv(output) if form == "csv" else pd.DataFrame(json.loads(output.read_bytes()))
    assert written["user_id"].astype(str).tolist() == expected["user_id"].tolist()
    found = written[list(view.use_case.features)].to_numpy(np.float64)
    wanted = expected[list(view.use_case.features)].to_numpy()
    finite = np.isfinite(wanted)
    assert np.array_equal(found[finite], wanted[finite])
    times = pd.to_datetime(written["registration_time"], utc=True, format="ISO8601")
    assert (times == expected["registration_time"]).all()


def test_a_table_goes_to_standard_output_as_csv(view: View, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    table_(view, "enrichment", None, None, None)
    frame = pd.read_csv(io.BytesIO(capfdbinary.readouterr().out), dtype={"key": str})
    assert dict(zip(frame["key"], frame["value"], strict=True)) == ENRICHMENT


def test_one_key_is_one_row(view: View, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    table_(view, "features", "7", "json", None)
    (row,) = json.loads(capfdbinary.readouterr().out)
    assert (row["user_id"], row["socioeconomic_idx"], row["purchase_sum"], row["win_sum"]) == ("7", 4.0, 1e308, None)
    table_(view, "enrichment", "20000", "csv", None)
    assert capfdbinary.readouterr().out.splitlines()[1:] == [b'"20000",2.5']


@pytest.mark.parametrize(("name", "key"), [("features", "nobody"), ("enrichment", "1")])
def test_a_key_that_is_not_there_is_an_error(view: View, name: str, key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"the table {name} has no row"):
        table_(view, name, key, "csv", None)


def test_an_unknown_table_is_an_error_with_what_was_meant(view: View) -> None:
    with pytest.raises(ConfigurationError) as caught:
        table_(view, "feature", None, None, None)
    assert "did you mean 'features'?" in caught.value.remedy


def test_a_file_that_cannot_be_written_is_an_error_and_leaves_nothing(view: View, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="can't be written"):
        table_(view, "features", None, None, tmp_path / "missing" / "rows.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigurationError, match="can't be written"):
        table_(view, "features", None, None, tmp_path / "folder.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "folder.csv"]


def test_an_empty_table_has_its_columns_in_every_format(tmp_path: Path) -> None:
    empty = make_folder(tmp_path / "data", [], {})
    for form in ("csv", "json", "parquet"):
        table_(empty, "features", None, form, tmp_path / form)
    assert pd.read_csv(tmp_path / "csv").columns.tolist() == empty.use_case.features_schema.names
    assert json.loads((tmp_path / "json").read_bytes()) == []
    assert pq.read_schema(tmp_path / "parquet").names == empty.use_case.features_schema.names


def test_a_table_shows_only_the_columns_that_fit() -> None:
    made = table([{"name": "x" * 200, "n": 1, "hidden": "y" * 50, "void": None}], width=60)
    assert [column.header for column in made.columns] == ["name", "n"]
    assert "more columns: hidden" in str(made.title)


# status


def test_status_counts_what_is_there(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    found = status(again(view))
    assert found.streams["generated"].by_shard == [1] * SHARDS
    assert (found.tables, found.dead_letters) == ({"enrichment": 2, "features": 3}, 1)
    assert (found.logs["events"].rows, found.logs["inference"].rows) == (13, 4)
    assert found.logs["events"].files == SHARDS
    assert found.vectors == 4
    assert found.not_counted == {"unknown_type": 1, "unregistered": 1, "window_closed": 1, "window_not_open": 1}
    assert {one.lag for one in found.functions.values()} == {0}
    assert not found.running
    show_status(found)
    assert "4 feature vectors, 1 dead letters" in capsys.readouterr().out


def test_status_tells_what_waits_and_whether_a_pipeline_runs(view: View) -> None:
    view.streams.append("incoming-events", [(1, b"x"), (1, b"y")])
    lock = os.open(view.path / ".lock", os.O_RDWR)
    try:
        os.pwrite(lock, b"4242\n", 0)
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = status(again(view))
        assert (found.running, found.process) == (True, 4242)
        assert {name: one.lag for name, one in found.functions.items() if one.lag} == {"stream-to-features": 2}
    finally:
        os.close(lock)
    assert not status(again(view)).running


def test_status_tells_which_version_is_to_serve_and_which_does(
    view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODELSTREAM_REGISTRY", str(tmp_path / "models"))
    assert status(again(view)).model == ModelStatus("churn", "1", {})
    registry = Registry(tmp_path / "models", "churn", view.use_case.features)
    registry.add(directory("2"), version="2")
    registry.promote("2")
    processes = [Process(f"model-server/{i}", (), {}, tmp_path) for i in range(2)]
    served = ServedModels(view.path)
    served.note(processes)
    assert read_served(view.path) == {}, "nobody has told yet"
    processes[0].report = Report(model=ServedModel("2"))
    processes[1].report = Report(model=ServedModel("1", "version 2 is refused: [so]"))
    served.note(processes)
    assert status(again(view)).model == ModelStatus("churn", "2", {}), "nothing runs: what is written is of before"
    lock = os.open(view.path / ".lock", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = status(again(view))
    finally:
        os.close(lock)
    assert found.model.promoted == "2"
    assert found.model.serving["model-server/1"] == ServedModel("1", "version 2 is refused: [so]")
    show_status(found)
    said = capsys.readouterr().out
    assert "version 2 is to serve; model-server/0 serves 2, model-server/1 serves 1" in " ".join(said.split())
    assert "version 2 is refused: [so]" in said
    (folder_of(registry) / "current.json").write_text("{")
    found = status(again(view))
    assert "is broken" in found.model.problem
    show_status(found)
    assert "is broken" in capsys.readouterr().out


def test_what_serves_is_written_when_it_changes_and_a_broken_file_says_nothing(tmp_path: Path) -> None:
    process = Process("model-server", (), {}, tmp_path)
    process.report = Report(model=ServedModel("1"))
    served = ServedModels(tmp_path)
    served.note([process])
    path = tmp_path / "served.json"
    before = path.stat().st_ino, path.stat().st_mtime_ns
    served.note([process])
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == before
    process.report = Report(model=ServedModel("2"))
    served.note([process])
    assert read_served(tmp_path) == {"model-server": ServedModel("2")}
    path.write_text("{")
    assert read_served(tmp_path) == {}


def test_a_folder_without_data_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no data of a pipeline"):
        View(tmp_path, PROJECT)
    assert list(tmp_path.iterdir()) == []


def test_commands_tell_errors_and_exit_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.status(tmp_path / "nowhere", as_json=True) == 1
    assert "holds no data" in capsys.readouterr().err


def test_commands_print_json(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.status(view.path, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["logs"]["events"]["rows"] == 13
    assert commands.explain(view.path, "anna", last=1, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["last_events"][0]["counted"] == "window_closed"
    assert commands.replay(view.path, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["equal"] is True


# explain


def test_explain_says_of_every_event_whether_it_counted_and_why_not(view: View) -> None:
    found = explain(again(view), "anna", 100)
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
    found = explain(again(view), "anna", 3)
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
    whole, some = explain(again(view), "anna", 100), explain(again(view), "anna", last)
    assert some.last_events == whole.last_events[-last:]
    some.last_events = whole.last_events
    assert some == whole


def test_explain_of_a_user_without_predictions_or_profile(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    found = explain(again(view), "bert", 5)
    assert (found.events, found.vector, found.predictions) == (1, None, 0)
    show(found, view)
    assert "has sent a vector" in capsys.readouterr().out


def test_explain_prints_what_matters(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    show(explain(again(view), "anna", 5), view)
    shown = capsys.readouterr().out
    for text in ("8 events, 4 counted", "1 window_closed", "1 (0.750)", "33.5", "socioeconomic_idx"):
        assert text in shown


def test_an_unknown_user_is_an_error(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.explain(view.path, "nobody", last=5, as_json=False) == 1
    assert "no event of user_id 'nobody' is in the log" in capsys.readouterr().err


# replay


def test_replay_finds_that_everything_is_equal(view: View) -> None:
    found = replay(again(view))
    assert (found.equal, found.settled, found.events, found.vectors, found.rows) == (True, True, 13, 4, 3)
    assert "equal to the last bit" in told(found, 1.0)


def change_log(view: View, name: str, shard: int, change: Any) -> None:
    """Rewrite the file of a shard's log with a changed table; its footer stays."""
    path = view.path / name / f"00-{shard:02d}-00000000.parquet"
    changed = pq.ParquetFile(path).read()
    metadata = changed.schema.metadata
    pq.write_table(change(changed).replace_schema_metadata(metadata), path)


def shard_of(user: str) -> int:
    return bucket_of(user) % SHARDS


def set_value(name: str, user: str, value: Any) -> Any:
    def change(rows: pa.Table) -> pa.Table:
        index = rows.schema.get_field_index(name)
        place = rows.column("user_id").to_pylist().index(user)
        values = rows.column(name).to_pylist()
        values[place] = value(values[place]) if callable(value) else value
        return rows.set_column(index, rows.schema.field(index), pa.array(values, rows.schema.field(index).type))

    return change


def test_a_vector_that_differs_in_its_last_bit_is_found(view: View) -> None:
    change_log(view, "inference", shard_of("anna"), set_value("bet_mean", "anna", lambda v: np.nextafter(v, 9)))
    found = replay(again(view))
    assert (found.equal, found.differing.count, found.vectors, found.rows) == (False, 1, 3, 3)
    assert "bet_mean was served as 3.0000000000000004 and is 3.0 in the replay" in found.differing.first[0]
    assert "DIFFERENT" in told(found, 1.0)


def test_minus_zero_is_not_zero_in_a_vector(view: View) -> None:
    change_log(view, "inference", shard_of("anna"), set_value("win_sum", "anna", -0.0))
    assert replay(again(view)).differing.count == 1


def test_a_vector_of_another_event_is_found(view: View) -> None:
    change_log(view, "inference", shard_of("7"), set_value(POSITION, "7", 9))
    found = replay(again(view))
    assert not found.equal
    assert (
        f"after the event 10 of {ORIGIN_NAME}, the inference log with that of 7 after the event 9"
        in (found.differing.first[0])
    )
    change_log(view, "inference", shard_of("7"), set_value(POSITION, "7", 10))
    assert replay(again(view)).equal
    change_log(view, "inference", shard_of("7"), set_value(ORIGIN, "7", "elsewhere"))
    assert not replay(again(view)).equal


def test_vectors_that_were_not_served_are_found(view: View) -> None:
    change_log(view, "inference", shard_of("anna"), lambda rows: rows.slice(0, 1))
    found = replay(again(view))
    assert (found.equal, found.unmatched.count) == (False, 1)
    assert "1 vectors are not in the inference log, the first of anna" in found.unmatched.first[0]


def test_vectors_that_no_event_explains_are_found(view: View) -> None:
    change_log(view, "inference", shard_of("anna"), lambda rows: pa.concat_tables([rows, rows]))
    found = replay(again(view))
    assert (found.equal, found.differing.count) == (False, 0)
    assert "vectors in the inference log that follow from no event of the log" in found.unmatched.first[0]


def change_features(view: View, statement: str) -> None:
    connection = view.features.file.connection  # type: ignore[attr-defined]
    assert connection.execute(statement).rowcount == 1


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE features SET bet_m2 = bet_m2 + 1e-9 WHERE user_id = 'anna'", "the row of anna: bet_m2 is"),
        ("UPDATE features SET label = 0 WHERE user_id = 'anna'", "the row of anna: label is 0 in the table and 1"),
        ("UPDATE features SET label = NULL WHERE user_id = 'anna'", "the row of anna: label is None in the table"),
        ("UPDATE features SET first_purchase_time = NULL WHERE user_id = '7'", "the row of 7: first_purchase_time"),
        ("DELETE FROM features WHERE user_id = 'bert'", "1 users have no row in the table, such as bert"),
        (
            "INSERT INTO features SELECT 'carl', applied, registration_time, date_of_birth, affiliate_url, label, "
            "socioeconomic_idx, first_purchase_time, purchase_sum, purchase_mean, purchase_count, purchase_m2, "
            "bet_sum, bet_mean, bet_count, bet_m2, win_sum, win_mean, win_count, win_m2 FROM features "
            "WHERE user_id = 'anna'",
            "1 rows of the table that no event of the log explains, such as carl",
        ),
    ],
)
def test_a_row_that_differs_is_found(view: View, statement: str, reason: str) -> None:
    change_features(view, statement)
    found = replay(again(view))
    assert (found.equal, found.unmatched.count) == (False, 1), found
    assert reason in found.unmatched.first[0]
    assert found.vectors == 4


def test_only_the_first_differences_are_told_but_all_are_counted(tmp_path: Path) -> None:
    view = make_folder(tmp_path / "data", [event(f"u{i}", "registration") for i in range(50)], {})
    view.features.file.connection.execute("UPDATE features SET label = 9")  # type: ignore[attr-defined]
    found = replay(again(view))
    assert (found.unmatched.count, len(found.unmatched.first)) == (50, 10)
    assert "50 differences in all" in told(found, 1.0)


def test_while_events_are_on_their_way_rows_prove_nothing_but_vectors_do(view: View) -> None:
    view.streams.append("incoming-events", [(0, b"on its way")])
    change_features(view, "UPDATE features SET bet_sum = 1 WHERE user_id = 'anna'")
    found = replay(again(view))
    assert (found.equal, found.settled, found.unmatched.count) == (True, False, 1)
    assert "events are on their way" in told(found, 1.0)
    change_log(view, "inference", shard_of("anna"), set_value("bet_mean", "anna", 5.0))
    assert not replay(again(view)).equal


def test_events_that_come_in_during_the_replay_are_noticed(view: View) -> None:
    other = again(view)

    def progress(_: int) -> None:
        other.streams.append("generated", [(0, b"{}")])

    assert not replay(view, progress).settled


def test_replay_takes_the_value_that_was_looked_up_from_the_row(tmp_path: Path) -> None:
    lines = [
        event("dora", "registration", postcode=20000),
        event("dora", "purchase", amount=1),
        event("dora", "bet", bet_amount=1),
        event("emil", "registration", postcode=20000),
        event("emil", "purchase", amount=1),
        event("emil", "bet", bet_amount=1),
        event("emil", "registration", postcode=10001),
        event("emil", "bet", bet_amount=1),
    ]
    view = make_folder(tmp_path / "data", lines, ENRICHMENT)
    assert replay(again(view)).equal
    change = pa.record_batch({"key": ["10001"], "value": [9.0]})
    view.tables.lookup("enrichment").load([change])  # what the last profile event found has changed since
    assert replay(again(view)).equal
    assert replay(again(view)).vectors == 3
    cut_log(view, "events", shard_of("emil"), 3)  # between emil's registrations, wherever dora's events are
    assert replay(again(view)).equal
    last = explain(again(view), "emil", 1)
    assert last.vector is not None
    assert last.vector["socioeconomic_idx"] == 4.0


def test_findings_of_nothing_are_equal() -> None:
    assert Findings().equal


def cut_log(view: View, name: str, shard: int, rows: int) -> None:
    """Put the rows of a shard's only file, but for the first ones, into a second file."""
    whole = pq.ParquetFile(view.path / name / f"00-{shard:02d}-00000000.parquet").read()
    change_log(view, name, shard, lambda _: whole.slice(0, rows))
    view.parquet_logs[name].append(shard, whole.slice(rows).replace_schema_metadata(None), Checkpoint(1))


def test_replay_goes_over_several_files_of_a_shard(view: View) -> None:
    """The log of events and the inference log are cut at different places."""
    cut_log(view, "events", shard_of("anna"), 3)
    cut_log(view, "inference", shard_of("anna"), 1)
    found = replay(again(view))
    assert (found.equal, found.vectors, found.rows) == (True, 4, 3)


def test_stored_rows_carry_their_stream_position(view: View) -> None:
    assert view.features.get("anna").column(APPLIED)[0].as_py() >= 0
