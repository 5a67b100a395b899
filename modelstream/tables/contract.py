"""Tables: the lookup tables, the features of users, the inputs that were taken in, and the epoch.

One contract for every backend, tested by `tests/contract/tables_contract.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, ClassVar

import msgspec
import pyarrow as pa

from modelstream.base.names import PLAIN_NAME
from modelstream.errors import ConfigurationError
from modelstream.messages.identity import Checkpoint


class Input(msgspec.Struct, kw_only=True):
    """An input of the pipeline: what it is, and how far it was sent.

    `InputTable` has an example.
    """

    origin: str
    kind: str
    """`file`, `stdin` or `generator`."""
    path: str = ""
    options: dict[str, Any] = {}
    """What else reading it again needs, such as a generator's seed; JSON values."""
    lines: int = 0
    """Lines sent, including blank ones; so also the position of the next line."""
    bytes: int = 0
    digest: str = ""
    """Hash of the first `bytes` bytes: a file that grew is continued; one whose read part has changed is refused."""
    finished: bool = False


FEATURES = "features"
"""The name of the table of features, unless project.yaml gives another."""


def check_table_name(name: str, taken: Collection[str]) -> None:
    """Raise ConfigurationError for a name that a store can't use for a table, or that it needs itself.

    >>> check_table_name("areas", ["registry"])
    >>> check_table_name("registry", ["registry"])
    Traceback (most recent call last):
    modelstream.errors.ConfigurationError: 'registry' can't be the name of a table
    """
    if not PLAIN_NAME.fullmatch(name) or name in taken:
        raise ConfigurationError(
            f"{name!r} can't be the name of a table",
            remedy=f"use letters, digits, - and _, and not {', '.join(sorted(taken))}",
        )


class LookupTable(ABC):
    """Values by key, such as an index by area code.

    >>> import tempfile
    >>> from modelstream.tables import open_tables
    >>> with tempfile.TemporaryDirectory() as folder, open_tables(f"sqlite://{folder}") as tables:
    ...     table = tables.lookup("enrichment")
    ...     rows = table.load([pa.record_batch({"key": ["10115", "20095"], "value": [2.5, None]})])
    ...     rows, table.get_many(["20095", "10115", "1"])
    (2, [None, 2.5, None])
    """

    delay: ClassVar[float] = 0.0
    """Seconds after which every process that has the table open sees what was loaded, at the latest."""

    @abstractmethod
    def load(self, batches: Iterable[pa.RecordBatch]) -> int:
        """Store (key string, value float64 or null) rows, all or none; return how many.

        If a key occurs twice, the last row counts.
        """

    @abstractmethod
    def get_many(self, keys: Sequence[str]) -> list[float | None]:
        """Return the value of each key; None when it is null or there is no such key."""

    @abstractmethod
    def scan(self, batch_size: int = 10_000, after: str = "") -> Iterator[pa.RecordBatch]:
        """Yield batches of (key string, value float64) in the order of the keys: of all, or of those after a key."""

    @abstractmethod
    def count(self) -> int:
        """Return the number of keys."""


class FeatureTable(ABC):
    """One row per user, and what each shard has applied.

    Rows have the schema given to `Tables.features`: first the key (string), then `applied` (int64, the stream
    position of the last event applied to the user), then string, int64, float64, bool, timestamp and binary columns.

    >>> import tempfile
    >>> from modelstream.tables import open_tables
    >>> schema = pa.schema([("user", pa.string()), ("applied", pa.int64()), ("paid_sum", pa.float64())])
    >>> rows = pa.record_batch({"user": ["ann"], "applied": [7], "paid_sum": [2.5]}, schema)
    >>> with tempfile.TemporaryDirectory() as folder, open_tables(f"sqlite://{folder}") as tables:
    ...     table = tables.features(schema)
    ...     checkpoint = table.checkpoint(shard=3)
    ...     checkpoint.offset = 7
    ...     once, again = table.commit(3, rows, checkpoint), table.commit(3, rows, checkpoint)
    ...     once, again, table.checkpoint(3).offset, table.get("ann").to_pylist()
    (True, False, 7, [{'user': 'ann', 'applied': 7, 'paid_sum': 2.5}])
    """

    schema: pa.Schema

    together: ClassVar[bool] = False
    """Whether `commit_all` is one transaction, and so costs less than a commit for each shard."""

    @abstractmethod
    def get_many(self, keys: Sequence[str]) -> pa.RecordBatch:
        """Return the rows of those of the keys that have one, in no special order."""

    @abstractmethod
    def checkpoint(self, shard: int) -> Checkpoint:
        """Return what was committed of a shard in this epoch.

        Where nothing was: offset -1, no counts, and the highest watermarks of all shards in earlier epochs,
        since buckets may have changed their shards.
        """

    @abstractmethod
    def commit(self, shard: int, rows: pa.RecordBatch, checkpoint: Checkpoint) -> bool:
        """Store rows, then watermarks, then offset and counters; durable when this returns.

        Each is written only if its position rises: a row's `applied`, a watermark's, the offset. Returns False if the
        offset didn't rise: another owner of the shard has committed, and its state must be loaded. Pass all watermarks;
        only changed ones cost something. A repeated call may return False because the first call was stored and only
        its answer was lost. Raises LostStateError, and changes nothing, if a backend finds that its store has lost what
        it confirmed to this instance.
        """

    def commit_all(self, commits: Sequence[tuple[int, pa.RecordBatch, Checkpoint]]) -> list[bool]:
        """Commit shards, each once; return for each what `commit` returns. With `together`, all are stored or none."""
        return [self.commit(*one) for one in commits]

    @abstractmethod
    def get(self, key: str) -> pa.RecordBatch:
        """Return the row of a key, or no row."""

    @abstractmethod
    def scan(self, batch_size: int = 10_000, after: str = "") -> Iterator[pa.RecordBatch]:
        """Yield all rows, or those after a key, in the order of their keys.

        Each batch is one state of the table, but not on V3IO.
        """

    @abstractmethod
    def count(self) -> int:
        """Return the number of rows."""


