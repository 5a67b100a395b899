"""`pipeline.py run` tells a person what was done and what could not be read, and scripts by its exit status."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelstream.base import command_line
from modelstream.commands.run_summary import print_summary
from modelstream.project import load_project
from modelstream.runner import data_folder
from modelstream.runner import run as runs
from modelstream.runner.summary import Summary, Totals
from tests.command_line import pipeline

PROJECT = load_project()


def summary(**changes: Any) -> Summary:
    did = Totals(events=100, vectors=60, predictions=60)
    usual: dict[str, Any] = {
        **{name: getattr(did, name) for name in did.__struct_fields__},
        "dead_letter_reasons": {},
        "predictions_by_version": {"2": 60},
        "unfinished_line": 0,
        "input_is_empty": False,
        "folder": did,
        "startup_seconds": 1.0,
        "seconds": 2.0,
        "events_per_second": 50.0,
        "peak_rss_mb": 500.0,
        "model_version": "2",
        "data": "/somewhere/[data]",
        "logs": "/somewhere/[data]",
    }
    return Summary(**(usual | changes))


NOTHING = {"events": 0, "vectors": 0, "predictions": 0, "predictions_by_version": {}}
GARBAGE = summary(
    **NOTHING, dead_letters=3, dead_letter_reasons={"not JSON: [/x]": 2, "other": 1}, folder=Totals(dead_letters=3)
)
EMPTY = summary(**NOTHING, input_is_empty=True, folder=Totals())
UNFINISHED = summary(unfinished_line=101)
SOME = summary(
    dead_letters=1, dead_letter_reasons={"no key": 1}, folder=Totals(events=100, predictions=60, dead_letters=1)
)


def told(one: Summary, capsys: pytest.CaptureFixture[str]) -> str:
    command_line.work_on(Path(one.data))
    print_summary(one, PROJECT)
    command_line.work_on(Path("data"))
    return capsys.readouterr().out


def test_a_run_alone_in_its_folder_tells_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(summary(), capsys)
    assert "60 predictions  (by version 2 of the model)" in text
    assert "of all runs" not in text and "dead-letters" not in text
    assert "python pipeline.py table features --data '/somewhere/[data]'" in text


def test_what_earlier_runs_left_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    held = Totals(events=1200, vectors=900, predictions=900, dead_letters=7)
    text = told(summary(**NOTHING, folder=held, events_per_second=0.0), capsys)
    assert "0 predictions\n" in text, "no version made them"
    assert "/somewhere/[data] now holds 1,200 events, 900 feature vectors, 900 predictions and 7 dead letters" in text
    text = told(summary(predictions_by_version={"1": 20, "2": 40}, folder=held), capsys)
    assert "60 predictions  (20 by version 1, 40 by version 2 of the model)" in text


def test_the_most_frequent_reason_of_dead_letters_is_told_and_how_to_see_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = told(GARBAGE, capsys)
    assert "3 dead letters  (2 times: not JSON: [/x])" in text
    assert "Nothing could be read: there is no event in the input" in text
    assert "python pipeline.py peek dead-letters --data '/somewhere/[data]'" in text
    assert "read_parquet" not in text, "there are no results to look at"
    assert "1 dead letter  (no key)" in told(SOME, capsys)
    assert "Line 101 is unfinished" in told(UNFINISHED, capsys)
    assert "the input is empty" in told(EMPTY, capsys)


def test_vectors_without_a_prediction_are_told_in_what_a_folder_holds(capsys: pytest.CaptureFixture[str]) -> None:
    held = Totals(events=120, vectors=79, predictions=60, unanswered=19)
    assert "79 feature vectors, 60 predictions (19 vectors without one) and 0 dead letters" in told(
        summary(folder=held), capsys
    )


def test_command_line_in_a_warning_is_one_that_works_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_line, "python", lambda: "/env/bin/python")
    text = told(summary(warnings=["The table is empty → `python pipeline.py table load areas FILE`"]), capsys)
    assert "→ `/env/bin/python " in text


def test_input_of_a_wrong_format_is_refused_with_a_way_out_that_keeps_the_other_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my events"
    file.write_bytes(gzip.compress(b"{}\n"))
    (tmp_path / "areas.csv").write_text("")
    table = f"--enrichment {tmp_path}/areas.csv --enrichment {tmp_path}/shops.csv"
    options = (*table.split(), "--data", tmp_path / "mine", "--fresh")
    assert pipeline("run", "--input", file, *options) == 3
    said = " ".join(capsys.readouterr().err.split())
    assert f"gzip -dc '{file}' | " in said
    assert f"run --input - {table} --fresh --data {tmp_path}/mine" in said or (
        f"run --input - {table} --data {tmp_path}/mine --fresh" in said
    )
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("one", "status", "strict"),
    [(summary(), 0, 0), (GARBAGE, 3, 3), (EMPTY, 3, 3), (SOME, 0, 3), (UNFINISHED, 0, 3)],
)
def test_exit_status_tells_whether_the_input_could_be_read(
    one: Summary,
    status: int,
    strict: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(runs, "run", lambda *_: one)
    monkeypatch.setattr(data_folder, "open_folder", lambda *_, **__: SimpleNamespace(note=""))
    options = ("run", "--quiet", "--data", tmp_path)
    assert pipeline(*options) == status
    assert pipeline(*options, "--strict") == strict
    capsys.readouterr()
    assert pipeline(*options, "--json") == status
    assert json.loads(capsys.readouterr().out)["folder"] == {
        name: getattr(one.folder, name) for name in one.folder.__struct_fields__
    }
