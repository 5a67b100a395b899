"""The local runner keeps to what Nuclio's wrapper does: the same expectations as in `test_wrapper.py`, always."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from modelstream import notebooks
from modelstream.runner.line import DESCRIPTOR, Command, Line
from modelstream.runner.worker import Assignment
from modelstream.settings import Settings
from modelstream.streams import Streams, open_streams
from tests.nuclio import probe
from tests.nuclio.scene import ROOT, SHARDS, Scene
from tests.nuclio.spy import CODE, EMPTY, SEEN

DEADLINE = 60.0


class Runner:
    """The local runner's workers of one function."""

    def __init__(self, notebook: Path, environment: dict[str, str]) -> None:
        self._notebook, self._environment = notebook, environment
        self.running: list[tuple[subprocess.Popen[bytes], Line]] = []

    def start(self, *shards: tuple[int, ...], idle_pause: float | None = None) -> None:
        """Start a worker for each group of shards; return when they take messages.

        With `idle_pause`, which is in seconds, a worker with nothing to do looks at its stream only so often.
        """
        for number, mine in enumerate(shards):
            line, end = Line.pair()
            assignment = Assignment(
                notebook=str(self._notebook),
                shards=mine,
                worker=number,
            )
            program = ["-m", "modelstream.runner.worker"]
            if idle_pause is not None:
                program = [
                    "-c",
                    f"from modelstream.runner import worker; worker.IDLE_PAUSE = {idle_pause}; worker.main()",
                ]
            command = [sys.executable, *program, msgspec.json.encode(assignment).decode()]
            environment = os.environ | self._environment | {DESCRIPTOR: str(end.fileno()), "PYTHONPATH": str(ROOT)}
            process = subprocess.Popen(command, env=environment, pass_fds=[end.fileno()], stdout=subprocess.DEVNULL)
            end.close()
            self.running.append((process, line))
        for _, line in self.running:
            assert next(line.reports()).ready

    def drain(self) -> None:
        """Ask all for a drain."""
        for _, line in self.running:
            line.send(Command("drain"))

    def stop(self, *, kill: bool = False) -> None:
        """End all: with their termination callbacks, or by kill -9."""
        for process, line in self.running:
            if kill:
                process.kill()
            else:
                line.send(Command("stop"))
        for process, line in self.running:
            process.wait(DEADLINE)
            line.close()
        self.running.clear()


@pytest.fixture
def runners() -> Iterator[list[Runner]]:
    made: list[Runner] = []
    yield made
    for runner in made:
        runner.stop(kill=True)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def as_notebook(path: Path, code: str) -> Path:
    marked = f"# mlrun: start-code\n{code}\n# mlrun: end-code\n"
    unused: dict[str, object] = {"metadata": {}, "outputs": [], "execution_count": None}
    cell = {"cell_type": "code", "source": marked, **unused}
    path.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def lag(streams: Streams, function: str, stream: str) -> int:
    acked = streams.acked(function, stream)
    return sum(streams.range(stream, shard)[1] - 1 - offset for shard, offset in acked.items())


