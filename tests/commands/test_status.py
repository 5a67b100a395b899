"""`pipeline.py status` says what a data folder holds, and how far its functions are."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from modelstream.commands.status import ModelStatus, print_status, status_of
from modelstream.commands.view import View
from modelstream.registry.registry import Registry
from modelstream.runner.line import Report
from modelstream.runner.served import ServedModels, read_served
from modelstream.runner.supervisor import Process
from modelstream.stages.counters import ServedModel
from tests.commands.small import again, small_folder
from tests.model_files import directory, folder_of
from tests.runner.folders import PROJECT, SHARDS


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    with small_folder(tmp_path / "data") as view:
        yield view


def test_status_counts_what_is_there(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    found = status_of(again(view))
    assert found.streams["generated"].by_shard == [1] * SHARDS
    assert (found.tables, found.dead_letters) == ({"enrichment": 2, "features": 3}, 1)
    assert (found.logs["events"].rows, found.logs["inference"].rows) == (13, 4)
    assert found.logs["events"].files == SHARDS
    assert found.vectors == 4
    assert found.not_counted == {"unknown_type": 1, "unregistered": 1, "window_closed": 1, "window_not_open": 1}
    assert {one.lag for one in found.functions.values()} == {0}
    assert not found.running
    print_status(found, view.use_case)
    assert "4 feature vectors, 1 dead letter;" in capsys.readouterr().out


def test_status_names_no_lookup_table_for_a_use_case_without_lookup(view: View) -> None:
    assert view.features.count() and view.events_log.count()  # they are opened
    view.__dict__["use_case"] = msgspec.structs.replace(view.use_case, forms={**view.use_case.groups})
    assert list(status_of(view).tables) == ["features"]


def test_status_tells_what_waits_and_whether_a_pipeline_runs(view: View) -> None:
    view.streams.append("incoming-events", [(1, b"x"), (1, b"y")])
    lock = os.open(view.path / ".lock", os.O_RDWR)
    try:
        os.pwrite(lock, b"4242\n", 0)
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = status_of(again(view))
        assert (found.running, found.process) == (True, 4242)
        assert {name: one.lag for name, one in found.functions.items() if one.lag} == {"stream-to-features": 2}
    finally:
        os.close(lock)
    assert not status_of(again(view)).running


def test_status_tells_which_version_is_to_serve_and_which_does(
    view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODELSTREAM_REGISTRY", str(tmp_path / "models"))
    assert status_of(again(view)).model == ModelStatus("churn", "", "1", {})
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
    assert status_of(again(view)).model == ModelStatus("churn", "2", "1", {}), (
        "nothing runs: what is written is of before"
    )
    lock = os.open(view.path / ".lock", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = status_of(again(view))
    finally:
        os.close(lock)
    assert found.model.promoted == "2"
    assert found.model.serving["model-server/1"] == ServedModel("1", "version 2 is refused: [so]")
    print_status(found, view.use_case)
    said = capsys.readouterr().out
    assert "version 2 is promoted; model-server/0 serves 2, model-server/1 serves 1" in " ".join(said.split())
    assert "version 2 is refused: [so]" in said
    (folder_of(registry) / "current.json").write_text("{")
    found = status_of(again(view))
    assert "is broken" in found.model.problem
    print_status(found, view.use_case)
    assert "is broken" in capsys.readouterr().out


def test_without_a_model_the_status_says_so_and_what_to_do(
    view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODELSTREAM_REGISTRY", str(tmp_path / "models"))
    bare = msgspec.structs.replace(PROJECT, params=msgspec.structs.replace(PROJECT.params, model=""))
    found = status_of(View(view.path, bare))
    assert found.model == ModelStatus("churn", "", "", {})
    print_status(found, view.use_case)
    said = " ".join(capsys.readouterr().out.split())
    assert "model churn: no model yet →" in said and "python pipeline.py train --promote" in said
