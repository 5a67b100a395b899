"""A folder is given as a path or as a `file://` URL; nothing else is taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelstream.base.urls import folder_of
from modelstream.errors import ConfigurationError


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("data", "data"),
        ("/mnt/data", "/mnt/data"),
        ("file:///mnt/data", "/mnt/data"),
        ("file://data", "data"),
        ("~/data", "~/data"),
        ("C:/data", "C:/data"),
        ("", "."),
    ],
)
def test_path_and_file_url_name_a_folder(url: str, folder: str) -> None:
    assert folder_of(url) == Path(folder)


@pytest.mark.parametrize("url", ["s3://bucket/prefix", "ftp://host", "file://s3://bucket", "FILE:///mnt"])
def test_anything_else_is_refused_with_what_is_possible(url: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{url} is not a folder$") as raised:
        folder_of(url)
    assert "file:// and an absolute path, or s3://bucket/prefix" in raised.value.remedy
