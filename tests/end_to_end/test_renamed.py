"""Nothing bypasses project.yaml: with every stream, table, log and function renamed there, the results are the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from modelstream.project import load_project
from modelstream.settings import StoreUrls
from modelstream.training.snapshot.data import open_data
from tests.end_to_end.test_run import ENRICHMENT, GOLDEN, ROOT, run, run_to_end

NAMES = {
    "streams": {
        "generated": "raw",
        "incoming-events": "clean",
        "serving": "vectors",
        "inference": "answers",
        "dead-letters": "unreadable",
    },
    "tables": {"enrichment": "postcodes", "features": "players"},
    "logs": {"events": "kept-events", "inference": "kept-answers"},
    "functions": {
        "data-generator": "reader",
        "event-handler": "cleaner",
        "stream-to-features": "counter",
        "model-server": "oracle",
        "inference-logger": "keeper",
        "training": "school",
    },
}
MADE_NOW = ["ingested_at", "predicted_at"]
"""Columns that hold when a run did something."""


@pytest.fixture
def renamed(tmp_path: Path) -> Path:
    """Return a copy of the project in which everything has another name."""
    folder = tmp_path / "project"
    for name in ("functions", "use_cases", "assets/models"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "pipeline.py", folder)
    use_case = folder / "use_cases" / "churn.yaml"
    text = use_case.read_text()
    assert text.count("look_up: enrichment") == 1
    use_case.write_text(text.replace("look_up: enrichment", f"look_up: {NAMES['tables']['enrichment']}"))
    project = yaml.safe_load((ROOT / "project.yaml").read_text())
    spec, params = project["spec"], project["spec"]["params"]
    for kind in ("streams", "tables", "logs"):
        params[kind] = [NAMES[kind][name] for name in params[kind]]
    params["dead_letters"] = NAMES["streams"][params["dead_letters"]]
    params["wiring"] = {NAMES["functions"][name]: _rewired(wire) for name, wire in params["wiring"].items()}
    for function in spec["functions"]:
        function["name"] = NAMES["functions"][function["name"]]
    (folder / "project.yaml").write_text(yaml.safe_dump(project, sort_keys=False))
    return folder


def _rewired(wire: dict[str, str]) -> dict[str, str]:
    kinds = {"reads": "streams", "writes": "streams", "table": "tables", "log": "logs"}
    return {name: NAMES[kinds[name]][value] if name in kinds else value for name, value in wire.items()}


def results(root: Path, data: Path, names: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Return what is found of a run, by the project's names for it."""
    found: dict[str, Any] = {}
    for log in ("events", "inference"):
        rows = pd.read_parquet(data / names["logs"][log]).sort_values(["origin", "position"], kind="stable")
        found[log] = rows.drop(columns=MADE_NOW, errors="ignore").reset_index(drop=True)
    for table in ("enrichment", "features"):
        name = names["tables"][table]
        printed = run("table", name, "--format", "csv", "--data", str(data), root=root)
        assert printed.returncode == 0, printed.stderr
        found[table] = printed.stdout
    letters = run("peek", names["streams"]["dead-letters"], "--last", "1000", "--data", str(data), root=root).stdout
    told = [json.loads(line) for line in letters.splitlines()]
    found["dead letters"] = sorted((one["origin"], one["position"], one["reason"], one["text"]) for one in told)
    status = json.loads(run("status", "--json", "--data", str(data), root=root).stdout)
    for kind in ("streams", "tables", "logs"):
        assert list(status[kind]) == [*names[kind].values()], kind
    assert list(status["functions"]) == [*names["functions"].values()][1:5]
    assert {one["lag"] for one in status["functions"].values()} == {0}
    found["counts"] = {name: status[name] for name in ("vectors", "not_counted", "dead_letters")}
    return found


def test_renamed_project_gives_the_same_results(renamed: Path, tmp_path: Path) -> None:
    source, other = tmp_path / "events.ndjson", tmp_path / "other"
    source.write_bytes((GOLDEN / "edge_events.ndjson").read_bytes() + b"no event\n")
    arguments = ("run", "--input", str(source), *ENRICHMENT, "--data", str(other))
    as_shipped = {kind: {name: name for name in names} for kind, names in NAMES.items()}

    usual = run_to_end(*arguments[:-1], str(tmp_path / "data"))
    told = run_to_end(*arguments, root=renamed)
    counted = ("events", "vectors", "predictions", "dead_letters", "not_counted", "model_version")
    assert {name: told[name] for name in counted} == {name: usual[name] for name in counted}
    assert usual["dead_letters"] > 0 < usual["predictions"]

    expected, found = results(ROOT, tmp_path / "data", as_shipped), results(renamed, other, NAMES)
    for log in ("events", "inference"):
        pd.testing.assert_frame_equal(found.pop(log), expected.pop(log))
    assert found == expected
    entries = {entry.name for entry in other.iterdir()} - {"streams", "tables", "logs", "modelstream.json", ".lock"}
    assert entries == {*NAMES["logs"].values(), *(f".{log}.writing" for log in NAMES["logs"].values()), "served.json"}
    assert run("replay", "--data", str(other), root=renamed).returncode == 0
    key = found["features"].splitlines()[1].split(",")[0].strip('"')
    assert run("explain", key, "--data", str(other), root=renamed).returncode == 0

    project = load_project(renamed / "project.yaml")
    with open_data(project.settings("school", StoreUrls().within(other), folder=renamed)) as data:
        assert data.stores.events_log.count() == usual["events"]
        assert data.stores.inference_log.count() == usual["predictions"]
        assert data.stores.features.count() == len(expected["features"].splitlines()) - 1

    begun_anew = run_to_end(*arguments, "--fresh", root=renamed)
    assert {name: begun_anew[name] for name in counted} == {name: usual[name] for name in counted}
    assert str(other / NAMES["logs"]["inference"]) in run(*arguments, root=renamed).stdout, "the hints name them"
