"""Looking first: `deploy --dry-run` and `--diff`."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest

from modelstream.cluster import api as mlrun_client
from modelstream.cluster.compiler import COMPILER
from modelstream.cluster.options import WorkflowOptions
from modelstream.errors import ConfigurationError
from tests.cluster.deploying import (
    asked,
    load_what_is_written,
    loaded,
    without_placeholders,
)
from tests.cluster.mlrun_api import StandIn

pytestmark = pytest.mark.xdist_group("mlrun")


def test_dry_run_without_a_compiler_writes_the_plan_and_says_what_to_replace(
    written: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(COMPILER, str(tmp_path / "python"))
    load_what_is_written(written, monkeypatch)
    lines = asked("kafka", dry_run=True, output=tmp_path / "build")
    assert (tmp_path / "build" / "plan.yaml").read_text() == loaded(written, "kafka").describe()
    assert "was not compiled" in lines[-1] and "make kfp" in lines[-1]
    told = capsys.readouterr().out
    assert told.startswith("The project modelstream")
    assert "kafka.yaml, line 10, image: registry.example.com/modelstream:0.1.0 → the image that you" in told
    assert "source" not in told, "only --engine remote needs it"


def test_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file can't be written") as raised:
        asked("kafka", dry_run=True, output=tmp_path / "file")
    assert "--output" in raised.value.remedy


def test_difference_to_what_is_deployed_is_told_field_by_field(
    written: dict[str, Any], api: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlrun_client.connect()
    deployment = loaded(written, "kafka")
    deployment.run("local", WorkflowOptions())
    steps = [*api.steps]
    api.stored["old"] = {"metadata": {"name": "old"}, "spec": {}}
    load_what_is_written(written, monkeypatch)
    unchanged = asked("kafka", diff=True, output=tmp_path)
    assert unchanged[0] == f"no difference: {', '.join(deployment.runtimes)}"
    assert unchanged[-1].endswith("`deploy` leaves them as they are: old")

    file = without_placeholders(tmp_path, **{"memory_limit: 3Gi": "memory_limit: 4Gi", "replicas: 1,": "replicas: 2,"})
    file.write_text(file.read_text().replace("env: {}", "env: {MINE: a}"))
    api.stored["event-handler"]["spec"]["build"]["functionSourceCode"] = base64.b64encode(b"x = 1").decode()
    del api.stored["model-server"]
    told = "\n".join(asked(file, diff=True, output=tmp_path))
    image = "image: registry.example.com/modelstream:0.1.0 → registry.local/modelstream:0.1.0"
    assert f"stream-to-features:\n  {image}\n  variable MINE: new, a\n  memory, limit: 3Gi → 4Gi\n" in told
    assert "  replicas: 1 → 2\n" in told
    assert "model-server: not there yet" in told
    assert re.search(r"  lines of code: \d+ added, 1 removed\n    -x = 1\n", told)
    assert api.steps == steps, "nothing is sent"
