"""Reads YAML files that people write: every error names the file, the line, the place and a remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
import yaml

from modelstream.errors import ConfigurationError

T = TypeVar("T")
Place = tuple[str | int, ...]
"""The way from the top of a file to a value: keys, and indices of lists."""

_TOLD = re.compile(r"(.*?)(?: - at (`key` in )?`\$(.*)`)?", re.DOTALL)
"""An error of msgspec: what is wrong, and the way there, `.parts[1].size`; `[...]` stands for any key of a mapping."""
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_OTHER_TYPE = re.compile(r"Expected `(.*)`, got `(.*)`")
OTHERS = "to YAML, no, on, 1 and 2026-01-01 are of other types"
"""Why quotes are needed."""
_PART = re.compile(r"(?<=\[)\.\.\.|[^.\[\]]+")


def suggestion(word: object, known: Iterable[object]) -> str:
    """Return a hint: the known name that was probably meant, and all known names.

    >>> suggestion("meen", ["sum", "mean"])
    "did you mean 'mean'? known: sum, mean"
    """
    names = [str(name) for name in known]
    close = difflib.get_close_matches(str(word), names, 1)
    listed = "known: " + (", ".join(names) or "none")
    return f"did you mean {close[0]!r}? {listed}" if close else listed


class YamlFile:
    """A mapping read from YAML text, with the line of each of its values.

    >>> file = YamlFile("window:\\n  hours: -1", "tiny.yaml")
    >>> print(file.error(("window", "hours"), "-1 is not above 0", "give a number of hours"))
    tiny.yaml, line 2, window.hours: -1 is not above 0
    """

    def __init__(self, text: str, source: str) -> None:
        """Parse `text`; `source` is what errors call it. Raises ConfigurationError."""
        self.source = source
        self._lines: dict[Place, int] = {}
        try:
            node = yaml.compose(text, yaml.SafeLoader)
            if node is not None:
                self._note_lines((), node)
            data = yaml.safe_load(text)
        except RecursionError:  # thousands of brackets, or an alias of what it stands in
            raise ConfigurationError(f"{source}: nested too deeply", remedy="write it flat") from None
        except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date
            mark = getattr(error, "problem_mark", None)
            problem = getattr(error, "problem", None) or str(error)
            where = f"{source}, line {mark.line + 1}" if mark else source
            remedy = "correct this line, or the one before it"
            raise ConfigurationError(f"{where}: not YAML: {problem}", remedy=remedy) from None
        if not isinstance(data, dict):
            raise self.error((), "the file is not a mapping of names to values", "write lines such as `version: 1`")
        self.data: dict[str, Any] = data

    def _note_lines(self, place: Place, node: yaml.Node) -> None:
        self._lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self._note_lines((*place, index), item)
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*place, key.value)
                if inner in self._lines:
                    self._lines[inner] = key.start_mark.line + 1
                    raise self.error(inner, "appears here a second time", "keep one of the two")
                self._lines[inner] = key.start_mark.line + 1
                self._note_lines(inner, value)

    def line(self, place: Place) -> int | None:
        """Return the line of a value; of one that is missing, that of what should hold it; None for the whole file."""
        known = (self._lines.get(place[:length]) for length in range(len(place), 0, -1))
        return next(filter(None, known), None)

    def error(self, place: Place, problem: str, remedy: str) -> ConfigurationError:
        """Return the error to raise: `problem` at `place`, and what to do about it."""
        where = [self.source]
        if line := self.line(place):
            where.append(f"line {line}")
        if place:
            where.append(".".join(map(str, place)))
        return ConfigurationError(f"{', '.join(where)}: {problem}", remedy=remedy)

    def convert(self, value: object, kind: type[T], place: Place = ()) -> T:
        """Return the value that stands at `place` as `kind`: a msgspec Struct, an enum, or a plain type.

        Raises ConfigurationError. What is known in a part is told only if the part is converted by itself.
        """
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            problem, name, path = _TOLD.fullmatch(str(error)).groups(default="")  # type: ignore[union-attr]
            inner: list[str | int] = [int(part) if part.isdecimal() else part for part in _PART.findall(path)]
            if name:
                remedy = f"put the name in quotes: {OTHERS}"
                raise self.error((*place, *inner), "holds a name that is not text", remedy) from None
            explained = _explained(problem, value, None if inner else kind)
            if unknown := _UNKNOWN.fullmatch(problem):
                inner.append(unknown[1])
            raise self.error((*place, *inner), *explained) from None


def _explained(problem: str, value: object, kind: type[Any] | None) -> tuple[str, str]:
    """Return (problem, remedy) in the words of someone who writes the file; without `kind`, of a part of the value."""
    if unknown := _UNKNOWN.fullmatch(problem):
        if kind is None:
            return "unknown name", "mend it, or leave it out"
        return "unknown name", suggestion(unknown[1], [field.encode_name for field in msgspec.structs.fields(kind)])
    if missing := re.fullmatch(r"Object missing required field `(.*)`", problem):
        return f"{missing[1]!r} is missing", f"add a line `{missing[1]}: …`"
    if kind and problem.startswith("Invalid enum value"):
        return f"{value!r} is unknown", suggestion(value, [member.value for member in kind])
    remedy = "give a value of the right type"
    if found := _OTHER_TYPE.fullmatch(problem):
        if "str" in found[1].split(" | ") and found[2] in ("bool", "int", "float", "date", "datetime"):
            remedy += f": text, in quotes ({OTHERS})"
        elif "array" in found[1].split(" | "):
            remedy += ": a list, such as [a, b]"
    return problem[:1].lower() + problem[1:].replace("`", ""), remedy
