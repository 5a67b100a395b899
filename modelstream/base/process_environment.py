"""Environment variables that processes with numpy, Arrow and MLRun in them are given."""

from __future__ import annotations

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_IO_THREADS": "1"}
"""The parallelism is in the processes: with two threads each on a busy machine single calls took up to 1.6 s."""
QUIET_MLRUN = {"MLRUN_HTTPDB__NOP_DB__VERBOSE": "false", "MLRUN_LOG_LEVEL": "ERROR"}
"""MLRun doesn't warn, twice a call, that it has no server."""
