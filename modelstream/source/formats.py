"""Recognises input that isn't JSON lines by its first bytes, and knows a command that makes JSON lines of it.

Only what can hold no event at all is recognised: in anything else, a line that can't be read becomes a dead letter, and
the lines around it are processed.
"""

from __future__ import annotations

import csv
import json
import shlex
from dataclasses import dataclass
from typing import Any

import msgspec

from modelstream.base.command_line import python
from modelstream.errors import UnreadableInputError
from modelstream.messages.json_text import BYTE_ORDER_MARK

FIRST_BYTES = 64 << 10
"""How many bytes of an input are looked at."""
FIRST_LINES = 50
FROM_STANDARD_INPUT = "python pipeline.py run --input -"

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ANY = msgspec.json.Decoder(msgspec.Raw)
_PANDAS = (
    "{python} "
    '-c \'import pandas, sys; print(pandas.%s.to_json(orient="records", lines=True, date_format="iso"))\' {file}'
)


@dataclass(frozen=True)
class Format:
    """A format of files: what a person calls it, and a shell command that prints `{file}` as JSON lines, if there is
    one.
    """

    name: str
    command: str = ""

    def way_out(self, file: str, then: str, python: str = "python") -> str:
        """Return what to do with a file, "" if only its name isn't known: make lines, and pipe them on.

        >>> GZIP.way_out("my events.gz", "python pipeline.py run --input -")
        "make JSON lines of it: gzip -dc 'my events.gz' | python pipeline.py run --input -"
        """
        if not self.command:
            return "give one JSON object a line"
        made = self.command.replace("{python}", python).replace("{file}", shlex.quote(file) if file else "FILE")
        return f"make JSON lines of it: {made} | {then}"


GZIP = Format("gzip", "gzip -dc {file}")
ARRAY = Format("a JSON array", "jq -c '.[]' {file}")
OBJECT = Format("JSON over several lines", "jq -c . {file}")
IN_ONE_LINE = Format("JSON objects without line breaks in between", "jq -c . {file}")
BINARY = Format("a binary file")
EXCEL = Format("an Excel file", _PANDAS % "read_excel(sys.argv[1])")

_BY_FIRST_BYTES: tuple[tuple[bytes, Format], ...] = (
    (b"\x1f\x8b", GZIP),
    (b"\x28\xb5\x2f\xfd", Format("zstd", "zstd -dc {file}")),
    (b"BZh", Format("bzip2", "bzip2 -dc {file}")),
    (b"\xfd7zXZ\x00", Format("xz", "xz -dc {file}")),
    (b"\x04\x22\x4d\x18", Format("lz4", "lz4 -dc {file}")),
    (b"PK\x03\x04", Format("a zip archive", "unzip -p {file}")),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", EXCEL),
    (b"PAR1", Format("Parquet", _PANDAS % "read_parquet(sys.argv[1])")),
    (b"ARROW1", Format("Arrow (Feather)", _PANDAS % "read_feather(sys.argv[1])")),
    (b"ORC", Format("ORC", _PANDAS % "read_orc(sys.argv[1])")),
    (b"Obj\x01", Format("Avro", "fastavro {file}")),
    (b"SQLite format 3\x00", Format("a SQLite database", "sqlite3 -json {file} 'SELECT * FROM events' | jq -c '.[]'")),
    (b"\xff\xfe\x00\x00", Format("text in UTF-32", "iconv -f UTF-32 -t UTF-8 {file}")),
    (b"\x00\x00\xfe\xff", Format("text in UTF-32", "iconv -f UTF-32 -t UTF-8 {file}")),
    (b"\xff\xfe", Format("text in UTF-16", "iconv -f UTF-16 -t UTF-8 {file}")),
    (b"\xfe\xff", Format("text in UTF-16", "iconv -f UTF-16 -t UTF-8 {file}")),
)
_XML = (b"<?xml", b"<!doctype", b"<html")


