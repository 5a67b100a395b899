"""A power loss at any step of appending and publishing: what was not synced may be there, or not."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from modelstream.logs import contract
from modelstream.logs.parquet import ParquetLog
from tests.contract.log_contract import SCHEMA
from tests.contract.test_log_publishing import LARGE, check_and_go_on, work

Names = dict[str, bytes]


class Disk:
    """What of some folders survives a power loss: names since the last sync of their folder may, or may not.

    It is not as kind as most file systems: any of the names may be missing, whatever was done later.
    """

    def __init__(self, folders: list[Path]) -> None:
        self.folders = folders
        self.names: dict[Path, Names] = {folder: _content(folder) for folder in folders}
        self.changes: dict[Path, list[tuple[str, bytes | None]]] = {folder: [] for folder in folders}
        self._synced: dict[int, bytes] = {}

    def synced(self, descriptor: int) -> None:
        """A file or a folder was synced."""
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path in self.names:
            self.names[path] = self.after(path, [True] * len(self.changes[path]))
            self.changes[path] = []
        else:
            self._synced[os.fstat(descriptor).st_ino] = path.read_bytes()

    def named(self, path: Path) -> None:
        """A file got this name, in place of another or not."""
        self.changes[path.parent].append((path.name, self._synced.get(path.stat().st_ino, b"")))

    def removed(self, path: Path) -> None:
        """A name was removed."""
        self.changes[path.parent].append((path.name, None))

    def after(self, folder: Path, survives: list[bool]) -> Names:
        """Return what a folder has when some of its changes have survived."""
        found = dict(self.names[folder])
        for (name, content), kept in zip(self.changes[folder], survives, strict=True):
            if kept and content is not None:
                found[name] = content
            elif kept:
                found.pop(name, None)
        return found

    def lose_power(self, choice: random.Random, target: Path) -> None:
        """Write what may be left to folders of the same names in `target`."""
        for folder in self.folders:
            (target / folder.name).mkdir(parents=True)
            chance = choice.choice((0.0, 0.5, 1.0))
            for name, content in self.after(folder, [choice.random() < chance for _ in self.changes[folder]]).items():
                (target / folder.name / name).write_bytes(content)


def _content(folder: Path) -> Names:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def record(disk: Disk, patch: pytest.MonkeyPatch, step_done: Callable[[], None]) -> None:
    """Tell a disk what the functions of `os` do, and call `step_done` after each."""

    def followed(name: str, tell: Callable[..., None]) -> None:
        original: Callable[..., Any] = getattr(os, name)

        def called(*arguments: Any, **options: Any) -> Any:
            result = original(*arguments, **options)
            tell(*arguments)
            step_done()
            return result

        patch.setattr(os, name, called)

    followed("fsync", disk.synced)
    followed("link", lambda _, path: disk.named(path))
    followed("replace", lambda _, path: disk.named(path))
    followed("unlink", lambda path: disk.removed(path))


@pytest.fixture(autouse=True)
def large_commits_are_not_so_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "WHOLE_ROWS", LARGE)


class Trial:
    """A log in a folder on such a disk: its writer may be killed, and the power be lost."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, choice: random.Random) -> None:
        self.place = (folder / "log" / "events").resolve()
        ParquetLog(self.place, SCHEMA, 0).checkpoint(0)
        self.disk = Disk([self.place, self.place.parent / ".events.writing"])
        self.kill_after = -1
        self.loses_power: Callable[[int], bool] = lambda _: True
        self.steps = 0
        self._patch = patch
        self._choice = choice
        self._folder = folder
        self._appended = 0
        self._left: list[tuple[Path, int]] = []

    def run(self) -> None:
        """Append and publish; a writer that is killed is followed by another."""
        with self._patch.context() as recorded:
            record(self.disk, recorded, self._step_done)
            with suppress(SystemExit):
                work(self.place, self._done)
            if 0 <= self.kill_after < self.steps:
                ParquetLog(self.place, SCHEMA, 0).publish()  # as its thread does, perhaps before the first append
                work(self.place, self._done)

    def check(self) -> int:
        """Check what each power loss left; return how many there were."""
        for place, appended in self._left:
            check_and_go_on(place, appended)
        return len(self._left)

    def _done(self, rows: int) -> None:
        self._appended = rows

    def _step_done(self) -> None:
        if self.loses_power(self.steps):
            target = self._folder / str(len(self._left))
            self.disk.lose_power(self._choice, target)
            self._left.append((target / "events", self._appended))
        self.steps += 1
        if self.steps - 1 == self.kill_after:
            raise SystemExit


def test_no_row_is_lost_or_doubled_by_a_power_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(2):
        trial = Trial(tmp_path / str(seed), monkeypatch, random.Random(seed))
        trial.run()
        assert trial.check() == trial.steps > 40


def test_no_row_is_lost_or_doubled_by_a_power_loss_soon_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that is killed between a rename and the sync of the folder leaves the sync to the next."""
    for kill_after in itertools.count():
        trial = Trial(tmp_path / str(kill_after), monkeypatch, random.Random(kill_after))
        trial.kill_after = kill_after
        trial.loses_power = lambda step, killed=kill_after: killed < step <= killed + 4  # type: ignore[misc]
        trial.run()
        if trial.steps <= kill_after:
            assert kill_after > 40
            break
        assert trial.check()
        shutil.rmtree(trial.place.parents[1])
