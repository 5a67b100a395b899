"""Who sends: readers of files, which are killed and go on from an older progress, and clients that post again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modelstream.messages import identity
from modelstream.source.lines import InputLines, LineSplitter
from modelstream.source.sender import messages
from tests.faults import inputs
from tests.faults.process import CHURN

if TYPE_CHECKING:
    from tests.faults.world import World


@dataclass
class File:
    """An input file, and how far it was sent."""

    origin: str
    texts: list[bytes]
    lines: InputLines
    sent: int = 0
    saved: list[int] = field(default_factory=lambda: [0])
    """Progress as it was made durable, each time."""


class Sources:
    """See the module."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.rng
        self.files: list[File] = []

    def add(self, origin: str, texts: list[bytes]) -> None:
        """Add an input file; `send` sends what was not sent of it."""
        lines = LineSplitter(CHURN.key).feed(b"\n".join(texts), last=True).lines
        self.files.append(File(origin, texts, lines))

    async def send(self, file: File, upto: int) -> None:
        """Send a file's lines up to one, with crashes of the sender and from an older progress again."""
        while file.sent < upto:
            at = file.sent
            count = min(self.rng.choice((1, 3, 12)), upto - at)
            records = messages(file.lines.slice(at, at + count), self.world.shards, file.origin, self._now(), most=7)
            await self._surely(records)
            file.sent = at + count
            if self.rng.random() < 0.5:
                file.saved.append(file.sent)
            if not self.world.calm and self.rng.random() < 0.1:  # killed: goes on from where progress was saved
                file.sent = self.rng.choice(file.saved)
            await asyncio.sleep(self.rng.choice((0, 0.01, 0.1, 0.5)))

    async def post(self, count: int) -> None:
        """Post bodies as clients do; one that gets no answer posts again."""
        of_shard: dict[int, list[str | int]] = {}
        for key in inputs.KEYS:
            of_shard.setdefault(identity.bucket_of(str(key)) % self.world.shards, []).append(key)
        for _ in range(count):
            shard = self.rng.choice(sorted(of_shard))
            await self._surely([(shard, inputs.body(self.rng, of_shard[shard], CHURN))])
            await asyncio.sleep(self.rng.choice((0, 0.01, 0.1, 0.5)))

    async def _surely(self, records: list[tuple[int, bytes]]) -> None:
        while True:
            self.world.out.append("generated", records)
            if self.world.calm or self.rng.random() >= self.world.faults.unknown:
                return
            await asyncio.sleep(0.05)

    def _now(self) -> int:
        return int(asyncio.get_running_loop().time() * 1e6)
