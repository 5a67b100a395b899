"""Part of a test tool (see README.md): objects, folders, and lists of what a container has."""

from __future__ import annotations

import re
import time
from typing import Any
from xml.sax.saxutils import escape

from .errors import ApiError, invalid, no_such_file
from .store import File, Folder, Store, split

_RANGE = re.compile(r"(?:bytes=)?([0-9]+)-?([0-9]*)")


def get_object(store: Store, container: str, path: str, wanted: str) -> tuple[int, bytes]:
    """Return the status and the body of an object, or of a range of it; a folder is an empty one."""
    file = store.find(container, path)
    if file is None:
        raise no_such_file(path)
    body = file.body if isinstance(file, File) else b""
    if not wanted:
        return 200, body
    found = _RANGE.fullmatch(wanted)
    if found is None:
        raise invalid(f"Range {wanted!r}")
    return 206, body[int(found[1]) : int(found[2]) + 1 if found[2] else None]


def put_object(store: Store, container: str, path: str, body: bytes, wanted: str) -> None:
    """Put an object; with the Range -1 append to it; a path that ends with / makes a folder."""
    if path.endswith("/"):
        store.make_folder(container, path)
        return
    file = store.find(container, path)
    if isinstance(file, Folder) or not split(path):
        raise invalid(f"{path} is a folder")
    before = file.body if file and wanted == "-1" else b""
    store.change_file(container, path, file.attributes if file else {}, before + body)


def delete_object(store: Store, container: str, path: str) -> None:
    """Delete a file or an empty folder."""
    found = store.find(container, path)
    if found is None or not split(path):
        raise no_such_file(path)
    if isinstance(found, Folder) and found.entries:
        raise ApiError(409, -39, f"Directory not empty: {path}")
    store.delete(container, path)


def list_container(store: Store, container: str, query: dict[str, str]) -> bytes:
    """Return a page of what a folder has, as XML."""
    prefix = "/".join(split(query.get("prefix", "")))
    folder = store.folder(container, prefix)
    limit = int(query.get("max-keys", "1000"))
    marker = "/".join(split(query.get("marker", "")))
    entries = {f"{prefix}/{name}".strip("/"): entry for name, entry in sorted(folder.entries.items())}
    if "prefix-only" in query:
        entries = {path: entry for path, entry in entries.items() if isinstance(entry, Folder)}
    left = [path for path in entries if path > marker]
    page = left[:limit]
    parts = [_describe(path, entries[path], "prefix-info" in query) for path in page]
    return (
        f"<ListBucketResult><Name>{escape(container)}</Name>"
        f"<NextMarker>{escape(page[-1]) if page else ''}</NextMarker><MaxKeys>{limit}</MaxKeys>"
        f"<IsTruncated>{str(len(left) > limit).lower()}</IsTruncated>{''.join(parts)}</ListBucketResult>"
    ).encode()


def list_containers(store: Store) -> bytes:
    """Return the containers, as XML."""
    buckets = "".join(
        f"<Bucket><Name>{escape(name)}</Name><CreationDate>{_moment(time.time())}</CreationDate><Id>{number}</Id></Bucket>"
        for number, name in enumerate(store.containers)
    )
    return f"<ListAllMyBucketsResult><Buckets>{buckets}</Buckets></ListAllMyBucketsResult>".encode()


def _describe(path: str, entry: File | Folder, all_attributes: Any) -> str:
    if isinstance(entry, File):
        mode = "<Mode>0100664</Mode>" if all_attributes else ""
        return (
            f"<Contents><Key>{escape(path)}</Key><Size>{len(entry.body)}</Size><LastSequenceId>0</LastSequenceId>"
            f"<LastModified>{_moment(entry.modified / 1e9)}</LastModified>{mode}</Contents>"
        )
    stream = ""
    if all_attributes and entry.stream is not None:
        stream = (
            f"<ShardCount>{entry.stream.shards}</ShardCount>"
            f"<RetentionPeriodHours>{entry.stream.hours}</RetentionPeriodHours>"
        )
    modified = f"<LastModified>{_moment(entry.made)}</LastModified>" if all_attributes else ""
    return f"<CommonPrefixes><Prefix>{escape(path)}/</Prefix>{modified}{stream}</CommonPrefixes>"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
