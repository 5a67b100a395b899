"""Single events over Kafka: the pipeline beside Quix Streams, which only computes the vectors."""

from __future__ import annotations

import itertools
import sys

from bench.charts import Bar, bars
from bench.live import HEAD, Source, by_rate, chart, probe_of, searched, shape_for
from bench.measure import Measured, measure
from bench.page import Section
from bench.peers import check
from bench.search import Probe
from bench.sitting import Sitting, files_in
from servers.kafka import KafkaServer

PROBES = 6
"""Fewer than elsewhere: two searches, and each start over Kafka takes some seconds more."""
START = 2_000.0
FOREIGN, FOREIGN_GOAL = 500_000, 50_000
"""Records of another producer that wait, and how many a second the event-handler should log."""
WAITING = 100_000
"""Events in the topic before Quix Streams starts, for its highest throughput."""
SETTLE = 2.0
"""Seconds of a load that the peer's delay leaves out, in which it starts to work. The pipeline's counts whole."""
NAMES = ("the pipeline", "Quix Streams, vectors only")


def kafka(sitting: Sitting) -> Section:
    """Search the highest rate of both on one broker."""
    with KafkaServer(sitting.scratch / "kafka") as server:
        check(sitting.scratch, "Quix Streams", lambda *options: quix(server.address, *options))
        sitting.say("Quix Streams gives the golden vectors")
        count = str(min(WAITING, sitting.users * sitting.events_per_user))
        waiting = quix(server.address, *sitting.files, "--events", count).result
        most = float(waiting["events"]) / float(waiting["seconds"])
        sitting.say(f"Quix Streams, all at once: {most:,.0f} events/s")
        numbers = itertools.count()

        def stores() -> list[str]:
            return ["--streams", server.url(f"bench{next(numbers)}")]

        ours = float(sitting.pipeline(*sitting.files, *stores()).result["events_per_second"])
        sitting.say(f"the pipeline, all at once: {ours:,.0f} events/s")
        sources = (by_rate(sitting, stores), quix_by_rate(sitting, server.address))
        rows, found = [], {}
        for name, source in zip(NAMES, sources, strict=True):
            more, found[name] = searched(sitting, name, source, START, PROBES)
            rows += more
    at_once = [
        f"| {name}, all at once | {rate:,.0f} | {sitting.against_bulk(rate)} | | |"
        for name, rate in zip(NAMES, (ours, most), strict=True)
    ]
    records = min(FOREIGN, sitting.users * sitting.events_per_user)
    options = ["--input", str(sitting.folder / "events.ndjson"), "--records", str(records)]
    foreign = float(sitting.module("foreign", options)["records_per_second"])
    sitting.say(f"records of another producer: {foreign:,.0f}/s")
    reached = "reached" if foreign >= FOREIGN_GOAL else "**missed**"
    at_once.append(
        f"| the event-handler alone, records of another producer, all at once (goal {FOREIGN_GOAL:,}: {reached}) "
        f"| {foreign:,.0f} | {sitting.against_bulk(foreign)} | | |"
    )
    speeds = [Bar(NAMES[0], ours, f"{ours:,.0f}/s"), Bar(NAMES[1], most, f"{most:,.0f}/s", ours=False)]
    short = dict(zip(("pipeline", "Quix"), found.values(), strict=True))
    return Section(
        "\n".join([*HEAD, *rows, *at_once]),
        {
            "kafka": chart("Single events over Kafka: delay by rate", short),
            "kafka-bulk": bars("All events at once over Kafka: events/s", speeds),
        },
    )


def quix(broker: str, *options: str, limit: float = float("inf")) -> Measured:
    """Run the peer."""
    return measure([sys.executable, "-W", "ignore", "-m", "bench.peer_quix", "--broker", broker, *options], limit=limit)


def quix_by_rate(sitting: Sitting, broker: str) -> Source:
    """Return the probe of the peer."""

    def probe(rate: float) -> Probe:
        folder = sitting.scratch / "sent"
        sitting.write_input(folder, *shape_for(rate, sitting.seconds))
        settle = f"{min(SETTLE, sitting.seconds / 4):g}"
        return probe_of(rate, quix(broker, *files_in(folder), "--rate", f"{rate:g}", "--settle", settle).result)

    return probe
