"""Labels: the outcome of each user, from the profile, from a later event, or from a file.

A label from the profile or from a file holds for all vectors of its user. One from a later event holds for the vectors
before that event; vectors at or after it are left out, because the outcome was known by then. With `wait` (a length of
event time) the event must follow within that time. If it does not, the label is negative; a vector is left out until
the log covers that time after it. Where the log ends, `clock` says: an event of a time that has not come ends no wait,
and is no label either, because nobody knows when it happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from modelstream.errors import ConfigurationError
from modelstream.replay.recompute import is_of_type
from modelstream.training.snapshot.clock import LogEnd
from modelstream.training.snapshot.examples import Bools, Int8s, Int64s
from modelstream.use_case.declared import Label, UseCase

UNKNOWN = -1
"""The label of a vector whose outcome is not known (yet)."""
NEVER, ALWAYS = np.iinfo(np.int64).max, np.iinfo(np.int64).min


@dataclass
class Labels:
    """The outcomes of users, by key.

    >>> labels = Labels({"ann": (1, 50)}, wait=20, end=100)
    >>> values, times = labels.of_users(["ann", "ann", "ann", "bob", "bob"])
    >>> labels.at(values, times, np.array([10, 40, 50, 40, 90])).tolist()  # too early, right, known, none came, too new
    [0, 1, -1, 0, -1]
    """

    known: dict[str, tuple[int, int]]
    """The label, and the event time when it became known; `NEVER` if it holds for all of the user's vectors, `ALWAYS`
    if for none."""
    wait: int | None = None
    """Microseconds within which the label event must follow; otherwise the label is negative."""
    end: int = 0
    """The end of the log, see `clock`; 0 if no label comes from a later event."""

    def of_users(self, keys: Sequence[str]) -> tuple[Int8s, Int64s]:
        """Return the label of each user (`UNKNOWN` for none) and its time, for `at`."""
        none = (UNKNOWN, NEVER)
        pairs = [self.known.get(key, none) for key in keys]
        return np.array([label for label, _ in pairs], np.int8), np.array([time for _, time in pairs], np.int64)

    def at(self, labels: Int8s, times: Int64s, moments: Int64s) -> Int8s:
        """Return the label, int8[n], of each vector: its user's label as seen from the time of the vector, int64[n]."""
        result = np.where(moments < times, labels, UNKNOWN).astype(np.int8)
        if self.wait is not None:
            later = moments < times
            result[later & (times - np.maximum(moments, 0) > self.wait)] = UNKNOWN
            result[later & (result == UNKNOWN) & (moments <= self.end - self.wait)] = 0
        return result


class Finder:
    """Collects labels while the log of events is read from its beginning."""

    def __init__(self, use_case: UseCase) -> None:
        """Take a use case that declares a label.

        Raises ConfigurationError if it doesn't say where the label comes from.
        """
        label = declared(use_case)
        profile = use_case.profile.event if use_case.profile else None
        event = label.event or profile
        if event is None:
            raise ConfigurationError(
                f"the use case {use_case.name} doesn't say which event brings the label {label.field!r}",
                remedy="add `event:` to its `label:`, or give the labels with --labels FILE",
            )
        self._use_case = use_case
        self._label = label
        self._event = event
        self._later = event != profile
        self._known: dict[str, tuple[int, int]] = {}
        self._in_future: dict[str, tuple[int, int]] = {}

    @property
    def columns(self) -> list[str]:
        """The columns of the log that `add` needs."""
        use_case = self._use_case
        return list(dict.fromkeys([use_case.key, use_case.type, use_case.time, self._label.field]))

    def add(self, batch: pa.RecordBatch, future: Bools) -> None:
        """Take in the next rows of the log, and which of them are dated later than they arrived."""
        use_case, label = self._use_case, self._label
        wanted = pc.and_(is_of_type(batch, use_case, self._event), pc.is_valid(batch.column(label.field)))
        rows = batch.filter(wanted)
        if not rows.num_rows:
            return
        late = future[wanted.to_numpy(zero_copy_only=False)].tolist()
        values = pc.equal(rows.column(label.field), label.positive).to_pylist()
        times = rows.column(use_case.time).cast(pa.int64()).to_pylist()
        for key, value, time, is_late in zip(rows.column(use_case.key).to_pylist(), values, times, late, strict=True):
            if not self._later:
                self._known[key] = (int(value), NEVER)  # a second profile refreshes it
            else:
                _earliest(self._in_future if is_late else self._known, key, (int(value), time))

    def found(self, end: LogEnd) -> Labels:
        """Return what was found in a log that ends there."""
        known = dict(self._known)
        for key, label in self._in_future.items():
            if end.simulated:
                _earliest(known, key, label)
            else:
                known.setdefault(key, (UNKNOWN, ALWAYS))
        return Labels(known, self._label.wait_microseconds, end.time if self._later else 0)


