"""What a log needs of the place where its files are, and what is in that place.

The files of an epoch and shard are numbered without a gap: `EPOCH-SHARD-NUMBER.parquet`. In a folder, small commits
are parts beside it, `EPOCH-SHARD-COMMIT.part`, until their rows are put into a file (see `publish`). The footer of a
file says how many commits it ends with: a part whose rows are in a file counts no more, whether it was deleted yet or
not. So whoever lists parts, then looks at the last file, reads the parts, and finds the same last file again, has each
row once, whatever happens in between. (The second look is for a part that was deleted, and whose name a late owner has
taken before it found out: the file that has the rows is there before the name is free.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from modelstream.errors import ConfigurationError
from modelstream.logs.file import Footer, LogFile
from modelstream.logs.part import decode_part

SCHEMA_FILE = "schema.parquet"

Key = tuple[int, int]
"""An epoch and a shard."""

Stamp = tuple[int, ...]
"""What changes when a file is replaced by a longer one: with its size, it can't be what it was before."""

LISTINGS = 100
"""How often files are listed again when one is missing: it may have come while they were listed."""


@dataclass(frozen=True)
class Published:
    """The last file of an epoch and shard; without one, its number is -1. `Log` has an example."""

    number: int = -1
    end: int = 0
    """The number of the first commit that is in no file."""
    footer: Footer | None = None
    stamp: Stamp | None = None


class Standing(NamedTuple):
    """Where an epoch and shard stands. `Log` has an example."""

    published: Published
    waiting: list[LogFile]
    """The parts whose rows are in no file, in order."""
    done: list[LogFile]
    """The parts whose rows are in a file."""


