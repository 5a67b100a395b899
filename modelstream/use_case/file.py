"""Reads use-case files: YAML, such as those in `use_cases/`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from modelstream.base.yamlfile import YamlFile
from modelstream.errors import ConfigurationError
from modelstream.use_case import check, check_features, check_version_1, version_1, version_2
from modelstream.use_case.check import Problem
from modelstream.use_case.declared import UseCase

VERSION = 2
"""The newest version of use-case files."""


def load_use_case(path: Path | str) -> UseCase:
    """Return the use case that a file declares.

    Raises ConfigurationError: the file, the place in it, and a remedy.
    """
    return parse_use_case(read_text(path), str(path), Path(path).parent)


def read_text(path: Path | str) -> str:
    """Return the text of a use-case file. Raises ConfigurationError.

    `mistakes` takes it; `pipeline.py check` is an example.
    """
    try:
        return Path(path).read_text("utf-8")
    except OSError as error:
        problem = f"the use-case file {path} can't be read: {error.strerror or error}"
        raise ConfigurationError(problem, remedy="give the path of a use-case file") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8: {error}", remedy="save the file as UTF-8") from None


def parse_use_case(text: str, source: str = "use case", folder: Path | None = None) -> UseCase:
    """Return the use case that YAML text declares.

    `source` is what errors call it; paths in it begin in `folder`. Raises ConfigurationError for the first mistake.

    >>> lines = '''
    ... {version: 2, name: heating, key: house, time: at, type: kind,
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {reading: {needs: [celsius], aliases: [measured]}}, predict_on: [reading],
    ...  features: {reading: {of: reading, value: celsius, give: [mean, count]}},
    ...  model: {name: frost, prediction: will_freeze}}'''
    >>> use_case = parse_use_case(lines)
    >>> use_case.features
    ('reading_mean', 'reading_count')
    >>> use_case.event_codes
    {'reading': 0, 'measured': 0}
    """
    file = YamlFile(text, source)
    errors = version_2.Errors()
    use_case, found = _read(file, folder, errors)
    if errors:
        raise errors[0]
    for problem in found:
        raise file.error(*problem)
    assert use_case is not None
    return use_case


def mistakes(text: str, source: str = "use case", folder: Path | None = None) -> list[ConfigurationError]:
    """Return every mistake in YAML text that declares a use case, in the order of its lines; none if there is none.

    Of a part whose form can't be read, the first. Whether the parts fit together is told where all but features can be
    read.

    >>> for mistake in mistakes("{version: 2, name: a b, key: k, time: t, type: x}"): print(mistake)
    use case: 'fields' is missing
    use case: 'events' is missing
    use case: 'predict_on' is missing
    use case: 'model' is missing
    """
    errors = version_2.Errors()
    with errors:
        file = YamlFile(text, source)
        _, found = _read(file, folder, errors)
        errors += [file.error(*problem) for problem in found]
    return sorted(errors, key=_line)


def _line(error: ConfigurationError) -> int:
    found = re.search(r", line ([0-9]+)", str(error))
    return int(found[1]) if found else 0


def _read(file: YamlFile, folder: Path | None, errors: version_2.Errors) -> tuple[UseCase | None, Iterator[Problem]]:
    """Return a use case, and what is wrong in it; note in `errors` what can't be read.

    None where a mistake keeps it from being made.
    """
    version = file.data.get("version")
    if type(version) is int and version > VERSION:
        problem = f"{version} is newer than {VERSION}, the newest known here"
        raise file.error(("version",), problem, "update modelstream")
    if type(version) is int and version == VERSION:
        use_case = version_2.read(file, folder, errors)
        return use_case, _problems(use_case, whole=not errors) if use_case else iter(())
    old = version_1.read(file, errors)
    if old is None:
        return None, iter(())
    before = [*check_version_1.problems(old)]
    if before:
        return None, iter(before)
    use_case = version_1.translated(old)
    return use_case, _problems(use_case)


def _problems(use_case: UseCase, *, whole: bool = True) -> Iterator[Problem]:
    """Yield what is wrong in a use case; not `whole` is one without the features that can't be read."""
    found = [*check.problems(use_case), *check_features.problems(use_case)]
    if not whole:
        found = [one for one in found if one[0] != ("features",) and one[0][-1:] != ("compute",)]
    yield from found
    if whole and not found:  # what follows from the parts can be made
        yield from check.columns(use_case)
