"""Random events of a few users, good and bad, as files and clients send them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from modelstream.messages.codec import encode
from modelstream.use_case.declared import UseCase

KEYS: tuple[str | int, ...] = ("u1", "u2", "u3", 4, 5, "ü ☂", "u7", "u8")
VALUES = {"10115": 1.5, "20095": 3.25, "7": 0.125}
"""The lookup table: postcodes that are found."""
POSTCODES: tuple[Any, ...] = (*VALUES, 7, "99999", None)
START = datetime(2026, 3, 28, 20)


def event(rng: random.Random, keys: Sequence[str | int] = KEYS) -> dict[str, Any]:
    """Return a readable event of the churn use case."""
    time = START + timedelta(seconds=rng.uniform(0, 30 * 3600))
    found: dict[str, Any] = {"user_id": rng.choice(keys), "event_time": time.isoformat(rng.choice(" T"))}
    kind = rng.choices(("registration", "purchase", "bet", "win", "login"), (15, 15, 45, 20, 5))[0]
    found["event_type"] = rng.choice((kind, f"new_{kind}")) if kind != "login" else kind
    if kind == "registration":
        found |= {
            "postcode": rng.choice(POSTCODES),
            "label": rng.randint(0, 1),
            "affiliate_url": rng.choice(("a", None)),
        }
    field = {"purchase": "amount", "bet": "bet_amount", "win": "win_amount"}.get(kind)
    if field:
        found[field] = rng.choice((rng.uniform(0, 100), rng.randint(0, 9), 1e-9, 123456789.125))
    if rng.random() < 0.1:
        found["device"] = {"os": "x", "v": [1, 2]}
    return found


def bad_line(rng: random.Random, keys: Sequence[str | int] = KEYS) -> bytes:
    """Return a line that must become a dead letter. The key can be found in some."""
    good = event(rng, keys) | {"event_type": "bet", "bet_amount": 2.5}
    text = json.dumps(good).encode()
    broken = [
        text[: rng.randint(1, len(text) - 1)],
        text.replace(b"2.5", rng.choice((b"NaN", b"1e999", b'"2.5"', b"null", b"[]"))),
        json.dumps(good | {rng.choice(("user_id", "event_time", "event_type")): None}).encode(),
        json.dumps(good | {"user_id": ""}).encode(),
        json.dumps(good | {"event_time": "soon"}).encode(),
        b"\xff" + text,
        b"[" * 2000,
        rng.choice((b"17", b"null", b'"u1"', b"[]", b"not JSON")),
    ]
    return rng.choice(broken)


def line(rng: random.Random, keys: Sequence[str | int] = KEYS, bad: float = 0.08) -> bytes:
    """Return a line of a file."""
    dice = rng.random()
    if dice < 0.04:
        return rng.choice((b"", b"  ", b"\r"))
    if dice < 0.04 + bad:
        return bad_line(rng, keys)
    return json.dumps(event(rng, keys), ensure_ascii=rng.random() < 0.5).encode()


def body(rng: random.Random, keys: Sequence[str | int], use_case: UseCase) -> bytes:
    """Return what a client posts for users of one shard."""
    dice = rng.random()
    if dice < 0.12:
        return rng.choice((b'[{"user_id": ', b"[}", b"\xff\xff\xff\xff", b"[" * 5000))
    if dice < 0.15:
        empty = pa.RecordBatch.from_pylist([], schema=use_case.vector_schema)
        return encode("vectors", "foreign", empty)
    if dice < 0.35:
        return json.dumps(event(rng, keys), indent=rng.choice((None, 1))).encode()
    if dice < 0.6:
        return json.dumps([event(rng, keys) for _ in range(rng.randint(0, 4))]).encode()
    return b"\n".join(line(rng, keys, 0.3) for _ in range(rng.randint(1, 5)))