def _earliest(known: dict[str, tuple[int, int]], key: str, label: tuple[int, int]) -> None:
    if key not in known or label[1] < known[key][1]:
        known[key] = label


def declared(use_case: UseCase) -> Label:
    """Return the label that a use case declares. Raises ConfigurationError if it declares none."""
    if use_case.label is None:
        raise ConfigurationError(
            f"the use case {use_case.name} declares no label, so there is nothing to learn",
            remedy="add `label:` to it, or give the labels with --labels FILE",
        )
    return use_case.label


def read_labels(path: Path, use_case: UseCase) -> Labels:
    """Return the labels in a file: CSV, Parquet or NDJSON, by the ending of its name.

    Its columns are the use case's key and label field (or `key` and `label`); a label is positive if its text is that
    of `label.positive` (or 1 or true). Rows without a key or label are skipped. Raises ConfigurationError.
    """
    known: dict[str, tuple[int, int]] = {}
    positives = {"1", "1.0", "true"} if use_case.label is None else _texts(use_case.label.positive)
    for batch in _batches(path, use_case):
        keys, values = batch.column(0).to_pylist(), pc.utf8_trim_whitespace(batch.column(1)).to_pylist()
        for key, value in zip(keys, values, strict=True):
            if not key or not value:
                continue
            label = int(value.lower() in positives)
            if known.setdefault(key, (label, NEVER))[0] != label:
                raise _wrong(path, f"{key!r} has two different labels", "keep one line for each key")
    if not known:
        raise _wrong(path, "holds no labels", "give a file with a line for each user: key, label")
    return Labels(known)


def _texts(positive: bool | int | str) -> set[str]:
    if isinstance(positive, bool):
        return {"true", "1"} if positive else {"false", "0"}
    return {str(positive).lower()} | ({f"{positive}.0"} if isinstance(positive, int) else set())


def _batches(path: Path, use_case: UseCase) -> Iterator[pa.RecordBatch]:
    """Yield the file's keys and labels, as text."""
    kinds = {".csv": _csv, ".parquet": _parquet, ".ndjson": _json, ".jsonl": _json, ".json": _json}
    if path.suffix.lower() not in kinds:
        raise _wrong(path, "has an unknown ending", f"give one of {', '.join(kinds)}")
    try:
        for batch in kinds[path.suffix.lower()](path):
            names = _names(path, batch.schema.names, use_case)
            columns = [batch.column(name).cast(pa.string()) for name in names]
            yield pa.record_batch(columns, ["key", "label"])
    except OSError as error:
        raise _wrong(path, f"can't be read: {error.strerror or error}", "give the path of a readable file") from None
    except pa.ArrowException as error:
        raise _wrong(path, f"can't be read: {str(error).splitlines()[0]}", "give a file with plain columns") from None


def _csv(path: Path) -> Iterator[pa.RecordBatch]:
    with path.open("rb") as file:
        names = file.readline().decode("utf-8-sig", "replace").strip().split(",")
    # All text, so that a key such as 007 stays what it is.
    options = pa.csv.ConvertOptions(column_types={name.strip('" '): pa.string() for name in names})
    yield from pa.csv.open_csv(path, convert_options=options)


def _parquet(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.parquet.ParquetFile(path) as file:
        yield from file.iter_batches()


def _json(path: Path) -> Iterator[pa.RecordBatch]:
    yield from pa.json.read_json(path).to_batches()


def _names(path: Path, names: Sequence[str], use_case: UseCase) -> tuple[str, str]:
    wanted = (use_case.key, use_case.label.field if use_case.label else "label")
    for pair in (wanted, ("key", "label")):
        if set(pair) <= set(names):
            return pair
    raise _wrong(
        path,
        f"has the columns {', '.join(names)}",
        f"name two of them {wanted[0]} and {wanted[1]}, or key and label",
    )


def _wrong(path: Path, what: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"the file of labels {path} {what}", remedy=remedy)


def shares(labels: npt.NDArray[np.int8]) -> tuple[int, int]:
    """Return how many labels are negative and positive."""
    return int(np.count_nonzero(labels == 0)), int(np.count_nonzero(labels == 1))
