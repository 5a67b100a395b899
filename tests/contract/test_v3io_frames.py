"""Tables to look up that v3io-frames writes are what they are without: by a client that stands for it, and by framesd.

framesd itself runs where MODELSTREAM_FRAMESD names its program (servers/v3io/README.md says how to build it).
"""

from __future__ import annotations

import math
import os
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from modelstream.clients.v3io import Container, V3ioAddress
from modelstream.errors import ConfigurationError, ModelstreamError, UnavailableError
from modelstream.tables import Tables, open_tables, v3io_frames
from modelstream.tables.v3io import V3ioLookupTable
from servers.v3io.process import V3ioServer
from tests.contract import framesd
from tests.contract.tables_contract import ODD_KEYS, ROWS, TablesContract, checkpoint, rows
from tests.contract.v3io_places import new_url, no_faults, server

__all__ = ["no_faults", "server"]

THIRD = 1 / 3
"""A float with more digits than V3IO keeps."""

needs_framesd = pytest.mark.skipif(
    not framesd.program(), reason=f"{framesd.PROGRAM} names no framesd (servers/v3io/README.md)"
)


@pytest.fixture(scope="module")
def service(server: V3ioServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The addresses of a framesd on the stand-in."""
    with framesd.running(framesd.program(), server.endpoint, tmp_path_factory.mktemp("framesd")) as addresses:
        yield addresses


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[framesd.Frames]:
    """The client that does without framesd."""
    import v3io_frames as client

    monkeypatch.setenv(v3io_frames.FRAMESD, "http://127.0.0.1:1")
    monkeypatch.setattr(client, "Client", framesd.Frames)
    monkeypatch.setattr(framesd.Frames, "written", [], raising=False)
    return framesd.Frames


@pytest.fixture(params=["fake", pytest.param("http", marks=needs_framesd), pytest.param("grpc", marks=needs_framesd)])
def writer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "fake":
        request.getfixturevalue("fake")
    else:
        monkeypatch.setenv(v3io_frames.FRAMESD, request.getfixturevalue("service")[request.param])
    return str(request.param)


@pytest.fixture
def url(server: V3ioServer) -> str:
    return new_url("tables")


@pytest.fixture
def tables(url: str) -> Iterator[Tables]:
    with open_tables(url) as tables:
        yield tables


def loaded(tables: Tables, values: Mapping[str, float | None]) -> None:
    kinds = (pa.string(), pa.float64())
    columns = [pa.array(column, kind) for column, kind in zip((values, values.values()), kinds, strict=True)]
    assert tables.lookup("enrichment").load([pa.record_batch(columns, names=["key", "value"])]) == len(values)


def scanned(tables: Tables) -> dict[str, float | None]:
    return {row["key"]: row["value"] for batch in tables.lookup("enrichment").scan() for row in batch.to_pylist()}


def bits(values: Any) -> list[bytes | None]:
    return [None if value is None else struct.pack("<d", value) for value in values]


def items(url: str) -> dict[str, Any]:
    """Return the items of a table as they are stored, by name."""
    container = Container(V3ioAddress.of(url))
    found = [item for page in container.scan("enrichment", "*,__name") for item in page if "key" in item]
    container.close()
    return {item.pop("__name")["S"]: item for item in found}


@pytest.mark.usefixtures("writer")
class TestLookupsWrittenByFrames:
    """What every table to look up promises."""

    test_values_in_the_order_of_the_keys = TablesContract.test_lookup_gives_values_in_the_order_of_the_keys
    test_last_value_of_a_key_holds = TablesContract.test_last_value_of_a_key_holds
    test_load_that_fails = TablesContract.test_load_that_fails_leaves_the_table_as_it_was
    test_odd_keys_apart = TablesContract.test_lookup_keeps_odd_keys_apart
    test_scan_in_the_order_of_keys = TablesContract.test_lookup_scans_in_the_order_of_its_keys
    test_tables_are_apart = TablesContract.test_lookup_tables_are_apart

    def test_values_come_back_to_the_bit(self, tables: Tables, url: str) -> None:
        some = [0.0, -0.0, 5.0, -7.5, 0.1, THIRD, 1e22, 1e23, 2.0**53 + 2, 123456789012.34, 1e300, -1e-300, math.pi]
        many = [None, math.nan, math.inf, -math.inf, 5e-324, *some]
        odd = [*ODD_KEYS, "a+b@c d", "=", "a.b", ".#schema", "k" * 255, "k" * 256]
        values = {f"k{number}": value for number, value in enumerate(many)} | dict.fromkeys(odd, 0.5)
        loaded(tables, values)
        found = scanned(tables)
        assert found.keys() == values.keys()
        assert bits(found[key] for key in values) == bits(values.values())
        with open_tables(url) as others:
            assert bits(others.lookup("enrichment").get_many(list(values))) == bits(values.values())
            assert others.lookup("enrichment").count() == len(values)

    def test_value_that_changes_by_less_than_v3io_keeps_is_the_new_one(self, tables: Tables) -> None:
        before = {"a": 71.25, "b": THIRD, "c": 1.0, "d": math.inf, "e": None, "f": 2.0}
        after = {"a": math.nextafter(71.25, 72), "b": 0.33333333333333, "c": None, "d": THIRD, "e": 1.0, "f": 2.0}
        for values in (before, after, before):
            loaded(tables, values)
            assert scanned(tables) == values

    def test_items_are_those_that_are_put_without(
        self, tables: Tables, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        values = {"10115": 71.25, "a b": THIRD, "c": None, "d": math.inf, "a.b": 1.0, "e": -0.0, "f": 1e300}
        loaded(tables, values)
        monkeypatch.delenv(v3io_frames.FRAMESD)
        other = new_url("tables")
        with open_tables(other) as others:
            loaded(others, values)
        assert items(url) == items(other)

    def test_load_that_is_repeated_changes_nothing(self, server: V3ioServer, tables: Tables) -> None:
        values = {str(number): number / 4 for number in range(500)} | {"x": THIRD, "y": None}
        loaded(tables, values)
        server.fail()
        loaded(tables, values)
        assert "PutItem" not in server.seen().calls
        assert scanned(tables) == values

    def test_empty_load_writes_nothing(self, server: V3ioServer, tables: Tables) -> None:
        loaded(tables, {})
        assert "PutItem" not in server.seen().calls
        assert scanned(tables) == {}

    def test_rows_of_several_requests_are_all_there(self, tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(v3io_frames, "ROWS_AT_ONCE", 7)
        values = {str(number): float(number) for number in range(50)}
        loaded(tables, values)
        assert scanned(tables) == values

    def test_outage_within_a_load_ends_when_it_is_repeated(self, server: V3ioServer, tables: Tables) -> None:
        values = {str(number): float(number) for number in range(200)} | {"x": THIRD}
        outages = 0
        server.fail(unavailable=0.02)
        for _ in range(1000):
            try:
                loaded(tables, values)
                break
            except UnavailableError as error:
                assert error.remedy
                outages += 1
        server.fail()
        assert outages
        assert scanned(tables) == values


def test_rows_go_by_frames_if_their_items_can_be_named_as_their_keys(
    fake: Any, server: V3ioServer, tables: Tables, url: str
) -> None:
    plain: dict[str, float | None] = {"10115": 71.25, "a b": THIRD, "c": None, "d": math.inf}
    odd: dict[str, float | None] = {"a.b": 1.0, "": 1.0, "ä": 1.0, "k" * 256: 1.0}
    loaded(tables, plain | odd)
    assert fake.written == [list(plain)]
    assert server.seen().calls["PutItem"] == len(plain) + len(odd)


def test_only_what_differs_is_written(fake: Any, tables: Tables) -> None:
    loaded(tables, {"a": 1.0, "b": 2.0, "c": None})
    fake.written.clear()
    loaded(tables, {"a": 1.0, "b": 3.0, "c": 4.0, "d": 5.0})
    assert fake.written == [["b", "c", "d"]]


def test_nothing_goes_by_frames_without_its_address(server: V3ioServer, url: str) -> None:
    code = f"""
import sys, pyarrow as pa
from modelstream.tables import open_tables
with open_tables({url!r}) as tables:
    tables.lookup("enrichment").load([pa.record_batch({{"key": ["a"], "value": [1.0]}})])
    assert tables.lookup("enrichment").get_many(["a"]) == [1.0]
print({{"v3io_frames", "grpc"}} & set(sys.modules))
"""
    environment = os.environ | server.environment
    environment.pop(v3io_frames.FRAMESD, None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")


def test_import_leaves_warnings_as_they_were() -> None:
    """In a process of its own: v3io-frames changes them when it is first imported."""
    code = """
import warnings
before = warnings.formatwarning
from modelstream.tables import v3io_frames
v3io_frames._import_frames()
assert warnings.formatwarning is before
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_service_of_another_v3io_is_told(fake: Any, tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "write", lambda *arguments, **options: None)
    with pytest.raises(ConfigurationError, match=r"v3io-frames at .*isn't there") as caught:
        loaded(tables, {"a": 1.0})
    assert "V3IO_API" in caught.value.remedy


@pytest.mark.parametrize(
    ("address", "kind", "says"),
    [
        ("http://127.0.0.1:1", UnavailableError, "refused"),
        ("127.0.0.1:1", UnavailableError, "onnect"),
        ("http://127.0.0.1:port", ConfigurationError, "is not an address"),
        ("http://", ConfigurationError, "is not an address"),
    ],
)
def test_service_that_is_not_there_is_told(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, address: str, kind: type[ModelstreamError], says: str
) -> None:
    monkeypatch.setenv(v3io_frames.FRAMESD, address)
    with pytest.raises(kind, match=says) as caught, warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loaded(tables, {"a": 1.0})
    assert v3io_frames.FRAMESD in caught.value.remedy


ANSWER = """write error: backend Write failed: Expected a 2xx response status code: HTTP/1.1 {0} Error
Date: Mon, 23 Nov 2026 09:28:00 GMT\r
Content-Type: application/json\r
\r
{{"ErrorCode":-11,"ErrorMessage":"why"}}
Request details:
GET /bigdata/secret HTTP/1.1
"""


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        (ANSWER.format(503), UnavailableError, "V3IO answered 503: .*why"),
        (ANSWER.format(429), UnavailableError, "V3IO answered 429"),
        (ANSWER.format(401), ConfigurationError, "V3IO answered 401"),
        (ANSWER.format(404), ConfigurationError, "V3IO answered 404"),
        ("write error: dial tcp4 127.0.0.1:1: connect: connection refused", UnavailableError, "refused"),
        ("write error: lookup v3io-webapi on 10.0.0.1:53: no such host", UnavailableError, "no such host"),
        ("write error: changing primary key is not allowed, old: k, new:key", ConfigurationError, "not allowed"),
    ],
    ids=["503", "429", "401", "404", "refused", "no host", "schema"],
)
def test_what_framesd_says_is_told_in_our_words(
    fake: Any, tables: Tables, monkeypatch: pytest.MonkeyPatch, text: str, kind: type[ModelstreamError], says: str
) -> None:
    import v3io_frames as client

    def refuse(*arguments: Any, **options: Any) -> None:
        raise client.Error(f"cannot call API - {text}")

    monkeypatch.setattr(fake, "write", refuse)
    with pytest.raises(kind, match=says) as caught:
        loaded(tables, {"a": 1.0})
    assert caught.value.remedy
    assert "secret" not in str(caught.value)
    assert ("V3IO_ACCESS_KEY" in caught.value.remedy) is ("401" in text)


