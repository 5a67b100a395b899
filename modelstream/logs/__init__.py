"""Logs: the rows that the pipeline keeps for good, in plain Parquet files, each row once.

| what | files |
|---|---|
| the contract, and the code that both implementations share; tested by `tests/contract/log_contract.py` | `contract` |
| what a log needs of the place where its files are, and what is in it | `storage` |
| one file: its name, its footer, its encoding | `file` |
| small commits, and how they become few files, in the background | `part`, `longer`, `publish`, `publisher` |
| in a folder | `parquet` |
| the latest row of each key | `latest` |
| in a bucket, on any store that speaks S3; imported only where its URL is used | `bucket` |
"""

from __future__ import annotations

import pyarrow as pa

from modelstream.base.urls import folder_of
from modelstream.errors import ConfigurationError
from modelstream.logs.contract import Log

__all__ = ["Log", "open_log"]


def open_log(url: str, name: str, schema: pa.Schema, epoch: int, definition: str = "") -> Log:
    """Return a log at a URL. Raises ConfigurationError for an unknown kind of URL. Nothing is created yet.

    `definition` is the hash of the definition that makes the rows, which goes into each file.

    The URL is a folder, as a path or `file://` and a path, or `s3://bucket/prefix`.

    >>> open_log("/data", "events", pa.schema([]), epoch=0).place()
    '/data/events'
    >>> open_log("tape://reel", "events", pa.schema([]), 0)
    Traceback (most recent call last):
    modelstream.errors.ConfigurationError: logs can't be at 'tape://reel': unknown kind 'tape'; known: file, s3
    """
    scheme = url.partition("://")[0] if "://" in url else "file"
    if scheme == "file":
        from modelstream.logs.parquet import ParquetLog

        return ParquetLog(folder_of(url) / name, schema, epoch, definition)
    if scheme == "s3":
        from modelstream.logs.bucket import S3Log

        return S3Log(f"{url.rstrip('/')}/{name}", schema, epoch, definition)
    raise ConfigurationError(
        f"logs can't be at {url!r}: unknown kind {scheme!r}; known: file, s3",
        remedy="give a folder, or s3://bucket/prefix",
    )
