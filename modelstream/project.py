"""Reads `project.yaml`: the functions, each with its notebook, and what connects them.

The local runner starts the functions from it, and `project_setup.py` configures them for a cluster from it.
It is read here without MLRun, whose import costs 6 s; tests show that MLRun reads the same.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from modelstream.base.names import PLAIN_NAME
from modelstream.base.urls import folder_of
from modelstream.base.yamlfile import YamlFile, suggestion
from modelstream.errors import ConfigurationError
from modelstream.settings import KINDS_OF_STORES, PREFIX, Settings, StoreNames, StoreUrls

KINDS = ("job", "nuclio", "serving")
ROWS = ("events", "predictions")
MOST_SHARDS = 64
"""A stream can't have more: users are in so many buckets (`messages.identity.BUCKETS`)."""
TAKEN = {"streams": ("offsets",), "tables": ("registry",), "logs": KINDS_OF_STORES}
"""Names, by kind, of what every data folder has besides."""
STEP = "model"
"""The one step of a serving function's graph."""


class Function(msgspec.Struct, frozen=True):
    """A function of the project: a notebook, and how MLRun runs it."""

    name: str
    kind: str
    """One of `KINDS`."""
    url: str
    handler: str = ""


class Wiring(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"class_name": "class"}):
    """What a function reads, writes and keeps."""

    reads: str = ""
    """The stream that it consumes. A function that reads no stream is a job; a job that writes none trains a model."""
    writes: str = ""
    """The stream that it appends to."""
    table: str = ""
    """The table in which it keeps a row for every user."""
    log: str = ""
    """The folder, below the logs, of the Parquet log that it writes."""
    rows: str = ROWS[0]
    """What its log holds, one of `ROWS`."""
    class_name: str = ""
    """The class in a serving function's notebook."""


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The project's parameters. Paths are relative to the project's folder."""

    use_case: str
    shards: int
    streams: tuple[str, ...]
    tables: tuple[str, ...]
    logs: tuple[str, ...]
    wiring: dict[str, Wiring]
    model: str = ""
    """Folder of the model that comes with the project: it serves while none is promoted in the registry. "" for none.
    """
    dead_letters: str = StoreNames().dead_letters
    """The stream for rows that can never be read."""
    registry: str = "artifacts/models"
    """Where registered models are: a folder, as a path or a `file://` URL, or `s3://bucket/prefix`."""
    chain: dict[str, Any] = {}
    """What `project_setup.py` adds for the workflow, and MLRun may save; it is not read here."""
    deployment: dict[str, Any] = {}
    """What `deploy` adds, likewise."""


class Chain(msgspec.Struct, frozen=True):
    """The functions in the order in which an event passes them: it follows from what they read and write.

    >>> chain_of({"b": Wiring(reads="x", writes="y"), "a": Wiring(writes="x"), "c": Wiring(reads="y"), "t": Wiring()})
    Chain(source='a', consumers=('b', 'c'), trainer='t')
    """

    source: str
    """The job that sends events."""
    consumers: tuple[str, ...]
    """The functions between streams, from the first to the last."""
    trainer: str = ""
    """The job that trains a model, if there is one."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data for `workflow.py`, which can't import the library."""
        return msgspec.structs.asdict(self) | {"consumers": [*self.consumers]}


def chain_of(wiring: Mapping[str, Wiring]) -> Chain:
    """Return the chain of functions that a project's wiring makes.

    Raises ValueError(function, problem) where the functions don't make one chain.
    """
    sources = [name for name, wire in wiring.items() if wire.writes and not wire.reads]
    if not sources:
        raise ValueError("", "no function only writes: one must have `writes` and no `reads`, to send the events")
    if len(sources) > 1:
        raise ValueError(sources[1], f"also sends events: {sources[0]} does so already")
    consumers: list[str] = []
    stream = wiring[sources[0]].writes
    while stream and (found := [name for name, wire in wiring.items() if wire.reads == stream]):
        if len(found) > 1:
            raise ValueError(found[1], f"reads {stream}, which {found[0]} reads already")
        if found[0] in consumers:
            raise ValueError(found[0], f"reads {stream}, which goes back to it through other functions (a cycle)")
        consumers.append(found[0])
        stream = wiring[found[0]].writes
    trainers = [name for name, wire in wiring.items() if wire == Wiring()]
    if stray := [name for name in wiring if name not in (*sources, *consumers, *trainers[:1])]:
        wire = wiring[stray[0]]
        aside = f"reads {wire.reads}, which no event reaches" if wire.reads else "reads no stream, and sends no events"
        raise ValueError(
            stray[0], "is a second job without streams: only one may train a model" if wire == Wiring() else aside
        )
    return Chain(sources[0], tuple(consumers), next(iter(trainers), ""))


