"""The values that were looked up for events which were sent on, and are not in the log yet.

The event-handler sends events, then logs them. If it ends in between, the events are taken again, and by then the table
may have other values. What the next function has applied is what was sent first; so that is what must be logged. After
every start it is read from the stream: the log's checkpoint says where the stream ended when it was written, and what
was sent later stands behind that.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from modelstream.messages.codec import UnreadableError, check_columns, column_or_nulls, decode
from modelstream.messages.identity import positions_of
from modelstream.streams import Streams
from modelstream.use_case.columns import POSITION

MESSAGES = 64
BYTES = 8_000_000
"""Most that is read at once."""
_END = "sent/"

Values = tuple[float | None, ...]


def ends_of(streams: Streams, name: str) -> dict[str, int]:
    """Return where the shards of a stream end, as a checkpoint keeps it among its counters.

    `Sent` has an example.
    """
    return {f"{_END}{shard}": end for shard, (_, end) in streams.ranges(name).items()}


class Sent:
    """The values in some columns of the events that a shard has sent since some ends; of one sent twice, the first.

    >>> import tempfile
    >>> from modelstream.messages.codec import encode
    >>> from modelstream.streams import open_streams
    >>> events = pa.record_batch({"position": [7, 8], "risk": [0.5, None]})
    >>> with tempfile.TemporaryDirectory() as folder, open_streams(f"sqlite://{folder}") as streams:
    ...     info = streams.create("incoming-events", shards=1)
    ...     ends = ends_of(streams, "incoming-events")
    ...     offsets = streams.append("incoming-events", [(0, encode("events", "a.ndjson", events))])
    ...     sent = Sent(pa.schema([events.schema.field("position"), events.schema.field("risk")]))
    ...     sent.read(streams, "incoming-events", 0, ends, own="generated/0")
    >>> again = pa.record_batch({"position": [8, 9], "risk": [0.75, 0.25]})
    >>> ends, sent.put_into("a.ndjson", again).column("risk").to_pylist()
    ({'sent/0': 0}, [None, 0.25])
    """

    def __init__(self, schema: pa.Schema) -> None:
        """Take the columns: the position, then those of the values."""
        self._schema = schema
        self._values: dict[str, dict[int, Values]] = {}

    def read(self, streams: Streams, name: str, shard: int, ends: Mapping[str, int], *, own: str) -> None:
        """Read what a shard has sent since the ends of a stream were as `ends_of` gave them, or ever.

        `own` is the origin of a client's events, which go to any shard; others stay in theirs. Raises UnavailableError.
        """
        for to, (first, end) in streams.ranges(name).items():
            offset = max(first, ends.get(f"{_END}{to}", first))
            while offset < end and (messages := streams.read_once(name, to, offset, MESSAGES, BYTES)):
                for message in messages:
                    offset = message.offset + 1
                    self._add(message.body, None if to == shard else own)

    def put_into(self, origin: str, events: pa.RecordBatch) -> pa.RecordBatch:
        """Return events of an origin with the values with which they were sent before, if they were.

        These are then forgotten: the stage's state is read again before it takes the same events again.
        """
        known = self._values.get(origin)
        if not known:
            return events
        places = [(row, known.pop(at)) for row, at in enumerate(positions_of(events).tolist()) if at in known]
        for number, column in enumerate(list(self._schema)[1:] if places else ()):
            index = events.schema.get_field_index(column.name)
            values = events.column(index).to_pylist()
            for row, sent in places:
                values[row] = sent[number]
            events = events.set_column(index, column, pa.array(values, column.type))
        return events

    def _add(self, body: bytes, only: str | None) -> None:
        try:
            rows = decode(body)
            if rows.kind != "events" or (only is not None and rows.origin != only):
                return
            check_columns(rows.batch, self._schema, [POSITION])
        except UnreadableError:
            return  # a foreign message, which the next function refuses
        known = self._values.setdefault(rows.origin, {})
        columns = [column_or_nulls(rows.batch, column).to_pylist() for column in self._schema]
        for position, *values in zip(*columns, strict=True):
            known.setdefault(position, tuple(values))
