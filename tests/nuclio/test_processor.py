"""The functions in Nuclio's own processor, as `deploy` sends them: what comes out is exact.

Streams and tables are in Kafka and Redis, or in V3IO's stand-in.

`MODELSTREAM_NUCLIO` names a folder with Nuclio's source (docs/cluster.md).
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.kafka import KafkaServer
from servers.redis import RedisServer
from servers.v3io.process import V3ioServer
from tests.nuclio import parts
from tests.nuclio.pods import sessions_of, warnings_of
from tests.nuclio.site import CHAIN, Servers, Site, golden, schedule
from tests.required import require

pytestmark = [parts.needs_nuclio, pytest.mark.xdist_group("processor")]

TIMES = 3
"""How often all golden events are sent, each event in a message of its own: 48,120 messages."""
ONE_EACH = "{}"
TWO_EACH = "{event-handler: {replicas: 2}, stream-to-features: {replicas: 2}, model-server: {replicas: 2}}"


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    require(KafkaServer, RedisServer)
    with KafkaServer() as kafka, RedisServer() as redis:
        yield Servers.open(kafka, redis, tmp_path.name)


@pytest.fixture
def iguazio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    with V3ioServer() as v3io:
        for name, value in v3io.environment.items():  # of the test's own clients
            monkeypatch.setenv(name, value)
        yield Servers.iguazio(v3io, tmp_path.name)


def test_every_event_counts_once_in_the_processor(servers: Servers, tmp_path: Path) -> None:
    in_peace(servers, tmp_path)


def test_every_event_counts_once_in_the_processor_with_triggers_of_v3io(iguazio: Servers, tmp_path: Path) -> None:
    in_peace(iguazio, tmp_path)


def in_peace(servers: Servers, tmp_path: Path) -> None:
    lines = golden(random.Random(1))
    with Site(tmp_path, servers, sizes=ONE_EACH) as site:
        site.start()
        site.send(b"\n".join(lines[:9000]), "in batches", most=1000)
        site.finish()
        site.send(b"\n".join(lines[9000:]), "one by one", most=1)
        site.finish()
        print(site.told())
        site.check()


def test_every_event_counts_once_whatever_happens_to_pods(servers: Servers, tmp_path: Path) -> None:
    interrupted(servers, tmp_path, random.Random(2))


def test_every_event_counts_once_whatever_happens_to_pods_with_triggers_of_v3io(
    iguazio: Servers, tmp_path: Path
) -> None:
    interrupted(iguazio, tmp_path, random.Random(4))


def interrupted(servers: Servers, tmp_path: Path, rng: random.Random) -> None:
    lines = golden(rng)
    part = -(-len(lines) // (parts.INTERRUPTIONS + 1))
    with Site(tmp_path, servers, sizes=TWO_EACH) as site:
        site.start()
        for number, kind in enumerate([*schedule(rng, parts.INTERRUPTIONS), ""]):
            mine = lines[number * part : (number + 1) * part]
            site.send(b"\n".join(mine), f"part-{number}", most=rng.choice((1, 20)))
            time.sleep(rng.choice((0, 0.3, 2, 6)))
            if kind:
                site.interrupt(rng, kind)
        print(f"{site.finish():.0f} s after the last message")
        print(site.told())
        site.check()


def test_a_replica_that_joins_while_much_waits_stays_and_shares(servers: Servers, tmp_path: Path) -> None:
    lines = golden(random.Random(3))
    with Site(tmp_path, servers, sizes=TWO_EACH) as site:
        for number in range(TIMES):
            site.send(b"\n".join(lines), f"part-{number}", most=1)
        site.start(*site.replicas(0))
        site.start(*site.replicas(1))
        waiting = site.lag()
        seconds = site.finish()
        print(f"when the others had joined, {waiting} waited; all was done {seconds:.0f} s later; {site.told()}")
        sessions = sessions_of(site.pods)
        for name in CHAIN:
            # One rebalance: the first pod had all partitions, then each has half of them, and keeps it.
            first, *second = (sessions[pod.folder.name] for pod in site.pods if pod.name == name)
            assert first[0] == "0 1 2 3 4 5 6 7"
            later = [*first[1:], *itertools.chain(*second)]
            assert sorted(later) == (["0 1 2 3", "4 5 6 7"] if second else []), sessions
        assert not warnings_of(site.pods)["Cancelling event handling"], "no worker was killed for not answering"
        assert waiting["event-handler"] > 10_000, "the test is worth something"
        site.check()
