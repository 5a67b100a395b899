from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelstream.streams.bell import Bell

LISTENS = """
import sys, time
from pathlib import Path
from modelstream.streams.bell import Bell
bell = Bell(Path(sys.argv[1]))
print(bell.listen() is not None, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def ringer(tmp_path: Path) -> Iterator[Bell]:
    bell = Bell(tmp_path / "events")
    yield bell
    bell.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Bell]:
    bell = Bell(tmp_path / "events")
    yield bell
    bell.close()


def heard(bell: Bell) -> bool:
    pipe = bell.listen()
    assert pipe is not None
    if not select.select([pipe], [], [], 0)[0]:
        return False
    os.read(pipe, 1 << 16)
    return True


def pipes(temporary: Path) -> list[str]:
    return [path.name for path in temporary.rglob("*") if path.is_fifo()]


def test_a_ring_reaches_every_listener_of_the_stream_and_no_other(tmp_path: Path, ringer: Bell, listener: Bell) -> None:
    second, other = Bell(tmp_path / "events"), Bell(tmp_path / "vectors")
    assert [heard(bell) for bell in (listener, second, other)] == [False, False, False]
    ringer.ring()
    assert [heard(bell) for bell in (listener, second, other)] == [True, True, False]
    assert not heard(listener)
    second.close()
    other.close()


def test_a_listener_that_comes_within_the_grain_of_the_folders_time_is_seen(
    tmp_path: Path, temporary: Path, ringer: Bell
) -> None:
    now = time.time_ns()
    for _ in range(3):
        newcomer = Bell(tmp_path / "events")
        assert not heard(newcomer)
        (folder,) = (path for path in temporary.glob("*/*") if path.is_dir())
        os.utime(folder, ns=(now, now))
        ringer.ring()
        assert heard(newcomer)
        newcomer.close()


def test_nobody_listens(ringer: Bell, temporary: Path) -> None:
    ringer.ring()
    assert pipes(temporary) == []


def test_a_listener_that_was_killed_leaves_nothing(tmp_path: Path, ringer: Bell, temporary: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", LISTENS, str(tmp_path / "events")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"True\n"
    ringer.ring()
    assert len(pipes(temporary)) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    ringer.ring()
    assert pipes(temporary) == []
    stranger = Bell(tmp_path / "events")  # one that never knew the listener
    stranger.ring()
    stranger.close()


def test_a_pipe_that_is_full_delays_nobody(ringer: Bell, listener: Bell) -> None:
    assert not heard(listener)
    for _ in range(70_000):  # a pipe holds 65,536 bytes
        ringer.ring()
    assert heard(listener)


def test_pipes_of_others_are_not_used(ringer: Bell, listener: Bell, temporary: Path) -> None:
    folder = temporary / f"modelstream-bells-{os.getuid()}"
    folder.mkdir(mode=0o700)
    folder.chmod(0o777)
    assert listener.listen() is None
    ringer.ring()


def test_where_no_pipe_can_be_made_nobody_listens(listener: Bell, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise OSError("no pipes here")

    monkeypatch.setattr(os, "mkfifo", refuses)
    assert listener.listen() is None


def test_closing_takes_the_pipe_away(listener: Bell, temporary: Path) -> None:
    assert not heard(listener)
    assert len(pipes(temporary)) == 1
    listener.close()
    assert pipes(temporary) == []


def test_a_folder_that_does_not_change_is_not_looked_through(
    ringer: Bell, listener: Bell, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not heard(listener)
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 2_000_000_000)
    ringer.ring()
    looked: list[Path] = []

    def look(folder: Path) -> Iterator[Path]:
        looked.append(folder)
        return iter(())

    monkeypatch.setattr(Path, "iterdir", look)
    ringer.ring()
    assert looked == []
    assert heard(listener)