class InputTable(ABC):
    """The inputs that readers took in, by origin.

    >>> import tempfile
    >>> from modelstream.tables import open_tables
    >>> with tempfile.TemporaryDirectory() as folder, open_tables(f"sqlite://{folder}") as tables:
    ...     inputs = tables.inputs()
    ...     record = inputs.register("a.ndjson", Input(origin="a.ndjson", kind="file", path="/data/a.ndjson"))
    ...     inputs.save_progress("a.ndjson", lines=100, bytes=4096, digest="…", finished=False)
    ...     inputs.save_progress("a.ndjson", lines=50, bytes=2048, digest="…", finished=False)  # fewer: not noted
    ...     [(one.origin, one.lines) for one in inputs.all()]
    [('a.ndjson', 100)]
    """

    @abstractmethod
    def register(self, origin: str, record: Input) -> Input:
        """Store an input durably before its first line is sent, or return the stored one."""

    @abstractmethod
    def get(self, origin: str) -> Input | None:
        """Return an input, None if it isn't known."""

    @abstractmethod
    def save_progress(self, origin: str, lines: int, bytes: int, digest: str, finished: bool) -> None:
        """Note, durably, how far an input was sent. Fewer lines than before change nothing.

        Raises ConfigurationError for an input that isn't registered.
        """

    @abstractmethod
    def all(self) -> list[Input]:
        """Return all inputs, in the order in which they were registered."""


class Tables(ABC):
    """The tables behind one URL. Use an instance in one thread; any number of processes may have their own.

    Methods of the tables raise ConfigurationError for a table that is broken, or made for another use case,
    and UnavailableError for an outage, after which the same call may be repeated.

    >>> import tempfile
    >>> from modelstream.tables import open_tables
    >>> with tempfile.TemporaryDirectory() as folder, open_tables(f"sqlite://{folder}") as tables:
    ...     tables.epoch(), tables.raise_epoch(), tables.epoch()
    (0, 1, 1)
    """

    @abstractmethod
    def epoch(self) -> int:
        """Return the epoch of the streams that these tables belong to, at first 0 (see `messages.identity`)."""

    @abstractmethod
    def raise_epoch(self) -> int:
        """Begin the next epoch, because the streams are made again; return it."""

    @abstractmethod
    def definition(self, made: str = "") -> str:
        """Return the definition that made the rows of features: `made`, kept from now on, if there was none yet.

        It is text (see `use_case.meaning`). Without `made`, nothing is kept, and "" says that there is none.
        """

    @abstractmethod
    def lookup(self, name: str) -> LookupTable:
        """Return a lookup table, made if there is none."""

    @abstractmethod
    def features(self, row_schema: pa.Schema, name: str = FEATURES) -> FeatureTable:
        """Return the table of features, made if there is none; a pipeline has one.

        Raises ConfigurationError if it has other columns, or a name that no table can have. It counts offsets in the
        epoch that holds now; another epoch needs another instance.
        """

    @abstractmethod
    def inputs(self) -> InputTable:
        """Return the inputs."""

    @abstractmethod
    def remove(self) -> None:
        """Delete all tables at the URL, without a trace. They must not be in use.

        After an outage some may be gone; the same call may be repeated, also where there are none.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back files and connections. The next call opens them again."""

    def __enter__(self) -> Tables:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