class Project(msgspec.Struct, frozen=True):
    """A project, as its file declares it."""

    folder: Path
    name: str
    params: Params
    functions: dict[str, Function]
    chain: Chain
    file: Path = Path("project.yaml")

    @property
    def use_case_file(self) -> Path:
        """The path of the use-case file."""
        return self.folder / self.params.use_case

    @property
    def names(self) -> StoreNames:
        """What the things that every pipeline keeps are called."""
        wiring = [self.params.wiring[name] for name in self.chain.consumers]
        logs = {wire.rows: wire.log for wire in wiring if wire.log}
        return StoreNames(
            features=next(wire.table for wire in wiring if wire.table),
            dead_letters=self.params.dead_letters,
            events_log=logs["events"],
            inference_log=logs["predictions"],
        )

    @property
    def server(self) -> str:
        """The function that serves the model."""
        return next(name for name in self.chain.consumers if self.functions[name].kind == "serving")

    @property
    def predictions(self) -> str:
        """The stream that the model's predictions are sent to."""
        return self.params.wiring[self.server].writes

    def reads(self, function: str) -> str:
        """Return the stream that a function consumes."""
        return self.params.wiring[function].reads

    def readers(self) -> dict[str, list[str]]:
        """Return the functions that consume each stream; a stream that nobody reads is not among them."""
        return {self.reads(name): [name] for name in self.chain.consumers}

    def notebook(self, function: str) -> Path:
        """Return the path of a function's notebook."""
        return self.folder / self.functions[function].url

    def registry(self) -> str:
        """Return where registered models are: a folder's absolute path, or `s3://bucket/prefix`.

        `MODELSTREAM_REGISTRY` in the environment overrides it. Raises ConfigurationError for any other URL.
        """
        url = os.environ.get(f"{PREFIX}REGISTRY") or self.params.registry
        return url if url.startswith("s3://") else str((self.folder / folder_of(url)).resolve())

    def vectors_notebook(self) -> Path:
        """Return the notebook of the function that sends vectors to the model server: it has the hook `derive`."""
        reads = self.reads(self.server)
        return next(self.notebook(name) for name, wire in self.params.wiring.items() if wire.writes == reads)

    def settings(
        self,
        function: str,
        urls: StoreUrls = StoreUrls(),  # noqa: B008 (it is frozen)
        *,
        folder: str | Path = "",
        registry: str = "",
        shards: int = 0,
    ) -> Settings:
        """Return the settings of a function, or of a job that `project.yaml` doesn't know.

        `folder` is where the project's files are for the function's process; `registry` and `shards` are those of
        `project.yaml` unless others are given.
        """
        wiring = self.params.wiring.get(function, Wiring())
        trains = function == self.chain.trainer
        hook = self.vectors_notebook() if trains else None

        def at(path: str) -> str:
            return str(Path(folder) / path) if folder and path else path

        return Settings(
            function=function,
            use_case=at(self.params.use_case),
            streams=urls.streams,
            tables=urls.tables,
            logs=urls.logs,
            reads=wiring.reads,
            writes=wiring.writes,
            rows=wiring.rows,  # type: ignore[arg-type]  # it is checked when the file is read
            **msgspec.structs.asdict(self.names),
            derive=at(str(hook.relative_to(self.folder))) if hook else "",
            model=at(self.params.model) if wiring.class_name or trains else "",
            registry=(registry or self.params.registry) if wiring.class_name or trains else "",
            shards=shards or self.params.shards,
        )

    def graph(self, function: str) -> dict[str, Any]:
        """Return a serving function's graph as MLRun stores it: flow topology, engine sync, one step.

        A router refuses Arrow bodies, and the async engine would take over acknowledgements and callbacks.
        """
        model = {"model_path": self.params.model} if self.params.model else {}
        step = {
            "kind": "task",
            "class_name": self.params.wiring[function].class_name,
            "class_args": {**model, "use_case": self.params.use_case},
            "responder": True,
        }
        return {"engine": "sync", "steps": {STEP: step}}

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


def default_file() -> Path:
    """Return the path of the project's file: beside the `pipeline.py` that was started, or else of this library."""
    beside = Path(sys.argv[0]).resolve().with_name("project.yaml")
    return beside if beside.exists() else Path(__file__).resolve().parents[1] / "project.yaml"


