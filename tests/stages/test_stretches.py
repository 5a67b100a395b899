"""However lines are cut into messages, their stretches hold the same lines with the same places."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from modelstream.events.checking import MessageLines
from modelstream.messages.identity import Checkpoint
from modelstream.stages.shard import Shard
from modelstream.stages.stretches import Stretch


@given(st.lists(st.integers(0, 4), max_size=12))
def test_lines_and_their_places_are_in_order(sizes: list[int]) -> None:
    """A message of one line is added alone or as a batch, in turn."""
    stretch = Stretch(Shard(0, Checkpoint(), saved=-1), "a")
    expected: list[tuple[int, bytes, int, int]] = []
    for offset, size in enumerate(sizes):
        added = [(10 * offset + i, b"%d-%d" % (offset, i), 100 + offset, offset) for i in range(size)]
        expected += added
        if size == 1 and offset % 2:
            stretch.add_line(offset, added[0][0], added[0][1], 100 + offset)
        else:
            positions = np.array([row[0] for row in added], np.int64)
            texts = pa.array([row[1] for row in added], pa.binary())
            stretch.add(offset, MessageLines("a", texts, positions, 100 + offset))
    lines = stretch.lines()
    ingested_at = np.broadcast_to(lines.ingested_at, len(lines)).tolist()
    found = zip(lines.positions.tolist(), lines.texts.to_pylist(), ingested_at, stretch.offsets().tolist(), strict=True)
    assert list(found) == expected


def test_only_later_lines_of_the_same_origin_and_shard_go_on() -> None:
    shard, other = (Shard(number, Checkpoint(), saved=-1) for number in (0, 1))
    stretch = Stretch(shard, "a")
    assert not stretch.goes_on(shard, "a", 0), "an empty message is alone"
    stretch.add_line(0, 5, b"{}", 0)
    assert stretch.goes_on(shard, "a", 6)
    assert not any((stretch.goes_on(shard, "a", 5), stretch.goes_on(shard, "b", 6), stretch.goes_on(other, "a", 6)))
