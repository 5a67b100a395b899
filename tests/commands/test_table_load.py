"""`table load` as a person uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelstream.runner.data_folder import open_folder
from modelstream.tables import open_tables
from servers.redis import RedisServer
from tests.required import require
from tests.runner.folders import PROJECT

ROOT = Path(__file__).parents[2]
ENRICHMENT = ROOT / "tests" / "golden" / "enrichment.csv"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    require(RedisServer)
    with RedisServer() as server:
        yield server


def load(*arguments: object) -> tuple[int, str]:
    command = [sys.executable, str(ROOT / "pipeline.py"), "table", "load", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.fixture
def data(tmp_path: Path) -> Path:
    os.close(open_folder(tmp_path / "data", PROJECT, shards=2).lock)
    return tmp_path / "data"


def test_file_is_loaded_into_a_data_folder(data: Path) -> None:
    code, said = load("enrichment", ENRICHMENT, "--data", data)
    assert (code, said.splitlines()[0]) == (0, "89,999 rows loaded; enrichment has 89,999")
    assert "sees them at once" in said and "until a new registration event" in said
    header, first, *_ = ENRICHMENT.read_text().splitlines()
    key, value = (first.split(",")[header.split(",").index(name)] for name in ("postcode", "socioeconomic_idx"))
    with open_tables(f"sqlite://{data}/tables") as tables:
        assert tables.lookup("enrichment").get_many([key]) == [float(value)]


def test_file_is_loaded_into_tables_behind_a_url_and_adds_to_what_is_there(server: RedisServer, tmp_path: Path) -> None:
    url = server.url("load")
    code, said = load("enrichment", ENRICHMENT, "--tables", url)
    assert (code, said.splitlines()[0]) == (0, "89,999 rows loaded; enrichment has 89,999")
    assert "sees them within 10 s" in said
    more = tmp_path / "more.csv"
    more.write_text(
        "postcode,socioeconomic_idx\nnew,4.5\n" + ENRICHMENT.read_text().splitlines()[1].split(",")[0] + ",\n"
    )
    assert load("enrichment", more, "--tables", url)[1].startswith("2 rows loaded; enrichment has 90,000\n")
    with open_tables(url) as tables:
        assert tables.lookup("enrichment").get_many(["new"]) == [4.5]


def test_wrong_line_is_named_and_nothing_is_loaded(data: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("postcode,socioeconomic_idx\n1,4.5\n2,much\n")
    code, said = load("enrichment", wrong, "--data", data)
    assert code == 1
    assert "line 3" in said
    with open_tables(f"sqlite://{data}/tables") as tables:
        assert tables.lookup("enrichment").count() == 0


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("features", ["--data", "DATA"], "enrichment"),
        ("enrichment", ["--data", "nowhere"], "not the data folder of a pipeline"),
        ("enrichment", ["--tables", "redis://127.0.0.1:1/0"], "Redis server runs"),
        ("enrichment", ["--tables", "slate://wall"], "slate"),
    ],
)
def test_what_can_not_be_loaded_into_is_told(data: Path, name: str, options: list[str], said: str) -> None:
    code, words = load(name, ENRICHMENT, *(str(data) if option == "DATA" else option for option in options))
    assert code == 1
    assert said in words
