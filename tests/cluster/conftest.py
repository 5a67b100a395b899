"""What the tests of `deploy` need: MLRun (6 s to import), the project as it loads it, a stand-in for its API."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from modelstream.cluster import conversion
from modelstream.cluster.compiler import COMPILER
from tests.cluster.deploying import COMPILERS, ROOT, SECRET
from tests.cluster.mlrun_api import StandIn


@functools.cache
def project_as_loaded() -> dict[str, Any]:
    """The project as MLRun loads it, written down with its functions whole."""
    import mlrun

    before = (ROOT / "project.yaml").read_bytes()
    mlrun.mlconf.reload()
    with conversion.in_this_process():
        project = mlrun.load_project(str(ROOT), save=False)
    for name in project.get_function_names():
        project.set_function(project.get_function(name), name=name)
    assert (ROOT / "project.yaml").read_bytes() == before, "the file is never written"
    written: dict[str, Any] = project.to_dict()
    return written


@pytest.fixture(scope="module")
def written() -> Iterator[dict[str, Any]]:
    """The project as MLRun loads it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLRUN_HTTPDB__NOP_DB__VERBOSE", "false")
        patch.setenv("MLRUN_LOG_LEVEL", "ERROR")
        patch.setenv("MLRUN_HTTPDB__LOGS__NUCLIO__PULL_DEPLOY_STATUS_DEFAULT_INTERVAL", "0")
        patch.setenv("V3IO_ACCESS_KEY", SECRET)
        patch.delenv("MLRUN_DBPATH", raising=False)
        import mlrun

        mlrun.mlconf.reload()
        yield project_as_loaded()


@pytest.fixture
def api(written: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    import mlrun

    with StandIn() as server:
        monkeypatch.setenv("MLRUN_DBPATH", server.url)
        mlrun.mlconf.reload()
        yield server
    assert server.unknown == []
    monkeypatch.undo()
    monkeypatch.setenv("MLRUN_HTTPDB__NOP_DB__VERBOSE", "false")
    mlrun.mlconf.reload()


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    found = next((path for path in COMPILERS if path and Path(path).exists()), None)
    if found is None:
        assert not (os.environ.get("CI") or os.environ.get("MODELSTREAM_CI")), "CI needs `make kfp`"
        pytest.skip("no environment with Kubeflow's compiler: run `make kfp`")
    monkeypatch.setenv(COMPILER, found)


@pytest.fixture
def heeded() -> Iterator[None]:
    """Heed Ctrl-C: it is ignored where the tests run in the background of a shell."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


@pytest.fixture(autouse=True)
def no_loop_is_left() -> Iterator[None]:
    """Close the event loop that MLRun makes for notifications of a workflow, and leaves as the thread's own."""
    yield
    with suppress(RuntimeError):  # there is none
        asyncio.get_event_loop_policy().get_event_loop().close()
    asyncio.set_event_loop(None)
