"""Events that are posted become stored predictions; Ctrl-C saves everything, and a second start goes on."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
START_SECONDS = 90.0
STORED_SECONDS = 30.0

Found = Any


@dataclass
class Service:
    """A running `pipeline.py serve`."""

    process: subprocess.Popen[str]
    url: str

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """POST a body, or GET; return the status and the answer, decoded if it is JSON."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}", body, timeout=20) as response:
                status, content = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        try:
            return status, json.loads(content)
        except ValueError:
            return status, content.decode()

    def stop(self) -> str:
        """Interrupt it as Ctrl-C does; return what it says."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        said, _ = self.process.communicate(timeout=30)
        took = time.monotonic() - begun
        assert self.process.returncode == 0
        assert took < 5.0
        return said


@contextmanager
def serving(folder: Path, *options: str, root: Path = ROOT) -> Iterator[Service]:
    errors = folder.parent / "stderr.txt"
    with errors.open("w") as stderr:
        usual = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests run under nohup
        command = [sys.executable, "pipeline.py", "serve", "--data", str(folder), "--port", "0", *options]
        process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=stderr, text=True)
        signal.signal(signal.SIGHUP, usual)
    try:

        def address() -> str | None:
            assert process.poll() is None, errors.read_text()
            found = re.search(r"http://127\.0\.0\.1:\d+", errors.read_text())
            return found[0] if found else None

        service = Service(process, until(address, START_SECONDS))
        yield service
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        with contextlib.suppress(ValueError):
            process.communicate()


def until(look: Callable[[], Found | None], seconds: float) -> Found:
    """Look again and again until there is something, or the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def event(kind: str, second: int, **fields: object) -> bytes:
    described = {"user_id": "u1", "event_type": kind, "event_time": f"2026-11-16 12:00:{second:02d}", **fields}
    return json.dumps(described).encode()


def predictions(folder: Path, count: int) -> pd.DataFrame:
    def look() -> list[pd.DataFrame]:
        if not (folder / "inference").is_dir():
            return []
        rows = pd.read_parquet(folder / "inference")
        return [rows] if len(rows) >= count else []

    rows: pd.DataFrame = until(look, STORED_SECONDS)[0]
    return rows.sort_values("event_time").reset_index(drop=True)


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "pipeline.py", *arguments, "--data", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def is_ready(service: Service) -> bool:
    return all(function["state"] != "starting" for function in service.ask("/healthz")[1]["functions"])


