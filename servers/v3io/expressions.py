"""Part of a test tool (see README.md): V3IO's condition and update expressions.

From its documentation ("Expressions") and from what storey, v3io-frames and nuclio's stream trigger send. A
comparison with an attribute that isn't there, or of another type, is false.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from typing import Any

from .errors import ApiError, invalid
from .values import Attributes, Time, read_array, stored_number, write_array

_TOKEN = re.compile(
    r"\s*(?:(?P<time>\d+:\d+)|(?P<number>\d+\.(?!\.)\d*(?:[eE][+-]?\d+)?|\d+(?:[eE][+-]?\d+)?)|'(?P<text>[^']*)'"
    r"|`(?P<quoted>[^`]+)`|(?P<name>[A-Za-z_]\w*)|(?P<sign>==|!=|<=|>=|<>|\.\.|[-+*/%()<>=,;\[\]]))"
)
_LEVELS = (("or",), ("and",), ("==", "!=", "<>", "<", "<=", ">", ">=", "in"), ("+", "-"), ("*", "/", "%"))
_CONSTANTS = {"true": True, "false": False, "inf": math.inf, "nan": math.nan}


class _MissingError(Exception):
    """An attribute that isn't there."""


def is_true(expression: str, attributes: Mapping[str, Any]) -> bool:
    """Return whether a condition holds for the attributes of an item."""
    parser = _Parser(expression)
    tree = parser.level(0)
    parser.expect_end()
    try:
        return _evaluate(tree, attributes) is True
    except _MissingError:
        return False


def update(expression: str, attributes: Attributes) -> Attributes:
    """Return attributes after an update expression: statements one after the other, all or none."""
    result = dict(attributes)
    parser = _Parser(expression)
    while not parser.at_end():
        if parser.take(";"):
            continue
        try:
            _Statement(parser).run(result)
        except _MissingError as error:
            raise invalid(f"no attribute {error} in {expression!r}") from error
    return result


class _Statement:
    def __init__(self, parser: _Parser) -> None:
        self.remove = parser.take_word("remove")
        if not self.remove:
            parser.take_word("set")
        self.target = parser.level(4)
        if self.target[0] == "call" and self.target[1] == "delete":
            self.remove, self.target = True, self.target[2][0]
        if self.target[0] != "name" and (self.target[0] != "slice" or self.target[1][0] != "name"):
            raise invalid(f"can't assign in {parser.text!r}")
        if not self.remove:
            parser.expect("=")
            self.value = parser.level(0)
        if not parser.at_end():
            parser.expect(";")

    def run(self, attributes: Attributes) -> None:
        if self.remove:
            attributes.pop(self.target[1], None)
            return
        value = _evaluate(self.value, attributes)
        if self.target[0] == "name":
            attributes[self.target[1]] = _storable(value)
            return
        _, (_, name), first, last = self.target
        if name not in attributes:
            raise _MissingError(name)
        array: list[Any] = list(read_array(attributes[name]))
        start = int(_evaluate(first, attributes))
        stop = start if last is None else int(_evaluate(last, attributes))
        values = read_array(value) if last is not None else [value]
        if not 0 <= start <= stop < len(array) or len(values) != stop - start + 1:
            raise invalid(f"{name}[{start}..{stop}] of {len(array)} elements")
        kind = float if isinstance(array[0], float) else int
        array[start : stop + 1] = [kind(element) for element in values]
        attributes[name] = write_array(array)


def _storable(value: Any) -> Any:
    if isinstance(value, list):
        return write_array(value)
    return stored_number(value) if isinstance(value, float) else value


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str]] = []
        at, end = 0, len(text.rstrip())
        while at < end:
            found = _TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                raise invalid(f"expression {text!r} at {at}")
            self.tokens.append((found.lastgroup, found[found.lastgroup]))
            at = found.end()
        self.at = 0

    def at_end(self) -> bool:
        return self.at == len(self.tokens)

    def expect_end(self) -> None:
        if not self.at_end():
            raise invalid(f"expression {self.text!r} goes on with {self.tokens[self.at][1]!r}")

    def take(self, sign: str) -> bool:
        if not self.at_end() and self.tokens[self.at] == ("sign", sign):
            self.at += 1
            return True
        return False

    def take_word(self, word: str) -> bool:
        if not self.at_end() and self.tokens[self.at][0] == "name" and self.tokens[self.at][1].lower() == word:
            self.at += 1
            return True
        return False

    def expect(self, sign: str) -> None:
        if not self.take(sign):
            raise invalid(f"expression {self.text!r} lacks {sign!r}")

    def level(self, level: int) -> Any:
        """Parse operators of a level of _LEVELS and above: a tree of tuples."""
        if level == len(_LEVELS):
            return self.unary()
        left = self.level(level + 1)
        while operator := next((word for word in _LEVELS[level] if self.take(word) or self.take_word(word)), None):
            if operator == "in":
                self.expect("(")
                left = ("in", left, self.arguments())
            else:
                left = ("operator", operator, left, self.level(level + 1))
        return left

    def unary(self) -> Any:
        if self.take_word("not"):
            return ("not", self.level(2))
        if self.take("-"):
            return ("operator", "-", ("value", 0), self.unary())
        node = self.primary()
        while self.take("["):
            first = self.level(3)
            last = self.level(3) if self.take("..") else None
            self.expect("]")
            node = ("slice", node, first, last)
        return node

    def primary(self) -> Any:
        if self.take("("):
            node = self.level(0)
            self.expect(")")
            return node
        if self.at_end():
            raise invalid(f"expression {self.text!r} ends too early")
        kind, text = self.tokens[self.at]
        self.at += 1
        if kind == "time":
            seconds, nanoseconds = text.split(":")
            return ("value", Time((int(seconds), int(nanoseconds))))
        if kind == "number":
            return ("value", int(text) if text.isdecimal() else float(text))
        if kind == "text":
            return ("value", text)
        if kind == "quoted":
            return ("name", text)
        if kind == "name":
            if self.take("("):
                return ("call", text.lower(), self.arguments())
            return ("value", _CONSTANTS[text.lower()]) if text.lower() in _CONSTANTS else ("name", text)
        raise invalid(f"expression {self.text!r}: {text!r} is out of place")

    def arguments(self) -> list[Any]:
        if self.take(")"):
            return []
        found = [self.level(0)]
        while self.take(","):
            found.append(self.level(0))
        self.expect(")")
        return found


