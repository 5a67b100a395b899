"""The state of a pipeline's functions at one moment, as the live table, `/healthz` and Prometheus show it."""

from __future__ import annotations

from dataclasses import dataclass, field

from modelstream.stages.counters import Counters


@dataclass(frozen=True, kw_only=True)
class FunctionState:
    """A function at a moment, all of its workers together.

    >>> FunctionState(name="event-handler", state="working", lag=3, lag_since=100.0).waits_for(125.0)
    25.0
    """

    name: str
    state: str
    """`starting`, `working`, `idle`, `waiting` (see `held`), `restarting` or `done`."""
    counters: Counters = field(default_factory=Counters)
    """Since the pipeline was started."""
    restarts: int = 0
    lag: int = 0
    """Rows of its stream that it has not acknowledged: they wait to be processed, or for a commit."""
    about: bool = False
    """Whether the lag is an estimate: Kafka and V3IO count messages, not rows."""
    lag_since: float = 0.0
    """Since when rows have always been waiting (seconds since 1970); 0 if none waits."""
    delay: float = 0.0
    """For how many seconds the oldest of them has been in its stream, while this pipeline runs: until a commit, so with
    `serve` some 5 s are usual."""
    held: str = ""
    """Why it is held, with the row that a hook failed at: for whoever is at the terminal; empty if it is not."""
    held_logged: str = ""
    """The same without values of events."""
    models: tuple[str, ...] = ()
    """The versions of the model that its workers serve, if it has one."""
    refused: str = ""
    """Why the promoted version does not serve; empty if it does."""

    def waits_for(self, now: float) -> float:
        """Return for how many seconds rows have been waiting without any commit."""
        return now - max(self.lag_since, self.counters.committed_at) if self.lag else 0.0

    @property
    def shown_lag(self) -> str:
        """The lag as a person reads it.

        >>> FunctionState(name="event-handler", state="working", lag=1200, about=True).shown_lag
        'about 1,200'
        """
        return f"{'about ' if self.lag and self.about else ''}{self.lag:,}"


@dataclass(frozen=True)
class PipelineState:
    """All functions at a moment (seconds since 1970), and the memory of the processes in bytes."""

    at: float
    functions: tuple[FunctionState, ...] = ()
    resident: dict[str, int] = field(default_factory=dict)
    disk_low: bool = False
    """Whether the disk of the data folder is nearly full."""
