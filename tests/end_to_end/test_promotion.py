"""A pipeline that runs takes promoted versions, refuses what must not serve, and loses nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from modelstream.registry.registry import Registry
from tests.end_to_end.test_serve import ROOT, Service, event, serving, until
from tests.model_files import CHURN, SHIPPED, directory, folder_of, probability_of

IN_SERVICE_SECONDS = 5.0
"""What is promised."""
ROW = json.dumps({"inputs": [[0.0] * len(CHURN.features)]}).encode()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("MODELSTREAM_REGISTRY", str(tmp_path / "models"))
    made = Registry(tmp_path / "models", CHURN.model_name, CHURN.features, shipped=SHIPPED)
    assert [made.register(directory) for _ in range(3)] == ["2", "3", "4"]
    return made


def pipeline(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "pipeline.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )


def answered(service: Service) -> str:
    """Return the version that a V2 request reports, having checked that it is the one that made the answer."""
    status, answer = service.ask(f"/v2/models/{CHURN.model_name}/infer", ROW)
    assert status == 200, answer
    version: str = answer["model_version"]
    if version != "1":
        assert answer["probabilities"] == [pytest.approx(probability_of(version), rel=1e-5)]
    return version


def wait_for(service: Service, folder: Path, version: str) -> None:
    """Wait until requests and every worker have taken a version, no longer than is promised."""
    deadline = time.monotonic() + IN_SERVICE_SECONDS
    until(lambda: answered(service) == version, IN_SERVICE_SECONDS)
    until(lambda: set(served(folder).values()) == {version}, deadline - time.monotonic())


def model_status(folder: Path) -> Any:
    return json.loads(pipeline("status", "--json", "--data", str(folder)).stdout)["model"]


def served(folder: Path) -> dict[str, str]:
    return {name: one["version"] for name, one in json.loads((folder / "served.json").read_text()).items()}


def test_running_server_takes_what_is_promoted_and_refuses_what_must_not_serve(
    tmp_path: Path, registry: Registry
) -> None:
    folder = tmp_path / "data"
    sent = 0

    def send(service: Service, count: int = 20) -> None:
        nonlocal sent
        lines = [event("bet", i % 60, bet_amount=i + 1, user_id=f"u{i % 7}") for i in range(count)]
        assert service.ask("/events", b"\n".join(lines))[0] == 202
        sent += count

    def stored(count: int) -> pd.DataFrame:
        def look() -> list[pd.DataFrame]:
            rows = pd.read_parquet(folder / "inference") if (folder / "inference").is_dir() else pd.DataFrame()
            return [rows] if len(rows) >= count else []

        rows: pd.DataFrame = until(look, 30)[0]
        return rows

    with serving(folder, "--workers", "2") as service:
        for kind, fields in (("registration", {}), ("purchase", {"amount": 50})):
            lines = [event(kind, 0, user_id=f"u{i}", **fields) for i in range(7)]
            assert service.ask("/events", b"\n".join(lines))[0] == 202
        send(service)
        until(lambda: service.ask(f"/v2/models/{CHURN.model_name}/ready")[0] == 200, 90)
        assert answered(service) == "1"
        stored(sent)

        # Promoted while it runs, by the command.
        assert "3 serves from now on, instead of 1" in pipeline("models", "promote", "3").stdout
        wait_for(service, folder, "3")
        send(service)
        assert stored(sent)["model_version"].value_counts().to_dict() == {"1": 20, "3": 20}
        described = service.ask(f"/v2/models/{CHURN.model_name}")[1]
        assert described["versions"] == ["3"]
        assert service.ask(f"/v2/models/{CHURN.model_name}/versions/3/infer", ROW)[0] == 200
        assert service.ask(f"/v2/models/{CHURN.model_name}/versions/1/infer", ROW)[0] == 404

        # Changed after it was promoted: the old one goes on, and it is said once.
        registry.promote("2")
        wait_for(service, folder, "2")
        model = folder_of(registry) / "4" / "model.onnx"
        content = model.read_bytes()
        registry.load("4")
        model.write_bytes(b"\x80\x04\x95" + content)
        (folder_of(registry) / "current.json").write_text(
            (folder_of(registry) / "current.json").read_text().replace('"version": "2"', '"version": "4"', 1)
        )
        until(lambda: all(one["refused"] for one in model_status(folder)["serving"].values()), 10)
        send(service)
        assert stored(sent)["model_version"].value_counts().to_dict() == {"1": 20, "2": 20, "3": 20}
        assert answered(service) == "2"
        status = model_status(folder)
        assert (status["promoted"], set(status["serving"])) == ("4", {"model-server/0", "model-server/1"})
        assert all("sha256 is" in one["refused"] for one in status["serving"].values())
        metrics = service.ask("/metrics")[1]
        assert 'modelstream_model_refused{function="model-server"} 1.0' in metrics
        assert 'modelstream_model{function="model-server",version="2"} 1.0' in metrics
        assert "refused" in json.dumps(service.ask("/healthz")[1])
        log = (folder / "logs" / "model-server-0.log").read_text()
        assert log.count("version 4 is refused") == 1, log

        # Mended, and then back.
        model.write_bytes(content)
        registry.promote("4")
        wait_for(service, folder, "4")
        assert (
            'modelstream_model_refused{function="model-server"} 0.0'
            in until(
                lambda: [text for text in [service.ask("/metrics")[1]] if 'refused{function="model-server"} 0' in text],
                5,
            )[0]
        )
        send(service)
        stored(sent)
        service.stop()

    # The next start serves what is promoted.
    with serving(folder) as service:
        send(service)
        until(lambda: service.ask(f"/v2/models/{CHURN.model_name}/ready")[0] == 200, 90)
        assert answered(service) == "4"
        rows = stored(sent)
        service.stop()
    assert not rows.duplicated(["origin", "position"]).any()
    versions = rows["model_version"].value_counts().to_dict()
    assert versions == {"1": 20, "2": 20, "3": 20, "4": 40}
    of_tiny = rows[rows["model_version"] != "1"]
    expected = of_tiny["model_version"].map(probability_of).astype(float)
    assert (of_tiny[CHURN.probability] - expected).abs().max() < 1e-6


def test_start_tells_what_is_wrong_with_the_registry(tmp_path: Path, registry: Registry) -> None:
    alias = folder_of(registry) / "current.json"
    alias.write_text("{")
    command = [sys.executable, "pipeline.py", "run", "--users", "2", "--events-per-user", "2"]
    ended = subprocess.run(
        [*command, "--data", str(tmp_path / "data")], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    assert f"error: {alias} is broken" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_next_run_serves_what_is_promoted_and_after_a_rollback_what_was_before(
    tmp_path: Path, registry: Registry
) -> None:
    registry.promote("2")
    folder = tmp_path / "data"
    options = ("run", "--users", "20", "--events-per-user", "30", "--fresh", "--quiet", "--json", "--data", str(folder))
    summary = json.loads(pipeline(*options).stdout)
    assert summary["model_version"] == "2"
    assert pd.read_parquet(folder / "inference")["model_version"].unique().tolist() == ["2"]
    assert "1 serves again, instead of 2" in pipeline("models", "rollback").stdout
    summary = json.loads(pipeline(*options).stdout)
    assert summary["model_version"] == "1"
    rows = pd.read_parquet(folder / "inference")
    assert (len(rows), rows["model_version"].unique().tolist()) == (summary["predictions"], ["1"])
