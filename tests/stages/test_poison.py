"""A message that ends every process which takes it becomes a dead letter, and the shard goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from modelstream.messages.codec import encode
from modelstream.messages.identity import Checkpoint
from modelstream.stages import poison
from modelstream.stages.base import Stage
from modelstream.stages.poison import PoisonWatch, deadly
from modelstream.stages.shard import Incoming, Shard
from tests.stages.harness import Harness, event, settings

ROOT = Path(__file__).parents[2]
CHURN = str(ROOT / "use_cases" / "churn.yaml")
DEADLY = b"\xff\xff\xff\xffdeadly"
ENDS_ON_DEADLY = """
import os, signal, sys
from modelstream.stages import poison
def take_alone(body, use_case):
    if b"deadly" in body:
        os.kill(os.getpid(), signal.SIGSEGV)
poison.take_alone = take_alone
poison.main()
"""


class Echo(Stage):
    """Sends on what it gets; keeps only how far it is."""

    kept = -1

    def open(self, shard: int) -> Checkpoint:
        return Checkpoint(self.kept)

    def take(self, shard: Shard, message: Incoming) -> int:
        rows = self.decoded(message, "vectors")
        shard.send(shard.number, rows.kind, rows.origin, rows.batch)
        return int(rows.batch.num_rows)

    def save(self, shard: Shard) -> None:
        self.kept = shard.checkpoint.offset


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the child process end on a message that holds a word: no real message is known to end it."""
    real = subprocess.run

    def run(command: list[str], **options: object) -> object:
        if command[1:3] == ["-m", "modelstream.stages.poison"]:
            command = [command[0], "-c", ENDS_ON_DEADLY, CHURN]
        return real(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", run)


def good(position: int) -> bytes:
    return encode("vectors", "file", pa.record_batch({"position": [position]}))


def end_while_taking(folder: Path, offsets: tuple[int, int], times: int) -> None:
    """Let processes end while they take messages of shard 0."""
    note = f"import os, signal; from pathlib import Path; from modelstream.stages.poison import PoisonWatch; \
w = PoisonWatch(Path({str(folder)!r})); w.taking({{0: {offsets}}}); os.kill(os.getpid(), signal.SIGKILL)"
    for _ in range(times):
        ended = subprocess.run([sys.executable, "-c", note], cwd=ROOT)
        assert ended.returncode == -signal.SIGKILL


def test_a_message_on_which_two_processes_ended_becomes_a_letter_and_its_neighbours_pass(
    child: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_while_taking(tmp_path, (0, 3), poison.DEATHS)
    monkeypatch.setattr(PoisonWatch, "of", lambda _: PoisonWatch(tmp_path))
    harness = Harness(monkeypatch)
    stage = Echo(harness.context, settings(), harness.streams, epoch=0)
    harness.handle(stage, *(event(i, body) for i, body in enumerate((good(1), DEADLY, good(2), good(3)))))
    harness.wait(1.0)
    assert [rows.batch.column("position").to_pylist() for _, rows in harness.sent()] == [[1], [2], [3]]
    assert [(one.reason, one.content()) for one in harness.letters()] == [
        ("a message that ends every process which takes it", DEADLY)
    ]
    assert harness.acks[-1] == (0, 3)
    assert any("ends every process" in line["message"] for line in harness.logged)
    harness.close()


def test_a_process_that_ended_once_or_long_ago_makes_no_suspect(tmp_path: Path) -> None:
    end_while_taking(tmp_path, (5, 9), 1)
    watch = PoisonWatch(tmp_path)
    assert watch.suspects(0) == set()
    end_while_taking(tmp_path, (8, 12), 1)
    assert watch.suspects(0) == {8}
    assert watch.suspects(1) == set()
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    assert watch.suspects(0) == set()


def test_a_process_that_lives_or_has_taken_its_messages_makes_no_suspect(tmp_path: Path) -> None:
    watches = [PoisonWatch(tmp_path) for _ in range(3)]
    for watch in watches:
        watch.taking({0: (1, 3)})
    assert watches[0].suspects(0) == set()
    for watch in watches[1:]:
        watch.taking({})
        watch.close()
    assert watches[0].suspects(0) == set()
    assert len(list(tmp_path.iterdir())) == 1


def test_all_deadly_messages_are_found_and_only_they(child: None) -> None:
    bodies = [good(1), DEADLY, b"{}", DEADLY, DEADLY, good(2)]
    assert deadly(bodies, CHURN) == [1, 3, 4]
    assert deadly([good(1), b"{", b"", b"\xff\xff\xff\xff"], CHURN) == []


def test_a_folder_that_cannot_be_written_stops_no_function(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    watch = PoisonWatch(tmp_path / "file" / "below")
    watch.taking({0: (1, 2)})
    assert watch.suspects(0) == set()