def _evaluate(node: Any, attributes: Mapping[str, Any]) -> Any:
    kind = node[0]
    if kind == "value":
        return node[1]
    if kind == "name":
        if node[1] not in attributes:
            raise _MissingError(node[1])
        return attributes[node[1]]
    if kind == "not":
        return not _condition(node[1], attributes)
    if kind == "in":
        return any(_compare("==", node[1], choice, attributes) for choice in node[2])
    if kind == "slice":
        array = read_array(_evaluate(node[1], attributes))
        first = int(_evaluate(node[2], attributes))
        last = first if node[3] is None else int(_evaluate(node[3], attributes))
        if not 0 <= first <= last < len(array):
            raise invalid(f"[{first}..{last}] of {len(array)} elements")
        return array[first] if node[3] is None else array[first : last + 1]
    if kind == "call":
        return _call(node[1], node[2], attributes)
    operator = node[1]
    if operator == "or":
        return _condition(node[2], attributes) or _condition(node[3], attributes)
    if operator == "and":
        return _condition(node[2], attributes) and _condition(node[3], attributes)
    if operator in _LEVELS[2]:
        return _compare(operator, node[2], node[3], attributes)
    return _calculate(operator, _evaluate(node[2], attributes), _evaluate(node[3], attributes))


def _condition(node: Any, attributes: Mapping[str, Any]) -> bool:
    try:
        return _evaluate(node, attributes) is True
    except _MissingError:
        return False


def _compare(operator: str, left_node: Any, right_node: Any, attributes: Mapping[str, Any]) -> bool:
    try:
        left, right = _evaluate(left_node, attributes), _evaluate(right_node, attributes)
    except _MissingError:
        return False
    if _kind(left) != _kind(right):
        return False
    holds: dict[str, bool] = {
        "==": left == right,
        "!=": left != right,
        "<>": left != right,
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
    }
    return holds[operator]


def _kind(value: Any) -> type:
    return float if type(value) is int else type(value)


def _calculate(operator: str, left: Any, right: Any) -> Any:
    if isinstance(left, str | bytes) or isinstance(right, str | bytes):
        raise invalid(f"can't calculate {operator}")
    try:
        if operator == "/":
            return left // right if isinstance(left, int) and isinstance(right, int) else left / right
        return {"+": lambda: left + right, "-": lambda: left - right, "*": lambda: left * right}.get(
            operator, lambda: left % right
        )()
    except (ZeroDivisionError, TypeError) as error:
        raise invalid(str(error)) from error


def _call(name: str, nodes: list[Any], attributes: Mapping[str, Any]) -> Any:
    if name == "exists":
        return nodes[0][1] in attributes
    if name == "if_not_exists":
        return attributes[nodes[0][1]] if nodes[0][1] in attributes else _evaluate(nodes[1], attributes)
    if name == "if_else":
        return _evaluate(nodes[1 if _condition(nodes[0], attributes) else 2], attributes)
    values = [_evaluate(node, attributes) for node in nodes]
    try:
        return _FUNCTIONS[name](*values)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise error if isinstance(error, ApiError) else invalid(f"{name}: {error!r}") from error


def _init_array(size: int, kind: str, value: Any = 0) -> list[Any]:
    return [float(value) if kind == "double" else int(value)] * size


def _pairwise(function: Any) -> Any:
    return lambda a, b: [function(pair) for pair in zip(read_array(a), read_array(b), strict=True)]


_FUNCTIONS: dict[str, Any] = {
    "min": lambda *values: min(values if len(values) > 1 else read_array(values[0])),
    "max": lambda *values: max(values if len(values) > 1 else read_array(values[0])),
    "abs": abs,
    "isnan": lambda value: value != value,
    "starts": lambda text, part: text.startswith(part),
    "ends": lambda text, part: text.endswith(part),
    "contains": lambda text, part: part in text,
    "init_array": _init_array,
    "blob": base64.b64decode,
    "psum": _pairwise(sum),
    "pmin": _pairwise(min),
    "pmax": _pairwise(max),
}
