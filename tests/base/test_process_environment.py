"""Each process works on one thread, and MLRun says nothing of its own in it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from modelstream.base.process_environment import ONE_THREAD, QUIET_MLRUN, on_this_machine
from modelstream.cluster import functions
from modelstream.cluster.file import load_cluster
from modelstream.project import load_project
from modelstream.runner.pipeline import PROCESS

ROOT = Path(__file__).parents[2]


def said(code: str, environment: dict[str, str]) -> str:
    others = ("MLRUN", "OMP", "OPENBLAS", "ARROW")
    usual = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, env={**usual, **environment}).stdout


def test_libraries_take_one_thread() -> None:
    code = (
        "import numpy, pyarrow, sklearn.metrics, threadpoolctl\n"
        "print({one['num_threads'] for one in threadpoolctl.threadpool_info()}, pyarrow.io_thread_count())"
    )
    assert said(code, ONE_THREAD) == "{1} 1\n"


def test_mlrun_does_not_warn_of_a_missing_server() -> None:
    code = "from mlrun.config import config; print(config.httpdb.nop_db.verbose, config.log_level)"
    assert said(code, {}) == "True INFO\n"
    assert said(code, QUIET_MLRUN) == "False ERROR\n"


def test_on_this_machine_mlrun_asks_no_server_whatever_its_settings_say(tmp_path: Path) -> None:
    away = "http://127.0.0.1:1"
    (tmp_path / ".mlrun.env").write_text(f"MLRUN_DBPATH={away}\n")
    (tmp_path / "mlrun.yaml").write_text(f"dbpath: {away}\n")
    settings = {
        "HOME": str(tmp_path),
        "MLRUN_DBPATH": away,
        "MLRUN_CONFIG_FILE": str(tmp_path / "mlrun.yaml"),
        "MLRUN_EXEC_CONFIG": "{",
        "V3IO_API": away,
        "PYTHONWARNINGS": "error",
    }
    code = "import mlrun; print(mlrun.mlconf.dbpath, mlrun.get_or_create_ctx('train', project='p').name)"
    begun = time.monotonic()
    assert said(code, {**on_this_machine(settings), **QUIET_MLRUN}) == " train\n"
    assert time.monotonic() - begun < 40, "MLRun asks for 59 s"


def test_processes_here_and_on_a_cluster_are_given_them() -> None:
    project = load_project(ROOT / "project.yaml")
    cluster = load_cluster(ROOT / "clusters" / "kafka.yaml", project)
    assert (ONE_THREAD | QUIET_MLRUN).items() <= PROCESS.items()
    for name in project.functions:
        assert ONE_THREAD.items() <= functions.environment(project, cluster, name).items()
