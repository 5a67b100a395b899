"""A data folder is one pipeline's at a time, is known by its marker, and nothing of anybody else is touched."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelstream.errors import ConfigurationError, GoneError
from modelstream.runner import data_folder
from modelstream.runner.data_folder import (
    LOCK,
    MARKER,
    Marker,
    holder_of,
    open_folder,
    read_marker,
    require,
    settings_in,
)
from modelstream.settings import StoreUrls
from modelstream.streams import open_streams
from tests.runner.folders import PROJECT

OTHER = msgspec.structs.replace(
    PROJECT, params=msgspec.structs.replace(PROJECT.params, use_case="use_cases/boilers.yaml")
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_folder, "WAIT_FOR_ORPHANS", 0.1)


def opened(path: Path, **options: Any) -> Marker:
    """Open a folder, give it back, and return its marker."""
    folder = open_folder(path, options.pop("project", PROJECT), **options)
    os.close(folder.lock)
    return folder.marker


def entries(path: Path) -> set[str]:
    return {str(entry.relative_to(path)) for entry in path.rglob("*")} - {LOCK}


def filled(path: Path) -> None:
    """Put into a folder what a run leaves there."""
    for name in (
        "streams/a.db",
        "tables/a.db",
        "events/a.parquet",
        "logs/a.log",
        ".inference.writing/a",
        "served.json",
    ):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()


# The marker.


def test_a_new_folder_is_marked_and_opened_again_as_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data"
    made = opened(path, shards=4)
    assert made == Marker(version=1, shards=4, use_case="churn")
    assert opened(path) == opened(path, shards=4) == read_marker(path) == made
    assert opened(tmp_path / "usual").shards == PROJECT.params.shards
    assert entries(path) == {MARKER}


def test_urls_are_given_once_and_kept(tmp_path: Path) -> None:
    urls = StoreUrls(logs=str(tmp_path / "elsewhere"))
    made = opened(tmp_path / "data", urls=urls)
    assert (made.version, made.urls) == (2, urls), "a reader of version 1 would overlook the place"
    folder = open_folder(tmp_path / "data", PROJECT)
    os.close(folder.lock)
    assert folder.urls == urls.within(tmp_path / "data")
    assert opened(tmp_path / "data", urls=urls) == made
    with pytest.raises(ConfigurationError, match=f"has its logs at {urls.logs}, not at /x"):
        opened(tmp_path / "data", urls=StoreUrls(logs="/x"))


def test_other_shards_are_refused(tmp_path: Path) -> None:
    opened(tmp_path, shards=4)
    with pytest.raises(ConfigurationError, match="made with 4 shards, not 8") as told:
        opened(tmp_path, shards=8)
    assert "--fresh --shards 8" in told.value.remedy
    assert opened(tmp_path, shards=8, fresh=True).shards == 8


def test_data_of_another_use_case_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    filled(tmp_path)
    before = entries(tmp_path)
    looks: list[Callable[[], object]] = [lambda: opened(tmp_path, project=OTHER), lambda: require(tmp_path, OTHER)]
    for look in looks:
        with pytest.raises(ConfigurationError, match="holds data of the use case 'churn', not 'boilers'") as told:
            look()
        assert "--fresh" in told.value.remedy
    assert entries(tmp_path) == before
    assert opened(tmp_path, project=OTHER, fresh=True).use_case == "boilers"


BROKEN = [b"", b"{", b"[]", b"\xff\xfe", b'{"version": 1}', b'{"version": "1", "shards": 8, "use_case": "churn"}']


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_marker_is_told_and_begun_anew_only_when_asked(tmp_path: Path, content: bytes) -> None:
    opened(tmp_path)
    filled(tmp_path)
    (tmp_path / MARKER).write_bytes(content)
    for look in (opened, read_marker):
        with pytest.raises(ConfigurationError, match=f"^{tmp_path / MARKER} is broken") as told:
            look(tmp_path)
        assert "--fresh" in told.value.remedy
    assert (tmp_path / "streams" / "a.db").exists()
    assert opened(tmp_path, fresh=True) == read_marker(tmp_path)
    assert entries(tmp_path) == {MARKER}


def test_a_marker_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    newer = json.loads((tmp_path / MARKER).read_text()) | {"version": 3, "unheard_of": True}
    (tmp_path / MARKER).write_text(json.dumps(newer))
    with pytest.raises(
        ConfigurationError, match=r"written by a newer version of modelstream \(format 3; this version reads"
    ) as told:
        opened(tmp_path)
    assert "update modelstream" in told.value.remedy
    assert json.loads((tmp_path / MARKER).read_text()) == newer


def test_what_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="file is a file"):
        opened(tmp_path / "file")
    with pytest.raises(ConfigurationError, match="data: Not a directory"):
        opened(tmp_path / "file" / "data")
    with pytest.raises(ConfigurationError, match="is not the data folder of a pipeline"):
        require(tmp_path / "nowhere", PROJECT)
    assert read_marker(tmp_path / "nowhere") is None
    with pytest.raises(ConfigurationError, match="Not a directory"):
        read_marker(tmp_path / "file")


def test_functions_work_on_the_folder_with_its_shards_and_the_projects_files(tmp_path: Path) -> None:
    marker = opened(tmp_path, shards=4, urls=StoreUrls(logs="/elsewhere"))
    made = settings_in(tmp_path, marker, PROJECT, "model-server")
    assert (made.shards, made.reads) == (4, "serving")
    assert made.urls == StoreUrls(f"sqlite://{tmp_path}/streams", f"sqlite://{tmp_path}/tables", "/elsewhere")
    assert Path(made.use_case) == PROJECT.use_case_file.resolve()
    assert made.registry == PROJECT.registry()


# Strangers.

STRANGE = ["thesis.doc", "streams/a.db", "tables/a.db", "events/mine.csv", "logs/mine.log", "served.json"]


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("strange", [STRANGE, STRANGE[1:], ["logs/mine.log"], ["thesis.doc"]], ids=len)
def test_a_folder_that_is_not_ours_is_refused_and_nothing_in_it_is_touched(
    tmp_path: Path, strange: list[str], fresh: bool
) -> None:
    for name in strange:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    before = entries(tmp_path)
    with pytest.raises(ConfigurationError, match="is not empty, and not the data folder of a pipeline") as told:
        opened(tmp_path, fresh=fresh)
    first = sorted({Path(name).parts[0] for name in strange})[:3]
    assert f"({', '.join(first)}, …)" in str(told.value)
    assert entries(tmp_path) == before


def test_a_fresh_start_removes_what_the_folder_made_and_nothing_else(tmp_path: Path) -> None:
    path, linked = tmp_path / "data", tmp_path / "linked"
    elsewhere = StoreUrls(streams=f"sqlite://{tmp_path}/s")
    opened(path, urls=elsewhere)
    with open_streams(elsewhere.streams) as streams:
        for name in ("serving", "another-pipelines"):
            streams.create(name, 8)
    filled(path)
    linked.mkdir()
    (linked / "mine").touch()
    (path / "inference").symlink_to(linked)
    assert opened(path, fresh=True) == Marker(version=2, shards=8, use_case="churn", urls=elsewhere)
    assert entries(path) == {MARKER}
    assert (linked / "mine").exists(), "only the link goes"
    with open_streams(elsewhere.streams) as streams:
        assert streams.names() == ["another-pipelines"]


@pytest.mark.parametrize("removed", range(6))
def test_a_fresh_start_that_is_ended_in_the_middle_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: int
) -> None:
    opened(tmp_path)
    filled(tmp_path)
    left = iter(range(removed))

    def until_killed(remove: Callable[..., None]) -> Callable[..., None]:
        def removing(entry: Path, **options: Any) -> None:
            if entry.exists() and next(left, None) is None:
                raise KeyboardInterrupt
            remove(entry, **options)

        return removing

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", until_killed(shutil.rmtree))
        patch.setattr(Path, "unlink", until_killed(Path.unlink))
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path, fresh=True)
    assert len(list(tmp_path.iterdir())) == 8 - removed
    opened(tmp_path, fresh=True)
    assert entries(tmp_path) == {MARKER}


# The lock.


def test_a_folder_is_one_processes_and_who_has_it_is_told(tmp_path: Path) -> None:
    assert holder_of(tmp_path) is None
    folder = open_folder(tmp_path, PROJECT)
    assert holder_of(tmp_path) == os.getpid()
    with pytest.raises(ConfigurationError, match=re.escape(f"in use by another run (process {os.getpid()})")):
        open_folder(tmp_path, PROJECT)
    with pytest.raises(ConfigurationError, match="in use"):
        open_folder(tmp_path, PROJECT, fresh=True)
    assert read_marker(tmp_path) == folder.marker
    (tmp_path / LOCK).write_text("?")
    assert holder_of(tmp_path) == 0
    os.close(folder.lock)
    assert holder_of(tmp_path) is None
    (tmp_path / LOCK).write_text("1234567890\n" * 2)
    again = open_folder(tmp_path, PROJECT)
    assert holder_of(tmp_path) == os.getpid()
    os.close(again.lock)


def test_a_folder_is_held_by_workers_that_have_outlived_their_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_folder(tmp_path, PROJECT)
    code = "import sys; sys.stdin.read()"
    worker = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, pass_fds=[folder.lock])
    assert worker.stdin is not None
    try:
        os.close(folder.lock)
        assert holder_of(tmp_path) == os.getpid()
        with pytest.raises(ConfigurationError, match="in use"):
            opened(tmp_path)
        monkeypatch.setattr(data_folder, "WAIT_FOR_ORPHANS", 60)
        threading.Timer(0.2, worker.stdin.close).start()
        opened(tmp_path)
    finally:
        worker.kill()
        worker.wait()


def emptied(path: Path) -> None:
    for name in (MARKER, LOCK):
        (path / name).unlink()


def exchanged(path: Path) -> None:
    path.rename(path.with_name("moved"))
    opened(path)


@pytest.mark.parametrize(
    ("change", "what"),
    [(shutil.rmtree, "data"), (emptied, MARKER), (lambda path: (path / LOCK).unlink(), LOCK), (exchanged, LOCK)],
)
def test_a_folder_that_is_deleted_or_exchanged_while_it_is_open_is_missed(
    change: Callable[[Path], None], what: str, tmp_path: Path
) -> None:
    path = tmp_path / "data"
    folder = open_folder(path, PROJECT)
    try:
        folder.check_there()
        change(path)
        with pytest.raises(GoneError, match=f"{re.escape(what)} was deleted") as raised:
            folder.check_there()
        assert "restore" in raised.value.remedy
    finally:
        os.close(folder.lock)
