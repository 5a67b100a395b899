"""Publishes what waits in parts: small commits become few files, and any reader of the files has their rows.

The last file of an epoch and shard is replaced by a longer one, by one rename, until it is large enough; then the next
one begins. A reader finds the shorter file or the longer one, never both, and nothing is ever deleted that it may have
listed. Parts are deleted when their rows are in a file that survives a power loss. A kill at any step leaves parts
that count no more, which the next publication deletes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from modelstream.errors import NumberTakenError
from modelstream.logs.file import LogFile, content, read_footer
from modelstream.logs.part import decode_part, is_whole
from modelstream.logs.storage import Key, Published, Storage

MOST_GROUPS = 20
"""How often rows are put into the same file. All of it is copied each time, and each footer stays in it: with 32 times
it would be a seventh larger, and written a third more."""

ROWS_AT_ONCE = 1 << 18
"""Most rows of parts that are in memory together: some 50 MB."""


class Waiting(NamedTuple):
    """What waits in an epoch and shard: `Log.waiting` returns it. `publisher.Publisher` has an example."""

    parts: int
    """Of these, some may just be put into a file."""
    number: int
    """The last file, which may get their rows; -1 without one."""
    groups: int
    """How often it got rows."""


class PublishingStorage(Storage):
    """A log whose parts can be published: `Log`, which has an example."""

    def publish(self, shards: Sequence[int] | None = None) -> bool:
        """Put the rows that wait in parts into files; return whether none is left.

        Some are left if another process does just the same. Without `shards`, of all.
        """
        if not self.keeps_parts:
            return True
        done = True
        with self._outages():
            for key in sorted({part.key for part in self._parts()}):
                if shards is None or key[1] in shards:
                    with self._alone(key) as alone:
                        done = alone and self._publish(key) and done
        return done

    def waiting(self) -> dict[Key, Waiting]:
        """Return what waits in each epoch and shard with parts."""
        with self._outages():
            parts = self._parts()
            found = {key: self._stand(key, parts) for key in {part.key for part in parts}}
        return {key: Waiting(len(waiting), last.number, _groups(last)) for key, (last, waiting, _) in found.items()}

    def _publish(self, key: Key) -> bool:
        """Publish an epoch and shard, whose lock is held. Return False if somebody else does it too."""
        synced = False
        while True:
            published, waiting, done = self._stand(key)
            if done:
                if not synced:  # by a process that was killed before it synced the folder
                    self._settle()
                self._remove_parts(done)
            if not waiting:
                return True
            try:
                self._put_into_file(published, waiting)
            except NumberTakenError:
                return False
            synced = True

    def _put_into_file(self, published: Published, waiting: Sequence[LogFile]) -> None:
        """Put the rows of the first parts into a file. Raises NumberTakenError if somebody else has done so."""
        tables: list[pa.Table] = []
        for part in waiting:
            body = self._read_part(part.part)
            if body is None:
                raise NumberTakenError(f"{self.place()} has {part.part} in a file already")
            if not tables and is_whole(body):
                footer, _ = read_footer(self.place(part.part), body)
                if footer.number == published.number + 1:
                    self._rename_part(part, footer.file.name)
                    return
            found, table = decode_part(self.place(part.part), body)
            if tables and sum(each.num_rows for each in (*tables, table)) > ROWS_AT_ONCE:
                break
            if tables and found.definition != footer.definition:
                break  # a footer names one
            tables.append(table)
            footer = found
        table = pa.concat_tables(tables).combine_chunks()
        same = published.footer is not None and published.footer.definition == footer.definition
        if same and _groups(published) < MOST_GROUPS and not self._shared():
            footer.number, footer.groups = published.number, _groups(published) + 1
            if self._lengthen(footer.file.name, table, footer):
                return
        footer.number, footer.groups = published.number + 1, 1
        self._commit(footer.file.name, content(table, footer))


def _groups(published: Published) -> int:
    return published.footer.groups if published.footer else 0
