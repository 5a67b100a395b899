"""The state of a function: its workers together, and since when messages wait for it. The live table shows it."""

from __future__ import annotations

import io
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from modelstream.project import load_project
from modelstream.runner.display import Display
from modelstream.runner.line import Line, Report
from modelstream.runner.pipeline import Pipeline
from modelstream.runner.state import FunctionState
from modelstream.runner.supervisor import FunctionFailedError, Process, Supervisor
from modelstream.settings import StoreUrls
from modelstream.stages.counters import Counters, ServedModel

PROJECT = load_project()


class Scene:
    """A pipeline of two workers a function, with what they report."""

    def __init__(self, folder: Path) -> None:
        self.supervisor = Supervisor(lock=0)
        place: Any = SimpleNamespace(
            path=folder, marker=SimpleNamespace(shards=8), urls=StoreUrls(), check_there=lambda: None
        )
        self.pipeline = Pipeline(PROJECT, place, self.supervisor, workers=2)
        self.waiting = 0
        stores: Any = SimpleNamespace(
            waiting=lambda function, stream: {0: (0, self.waiting)},
            rows=lambda stream, waiting: self.waiting,
            streams=SimpleNamespace(counts_rows=False),
        )
        self.pipeline.stores = stores
        for consumer in self.pipeline.consumers:
            for name in consumer.workers:
                self.supervisor.processes[name] = Process(name, (), {}, folder / "log", report=Report(ready=True))

    def tell(self, worker: str, **report: Any) -> Process:
        process = self.supervisor.processes[worker]
        process.report = Report(**{"ready": True, **report})
        return process

    def state(self, function: str) -> FunctionState:
        return next(state for state in self.pipeline.states() if state.name == function)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_workers_and_their_earlier_lives_are_added_up(scene: Scene) -> None:
    first = scene.tell("event-handler/0", counters=Counters(commits=2))
    first.before = Counters(rows_in=8, commits=1, repeated=5, lookups=3, lookup_misses=1, committed_at=50.0)
    first.restarts = 3
    scene.tell("event-handler/1", counters=Counters(2, 0, 1, 0, 4, lookups=1, lookup_misses=1, committed_at=70.0))
    found = scene.state("event-handler")
    assert found.counters == Counters(
        rows_in=10, dead_letters=1, repeated=5, commits=7, lookups=4, lookup_misses=2, committed_at=70.0
    )
    assert (found.state, found.restarts, found.held, found.models, found.refused) == ("idle", 3, "", (), "")
    assert scene.state("stream-to-features").counters == Counters()


def test_it_is_known_since_when_messages_wait(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "time", lambda: now)
    scene.tell("event-handler/0", counters=Counters(committed_at=70.0))
    assert scene.state("event-handler").lag_since == 0.0
    scene.waiting, now = 3, 110.0
    assert scene.state("event-handler").lag_since == 110.0
    now = 120.0
    found = scene.state("event-handler")
    assert (found.state, found.lag, found.lag_since, found.waits_for(125.0)) == ("working", 3, 110.0, 15.0)
    assert found.shown_lag == "about 3"
    scene.waiting = 0
    assert scene.state("event-handler").lag_since == 0.0
    scene.waiting, now = 1, 130.0
    assert scene.state("event-handler").lag_since == 130.0


def test_models_are_those_of_all_workers(scene: Scene) -> None:
    scene.tell("model-server/0", model=ServedModel("3"))
    scene.tell("model-server/1", model=ServedModel("2", "version 3 is refused"))
    found = scene.state("model-server")
    assert (found.models, found.refused) == (("2", "3"), "version 3 is refused")


@pytest.mark.parametrize(
    ("report", "ended", "expected"),
    [
        (Report(ready=True, held="S3 is away"), False, "waiting"),
        (Report(), False, "starting"),
        (Report(ready=True), False, "idle"),
        (Report(ready=True), True, "idle"),
    ],
)
def test_a_function_does_what_its_workers_do(scene: Scene, report: Report, ended: bool, expected: str) -> None:
    process = scene.supervisor.processes["event-handler/1"]
    process.report, process.ended = report, ended
    found = scene.state("event-handler")
    assert (found.state, found.held) == (expected, report.held)
    scene.supervisor.processes["event-handler/0"].ended = True
    assert scene.state("event-handler").state == ("done" if ended else expected)


def test_a_run_ends_at_once_if_waiting_is_hopeless_and_else_after_a_while(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    scene.tell("event-handler/1", held="S3 is away")
    scene.pipeline.watch()
    now += 29.0
    scene.pipeline.watch()
    now += 2.0
    with pytest.raises(FunctionFailedError, match="event-handler/1 can't continue: S3 is away"):
        scene.pipeline.watch()
    scene.tell("event-handler/1")
    scene.pipeline.watch()
    told = {"held": "cell 2, line 5: KeyError: 'Jane'", "held_logged": "cell 2, line 5: KeyError"}
    scene.tell("event-handler/1", hopeless=True, **told)
    with pytest.raises(FunctionFailedError, match="event-handler/1 can't continue: cell 2, line 5: KeyError: 'Jane'"):
        scene.pipeline.watch()
    found = scene.state("event-handler")
    assert {"held": found.held, "held_logged": found.held_logged} == told


def test_without_a_terminal_it_is_told_at_once_and_once_that_a_function_is_held(
    capsys: pytest.CaptureFixture[str],
) -> None:
    display = Display(quiet=False, title="a pipeline")
    for held in ("", "S3 is away", "S3 is away", "", "S3 is away"):
        display.show([FunctionState(name="event-handler", state="waiting", counters=Counters(), held=held)], "7 lines")
    told = [line.split("s  ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert told == ["7 lines", "event-handler waits: S3 is away", "event-handler waits: S3 is away"]


def test_a_report_comes_through_the_line_as_it_was_sent() -> None:
    supervisors, end = Line.pair()
    sent = [
        Report(),
        Report(
            ready=True,
            counters=Counters(rows_in=3, rows_out=2, dead_letters=1, repeated=4, commits=5, committed_at=6.5),
            held="S3 is away",
            model=ServedModel("2", "version 3 is refused"),
        ),
    ]
    workers = Line(end)
    for report in sent:
        workers.send(report)
    workers.close()
    assert list(supervisors.reports()) == sent
    supervisors.close()


def test_the_live_table_shows_rows_and_their_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    display = Display(quiet=False, title="a pipeline")

    def shown(now: float, rows: int, **changes: Any) -> tuple[list[str], str]:
        counters = Counters(rows_in=rows, rows_out=rows // 2, dead_letters=7)
        function = FunctionState(**{"name": "event-handler", "state": "working", "counters": counters, **changes})
        console = Console(file=io.StringIO(), width=150)
        console.print(display._table([function], now))
        text = console.file.getvalue()  # type: ignore[attr-defined]
        row = next(line for line in text.split("\n") if "event-handler" in line)
        return [cell.strip() for cell in row.strip("│").split("│")], text

    assert shown(10.0, 0)[0] == ["event-handler", "working", "0", "0", "0", "0", "0", "7"]
    assert shown(11.0, 1000)[0] == ["event-handler", "working", "1,000", "1,000", "500", "500", "0", "7"]
    assert shown(14.0, 2500)[0][3] == "500", "since the second look: the first is more than two seconds old"
    cells, text = shown(15.0, 2500, state="waiting", held="S3 is away", restarts=2)
    assert cells[1] == "waiting (2 restarts)"
    assert "S3 is away" in text
