"""Tables: lookup tables, the features of users, the inputs that were read, and the epoch.

| what | files |
|---|---|
| the contract of every backend, tested by `tests/contract/tables_contract.py` | `contract` |
| SQLite files on one machine | `sqlite`, `sqlite_features`, `sqlite_rows` |
| Redis | `redis`, `redis_features`, `redis_rows`, `redis_scripts`, `redis_client` |
| V3IO | `v3io`, `v3io_features`, `v3io_items`, `v3io_rows`, `v3io_frames` |
| looked-up values, cached for some seconds | `lookup_cache` |

A backend's module is imported only where its URL is used.
"""

from __future__ import annotations

from modelstream.errors import ConfigurationError
from modelstream.tables.contract import FeatureTable, Input, InputTable, LookupTable, Tables

__all__ = ["FeatureTable", "Input", "InputTable", "LookupTable", "Tables", "open_tables"]


def open_tables(url: str) -> Tables:
    """Return the tables behind a URL. Raises ConfigurationError for one that is none.

    `sqlite:///absolute/folder`, `sqlite://relative/folder`, `redis://host:port/db?prefix=NAME` (`rediss://` for TLS),
    or `v3io://container/path` (see `clients.v3io`).

    >>> open_tables("slate://wall")
    Traceback (most recent call last):
    modelstream.errors.ConfigurationError: no tables of the kind 'slate' (in 'slate://wall'); known: redis, sqlite, v3io
    """
    scheme = url.partition("://")[0]
    if scheme == "sqlite":
        from modelstream.clients.sqlite import folder_of
        from modelstream.tables.sqlite import SqliteTables

        return SqliteTables(folder_of(url))
    if scheme in ("redis", "rediss"):
        from modelstream.tables.redis import RedisTables

        return RedisTables(url)
    if scheme == "v3io":
        from modelstream.tables.v3io import V3ioTables

        return V3ioTables(url)
    raise ConfigurationError(
        f"no tables of the kind {scheme!r} (in {url!r}); known: redis, sqlite, v3io",
        remedy="write sqlite:///absolute/folder, redis://host:port/db?prefix=NAME or v3io://container/path",
    )
