"""Input that can hold no event is recognised by its first bytes; what may hold some is not."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from modelstream.source.formats import FIRST_BYTES, wrong_format

EVENT = b'{"id": "u1", "n": 1}'
LINES = EVENT + b"\n" + b'{"id": "u2", "n": null}' + b"\n"
FRAME = pd.DataFrame({"id": ["u1", "u2"], "n": [1.0, 2.5]})


def parquet() -> bytes:
    return bytes(FRAME.to_parquet())


def feather() -> bytes:
    out = io.BytesIO()
    FRAME.to_feather(out)
    return out.getvalue()


def archive(name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr(name, LINES)
    return out.getvalue()


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        made.addfile(tarfile.TarInfo("events.ndjson"))
    return out.getvalue()


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (gzip.compress(LINES, mtime=0), "gzip"),
        (bz2.compress(LINES), "bzip2"),
        (lzma.compress(LINES), "xz"),
        (b"\x28\xb5\x2f\xfd\x24", "zstd"),
        (archive("events.ndjson"), "a zip archive"),
        (archive("[Content_Types].xml"), "an Excel file"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00", "an Excel file"),
        (tar(), "a tar archive"),
        (parquet(), "Parquet"),
        (feather(), "Arrow (Feather)"),
        (b"ORC\x08\x03", "ORC"),
        (b"Obj\x01\x04\x14avro.codec", "Avro"),
        (b"SQLite format 3\x00\x10", "a SQLite database"),
        (b"\x7fELF\x02\x01\x01\x00\x00", "a binary file"),
        *((LINES.decode().encode(encoding), "text in UTF-16") for encoding in ("utf-16", "utf-16-le", "utf-16-be")),
        (LINES.decode().encode("utf-32"), "text in UTF-32"),
        (b"id,n\nu1,1\nu2,2\n", "CSV"),
        (b'\xef\xbb\xbfid;n\r\n"a;b";1\r\n', "CSV"),
        (b"id\tn\nu1\t1\n", "CSV"),
        (b"[" + EVENT + b"]", "a JSON array"),
        (b"  [\n  " + EVENT + b",\n  " + EVENT + b"\n]\n", "a JSON array"),
        (b"[]", "a JSON array"),
        (b"[" + EVENT + b", {", "a JSON array"),
        (b'{\n  "id": "u1",\n  "n": {\n    "m": 1\n  }\n}\n', "JSON over several lines"),
        (b'{"id": "u1",\n "n": 1}\n{"id": "u2",\n "n": 1}\n', "JSON over several lines"),
        (EVENT + EVENT, "JSON objects without line breaks in between"),
        (EVENT + b", " + EVENT + b"\n", "JSON objects without line breaks in between"),
        (b"<!DOCTYPE html>\n<html>", "XML or HTML"),
        (b"<?xml version='1.0'?><a/>", "XML or HTML"),
    ],
)
def test_what_is_no_json_lines_is_told_by_its_first_bytes(first: bytes, name: str) -> None:
    found = wrong_format(first)
    assert found is not None and found.name == name


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"\n",
        b"\xef\xbb\xbf" + LINES,
        LINES,
        EVENT,
        EVENT[:9],
        b'{"id": "u1"\n' + LINES,
        b"{\n" + LINES,
        b"# made, by hand\n# twice, at least\n" + LINES,
        b"[" + EVENT + b"]\n" + LINES,
        b"[2026-11-30 12:00] started\n" + LINES,
        b"[1, 2]\n",
        b"not json\n",
        b"text\nmore text\n",
        b"id,n\n",
        b"12",
        b"\x00\n" + LINES,
        b'{"id": "u\x00"}\n' + LINES,
        b'{"a":' * 100_000,
        b"ORCHID\n" + LINES,
    ],
)
def test_what_may_hold_events_is_read(first: bytes) -> None:
    assert wrong_format(first[:FIRST_BYTES]) is None


def made(first: bytes, folder: Path) -> bytes:
    """Return what the command prints that is given for a file."""
    found = wrong_format(first)
    assert found is not None
    file = folder / "my events"
    file.write_bytes(first)
    remedy = found.way_out(str(file), "cat", sys.executable)
    command = remedy.removeprefix("make JSON lines of it: ")
    return subprocess.run(command, shell=True, check=True, capture_output=True, timeout=60).stdout


@pytest.mark.parametrize(
    ("first", "tool"),
    [
        (gzip.compress(LINES, mtime=0), "gzip"),
        (archive("events.ndjson"), "unzip"),
        (LINES.decode().encode("utf-16"), "iconv"),
        (LINES.decode().encode("utf-16-be"), "iconv"),
        (b"[" + EVENT + b', {"id": "u2", "n": null}]', "jq"),
        (EVENT + b'{"id": "u2", "n": null}', "jq"),
    ],
)
def test_the_command_for_a_format_prints_its_lines(first: bytes, tool: str, tmp_path: Path) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"there is no {tool}")
    printed = made(first, tmp_path)
    assert printed.replace(b" ", b"") == LINES.replace(b" ", b"")


def test_the_command_for_a_table_prints_its_rows(tmp_path: Path) -> None:
    printed = made(b"id;at\nu1;2026-01-02 03:04:05\nu2;\n", tmp_path)
    assert printed.splitlines()[:2] == [b'{"id":"u1","at":"2026-01-02 03:04:05"}', b'{"id":"u2","at":null}']
