"""A job's process: calls a notebook's handler with the parameters of its run, as MLRun does for kind `job`."""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import Any

import msgspec
import nuclio_sdk.logger

from modelstream import notebooks
from modelstream.base.without_pandas import start_without_pandas
from modelstream.errors import GoneError, ModelstreamError, UnavailableError
from modelstream.runner.line import OUTAGE, Command, Line, Report, obey
from modelstream.runner.signals import leave_to_the_supervisor
from modelstream.settings import from_environment
from modelstream.source.key_finder import KeyFinder
from modelstream.stages.counters import Counters
from modelstream.stores import Stores


class Job(msgspec.Struct, frozen=True):
    """What a job's process runs: its command line, as JSON."""

    notebook: str
    handler: str
    parameters: dict[str, Any]


class JobContext:
    """What a job's handler gets in place of MLRun's `MLClientCtx`: a logger, results, progress; the source also gets
    its stores, which were getting ready before it was asked to begin."""

    stores: Stores | None = None

    def __init__(self, line: Line) -> None:
        self.logger = nuclio_sdk.logger.Logger(logging.INFO, "job")
        self.logger.set_handler("default", sys.stdout, nuclio_sdk.logger.HumanReadableFormatter())
        self.stopped = threading.Event()
        """Set when the job must finish its work in progress and end."""
        self._line = line
        self._results: dict[str, Any] = {}
        self._told = Report(ready=True)

    def log_result(self, key: str, value: str | int | float) -> None:
        """Keep a result of the run."""
        self._results[key] = value

    def progress(self, lines: int, total: int = 0, held: str = "") -> None:
        """Tell how many lines were sent, of how many, and what the job waits for."""
        self._told = Report(ready=True, counters=Counters(rows_out=lines), total=total, held=held)
        self._line.send(self._told)

    def finish(self) -> None:
        """Report the results."""
        self._line.send(msgspec.structs.replace(self._told, finished=True, held="", result=self._results))


def main() -> None:
    """Run the job that the command line describes, once the supervisor says that the functions are ready."""
    leave_to_the_supervisor()
    start_without_pandas()
    job = msgspec.json.decode(sys.argv[1], type=Job)
    line = Line.inherited()
    context = JobContext(line)
    go = threading.Event()

    def on_command(command: Command) -> None:
        if command.do == "stop":
            context.stopped.set()
        go.set()

    obey(line, on_command)
    status = 0
    try:
        handler = getattr(notebooks.load(job.notebook), job.handler)
        settings = from_environment()
        if settings.writes:
            context.stores = Stores.of(settings)
            context.stores.streams.expect_appends()
        KeyFinder("key").find(b"\n")  # loads the kernel, half a second of CPU: part of getting ready
        line.send(Report(ready=True))
        go.wait()
        if not context.stopped.is_set():
            handler(context, **job.parameters)
            context.finish()
    except UnavailableError as error:  # while starting: the supervisor tries again
        print(f"{error}; {error.remedy}", flush=True)
        line.send(Report(held=f"{error}; {error.remedy}"))
        status = OUTAGE
    except ModelstreamError as error:
        line.send(
            Report(
                error=str(error),
                remedy=error.remedy,
                gone=isinstance(error, GoneError),
                exit_status=error.exit_status,
            )
        )
        status = 2
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
