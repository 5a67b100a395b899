"""A snapshot: every vector as it was when the model was asked, with the label of its user.

The log is read in order, and only what the selection asks for is kept:

- for users to learn from, a sample that thins out: all of the first vectors, then fewer and fewer. So the first
  moments, when there is little to go by, are there as well as the long run, and a busy user gets little more room
  than another;
- for users to test on, all vectors, as the model will be asked (or an even share, if there are too many);
- for users to learn from, also the last vector: the final rows, which the usual recipe would take.

Vectors come from a replay of the events through the engine that served them, and are compared to the bit with what
was served; or from the log of what was served.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelstream.base.timestamps import datetime_of
from modelstream.base.yamlfile import suggestion
from modelstream.errors import ConfigurationError, ModelstreamError
from modelstream.features.engine import FeatureEngine, replay
from modelstream.model.onnx import as_input
from modelstream.replay.parity import Parity, ServedVectors
from modelstream.training.snapshot.clock import LogEnd
from modelstream.training.snapshot.data import Data
from modelstream.training.snapshot.examples import Examples, ordinals, uniform
from modelstream.training.snapshot.histograms import Histograms
from modelstream.training.snapshot.keeper import Keeper, LabelledVectors
from modelstream.training.snapshot.labels import UNKNOWN, Labels
from modelstream.training.snapshot.selection import SOURCES, OnProgress, Selection
from modelstream.training.snapshot.users import LogUsers, read_users
from modelstream.use_case.columns import ORIGIN
from modelstream.use_case.durations import duration

MIN_USERS = 30
"""Fewest users with a known outcome to learn from: with fewer, each of five folds would be judged on five users or
less."""
MIN_OF_A_CLASS = 5
"""Fewest of them in each class: one per fold."""
LEARN = "to learn from"
KEYS_AT_ONCE = 10_000


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The vectors and counts of a snapshot."""

    learn: Examples
    """A sample per user, of the users to learn from."""
    test: Examples
    """The vectors of users to test on."""
    final: Examples
    """The last vector of each user to learn from."""
    histograms: Histograms
    """Of all vectors in the time asked for, as served."""
    users: int
    """The number of users that the model was asked about."""
    end: LogEnd
    """Where the log ends, and how many events it has."""
    known_until: int
    """The same time if labels come from later events, else 0: the end of the log does not matter to them."""
    vectors: int
    """The number of vectors in the time asked for."""
    unlabelled: int
    """The number of vectors that were left out because their outcome is not known."""
    first: int
    last: int
    """Event times of the first and the last vector, microseconds since 1970 UTC; none later than `end.latest`."""
    parity: Parity | None
    """The comparison with the vectors that were served; None if those were taken themselves."""

    @property
    def learn_most(self) -> int:
        """The most vectors of one user that were learned from."""
        return int(np.bincount(self.learn.users).max())


class ParityError(ModelstreamError):
    """The replayed vectors differ from those that were served."""


def take(data: Data, labels: Labels | None, selection: Selection, progress: OnProgress) -> Snapshot:
    """Take a snapshot. With `labels` None they are taken from the log of events, as the use case says.

    Raises ParityError for a vector that differs from the served one, ConfigurationError for no data, no labels, too few
    users, or only one class.
    """
    if selection.source not in SOURCES:
        raise ConfigurationError(f"no source {selection.source!r}", remedy=suggestion(selection.source, SOURCES))
    users = read_users(data, labels, selection, progress)
    taker = Taker(data, users, selection)
    parity = None
    if selection.source == "events":
        parity = _replay(data, taker, progress)
    else:
        _read(data, taker, progress)
    if not taker.vectors:
        raise ConfigurationError(
            f"there is nothing to learn from: none of the {users.end.events:,} events in the log has led to a feature "
            "vector" + (" in the time asked for" if selection.limited else ""),
            remedy="give an earlier --since, or a later --until"
            if selection.limited
            else "`python pipeline.py status` tells why events were not counted",
        )
    learn, test, final = taker.keeper.examples()
    _check_enough(learn, users, LEARN, data)
    _check_enough(test, users, "to test on", data)
    return Snapshot(
        learn=learn,
        test=test,
        final=final,
        histograms=taker.histograms,
        users=taker.users,
        end=users.end,
        known_until=users.labels.end,
        vectors=taker.vectors,
        unlabelled=taker.unlabelled,
        first=taker.first,
        last=taker.last,
        parity=parity,
    )


