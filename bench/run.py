"""Measure the pipeline in one sitting, and write the results and charts into docs/performance.md.

    make bench                                          # all sections, under 25 minutes on a quiet machine of 2 cores
    make bench ARGS="--only live http"                  # some of them; the others stay as they are on the page
    make bench ARGS="--users 20 --events-per-user 20 --seconds 1 --rounds 1 --dry"      # only to see that it works

A section that fails is told at the end, and the others are written all the same; the exit status is then 1. Ctrl-C ends
what runs, and keeps the sections that are done.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import bulk, live, live_http, small, stores, stream, too_much, users
from bench.measure import CommandError
from bench.page import ROOT, Section, write
from bench.report import machine
from bench.search import PROBES
from bench.sitting import DATA, Sitting
from servers.base import ServerError

PROJECT_PYTHON = str(ROOT / ".venv" / "bin" / "python")
BUSY = 0.5


@dataclass(frozen=True)
class Part:
    """A section of a sitting."""

    measure: Callable[[Sitting], Section]
    minutes: float
    """About how long it takes on a quiet machine of 2 cores."""
    what: str


PARTS: Mapping[str, Part] = {
    "bulk": Part(bulk.bulk, 4, "one file, beside Polars and Bytewax; scoring and training"),
    "live": Part(live.live, 3, "single events by `run --rate`: the highest rate that is sustained, and delays"),
    "http": Part(live_http.http, 4, "the same over HTTP with 64 connections, and bodies of 1,000 events"),
    "overload": Part(too_much.overload, 2.5, "twice the load that can be sustained"),
    "users": Part(users.users, 4, "cost of an event with 2 thousand to 2 million users"),
    "messages": Part(small.messages, 0.5, "CPU of small messages, by how many wait"),
    "kafka": Part(stream.kafka, 4, "single events over Kafka, beside Quix Streams"),
    "backends": Part(stores.backends, 3, "one file over SQLite, Kafka with Redis, and V3IO's stand-in"),
}


def sit(
    sitting: Sitting,
    parts: Mapping[str, Part],
    keep: Callable[[str, Section], None],
) -> dict[str, str]:
    """Measure the parts, one after the other, and keep each as soon as it is done; return what failed, and why."""
    failed = {}
    for number, (name, part) in enumerate(parts.items(), 1):
        begun = time.monotonic()
        print(f"[{number}/{len(parts)}] {name}: {part.what}, about {part.minutes:g} min", file=sys.stderr, flush=True)
        try:
            keep(name, part.measure(sitting))
        except (CommandError, ServerError, OSError, ArithmeticError, LookupError, ValueError) as error:
            failed[name] = str(error) or type(error).__name__
            sitting.say(f"failed: {failed[name]}")
        sitting.say(f"took {(time.monotonic() - begun) / 60:.1f} min")
    return failed


def main() -> None:
    """Run the command line."""
    given = options().parse_args()
    os.chdir(ROOT)
    if (load := os.getloadavg()[0]) > BUSY:
        print(f"The machine is busy (load {load:.1f}): times will be too long.", file=sys.stderr)
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # SIGINT too: a shell's background jobs ignore it
        signal.signal(ending, signal.default_int_handler)
    parts = {name: part for name, part in PARTS.items() if not given.only or name in given.only}

    def keep(name: str, section: Section) -> None:
        text = f"{machine()}.\n\n{section.text}"
        print(f"\n{name}\n\n{text}\n", flush=True)
        if not given.dry:
            write(name, Section(text, section.charts))

    DATA.mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=DATA) as scratch:
            shape = (given.users, given.events_per_user, given.rounds, given.seconds, given.probes)
            failed = sit(Sitting(given.python, *shape, Path(scratch)), parts, keep)
    except KeyboardInterrupt:
        sys.exit("\nStopped; what was measured before is kept.")
    if failed:
        sys.exit("\n".join(f"{name} failed: {why}" for name, why in failed.items()))


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    sections = "\n".join(f"  {name:<10}{part.what} ({part.minutes:g} min)" for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="make bench",
        description=__doc__,
        epilog=f"sections, in their order:\n{sections}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="SECTION", help="measure these alone")
    parser.add_argument("--users", type=int, default=2000, help="users of the file, and the scale of `users`")
    parser.add_argument("--events-per-user", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3, help="how often bulk runs are measured (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long a load of single events lasts (10)")
    parser.add_argument("--probes", type=int, default=PROBES, help="how many loads a search may take (%(default)s)")
    parser.add_argument("--dry", action="store_true", help="print the tables, but don't write docs/performance.md")
    parser.add_argument("--python", default=PROJECT_PYTHON, help="the Python that the pipeline is installed in")
    return parser


if __name__ == "__main__":
    main()
