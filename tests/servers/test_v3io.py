"""The V3IO stand-in refuses, counts and remembers as V3IO does, where v3io-py's own tests would not notice."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from servers.v3io import expressions
from servers.v3io.errors import ApiError
from servers.v3io.process import V3ioServer
from servers.v3io.values import Time, read_array, write_array

Answer = tuple[int, dict[str, Any], dict[str, str]]


class Api:
    """The web API by plain HTTP."""

    def __init__(self, server: V3ioServer) -> None:
        self.server = server
        self.headers = {"X-v3io-session-key": "any"}

    def call(self, function: str, path: str, body: Any = None, method: str = "PUT", **headers: str) -> Answer:
        given = self.headers | headers | ({"X-v3io-function": function} if function else {})
        data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        request = Request(f"{self.server.endpoint}/bigdata/{path}", data, given, method=method)
        try:
            with urlopen(request, timeout=10) as response:
                answered, status, found = response.read(), response.status, dict(response.headers)
        except HTTPError as error:
            answered, status, found = error.read(), error.code, dict(error.headers)
        return status, json.loads(answered) if answered[:1] == b"{" else {"body": answered}, found

    def put(self, path: str, condition: str = "", mode: str = "", **item: Any) -> Answer:
        body: dict[str, Any] = {"Item": item}
        if condition:
            body["ConditionExpression"] = condition
        if mode:
            body["UpdateMode"] = mode
        return self.call("PutItem", path, body)

    def get(self, path: str, names: str = "*") -> dict[str, Any]:
        status, answer, _ = self.call("GetItem", path, {"AttributesToGet": names})
        return answer["Item"] if status == 200 else answer

    def send(self, *records: dict[str, Any], stream: str = "s") -> dict[str, Any]:
        encoded = [{**record, "Data": base64.b64encode(record["Data"]).decode()} for record in records]
        status, answer, _ = self.call("PutRecords", f"{stream}/", {"Records": encoded}, "POST")
        return answer if status == 200 else {"status": status}

    def receive(self, shard: int, limit: int = 100, **seek: Any) -> list[tuple[int, bytes]] | int:
        """Return (sequence number, data) from where a seek leads to, or the status that refuses it."""
        status, answer, _ = self.call("SeekShard", f"s/{shard}", seek)
        if status != 200:
            return status
        body = {"Location": answer["Location"], "Limit": limit}
        status, answer, _ = self.call("GetRecords", f"s/{shard}", body)
        if status != 200:
            return status
        return [(record["SequenceNumber"], base64.b64decode(record["Data"])) for record in answer["Records"]]


@pytest.fixture(scope="module")
def server() -> Iterator[V3ioServer]:
    with V3ioServer() as server:
        yield server


@pytest.fixture
def api(server: V3ioServer) -> Iterator[Api]:
    server.fail()
    api = Api(server)
    api.call("CreateStream", "s/", {"ShardCount": 3, "RetentionPeriodHours": 1}, "POST")
    yield api
    server.fail()
    for path in ("s/0", "s/1", "s/2", "s/3", "s/note", "s/", "t/a", "t/b", "t/"):
        api.call("", path, method="DELETE")


N5, N6 = {"N": "5"}, {"N": "6"}


class TestItems:
    def test_condition_that_is_false_changes_nothing(self, api: Api) -> None:
        assert api.put("t/a", n=N5)[0] == 200
        for condition in ("n < 5", "exists(m)", "m == 5", "n == '5'", "n == true", "not(exists(n))", "__size > 0"):
            status, answer, _ = api.put("t/a", condition, n=N6)
            assert (status, answer["ErrorCode"]) == (400, -16777244), condition
        assert api.get("t/a") == {"n": N5}
        for condition in ("n <= 5", "not(exists(m)) or m < 1", "NOT (m == 5)", "n in (4, 5)", "__obj_type == 1"):
            assert api.put("t/a", condition, n=N5)[0] == 200, condition

    def test_condition_on_an_item_that_is_not_there(self, api: Api) -> None:
        assert api.put("t/a", "n < 5", n=N5)[0] == 400
        assert api.put("t/a", "__mtime_secs > 0", n=N5)[0] == 400
        assert api.call("GetItem", "t/a", {"AttributesToGet": "*"})[0] == 404
        assert api.put("t/a", "(not(exists(n))) or (n < 5)", n=N5)[0] == 200

    def test_verifier_of_an_answer_is_a_condition_that_holds_until_the_next_write(self, api: Api) -> None:
        verifier = api.put("t/a", n=N5)[2]["X-v3io-transaction-verifier"]
        assert api.call("GetItem", "t/a", {"AttributesToGet": "*"})[2]["X-v3io-transaction-verifier"] == verifier
        assert api.put("t/a", verifier, n=N6)[0] == 200
        assert api.put("t/a", verifier, n=N6)[0] == 400
        seconds, nanoseconds = (api.get("t/a", f"__mtime_{part}")[f"__mtime_{part}"]["N"] for part in ("secs", "nsecs"))
        assert api.put("t/a", f"(__mtime_nsecs == {nanoseconds}) AND (__mtime_secs == {seconds})", n=N5)[0] == 200

    def test_update_modes(self, api: Api) -> None:
        api.put("t/a", n=N5, m=N5)
        api.put("t/a", mode="CreateOrReplaceAttributes", n=N6)
        assert api.get("t/a") == {"n": N6, "m": N5}
        api.put("t/a", n=N5)
        assert api.get("t/a") == {"n": N5}
        status, answer, _ = api.put("t/a", mode="CreateNewItemOnly", n=N6)
        assert (status, answer["ErrorCode"]) == (400, -369098809)
        assert api.put("t/b", mode="CreateNewItemOnly", n=N6)[0] == 200

    def test_update_expression_is_done_as_a_whole_or_not(self, api: Api) -> None:
        api.put("t/a", n=N5)
        body = {"UpdateExpression": "SET n=n+1; m=missing+1", "UpdateMode": "CreateOrReplaceAttributes"}
        assert api.call("UpdateItem", "t/a", body, "POST")[0] == 400
        assert api.get("t/a") == {"n": N5}
        body = {"UpdateExpression": "b1=max(if_not_exists(b1,-1),7);n=n+1", "ConditionExpression": "n == 5"}
        assert [api.call("UpdateItem", "t/a", body, "POST")[0] for _ in range(2)] == [200, 400]
        assert api.get("t/a") == {"n": N6, "b1": {"N": "7"}}

    def test_what_can_not_be_stored_is_refused(self, api: Api) -> None:
        for name, value in (
            ("__name", {"S": "x"}),
            ("a-b", N5),
            ("n", {"N": 5}),
            ("n", {"N": "nan"}),
            ("n", {"N": "1e999"}),
            ("n", {"N": str(1 << 63)}),
            ("n", {"S": "x" * 61_200}),
            ("n", {"S": "a\0b"}),
            ("n", {"S": None}),
            ("n", {"BLOB": "YQ=="}),
            ("n", {"B": "?"}),
            ("n", {}),
        ):
            assert api.call("PutItem", "t/a", {"Item": {name: value}})[0] == 400, (name, value)
        assert api.put(f"t/{'x' * 256}", n=N5)[0] == 400

    def test_hidden_attributes_are_kept_and_not_among_all(self, api: Api) -> None:
        api.put("t/a", n=N5, __g_committed_sequence_number=N6)
        assert api.get("t/a") == {"n": N5}
        assert api.get("t/a", "n,__g_committed_sequence_number,nothing") == {
            "n": N5,
            "__g_committed_sequence_number": N6,
        }
        assert {"__name", "__size", "__mtime_secs", "n"} <= set(api.get("t/a", "**"))

    def test_number_keeps_fifteen_digits(self, api: Api) -> None:
        api.put("t/a", x={"N": repr(1 / 3)}, n={"N": str(2**53 + 1)})
        assert api.get("t/a") == {"x": {"N": "0.333333333333333"}, "n": {"N": str(2**53 + 1)}}

    @pytest.mark.parametrize("options", [{}, {"Limit": 7}, {"TotalSegment": 3}])
    @pytest.mark.parametrize("empty_pages", [False, True])
    def test_pages_of_a_scan_hold_every_item_once(self, api: Api, options: dict[str, Any], empty_pages: bool) -> None:
        for number in range(50):
            api.put(f"scanned/k{number}.{number % 3}", n={"N": str(number)})
        api.server.fail(empty_pages=empty_pages)
        found: list[int] = []
        for segment in range(options.get("TotalSegment", 1)):
            marker: dict[str, str] = {}
            while True:
                body = {"AttributesToGet": "n", "Segment": segment, **options, **marker}
                _, answer, _ = api.call("GetItems", "scanned/", body)
                found += [int(item["n"]["N"]) for item in answer["Items"]]
                assert len(answer["Items"]) <= options.get("Limit", 1000)
                if answer["LastItemIncluded"] == "TRUE":
                    break
                marker = {"Marker": answer["NextMarker"]}
        assert sorted(found) == list(range(50))

    def test_range_of_a_sharding_key(self, api: Api) -> None:
        for name in ("k.a", "k.b", "k.c", "kk.b", "k"):
            api.put(f"ranged/{name}", n=N5)
        body = {"AttributesToGet": "__name", "ShardingKey": "k", "SortKeyRangeStart": "b", "SortKeyRangeEnd": "c"}
        assert api.call("GetItems", "ranged/", body)[1]["Items"] == [{"__name": {"S": "k.b"}}]
        assert api.call("GetItems", "ranged/", {**body, "TotalSegment": 2, "Segment": 0})[0] == 400


class TestStreams:
    def test_sequence_numbers_count_from_one_in_each_shard(self, api: Api) -> None:
        answer = api.send(*({"Data": b"%d" % number, "ShardId": number % 2} for number in range(6)))
        assert [(r["ShardId"], r["SequenceNumber"]) for r in answer["Records"]] == [
            (0, 1),
            (1, 1),
            (0, 2),
            (1, 2),
            (0, 3),
            (1, 3),
        ]
        assert api.receive(0, Type="EARLIEST") == [(1, b"0"), (2, b"2"), (3, b"4")]
        assert api.receive(1, Type="EARLIEST") == [(1, b"1"), (2, b"3"), (3, b"5")]

    def test_seek_is_exact(self, api: Api) -> None:
        api.send(*({"Data": b"%d" % number, "ShardId": 0} for number in (1, 2, 3)))
        for number in (1, 2, 3, 4):
            found = api.receive(0, Type="SEQUENCE", StartingSequenceNumber=number)
            assert found == [(left, b"%d" % left) for left in range(number, 4)]
        for number in (0, 5, -1):
            assert api.receive(0, Type="SEQUENCE", StartingSequenceNumber=number) == 400
        assert api.receive(0, Type="LATEST") == []
        assert api.receive(0, Type="TIME", TimestampSec=0, TimestampNSec=0) == api.receive(0, Type="EARLIEST")
        assert api.receive(0, Type="TIME", TimestampSec=1 << 40, TimestampNSec=0) == []
        assert api.receive(0, Type="TIME", TimestampSec=0) == 400

    def test_seek_by_time_finds_the_first_that_is_as_young(self, api: Api) -> None:
        for number in (1, 2, 3):
            api.send({"Data": b"%d" % number, "ShardId": 0})
        _, answer, _ = api.call("SeekShard", "s/0", {"Type": "EARLIEST"})
        _, answer, _ = api.call("GetRecords", "s/0", {"Location": answer["Location"]})
        second = answer["Records"][1]
        moment = {"TimestampSec": second["ArrivalTimeSec"], "TimestampNSec": second["ArrivalTimeNSec"]}
        assert api.receive(0, Type="TIME", **moment) == [(2, b"2"), (3, b"3")]
        moment["TimestampNSec"] += 1
        assert api.receive(0, Type="TIME", **moment) == [(3, b"3")]

    def test_shard_is_not_there_before_its_first_record(self, api: Api) -> None:
        assert api.receive(0, Type="EARLIEST") == 404
        assert api.call("GetItem", "s/0", {"AttributesToGet": "__last_sequence_num"})[0] == 404
        assert api.put("s/0", n=N5)[0] == 400
        api.send({"Data": b"a", "ShardId": 0})
        assert api.get("s/0", "__last_sequence_num,__obj_type") == {
            "__last_sequence_num": {"N": "1"},
            "__obj_type": {"N": "3"},
        }
        assert (
            api.put("s/0", "__obj_type == 3", "CreateOrReplaceAttributes", __g_committed_sequence_number=N5)[0] == 200
        )
        assert api.receive(0, Type="EARLIEST") == [(1, b"a")]
        assert api.receive(3, Type="EARLIEST") == 400

    def test_bad_record_fails_alone(self, api: Api) -> None:
        answer = api.send(
            {"Data": b"a", "ShardId": 0}, {"Data": b"b", "ShardId": 9}, {"Data": bytes((1 << 20) + 1), "ShardId": 0}
        )
        assert answer["FailedRecordCount"] == 2
        assert ["ErrorCode" in record for record in answer["Records"]] == [False, True, True]
        assert api.receive(0, Type="EARLIEST") == [(1, b"a")]

    def test_too_many_records_or_bytes_append_nothing(self, api: Api) -> None:
        assert api.send(*({"Data": b"a", "ShardId": 0} for _ in range(1001))) == {"status": 400}
        assert api.send(*({"Data": bytes(800_000), "ShardId": 0} for _ in range(10))) == {"status": 400}
        assert api.receive(0, Type="EARLIEST") == 404
        assert api.send(*({"Data": b"a", "ShardId": 0} for _ in range(1000)))["FailedRecordCount"] == 0

    def test_records_without_a_shard_go_round_the_stream(self, api: Api) -> None:
        answer = api.send(*({"Data": b"a"} for _ in range(4)), {"Data": b"k", "PartitionKey": "k"})
        assert [record["ShardId"] for record in answer["Records"][:4]] == [0, 1, 2, 0]
        keyed = {
            record["ShardId"] for _ in range(3) for record in api.send({"Data": b"", "PartitionKey": "k"})["Records"]
        }
        assert keyed == {answer["Records"][4]["ShardId"]}

    def test_location_of_a_shard_is_of_no_other(self, api: Api) -> None:
        api.send({"Data": b"a", "ShardId": 0}, {"Data": b"b", "ShardId": 1})
        location = api.call("SeekShard", "s/0", {"Type": "EARLIEST"})[1]["Location"]
        for path, given in (("s/1", location), ("s/0", "x"), ("s/0", "")):
            status, answer, _ = api.call("GetRecords", path, {"Location": given})
            assert status == 400
            assert "IllegalLocationException" in answer["ErrorMessage"]

    def test_records_are_deleted_after_the_retention_and_their_locations_with_them(self, api: Api) -> None:
        api.send({"Data": b"old", "ShardId": 0})
        location = api.call("SeekShard", "s/0", {"Type": "EARLIEST"})[1]["Location"]
        api.server.fail(clock_ahead_seconds=3601)
        api.send({"Data": b"young", "ShardId": 0})
        assert api.receive(0, Type="EARLIEST") == [(2, b"young")]
        status, answer, _ = api.call("GetRecords", "s/0", {"Location": location})
        assert (status, "IllegalLocationException" in answer["ErrorMessage"]) == (400, True)
        assert api.receive(0, Type="SEQUENCE", StartingSequenceNumber=1) == 400

    def test_answer_is_at_most_ten_megabytes(self, api: Api) -> None:
        for _ in range(10):
            api.send({"Data": bytes(1_000_000), "ShardId": 0})
        found = api.receive(0, Type="EARLIEST")
        assert isinstance(found, list)
        assert [number for number, _ in found] == list(range(1, 8))

    def test_stream_can_grow_and_not_shrink_or_be_made_twice(self, api: Api) -> None:
        assert api.call("CreateStream", "s/", {"ShardCount": 3}, "POST")[0] == 409
        assert api.call("UpdateStream", "s/", {"ShardCount": 2}, "POST")[0] == 400
        assert api.call("UpdateStream", "s/", {"ShardCount": 4}, "POST")[0] == 204
        assert api.call("DescribeStream", "s/")[1] == {"ShardCount": 4, "RetentionPeriodHours": 1}
        assert api.send({"Data": b"a", "ShardId": 3})["FailedRecordCount"] == 0
        assert api.call("DescribeStream", "t/")[0] == 404

    def test_folder_that_is_not_empty_stays(self, api: Api) -> None:
        api.put("s/note", n=N5)
        assert api.call("", "s/", method="DELETE")[0] == 409
        assert api.call("", "s/note", method="DELETE")[0] == 204
        assert api.call("", "s/", method="DELETE")[0] == 204
        assert api.call("", "s/", method="DELETE")[0] == 404


class TestServer:
    def test_everything_is_there_after_a_kill(self, tmp_path: Path) -> None:
        server = V3ioServer(tmp_path)
        server.start()
        api = Api(server)
        api.call("CreateStream", "s/", {"ShardCount": 2, "RetentionPeriodHours": 5}, "POST")
        api.send({"Data": b"a", "ShardId": 0, "PartitionKey": "k"}, {"Data": b"b", "ShardId": 1})
        verifier = api.put("t/a", n=N5, at={"TS": "5:6"}, b={"B": "AAE="})[2]["X-v3io-transaction-verifier"]
        api.put("t/gone", n=N5)
        api.call("", "t/gone", method="DELETE")
        api.call("", "o/x", b"body")
        location = api.call("SeekShard", "s/0", {"Type": "LATEST"})[1]["Location"]
        server.kill()
        with server.journal.open("ab") as journal:
            journal.write(b"\x40\0\0\0 an entry that was cut")
        server.start()
        assert api.send({"Data": b"c", "ShardId": 0})["Records"] == [{"SequenceNumber": 2, "ShardId": 0}]
        assert api.call("GetRecords", "s/0", {"Location": location})[1]["Records"][0]["SequenceNumber"] == 2
        assert api.get("t/a") == {"n": N5, "at": {"TS": "5:6"}, "b": {"B": "AAE="}}
        assert api.put("t/a", verifier, n=N6)[0] == 200
        assert api.call("GetItem", "t/gone", {"AttributesToGet": "*"})[0] == 404
        assert api.call("", "o/x", method="GET")[1] == {"body": b"body"}
        server.kill()
        server.start()
        assert api.get("t/a") == {"n": N6}
        server.stop()

    def test_request_without_a_key_is_refused(self, api: Api) -> None:
        api.headers = {}
        assert api.put("t/a", n=N5)[0] == 401
        api.headers = {"Authorization": "Basic YTpi"}
        assert api.put("t/a", n=N5)[0] == 200

    def test_lost_answer_was_done(self, api: Api) -> None:
        api.server.fail(drop_answers=1.0)
        with contextlib.suppress(ConnectionError):
            api.put("t/a", n=N5)
        api.server.fail()
        assert api.get("t/a") == {"n": N5}


class TestExpressions:
    @pytest.mark.parametrize(
        ("expression", "expected"),
        [
            ("age > 15", False),
            ("age > 15 or name == 'ann' and male", False),
            ("(age > 5 or missing) and name == 'ann'", True),
            ("NOT(age IN (1, 2, 9)) or starts(name, 'an')", True),
            ("at == 5:6 and at < 5:7", True),
            ("`age` == 9 and age % 2 == 1 and -age < 0", True),
            ("not(missing > 1)", True),
            ("missing > 1 or missing < 1 or missing == missing", False),
            ("male == 0", False),
            ("list[1] == 2 and max(list[0..1]) == 2", True),
        ],
    )
    def test_conditions(self, expression: str, expected: bool) -> None:
        attributes = {"age": 9, "name": "ann", "male": False, "at": Time((5, 6)), "list": write_array([1, 2, 3])}
        assert expressions.is_true(expression, attributes) is expected

    @pytest.mark.parametrize(
        ("expression", "expected"),
        [
            ("SET a=a+1", {"a": 6, "x": [1.5, 2.5]}),
            ("a=1; b=a+1; REMOVE a", {"b": 2, "x": [1.5, 2.5]}),
            ("x[1]=x[1]*2; delete(a);", {"x": [1.5, 5.0]}),
            ("v=init_array(3,'double',0.5); v[0..1]=psum(v[0..1], x)", {"a": 5, "x": [1.5, 2.5], "v": [2.0, 3.0, 0.5]}),
            ("t=if_else((if_not_exists(t,0:0)<5:6),1,2)", {"a": 5, "x": [1.5, 2.5], "t": 1}),
            ("m=min(a, 3); n=max(a, inf) > 9", {"a": 5, "x": [1.5, 2.5], "m": 3, "n": True}),
        ],
    )
    def test_updates(self, expression: str, expected: dict[str, Any]) -> None:
        before = {"a": 5, "x": write_array([1.5, 2.5])}
        after = expressions.update(expression, before)
        assert {k: read_array(v) if isinstance(v, bytes) else v for k, v in after.items()} == expected
        assert before == {"a": 5, "x": write_array([1.5, 2.5])}

    @pytest.mark.parametrize(
        "expression", ["a ==", "(a", "a b", "5 = a", "x[9]=1", "a=y", "a=1/0", "a=nothing(1)", "#"]
    )
    def test_nonsense_is_refused(self, expression: str) -> None:
        with pytest.raises(ApiError):
            expressions.update(expression, {"a": 5, "x": write_array([1, 2])})
