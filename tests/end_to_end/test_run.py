"""`pipeline.py run` as a person uses it: the golden data to the last bit, going on, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
ENRICHMENT = ["--enrichment", str(GOLDEN / "enrichment.csv")]
TIMEOUT = 240


def start(*arguments: str, root: Path = ROOT, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, str(root / "pipeline.py"), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, text=True, preexec_fn=_heed_interrupts, stdout=pipe, stderr=pipe, **options)


def _heed_interrupts() -> None:
    """A shell lets what it starts in the background ignore SIGINT, and so would all that the tests start there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.umask(0)


def run(*arguments: str, root: Path = ROOT, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "pipeline.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, input=stdin)


def run_to_end(*arguments: str, root: Path = ROOT, stdin: str | None = None) -> dict[str, Any]:
    done = run(*arguments, "--json", root=root, stdin=stdin)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def assert_vectors_equal(data: Path, expected: str) -> None:
    wanted = pd.read_parquet(GOLDEN / f"{expected}expected_vectors.parquet")
    found = pd.read_parquet(data / "inference").sort_values("position", kind="stable")
    features = list(wanted.columns[3:])
    assert found["user_id"].tolist() == wanted["user_id"].tolist()
    assert found["event_type"].tolist() == wanted["event_type"].tolist()
    assert (pd.to_datetime(wanted["event_time"], utc=True, format="ISO8601").tolist()) == found["event_time"].tolist()
    np.testing.assert_array_equal(found[features].to_numpy(), wanted[features].to_numpy())


def assert_rows_equal(data: Path, expected: str, folder: Path) -> None:
    output = folder / "features.parquet"
    assert run("table", "features", "--format", "parquet", "--output", str(output), "--data", str(data)).returncode == 0
    wanted = pd.read_parquet(GOLDEN / f"{expected}expected_rows.parquet").set_index("user_id").sort_index()
    found = pd.read_parquet(output).set_index("user_id").sort_index()
    assert found.index.tolist() == wanted.index.tolist()
    assert found["label"].tolist() == wanted["label"].tolist()
    features = [name for name in wanted.columns if name != "label"]
    values = found[features].fillna({"socioeconomic_idx": 0.0}).to_numpy(np.float64)
    np.testing.assert_array_equal(values, wanted[features].fillna({"socioeconomic_idx": 0.0}).to_numpy(np.float64))


def test_golden_events_come_out_to_the_bit_and_a_file_that_grows_goes_on(tmp_path: Path) -> None:
    source, data = tmp_path / "events.ndjson", tmp_path / "data"
    lines = (GOLDEN / "reference_events.ndjson").read_bytes().splitlines(keepends=True)
    arguments = ("run", "--input", str(source), *ENRICHMENT, "--data", str(data))

    source.write_bytes(b"".join(lines[:5000]) + lines[5000][:50])
    first = run_to_end(*arguments)
    assert (first["events"], first["dead_letters"], first["unfinished_line"]) == (5000, 0, 5001)
    assert first["predictions"] == first["vectors"] == len(pd.read_parquet(data / "inference"))

    source.write_bytes(b"".join(lines))
    second = run_to_end(*arguments)
    assert (second["events"], second["folder"]["events"]) == (len(lines) - 5000, len(lines))
    assert second["predictions_by_version"] == {"1": second["predictions"]}
    assert (second["dead_letters"], second["unfinished_line"]) == (0, 0)
    assert_vectors_equal(data, "")
    assert_rows_equal(data, "", tmp_path)
    events = pd.read_parquet(data / "events")
    assert sorted(events["position"]) == list(range(len(lines)))

    again = run_to_end(*arguments)
    assert (again["events"], again["predictions"], again["predictions_by_version"]) == (0, 0, {})
    assert again["folder"] == second["folder"]

    replayed = run("replay", "--data", str(data))
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr

    source.write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))
    changed = run(*arguments)
    assert changed.returncode != 0
    assert "changed" in changed.stderr

    other_shards = run(*arguments, "--shards", "4")
    assert other_shards.returncode != 0
    assert "made with 8 shards, not 4" in other_shards.stderr


@pytest.mark.parametrize("workers", ["1", "3"])
def test_odd_events_come_out_to_the_bit_with_any_number_of_workers(tmp_path: Path, workers: str) -> None:
    data = tmp_path / "data"
    source = str(GOLDEN / "edge_events.ndjson")
    result = run_to_end("run", "--input", source, *ENRICHMENT, "--data", str(data), "--workers", workers)
    assert result["events"] == sum(bool(line.strip()) for line in Path(source).read_bytes().split(b"\n"))
    assert result["dead_letters"] == 0
    assert_vectors_equal(data, "edge_")
    assert_rows_equal(data, "edge_", tmp_path)


