"""What the data in a folder mean: the use case, and how the project's functions are wired. A folder remembers it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from modelstream.base.yamlfile import YamlFile
from modelstream.errors import ConfigurationError
from modelstream.project import Project
from modelstream.use_case.declared import UseCase
from modelstream.use_case.file import load_use_case
from modelstream.use_case.lookups import lookup_tables
from modelstream.use_case.meaning import Difference, Meaning, changes, differences, digest, meaning_of, use_case_of


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """The definition that made the data of a folder."""

    hash: str
    use_case: Meaning
    project: dict[str, Any]
    """By place in `project.yaml`, below `spec.params`: the stream of dead letters, and what each function reads, writes
    and keeps."""

    @property
    def meaning(self) -> str:
        """The hash of the use case's meaning alone."""
        return digest(self.use_case)

    @property
    def names(self) -> dict[str, set[str]]:
        """The names of the streams, tables and logs that the functions use, by kind."""
        wiring: list[dict[str, str]] = [*self.project["wiring"].values()]

        def named(*keys: str) -> set[str]:
            return {wire[key] for wire in wiring for key in keys if key in wire}

        looked_up = lookup_tables(use_case_of(self.use_case))
        return {
            "streams": {*named("reads", "writes"), self.project["dead_letters"]},
            "tables": {*named("table"), *looked_up},
            "logs": named("log"),
        }


def definition_of(project: Project) -> Definition:
    """Return the definition of a project. Raises ConfigurationError for a use case that can't be read."""
    meaning = meaning_of(load_use_case(project.use_case_file))
    kept = ("reads", "writes", "table", "log", "rows")
    wiring = {}
    for name in (project.chain.source, *project.chain.consumers):
        wire = msgspec.to_builtins(project.params.wiring[name])
        wiring[name] = {key: wire[key] for key in kept if wire[key] and (key != "rows" or wire["log"])}
    wired = {"dead_letters": project.params.dead_letters, "wiring": wiring}
    return Definition(hash=digest({"use_case": meaning, "project": wired}), use_case=meaning, project=wired)


def check(path: Path, made_with: Definition, project: Project) -> None:
    """Raise ConfigurationError, with each difference, if a folder's data mean something else than the project's."""
    now = definition_of(project)
    if now.hash == made_with.hash:
        return
    use_case: UseCase = load_use_case(project.use_case_file)
    found = _located(differences(use_case_of(made_with.use_case), use_case), project.use_case_file, project)
    wired = [Difference(("spec", "params", *each.place), each.text) for each in changes(made_with.project, now.project)]
    found += _located(wired, project.file, project)
    if not found:
        return
    listed = f" {found[0]}" if len(found) == 1 else "".join(f"\n  {one}" for one in found)
    raise ConfigurationError(
        f"the data in {path} were made with another definition:{listed}",
        remedy="put it back; or give another --data; or start over with run --fresh, which deletes the data",
    )


def _located(found: Sequence[Difference], file: Path, project: Project) -> list[str]:
    """Return differences in words, each with the line of the file where it stands."""
    if not found:
        return []
    yaml = YamlFile(file.read_text("utf-8"), str(file))
    shown = file.relative_to(project.folder) if file.is_relative_to(project.folder) else file
    lines = [(one.text, yaml.line(one.place)) for one in found]
    return [f"{text} ({shown}{f': line {line}' if line else ''})" for text, line in lines]
