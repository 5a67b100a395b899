"""The model that comes with a project: whether it is one for the use case at all."""

from __future__ import annotations

from pathlib import Path

import msgspec

from modelstream.base.command_line import short
from modelstream.errors import ModelstreamError
from modelstream.model.spec import SPEC_FILE, parse_spec
from modelstream.project import Project
from modelstream.use_case.declared import UseCase
from modelstream.use_case.file import load_use_case


def foreign(folder: Path, use_case: UseCase) -> str:
    """Return in words why the model in a folder is another use case's; "" if it is not, or can't be read.

    It is if both its name and its features are others. One with the use case's name and other features is a mistake,
    which is told when the model is loaded.

    >>> from modelstream.project import load_project
    >>> project = load_project()
    >>> foreign(project.folder / project.params.model, load_use_case(project.use_case_file))
    ''
    """
    try:
        spec = parse_spec((folder / SPEC_FILE).read_bytes(), str(folder))
    except (OSError, ModelstreamError):
        return ""
    if spec.features == use_case.features or spec.name == use_case.model_name:
        return ""
    place = short(str(folder), str(Path.cwd()))
    return f"{place} is not used: it is the model {spec.name}, for other features than {use_case.model_name}"


def with_own_model(project: Project) -> Project:
    """Return a project without the model that its file names, if that is another use case's.

    >>> from modelstream.project import load_project
    >>> with_own_model(project := load_project()) is project
    True
    """
    model = project.params.model
    if not model or not foreign(project.folder / model, load_use_case(project.use_case_file)):
        return project
    return msgspec.structs.replace(project, params=msgspec.structs.replace(project.params, model=""))
