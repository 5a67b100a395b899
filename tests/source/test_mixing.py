"""A file is read once, whatever it is called; several different files may be read one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelstream.errors import ConfigurationError
from modelstream.source.mixing import check_file, check_generated, check_read
from modelstream.source.readers import open_file
from modelstream.tables import Input, InputTable, open_tables


@pytest.fixture
def inputs(tmp_path: Path) -> Iterator[InputTable]:
    with open_tables(f"sqlite://{tmp_path}/tables") as tables:
        yield tables.inputs()


def read(path: Path, inputs: InputTable, upto: int | None = None) -> None:
    """Note a file as read, to its end or only so many blocks of 4 bytes."""
    source = open_file(path, "user", inputs, block=4)
    reached = None
    for number, chunk in enumerate(source.chunks(lambda: False), 1):
        reached = chunk.progress_at(len(chunk.lines))
        if number == upto:
            break
    assert reached is not None
    inputs.save_progress(source.origin, reached.lines, reached.bytes, reached.digest, reached.finished)


FIRST, SECOND = b'{"a": 1}\n{"a": 2}\n', b'{"b": 1}\n{"b": 2}\n{"b": 3}\n'


@pytest.mark.parametrize(
    ("content", "upto", "again"),
    [
        (FIRST, None, FIRST),
        (FIRST, None, FIRST + SECOND),
        (FIRST, 4, FIRST),
        (FIRST, 4, FIRST + SECOND),
        (FIRST[:-1], None, FIRST + SECOND),
    ],
    ids=["the same", "grown", "half read", "half read and grown", "without the last line break"],
)
def test_file_under_a_second_name_is_refused(
    tmp_path: Path, inputs: InputTable, content: bytes, upto: int | None, again: bytes
) -> None:
    before, now = tmp_path / "events.ndjson", tmp_path / "moved" / "events.ndjson"
    now.parent.mkdir()
    before.write_bytes(content)
    read(before, inputs, upto)
    now.write_bytes(again)
    with pytest.raises(
        ConfigurationError, match=f"{now} begins with all that was read from {before}.*count twice"
    ) as told:
        check_file(now, inputs.all())
    assert "old name" in told.value.remedy and "--data" in told.value.remedy
    before.write_bytes(again)
    check_file(before, inputs.all())  # the same name: it goes on


@pytest.mark.parametrize("other", [SECOND, FIRST[:-1] + b" \n", FIRST[:9], SECOND + FIRST, b""])
def test_different_files_are_read_one_after_the_other(tmp_path: Path, inputs: InputTable, other: bytes) -> None:
    for name, content in (("one", FIRST), ("three", SECOND * 3)):
        (tmp_path / name).write_bytes(content)
        read(tmp_path / name, inputs)
    (tmp_path / "two").write_bytes(other)
    check_file(tmp_path / "two", inputs.all())


def test_file_that_nothing_was_read_of_hinders_no_other(tmp_path: Path, inputs: InputTable) -> None:
    (tmp_path / "one").write_bytes(FIRST)
    open_file(tmp_path / "one", "user", inputs)
    (tmp_path / "two").write_bytes(FIRST)
    check_file(tmp_path / "two", inputs.all())


def test_file_that_is_missing_is_told(tmp_path: Path, inputs: InputTable) -> None:
    with pytest.raises(ConfigurationError, match="can't be read: No such file"):
        check_file(tmp_path / "none", inputs.all())


def test_events_from_standard_input_are_not_mixed_with_generated_ones() -> None:
    stdin, made = Input(origin="stdin:1", kind="stdin"), Input(origin="generator:odd", kind="generator")
    check_read([stdin])
    with pytest.raises(ConfigurationError, match="came from standard input: generated ones would be mixed"):
        check_generated("generator:seed=1,users=20,events_per_user=9", [stdin])
    with pytest.raises(ConfigurationError, match="were generated"):
        check_read([stdin, made])
