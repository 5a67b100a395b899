"""Letters are read once each, whichever shard they are in and however often they were sent."""

from __future__ import annotations

import itertools
from pathlib import Path

from modelstream.messages.dead_letters import DeadLetter, encode_letters, letter
from modelstream.streams import open_streams
from modelstream.streams.letters import read_letters


def numbered(position: int, shard: int) -> DeadLetter:
    return letter("not JSON", "a", position, ("generated", shard, 0), b"{")


def test_letters_are_read_once_each_shard_by_shard(tmp_path: Path) -> None:
    with open_streams(f"sqlite://{tmp_path}") as streams:
        streams.create("dead-letters", 3)
        sent = {shard: [numbered(position, shard) for position in range(100)] for shard in (0, 2)}
        for shard, start in itertools.product(sent, range(0, 100, 7)):
            for again in (0, 0, 21):
                bodies = encode_letters(sent[shard][max(0, start - again) : start + 7], 400)
                streams.append("dead-letters", [(shard, body) for body in bodies])
        assert list(read_letters(streams, "dead-letters")) == sent[0] + sent[2]
