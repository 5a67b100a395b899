"""What the supervisor remembers of a worker from life to life."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelstream.runner.line import Report
from modelstream.runner.supervisor import Process, Supervisor


def test_what_held_a_worker_is_known_until_its_next_life_is_ready() -> None:
    process = Process("event-handler", (), {}, Path("log"), report=Report(held="S3 is away"))
    seen = []

    class Told:
        def reports(self) -> Iterator[Report]:
            for report in (Report(), Report(rows_in=1), Report(ready=True), Report()):
                yield report
                seen.append(process.report.held)

    line: Any = Told()
    supervisor = Supervisor(lock=0)
    with supervisor:
        supervisor._listen(process, line)
    assert seen == ["S3 is away", "S3 is away", "", ""]