def test_a_function_sees_what_it_sees_in_nuclios_wrapper(tmp_path: Path, runners: list[Runner]) -> None:
    scene = Scene(tmp_path, random.Random(1), messages=100)
    spied = tmp_path / "spied"
    notebook = as_notebook(tmp_path / "spy.ipynb", CODE)
    settings = Settings(
        function="spy",
        use_case="",
        reads="generated",
        streams=f"sqlite://{tmp_path}/streams",
        tables=f"sqlite://{tmp_path}/tables",
    )
    runner = Runner(notebook, settings.environment() | {"SPY": str(spied)})
    runners.append(runner)

    def noted() -> list[dict[str, object]]:
        return [json.loads(line) for line in spied.read_text().splitlines()]

    def taken() -> list[tuple[int, int]]:
        return [tuple(one["taken"]) for one in noted() if "taken" in one]  # type: ignore[arg-type, misc]

    runner.start(tuple(range(SHARDS)))
    wait_until(lambda: len(taken()) == 100)
    runner.drain()
    wait_until(lambda: {"called": "drain"} in noted())
    runner.stop()
    seen = noted()
    assert seen[0] == {"began": [], "worker": "str"}
    assert seen[-1] == {"called": "termination"}
    drained = seen.index({"called": "drain"})
    before = seen[:drained]
    assert sum("taken" in one for one in before) == 100
    for each in (before, seen):
        kinds = [one["kinds"] for one in each if "kinds" in one]
        assert all((one["types"], one["empty"]) == (SEEN, EMPTY) for one in each if "types" in one)
        assert all(kind == ["nuclio_sdk.event", "nuclio_sdk.platform"] for kind in kinds)
        assert len(kinds) == sum("taken" in one for one in each)
    assert all(one["path_is_topic"] for one in seen if "kinds" in one)
    assert all(one["alone"] for one in seen if "taken" in one)

    # What was not acknowledged comes again, in order, after the last that was: after a drain, and after a start.
    acked = scene.streams.acked("spy", "generated")
    ends = {shard: scene.streams.range("generated", shard)[1] for shard in range(SHARDS)}
    assert acked == {shard: end // 10 * 10 - 1 for shard, end in ends.items()}
    for shard in range(SHARDS):
        offsets = [offset for number, offset in taken() if number == shard]
        first, again = offsets[: ends[shard]], offsets[ends[shard] :]
        assert first == list(range(ends[shard]))
        assert again == list(range(acked[shard] + 1, ends[shard]))[: len(again)]
    spied.unlink()
    left = [(shard, offset) for shard, end in ends.items() for offset in range(acked[shard] + 1, end)]
    runner.start((0, 1), (2, 3))
    wait_until(lambda: spied.exists() and len(taken()) == len(left))
    runner.stop(kill=True)
    assert sorted(taken()) == left


def test_a_worker_with_nothing_to_do_is_woken_by_an_append(tmp_path: Path, runners: list[Runner]) -> None:
    with open_streams(f"sqlite://{tmp_path}/streams") as streams:
        streams.create("generated", SHARDS)
        settings = Settings(
            function="spy",
            use_case="",
            reads="generated",
            streams=f"sqlite://{tmp_path}/streams",
            tables=f"sqlite://{tmp_path}/tables",
        )
        spied = tmp_path / "spied"
        runner = Runner(as_notebook(tmp_path / "spy.ipynb", CODE), settings.environment() | {"SPY": str(spied)})
        runners.append(runner)
        runner.start(tuple(range(SHARDS)), idle_pause=10 * DEADLINE)
        for count in range(1, 4):
            streams.append("generated", [(1, b"{}")])
            wait_until(lambda: spied.exists() and spied.read_text().count('"taken"') == count)  # noqa: B023
        runner.stop()


def test_every_event_counts_once_whatever_happens_to_the_workers(tmp_path: Path, runners: list[Runner]) -> None:
    rng = random.Random(2)
    scene = Scene(tmp_path, rng, messages=400)
    for name in ("event-handler", "stream-to-features"):
        stream = scene.project.params.wiring[name].reads
        code = notebooks.code(scene.project.notebook(name)) + probe.FOOTER
        runner = Runner(as_notebook(tmp_path / f"{name}.ipynb", code), scene.environment(name))
        runners.append(runner)
        for interruption in ("drain and stop", "kill", "drain and kill", "stop"):
            shards = rng.sample(range(SHARDS), SHARDS)
            runner.start(tuple(shards[:2]), tuple(shards[2:]))
            before = lag(scene.streams, name, stream)
            # Four interruptions must find something to interrupt.
            wait_until(lambda: lag(scene.streams, name, stream) < max(1, before * 3 // 4))  # noqa: B023
            if "drain" in interruption:
                runner.drain()
            runner.stop(kill="kill" in interruption)
        runner.start(tuple(range(SHARDS)))
        wait_until(lambda: lag(scene.streams, name, stream) == 0)  # noqa: B023
        runner.stop()
        assert scene.wrong() == []
    scene.check(predictions=False)
