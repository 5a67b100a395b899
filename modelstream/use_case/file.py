"""Reads use-case files: YAML, such as those in `use_cases/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from modelstream.base.yamlfile import YamlFile
from modelstream.errors import ConfigurationError
from modelstream.use_case.declared import Field, FieldType, ModelDeclaration, Profile, Unit, UseCase
from modelstream.use_case.version_1 import EventV1, LabelV1, LookupV1, UseCaseV1, WindowV1, translated
from modelstream.use_case.vocabulary import Statistic

VERSION = 2
"""The newest version of use-case files."""


def load_use_case(path: Path | str) -> UseCase:
    """Return the use case that a file declares.

    Raises ConfigurationError: the file, the place in it, and a remedy.
    """
    try:
        text = Path(path).read_text("utf-8")
    except OSError as error:
        problem = f"the use-case file {path} can't be read: {error.strerror or error}"
        raise ConfigurationError(problem, remedy="give the path of a use-case file") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8: {error}", remedy="save the file as UTF-8") from None
    return parse_use_case(text, str(path))


def parse_use_case(text: str, source: str = "use case") -> UseCase:
    """Return the use case that YAML text declares.

    `source` is what errors call it. Raises ConfigurationError.

    >>> lines = '''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count],
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {reading: {value: celsius, aliases: [measured]}}, predict_on: [reading],
    ...  model: {name: frost, prediction: will_freeze}}'''
    >>> use_case = parse_use_case(lines)
    >>> use_case.features
    ('reading_mean', 'reading_count')
    >>> use_case.event_codes
    {'reading': 0, 'measured': 0}
    """
    file = YamlFile(text, source)
    version = file.data.get("version")
    if type(version) is int and version > VERSION:
        problem = f"{version} is newer than {VERSION}, the newest known here"
        raise file.error(("version",), problem, "update modelstream")
    _check_parts(file)
    return translated(file.convert(file.data, UseCaseV1))


def _check_parts(file: YamlFile) -> None:
    """Convert each part by itself, so that an error can name the event or field that it is about."""
    parts: dict[str, type[msgspec.Struct]] = {"profile": Profile, "lookup": LookupV1, "window": WindowV1}
    parts |= {"label": LabelV1, "model": ModelDeclaration}
    for name, kind in parts.items():
        if file.data.get(name) is not None:
            file.convert(file.data[name], kind, (name,))
    for name, value in _items(file.data.get("fields")):
        if not isinstance(value, dict):
            file.convert(value, FieldType, ("fields", name))
            continue
        if value.get("type") is not None:
            file.convert(value["type"], FieldType, ("fields", name, "type"))
        if value.get("epoch") is not None:
            file.convert(value["epoch"], Unit, ("fields", name, "epoch"))
        file.convert(value, Field, ("fields", name))
    for name, value in _items(file.data.get("events")):
        if value is None:  # `login:` declares an event without further details
            value = file.data["events"][name] = {}
        file.convert(value, EventV1, ("events", name))
    statistics = file.data.get("statistics")
    for index, value in enumerate(statistics if isinstance(statistics, list) else ()):
        file.convert(value, Statistic, ("statistics", index))


def _items(part: object) -> list[tuple[str, Any]]:
    return list(part.items()) if isinstance(part, dict) else []
