"""Load over HTTP for a pipeline that `pipeline.py serve` runs: what it takes and refuses, and how long answers take.

    python -m bench.http_load http://127.0.0.1:8080 --connections 64 --events 1 --seconds 10

Every connection posts as soon as it has its answer, or all of them together at `--rate` events per second; what is
late then is made up for. The events are those of the churn use case, of `--users` users.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import numpy as np

KINDS = ("registration", "purchase", "bet", "win", "bet", "win")
VALUES = {"purchase": "amount", "bet": "bet_amount", "win": "win_amount"}
END = b"\r\n\r\n"


@dataclass
class Load:
    """What was sent for how long, and what came back."""

    seconds: float
    accepted: int
    """Events with status 202."""
    statuses: dict[int, int]
    """Answers by status."""
    waits: list[float] = field(repr=False)
    """Seconds to each answer with status 202."""

    def __str__(self) -> str:
        p50, p99 = np.percentile(self.waits, [50, 99]) * 1e3 if self.waits else (0, 0)
        return (
            f"{self.accepted / self.seconds:,.0f} events/s taken, {sum(self.statuses.values()) / self.seconds:,.0f} "
            f"answers/s ({self.statuses}), p50 {p50:.1f} ms, p99 {p99:.1f} ms"
        )


def bodies(users: int, events: int) -> Iterator[bytes]:
    """Yield bodies of some events each: every user registers, purchases, then plays."""
    begin = datetime(2026, 11, 16)
    number = 0
    while True:
        lines = []
        for _ in range(events):
            turn, user = divmod(number, users)
            kind = KINDS[turn] if turn < 2 else KINDS[2 + turn % 4]
            at = begin + timedelta(milliseconds=number)
            event: dict[str, object] = {"user_id": f"u{user}", "event_type": kind, "event_time": str(at)}
            if kind in VALUES:
                event[VALUES[kind]] = 1 + number % 50
            lines.append(json.dumps(event))
            number += 1
        yield "\n".join(lines).encode()


def load(url: str, connections: int, events: int, seconds: float, rate: float = 0.0, users: int = 2000) -> Load:
    """Post for some seconds, at `rate` events per second, 0 for as fast as answers come."""
    where = urlsplit(url)
    texts = bodies(users, events)
    sockets = [socket.create_connection((where.hostname or "", where.port or 80)) for _ in range(connections)]
    statuses: Counter[int] = Counter()
    waits: list[float] = []
    idle = list(sockets)
    sent_at: dict[socket.socket, float] = {}
    begun = now = time.monotonic()
    posted = 0
    with selectors.DefaultSelector() as selector:
        for one in sockets:
            selector.register(one, selectors.EVENT_READ)
        while (now := time.monotonic()) < begun + seconds or sent_at:
            due = rate * (now - begun) / events if rate else float("inf")
            while idle and posted < due and now < begun + seconds:
                one, body = idle.pop(), next(texts)
                one.sendall(b"POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                sent_at[one] = time.monotonic()
                posted += 1
            for key, _ in selector.select(0.001 if rate else 1.0):
                one = key.fileobj  # type: ignore[assignment]
                head, _, rest = one.recv(65536).partition(END)
                status = int(head[9:12])
                size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                while len(rest) < size:
                    rest += one.recv(65536)
                statuses[status] += 1
                wait = time.monotonic() - sent_at.pop(one)
                if status == 202:
                    waits.append(wait)
                idle.append(one)
    for one in sockets:
        one.close()
    return Load(now - begun, statuses[202] * events, dict(statuses), waits)


def main() -> None:
    """Load as the command line says, and print what came back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--events", type=int, default=1, help="events in a body")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=0.0, help="events per second; 0: as fast as answers come")
    parser.add_argument("--users", type=int, default=2000)
    given = parser.parse_args()
    print(load(given.url, given.connections, given.events, given.seconds, given.rate, given.users))


if __name__ == "__main__":
    main()
