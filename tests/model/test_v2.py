"""The V2 protocol: what a path asks, what a request says, and what is wrong with it, to the place."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.model.onnx import as_input
from modelstream.model.scoring import Scores
from modelstream.model.tensors import BadRequestError
from modelstream.model.v2 import Body, answer, model_metadata, operation_of, read_request, split_body
from modelstream.use_case.file import load_use_case

ROOT = Path(__file__).parents[2]
CHURN = load_use_case(ROOT / "use_cases" / "churn.yaml")
OUTPUTS = ("frost", "p")

# The short form.

GOOD = [float(i) for i in range(len(CHURN.features))]


@pytest.mark.parametrize("form", [lambda body: body, json.dumps, lambda body: json.dumps(body).encode()])
def test_request_is_read_from_json_text_and_decoded(form: Callable[[Any], Any]) -> None:
    body = {"id": "7", "inputs": [GOOD, [int(v) for v in GOOD]], "parameters": {}}
    vectors = read_request(form(body), CHURN.features).vectors
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [GOOD, GOOD]


def with_value(value: Any) -> dict[str, Any]:
    return {"inputs": [GOOD, [*GOOD[:-1], value]]}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (None, "Expected object, got null"),
        ([GOOD], "Expected object, got array"),
        ({}, "missing required field inputs"),
        ({"inputs": GOOD}, r"Expected object \| array, got float - at inputs\[0\]"),
        ({"inputs": {"a": 1}}, "Expected array, got object - at inputs"),
        ({"inputs": []}, "inputs is empty"),
        ({"inputs": [GOOD, GOOD[1:]]}, r"inputs\[1\] has 12 values; the model takes 13: socioeconomic_idx, "),
        ({"inputs": [[]]}, r"inputs\[0\] has 0 values"),
        ({"inputs": [GOOD] * 10_001}, "10,001 vectors in a request; 10,000 are allowed"),
        (with_value("1"), r"Expected float, got str - at inputs\[1\]\[12\]"),
        (with_value(True), r"Expected float, got bool - at inputs\[1\]\[12\]"),
        (with_value(None), r"Expected float, got null - at inputs\[1\]\[12\]"),
        (with_value([1]), r"Expected float, got array - at inputs\[1\]\[12\]"),
        (with_value(math.nan), r"inputs\[1\]\[12\] \(win_var\) is not a finite number"),
        (with_value(-math.inf), r"inputs\[1\]\[12\] \(win_var\) is not a finite number"),
        (with_value(-1e39), r"inputs\[1\]\[12\] \(win_var\) is not a finite number up to 3.4e38"),
        (with_value(10**400), "out of range"),
        (b'{"inputs": [[1, ', "truncated"),
        (b'{"inputs": [[NaN]]}', "malformed"),
        (b"\xff\xfe", "not a V2 request"),
        (b"", "not a V2 request"),
        (b"[" * 100_000, "not a V2 request"),
    ],
)
def test_bad_request_says_what_is_wrong_and_where(body: Any, expected: str) -> None:
    with pytest.raises(BadRequestError, match=expected):
        read_request(body, CHURN.features)


@given(
    st.lists(
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=2),
        min_size=1,
        max_size=5,
    )
)
def test_request_and_message_give_the_model_the_same_input(rows: list[list[float]]) -> None:
    requested = read_request(json.dumps({"inputs": rows}).encode(), ["a", "b"]).vectors
    assert requested.tolist() == as_input(list(np.array(rows).T)).tolist()


# Tensors.


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2.5], **changes}


@pytest.mark.parametrize("form", [lambda body: body, json.dumps, lambda body: json.dumps(body).encode()])
def test_request_of_tensors_is_read_from_json_text_and_decoded(form: Callable[[Any], Any]) -> None:
    body = {"id": "7", "parameters": {"binary_data_output": True}, "inputs": [tensor()], "more": 1}
    query = read_request(form(body), ["a", "b"], OUTPUTS)
    assert query.vectors.dtype == np.float32
    assert query.vectors.tolist() == [[1, 2.5]]
    assert (query.id, query.outputs) == ("7", OUTPUTS)


@pytest.mark.parametrize(
    ("asked", "named"),
    [([], OUTPUTS), (["p"], ("p",)), (["p", "frost"], ("p", "frost"))],
)
def test_outputs_that_are_asked_for_are_answered_in_their_order(asked: list[str], named: tuple[str, ...]) -> None:
    outputs = [{"name": name, "parameters": {"binary_data": False}} for name in asked]
    query = read_request({"inputs": [tensor()], "outputs": outputs}, ["a", "b"], OUTPUTS)
    told = answer(query, Scores(np.array([1, 0], np.int8), np.array([0.75, 0.25])), OUTPUTS)["outputs"]
    known = {
        "frost": {"name": "frost", "shape": [2], "datatype": "INT8", "data": [1, 0]},
        "p": {"name": "p", "shape": [2], "datatype": "FP64", "data": [0.75, 0.25]},
    }
    assert told == [known[name] for name in named]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"inputs": [tensor(), [1, 2]]}, "inputs has both vectors and tensors"),
        ({"inputs": [tensor()], "outputs": [{"name": "q"}]}, "no output named q; known: frost, p"),
        ({"inputs": [tensor()], "outputs": ["p"]}, r"Expected object, got str - at outputs\[0\]"),
        ({"inputs": [{"name": "x"}]}, r"missing required field shape - at inputs\[0\]"),
        ({"inputs": [tensor(shape=[])]}, r"length >= 1 - at inputs\[0\].shape"),
        ({"inputs": [tensor(shape=[1, 1, 2])]}, r"length <= 2 - at inputs\[0\].shape"),
        ({"inputs": [tensor(shape=[-1, 2])]}, r"int >= 0 - at inputs\[0\].shape\[0\]"),
        ({"inputs": [tensor(shape=[10**18, 2])]}, r"int <= 2147483648 - at inputs\[0\].shape\[0\]"),
        ({"inputs": [tensor(data=[1, True])]}, r"Expected float \| array, got bool - at inputs\[0\].data\[1\]"),
        ({"inputs": [tensor(data=[1, "2"])]}, r"Expected float \| array, got str - at inputs\[0\].data\[1\]"),
        ({"inputs": [tensor(data=[1, None])]}, r"Expected float \| array, got null - at inputs\[0\].data\[1\]"),
        ({"inputs": [tensor(data=[1, math.nan])]}, "b of vector 0 is not a finite number up to 3.4e38"),
        ({"inputs": [tensor(data=[1, -1e39], datatype="FP64")]}, "b of vector 0 is not a finite number up to 3.4e38"),
        ({"inputs": [tensor(shape=[0, 2], data=[])]}, "inputs is empty"),
        ({"inputs": [tensor(shape=[10_001, 2], data=[1] * 20_002)]}, "10,001 vectors in a request; 10,000"),
    ],
)
def test_bad_request_of_tensors_says_what_is_wrong_and_where(body: Any, expected: str) -> None:
    with pytest.raises(BadRequestError, match=expected):
        read_request(body, ["a", "b"], OUTPUTS)


# The body, and the path.


def test_values_behind_the_text_are_taken_apart_by_the_length_of_the_text() -> None:
    text, values = json.dumps({"inputs": [tensor(data=None, parameters={"binary_data_size": 8})]}).encode(), b"\0" * 8
    body = split_body(text + values, {"Inference-Header-Content-Length": str(len(text))})
    assert body == Body(text, values)
    assert read_request(body, ["a", "b"], OUTPUTS).vectors.tolist() == [[0, 0]]
    for headers in (None, {}, {"Content-Encoding": "identity"}):
        assert split_body(text, headers) is text
    decoded = json.loads(text)
    assert split_body(decoded, {"Inference-Header-Content-Length": "7"}) is decoded


@pytest.mark.parametrize("length", ["-1", "x", "", "11", "9" * 5000, "\u0663"])
def test_a_length_that_the_body_has_not_is_refused(length: str) -> None:
    with pytest.raises(BadRequestError, match="the body has 10 bytes"):
        split_body(b"0123456789", {"Inference-Header-Content-Length": length})


def test_a_compressed_body_is_415() -> None:
    with pytest.raises(BadRequestError, match="send it as it is") as raised:
        split_body(b"\x1f\x8b", {"Content-Encoding": "gzip"})
    assert raised.value.status == 415


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("GET", "/v2", "server"),
        ("GET", "/v2/", "server"),
        ("GET", "/v2/health/live", "live"),
        ("GET", "/v2/health/ready", "server ready"),
        ("GET", "/v2/models/frost", "model"),
        ("GET", "/v2/models/frost/versions/3", "model"),
        ("HEAD", "/v2/models/frost/ready", "model ready"),
        ("GET", "/v2/models/frost/versions/3/ready", "model ready"),
        ("POST", "/v2/models/frost/infer", "infer"),
        ("POST", "/v2/models/frost/versions/3/infer", "infer"),
        ("POST", "/v2/models/frost/predict", "infer"),
        ("POST", "/v2/models/frost", "infer"),
        ("POST", "/infer", "infer"),
        ("POST", "/", "infer"),
        ("GET", None, "model"),
    ],
)
def test_what_a_path_asks(method: str, path: str, operation: str) -> None:
    assert operation_of(path, method, "frost", "3") == operation


@pytest.mark.parametrize(
    ("method", "path", "status", "expected"),
    [
        ("GET", "/v2/models/thaw", 404, "no such model: .*; this is frost, version 3"),
        ("GET", "/v2/models", 404, "no such model"),
        ("POST", "/v2/models/frost/versions/2/infer", 404, "no such model"),
        ("POST", "/v2/models/frost/explain", 404, "no such operation"),
        ("POST", "/v2/models/frost/infer/now", 404, "no such operation"),
        ("GET", "/v2/health", 404, "no such operation"),
        ("GET", "/v2/models/frost/infer", 405, "takes POST, not GET"),
        ("POST", "/v2/models/frost/ready", 405, "takes GET, not POST"),
        ("POST", "/v2/health/live", 405, "takes GET, not POST"),
    ],
)
def test_what_is_not_there_is_told(method: str, path: str, status: int, expected: str) -> None:
    with pytest.raises(BadRequestError, match=expected) as raised:
        operation_of(path, method, "frost", "3")
    assert raised.value.status == status


def test_what_the_metadata_says_of_inputs_can_be_sent() -> None:
    told = model_metadata("frost", "3", ["a", "b"], OUTPUTS)
    inputs = [{**one, "shape": [4], "data": [1, 2, 3, 4]} for one in told["inputs"]]
    query = read_request({"inputs": inputs, "outputs": told["outputs"]}, ["a", "b"], OUTPUTS)
    assert (query.vectors.shape, query.outputs) == ((4, 2), OUTPUTS)
    answered = answer(query, Scores(np.zeros(4, np.int8), np.zeros(4)), OUTPUTS)["outputs"]
    assert [(one["name"], one["datatype"]) for one in answered] == [
        (one["name"], one["datatype"]) for one in told["outputs"]
    ]
    assert (told["versions"], model_metadata("frost", "", ["a"], OUTPUTS)["versions"]) == (["3"], [])
