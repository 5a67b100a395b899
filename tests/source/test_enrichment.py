"""A table to look up comes in as its file says, or the file's line is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelstream.errors import ConfigurationError
from modelstream.source.enrichment import load_enrichment, load_enrichment_files, read_enrichment
from modelstream.tables import open_tables
from modelstream.use_case.declared import FieldType
from modelstream.use_case.file import load_use_case
from tests.events.payments import PAYMENTS

GOLDEN = Path(__file__).parents[1] / "golden"
CHURN = load_use_case(Path(__file__).parents[2] / "use_cases" / "churn.yaml")
NAMES = [("area", "wealth")]


def rows(tmp_path: Path, content: bytes, kind: FieldType = FieldType.IDENTIFIER) -> dict[str, list[object]]:
    file = tmp_path / "areas.csv"
    file.write_bytes(content)
    found: dict[str, list[object]] = read_enrichment(file, NAMES, kind).to_pydict()
    return found


def test_the_reference_table_is_loaded(tmp_path: Path) -> None:
    with open_tables(f"sqlite://{tmp_path}") as tables:
        assert load_enrichment(GOLDEN / "enrichment.csv", CHURN, tables) == 89_999
        assert tables.lookup("enrichment").get_many(["10000", "99998", "9999"]) == [3.0, 6.0, None]


@pytest.mark.parametrize(
    "content",
    [
        b"area,wealth\n1,2.5\nx y,-1e3\n0012,\n",
        b"area,wealth\r\n1,2.5\r\nx y,-1e3\r\n0012,\r\n",
        b"\xef\xbb\xbfarea,wealth\n1,2.5\nx y,-1e3\n0012,",
        b'wealth , other,area\n2.5,"a,\nb", 1\n\n-1e3,,"x y"\n ,,0012\n\n',
        b"area,wealth\n1,2.5\n1,2.5\nx y,-1e3\n0012,\n",
    ],
)
def test_columns_are_found_by_name_and_values_may_be_empty(tmp_path: Path, content: bytes) -> None:
    assert rows(tmp_path, content) == {"key": ["1", "x y", "0012"], "value": [2.5, -1000.0, None]}


def test_a_table_that_was_written_is_loaded(tmp_path: Path) -> None:
    assert rows(tmp_path, b'"key","value"\n"1",4\n') == {"key": ["1"], "value": [4.0]}


@pytest.mark.parametrize(
    ("key", "identifier", "text"),
    [
        ("10000.0", "10000", "10000.0"),
        (" 10000 ", "10000", "10000"),
        ("-5.00", "-5", "-5.00"),
        ("02139", "02139", "02139"),
        ("02139.0", "02139.0", "02139.0"),
        ("1.50", "1.50", "1.50"),
        ("1e4", "1e4", "1e4"),
        ("N1 1AA", "N1 1AA", "N1 1AA"),
    ],
)
def test_a_key_is_what_events_of_the_fields_type_have(tmp_path: Path, key: str, identifier: str, text: str) -> None:
    content = f"area,wealth\n{key},1\n".encode()
    assert rows(tmp_path, content, FieldType.IDENTIFIER)["key"] == [identifier]
    assert rows(tmp_path, content, FieldType.KEY)["key"] == [identifier]
    assert rows(tmp_path, content, FieldType.TEXT)["key"] == [text]


def test_two_writings_of_one_key_with_different_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="line 3: area 7 has a different value"):
        rows(tmp_path, b"area,wealth\n7,1\n7.0,2\n")


def test_a_table_may_have_no_rows(tmp_path: Path) -> None:
    assert rows(tmp_path, b"area,wealth\n") == {"key": [], "value": []}


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        (b"", 1, "the columns are nothing; it needs 'area' and 'wealth'"),
        (b"area;wealth\n1;2\n", 1, "the columns are area;wealth; it needs"),
        (b"area,wealth\n1,2\n3\n", 3, "1 columns, but the first line has 2"),
        (b"area,wealth\n1,2\n\n3,4,5\n", 4, "3 columns"),
        (b"area,wealth\n1,high\n", 2, "'high' is not a finite number"),
        (b"area,wealth\n1,nan\n", 2, "'nan'"),
        (b"area,wealth\n1,inf\n", 2, "'inf'"),
        (b"area,wealth\n1,1_0\n", 2, "'1_0'"),
        (b"area,wealth\n ,1\n", 2, "area is empty"),
        (b"area,wealth\n1,2\n2,3\n1,4\n", 4, "area 1 has a different value"),
        (b"area,wealth\n1,2\n\xff,3\n", 3, "not UTF-8"),
        (b'area,wealth\n1,2\n"3" x,3\n', 3, "expected after"),
        (b"area,wealth\n1,2\n3,\x004\n", 3, "NUL|finite number"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path, content: bytes, line: int, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as refused:
        rows(tmp_path, content)
    assert f"areas.csv, line {line}:" in str(refused.value)
    assert refused.value.remedy


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    for name, problem in (("none.csv", "No such file"), (".", "Is a directory")):
        with pytest.raises(ConfigurationError, match=problem) as refused:
            read_enrichment(tmp_path / name, NAMES, FieldType.TEXT)
        assert str(tmp_path) in str(refused.value)


# Several tables.


def test_a_file_goes_into_the_table_that_its_columns_name(tmp_path: Path) -> None:
    terminals, shops, keys = (tmp_path / name for name in ("terminals.csv", "shops.csv", "keys.csv"))
    terminals.write_text("merchant,merchant_risk\n7.0,0.5\n")
    shops.write_text("shop_risk,shop\n0.25,7.0\n")
    keys.write_text("key,value\n8,1\n")
    with open_tables(f"sqlite://{tmp_path}") as tables:
        assert load_enrichment_files([str(terminals), shops], PAYMENTS, tables) == ["terminals", "shops"]
        assert tables.lookup("terminals").get_many(["7"]) == [0.5]
        assert tables.lookup("shops").get_many(["7.0", "7"]) == [
            0.25,
            None,
        ]  # looked up by a text, which stays as it is
        terminals.write_text("merchant,merchant_risk\n7,0.75\n")
        with pytest.raises(ConfigurationError, match="columns don't say for which of the tables terminals, shops"):
            load_enrichment_files([terminals, keys], PAYMENTS, tables)
        assert load_enrichment(keys, PAYMENTS, tables, "shops") == 1
        assert tables.lookup("shops").get_many(["8"]) == [1.0]
        assert tables.lookup("terminals").get_many(["7"]) == [0.5], "no file is loaded if one is wrong"
