"""The Open Inference Protocol (V2), as far as it is text: paths and requests in, answers out, with precise errors.

The protocol: https://github.com/kserve/open-inference-protocol. Beside its tensors, a request may have the short form
that MLRun uses, `{"inputs": [[values of one vector], …]}`; its answer is then short as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np

from modelstream import __version__
from modelstream.model.onnx import Floats, as_input
from modelstream.model.scoring import Scores
from modelstream.model.tensors import BadRequestError, Doubles, Tensor, matrix

MAX_REQUEST_ROWS = 10_000
"""Most vectors in one V2 request: as many as in a message."""
JSON_LENGTH, ENCODING = "Inference-Header-Content-Length", "Content-Encoding"
"""The headers that say how a request's body is to be read."""
KINDS = ("INT8", "FP64")
"""The datatypes of the outputs: the decision, and its probability."""
INFER = ("infer", "predict")

Operation = Literal["server", "live", "server ready", "model", "model ready", "infer"]
_SERVER: Mapping[tuple[str, ...], Operation] = {
    ("v2",): "server",
    ("v2", "health", "live"): "live",
    ("v2", "health", "ready"): "server ready",
}


@dataclass(frozen=True)
class Query:
    """A request for predictions.

    `read_request` has an example.
    """

    vectors: Floats
    """float32[n, features]"""
    outputs: tuple[str, ...] | None = None
    """The names of the tensors to answer with; None for a request in the short form."""
    id: Any = None
    """What the client calls the request, None if it doesn't."""


class _Output(msgspec.Struct):
    name: str


class _Request(msgspec.Struct):
    """The body of a V2 request; other members, such as `parameters`, mean nothing here."""

    inputs: list[list[float] | Tensor]
    outputs: list[_Output] | None = None
    id: Any = None


@dataclass(frozen=True)
class Body:
    """The body of a request of the binary tensor extension: JSON text, and the values behind it.

    `split_body` has an example.
    """

    text: bytes
    binary: bytes


_REQUEST = msgspec.json.Decoder(_Request)


def operation_of(path: str | None, method: str | None, name: str, version: str) -> Operation:
    """Return what a path and method ask of the server of a model: its name and version, "" for none.

    Raises BadRequestError for what is not there.

    >>> operation_of("/v2/models/frost/versions/3/infer", "POST", "frost", "3")
    'infer'
    >>> operation_of("/v2/health/ready", "GET", "frost", "3")
    'server ready'
    """
    parts = tuple(part for part in (path or "").split("/") if part)
    asks = method in ("GET", "HEAD")
    operation = _SERVER.get(parts)
    if operation is None:
        if parts[:2] == ("v2", "models"):
            if parts[2:3] != (name,) or (parts[3:4] == ("versions",) and parts[4:5] != (version,)):
                raise BadRequestError(f"no such model: {path}; this is {name}, version {version or 'none'}", 404)
            parts = parts[5:] if parts[3:4] == ("versions",) else parts[3:]
        if not parts:
            return "model" if asks else "infer"
        if parts not in (("ready",), *((each,) for each in INFER)):
            raise BadRequestError(f"no such operation: {path}; known: {', '.join((*INFER, 'ready'))}", 404)
        operation = "infer" if parts[0] in INFER else "model ready"
    if asks == (operation == "infer"):
        raise BadRequestError(f"{path} takes {'POST' if asks else 'GET'}, not {method}", 405)
    return operation


def split_body(body: object, headers: Mapping[str, Any] | None) -> object:
    """Return a request's body as `read_request` takes it: apart from the values that stand behind its JSON text.

    Raises BadRequestError.

    >>> split_body(b'{"inputs": []}' + b"\\0\\1", {JSON_LENGTH: "14"})
    Body(text=b'{"inputs": []}', binary=b'\\x00\\x01')
    """
    given = headers or {}
    if given.get(ENCODING, "identity") != "identity":
        raise BadRequestError(f"the body is compressed: send it as it is, without a {ENCODING}", 415)
    if JSON_LENGTH not in given or not isinstance(body, bytes):
        return body
    length = str(given[JSON_LENGTH])[:20]
    if not (length.isascii() and length.isdecimal()) or int(length) > len(body):
        raise BadRequestError(f"{JSON_LENGTH} is {length}; the body has {len(body)} bytes")
    return Body(body[: int(length)], body[int(length) :])


