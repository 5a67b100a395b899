"""A load over HTTP on a new pipeline: what it took, and how long an event took to its stored prediction.

    python -m bench.http_probe [--rate 2000] [--events 1] [--connections 64] [--seconds 10]

Without --rate every connection posts as soon as it has its answer. The load comes from one process on the same machine.
Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.http_load import load
from bench.overload import get, serving
from modelstream.runner.run import delays
from modelstream.streams import open_streams

LOOK = 0.1
QUIET = 1.0
"""Seconds without a new prediction after which all are taken to be there."""
MAX_DELAY = 600.0
"""Seconds after which `serve` refuses events: longer than any load here, so nothing is refused."""
TURNS = 50
"""Events of a user in a load with a rate: after the first two, each asks for a prediction."""
WARM = 2.0
"""Seconds of a small load before the clock starts: every function has then loaded what it needs."""


def processed(url: str) -> tuple[float, float]:
    """Return the rows that the event-handler has taken, and those that the inference-logger has."""
    text = get(f"{url}/metrics")
    rows = dict(re.findall(r'^modelstream_rows_in_total{function="([\w-]+)"} (\S+)$', text, re.MULTILINE))
    return float(rows.get("event-handler", 0)), float(rows.get("inference-logger", 0))


def settled(url: str, deadline: float) -> float:
    """Wait until nothing new is processed; return when the last was."""
    last, since = processed(url), time.monotonic()
    while time.monotonic() < min(since + QUIET, deadline):
        time.sleep(LOOK)
        if (now := processed(url)) != last:
            last, since = now, time.monotonic()
    return since


def probe(rate: float, events: int, connections: int, seconds: float) -> dict[str, Any]:
    """Load a new pipeline; return what happened, as `pipeline.py run --json` says it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        with serving(folder, MAX_DELAY) as url:
            load(url, 2, 1, WARM, rate=200.0)
            settled(url, time.monotonic() + 10)
            opened, begun = time.time(), time.monotonic()
            users = round(min(max(rate * seconds / TURNS, 20), 2000)) if rate else 2000
            found = load(url, connections, events, seconds, rate, users)
            ended = settled(url, time.monotonic() + 3 * seconds + 30)
        delay = delays(open_streams(f"sqlite://{folder / 'streams'}"), "inference", opened)
    planned = rate * seconds if rate else found.accepted
    return {
        "events": found.accepted,
        "seconds": ended - begun,
        "sent": min(found.accepted / planned, 1.0) if planned else 0.0,
        "taken_per_second": found.accepted / found.seconds,
        "answer_ms": {f"p{part}": float(np.percentile(found.waits or [np.inf], part)) * 1e3 for part in (50, 99)},
        "statuses": found.statuses,
        "delay_ms": delay,
    }


def main() -> None:
    """Load as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=0.0, help="events per second (default: as fast as answers come)")
    parser.add_argument("--events", type=int, default=1, help="events in a body")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    print(json.dumps(probe(given.rate, given.events, given.connections, given.seconds)))


if __name__ == "__main__":
    main()
