"""Tensors are the vectors they say, in every form that a client may send; what doesn't fit is told by its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.model.tensors import DATATYPES, SIZE, BadRequestError, Tensor, matrix

FEATURES = ["a", "b", "c"]


@given(st.data())
def test_the_same_vectors_come_out_of_every_form(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([*DATATYPES]))
    count = data.draw(st.integers(1, 4))
    values = np.array(data.draw(st.lists(st.integers(0, 100), min_size=3 * count, max_size=3 * count)))
    expected = values.reshape(count, 3).astype(float)
    binary = b""

    def tensor(name: str, part: Any, shape: list[int]) -> Tensor:
        nonlocal binary
        form = data.draw(st.sampled_from(["flat", "nested", "binary"]))
        if form == "binary":
            content = part.astype(DATATYPES[kind]).tobytes()
            binary += content
            return Tensor(name, shape, kind, None, {SIZE: len(content)})
        return Tensor(name, shape, kind, part.reshape(shape if form == "nested" else -1).tolist())

    if data.draw(st.booleans()):
        tensors = [tensor("anything", expected, [count, 3])]
    else:
        shapes = [data.draw(st.sampled_from([[count], [count, 1]])) for _ in FEATURES]
        order = data.draw(st.permutations(range(3)))
        tensors = [tensor(FEATURES[i], expected[:, i], shapes[i]) for i in order]
    assert matrix(tensors, FEATURES, binary).tolist() == expected.tolist()


def test_one_feature_is_one_tensor_either_way() -> None:
    for name, shape in (("x", [2, 1]), ("a", [2, 1]), ("a", [2])):
        assert matrix([Tensor(name, shape, "FP64", [1, 2])], ["a"]).tolist() == [[1], [2]]


def one(name: str = "a", shape: list[int] | None = None, kind: str = "FP32", data: Any = (1, 2), **more: Any) -> Tensor:
    return Tensor(name, shape or [2], kind, list(data) if isinstance(data, tuple) else data, more or None)


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ([one("x", [2, 2], data=(1, 2, 3, 4))], r"inputs\[0\] \(x\) of shape \[2, 2\] is no feature: .* \[n, 3\]"),
        ([one("a"), one("a")], r"inputs\[1\] \(a\) is there twice"),
        ([one("a", [1, 2])], r"inputs\[0\] \(a\) has shape \[1, 2\]: .* of shape \[n\]"),
        ([one("a"), one("c")], "no input named b: the model takes a, b, c"),
        (
            [one("a"), one("b"), one("c", [1], data=(1,))],
            r"\(c\) has shape \[1\], and inputs\[0\] \(a\) \[2\]: give each",
        ),
        ([one(kind="BYTES")], "has datatype BYTES; known: FP16, FP32"),
        ([one(data=None)], "give its values as data, or their number of bytes as binary_data_size"),
        ([one(binary_data_size=8)], "give its values as data, or their number of bytes"),
        ([one(data=(1, 2, 3))], r"data has shape \[3\], not \[2\]"),
        ([one(data=([1], [2]))], r"data has shape \[2, 1\], not \[2\]"),
        ([one(shape=[2, 1], data=([1], [2, 3]))], r"data is not of shape \[2, 1\], nor a flat list"),
        ([one(shape=[2, 1], data=(1, [2]))], r"data is not of shape \[2, 1\], nor a flat list"),
        ([one(kind="INT64", data=(1, 2.5))], "2.5 is no INT64"),
        ([one(kind="UINT8", data=(1, -1))], "-1 is no UINT8"),
        ([one(kind="INT8", data=(128, 1))], "128 is no INT8"),
        ([one(data=None, binary_data_size=7)], r"of shape \[2\] has 8 bytes, but binary_data_size is 7"),
        ([one(data=None, binary_data_size="8")], "but binary_data_size is 8"),
        ([one(data=None, binary_data_size=8.0)], "but binary_data_size is 8.0"),
        (
            [one(data=None, binary_data_size=8), one("b", data=None, binary_data_size=8)],
            r"\(b\) has 8 bytes, of which 1",
        ),
        ([one()], "9 bytes behind the JSON text and the values of inputs"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(tensors: list[Tensor], expected: str) -> None:
    binary = b"123456789" if "bytes" in expected and "known" not in expected else b""
    with pytest.raises(BadRequestError, match=expected):
        matrix(tensors, FEATURES, binary)


@pytest.mark.parametrize("shape", [[0, 1 << 31], [1 << 31, 0]])
def test_an_empty_tensor_may_have_any_other_length(shape: list[int]) -> None:
    with pytest.raises(BadRequestError, match="is no feature"):
        matrix([Tensor("x", shape, "FP32", [])], FEATURES)
