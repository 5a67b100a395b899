"""Reads requests of the V2 inference protocol: JSON text to vectors, with precise errors.

The protocol: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol, in the short form
that MLRun uses, `{"inputs": [[values of one vector], …]}`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from modelstream.errors import ModelstreamError
from modelstream.model.onnx import Floats, as_input

MAX_REQUEST_ROWS = 10_000
"""Most vectors in one V2 request: as many as in a message."""
OPERATIONS = ("infer", "predict", "ready")
"""Last parts of a V2 path. Without one, GET describes the model, and POST is `infer`."""


class BadRequestError(ModelstreamError):
    """A V2 request that can't be answered; `status` is its HTTP status.

    `read_request` raises it.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class _Request(msgspec.Struct):
    """The body of a V2 request; other members, such as `id` and `operation`, are MLRun's."""

    inputs: list[list[float]]


_REQUEST = msgspec.json.Decoder(_Request)


def read_request(body: object, features: Sequence[str]) -> Floats:
    """Return the vectors of a V2 request, float32[n, features]: a decoded body, or JSON text.

    Raises BadRequestError, which says what is wrong and where.

    >>> read_request({"inputs": [[1, 2.5]]}, ["a", "b"]).tolist()
    [[1.0, 2.5]]
    >>> read_request(b'{"inputs": [[1]]}', ["a", "b"])
    Traceback (most recent call last):
    modelstream.model.v2.BadRequestError: inputs[0] has 1 value; the model takes 2: a, b
    """
    try:
        if isinstance(body, bytes | bytearray | str):
            rows = _REQUEST.decode(body).inputs
        else:
            rows = msgspec.convert(body, _Request).inputs
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = str(error).replace("$.", "").replace("Object", "the request").replace("`", "")
        raise BadRequestError(f'not a V2 request, {{"inputs": [[…], …]}}: {text}') from None
    if not rows:
        raise BadRequestError("inputs is empty: give at least one vector")
    if len(rows) > MAX_REQUEST_ROWS:
        raise BadRequestError(f"{len(rows):,} vectors in a request; {MAX_REQUEST_ROWS:,} are allowed", 413)
    width = len(features)
    for i, row in enumerate(rows):
        if len(row) != width:
            values = "1 value" if len(row) == 1 else f"{len(row)} values"
            raise BadRequestError(f"inputs[{i}] has {values}; the model takes {width}: {', '.join(features)}")
    vectors = np.array(rows, np.float64)
    fits = np.abs(vectors) <= np.finfo(np.float32).max
    if not fits.all():
        row_number, number = (int(i) for i in np.argwhere(~fits)[0])
        raise BadRequestError(
            f"inputs[{row_number}][{number}] ({features[number]}) is not a finite number up to 3.4e38, as float32 has"
        )
    return as_input(list(vectors.T))
