"""The project as a command works with it: with the use case that was chosen for it, or for the data folder."""

from __future__ import annotations

from pathlib import Path

import msgspec

from modelstream import project as projects
from modelstream.project import Project
from modelstream.runner.data_folder import read_marker
from modelstream.use_case.file import load_use_case
from modelstream.use_case.lookups import lookup_tables


def project_for(data: Path | None = None, use_case: Path | None = None) -> Project:
    """Return the project with a use-case file: the one that is given, that of the data folder, or its own.

    Raises ConfigurationError.

    >>> project = project_for()
    >>> project_for(use_case=project.use_case_file) == project
    True
    """
    project = projects.load_project()
    if use_case is None and data is not None and (marker := read_marker(data.resolve())) is not None:
        use_case = Path(marker.use_case_file) if marker.use_case_file else None
    return project if use_case is None else with_use_case(project, use_case)


def with_use_case(project: Project, file: Path) -> Project:
    """Return a project with another use-case file, and with the tables that it looks up.

    Raises ConfigurationError for a file that can't be read. `project_for` has an example.
    """
    path = file.expanduser().resolve()
    if path == project.use_case_file.resolve():
        return project
    tables = dict.fromkeys((*project.params.tables, *lookup_tables(load_use_case(path))))
    params = msgspec.structs.replace(project.params, use_case=str(path), tables=tuple(tables))
    return msgspec.structs.replace(project, params=params)
