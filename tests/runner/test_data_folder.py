"""A data folder is one pipeline's at a time, is known by its marker, and nothing of anybody else is touched."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelstream.errors import ConfigurationError, GoneError, ModelstreamError, UnavailableError
from modelstream.project import Project, load_project
from modelstream.runner import data_folder
from modelstream.runner.data_folder import (
    Marker,
    holder_of,
    open_folder,
    read_marker,
    require,
    settings_in,
)
from modelstream.runner.definition import definition_of
from modelstream.runner.entries import LOCK, MARKER
from modelstream.settings import StoreUrls
from modelstream.streams import open_streams
from tests.runner.folders import PROJECT, ROOT

OTHER = msgspec.structs.replace(
    PROJECT,
    params=msgspec.structs.replace(
        PROJECT.params, use_case="tests/use_cases/boilers.yaml", tables=("tariffs", "features")
    ),
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_folder, "WAIT_FOR_ORPHANS", 0.1)


def opened(path: Path, **options: Any) -> Marker:
    """Open a folder, give it back, and return its marker."""
    folder = open_folder(path, options.pop("project", PROJECT), **options)
    os.close(folder.lock)
    return folder.marker


def changed(folder: Path, file: str, *replaced: tuple[str, str]) -> Project:
    """Return a copy of the project, in a new folder, with words of one of its files replaced."""
    shutil.copytree(ROOT / "use_cases", folder / "use_cases")
    shutil.copy(ROOT / "project.yaml", folder)
    text = (folder / file).read_text("utf-8")
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    (folder / file).write_text(text, "utf-8")
    return load_project(folder / "project.yaml")


def entries(path: Path) -> set[str]:
    return {str(entry.relative_to(path)) for entry in path.rglob("*")} - {LOCK}


OWN = (
    "streams/serving.db",
    "streams/serving.db-wal",
    "streams/serving.000000.bodies",
    "streams/offsets.db",
    "streams/.new-abc/serving.db",
    "tables/registry.db",
    "tables/enrichment.db-shm",
    "events/00-03-00000017.parquet",
    "events/schema.parquet",
    "logs/event-handler.log",
    ".inference.writing/a",
    "served.json",
)
"""What runs leave in a folder, besides the marker."""


def filled(path: Path, names: Iterable[str] = OWN) -> None:
    """Put empty files into a folder, by default what a run leaves there."""
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()


# The marker.


def test_a_new_folder_is_marked_and_opened_again_as_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data"
    made = opened(path, shards=4)
    assert made == Marker(version=1, shards=4, use_case="churn", definition=definition_of(PROJECT))
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
    assert (tmp_path / "streams" / "serving.db").exists()
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
    definition = definition_of(PROJECT)
    assert opened(path, fresh=True) == Marker(
        version=2, shards=8, use_case="churn", urls=elsewhere, definition=definition
    )
    assert entries(path) == {MARKER}
    assert (linked / "mine").exists(), "only the link goes"
    with open_streams(elsewhere.streams) as streams:
        assert streams.names() == ["another-pipelines"]


FOREIGN = (
    "notes.txt",
    "mine/thesis.doc",
    "streams/mine.db",
    "tables/mine.csv",
    "events/mine.parquet",
    "events/00-03-17.parquet",
    "logs/mine.txt",
    "logs/mine/a.log",
    "inference/2026/00-03-00000017.parquet",
)


def test_a_fresh_start_leaves_what_is_not_the_pipelines(tmp_path: Path) -> None:
    opened(tmp_path)
    filled(tmp_path, (*OWN, *FOREIGN))
    assert opened(tmp_path, fresh=True) == opened(tmp_path)
    left = {name for name in entries(tmp_path) if (tmp_path / name).is_file()}
    assert left == {MARKER, *FOREIGN}


def test_a_fresh_start_removes_a_log_under_the_name_that_it_was_made_with(tmp_path: Path) -> None:
    replaced = [("log: inference,", "log: answers,"), ("[events, inference]", "[events, answers]")]
    project = changed(tmp_path / "project", "project.yaml", *replaced)
    opened(tmp_path / "data")
    filled(tmp_path / "data")
    filled(tmp_path / "data", ["inference/00-00-00000000.parquet"])
    with pytest.raises(ConfigurationError, match="log: inference before, answers now"):
        opened(tmp_path / "data", project=project)
    opened(tmp_path / "data", project=project, fresh=True)
    assert entries(tmp_path / "data") == {MARKER}


class Killed(BaseException):
    """The process was killed."""


@pytest.mark.parametrize("step", range(14))
def test_a_fresh_start_that_is_ended_in_the_middle_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    opened(tmp_path)
    filled(tmp_path)
    left = iter(range(step))

    def until_killed(delete: Callable[..., None]) -> Callable[..., None]:
        def deleting(entry: Path, **options: Any) -> None:
            if next(left, None) is None:
                raise Killed
            delete(entry, **options)

        return deleting

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rmdir", until_killed(Path.rmdir))
        patch.setattr(Path, "unlink", until_killed(Path.unlink))
        with pytest.raises(Killed):
            opened(tmp_path, fresh=True)
    assert len([each for each in OWN if (tmp_path / each).exists()]) < len(OWN) or step == 0
    with pytest.raises(ConfigurationError, match="is half empty: a run --fresh was ended"):
        require(tmp_path, PROJECT)
    assert not opened(tmp_path).emptying
    assert entries(tmp_path) == {MARKER}


# What refuses a fresh start is found before anything is deleted.


def test_a_fresh_start_that_is_refused_deletes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    opened(data)
    filled(data)
    before, marker = entries(data), read_marker(data)

    def refuse() -> None:
        raise ConfigurationError("the notebook is wrong")

    broken = changed(tmp_path / "broken", "use_cases/churn.yaml", ("for: 24h", "for: -1h"))
    unknown = changed(tmp_path / "unknown", "use_cases/churn.yaml", ("look_up: enrichment", "look_up: codes"))
    away = StoreUrls(tables="redis://127.0.0.1:1/0?prefix=mine")
    refused: list[tuple[str, dict[str, Any]]] = [
        ("the notebook is wrong", {"preflight": refuse}),
        ("window.for: '-1h' is not a length of time", {"project": broken}),
        ("looks up the table 'codes'", {"project": unknown}),
        ("127.0.0.1:1", {"urls": away}),
    ]
    for said, options in refused:
        with pytest.raises(ModelstreamError, match=said):
            opened(data, fresh=True, **options)
        assert entries(data) == before, said
        assert read_marker(data) == marker, said
    lock = open_folder(data, PROJECT).lock
    with pytest.raises(ConfigurationError, match="in use"):
        opened(data, fresh=True)
    os.close(lock)
    assert entries(data) == before


def test_servers_that_the_folder_remembers_are_asked_before_any_store_is_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = f"sqlite://{tmp_path}/s"
    opened(tmp_path / "data", urls=StoreUrls(streams=streams))
    with open_streams(streams) as opened_streams:
        opened_streams.create("serving", 8)
    marker = tmp_path / "data" / MARKER
    found = json.loads(marker.read_text())
    found["places"]["tables"] = "redis://127.0.0.1:1/0?prefix=mine"
    marker.write_text(json.dumps(found))
    with pytest.raises(UnavailableError, match=r"127.0.0.1:1"):
        opened(tmp_path / "data", fresh=True)
    with open_streams(streams) as opened_streams:
        assert opened_streams.names() == ["serving"]


def test_a_new_folder_is_not_looked_over(tmp_path: Path) -> None:
    looked: list[bool] = []
    opened(tmp_path / "data", fresh=True, preflight=lambda: looked.append(True))
    opened(tmp_path / "data", preflight=lambda: looked.append(True))
    assert looked == []
    opened(tmp_path / "data", fresh=True, preflight=lambda: looked.append(True))
    assert looked == [True]


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
