"""What `project.yaml` says: the functions by their notebooks, and what connects them.

The local runner starts the functions from it, and `project_setup.py` configures them for a cluster from it.
It is read here without MLRun, whose import costs 6 s; tests show that MLRun reads the same.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec

from modelstream.base.yamlfile import YamlFile, suggestion
from modelstream.errors import ConfigurationError
from modelstream.settings import PREFIX, folder_of

KINDS = ("job", "nuclio", "serving")
ROWS = ("", "events", "predictions")


class Function(msgspec.Struct, frozen=True):
    """A function of the project: a notebook, and how MLRun runs it."""

    name: str
    kind: str
    """One of `KINDS`."""
    url: str
    handler: str = ""


class Wiring(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"class_name": "class"}):
    """What a function reads and writes."""

    reads: str = ""
    """The stream that it consumes; a function without is a job, and one that writes none either trains a model."""
    writes: str = ""
    """The stream that it appends to."""
    log: str = ""
    """The folder, below the logs, of the Parquet log that it writes."""
    rows: str = ""
    """What its log holds."""
    step: str = ""
    """A serving function's step, which is the model's name in URLs."""
    class_name: str = ""
    """The class in a serving function's notebook."""


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The project's parameters. Paths are relative to the project's folder."""

    use_case: str
    model: str
    """Folder of the model that comes with the project: it serves while none is promoted in the registry."""
    shards: int
    streams: tuple[str, ...]
    tables: tuple[str, ...]
    logs: tuple[str, ...]
    wiring: dict[str, Wiring]
    registry: str = "artifacts/models"
    """Where registered models are: a folder, as a path or a `file://` URL, or `s3://bucket/prefix`."""


class Project(msgspec.Struct, frozen=True):
    """A project, as its file declares it."""

    folder: Path
    name: str
    params: Params
    functions: dict[str, Function]

    def notebook(self, function: str) -> Path:
        """Return the path of a function's notebook."""
        return self.folder / self.functions[function].url

    def registry(self) -> str:
        """Return where registered models are: a folder's absolute path, or `s3://bucket/prefix`.

        `MODELSTREAM_REGISTRY` in the environment goes first.
        """
        url = os.environ.get(f"{PREFIX}REGISTRY") or self.params.registry
        return url if url.startswith("s3://") else str((self.folder / folder_of(url)).resolve())

    def vectors_notebook(self) -> Path | None:
        """Return the notebook of the function that sends vectors to the model server: it has the hook `derive`."""
        wiring = self.params.wiring
        served = {wire.reads for wire in wiring.values() if wire.class_name}
        return next((self.notebook(name) for name, wire in wiring.items() if wire.writes in served), None)

    def environment(self, function: str) -> dict[str, str]:
        """Return a function's environment (see `settings`), but for the URLs of streams, tables and logs."""
        wiring = self.params.wiring[function]
        trains = not (wiring.reads or wiring.writes)
        logs = {wire.rows or "events": wire.log for wire in self.params.wiring.values() if wire.log}
        hook = self.vectors_notebook()
        values = {
            "function": function,
            "use_case": self.params.use_case,
            "shards": str(self.params.shards),
            "reads": wiring.reads,
            "writes": wiring.writes,
            "log": wiring.log,
            "rows": wiring.rows,
            "model": self.params.model if wiring.class_name or trains else "",
            "registry": self.params.registry if wiring.class_name or trains else "",
            "events_log": logs.get("events", "") if trains else "",
            "inference_log": logs.get("predictions", "") if trains else "",
            "derive": str(hook.relative_to(self.folder)) if hook and trains else "",
        }
        return {PREFIX + name.upper(): value for name, value in values.items() if value}

    def graph(self, function: str) -> dict[str, Any]:
        """Return a serving function's graph as MLRun stores it: flow topology, engine sync, one step.

        A router refuses Arrow bodies, and the async engine would take over acknowledgements and callbacks.
        """
        wiring = self.params.wiring[function]
        step = {
            "kind": "task",
            "class_name": wiring.class_name,
            "class_args": {"model_path": self.params.model, "use_case": self.params.use_case},
            "responder": True,
        }
        return {"engine": "sync", "steps": {wiring.step: step}}

    def serving_spec(self, function: str) -> str:
        """Return a serving function's `SERVING_SPEC_ENV`: what MLRun would give a worker, in brief."""
        return json.dumps(
            {
                "function_name": function,
                "function_uri": f"{self.name}/{function}",
                "project": self.name,
                "version": "v2",
                "graph": self.graph(function),
            }
        )


def load(path: str | Path = "project.yaml") -> Project:
    """Return the project that a file declares. Raises ConfigurationError: file, place and remedy."""
    path = Path(path)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}", remedy="run it in the project's folder") from None
    file = YamlFile(text, str(path))
    metadata = file.convert(file.data.get("metadata"), dict[str, str], ("metadata",))
    spec = file.convert(file.data.get("spec"), dict[str, Any], ("spec",))
    params = file.convert(spec.get("params"), Params, ("spec", "params"))
    functions = {}
    for i, value in enumerate(file.convert(spec.get("functions"), list[Any], ("spec", "functions"))):
        function = file.convert(value, Function, ("spec", "functions", i))
        if function.kind not in KINDS:
            place = ("spec", "functions", i, "kind")
            raise file.error(place, f"unknown: {function.kind!r}", suggestion(function.kind, KINDS))
        functions[function.name] = function
    _check(file, params, functions)
    return Project(path.parent, metadata.get("name", ""), params, functions)


def _check(file: YamlFile, params: Params, functions: dict[str, Function]) -> None:
    place = ("spec", "params", "wiring")
    for name in functions:
        if name not in params.wiring:
            raise file.error(place, f"no entry for the function {name!r}", f"add a line `{name}: {{…}}`")
    for name, wiring in params.wiring.items():
        if name not in functions:
            raise file.error((*place, name), "no such function", suggestion(name, functions))
        for key, value, known in (
            ("reads", wiring.reads, params.streams),
            ("writes", wiring.writes, params.streams),
            ("log", wiring.log, params.logs),
            ("rows", wiring.rows, ROWS[1:]),
        ):
            if value and value not in known:
                raise file.error((*place, name, key), f"unknown: {value!r}", suggestion(value, known))
        if (functions[name].kind == "serving") != bool(wiring.class_name and wiring.step):
            raise file.error((*place, name), "a serving function, and only that, has `step` and `class`", "give both")
