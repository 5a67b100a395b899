"""Generates events: JSON lines as a real source would send them.

Line n depends only on the seed, the end, n, the numbers of users and events, and the distributions. It is the same
however lines are cut into chunks, and wherever reading starts. Lines are in the order of event time over all users.
Memory is needed for the users and a slice of time, not for all events.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from modelstream.base.json_bytes import Bytes, Int64s
from modelstream.messages.identity import buckets_of
from modelstream.source.distributions import GROUP, Distributions, Drawn, Enrichment, value_field
from modelstream.source.generator_kernels import (
    FAR,
    KEY_BYTES,
    NUMBER_BYTES,
    TIME_BYTES,
    GeneratedUsers,
    Rules,
    advance,
    end_by,
    format_lines,
)
from modelstream.source.lines import Chunk, InputLines, Progress
from modelstream.source.readers import Source
from modelstream.use_case.declared import UseCase

MECHANICS = 2
"""Raise this number when a change of the code makes the same distributions give different lines."""
POOL = 1_000
"""Values that Faker makes for each field of the profile (0.2 ms a profile); users draw from these pools."""
SLICE_ROWS = 1 << 18
"""Most events in a slice of time: 8 MB of rows."""
LONGEST_SLICE = (1 << 16) - 1
"""Seconds; times of 16 bits are sorted by radix."""
CHUNK_LINES = 48_000
"""Lines per chunk: 6.5 MB, so that the part of each of 8 shards fits into a message."""

Uint64s = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class GeneratorOptions:
    """What to generate: the number of users, of events per user after the profile event, and the end time."""

    users: int
    events_per_user: int
    seed: int
    end: int
    """Microseconds since 1970 UTC."""

    @property
    def lines(self) -> int:
        """The number of lines."""
        return self.users * (self.events_per_user + 1)

    @property
    def origin(self) -> str:
        """The input's name in the identity of its events: the options without the end, which is stored with it."""
        return f"generator:seed={self.seed},users={self.users},events_per_user={self.events_per_user}"


def enrichment_table(enrichment: Enrichment, seed: int) -> pa.RecordBatch:
    """Return the lookup table (key string, value float64), the same for the same seed."""
    keys = np.arange(enrichment.keys[0], enrichment.keys[1] + 1)
    spans = np.array(enrichment.values, np.uint64)[keys % len(enrichment.values)]
    values = _between(spans[:, 0], spans[:, 1], _bits(seed, "enrichment", len(keys)))
    return pa.record_batch({"key": pa.array(keys).cast(pa.string()), "value": pa.array(values.astype(np.float64))})


