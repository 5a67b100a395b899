"""What a running function reports: its counters, and the model that it serves."""

from __future__ import annotations

from collections import Counter

import msgspec

from modelstream.use_case.lookups import mostly_missed

TELLING_LOOKUPS = 20
"""With fewer lookups than this, it may be chance that most found nothing."""


class Counters(msgspec.Struct, omit_defaults=True):
    """Counters of a function: of one process of one worker since it started, or sums of these.

    >>> before, now = Counters(rows_in=100, commits=2, committed_at=50.0), Counters(rows_in=7, committed_at=60.0)
    >>> total = before + now
    >>> total.rows_in, total.commits, total.committed_at
    (107, 2, 60.0)
    >>> Counters(lookups=20, lookup_misses=11).mostly_missed, Counters(lookups=20, lookup_misses=10).mostly_missed
    (True, False)
    """

    rows_in: int = 0
    rows_out: int = 0
    """Rows sent on; for a source, lines."""
    dead_letters: int = 0
    repeated: int = 0
    """Rows dropped because they were at or below their watermark."""
    commits: int = 0
    """How often a shard's state was made durable."""
    lookups: int = 0
    """Values that were looked up, for profile events or for any that has the field to look up by."""
    lookup_misses: int = 0
    """Those of them that were not found."""
    committed_at: float = 0.0
    """When that was last, in seconds since 1970; at first, when the stage started. 0: not started."""
    not_counted: dict[str, int] = {}
    """Events that changed no user's features, by reason (`features.terms.REASONS`)."""

    @property
    def mostly_missed(self) -> bool:
        """Whether most lookups found nothing, of so many that it isn't chance."""
        return self.lookups >= TELLING_LOOKUPS and mostly_missed(self.lookups, self.lookup_misses)

    def __add__(self, other: Counters) -> Counters:
        """Return the sum; `committed_at` is the later one."""
        names = [name for name in Counters.__struct_fields__ if name != "not_counted"]
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        reasons = dict(Counter(self.not_counted) + Counter(other.not_counted))
        return Counters(**{**sums, "committed_at": max(self.committed_at, other.committed_at), "not_counted": reasons})


class ServedModel(msgspec.Struct, frozen=True):
    """The model that a worker serves.

    >>> ServedModel("3").refused
    ''
    """

    version: str
    """"" while there is no model."""
    refused: str = ""
    """Why the version that is promoted does not serve, if so."""