def refuse_wrong_format(first: bytes, what: str, file: str = "", then: str = FROM_STANDARD_INPUT) -> None:
    """Raise UnreadableInputError if an input that begins with these bytes can't be JSON lines.

    The remedy pipes lines into the command `then`.

    >>> refuse_wrong_format(b"PAR1...", "the input events.parquet", "events.parquet")
    Traceback (most recent call last):
    modelstream.errors.UnreadableInputError: the input events.parquet is Parquet, not JSON lines
    """
    found = wrong_format(first)
    if found is not None:
        raise UnreadableInputError(
            f"{what} is {found.name}, not JSON lines", remedy=found.way_out(file, then, python())
        )


def wrong_format(first: bytes) -> Format | None:
    r"""Return the format of an input that begins with these bytes, None if events may be in its lines.

    >>> [found and found.name for found in map(wrong_format, (b"id,at\n1,2\n", b'[{"id": 1}]', b'{"id": 1}\n'))]
    ['CSV', 'a JSON array', None]
    """
    return _binary(first) or _text(first.removeprefix(BYTE_ORDER_MARK))


def _binary(first: bytes) -> Format | None:
    for mark, found in _BY_FIRST_BYTES:
        if first.startswith(mark) and (mark != b"ORC" or b"\n" not in first[:16]):
            return EXCEL if mark == b"PK\x03\x04" and b"[Content_Types].xml" in first else found
    if first[257:262] == b"ustar":
        return Format("a tar archive", "tar -xOf {file}")
    for zeros, encoding in ((first[1:40:2], "UTF-16LE"), (first[0:40:2], "UTF-16BE")):
        if len(zeros) > 3 and not any(zeros) and first[:40].count(0) == len(zeros):
            return Format("text in UTF-16", f"iconv -f {encoding} -t UTF-8 {{file}}")
    return BINARY if 0 in first[:1000] and b"{" not in first[:1000] else None


def _text(first: bytes) -> Format | None:
    begin = first.lstrip()
    whole = [line.strip() for line in first.split(b"\n")[:-1]]
    lines = [line for line in whole if line][:FIRST_LINES]
    if begin[:10].lower().startswith(_XML):
        return Format("XML or HTML")
    if begin.startswith(b"[") and begin[1:].lstrip()[:1] in (b"", b"{", b"]"):
        only_one = bool(lines) and _is(_ANY, lines[0]) and any(_is(_OBJECT, line) for line in lines[1:])
        return None if only_one else ARRAY
    if begin.startswith(b"{"):
        return _objects(begin, lines)
    return _csv(lines)


def _objects(begin: bytes, lines: list[bytes]) -> Format | None:
    """Return the format of what begins with `{`, None if there are lines of whole objects."""
    if len(lines) < 2:
        try:
            _, end = json.JSONDecoder().raw_decode(begin.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return None
        return IN_ONE_LINE if begin.decode("utf-8", "replace")[end:].lstrip(" ,").startswith("{") else None
    goes_on = lines[0] == b"{" or lines[1].startswith((b'"', b"}", b"]"))
    return OBJECT if goes_on and not any(_is(_OBJECT, line) for line in lines[:-1]) else None


def _csv(lines: list[bytes]) -> Format | None:
    """Return CSV if lines have the same number of fields, more than one, and none could be an object."""
    if len(lines) < 2 or any(line.startswith((b"{", b"[")) for line in lines):
        return None
    texts = [line.decode("utf-8", "replace") for line in lines]
    for separator in ",;\t|":
        try:
            fields = {len(row) for row in csv.reader(texts, delimiter=separator)}
        except csv.Error:
            continue
        if len(fields) == 1 and fields.pop() > 1:
            option = "" if separator == "," else f', sep="{separator}"'.replace("\t", "\\t")
            return Format("CSV", _PANDAS % f"read_csv(sys.argv[1]{option})")
    return None


def _is(decoder: msgspec.json.Decoder[Any], line: bytes) -> bool:
    try:
        decoder.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
