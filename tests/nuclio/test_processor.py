"""The functions in Nuclio's own processor, as `deploy` sends them, over Kafka and Redis: what comes out is exact.

`MODELSTREAM_NUCLIO` names a folder with Nuclio's source (docs/cluster.md).
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.kafka import KafkaServer
from servers.redis import RedisServer
from tests.nuclio import parts
from tests.nuclio.site import Site, golden, schedule
from tests.required import require

pytestmark = [parts.needs_nuclio, pytest.mark.xdist_group("processor")]

ONE_EACH = "{}"
TWO_EACH = "{event-handler: {replicas: 2}, stream-to-features: {replicas: 2}, model-server: {replicas: 2}}"


@pytest.fixture
def servers() -> Iterator[tuple[KafkaServer, RedisServer]]:
    require(KafkaServer, RedisServer)
    with KafkaServer() as kafka, RedisServer() as redis:
        yield kafka, redis


def test_every_event_counts_once_in_the_processor(servers: tuple[KafkaServer, RedisServer], tmp_path: Path) -> None:
    lines = golden(random.Random(1))
    with Site(tmp_path, *servers, sizes=ONE_EACH) as site:
        site.ready()
        site.send(b"\n".join(lines[:9000]), "in batches", most=1000)
        site.finish()
        site.send(b"\n".join(lines[9000:]), "one by one", most=1)
        site.finish()
        print(site.told())
        site.check()


def test_every_event_counts_once_whatever_happens_to_pods(
    servers: tuple[KafkaServer, RedisServer], tmp_path: Path
) -> None:
    rng = random.Random(2)
    lines = golden(rng)
    part = -(-len(lines) // (parts.INTERRUPTIONS + 1))
    with Site(tmp_path, *servers, sizes=TWO_EACH) as site:
        site.ready()
        for number, kind in enumerate([*schedule(rng, parts.INTERRUPTIONS), ""]):
            mine = lines[number * part : (number + 1) * part]
            site.send(b"\n".join(mine), f"part-{number}", most=rng.choice((1, 20)))
            time.sleep(rng.choice((0, 0.3, 2, 6)))
            if kind:
                site.interrupt(rng, kind)
        print(f"{site.finish():.0f} s after the last message")
        print(site.told())
        site.check()
