"""Publishes what waits in parts: small commits become few files, and any reader of the files has their rows.

The last file of an epoch and shard is replaced by a longer one, by one rename, until it is large enough; then the next
one begins. A reader finds the shorter file or the longer one, never both, and nothing is ever deleted that it may have
listed. Parts are deleted when their rows are in a file that survives a power loss. A kill at any step leaves parts
that count no more, which the next publication deletes.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from modelstream.errors import NumberTakenError
from modelstream.logs.file import LogFile, content
from modelstream.logs.part import decode_part, is_whole
from modelstream.logs.storage import Key, Published, Storage

MOST_GROUPS = 60
"""How often rows are put into the same file: its footer grows each time, and all of the file is copied."""

ROWS_AT_ONCE = 1 << 18
"""Most rows of parts that are in memory together: some 50 MB."""


class PublishingStorage(Storage):
    """A log whose parts can be published."""

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
                        done = alone is not False and self._publish(key, lengthen=bool(alone)) and done
        return done

    def waiting(self) -> dict[Key, tuple[int, int]]:
        """Return, for each epoch and shard with parts, how many there are and how often the last file got rows."""
        with self._outages():
            found = {key: self._waiting(key) for key in {part.key for part in self._parts()}}
        return {key: (len(parts), last.footer.groups if last.footer else 0) for key, (last, parts) in found.items()}

    def _publish(self, key: Key, *, lengthen: bool) -> bool:
        """Publish an epoch and shard. Return False if somebody else does it too."""
        while True:
            published, waiting = self._waiting(key)
            self._remove_parts([part for part in self._parts() if part.key == key and part.number < published.end])
            if not waiting:
                return True
            try:
                self._put_into_file(published, waiting, lengthen=lengthen)
            except NumberTakenError:
                return False

    def _put_into_file(self, published: Published, waiting: Sequence[LogFile], *, lengthen: bool) -> None:
        """Put the rows of the first parts into a file. Raises NumberTakenError if somebody else has done so."""
        tables: list[pa.Table] = []
        for part in waiting:
            body = self._read_part(part.part)
            if body is None:
                raise NumberTakenError(f"{self.place()} has {part.part} in a file already")
            found, table = decode_part(self.place(part.part), body)
            if not tables and is_whole(body) and found.number == published.number + 1:
                self._rename_part(part, found.file.name)
                return
            if tables and sum(each.num_rows for each in (*tables, table)) > ROWS_AT_ONCE:
                break
            tables.append(table)
            footer = found
        table = pa.concat_tables(tables).combine_chunks()
        groups = published.footer.groups if published.footer else MOST_GROUPS
        if lengthen and groups < MOST_GROUPS:
            footer.number, footer.groups = published.number, groups + 1
            if self._lengthen(footer.file.name, table, footer):
                return
        footer.number, footer.groups = published.number + 1, 1
        self._commit(footer.file.name, content(table, footer))
