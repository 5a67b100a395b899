"""Tensors of the Open Inference Protocol (V2): what a request gives as vectors, and what an answer returns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from modelstream.errors import ModelstreamError

DATATYPES = {
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
}
"""The datatypes of numbers, as numpy writes their bytes."""
SIZE = "binary_data_size"
"""The parameter of a tensor whose values stand behind the JSON of its request: how many bytes."""
SHOWN = 6
"""How many names an error lists."""

Doubles = npt.NDArray[np.float64]
Shape = Annotated[list[Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]], msgspec.Meta(min_length=1, max_length=2)]


class BadRequestError(ModelstreamError):
    """A V2 request that can't be answered; `status` is its HTTP status.

    `matrix` raises it.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Tensor(msgspec.Struct, frozen=True):
    """An input: its values are in `data`, flat in row-major order or nested as `shape` says, or in binary.

    `matrix` has an example.
    """

    name: str
    shape: Shape
    datatype: str
    data: list[float | list[float]] | None = None
    parameters: dict[str, Any] | None = None


def matrix(tensors: Sequence[Tensor], features: Sequence[str], binary: bytes = b"") -> Doubles:
    """Return the vectors that tensors give, float64[n, features].

    One tensor of shape [n, features], whatever its name; or for each feature one of its name, of shape [n] or [n, 1],
    in any order. `binary` has the values of those that give none, one after the other. Raises BadRequestError.

    >>> columns = [Tensor("b", [2, 1], "FP64", [2.5, 3.5]), Tensor("a", [2], "INT8", [1, 2])]
    >>> matrix(columns, ["a", "b"]).tolist()
    [[1.0, 2.5], [2.0, 3.5]]
    >>> matrix([Tensor("vectors", [1, 2], "FP32", [[1, 2.5]])], ["a", "b"]).tolist()
    [[1.0, 2.5]]
    >>> matrix(columns[:1], ["a", "b"])
    Traceback (most recent call last):
    modelstream.model.tensors.BadRequestError: no input named a: the model takes a, b; give one tensor of shape [n, 2], or one of shape [n] for each of these
    """  # noqa: E501
    arrays = _values(tensors, binary)
    if len(arrays) == 1 and arrays[0].ndim == 2 and arrays[0].shape[1] == len(features):
        return arrays[0]
    help_ = (
        f"the model takes {_listed(features)}; give one tensor of shape [n, {len(features)}], "
        "or one of shape [n] for each of these"
    )
    columns: dict[str, Doubles] = {}
    for i, (tensor, values) in enumerate(zip(tensors, arrays, strict=True)):
        if tensor.name not in features or tensor.name in columns:
            why = "is there twice" if tensor.name in columns else f"of shape {tensor.shape} is no feature"
            raise BadRequestError(f"inputs[{i}] ({tensor.name}) {why}: {help_}")
        if values.shape not in ((values.size,), (values.size, 1)):
            raise BadRequestError(f"inputs[{i}] ({tensor.name}) has shape {tensor.shape}: {help_}")
        columns[tensor.name] = values.reshape(-1)
    missing = [name for name in features if name not in columns]
    if missing:
        raise BadRequestError(f"no input named {_listed(missing)}: {help_}")
    for i, tensor in enumerate(tensors):
        if columns[tensor.name].size != columns[tensors[0].name].size:
            other = f"inputs[0] ({tensors[0].name}) {tensors[0].shape}"
            raise BadRequestError(
                f"inputs[{i}] ({tensor.name}) has shape {tensor.shape}, and {other}: give each feature as many values"
            )
    return np.stack([columns[name] for name in features], axis=1)


def _values(tensors: Sequence[Tensor], binary: bytes) -> list[Doubles]:
    """Return the values of each tensor in its shape. Raises BadRequestError."""
    arrays, place = [], 0
    for i, tensor in enumerate(tensors):
        where = f"inputs[{i}] ({tensor.name})"
        if tensor.datatype not in DATATYPES:
            raise BadRequestError(f"{where} has datatype {tensor.datatype}; known: {', '.join(DATATYPES)}")
        size = (tensor.parameters or {}).get(SIZE)
        if (size is None) == (tensor.data is None):
            raise BadRequestError(f"{where}: give its values as data, or their number of bytes as {SIZE}")
        if tensor.data is not None:
            arrays.append(_in_json(where, tensor, tensor.data))
            continue
        kind = np.dtype(DATATYPES[tensor.datatype])
        wanted = math.prod(tensor.shape) * kind.itemsize
        if type(size) is not int or size != wanted:
            raise BadRequestError(f"{where} of shape {tensor.shape} has {wanted} bytes, but {SIZE} is {size}")
        if place + size > len(binary):
            raise BadRequestError(f"{where} has {size} bytes, of which {len(binary) - place} came behind the JSON text")
        arrays.append(np.frombuffer(binary, kind, math.prod(tensor.shape), place).reshape(tensor.shape).astype(float))
        place += size
    if place < len(binary):
        raise BadRequestError(f"{len(binary) - place} bytes behind the JSON text and the values of inputs")
    return arrays


def _in_json(where: str, tensor: Tensor, data: Sequence[float | list[float]]) -> Doubles:
    """Return values that came as JSON in the tensor's shape. Raises BadRequestError."""
    try:
        values = np.array(data, np.float64)
    except ValueError:  # rows of different lengths
        raise BadRequestError(f"{where}: data is not of shape {tensor.shape}, nor a flat list") from None
    if values.shape not in ((math.prod(tensor.shape),), tuple(tensor.shape)):
        raise BadRequestError(f"{where}: data has shape {list(values.shape)}, not {tensor.shape}")
    kind = np.dtype(DATATYPES[tensor.datatype])
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        wrong = values[(values != np.floor(values)) | (values < limits.min) | (values > limits.max)]
        if wrong.size:
            raise BadRequestError(f"{where}: {wrong[0]:g} is no {tensor.datatype}")
    return values.reshape(tensor.shape)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