def load_project(path: str | Path | None = None) -> Project:
    """Return the project that a file declares, by default that of `default_file`.

    Raises ConfigurationError: file, place and remedy.
    """
    path = Path(path) if path is not None else default_file()
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror or error}", remedy="run the command in the project's folder"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8: {error}", remedy="save the file as UTF-8") from None
    file = YamlFile(text, str(path))
    metadata = file.convert(file.data.get("metadata"), dict[str, str], ("metadata",))
    spec = file.convert(file.data.get("spec"), dict[str, Any], ("spec",))
    _check_wiring(file, spec.get("params"))
    params = file.convert(_without_empty_model(spec.get("params")), Params, ("spec", "params"))
    functions = {}
    for i, value in enumerate(file.convert(spec.get("functions"), list[Any], ("spec", "functions"))):
        function = file.convert(value, Function, ("spec", "functions", i))
        if function.kind not in KINDS:
            place = ("spec", "functions", i, "kind")
            raise file.error(place, f"unknown: {function.kind!r}", suggestion(function.kind, KINDS))
        functions[function.name] = function
    if not 1 <= params.shards <= MOST_SHARDS:
        problem = f"a stream can't have {params.shards} shards"
        raise file.error(("spec", "params", "shards"), problem, f"give 1 to {MOST_SHARDS}")
    _check_names(file, params)
    _check(file, params, functions)
    try:
        chain = chain_of(params.wiring)
    except ValueError as error:
        name, problem = error.args
        place = ("spec", "params", "wiring", *([name] if name else []))
        raise file.error(
            place, problem, "connect the functions to one chain: each reads the stream that one other writes"
        ) from None
    _check_parts(file, params, functions, chain)
    return Project(path.parent, metadata.get("name", ""), params, functions, chain, path)


def _without_empty_model(params: object) -> object:
    """Return the params; `model:` with nothing behind it, which is null in YAML, means the same as no such line."""
    if isinstance(params, dict) and params.get("model") is None:
        return {name: value for name, value in params.items() if name != "model"}
    return params


def _check_parts(file: YamlFile, params: Params, functions: dict[str, Function], chain: Chain) -> None:
    """Check that the chain has one function for each thing that every pipeline has."""
    wiring = {name: params.wiring[name] for name in chain.consumers}
    for what, found, remedy in (
        ("serves the model", [n for n in wiring if functions[n].kind == "serving"], "give one `kind: serving`"),
        ("keeps the users' features", [n for n, w in wiring.items() if w.table], "give one `table: NAME`"),
        *(
            (
                f"logs {rows}",
                [n for n, w in wiring.items() if w.log and w.rows == rows],
                f"give one `log: NAME, rows: {rows}`",
            )
            for rows in ROWS
        ),
    ):
        if len(found) != 1:
            names = f"{' and '.join(found)} both do" if found else "none does"
            place = ("spec", "params", "wiring", *found[1:2])
            raise file.error(place, f"exactly one function {what}, and {names}", remedy)


def _check_wiring(file: YamlFile, params: object) -> None:
    """Convert each entry by itself, so that an error can name the function that it is about."""
    wiring = params.get("wiring") if isinstance(params, dict) else None
    for name, wire in wiring.items() if isinstance(wiring, dict) else ():
        file.convert(wire, Wiring, ("spec", "params", "wiring", name))


def _check_names(file: YamlFile, params: Params) -> None:
    for kind in KINDS_OF_STORES:
        for i, name in enumerate(getattr(params, kind)):
            place = ("spec", "params", kind, i)
            if getattr(params, kind).index(name) != i:
                raise file.error(place, f"{name!r} stands there twice", "leave one out")
            if not PLAIN_NAME.fullmatch(name):
                remedy = "use letters, digits, - and _, beginning with a letter or digit"
                raise file.error(place, f"{name!r} can't name one of the {kind}", remedy)
            if name.lower() in TAKEN[kind]:  # lower: some file systems take both for one
                problem = f"{name!r} is a {'folder' if kind == 'logs' else 'file'} that every data folder has"
                raise file.error(place, problem, f"give this one of the {kind} another name")


def _check(file: YamlFile, params: Params, functions: dict[str, Function]) -> None:
    if params.dead_letters not in params.streams:
        place = ("spec", "params", "dead_letters")
        raise file.error(place, f"unknown: {params.dead_letters!r}", suggestion(params.dead_letters, params.streams))
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
            ("table", wiring.table, params.tables),
            ("log", wiring.log, params.logs),
            ("rows", wiring.rows, ROWS),
        ):
            if value and value not in known:
                raise file.error((*place, name, key), f"unknown: {value!r}", suggestion(value, known))
        if (functions[name].kind == "serving") != bool(wiring.class_name):
            remedy = "give `class: NAME`, of the class in its notebook, to a serving function, and to no other"
            raise file.error((*place, name), "exactly the serving functions need a `class`", remedy)
        if wiring.rows != ROWS[0] and not wiring.log:
            raise file.error((*place, name, "rows"), "says what a log holds, and there is no `log`", "add `log: NAME`")
        if params.dead_letters in (wiring.reads, wiring.writes):
            problem = f"the stream {params.dead_letters!r} is for dead letters only"
            raise file.error((*place, name), problem, "give the function another stream")
