"""Lets MLRun convert the project's notebooks in this process.

MLRun starts a process for each, of about two seconds, and for some notebooks two.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml


@contextmanager
def in_this_process() -> Iterator[None]:
    """While it is open, let nuclio-jupyter call its exporter instead of starting `nbconvert` with it."""
    build: Any = importlib.import_module("nuclio.build")
    theirs = build.build_notebook
    build.build_notebook = _build_notebook
    try:
        yield
    finally:
        build.build_notebook = theirs


def _build_notebook(
    nb_file: str,
    no_embed: bool = False,  # noqa: ARG001  used for archives, which `deploy` has none of
    tag: str = "",  # noqa: ARG001
    name: str = "",
    ignored_tags: str = "",
) -> tuple[dict[str, Any], str]:
    """Do what `nuclio.build.build_notebook` does; the code is within the configuration that is returned."""
    export: Any = importlib.import_module("nuclio.export")
    told = {export.env_keys.function_name: name, export.env_keys.ignored_tags: ignored_tags}
    before = dict(os.environ)
    os.environ |= told  # its parameters
    for left_by_another in (export.archive_settings, export.env_files, export.handlers):
        left_by_another.clear()
    try:
        configuration, _ = export.NuclioExporter().from_filename(nb_file)
    finally:
        for variable in told:
            os.environ.pop(variable)
            if variable in before:
                os.environ[variable] = before[variable]
    return yaml.safe_load(configuration), ""
