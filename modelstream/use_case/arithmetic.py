"""Arithmetic over features, as `compute` in a use-case file writes it: `celsius / max(heat_7d_mean, 1)`.

It is read with Python's grammar, of which only numbers, names, + - * /, parentheses and the FUNCTIONS are let through:
nothing else is ever evaluated.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Float64s = npt.NDArray[np.float64]
Column = Callable[[str], Float64s]
"""Returns the values of a feature."""

FUNCTIONS: dict[str, tuple[int, Any]] = {"min": (2, np.minimum), "max": (2, np.maximum), "log1p": (1, np.log1p)}
"""How many values each takes, and what computes it."""
LONGEST = 1_000
"""Most characters."""
DEEPEST = 100
"""How deep an expression may be nested, as a sum of a hundred features is: `evaluate` calls itself, and Python allows a
thousand calls in all."""

_OPERATORS: dict[type[ast.operator], Any] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
}


class ExpressionError(ValueError):
    """What is wrong with a text, in a sentence. `parse` raises it."""


def parse(text: str) -> ast.expr:
    """Return the expression that is written. Raises ExpressionError.

    >>> names(parse("celsius / (1 + heat_7d_mean)"))
    ['celsius', 'heat_7d_mean']
    >>> parse("celsius ** 2")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    modelstream.use_case.arithmetic.ExpressionError: 'celsius ** 2' can't be computed: there are + - * / and min, ...
    """
    if len(text) > LONGEST:
        raise ExpressionError(f"it is longer than {LONGEST:,} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        _check(tree, DEEPEST)
    except SyntaxError as error:
        raise ExpressionError(f"it can't be read from column {error.offset} on: {error.msg}") from None
    except (RecursionError, MemoryError, ValueError) as error:
        if isinstance(error, ExpressionError):
            raise
        raise ExpressionError("it can't be read: it is nested too deeply, or has characters of other kinds") from None
    return tree


def rewritten(text: str) -> str:
    """Return an expression in the one way in which it is written here; as it is where it can't be read.

    >>> rewritten("(celsius/2)+1")
    'celsius / 2 + 1'
    """
    try:
        return ast.unparse(parse(text))
    except ExpressionError:
        return text


def _check(node: ast.expr, deepest: int) -> None:
    if not deepest:
        raise ExpressionError(f"it is nested more than {DEEPEST} deep")
    inner = deepest - 1
    match node:
        case ast.BinOp(left, operator, right) if type(operator) in _OPERATORS:
            _check(left, inner)
            _check(right, inner)
        case ast.UnaryOp(ast.USub(), value):
            _check(value, inner)
        case ast.Call(ast.Name(name), values, keywords) if name in FUNCTIONS and not keywords:
            wanted = FUNCTIONS[name][0]
            if len(values) != wanted:
                raise ExpressionError(f"{name} takes {wanted} value{'s' * (wanted > 1)}, not {len(values)}")
            for value in values:
                _check(value, inner)
        case ast.Name():
            pass
        case ast.Constant(int() | float() as value) if abs(value) < 1e300 and not isinstance(value, bool):
            pass
        case _:
            raise ExpressionError(
                f"{ast.unparse(node)!r} can't be computed: there are + - * / and {', '.join(FUNCTIONS)}"
            )


def names(tree: ast.expr) -> list[str]:
    """Return the names of the features in an expression, each once, in order.

    `parse` has an example.
    """
    return list(dict.fromkeys(_names(tree)))


def _names(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.BinOp(left, _, right):
            yield from _names(left)
            yield from _names(right)
        case ast.UnaryOp(_, value):
            yield from _names(value)
        case ast.Call(_, values):
            for value in values:
                yield from _names(value)
        case ast.Name(name):
            yield name


def evaluate(tree: ast.expr, column: Column) -> Float64s | float:
    """Return the values of an expression, float64[n]; a number if it has no names.

    Each operation is rounded by itself, as IEEE 754 says: the same numbers give the same bits.

    >>> evaluate(parse("a / 2 - min(a, 3)"), lambda name: np.array([2.0, 8.0])).tolist()
    [-1.0, 1.0]
    """
    match node := tree:
        case ast.BinOp(left, operator, right):
            result = _OPERATORS[type(operator)](evaluate(left, column), evaluate(right, column))
        case ast.UnaryOp(_, value):
            result = np.negative(evaluate(value, column))
        case ast.Call(ast.Name(name), values):
            result = FUNCTIONS[name][1](*(evaluate(value, column) for value in values))
        case ast.Name(name):
            result = column(name)
        case _:
            result = float(node.value)  # type: ignore[attr-defined]  # `parse` lets nothing else through
    return result  # type: ignore[no-any-return]