@needs_framesd
class TestFramesd:
    """What framesd itself does."""

    @pytest.fixture(params=["http", "grpc"])
    def address(self, request: pytest.FixtureRequest, service: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv(v3io_frames.FRAMESD, service[request.param])
        return service[request.param]

    def read(self, address: str, url: str, table: str, **options: Any) -> Any:
        """Return a table as the data frame that v3io-frames gives, in the order of its index."""
        import v3io_frames as client

        place = V3ioAddress.of(url)
        reader = client.Client(address, container=place.container, should_check_version=False)
        return reader.read("kv", f"{place.path}/{table}", **options).sort_index()

    def test_table_is_written_by_framesd_with_nothing_printed(
        self, address: str, server: V3ioServer, tables: Tables, url: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            loaded(tables, {"a": 1.5, "b": THIRD, "c": None})
        assert capfd.readouterr() == ("", "")
        found = self.read(address, url, "enrichment")
        assert found["value"].dropna().to_dict() == pytest.approx({"a": 1.5, "b": THIRD}, rel=1e-14, abs=0)
        assert found.index.tolist() == ["a", "b", "c"]

    def test_features_are_read_by_frames_as_they_are_but_for_digits(
        self, address: str, tables: Tables, url: str
    ) -> None:
        stored = rows(
            ("a", 1, 1_700_000_000_000_000, "Köln", 5, True, 0.5, THIRD),
            ("b", 2, 1_600_000_000_000_000, "", 2**40, False, math.pi, -1e300),
            *((f"u{number:04d}", number, 0, "Ulm", number, True, number / 7, number / 3) for number in range(3000)),
        )
        features = tables.features(ROWS)
        features.commit(0, stored, checkpoint(0))
        found = self.read(address, url, "features")
        exact = pa.Table.from_batches(features.scan()).to_pandas().set_index("user")
        assert found.index.tolist() == exact.index.tolist()
        assert {*found.columns} == {*exact.columns, "_floats"}
        for name in ("applied", "age", "city", "member", "since"):
            assert found[name].tolist() == exact[name].tolist(), name
        for name in ("index", "bet_sum"):
            assert found[name].tolist() == pytest.approx(exact[name].tolist(), rel=1e-14, abs=0), name
        assert found["bet_sum"].tolist() != exact["bet_sum"].tolist(), "what frames gives isn't exact: we scan"

    def test_nothing_of_a_row_is_read_as_it_is(self, address: str, tables: Tables, url: str) -> None:
        features = tables.features(ROWS)
        features.commit(0, rows(("a", 1, None, None, None, None, None, math.nan), ("b", 2, 1.0)), checkpoint(0))
        found = self.read(address, url, "features")
        assert found.drop(columns="_floats").isna().sum(axis=1).to_dict() == {"a": 6, "b": 5}

    def test_v3io_that_framesd_can_not_reach_is_an_outage(
        self, address: str, server: V3ioServer, tables: Tables, url: str
    ) -> None:
        with closing(Container(V3ioAddress.of(url))) as container:
            server.kill()
            try:
                with pytest.raises(UnavailableError, match="v3io-frames at"):
                    v3io_frames.write(container, "enrichment", "key", ["value"], {"a": {"value": 1.0}})
            finally:
                server.start()
            assert V3ioLookupTable(container, "enrichment").count() == 0
            v3io_frames.write(container, "enrichment", "key", ["value"], {"a": {"value": 1.0}})
            assert V3ioLookupTable(container, "enrichment").get_many(["a"]) == [1.0]

    def test_container_that_is_not_there_is_named_by_its_answer(self, address: str, server: V3ioServer) -> None:
        container = Container(V3ioAddress.of("v3io://nowhere/tables"))
        with pytest.raises(ConfigurationError, match=r"404.*Container not found"):
            v3io_frames.write(container, "enrichment", "key", ["value"], {"a": {"value": 1.0}})


def test_program_that_is_named_is_there() -> None:
    assert not framesd.program() or Path(framesd.program()).is_file()
