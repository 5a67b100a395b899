"""Environment variables that processes with numpy, Arrow and MLRun in them are given."""

from __future__ import annotations

from collections.abc import Mapping

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_IO_THREADS": "1"}
"""The parallelism is in the processes: with two threads each on a busy machine single calls took up to 1.6 s."""
QUIET_MLRUN = {"MLRUN_HTTPDB__NOP_DB__VERBOSE": "false", "MLRUN_LOG_LEVEL": "ERROR"}
"""MLRun doesn't warn, twice a call, that it has no server."""
WITHOUT_ENV_FILE = {"MLRUN_IGNORE_ENV_FILE": "true"}
"""MLRun doesn't read `~/.mlrun.env`, where `mlrun config set` keeps a server's address."""


def on_this_machine(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for a process that imports MLRun on this machine, without settings of MLRun or a server.

    While it is imported, MLRun reads `~/.mlrun.env`, and asks the server at `MLRUN_DBPATH` for more settings: 59 s if
    that one is away. Warnings stay warnings: an import of MLRun gives hundreds.

    >>> on_this_machine({"MLRUN_DBPATH": "http://far-away", "PYTHONWARNINGS": "error", "V3IO_API": "http://v3io"})
    {'V3IO_API': 'http://v3io', 'MLRUN_IGNORE_ENV_FILE': 'true'}
    """
    kept = {name: text for name, text in environment.items() if not name.startswith("MLRUN_")}
    kept.pop("PYTHONWARNINGS", None)
    return kept | WITHOUT_ENV_FILE
