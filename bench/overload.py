"""Twice the load that a pipeline can sustain: `serve` must keep its throughput, bound its memory and lose nothing.

    python -m bench.overload --seconds 60

The first phase posts as fast as answers come, with `--max-delay 600`: the rate at which events are then processed is
the highest. The second posts twice as much to a new pipeline with `--max-delay 10`.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from bench.http_load import Load, load

ROOT = Path(__file__).parents[1]
USUAL_DELAY = 6.0
"""Seconds: a commit every five, and a look at it."""


def get(url: str) -> str:
    """Return what a path answers, whatever the status."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            text: bytes = answer.read()
    except urllib.error.HTTPError as error:
        text = error.read()
    return text.decode()


@dataclass
class Watch(threading.Thread):
    """Looks at `/metrics` every half second until it is stopped."""

    url: str
    seen: list[tuple[float, float, float, float]] = field(default_factory=list)
    """Time, rows that the slowest function has taken in, delay in seconds, memory of all processes in bytes."""

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.stopping = threading.Event()

    def run(self) -> None:
        """Look."""
        while not self.stopping.wait(0.5):
            text = get(f"{self.url}/metrics")
            rows, delay, memory = (
                [float(value) for value in re.findall(rf"^modelstream_{name}{{.*}} (\S+)$", text, re.MULTILINE)]
                for name in ("rows_in_total", "delay_seconds", "resident_memory_bytes")
            )
            # The first two functions see every event, the others a vector each.
            self.seen.append((time.monotonic(), min(rows[:2]), max(delay), sum(memory)))

    def __hash__(self) -> int:
        return id(self)


@contextmanager
def serving(folder: Path, max_delay: float) -> Iterator[str]:
    """Run `serve` until the end of the context; give its URL."""
    command = [sys.executable, "pipeline.py", "serve", "--data", str(folder), "--port", "0", "-q"]
    said = folder.parent / f"{folder.name}.txt"
    with said.open("w") as errors:
        process = subprocess.Popen([*command, "--max-delay", f"{max_delay:g}"], cwd=ROOT, stderr=errors, stdout=errors)
    try:
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", said.read_text())):
            if process.poll() is not None:
                raise SystemExit(said.read_text())
            time.sleep(0.1)
        while any(
            one["state"] == "starting"
            for one in json.loads(get(f"{found[0]}/healthz"))["functions"] or [{"state": "starting"}]
        ):
            time.sleep(0.2)
        yield found[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def phase(name: str, rate: float, seconds: float, max_delay: float, events: int) -> dict[str, Any]:
    """Load a new pipeline, tell what happened on standard error, and return it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        with serving(folder, max_delay) as url:
            load(url, 2, events, 2.0, rate=200.0)  # every function has loaded what it needs
            watch = Watch(url)
            watch.start()
            found: Load = load(url, 64, events, seconds, rate)
            ended = time.monotonic()
            deadline = ended + 20 * seconds
            while (watch.seen[-1][2] > USUAL_DELAY or watch.seen[-1][0] < ended) and time.monotonic() < deadline:
                time.sleep(0.25)
            watch.stopping.set()
            watch.join()
        first, last = watch.seen[0], next(one for one in watch.seen if one[0] >= ended)
        processed = (last[1] - first[1]) / (last[0] - first[0])
        usual = next((one[0] - ended for one in watch.seen if one[0] >= ended and one[2] <= USUAL_DELAY), float("nan"))
        kept = ds.dataset(folder / "events").count_rows()
        longest, most = max(one[2] for one in watch.seen), max(one[3] for one in watch.seen)
        print(f"{name}: {found}", file=sys.stderr)
        print(
            f"  {processed:,.0f} events/s processed; usual delay {usual:.1f} s after the load, "
            f"at most {longest:.1f} s; "
            f"memory {first[3] / 1e6:,.0f} MB before, at most {most / 1e6:,.0f} MB; {kept:,} events in the log",
            file=sys.stderr,
            flush=True,
        )
    return {
        "processed_per_second": processed,
        "taken": found.accepted,
        "usual_after": usual,
        "longest_delay": longest,
        "memory_before": first[3],
        "memory_most": most,
        "kept": kept,
        "seen": [[at - first[0], *rest] for at, *rest in watch.seen],
        "ended": ended - first[0],
    }


def main() -> None:
    """Run both phases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--events", type=int, default=1, help="events in a body")
    parser.add_argument("--json", action="store_true", help="print one JSON object as well")
    given = parser.parse_args()
    highest = phase("as fast as answers come", 0.0, given.seconds / 2, 600.0, given.events)
    twice = phase("twice as much", 2 * highest["processed_per_second"], given.seconds, 10.0, given.events)
    share = twice["processed_per_second"] / highest["processed_per_second"]
    print(f"{share:.0%} of the highest throughput", file=sys.stderr)
    if given.json:
        print(json.dumps({"share": share, "highest": highest, "twice": twice}))


if __name__ == "__main__":
    main()