def bad_lines() -> list[bytes]:
    good = b'{"user_id": "u1", "event_type": "bet", "event_time": "2026-03-28 20:00:00", "bet_amount": 1'
    return [
        good,
        b'{"event_type": "bet", "event_time": "2026-03-28 20:00:00", "bet_amount": 1}',
        b'{"user_id": "", "event_type": "bet", "event_time": "2026-03-28 20:00:00", "bet_amount": 1}',
        b'{"user_id": null, "event_type": "bet", "event_time": "2026-03-28 20:00:00", "bet_amount": 1}',
        b'{"user_id": 1.5, "event_type": "bet", "event_time": "2026-03-28 20:00:00", "bet_amount": 1}',
        b'{"user_id": "u1", "event_type": "bet", "bet_amount": 1}',
        b'{"user_id": "u1", "event_type": "bet", "event_time": "soon", "bet_amount": 1}',
        b'{"user_id": "u1", "event_type": "bet", "event_time": 5, "bet_amount": 1}',
        b'{"user_id": "u1", "event_type": "bet", "event_time": "2026-03-28 20:00:00"}',
        b'{"user_id": "u1", "event_type": "bet", "event_time": "2026-03-28 20:00:00", "bet_amount": "1"}',
        b'{"user_id": "u1", "event_type": "bet", "event_time": "2026-03-28 20:00:00", "bet_amount": NaN}',
        b'{"user_id": "u1", "event_type": "bet", "event_time": "2026-03-28 20:00:00", "bet_amount": Infinity}',
        b'{"user_id": "u1", "event_type": "bet", "event_time": "2026-03-28 20:00:00", "bet_amount": 1e999}',
        b'{"user_id": "u\xff", "event_type": "bet", "event_time": "2026-03-28 20:00:00", "bet_amount": 1}',
        b"[1, 2]",
        b'"text"',
        b"null",
        b"not json",
        b'{"a":' * 100_000,
        b'{"user_id": "u1", "text": "' + b"x" * 20_000_000 + b'"}',
    ]


def test_every_bad_line_is_one_dead_letter_and_the_good_ones_go_on(tmp_path: Path) -> None:
    good = (GOLDEN / "reference_events.ndjson").read_bytes().splitlines()[:600]
    bad = bad_lines()
    mixed = [line for i, one in enumerate(good) for line in ([one, b"", bad[i]] if i < len(bad) else [one])]
    unknown = b'{"user_id": "u1", "event_type": "login", "event_time": "2026-03-28 20:00:00", "device": {"os": "x"}}'
    source, data = tmp_path / "events.ndjson", tmp_path / "data"
    source.write_bytes(b"\r\n".join([*mixed, unknown]))

    result = run_to_end("run", "--input", str(source), *ENRICHMENT, "--data", str(data))

    assert result["events"] == len(good) + 1
    assert result["dead_letters"] == len(bad)
    assert result["not_counted"]["unknown_type"] == 1
    events = pd.read_parquet(data / "events")
    assert events.loc[events["event_type"] == "login", "extra"].tolist() == ['{"device": {"os": "x"}}']
    letters = run("peek", "dead-letters", "--last", "1000", "--data", str(data))
    assert letters.returncode == 0
    assert "longer than 1,000,000 bytes: 20,000,030" in letters.stdout


def test_standard_input_is_read_to_its_end(tmp_path: Path) -> None:
    text = "\n".join((GOLDEN / "reference_events.ndjson").read_text().splitlines()[:300])
    result = run_to_end("run", "--input", "-", "--data", str(tmp_path / "data"), "--quiet", stdin=text)
    assert result["events"] == 300


