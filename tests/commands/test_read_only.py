"""A data folder that may only be read can be looked at; what must write says that it is read-only."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelstream.commands.view import View
from modelstream.http import service  # noqa: F401  (imported while it may be read: nobody may not enter /root)
from tests.command_line import pipeline
from tests.commands.small import small_folder
from tests.runner.folders import ROOT

NOBODY = 65534


@contextmanager
def without_rights(path: Path) -> Iterator[None]:
    """Take from this process the right to write to a folder, as it is on a read-only mount."""
    everything = [path, *path.rglob("*")]
    if os.getuid() == 0:  # who has all rights whatever a folder says
        os.setresuid(NOBODY, NOBODY, 0)
    else:
        for each in everything:
            each.chmod(0o555 if each.is_dir() else 0o444)
    try:
        yield
    finally:
        if os.getresuid()[2] == 0:
            os.setresuid(0, 0, 0)
        for each in everything:
            if each.exists():
                each.chmod(0o755 if each.is_dir() else 0o644)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A data folder in a place that everybody may read, and a registry beside it."""
    with tempfile.TemporaryDirectory() as made, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELSTREAM_REGISTRY", f"{made}/registry")
        Path(made).chmod(0o755)
        with small_folder(Path(made) / "data"):
            pass
        yield Path(made) / "data"


def content(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


LOOKS = [
    ("status", "--json"),
    ("peek", "inference"),
    ("replay",),
    ("explain", "anna"),
    ("table", "features"),
    ("table", "enrichment", "--key", "20000"),
    ("drift",),
    ("models", "list"),
]


def test_everything_that_only_looks_works_on_it_and_changes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(folder)
    looks = [(*look, *(() if look[0] == "models" else ("--data", folder))) for look in LOOKS]
    statuses = [pipeline(*look) for look in looks]
    usual = capsys.readouterr().out
    with without_rights(folder):
        assert [pipeline(*look) for look in looks] == statuses
    found = capsys.readouterr()
    assert found.err == ""
    assert [line for line in found.out.splitlines() if "Replayed" not in line] == [
        line for line in usual.splitlines() if "Replayed" not in line
    ]
    assert content(folder) == before


@pytest.mark.parametrize("arguments", [("run",), ("run", "--fresh"), ("serve", "--port", "0")], ids=" ".join)
def test_what_must_write_says_that_it_is_read_only(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    before = content(folder)
    with without_rights(folder):
        assert pipeline(*arguments, "--quiet", "--data", folder) == 1
    told = capsys.readouterr().err
    assert f"{folder} is read-only" in told and "free space" not in told
    assert content(folder) == before


def test_table_is_not_loaded_into_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = ROOT / "tests" / "golden" / "enrichment.csv"
    with without_rights(folder):
        assert pipeline("table", "load", "enrichment", file, "--data", folder) == 1
    told = capsys.readouterr().err
    assert f"{folder}/tables is read-only" in told and "free space" not in told


@pytest.mark.parametrize("shared_memory", [True, False])
def test_what_a_killed_pipeline_left_in_the_write_ahead_log_is_read_or_said(
    folder: Path, shared_memory: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = folder.parent / f"killed-{shared_memory}"
    shutil.copytree(folder, copy)
    table, other = copy / "tables" / "enrichment.db", copy / "tables" / "other.db"
    connection = sqlite3.connect(table)
    connection.execute("INSERT INTO lookup VALUES ('99999', 7.5)")
    connection.commit()
    for end in ("", "-wal", *(["-shm"] if shared_memory else [])):  # as they are before the writer ends
        shutil.copy(f"{table}{end}", f"{other}{end}")
    connection.close()
    for end in ("", "-wal", "-shm"):
        (table.with_name(f"enrichment.db{end}")).unlink(missing_ok=True)
        if Path(f"{other}{end}").exists():
            Path(f"{other}{end}").rename(f"{table}{end}")
    assert table.with_name("enrichment.db-wal").stat().st_size > 0
    with without_rights(copy):
        status = pipeline("table", "enrichment", "--key", "99999", "--format", "csv", "--data", copy)
    told = capsys.readouterr()
    if shared_memory:
        assert (status, told.out.splitlines()[1:]) == (0, ['"99999",7.5'])
    else:
        assert status == 1
        assert "is still in enrichment.db-wal" in told.err and "copy the data folder" in told.err


def test_view_of_a_folder_without_rights_writes_nothing_when_it_may(folder: Path) -> None:
    from tests.runner.folders import PROJECT

    with without_rights(folder), View(folder, PROJECT) as view:
        assert view.features.count() == 3
        assert view.tables.epoch() == 0
