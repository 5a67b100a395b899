"""How long the oldest message of a stream has been waiting, from what is known anyway: where its shards end."""

from __future__ import annotations

from collections.abc import Mapping

MOST_KEPT = 512
"""Steps kept for a shard: two minutes at four looks a second; then every other one is forgotten."""

Part = tuple[int, int]
"""A stretch of a shard: its first offset, and the one after its last."""


class Arrivals:
    """When the messages of a stream arrived, within the time between two looks: nothing is read for it.

    Messages that were there at the first look count from then on, so a pipeline that was off for a night and goes on
    isn't late from the start.

    >>> arrivals = Arrivals()
    >>> arrivals.look(10.0, {0: (5, 5)}), arrivals.look(11.0, {0: (5, 7)}), arrivals.look(12.0, {0: (5, 9)})
    (0.0, 1.0, 2.0)
    >>> arrivals.look(13.0, {0: (7, 9)}), arrivals.look(14.0, {0: (9, 9)})
    (2.0, 0.0)
    """

    def __init__(self) -> None:
        self._looked_at: float | None = None
        self._steps: dict[int, list[tuple[int, float]]] = {}
        """By shard: messages below the offset were there at the look after the time, and not yet at that time."""

    def look(self, now: float, waiting: Mapping[int, Part]) -> float:
        """Note what waits at a time (seconds), by shard; return for how many seconds the oldest of it has been there.

        It may be too long by the time since the look before.
        """
        since = now if self._looked_at is None else self._looked_at
        self._looked_at = now
        oldest = now
        for shard, (first, end) in waiting.items():
            steps = [step for step in self._steps.get(shard, ()) if step[0] > first]
            if end > max(first, steps[-1][0] if steps else first):
                steps.append((end, since))
            self._steps[shard] = _thinned(steps)
            if steps:
                oldest = min(oldest, steps[0][1])
        return now - oldest


def _thinned(steps: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return at most MOST_KEPT steps: two become one, which has the earlier time."""
    if len(steps) <= MOST_KEPT:
        return steps
    return [(steps[min(i + 1, len(steps) - 1)][0], steps[i][1]) for i in range(0, len(steps), 2)]
