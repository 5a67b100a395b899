"""A use case whose events need several fields, and that looks values up at events."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from modelstream.use_case.declared import Event, UseCase
from modelstream.use_case.file import parse_use_case
from modelstream.use_case.vocabulary import LookUp

_TEXT = """
{version: 1, name: payments, key: card, time: at, type: kind, statistics: [sum],
 fields: {card: key, at: time, kind: text, amount: number, merchant: identifier, terminal: identifier, shop: text,
          online: boolean},
 events: {payment: {value: amount, aliases: [paid]}, refund: {value: amount}, closed: {}}, predict_on: [payment],
 model: {name: fraud, prediction: is_fraud}}
"""

_OLD = parse_use_case(_TEXT)

PAYMENTS: UseCase = msgspec.structs.replace(
    _OLD,
    events={
        "payment": Event(("paid",), ("amount", "merchant", "online")),
        "refund": Event((), ("merchant",)),
        "closed": Event(),
    },
    forms={
        **_OLD.forms,
        "risk": LookUp("terminals", by="terminal"),
        "shop_risk": LookUp("shops", by="shop", otherwise=0.5),
        "merchant_risk": LookUp("terminals", by="merchant"),
    },
)


def line(kind: str = "payment", **fields: Any) -> bytes:
    """Return an event; fields that are None are left out."""
    usual = {"card": "c1", "at": "2026-03-28 20:00", "kind": kind, "amount": 2.5, "merchant": "m1", "online": True}
    return json.dumps({name: value for name, value in (usual | fields).items() if value is not None}).encode()
