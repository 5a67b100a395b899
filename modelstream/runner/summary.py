"""What a run did and what its folder holds: two things, since a folder may hold the work of several runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from modelstream.project import Project
from modelstream.stores import Stores
from modelstream.use_case.columns import MODEL_VERSION

MOST_REASONS = 5
"""So many reasons of dead letters are told, the most frequent first."""


_PLACE = re.compile(r" \(byte \d+\)")
_VALUE = re.compile(r"(, got |(?<=in UTC): |(?<=ISO 8601 time): ).*?(?=; if it counts from 1970|$)", re.DOTALL)
"""The place and the value in a reason: they differ from line to line, and what is counted are reasons."""


class Totals(msgspec.Struct, kw_only=True):
    """Numbers of rows, of a run or of a folder.

    >>> Totals(events=5, not_counted={"late": 2}) - Totals(events=2, not_counted={"late": 2})
    Totals(events=3, vectors=0, predictions=0, unanswered=0, dead_letters=0, lookups=0, lookup_misses=0, not_counted={})
    """

    events: int = 0
    vectors: int = 0
    predictions: int = 0
    unanswered: int = 0
    """Vectors that were kept without a prediction, because there was no model yet."""
    dead_letters: int = 0
    lookups: int = 0
    """Values looked up for users who registered and for events, and how often none was found."""
    lookup_misses: int = 0
    not_counted: dict[str, int] = {}
    """Events that made no vector, by reason."""

    def __sub__(self, before: Totals) -> Totals:
        """Return what was added since."""
        names = [name for name in Totals.__struct_fields__ if name != "not_counted"]
        added = {name: getattr(self, name) - getattr(before, name) for name in names}
        return Totals(**added, not_counted=dict(Counter(self.not_counted) - Counter(before.not_counted)))


class Summary(Totals, kw_only=True):
    """The summary of a run: the object that `--json` prints. All but `folder` is about this run alone."""

    dead_letter_reasons: dict[str, int]
    """Dead letters by reason: the most frequent ones, in this order."""
    predictions_by_version: dict[str, int]
    """Predictions by the version of the model that made them."""
    unfinished_line: int
    """The number, from 1, of the last line of the input file if it is being written; 0 if there is no such line."""
    input_is_empty: bool
    """No line of the input was ever read, or only blank ones."""
    folder: Totals
    """What the folder holds now, of all runs."""
    startup_seconds: float
    seconds: float
    events_per_second: float
    delay_ms: dict[str, float] | msgspec.UnsetType = msgspec.UNSET
    peak_rss_mb: float
    model_version: str
    """The version of the model that served at the end; several if some workers had not yet switched to a promoted one,
    "" if there was none."""
    data: str
    logs: str
    """The folder, or URL, of the Parquet logs."""
    warnings: list[str] = []
    """What a person should look at, such as lookups that found nothing."""

    @property
    def nothing_read(self) -> bool:
        """Whether there was something to read, and no event came of it; also if there should have been something."""
        return not self.events and (self.dead_letters > 0 or self.input_is_empty)

    @property
    def all_read(self) -> bool:
        """Whether every line became an event."""
        return not (self.nothing_read or self.dead_letters or self.unfinished_line)


@dataclass(frozen=True)
class Before:
    """What a folder held when a run began.

    >>> Before().totals.events
    0
    """

    totals: Totals = field(default_factory=Totals)
    letters: Mapping[int, int] = field(default_factory=dict)
    """By shard, the end of the stream of dead letters."""
    predictions: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """The rows of the inference log, as `Log.row_counts` returns them."""

    @classmethod
    def of(cls, stores: Stores, project: Project, shards: int) -> Before:
        """Look at what is there. A folder whose first stream never had a message holds nothing, which is seen at once.

        An example would need the data of a run: `tests/runner/test_summary.py` has one.
        """
        first = project.reads(project.chain.consumers[0])
        if all(end == stores.streams.first_offset for _, end in stores.streams.ranges(first).values()):
            return cls()
        letters = {shard: end for shard, (_, end) in stores.streams.ranges(stores.names.dead_letters).items()}
        return cls(totals_of(stores, shards), letters, stores.inference_log.row_counts())


def totals_of(stores: Stores, shards: int) -> Totals:
    """Return what a folder holds, as far as it is durable.

    An example would need the data of a run: `tests/runner/test_summary.py` has one.
    """
    counters = stores.counters(shards)
    return Totals(
        events=stores.events_log.count(),
        vectors=counters.pop("vectors", 0),
        predictions=stores.predictions(),
        unanswered=stores.unanswered(),
        dead_letters=stores.dead_letter_count(),
        lookups=counters.pop("lookups", 0),
        lookup_misses=counters.pop("lookup_misses", 0),
        not_counted=counters,
    )


def reasons_since(stores: Stores, before: Before) -> dict[str, int]:
    """Return the most frequent reasons of the dead letters of a run, and how many have each."""
    return most_frequent(letter.reason for letter in stores.dead_letters(after=before.letters))


def most_frequent(reasons: Iterable[str]) -> dict[str, int]:
    """Return the most frequent of some reasons of dead letters, and how many have each.

    The place in a line is left out, and the value if there are several for a reason: both differ from line to line.

    >>> most_frequent(["at: missing", "at: missing", "kind: missing"])
    {'at: missing': 2, 'kind: missing': 1}
    """
    found: Counter[str] = Counter()
    only: dict[str, str] = {}
    for told in reasons:
        reason = _PLACE.sub("", told)
        without = _VALUE.sub("", reason)
        found[without] += 1
        if only.setdefault(without, reason) != reason:
            only[without] = without
    return {only[without]: number for without, number in found.most_common(MOST_REASONS)}


def versions_since(stores: Stores, before: Before) -> dict[str, int]:
    """Return the number of predictions of a run by the version of the model that made them."""
    found: Counter[str] = Counter()
    for batch in stores.inference_log.scan([MODEL_VERSION], after=before.predictions):
        counted = batch.column(0).value_counts()
        values, counts = counted.field("values").to_pylist(), counted.field("counts").to_pylist()
        found.update({str(value): count for value, count in zip(values, counts, strict=True) if value is not None})
    return dict(sorted(found.items()))