class GeneratorSource(Source):
    """The generated lines from `start` on. Raises ConfigurationError for distributions that can't be used."""

    def __init__(
        self,
        use_case: UseCase,
        distributions: Distributions,
        options: GeneratorOptions,
        *,
        start: int = 0,
        chunk_lines: int = CHUNK_LINES,
    ) -> None:
        distributions.check(use_case)
        self.origin = options.origin
        self.expected = options.lines - start
        self._options = options
        self._start = start
        self._chunk_lines = chunk_lines
        self._population = Population(distributions, options)
        self._rules = self._population.rules
        self._parts = _joined(_parts(use_case, distributions))
        self._fraction = np.frombuffer(f".{options.end % 1_000_000:06}".encode(), np.uint8)

    @property
    def fingerprint(self) -> str:
        """A hash of all that the lines depend on besides the options: another one means other lines."""
        hasher = xxhash.xxh3_128(self._population.fingerprint)
        hasher.update(MECHANICS.to_bytes(8))
        for array in (*self._rules, *self._parts):
            hasher.update(array.tobytes())
        return hasher.hexdigest()

    def chunks(self, stopped: Callable[[], bool]) -> Iterator[Chunk]:
        """Yield the lines; see `Source`. A chunk's `data` is the text of its lines, each with its newline."""
        line = self._start
        for rows in self._regrouped():
            if stopped():
                return
            yield self._chunk(line, rows)
            line += len(rows)

    def texts(self) -> Iterator[bytes]:
        """Yield all lines as NDJSON, in pieces: to write them to a file."""
        for chunk in self.chunks(lambda: False):
            yield chunk.lines.data.tobytes()

    def _chunk(self, first: int, rows: Int64s) -> Chunk:
        profiles = self._population.profiles(rows[rows[:, 2] == 0, 1])
        longest = len(self._parts[0]) + KEY_BYTES + TIME_BYTES + NUMBER_BYTES
        out = np.empty(len(rows) * longest + len(profiles[0]), np.uint8)
        starts = np.empty(len(rows) + 1, np.int64)
        keys = self._population.keys
        size = format_lines(rows, keys, self._parts, profiles, self._fraction, out, starts)
        starts[-1] = size
        out.flags.writeable = False  # as the bytes of a file are: the kernels are compiled for one of both
        positions = np.arange(first, first + len(rows))
        buckets = self._population.buckets[rows[:, 1]]
        lines = InputLines(out[:size], starts[:-1], starts[1:] - 1, positions, buckets)
        total = self._options.lines
        return Chunk(lines, lambda count: Progress(first + count, finished=first + count == total))

    def _regrouped(self) -> Iterator[Int64s]:
        """Yield the events from `start` on in pieces of `chunk_lines`; the last piece has the rest."""
        skip = self._start
        waiting: list[Int64s] = []
        count = 0
        for part in self._slices():
            rows = part[skip:]
            skip -= len(part) - len(rows)
            waiting.append(rows)
            count += len(rows)
            if count < self._chunk_lines:
                continue
            rows = np.concatenate(waiting)
            whole = count - count % self._chunk_lines
            for at in range(0, whole, self._chunk_lines):
                yield rows[at : at + self._chunk_lines]
            waiting, count = [rows[whole:]], count - whole
        yield np.concatenate([np.empty((0, 4), np.int64), *waiting])

    def _slices(self) -> Iterator[Int64s]:
        """Yield all events (rows of `advance`) in order of time, then user, then number: a slice of time each."""
        users = self._population.fresh()
        shortest = int(self._rules.steps[0])
        rows = np.empty((SLICE_ROWS, 4), np.int64)
        while (now := int(users.times.min())) < FAR:
            seconds, room = LONGEST_SLICE * 2, SLICE_ROWS + 1
            while room > SLICE_ROWS and seconds > 1:
                seconds //= 2
                room = np.count_nonzero(users.times < now + seconds) * (seconds // shortest + 2)
            if room > len(rows):
                rows = np.empty((room, 4), np.int64)
            count = advance(self._rules, users, now + seconds, self._options.events_per_user, rows)
            part = rows[:count]
            yield part[np.argsort((part[:, 0] - now).astype(np.uint16), kind="stable")]


class Population:
    """The generated users; a user's draws depend only on the seed and the user's number."""

    def __init__(self, distributions: Distributions, options: GeneratorOptions) -> None:
        self.rules = _rules(distributions, options.end)
        count, groups = options.users, distributions.groups
        self._fields = distributions.profile
        bits = _bits(options.seed, "users", count * 8).reshape(count, 8)
        shares = _chances([group.share for group in groups])
        group = np.searchsorted(shares[:-1], (bits[:, 0] >> np.uint64(32)).astype(np.int64), side="right")
        hours = _between(*distributions.first_hours_ago, bits[:, 1]).astype(np.int64)
        seeds = np.stack([bits[:, 2] >> np.uint64(32), bits[:, 2] & np.uint64(0xFFFFFFFF)], axis=1)
        end, none = options.end // 1_000_000, np.zeros(count, np.int64)
        numbers = seeds.astype(np.int64), group.astype(np.int64)
        self._users = GeneratedUsers(*numbers, end - 3600 * hours, none, none.copy())
        end_by(self.rules, self._users, end, options.events_per_user)
        self.keys = _uuids(bits[:, 3:5])
        """The text of each user's key (uint8[users, 36])."""
        ends = np.arange(count + 1, dtype=np.int32) * KEY_BYTES
        self.buckets = buckets_of(pa.StringArray.from_buffers(count, pa.py_buffer(ends), pa.py_buffer(self.keys)))
        self._lookups = _lookups(distributions, group, bits[:, 5:7])
        self._groups = [{name: _json(value) for name, value in group.fields.items()} for group in groups]
        picks = _bits(options.seed, "profiles", count * len(self._fields)).reshape(count, -1)
        self._picks = _between(0, POOL - 1, picks).astype(np.int64)
        self._pools = _pools(distributions, options.seed)

    @property
    def fingerprint(self) -> bytes:
        """A hash of what the profiles are drawn from, and of each user's draws."""
        hasher = xxhash.xxh3_128(repr((self._pools, self._groups)).encode())
        for array in (*self._users, self._lookups):
            hasher.update(array.tobytes())
        return hasher.digest()

    def fresh(self) -> GeneratedUsers:
        """Return the users before their first event."""
        return GeneratedUsers(*(array.copy() for array in self._users))

    def profiles(self, users: Int64s) -> tuple[Bytes, Int64s]:
        """Return the ends of some users' profile lines, as one text and the place where each begins."""
        texts = [b"", *(self._profile(int(user)).encode() for user in users)]
        return _joined(texts)

    def _profile(self, user: int) -> str:
        fields = []
        for column, (name, draw) in enumerate(self._fields.items()):
            if isinstance(draw, Drawn):
                group = self._groups[self._users.groups[user]]
                value = group[name] if draw is GROUP else str(self._lookups[user])
            else:
                value = self._pools[name][self._picks[user, column]]
            fields.append(f", {_json(name)}: {value}")
        return "".join(fields)


def _bits(seed: int, purpose: str, count: int) -> Uint64s:
    """Return random bits (uint64[count]). The raw output of Philox is the same in every numpy (NEP 19)."""
    return np.random.Philox([seed, *purpose.encode()]).random_raw(count)


def _between(low: Any, high: Any, bits: Uint64s) -> Uint64s:
    """Return whole numbers from `low` to `high`, both included and below 2^32, made of random bits."""
    first, last = np.uint64(low), np.uint64(high)
    numbers: Uint64s = first + (((bits >> np.uint64(32)) * (last - first + np.uint64(1))) >> np.uint64(32))
    return numbers


def _chances(shares: Sequence[float]) -> Int64s:
    """Return the cumulative chances, scaled to 2^32."""
    chances: Int64s = np.round(np.cumsum(shares) * 2.0**32).astype(np.int64)
    chances[-1] = 1 << 32
    return chances


def _rules(distributions: Distributions, end: int) -> Rules:
    types = list(distributions.values)
    mix = [_chances([group.mix.get(kind, 0.0) for kind in types]) for group in distributions.groups]
    pauses = [[0, 0, 0, -1] for _ in distributions.groups]
    for row, group in zip(pauses, distributions.groups, strict=True):
        if (pause := group.pause) is not None:
            row[:] = [round(pause.chance * 2**32), *_span(pause.hours), end // 1_000_000 - pause.hours_ago * 3600]
    return Rules(
        np.array(_span(distributions.step_seconds)),
        np.array(_span(distributions.spread)),
        np.array(list(distributions.values.values()), np.int64),
        np.array(mix),
        np.array(pauses, np.int64),
    )


def _span(both: tuple[int, int]) -> tuple[int, int]:
    return both[0], both[1] - both[0] + 1


def _parts(use_case: UseCase, distributions: Distributions) -> list[bytes]:
    """Return the texts between the values of a line: see `format_lines`."""
    key, kind, time = (_json(name) for name in (use_case.key, use_case.type, use_case.time))
    profile = use_case.profile.event if use_case.profile else ""
    parts = [f'{{{key}: "']
    for event in (profile, *distributions.values):
        parts.append(f'", {kind}: {_json(event)}, {time}: "')
        parts.append('"' if event == profile else f'", {_json(value_field(use_case, event))}: ')
    return [part.encode() for part in parts]


def _lookups(distributions: Distributions, groups: npt.NDArray[Any], bits: Uint64s) -> Int64s:
    """Return the key that each user looks up."""
    enrichment = distributions.enrichment
    draws = _between(*enrichment.draws, bits[:, 0]).astype(np.int64)
    remainders = np.empty(len(groups), np.int64)
    for number, group in enumerate(distributions.groups):
        mine = groups == number
        picks = _between(0, len(group.remainders) - 1, bits[mine, 1]).astype(np.int64)
        remainders[mine] = np.array(group.remainders)[picks]
    keys: Int64s = len(enrichment.values) * draws + remainders
    return keys


def _pools(distributions: Distributions, seed: int) -> dict[str, list[str]]:
    """Return JSON text of `POOL` values for each field of the profile that Faker makes."""
    from faker import Faker  # 0.3 s, and only needed here

    fake = Faker("en_US")
    fake.seed_instance(seed)
    return {
        name: [_json(draw(fake)) for _ in range(POOL)]
        for name, draw in distributions.profile.items()
        if not isinstance(draw, Drawn)
    }


def _json(value: Any) -> str:
    return json.dumps(value)


def _uuids(bits: Uint64s) -> Bytes:
    """Return the text of random UUIDs (version 4; uint8[n, 36]) made of random bits (uint64[n, 2])."""
    octets = bits.astype(">u8").view(np.uint8).reshape(-1, 16)
    octets[:, 6] = octets[:, 6] & 0x0F | 0x40
    octets[:, 8] = octets[:, 8] & 0x3F | 0x80
    nibbles = np.stack([octets >> 4, octets & 15], axis=-1).reshape(-1, 32)
    text = np.full((len(bits), KEY_BYTES), ord("-"), np.uint8)
    places = [place for place in range(KEY_BYTES) if place not in (8, 13, 18, 23)]
    text[:, places] = np.frombuffer(b"0123456789abcdef", np.uint8)[nibbles]
    return text


def _joined(texts: Sequence[bytes]) -> tuple[Bytes, Int64s]:
    """Return texts as one, and where each ends."""
    return np.frombuffer(b"".join(texts), np.uint8), np.cumsum([len(text) for text in texts], dtype=np.int64)
