"""Part of a test tool (see README.md): the calls of V3IO's NoSQL API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from . import expressions
from .errors import CONDITION_IS_FALSE, ITEM_EXISTS, ApiError, invalid, no_such_file
from .store import FILE, SHARD, File, Folder, Store, slice_of, split
from .values import Attributes, decode, encode

PAGE = 1000
"""Items that a response of GetItems has at most."""

PAGE_BYTES = 4 << 20

MAX_NAME = 255
_MODES = ("CreateOrReplaceAttributes", "OverWriteAttributes", "CreateNewItemOnly")


class Named(Mapping[str, Any]):
    """The attributes of a file, those of the system among them; of no file: none."""

    def __init__(self, name: str, file: File | None) -> None:
        self.name = name
        self.file = file

    def __getitem__(self, name: str) -> Any:
        if self.file is None:
            raise KeyError(name)
        return self.file.attributes[name] if name in self.file.attributes else self.system()[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self.file.attributes, **self.system()} if self.file else ())

    def __len__(self) -> int:
        return len(list(iter(self)))

    def system(self) -> Attributes:
        """Return the attributes that the system gives."""
        file = self.file
        assert file is not None
        found: Attributes = {
            "__name": self.name,
            "__size": len(file.body),
            "__mtime_secs": file.modified // 10**9,
            "__mtime_nsecs": file.modified % 10**9,
            "__ctime_secs": file.created // 10**9,
            "__ctime_nsecs": file.created % 10**9,
            "__inode_number": file.inode,
            "__obj_type": FILE if file.records is None else SHARD,
        }
        if file.records is not None:
            found["__last_sequence_num"] = file.last_number
        return found

    def chosen(self, names: str) -> Attributes:
        """Return the attributes that AttributesToGet asks for."""
        assert self.file is not None
        if names == "**":
            return dict(self)
        found: Attributes = {}
        for name in names.split(","):
            if name == "*":
                found |= {key: value for key, value in self.file.attributes.items() if not key.startswith("__")}
            elif name in self:
                found[name] = self[name]
        return found


_SYSTEM = set(Named("", File(0, 0, records=[])).system())


def put_item(store: Store, container: str, path: str, request: dict[str, Any]) -> str:
    """PutItem: all attributes anew, or with an UpdateMode only those given. Returns the verifier of the item."""
    mode = request.get("UpdateMode", "OverWriteAttributes")
    if mode not in _MODES:
        raise invalid(f"UpdateMode {mode!r}")
    item = decode(request.get("Item"))
    file = _to_write(store, container, path, request.get("ConditionExpression"))
    if mode == "CreateNewItemOnly" and file is not None:
        raise ApiError(400, ITEM_EXISTS, "the item exists (ErrorCode of CreateNewItemOnly)")
    before = file.attributes if file is not None and mode == "CreateOrReplaceAttributes" else {}
    return _write(store, container, path, file, before | item)


def update_item(store: Store, container: str, path: str, request: dict[str, Any]) -> str:
    """UpdateItem with expressions. Returns the verifier of the item."""
    expression, alternate = request.get("UpdateExpression"), request.get("AlternateUpdateExpression")
    try:
        file = _to_write(store, container, path, request.get("ConditionExpression"))
    except ApiError as error:
        if error.body["ErrorCode"] != CONDITION_IS_FALSE or not alternate:
            raise
        expression, file = alternate, _to_write(store, container, path, None)
    if not isinstance(expression, str):
        raise invalid("no UpdateExpression")
    seen = dict(Named(split(path)[-1], file))
    after = expressions.update(expression, seen)
    changed = {name: value for name, value in after.items() if name not in _SYSTEM}
    return _write(store, container, path, file, changed)


def get_item(store: Store, container: str, path: str, request: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """GetItem. Returns the answer and the verifier of the item."""
    file = store.find(container, path)
    if not isinstance(file, File):
        raise no_such_file(path)
    names = request.get("AttributesToGet")
    if not isinstance(names, str):
        raise invalid("AttributesToGet")
    return {"Item": encode(Named(split(path)[-1], file).chosen(names))}, verifier(file)


def get_items(
    store: Store, container: str, path: str, request: dict[str, Any], *, empty_pages: bool = False
) -> dict[str, Any]:
    """GetItems. A response has items of one slice only, so it may be short; with `empty_pages` also empty."""
    folder = store.folder(container, f"{path}/{request.get('TableName', '')}")
    names = request.get("AttributesToGet")
    limit = min(request.get("Limit", PAGE), PAGE)
    key, total = request.get("ShardingKey"), request.get("TotalSegment", 0)
    if not isinstance(names, str) or limit < 1:
        raise invalid("AttributesToGet or Limit")
    if (key is not None and total) or (total and not 0 <= request.get("Segment", -1) < total):
        raise invalid("Segment")
    number, start = _marker(request.get("Marker"))
    slices = folder.slices()
    items: list[Any] = []
    while number < len(slices) and not items:
        taken, last = 0, ""
        for name in slices[number]:
            if name <= start or (total and slice_of(name, total) != request["Segment"]):
                continue
            if len(items) == limit or taken > PAGE_BYTES:
                return {"LastItemIncluded": "FALSE", "NextMarker": f"{number}:{last}", "Items": items}
            last = name
            found = Named(name, folder.entries[name])  # type: ignore[arg-type]
            if _in_range(name, request) and expressions_allow(request.get("FilterExpression"), found):
                items.append(encode(found.chosen(names)))
                taken += sum(len(str(value)) for value in items[-1].values())
        number, start = number + 1, ""
        if empty_pages:
            break
    if number == len(slices):
        return {"LastItemIncluded": "TRUE", "Items": items}
    return {"LastItemIncluded": "FALSE", "NextMarker": f"{number}:", "Items": items}


def verifier(file: File) -> str:
    """Return the header X-v3io-transaction-verifier of a file."""
    return f"__mtime_secs=={file.modified // 10**9} and __mtime_nsecs=={file.modified % 10**9}"


def expressions_allow(expression: Any, attributes: Mapping[str, Any]) -> bool:
    """Return whether a condition holds; none always does."""
    return not expression or expressions.is_true(expression, attributes)


def _marker(marker: Any) -> tuple[int, str]:
    if marker is None:
        return 0, ""
    number, colon, start = str(marker).partition(":")
    if not colon or not number.isdecimal():
        raise invalid(f"Marker {marker!r}")
    return int(number), start


def _in_range(name: str, request: dict[str, Any]) -> bool:
    if request.get("ShardingKey") is None:
        return True
    sharding, _, sorting = name.partition(".")
    return bool(
        sharding == request["ShardingKey"]
        and sorting >= request.get("SortKeyRangeStart", "")
        and ("SortKeyRangeEnd" not in request or sorting < request["SortKeyRangeEnd"])
    )


def _to_write(store: Store, container: str, path: str, condition: Any) -> File | None:
    """Return the file to write, None if it is new, after its condition was looked at."""
    name = (split(path) or [""])[-1]
    if not name or len(name.encode()) > MAX_NAME or "\0" in name:
        raise invalid(f"{name!r} can't name an item")
    found = store.find(container, path)
    if isinstance(found, Folder):
        raise invalid(f"{path} is a folder")
    parent = store.find(container, "/".join(split(path)[:-1]))
    if found is None and isinstance(parent, Folder) and parent.stream is not None and name.isdecimal():
        raise invalid(f"shard {path} has no record yet")
    if not expressions_allow(condition, Named(name, found)):
        raise ApiError(400, CONDITION_IS_FALSE, "the condition is false")
    return found


def _write(store: Store, container: str, path: str, file: File | None, attributes: Attributes) -> str:
    if reserved := _SYSTEM & set(attributes):
        raise invalid(f"{', '.join(sorted(reserved))} can't be written")
    return verifier(store.change_file(container, path, attributes, file.body if file else b""))