def read_request(body: object, features: Sequence[str], outputs: Sequence[str] = ()) -> Query:
    """Return what a V2 request asks: a decoded body, JSON text, or what `split_body` has made of it.

    `outputs` are the names of what can be answered. Raises BadRequestError, which says what is wrong and where.

    >>> read_request({"inputs": [[1, 2.5]]}, ["a", "b"]).vectors.tolist()
    [[1.0, 2.5]]
    >>> text = b'{"id": "7", "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2.5]}]}'
    >>> read_request(text, ["a", "b"], ["frost"])
    Query(vectors=array([[1. , 2.5]], dtype=float32), outputs=('frost',), id='7')
    >>> read_request(b'{"inputs": [[1]]}', ["a", "b"])
    Traceback (most recent call last):
    modelstream.model.tensors.BadRequestError: inputs[0] has 1 value; the model takes 2: a, b
    """
    text, binary = (body.text, body.binary) if isinstance(body, Body) else (body, b"")
    try:
        if isinstance(text, bytes | bytearray | str):
            request = _REQUEST.decode(text)
        else:
            request = msgspec.convert(text, _Request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = str(error).replace("$.", "").replace("Object", "the request").replace("`", "")
        raise BadRequestError(f"not a V2 request, {_FORMS}: {why}") from None
    tensors = [one for one in request.inputs if isinstance(one, Tensor)]
    rows = [one for one in request.inputs if not isinstance(one, Tensor)]
    if tensors and rows:
        raise BadRequestError(f"inputs has both vectors and tensors; give {_FORMS}")
    if not tensors:
        return Query(_as_input(_short(rows, features), features, short=True), id=request.id)
    wanted = tuple(output.name for output in request.outputs or ()) or tuple(outputs)
    if unknown := [name for name in wanted if name not in outputs]:
        raise BadRequestError(f"no output named {unknown[0]}; known: {', '.join(outputs)}")
    return Query(_as_input(matrix(tensors, features, binary), features, short=False), wanted, request.id)


_FORMS = '{"inputs": [[…], …]} or {"inputs": [{"name": …, "shape": …, "datatype": …, "data": …}, …]}'


def _short(rows: Sequence[Sequence[float]], features: Sequence[str]) -> Doubles:
    """Return the vectors of a request in the short form. Raises BadRequestError if one is of another length."""
    width = len(features)
    for i, row in enumerate(rows):
        if len(row) != width:
            values = "1 value" if len(row) == 1 else f"{len(row)} values"
            raise BadRequestError(f"inputs[{i}] has {values}; the model takes {width}: {', '.join(features)}")
    return np.array(rows, np.float64)


def _as_input(vectors: Doubles, features: Sequence[str], *, short: bool) -> Floats:
    """Return vectors as the model takes them. Raises BadRequestError for none, too many, or what float32 can't hold."""
    if not len(vectors):
        raise BadRequestError("inputs is empty: give at least one vector")
    if len(vectors) > MAX_REQUEST_ROWS:
        raise BadRequestError(f"{len(vectors):,} vectors in a request; {MAX_REQUEST_ROWS:,} are allowed", 413)
    fits = np.abs(vectors) <= np.finfo(np.float32).max
    if not fits.all():
        row, place = (int(i) for i in np.argwhere(~fits)[0])
        where = f"inputs[{row}][{place}] ({features[place]})" if short else f"{features[place]} of vector {row}"
        raise BadRequestError(f"{where} is not a finite number up to 3.4e38, as float32 has")
    return as_input(list(vectors.T))


def answer(query: Query, scores: Scores, outputs: Sequence[str]) -> dict[str, Any]:
    """Return the members of an answer that hold the scores; `outputs` names the decision and the probability.

    >>> scores = Scores(np.array([1], np.int8), np.array([0.75]))
    >>> answer(Query(np.zeros((1, 2), np.float32)), scores, ["frost", "p"])
    {'outputs': [1], 'probabilities': [0.75]}
    >>> answer(Query(np.zeros((1, 2), np.float32), ("p",)), scores, ["frost", "p"])
    {'outputs': [{'name': 'p', 'shape': [1], 'datatype': 'FP64', 'data': [0.75]}]}
    """
    values = (scores.prediction.tolist(), scores.probability.tolist())
    if query.outputs is None:
        return {"outputs": values[0], "probabilities": values[1]}
    known = dict(zip(outputs, zip(KINDS, values, strict=True), strict=True))
    return {
        "outputs": [
            {"name": name, "shape": [len(known[name][1])], "datatype": known[name][0], "data": known[name][1]}
            for name in query.outputs
        ]
    }


def server_metadata() -> dict[str, Any]:
    """Return what `GET /v2` tells.

    >>> sorted(server_metadata())
    ['extensions', 'name', 'version']
    """
    return {"name": "modelstream", "version": __version__, "extensions": []}


def model_metadata(name: str, version: str, features: Sequence[str], outputs: Sequence[str]) -> dict[str, Any]:
    """Return what `GET /v2/models/NAME` tells: a tensor for each feature, though one for all is taken as well.

    >>> model_metadata("frost", "", ["a"], ["p", "q"])["inputs"]
    [{'name': 'a', 'datatype': 'FP32', 'shape': [-1]}]
    """

    def tensor(name: str, kind: str) -> dict[str, Any]:
        return {"name": name, "datatype": kind, "shape": [-1]}

    return {
        "name": name,
        "versions": [version] if version else [],
        "platform": "onnxruntime_onnx",
        "inputs": [tensor(feature, "FP32") for feature in features],
        "outputs": [tensor(output, kind) for output, kind in zip(outputs, KINDS, strict=True)],
    }
