"""URLs of folders."""

from __future__ import annotations

from pathlib import Path

from modelstream.errors import ConfigurationError


def folder_of(url: str) -> Path:
    """Return the folder that a URL of logs or models names: a path, or `file://` and a path.

    Raises ConfigurationError for any other URL.

    >>> folder_of("file:///mnt/models"), folder_of("artifacts/models")
    (PosixPath('/mnt/models'), PosixPath('artifacts/models'))
    """
    path = url.removeprefix("file://")
    if "://" in path:
        raise ConfigurationError(
            f"{url} is not a folder", remedy="give a path, file:// and an absolute path, or s3://bucket/prefix"
        )
    return Path(path)
