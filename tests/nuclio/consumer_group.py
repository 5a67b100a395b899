"""A consumer group of two workers over a stream, with what happens to one: drains, terminations, kills, stalls.

Deliveries follow Nuclio's rules: one message at a time per worker, in order per shard, from the one after the last that
was acknowledged; after a drain shards may belong to another worker.
"""

from __future__ import annotations

import itertools
import random
import signal
import threading
from collections import Counter
from pathlib import Path

from modelstream.streams import Streams
from tests.nuclio.processor import Function, Worker, Zygote

WORKERS = 2


class ConsumerGroup:
    """Brings a function through a stream while its workers are interrupted."""

    def __init__(
        self, zygote: Zygote, folder: Path, function: Function, streams: Streams, stream: str, rng: random.Random
    ) -> None:
        self.happened: Counter[str] = Counter()
        self.committed: dict[int, int] = {}
        """The last acknowledged offset of each shard."""
        self.answers: list[int] = []
        """Status of every answer."""
        self.violations: list[str] = []
        self._zygote, self._folder, self._function = zygote, folder, function
        self._streams, self._stream, self._rng = streams, stream, rng
        self._numbers = itertools.count()
        self._guard = threading.Lock()
        self._messages = {
            shard: streams.read(stream, shard, 0, 1 << 20, 1 << 40) for shard in range(streams.describe(stream).shards)
        }
        self.committed = dict.fromkeys(self._messages, -1)
        self._next = dict.fromkeys(self._messages, 0)
        self._given = dict.fromkeys(self._messages, -1)
        self._owner: dict[int, Worker] = {}
        self.workers = [self._new() for _ in range(WORKERS)]
        self._assign()

    def live(self, interruptions: int) -> None:
        """Deliver everything, with so many interruptions on the way; stop when all is acknowledged."""
        total = sum(len(messages) for messages in self._messages.values())
        for _ in range(interruptions):
            for _ in range(self._rng.randint(0, max(1, total // interruptions))):
                self._deliver()
            self._interrupt()
        for _ in range(2):
            while self._deliver():
                pass
            self._drain(self.workers)
            self._assign()  # what went with a worker that was killed in a rebalance comes again
        behind = {shard: len(found) - 1 - self.committed[shard] for shard, found in self._messages.items()}
        if any(behind.values()):
            self.violations.append(f"not acknowledged after the last drain: {behind}")

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.kill()

    # Delivering.

    def _deliver(self, *, wait: bool = True) -> bool:
        """Give each worker a message; return whether there was one."""
        busy = []
        for worker in self.workers:
            shards = [shard for shard, owner in self._owner.items() if owner is worker and self._left(shard)]
            if shards:
                self._give(worker, self._rng.choice(shards))
                busy.append(worker)
        if wait:
            for worker in busy:
                self._answered(worker)
        return bool(busy)

    def _give(self, worker: Worker, shard: int) -> None:
        worker.send(self._messages[shard][self._next[shard]], self._stream)
        self._given[shard] = max(self._given[shard], self._next[shard])
        self._next[shard] += 1

    def _left(self, shard: int) -> bool:
        return self._next[shard] < len(self._messages[shard])

    def _answered(self, worker: Worker) -> None:
        if worker.waiting:
            answer = worker.answer()
            self.answers.append(answer["status_code"])
            if answer["status_code"] != 200:
                self.violations.append(f"answered with {answer}")

    def _acknowledged(self, worker: Worker, shard: int, offset: int) -> None:
        with self._guard:
            if self._owner.get(shard) is not worker:
                self.happened["acknowledgement by a worker that had lost the shard"] += 1
                return
            if offset < self.committed[shard]:
                self.violations.append(f"shard {shard} goes back from {self.committed[shard]} to {offset}")
            # A worker may acknowledge what another has made durable: but not what nobody was given.
            if offset > self._given[shard]:
                self.violations.append(f"shard {shard}: {offset} was not delivered yet")
            self.committed[shard] = max(self.committed[shard], offset)

    # What happens to workers.

    def _interrupt(self) -> None:
        kinds = ("drain", "termination", "kill", "killed in a rebalance", "stall")
        kind = self._rng.choices(kinds, (45, 20, 10, 15, 10))[0]
        mid_handler = self._rng.random() < 0.5
        if mid_handler and self._deliver(wait=False):
            for worker in self.workers:
                if worker.waiting:
                    worker.taken()
            self.happened["while a handler ran"] += 1
        self.happened[kind] += 1
        victim = self._rng.choice(self.workers)
        getattr(self, f"_{kind.replace(' ', '_')}")([victim] if kind != "drain" else self.workers)
        self._assign(rewind=kind != "killed in a rebalance")

    def _drain(self, workers: list[Worker]) -> None:
        """Rebalance: every worker of the trigger is asked to drain, then to go on.

        In between it is given what partitions were waiting to give it, one message of each, and is asked to drain after
        each. One that has not had a message yet would not answer.
        """
        for worker in workers:
            worker.signal(signal.SIGUSR2)
        for worker in workers:
            self._drained(worker)
            late = [shard for shard, owner in self._owner.items() if owner is worker and self._rng.random() < 0.3]
            for shard in late:
                if worker.answered and self._left(shard):
                    self._give(worker, shard)
                    worker.signal(signal.SIGUSR2)
                    self._drained(worker)
                    self.happened["given after a drain"] += 1
        for worker in workers:
            worker.go_on()

    def _drained(self, worker: Worker) -> None:
        self._answered(worker)
        worker.called_back()
        worker.settled()

    def _termination(self, victims: list[Worker]) -> None:
        """A pod goes, with its workers' callbacks; then the others drain."""
        (victim,) = victims
        victim.signal(signal.SIGUSR1)
        self._answered(victim)
        victim.called_back()
        victim.settled()
        self._replace(victim)

    def _kill(self, victims: list[Worker]) -> None:
        """A pod is lost."""
        (victim,) = victims
        victim.kill()
        self.happened["messages lost with a worker"] += len(victim.waiting)
        self._replace(victim)

    def _killed_in_a_rebalance(self, victims: list[Worker]) -> None:
        """A worker doesn't drain in time, so the processor kills it and goes on with the messages that follow."""
        (victim,) = victims
        with self._guard:
            held = {shard for shard in self._messages if self._next[shard] > self.committed[shard] + 1}
        self.happened["shards that go on behind what nobody finished"] += len(held)
        victim.signal(signal.SIGSTOP)
        self._drain([worker for worker in self.workers if worker is not victim])
        self._kill(victims)

    def _stall(self, victims: list[Worker]) -> None:
        """A pod stands still, its shards go to another worker, then it wakes up with what it had in hand."""
        (victim,) = victims
        self._answered(victim)
        victim.signal(signal.SIGSTOP)
        rest = [worker for worker in self.workers if worker is not victim]
        self._drain(rest)
        with self._guard:
            self._owner = {shard: self._rng.choice(rest) for shard in self._messages}
            self._rewind()
        for _ in range(self._rng.randint(1, 4)):
            self._deliver()
        victim.go_on()
        self._drain(self.workers)

    def _replace(self, victim: Worker) -> None:
        rest = [worker for worker in self.workers if worker is not victim]
        self._drain(rest)
        victim.kill()
        self.workers = [*rest, self._new()]

    def _new(self) -> Worker:
        worker = Worker(next(self._numbers), self._function, self._acknowledged)
        return worker.start(self._zygote, self._folder)

    def _assign(self, *, rewind: bool = True) -> None:
        """Give shards to workers anew; each goes on after the last that was acknowledged, or that was given."""
        with self._guard:
            if self._rng.random() < 0.7:  # otherwise it shows late
                for shard, offset in self.committed.items():
                    if offset >= 0:
                        self._streams.ack(self._function.name, self._stream, {shard: offset})
            self._owner = {shard: self._rng.choice(self.workers) for shard in self._messages}
            if rewind:
                self._rewind()

    def _rewind(self) -> None:
        for shard, offset in self.committed.items():
            again = self._next[shard] - (offset + 1)
            self.happened["messages delivered again"] += again
            self._next[shard] = offset + 1
