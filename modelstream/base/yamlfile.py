"""Read a YAML file as people write them: every error names the file, the line, the place and a remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from typing import Any, TypeVar

import msgspec
import yaml

from modelstream.errors import ConfigurationError

T = TypeVar("T")
Place = tuple[str | int, ...]
"""The way from the top of a file to a value: keys, and indices of lists."""


def suggestion(word: object, known: Iterable[object]) -> str:
    """Return what was probably meant, and what is known.

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
            remedy = "mend the line, or the one before it"
            raise ConfigurationError(f"{where}: not YAML: {problem}", remedy=remedy) from None
        if not isinstance(data, dict):
            raise self.error((), "not a mapping of names to values", "write lines such as `version: 1`")
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
                    raise self.error(inner, "stands here a second time", "keep one of the two")
                self._lines[inner] = key.start_mark.line + 1
                self._note_lines(inner, value)

    def error(self, place: Place, problem: str, remedy: str) -> ConfigurationError:
        """Return the error to raise: `problem` at `place`, and what to do about it."""
        where = [self.source]
        for length in range(len(place), 0, -1):  # a place that is missing: the line of what should hold it
            if place[:length] in self._lines:
                where.append(f"line {self._lines[place[:length]]}")
                break
        if place:
            where.append(".".join(map(str, place)))
        return ConfigurationError(f"{', '.join(where)}: {problem}", remedy=remedy)

    def convert(self, value: object, kind: type[T], place: Place = ()) -> T:
        """Return the value that stands at `place` as `kind`: a msgspec Struct, an enum, or a plain type."""
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            problem, _, path = str(error).partition(" - at `$")
            inner: list[str] = [part for part in re.split(r"[.\[\]`]+", path) if part]
            if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", problem):
                inner.append(unknown[1])
            raise self.error((*place, *inner), *_explained(problem, value, kind)) from None


def _explained(problem: str, value: object, kind: type[Any]) -> tuple[str, str]:
    """Return (problem, remedy) in the words of someone who writes the file."""
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", problem):
        fields: Collection[str] = [field.encode_name for field in msgspec.structs.fields(kind)]
        return "unknown name", suggestion(unknown[1], fields)
    if missing := re.fullmatch(r"Object missing required field `(.*)`", problem):
        return f"{missing[1]!r} is missing", f"add a line `{missing[1]}: …`"
    if problem.startswith("Invalid enum value"):
        return f"{value!r} is unknown", suggestion(value, [member.value for member in kind])
    return problem[:1].lower() + problem[1:].replace("`", ""), "give a value of the right type"
