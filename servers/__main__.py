"""Start servers on this machine, to try the pipeline over them. They run until Ctrl-C.

  python -m servers                  Kafka and Redis, for README's example (`make servers`)
  python -m servers redis:6380 s3    others, or another port
  python -m servers fetch            only copy Kafka to build/, which the others do when they need it

  kafka  127.0.0.1:9092  streams; needs Java, and Maven to copy it the first time
  redis  127.0.0.1:6379  tables; needs redis-server
  s3     127.0.0.1:9000  logs, in memory; needs what `make s3` builds
  v3io   127.0.0.1:8081  streams and tables; a stand-in for V3IO's web API (servers/v3io/README.md)

They listen on this machine alone, without passwords. What they keep lies in a temporary folder, and goes when they
stop.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from modelstream.base.command_line import pipeline
from servers import kafka
from servers.base import Server, ServerError
from servers.redis import RedisServer
from servers.s3 import S3Server
from servers.v3io.process import V3ioServer

SERVERS: dict[str, type[Server]] = {kind.name: kind for kind in (kafka.KafkaServer, RedisServer, S3Server, V3ioServer)}
USUAL = ("kafka", "redis")
FETCH = "fetch"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m servers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = f"{', '.join(SERVERS)} (kafka and redis when nothing is named), or {FETCH} alone"
    parser.add_argument("names", nargs="*", metavar="NAME[:PORT]", help=names)
    given = parser.parse_args().names or USUAL
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # SIGINT too: a shell's background jobs ignore it
        signal.signal(ending, signal.default_int_handler)
    try:
        if FETCH in given:
            kafka.fetch()
        else:
            run(given)
    except ServerError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("\nStopped; their data are deleted.")


def run(given: Sequence[str]) -> None:
    """Start the servers of these names, say how to use them, and keep them running until an interrupt."""
    with tempfile.TemporaryDirectory(prefix="servers-") as folder, ExitStack() as running:
        servers = [make(one, Path(folder)) for one in given]
        check(servers)
        for server in servers:
            print(f"Starting {server.name} on {server.address} ...", flush=True)
            running.enter_context(server)
        print(how_to_use(servers))
        print(f"Their data and output are in {folder}, which is deleted when Ctrl-C stops them.", flush=True)
        print(
            "A data folder that used them must be started with --fresh next time, because what they kept is gone.",
            flush=True,
        )
        watch(servers)


def make(given: str, folder: Path) -> Server:
    """Return the server of a NAME[:PORT], over a folder in this one; raises ServerError if there is none."""
    name, colon, port = given.partition(":")
    if name not in SERVERS or (colon and not (port.isdecimal() and 0 < int(port) < 1 << 16)):
        raise ServerError(f"{given} is not a server: write {', '.join(SERVERS)}, each perhaps with a port (redis:6380)")
    return SERVERS[name](folder / name, int(port) if colon else SERVERS[name].usual_port)


def check(servers: Sequence[Server]) -> None:
    """Copy what is to be had, and raise ServerError with all that is in the way of a start."""
    problems = []
    for server in servers:
        try:
            if isinstance(server, kafka.KafkaServer):
                kafka.fetch()
            server.check()
        except ServerError as error:
            problems.append(str(error))
    if problems:
        raise ServerError("\n".join(problems))


def how_to_use(servers: Sequence[Server]) -> str:
    """Return what to type in another terminal."""
    lines = [f"export {name}={value}" for server in servers for name, value in server.environment.items()]
    options = {name: value for server in servers for name, value in server.options("churn").items()}
    options = {"--data": f"data-{servers[0].name}"} | options  # `data` may hold a run over SQLite
    words = [word for pair in options.items() for word in pair]
    lines.append(pipeline("run", shlex.join(words)))
    return "\n".join(["", "In another terminal:", "", *(f"    {line}" for line in lines), ""])


def watch(servers: Sequence[Server]) -> None:
    """Wait until one of them ends, which it should not; then raises ServerError."""
    while True:
        for server in servers:
            if server.process is None or server.process.poll() is not None:
                raise ServerError(f"{server.name} stopped unexpectedly: {server.words()}")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
