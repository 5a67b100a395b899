"""The metrics that Prometheus scrapes, and the health check.

The supervisor's thread updates the state of the functions a few times a second; a request gets the last state, without
touching streams or processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client.registry import Collector

from modelstream.runner.state import FunctionState, PipelineState

__all__ = ["CONTENT_TYPE", "Exporter"]

STALLED_SECONDS = 30.0
"""A function that has not committed for this long while rows wait is stalled: 6 to 15 commits should have happened.
"""


class Exporter(Collector):
    """The metrics of one pipeline, in a registry of their own."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.state = PipelineState(clock())
        self.failure = ""
        """Why the pipeline is about to end, if it is not because somebody told it to."""
        self._clock = clock
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "modelstream_http_requests",
            "HTTP requests answered.",
            ("method", "path", "status"),
            registry=self._registry,
        )
        self.accepted = Counter(
            "modelstream_http_events", "Events accepted over HTTP that are durable.", registry=self._registry
        )
        self._registry.register(self)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def health(self) -> dict[str, Any]:
        """Return whether the pipeline is healthy (`status`: ok or failing), why not, and its functions."""
        now = self._clock()
        state = self.state
        reasons = [self.failure] if self.failure else []
        reasons += [
            f"{function.name}: {function.shown_lag} rows waiting, but nothing has been committed for "
            f"{function.waits_for(now):.0f} s{': ' + held if (held := function.held_logged or function.held) else ''}"
            for function in state.functions
            if function.waits_for(now) > STALLED_SECONDS
        ]
        if now - state.at > STALLED_SECONDS:
            reasons.append(f"the supervisor has not looked at its functions for {now - state.at:.0f} s")
        return {
            "status": "failing" if reasons else "ok",
            "reasons": reasons,
            "functions": [_shown(function, now) for function in state.functions],
        }

    def collect(self) -> Iterator[Metric]:
        """Yield the functions' metrics, of the last state."""
        functions = self.state.functions
        for name, help_, value in _COUNTERS:
            yield _family(CounterMetricFamily(f"modelstream_{name}", help_, labels=["function"]), functions, value)
        for name, help_, value in _GAUGES:
            yield _family(GaugeMetricFamily(f"modelstream_{name}", help_, labels=["function"]), functions, value)
        reasons = CounterMetricFamily(
            "modelstream_not_counted",
            "Events that changed no user's features, by the reason why not.",
            labels=["function", "reason"],
        )
        for function in functions:
            for reason, number in function.counters.not_counted.items():
                reasons.add_metric([function.name, reason], number)
        yield reasons
        model = GaugeMetricFamily(
            "modelstream_model", "1 for a version of the model that serves.", labels=["function", "version"]
        )
        for function in functions:
            for version in function.models:
                model.add_metric([function.name, version], 1)
        yield model
        memory = GaugeMetricFamily(
            "modelstream_resident_memory_bytes",
            "Memory of a process (resident set; pages that processes share count in each).",
            labels=["process"],
        )
        for process, size in self.state.resident.items():
            memory.add_metric([process], size)
        yield memory
        yield GaugeMetricFamily("modelstream_disk_low", "1 while the disk is nearly full.", float(self.state.disk_low))


_Value = Callable[[FunctionState], float]

_COUNTERS: tuple[tuple[str, str, _Value], ...] = (
    ("rows_in", "Rows that a function has taken.", lambda function: function.counters.rows_in),
    ("rows_out", "Rows that a function sent on.", lambda function: function.counters.rows_out),
    ("dead_letters", "Rows that became dead letters.", lambda function: function.counters.dead_letters),
    ("repeated", "Rows that were delivered again and dropped.", lambda one: one.counters.repeated),
    ("restarts", "How often processes of a function died and were started again.", lambda function: function.restarts),
    ("commits", "How often a function made its state durable.", lambda function: function.counters.commits),
    ("lookups", "Values looked up in lookup tables.", lambda function: function.counters.lookups),
    ("lookup_misses", "Lookups that found nothing.", lambda function: function.counters.lookup_misses),
)
_GAUGES: tuple[tuple[str, str, _Value], ...] = (
    ("lag_rows", "Rows that a function has not acknowledged (about, on Kafka and V3IO).", lambda one: one.lag),
    ("delay_seconds", "How long the oldest row that a function has not acknowledged is there.", lambda one: one.delay),
    ("held", "1 while a function is held, for example by a full disk.", lambda f: float(bool(f.held))),
    ("model_refused", "1 while the version that is promoted is refused.", lambda f: float(bool(f.refused))),
    ("last_commit_timestamp_seconds", "When a function last committed.", lambda one: one.counters.committed_at),
)


def _family(
    family: CounterMetricFamily | GaugeMetricFamily, functions: Iterable[FunctionState], value: _Value
) -> CounterMetricFamily | GaugeMetricFamily:
    for function in functions:
        family.add_metric([function.name], value(function))
    return family


def _shown(function: FunctionState, now: float) -> dict[str, Any]:
    committed_at = function.counters.committed_at
    since = round(now - committed_at, 1) if committed_at else None
    model = {"models": function.models, "refused": function.refused} if function.models else {}
    return {
        "name": function.name,
        "state": function.state,
        "lag": function.lag,
        "delay": round(function.delay, 1),
        "about": function.about,
        "held": function.held_logged or function.held,
        "restarts": function.restarts,
        "seconds_since_commit": since,
        **model,
    }
