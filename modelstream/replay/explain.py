"""Collects everything about one user: the events, why each counted or not, the vector, the predictions, the row."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelstream.base.timestamps import rows_of
from modelstream.features.engine import Applied, FeatureEngine, features_of, no_rows
from modelstream.messages.identity import bucket_of
from modelstream.project import Project
from modelstream.replay.recompute import Piece, Recomputation, derive_in
from modelstream.stores import Stores
from modelstream.use_case.columns import INGESTED_AT, MODEL_VERSION, OFFSET, ORIGIN, POSITION, PREDICTED_AT, SHARD
from modelstream.use_case.declared import UseCase

COUNTED = "counted"


class Explanation(msgspec.Struct, kw_only=True):
    """What `pipeline.py explain --json` prints.

    An example would need the data of a run: `tests/replay/test_explain.py` has one.
    """

    user: str
    shard: int
    events: int
    """Events in the log, and how many of them counted, or didn't, by reason."""
    counted: int
    not_counted: dict[str, int]
    vectors: int
    predictions: int
    """Predictions in the inference log, without the vectors that no model answered."""
    last_events: list[dict[str, Any]]
    """The last events, each with `counted`: "counted" or the reason why not, and its prediction if it has one."""
    vector: dict[str, Any] | None
    """The last feature vector, recomputed from the log."""
    row: dict[str, Any] | None
    """The user's row in the table of features."""
    on_the_way: int
    """Rows that some function has not acknowledged: the log may lack some events."""


def explain(stores: Stores, project: Project, shards: int, user: str, last: int) -> Explanation:
    """Return everything about a user, with the last `last` events and predictions.

    An example would need the data of a run: `tests/replay/test_explain.py` has one.
    """
    shard = bucket_of(user) % shards
    parts = [shard] if stores.epoch == 0 else None
    derive = derive_in(project.vectors_notebook())
    story = _Story(Recomputation(stores, derive, shards=parts, user=user), stores.use_case, user)
    story.tell(last)
    predictions, number = _predictions(stores, user, parts, last)
    for event in story.last:
        event.update(predictions.get((event[ORIGIN], event[POSITION]), {}))
        for name in (SHARD, OFFSET, ORIGIN, POSITION, INGESTED_AT):
            event[name] = event.pop(name)  # to the end
    row = stores.features.get(user)
    return Explanation(
        user=user,
        shard=shard,
        events=story.events,
        counted=story.counted,
        not_counted=story.not_counted,
        vectors=story.vectors,
        predictions=number,
        last_events=story.last,
        vector=story.vector,
        row=rows_of(features_of(row, stores.use_case))[0] if row.num_rows else None,
        on_the_way=sum(stores.lags(project).values()),
    )


class _Story:
    """A user's events, applied again: all but the last ones at once, the last ones one by one."""

    def __init__(self, again: Recomputation, use_case: UseCase, user: str) -> None:
        self.events = self.counted = self.vectors = 0
        self.not_counted: dict[str, int] = {}
        self.last: list[dict[str, Any]] = []
        self.vector: dict[str, Any] | None = None
        self._again = again
        self._use_case = use_case
        self._engine = FeatureEngine(use_case)
        self._engine.load([user], no_rows(use_case))

    def tell(self, last: int) -> None:
        """Apply all events; describe the last ones."""
        waiting: deque[Piece] = deque()
        rows = 0
        for piece in self._again.pieces():
            waiting.append(piece)
            rows += piece.events.num_rows
            while waiting and rows - waiting[0].events.num_rows >= last:
                earlier = waiting.popleft()
                rows -= earlier.events.num_rows
                self._again.lookup.use(earlier)
                self._apply(earlier.events)
        for piece in waiting:
            self._again.lookup.use(piece)
            surely_earlier = max(0, rows - last)
            rows -= surely_earlier
            self._apply(piece.events.slice(0, surely_earlier))
            logged = piece.events.slice(surely_earlier)
            for place, event in enumerate(rows_of(logged)):
                applied = self._apply(logged.slice(place, 1))
                known = {name: value for name, value in event.items() if value is not None}
                self.last.append({COUNTED: next(iter(applied.not_counted), COUNTED), **known})

    def _apply(self, events: pa.RecordBatch) -> Applied:
        positions = np.arange(self.events, self.events + events.num_rows)
        applied = self._engine.apply(events, positions, self._again.lookup)
        self.events += events.num_rows
        self.counted += applied.counted
        self.vectors += len(applied.indices)
        for reason, number in applied.not_counted.items():
            self.not_counted[reason] = self.not_counted.get(reason, 0) + number
        vectors = self._again.vectors(events, applied)
        if vectors.num_rows:
            final = rows_of(vectors.slice(vectors.num_rows - 1))[0]
            self.vector = {name: final[name] for name in (self._use_case.time, *self._use_case.features)}
        return applied


def _predictions(
    stores: Stores, user: str, shards: list[int] | None, last: int
) -> tuple[dict[tuple[str, int], dict[str, Any]], int]:
    """Return the user's last predictions by origin and position of their events, and how many there are."""
    use_case = stores.use_case
    wanted = [use_case.prediction, use_case.probability, MODEL_VERSION, PREDICTED_AT]
    kept: deque[dict[str, Any]] = deque(maxlen=last)
    number = 0
    for batch in stores.inference_log.scan([use_case.key, ORIGIN, POSITION, *wanted], shards):
        mine = batch.filter(pc.equal(batch.column(use_case.key), user))
        number += mine.num_rows - mine.column(MODEL_VERSION).null_count
        kept.extend(mine.slice(max(0, mine.num_rows - last)).to_pylist())
    return {(row[ORIGIN], row[POSITION]): {name: row[name] for name in wanted} for row in kept}, number
