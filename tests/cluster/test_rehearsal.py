"""What a cluster does, in its order, all of it real but Nuclio: Kafka, Redis, an S3 server, MLRun's runs of jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelstream.cluster import functions
from modelstream.cluster.config import Cluster
from modelstream.cluster.file import load_cluster
from modelstream.project import load_project
from modelstream.registry.registry import Registry
from modelstream.use_case.file import load_use_case
from servers.kafka import KafkaServer
from servers.redis import RedisServer
from servers.s3 import BUCKET, S3Server
from tests.required import require

ROOT = Path(__file__).parents[2]
PROJECT = load_project(ROOT / "project.yaml")
SETTINGS = "MODELSTREAM_"
USERS = ("--users", "150", "--events-per-user", "60")


@pytest.fixture
def cluster(broker: KafkaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The shipped file, with servers of this machine for the cluster's."""
    require(RedisServer, S3Server)
    for name in [name for name in os.environ if name.startswith(SETTINGS) and name != f"{SETTINGS}CI"]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("MLRUN_DBPATH", raising=False)
    with RedisServer() as redis, S3Server() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        mine = {
            "streams: ": broker.url("rehearsal"),
            "tables: ": redis.url("rehearsal"),
            "logs: ": f"s3://{BUCKET}/rehearsal",
            "folder: ": str(ROOT),
        }
        lines = (ROOT / "clusters" / "kafka.yaml").read_text().splitlines()
        for start, value in mine.items():
            lines = [start + value if line.startswith(start) else line for line in lines]
        file = tmp_path / "cluster.yaml"
        file.write_text("\n".join(lines))
        yield load_cluster(file, PROJECT)


def job(cluster: Cluster, name: str, **params: Any) -> dict[str, Any]:
    """Let MLRun run a job of the project, in a process of its own with a pod's environment; return its results."""
    told = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    told |= functions.environment(PROJECT, cluster, name)
    asked = json.dumps({"name": name, "job": functions.JOBS.get(name, ""), "params": params})
    command = [sys.executable, "-c", PROGRAM, str(ROOT), asked]
    done = subprocess.run(command, env=told, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    results: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return results


PROGRAM = """
import json, sys, tempfile
import mlrun
asked = json.loads(sys.argv[2])
if asked["job"]:
    function = mlrun.new_function(asked["name"], kind="job", image="none")
    handler = f"modelstream.cluster.jobs.{asked['name']}"
else:
    function = mlrun.load_project(sys.argv[1], save=False).get_function(asked["name"])
    handler = function.spec.default_handler
with tempfile.TemporaryDirectory() as folder:
    run = function.run(handler=handler, params=asked["params"], local=True, output_path=folder)
assert run.status.state == "completed", run.status.error
print(json.dumps(run.status.results or {}, default=str))
"""


def run(cluster: Cluster, data: Path) -> dict[str, Any]:
    """Run the functions over the cluster's stores, from the generator's events to the last prediction."""
    places = ("--streams", cluster.streams, "--tables", cluster.tables, "--logs", cluster.logs)
    command = [sys.executable, str(ROOT / "pipeline.py"), "run", *USERS, "--json", "--data", str(data), *places]
    told = os.environ | {f"{SETTINGS}REGISTRY": cluster.registry_url()}
    done = subprocess.run(command, env=told, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def test_from_nothing_to_a_model_of_ones_own_and_back_to_nothing(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job(cluster, "prepare")
    first = run(cluster, tmp_path / "first")
    assert first["model_version"] == "1"
    assert first["predictions"] == first["vectors"] > 1000
    job(cluster, "drained", timeout=30)

    results = job(cluster, "training", candidates="logistic-regression")
    assert results["version"] == "2"
    assert results["folder"] == f"{cluster.logs}/models/churn/2"
    assert 0.5 < results["auc"] <= 1
    job(cluster, "promote", version=results["version"], chosen=True)  # of so few users, it may be worse
    monkeypatch.setenv(f"{SETTINGS}REGISTRY", cluster.registry_url())
    assert Registry.of_project(PROJECT, load_use_case(ROOT / PROJECT.params.use_case)).current() == "2"

    again = run(cluster, tmp_path / "first")  # sends nothing: all of it was sent
    assert (again["events"], again["folder"], again["model_version"]) == (0, first["folder"], "2")

    job(cluster, "remove")
    job(cluster, "prepare")
    anew = run(cluster, tmp_path / "second")
    assert {name: anew[name] for name in ("events", "vectors", "predictions")} == {
        name: first[name] for name in ("events", "vectors", "predictions")
    }
    assert anew["model_version"] == "2", "models stay"