def copy_of_project(folder: Path) -> Path:
    for name in ("pipeline.py", "project.yaml", "functions", "use_cases", "assets"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    return folder


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_an_edited_notebook_is_what_runs(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    edit(
        project / "functions" / "model-server.ipynb", "threshold: float | None = None", "threshold: float | None = 2.0"
    )
    data = tmp_path / "data"
    arguments = ("--users", "20", "--events-per-user", "100", "--seed", "3", "--data", str(data))
    result = run_to_end("run", *arguments, root=project)
    predictions = pd.read_parquet(data / "inference")
    assert result["events"] == 2020
    assert (predictions["about_to_churn_probability"] > 0.5).any()
    assert predictions["about_to_churn"].sum() == 0


def test_mistakes_are_told_with_a_remedy(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    missing = run("run", "--input", str(tmp_path / "none.ndjson"), *data)
    assert missing.returncode == 1
    assert "none.ndjson" in missing.stderr and "Traceback" not in missing.stderr
    assert not (tmp_path / "data").exists()

    (tmp_path / "events.json").write_text('[{"user_id": "u1"}]')
    array = run("run", "--input", str(tmp_path / "events.json"), *data)
    assert array.returncode == 3
    assert "is a JSON array, not JSON lines" in array.stderr and "jq -c" in array.stderr
    assert not (tmp_path / "data").exists()

    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "thesis.doc").write_text("")
    strange = run("run", "--data", str(tmp_path / "strange"), "--fresh")
    assert strange.returncode == 1
    assert (tmp_path / "strange" / "thesis.doc").exists()
    assert "is not empty, and not the data folder of a pipeline" in strange.stderr

    broken = tmp_path / "postcodes.csv"
    broken.write_text("postcode,socioeconomic_idx\n1,2\n3,much\n")
    source = str(GOLDEN / "edge_events.ndjson")
    refused = run("run", "--input", source, "--enrichment", str(broken), *data)
    assert refused.returncode == 1
    assert "postcodes.csv" in refused.stderr and "Traceback" not in refused.stderr

    (tmp_path / "project").mkdir()
    project = copy_of_project(tmp_path / "project")
    edit(project / "use_cases" / "churn.yaml", "give: [sum,", "give: [summ,")
    unknown = run("run", *data, root=project)
    assert unknown.returncode == 1
    assert "churn.yaml" in unknown.stderr and "summ" in unknown.stderr and "Traceback" not in unknown.stderr


def test_interrupted_run_saves_and_goes_on_and_its_folder_is_not_shared(tmp_path: Path) -> None:
    data = tmp_path / "data"
    arguments = ("run", "--users", "40", "--events-per-user", "1000", "--data", str(data))
    deep = tmp_path / ("x" * 110)  # the paths of sockets are at most 107 bytes
    deep.mkdir()
    odd = {"MLRUN_DBPATH": "http://127.0.0.1:1", "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "ascii"}
    environment = os.environ | odd | {"HOME": "/dev/null", "TMPDIR": str(deep)}
    # 100 s, to be interrupted in time
    first = start(*arguments, "--rate", "400", "--json", start_new_session=True, env=environment)
    inference = data / "inference"
    deadline = time.monotonic() + TIMEOUT
    while not any(inference.glob("0*.parquet")):
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.02)

    second = run("run", "--data", str(data))
    assert second.returncode == 1
    assert "in use by another run" in second.stderr

    os.killpg(first.pid, signal.SIGHUP)  # as when the terminal is closed: the workers get it too
    _, told = first.communicate(timeout=30)
    assert first.returncode == 130
    assert "saved" in told
    assert "Warning" not in told
    assert [entry for entry in (data, *data.rglob("*")) if entry.stat().st_mode & 0o077] == [], (
        "only its owner reads it"
    )

    done = run_to_end(*arguments, "--rate", "4000")
    assert done["folder"]["events"] == 40 * 1001 > done["events"]
    assert done["folder"]["predictions"] == done["folder"]["vectors"]
    found = pd.read_parquet(inference)
    assert not found.duplicated(["origin", "position"]).any()
    assert set(done["delay_ms"]) == {"p50", "p99"}


OTHER_BACKENDS = (
    *("cluster", "clients.v3io", "clients.s3", "logs.bucket", "registry.bucket"),
    *("streams.kafka", "streams.v3io", "tables.redis", "tables.v3io"),
)
"""Modules, and the beginnings of their neighbours' names, that a pipeline over SQLite and folders does without."""


@pytest.mark.parametrize("name", OTHER_BACKENDS)
def test_module_of_another_backend_exists(name: str) -> None:
    assert importlib.util.find_spec(f"modelstream.{name}") is not None


def test_nothing_of_other_backends_is_imported_and_mlrun_in_the_model_server_only(tmp_path: Path) -> None:
    source, data = str(GOLDEN / "edge_events.ndjson"), tmp_path / "data"
    told = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}  # every process lists what it imports
    process = start("run", "--input", source, *ENRICHMENT, "--data", str(data), env=told)
    _, said = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, said
    said_by = {path.stem: path.read_text() for path in data.glob("logs/*.log")} | {"pipeline.py": said}
    assert len(said_by) == 6
    mlruns_own = {"mlrun", "kfp", "v3io", "v3io_frames"}
    others = tuple(f"modelstream.{name}" for name in OTHER_BACKENDS)
    for name, text in said_by.items():
        lines = [line for line in text.splitlines() if line.startswith("import time:")]
        imported = {line.rpartition("|")[2].strip() for line in lines}
        assert "modelstream.errors" in imported
        assert not imported & {"confluent_kafka", "redis", "obstore"}, name
        assert name == "model-server" or not imported & mlruns_own, name
        assert not [module for module in imported if module.startswith(others)], name
