"""The compiled workflow, as Argo itself judges it: by its linter, or by the JSON schema in its repository."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelstream.cluster.compiler import Compiler
from tests.cluster.deploying import KINDS, ROOT, loaded

pytestmark = pytest.mark.xdist_group("mlrun")

SCHEMA = "MODELSTREAM_ARGO_SCHEMA"
"""The variable with the path of api/jsonschema/schema.json of Argo's repository, which is not part of this one."""

EITHER = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
"""Which the schema calls text, while Argo reads both."""


def closed(schema: Any) -> Any:
    """Return Argo's schema as its server reads a workflow: no property that it doesn't name."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(value) for name, value in schema.items()}
    is_object = isinstance(schema.get("properties"), dict) and "type" in schema
    return inner | ({"additionalProperties": False} if is_object else {})


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("kind", KINDS)
def test_workflow_is_one_that_argo_takes(kind: str, written: dict[str, Any], tmp_path: Path) -> None:
    linter, schema = shutil.which("argo"), os.environ.get(SCHEMA)
    if not (linter or schema):
        pytest.skip(f"neither Argo's linter is installed nor does {SCHEMA} name its schema")
    file = tmp_path / "workflow.yaml"
    with Compiler(ROOT, str(file)) as process:
        loaded(written, kind).compile(process)
    if linter:
        done = subprocess.run([linter, "lint", "--offline", str(file)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    if schema:
        jsonschema: Any = importlib.import_module("jsonschema")

        found = closed(json.loads(Path(schema).read_text()))
        found["definitions"][EITHER]["type"] = ["string", "integer"]
        kept = {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": found["definitions"]}
        of_a_workflow = {"$ref": "#/definitions/io.argoproj.workflow.v1alpha1.Workflow"}
        jsonschema.validate(yaml.safe_load(file.read_text()), kept | of_a_workflow)