def test_events_become_predictions_and_a_second_start_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with serving(folder) as service:
        lines = [event("registration", 0), event("purchase", 1, amount=50), event("bet", 2, bet_amount=3)]
        assert service.ask("/events", b"\n".join(lines)) == (202, {"accepted": 3})
        assert service.ask("/events", b"[" + event("bet", 3, bet_amount=4) + b"]") == (202, {"accepted": 1})
        assert service.ask("/events", event("bet", 4))[0] == 202, "no amount: a dead letter later on"
        assert service.ask("/events", b'{"user_id": ')[0] == 400
        rows = predictions(folder, 2)
        assert rows[["bet_sum", "bet_count", "purchase_sum"]].to_numpy().tolist() == [[3, 1, 50], [7, 2, 50]]
        until(lambda: is_ready(service), START_SECONDS)

        status, answer = service.ask("/v2/models/churn/infer", json.dumps({"inputs": [[0.0] * 13]}).encode())
        assert (status, len(answer["outputs"]), len(answer["probabilities"])) == (200, 1, 1)
        status, answer = service.ask("/v2/models/churn/infer", b'{"inputs": [[1]]}')
        assert (status, "13" in answer["error"]) == (400, True)
        assert service.ask("/v2/models/churn/ready")[0] == 200
        assert service.ask("/healthz")[0] == 200
        metrics = service.ask("/metrics")[1]
        assert 'modelstream_rows_in_total{function="event-handler"} 5.0' in metrics
        assert 'modelstream_lookup_misses_total{function="stream-to-features"} 1.0' in metrics

        # Looking while it runs.
        assert json.loads(run("status", "--json", folder=folder).stdout)["running"] is True
        letters = [json.loads(line) for line in run("peek", "dead-letters", folder=folder).stdout.splitlines()]
        assert [letter["reason"] for letter in letters] == ["bet_amount: missing"]

        # What is in hand when it is told to end.
        assert service.ask("/events", event("bet", 5, bet_amount=5)) == (202, {"accepted": 1})
        said = service.stop()
        assert "6 events taken by HTTP" in said
        assert "event-handler" in said
        assert "1 of 1 lookups" in said and "The table enrichment is empty" in said

    with serving(folder) as service:
        assert service.ask("/events", event("bet", 6, bet_amount=6)) == (202, {"accepted": 1})
        rows = predictions(folder, 4)
        assert rows["bet_sum"].tolist() == [3, 7, 12, 18]
        until(lambda: is_ready(service) and not sum(f["lag"] for f in service.ask("/healthz")[1]["functions"]), 30)
        service.stop()
    assert len(pd.read_parquet(folder / "events")) == 6
    assert run("replay", folder=folder).returncode == 0
    explained = json.loads(run("explain", "u1", "--json", folder=folder).stdout)
    assert (explained["events"], explained["vectors"], explained["vector"]["bet_sum"]) == (6, 4, 18.0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_in_time_while_it_is_still_starting(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path / "data") as service:
        begun = time.monotonic()
        os.kill(service.process.pid, number)
        assert service.process.wait(10) == 0
        assert time.monotonic() - begun < 5.0


def test_a_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run("serve", "--port", port, folder=tmp_path / "data")
    assert ended.returncode == 1
    assert f"port {port} of 127.0.0.1 is in use" in ended.stderr
    assert "--port" in ended.stderr


def test_a_deleted_folder_ends_it_with_an_error_and_nothing_is_said_to_be_saved(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with serving(folder) as service:
        assert service.ask("/events", event("bet", 1, bet_amount=1))[0] == 202
        folder.rename(tmp_path / "moved")
        with contextlib.suppress(OSError):  # it has ended already
            assert service.ask("/events", event("bet", 2, bet_amount=1))[0] == 503
        assert service.process.wait(20) == 1
        said = service.process.communicate()[0] + (tmp_path / "stderr.txt").read_text()
    assert re.search(rf"^error: {folder}\S* was deleted, moved or replaced while it was in use$", said, re.MULTILINE)
    assert "saved" not in said
    assert not folder.exists()


def worker_of(service: Service, notebook: str) -> int:
    """Return the process of a function of `serve`."""
    parent = service.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return next(int(pid) for pid in children if notebook in Path(f"/proc/{pid}/cmdline").read_text())


@pytest.mark.skipif(sys.platform != "linux", reason="finds the process in /proc")
def test_a_pipeline_that_is_behind_takes_no_more_until_it_has_caught_up(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with serving(folder, "--max-delay", "12") as service:
        until(lambda: is_ready(service), START_SECONDS)
        taken = 0
        stopped = worker_of(service, "stream-to-features.ipynb")
        os.kill(stopped, signal.SIGSTOP)
        try:
            lines = [event("registration", 0), event("purchase", 1, amount=50)]
            assert service.ask("/events", b"\n".join(lines))[0] == 202

            def is_refused() -> str:
                nonlocal taken
                status, answer = service.ask("/events", event("bet", 2, bet_amount=3))
                taken += status == 202
                return str(answer["error"]) if status == 503 else ""

            assert "waiting for" in until(is_refused, 30)
            assert "modelstream_delay_seconds" in service.ask("/metrics")[1]
        finally:
            os.kill(stopped, signal.SIGCONT)

        def is_taken() -> bool:
            nonlocal taken
            status = service.ask("/events", event("bet", 2, bet_amount=3))[0]
            taken += status == 202
            return status == 202

        until(is_taken, 30)
        assert len(predictions(folder, taken)) == taken