class Storage(ABC):
    """The files of a log, see the module. `Log` is what others use, and has an example."""

    keeps_parts: ClassVar[bool] = False
    """Whether there can be parts."""

    def __init__(self, schema: pa.Schema, epoch: int, definition: str = "") -> None:
        self.schema = schema.remove_metadata()
        self.epoch = epoch
        self.definition = definition
        """Hash of the definition that makes the rows that are appended; empty if nobody knows it."""
        self._published: dict[Key, Published] = {}

    @abstractmethod
    def place(self, name: str = "") -> str:
        """Return the location of the log, or of one of its files, for messages."""

    # What an implementation does in its own way.

    @abstractmethod
    def _outages(self) -> AbstractContextManager[None]:
        """Turn errors of the storage into UnavailableError, or into ConfigurationError if trying again won't help."""

    @abstractmethod
    def _names(self) -> list[str]:
        """Return the names of the files that there are; none if nothing was written yet."""

    @abstractmethod
    def _open(self, name: str) -> pq.ParquetFile:
        """Open a file to read its rows."""

    @abstractmethod
    def _read_footer(self, name: str) -> tuple[Footer, pa.Schema]:
        """Return the footer and schema of a file, as `file.read_footer` does."""

    @abstractmethod
    def _stamp(self, name: str) -> Stamp | None:
        """Return the stamp of a file, None if it isn't there."""

    @abstractmethod
    def _make(self) -> bool:
        """Make the place for the files; return whether it has a schema already."""

    @abstractmethod
    def _commit(self, name: str, file: pa.Buffer) -> None:
        """Put a file under a name that doesn't exist yet, whole and durable, or raise NumberTakenError."""

    @abstractmethod
    def _settle(self) -> None:
        """Make the files durable that were listed."""

    def _shared(self) -> bool:
        """Return whether other machines may write here too.

        Then each commit is a file, and none is replaced: creating a file that doesn't exist is one step everywhere, but
        locks, and what a machine knows of another's files, are not to be relied on.
        """
        return True

    @abstractmethod
    def _remove_abandoned(self, shard: int) -> None:
        """Remove what killed writers of a shard left behind."""

    # The same of parts, where there are any.

    def _part_names(self) -> list[str]:
        """Return the names of the parts that there are, and of other files beside them."""
        return []

    def _has_part(self, name: str) -> bool:
        """Return whether a part is there."""
        raise NotImplementedError

    def _read_part(self, name: str) -> pa.Buffer | None:
        """Return the contents of a part, None if it isn't there."""
        raise NotImplementedError

    def _commit_part(self, name: str, part: pa.Buffer) -> None:
        """Put a part under a name that doesn't exist yet, whole and durable, or raise NumberTakenError."""
        raise NotImplementedError

    def _remove_parts(self, parts: Sequence[LogFile]) -> None:
        """Delete parts, in their order."""
        raise NotImplementedError

    def _alone(self, key: Key) -> AbstractContextManager[bool]:  # noqa: ARG002 (where nothing is replaced)
        """Hold the lock of an epoch and shard, which is given back when its process ends: False if another has it."""
        return nullcontext(True)

    def _rename_part(self, part: LogFile, name: str) -> None:
        """Put a part that is a Parquet file under a name that doesn't exist yet, or raise NumberTakenError."""
        raise NotImplementedError

    def _lengthen(self, name: str, table: pa.Table, footer: Footer) -> bool:
        """Add rows to a file and replace its footer, in one step for every reader.

        Return False if the file is large enough. Only the holder of the lock may do it.
        """
        raise NotImplementedError

    # What is there.

    def _files(self) -> list[LogFile]:
        """Return the files in order. ConfigurationError if one is missing in between."""
        for _ in range(LISTINGS):
            files = sorted(file for file in map(LogFile.of, self._names()) if file)
            gap = _gap(files, dict.fromkeys({file.key for file in files}, 0))
            if gap is None:
                return files
            missing, after = gap
        raise ConfigurationError(
            f"{self.place(missing.name)} is missing, although {after.name} exists",
            remedy="restore it from a copy, or begin anew in another folder",
        )

    def _parts(self) -> list[LogFile]:
        """Return the parts in order, whether they still count or not."""
        return sorted(part for part in map(LogFile.of_part, self._part_names()) if part)

    def _stand(self, key: Key, parts: Sequence[LogFile] | None = None) -> Standing:
        """Return where an epoch and shard stands; `parts` may be given if they were just listed.

        ConfigurationError if a part is missing in between. Only for a log that keeps parts.
        """
        for _ in range(LISTINGS):
            own = [part for part in (self._parts() if parts is None else parts) if part.key == key]
            published = self._look(key)  # after the parts were listed: see the module
            found = Standing(
                published,
                [part for part in own if part.number >= published.end],
                [part for part in own if part.number < published.end],
            )
            gap = _gap(found.waiting, {key: published.end})
            if gap is None:
                return found
            parts, (missing, after) = None, gap
        raise ConfigurationError(
            f"the part {missing.part} of {self.place()} is missing, although {after.part} exists",
            remedy="restore it from a copy, or begin anew in another folder",
        )

    def _look(self, key: Key, files: Sequence[LogFile] | None = None) -> Published:
        """Return the last file of an epoch and shard, of these files if they were listed. It is read only if it has
        changed; and without `files`, they are only listed where none is known yet.
        """
        known = self._published.get(key)
        if files is not None:
            number = max((file.number for file in files if file.key == key), default=-1)
        elif known is None or self._stamp(LogFile(*key, known.number).name) is None:
            number = max((file.number for file in self._files() if file.key == key), default=-1)
        else:
            number = known.number
            while self._stamp(LogFile(*key, number + 1).name) is not None:
                number += 1
        if number < 0:
            self._published.pop(key, None)
            return Published()
        file = LogFile(*key, number)
        stamp = self._stamp(file.name)  # before the footer: if a longer file comes in between, it is read again
        if known is None or (known.number, known.stamp) != (number, stamp):
            footer = self._footer(file)
            known = self._published[key] = Published(number, footer.end, footer, stamp)
        return known

    def _in_file(self, part: LogFile) -> bool:
        """Return whether there are rows of this number in a file."""
        return self._look(part.key).end > part.number

    def _footer(self, file: LogFile) -> Footer:
        footer, _ = self._read_footer(file.name)
        if footer.file != file:
            raise ConfigurationError(
                f"{self.place(file.name)} was renamed: it was written as {footer.file.name}",
                remedy="give it its name back",
            )
        return footer

    def _part(self, part: LogFile) -> tuple[Footer, pa.Table] | None:
        """Return the footer and the rows of a part, None if it isn't there."""
        with self._outages():
            found = self._read_part(part.part)
        return None if found is None else decode_part(self.place(part.part), found)


def _gap(files: Sequence[LogFile], expected: dict[Key, int]) -> tuple[LogFile, LogFile] | None:
    """Return the first number that is missing, and the one after it; `expected` has the first of each key."""
    for file in files:
        if file.number != expected[file.key]:
            return LogFile(*file.key, expected[file.key]), file
        expected[file.key] += 1
    return None
