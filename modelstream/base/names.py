"""What streams, tables, logs, models and the like may be called: a name goes into paths, topics, keys and URLs."""

from __future__ import annotations

import re

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""Use it with `fullmatch`."""
