"""What the model servers serve is written down for others to read."""

from __future__ import annotations

from pathlib import Path

from modelstream.runner.line import Report
from modelstream.runner.served import ServedModels, read_served
from modelstream.runner.supervisor import Process
from modelstream.stages.counters import ServedModel


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
