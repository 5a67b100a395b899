"""What the supervisor remembers of a worker from life to life."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelstream.runner.line import Report
from modelstream.runner.supervisor import FunctionFailedError, Process, Supervisor
from modelstream.stages.counters import Counters


def test_what_held_a_worker_is_known_until_its_next_life_is_ready() -> None:
    process = Process("event-handler", (), {}, Path("log"), report=Report(held="S3 is away"))
    seen = []

    class Told:
        def reports(self) -> Iterator[Report]:
            for report in (Report(), Report(counters=Counters(rows_in=1)), Report(ready=True), Report()):
                yield report
                seen.append(process.report.held)

    line: Any = Told()
    supervisor = Supervisor(lock=0)
    with supervisor:
        supervisor._listen(process, line)
    assert seen == ["S3 is away", "S3 is away", "", ""]


def test_what_earlier_lives_did_is_added_up() -> None:
    process = Process("event-handler", (), {}, Path("log"))
    with Supervisor(lock=0) as supervisor:
        for rows, held in ((3, ""), (0, "S3 is away"), (4, "")):
            process.report = Report(
                ready=True, counters=Counters(rows_in=rows, commits=1, committed_at=rows), held=held
            )
            supervisor._note_death(process, status=-9)
            assert process.report == Report(held=held)
    process.report = Report(counters=Counters(rows_in=5, repeated=4))
    assert process.counters() == Counters(rows_in=12, repeated=4, commits=3, committed_at=4)


def test_a_process_that_can_not_save_ends_the_pipeline_even_a_service(tmp_path: Path) -> None:
    with Supervisor(lock=0) as supervisor:
        supervisor.gives_up = False
        supervisor.processes["f"] = Process("f", (), {}, tmp_path / "log")
        supervisor.watch()
        supervisor.processes["f"].report = Report(ready=True, error="f.db was deleted", remedy="restore it", gone=True)
        for look in (supervisor.watch, supervisor.check_saves):
            with pytest.raises(FunctionFailedError, match=r"f\.db was deleted") as raised:
                look()
            assert raised.value.remedy == "restore it"