class Taker:
    """Decides about each vector, in the order in which they were served."""

    def __init__(self, data: Data, users: LogUsers, selection: Selection) -> None:
        self._use_case = data.use_case
        self._who = users
        self._selection = selection
        self._served = np.zeros(len(users.numbers), np.int64)
        self._types = pa.array(self._use_case.predict_on)
        self.keeper = Keeper(users.keys, len(self._use_case.features))
        self.histograms = Histograms(self._use_case.features)
        self.vectors = self.unlabelled = self.last = 0
        self.first = np.iinfo(np.int64).max

    def take(self, batch: pa.RecordBatch) -> None:
        """Take in vectors: the columns key, time, type and features; a user's in order."""
        if not batch.num_rows:
            return
        use_case, users = self._use_case, self._who
        user = users.of(batch.column(use_case.key))
        place = self._served[user] + ordinals(user)
        np.add.at(self._served, user, 1)
        times = batch.column(use_case.time).cast(pa.int64()).to_numpy()
        vectors = as_input([batch.column(name).to_numpy() for name in use_case.features])
        labels = users.labels_at(user, times)
        types = pc.index_in(batch.column(use_case.type), value_set=self._types).to_numpy().astype(np.int8)
        wanted = self._selection.in_time(times)
        self._count(LabelledVectors(vectors, labels, user, types, times).take(np.flatnonzero(wanted)))
        rows = LabelledVectors(vectors, labels, user, types, times)
        wanted &= labels != UNKNOWN
        learns = wanted & users.learns[user]
        drawn = uniform(users.hashes[user], place)
        self.keeper.finals(rows.take(np.flatnonzero(learns)))
        self.keeper.learn(rows.take(np.flatnonzero(learns & self._selection.learns(drawn, place))))
        self.keeper.test(rows.take(np.flatnonzero(wanted & users.tests[user] & (drawn < users.test_rate))))

    @property
    def users(self) -> int:
        """The number of users with a vector."""
        return int(np.count_nonzero(self._served))

    def open_windows(self, rows: pa.RecordBatch) -> None:
        """Take in when users' windows opened, from their rows (`UseCase.row_schema`)."""
        name = self._use_case.first_time
        if name is None:
            return
        keys = rows.column(self._use_case.key)
        known = pc.is_valid(rows.column(name))
        times = rows.column(name).filter(known).cast(pa.int64()).to_pylist()
        for key, time in zip(keys.filter(known).to_pylist(), times, strict=True):
            if key in self._who.numbers:
                self.keeper.opened[self._who.numbers[key]] = time

    def _count(self, rows: LabelledVectors) -> None:
        """Count vectors in the time asked for."""
        if len(rows.users):
            self.histograms.update(rows.vectors)
            self.vectors += len(rows.users)
            self.unlabelled += int(np.count_nonzero(rows.labels == UNKNOWN))
            self.first = min(self.first, int(rows.moments.min()))
            self.last = max(self.last, min(int(rows.moments.max()), self._who.end.latest))


def _replay(data: Data, taker: Taker, progress: OnProgress) -> Parity:
    """Replay the events, take the vectors, and compare them with what was served."""
    found, done, total = Parity(), 0, data.stores.events_log.count()
    for shards in data.parts():
        engine = FeatureEngine(data.use_case)
        again = data.recomputation(shards)
        served = ServedVectors(data.use_case, data.stores.inference_log, shards)
        for events, applied in replay(data.use_case, again.events(), again.lookup, engine):
            vectors = again.vectors(events, applied)
            served.compare(events.column(ORIGIN).take(pa.array(applied.indices)), vectors, found)
            taker.take(vectors)
            done += events.num_rows
            progress("vectors", done, total)
            if found.differing.count:
                raise ParityError(
                    f"the log of events does not give the vectors that were served: {found.differing.first[0]}",
                    remedy="`python pipeline.py replay` lists the differences. The model would learn from a "
                    "feature that is computed differently now, or from later events. --source inference learns "
                    "from the vectors that were served",
                )
        served.end(found)
        taker.open_windows(engine.changed())
    return found


def _read(data: Data, taker: Taker, progress: OnProgress) -> None:
    """Take the vectors that were served."""
    use_case = data.use_case
    done, total = 0, data.stores.inference_log.count()
    names = [use_case.key, use_case.time, use_case.type, *use_case.features]
    for batch in data.stores.inference_log.scan(names, same_definition=True):
        taker.take(batch)
        done += batch.num_rows
        progress("vectors", done, total)
    for rows in data.stores.features.scan(KEYS_AT_ONCE):
        taker.open_windows(rows)


def _check_enough(examples: Examples, users: LogUsers, what: str, data: Data) -> None:
    if not (users.values != UNKNOWN).any() and users.labels.wait is None:
        raise ConfigurationError(
            f"none of the {len(users.numbers):,} users has a label yet",
            remedy=f"give labels with --labels FILE (columns {data.use_case.key} and label), or wait until "
            "labels arrive",
        )
    found = {int(label): len(np.unique(examples.users[examples.labels == label])) for label in (0, 1)}
    least, of_a_class = (MIN_USERS, MIN_OF_A_CLASS) if what == LEARN else (MIN_OF_A_CLASS, 1)
    if examples.user_count >= least and not all(found.values()):
        one = "positive" if found[1] else "negative"
        raise ConfigurationError(
            f"there is only one class: all {examples.user_count:,} users {what} are {one}",
            remedy="check the labels, and `label.positive` in the use case: a model needs both outcomes",
        )
    if examples.user_count < least or min(found.values()) < of_a_class:
        raise ConfigurationError(
            f"too few users: {len(users.numbers):,} in the log, {examples.user_count:,} with a known outcome "
            f"are {what}: {found[1]:,} positive and {found[0]:,} negative",
            remedy=f"{MIN_USERS} are needed to learn from, {MIN_OF_A_CLASS} of each class, and {MIN_OF_A_CLASS} to "
            "test on: take a longer log, or a later --until" + _waiting(users),
        )


def _waiting(users: LogUsers) -> str:
    """Return until when outcomes are known, where they are waited for."""
    wait, end = users.labels.wait, users.end
    if wait is None:
        return ""
    told = f". The log ends at {datetime_of(end.time):%Y-%m-%d %H:%M:%S} UTC, and `label.wait` is {duration(wait)}"
    if end.future and not end.simulated:
        told += f"; {end.future:,} of {end.events:,} events are dated later than they arrived, and don't move that end"
    return told
