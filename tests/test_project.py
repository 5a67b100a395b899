"""The project file: read alike by us and by MLRun, and MLRun's own text of each function runs.

Everything that imports MLRun (6 s) is here, so that it is imported in one test process.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import io
import itertools
import json
import re
import shlex
import shutil
import tempfile
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nuclio_sdk
import nuclio_sdk.logger
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream import __version__, notebooks
from modelstream.errors import ConfigurationError
from modelstream.http.app import Edge, create_app
from modelstream.http.intake import Intake
from modelstream.http.server import HttpServer, bind
from modelstream.messages import codec
from modelstream.model.onnx import as_input, load_model
from modelstream.model.spec import read_spec
from modelstream.project import Chain, Wiring, chain_of, load_project
from modelstream.registry import watch as model_watch
from modelstream.registry.registry import Registry
from modelstream.runner import rpc
from modelstream.runner.metrics import Exporter
from modelstream.stages import model_server
from modelstream.stages.counters import ServedModel
from modelstream.streams import open_streams
from modelstream.tables import open_tables
from modelstream.use_case.file import load_use_case
from tests.model_files import directory, folder_of, probability_of
from tests.required import required_python

pytestmark = pytest.mark.xdist_group("mlrun")

ROOT = Path(__file__).parents[1]
DECLARED = load_project(ROOT / "project.yaml")
CHURN = load_use_case(ROOT / DECLARED.params.use_case)
SHIPPED = ROOT / DECLARED.params.model


# As we read it.


def changed(tmp_path: Path, old: str, new: str) -> Path:
    """Return the path of a copy of the project's file with one change."""
    text = (ROOT / "project.yaml").read_text()
    assert text.count(old) == 1
    path = tmp_path / "project.yaml"
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize("line", ["", "    model:\n", "    model: ''\n"])
def test_project_without_a_model_has_a_graph_without_one(tmp_path: Path, line: str) -> None:
    (given,) = [one for one in (ROOT / "project.yaml").read_text().splitlines(True) if one.startswith("    model: ")]
    project = load_project(changed(tmp_path, given, line))
    assert project.params.model == ""
    assert project.graph("model-server")["steps"]["model"]["class_args"] == {"use_case": DECLARED.params.use_case}
    assert "MODELSTREAM_MODEL" not in project.settings("model-server", folder="/somewhere").environment()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("shards: 8 ", "shards: eight ", "line 13, spec.params.shards: expected int, got str"),
        ("writes: serving,", "writes: servin,", "writes: unknown: 'servin' (did you mean 'serving'?"),
        ("rows: predictions", "rows: prediction", "rows: unknown: 'prediction' (did you mean 'predictions'?"),
        ("log: events}", "log: event}", "log: unknown: 'event' (did you mean 'events'?"),
        ("  data-generator: {", "  generator: {", "spec.params.wiring: no entry for the function 'data-generator'"),
        ("      model-server: {", "      other: {}\n      model-server: {", "other: no such function"),
        (", class: Model", "", "wiring.model-server: exactly the serving functions"),
        ("kind: serving", "kind: severing", "functions.3.kind: unknown: 'severing' (did you mean 'serving'?"),
        ("    model: assets", "    models: assets", "params.models: unknown name (did you mean 'model'?"),
        ("  params:\n", "  params: [\n", "not YAML"),
        (", log: events}", "}", "wiring: exactly one function logs events, and none does"),
        (", rows: predictions", "", "wiring.inference-logger: exactly one function logs events, and event-handler and"),
        (
            "writes: inference, class",
            "writes: inference, rows: predictions, class",
            "rows: says what a log holds",
        ),
        (", table: features", "", "wiring: exactly one function keeps the users' features, and none does"),
        (
            "model-server, kind: serving",
            "model-server, kind: nuclio",
            "wiring.model-server: exactly the serving functions need",
        ),
        ("writes: inference, class", "writes: dead-letters, class", "'dead-letters' is for dead letters only"),
        ("streams: [generated, ", "streams: [generated, generated, ", "streams.1: 'generated' stands there twice"),
        (
            "dead_letters: dead-letters ",
            "dead_letters: letters ",
            "dead_letters: unknown: 'letters' (did you mean 'd",
        ),
        (
            "table: features}",
            "table: feature}",
            "table: unknown: 'feature' (did you mean 'features'?",
        ),
        ("[events, inference]", "[events, inference, ../x]", "params.logs.2: '../x' can't name one of the logs"),
        ("[events, inference]", "[events, inference, logs]", "line 17, spec.params.logs.2: 'logs' is a folder that"),
        ("[events, inference]", "[Streams, inference]", "params.logs.0: 'Streams' is a folder that"),
        ("[events, inference]", "[events, tables]", "params.logs.1: 'tables' is a folder that"),
        ("[enrichment, features]", "[enrichment, a b]", "line 16, spec.params.tables.1: 'a b' can't name one of the t"),
        ("[enrichment, features]", "['', features]", "params.tables.0: '' can't name one of the tables"),
        ("[generated, ", "[generated, .hidden, ", "line 14, spec.params.streams.1: '.hidden' can't name one of the s"),
        ("[generated, ", "[generated, ünlesbar, ", "params.streams.1: 'ünlesbar' can't name one of the streams"),
        ("training: {}", "training: {reeds: serving}", "wiring.training.reeds: unknown name (did you mean 'reads'?"),
        (
            "training: {}",
            "training: {log: [events]}",
            "line 27, spec.params.wiring.training.log: expected str, got a",
        ),
        ("training: {}", "no: {}", "wiring: holds a name that is not text (put the name in quotes"),
        ("writes: generated}", "}", "spec.params.wiring: no function only writes"),
        ("training: {}", "training: {writes: inference}", "wiring.training: also sends events: data-generator"),
        ("training: {}", "training: {log: events}", "wiring.training: reads no stream, and sends no events"),
    ],
)
def test_mistake_is_named_with_its_place(tmp_path: Path, old: str, new: str, expected: str) -> None:
    path = changed(tmp_path, old, new)
    with pytest.raises(ConfigurationError) as raised:
        load_project(path)
    shown = f"{raised.value} ({raised.value.remedy})"
    assert shown.startswith(str(path))
    assert expected in shown


def test_streams_tables_and_logs_may_have_any_plain_name(tmp_path: Path) -> None:
    declared = load_project(changed(tmp_path, "[events, inference]", "[events, inference, 9_Old-logs, stream]"))
    assert declared.params.logs == ("events", "inference", "9_Old-logs", "stream")


NAMES = st.sampled_from(["", "", "x", "y", "z"])
WIRES = st.lists(st.builds(Wiring, reads=NAMES, writes=NAMES, log=st.sampled_from(["", "", "", "events"])), max_size=5)
CHAINS = st.integers(0, 3).flatmap(
    lambda last: st.permutations(
        [Wiring(writes="s0"), *(Wiring(reads=f"s{i}", writes=f"s{i + 1}" if i < last else "") for i in range(last + 1))]
    )
)


def passing_orders(wiring: dict[str, Wiring]) -> Iterator[Chain]:
    """Yield every order in which events pass all functions: each reads just what the one before it writes."""
    trainers = [name for name, wire in wiring.items() if wire == Wiring()]
    for order in itertools.permutations(name for name in wiring if name not in trainers):
        reads, writes = [wiring[name].reads for name in order], [wiring[name].writes for name in order]
        follow = reads == ["", *writes[:-1]] and all([*writes[:1], *writes[:-1]]) and len({*writes}) == len(writes)
        if order and follow and len(trainers) < 2:
            yield Chain(order[0], order[1:], *trainers)


@given(st.one_of(WIRES, CHAINS, st.builds(lambda chain, others: [*chain, *others[:1]], CHAINS, WIRES)))
def test_chain_is_the_one_order_in_which_events_pass(wires: list[Wiring]) -> None:
    wiring = {f"f{i}": wire for i, wire in enumerate(wires)}
    if possible := [*passing_orders(wiring)]:
        assert [chain_of(wiring)] == possible
    else:
        with pytest.raises(ValueError, match=r".") as raised:
            chain_of(wiring)
        assert raised.value.args[0] in ("", *wiring)


SENDER, TRAINER = Wiring(writes="x"), Wiring()


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ({"b": Wiring(reads="x"), "c": Wiring(reads="x")}, ("c", "reads x, which b reads")),
        ({"b": Wiring(reads="y")}, ("b", "reads y, which no event reaches")),
        ({"b": Wiring(reads="x", writes="x")}, ("b", "reads x, which goes back to it")),
        (
            {"b": Wiring(reads="x", writes="y"), "c": Wiring(reads="y", writes="x")},
            ("b", "reads x, which goes back to it"),
        ),
        (
            {"b": Wiring(reads="y", writes="z"), "c": Wiring(reads="z", writes="y")},
            ("b", "reads y, which no event"),
        ),
        ({"b": Wiring(writes="y")}, ("b", "also sends events: a does so already")),
        ({"b": TRAINER, "c": TRAINER}, ("c", "is a second job without streams: only one may train a model")),
        ({"b": Wiring(table="features")}, ("b", "reads no stream, and sends no events")),
    ],
)
def test_what_is_no_chain_is_told_by_function_and_problem(others: dict[str, Wiring], expected: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=expected[1]) as raised:
        chain_of({"a": SENDER, **others})
    assert raised.value.args[0] == expected[0]


def test_without_a_source_there_is_no_chain() -> None:
    with pytest.raises(ValueError, match="no function only writes"):
        chain_of({"b": Wiring(reads="x"), "t": TRAINER})


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"project\.yaml: No such file"):
        load_project(tmp_path / "project.yaml")


def test_files_that_the_project_names_are_there() -> None:
    for name in DECLARED.functions:
        assert DECLARED.notebook(name).is_file(), name
    load_model(SHIPPED, CHURN.features)


@pytest.mark.parametrize(
    ("registry", "environment", "expected"),
    [
        ("artifacts/models", "", "artifacts/models"),
        ("file:///mnt/models", "", "/mnt/models"),
        ("artifacts/models", "/elsewhere", "/elsewhere"),
        ("artifacts/models", "file:///elsewhere", "/elsewhere"),
        ("s3://bucket/models", "", "s3://bucket/models"),
        ("artifacts/models", "s3://bucket/models", "s3://bucket/models"),
    ],
)
def test_registry_is_where_the_project_says_unless_the_environment_says_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: str, environment: str, expected: str
) -> None:
    monkeypatch.setenv("MODELSTREAM_REGISTRY", environment)
    declared = load_project(changed(tmp_path, "registry: artifacts/models ", f"registry: {registry} "))
    assert declared.registry() == (expected if "://" in expected else str(tmp_path / expected))
    assert declared.settings("model-server").registry == registry
    assert not declared.settings("stream-to-features").registry


def test_registry_that_is_neither_a_folder_nor_a_bucket_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODELSTREAM_REGISTRY")
    declared = load_project(changed(tmp_path, "registry: artifacts/models ", "registry: ftp://models "))
    with pytest.raises(ConfigurationError, match="ftp://models is not a folder"):
        declared.registry()


def test_no_code_is_embedded_in_the_file() -> None:
    text = (ROOT / "project.yaml").read_text()
    assert "functionSourceCode" not in text
    assert max(len(word) for word in text.split()) < 80


# As MLRun reads it.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("project")
    for name in ("project.yaml", "project_setup.py"):
        shutil.copy(ROOT / name, copy)
    for name in ("functions", "use_cases", "assets/models"):
        shutil.copytree(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLRUN_HTTPDB__NOP_DB__VERBOSE", "false")
        patch.setenv("MLRUN_LOG_LEVEL", "ERROR")
        patch.delenv("MLRUN_DBPATH", raising=False)
        import mlrun

        yield mlrun.load_project(str(folder), save=False)


def mlrun_code(loaded: Any, name: str) -> str:
    return base64.b64decode(loaded.get_function(name).spec.build.functionSourceCode).decode()


def test_mlrun_loads_the_project_and_leaves_the_file_alone(loaded: Any, folder: Path) -> None:
    assert loaded.metadata.name == DECLARED.name
    assert sorted(loaded.get_function_names()) == sorted(DECLARED.functions)
    assert loaded.spec.params["shards"] == DECLARED.params.shards
    assert (folder / "project.yaml").read_bytes() == (ROOT / "project.yaml").read_bytes()


@pytest.mark.parametrize("name", DECLARED.functions)
def test_mlrun_takes_the_same_code_out_of_the_notebook(loaded: Any, name: str) -> None:
    ours, theirs = notebooks.code(DECLARED.notebook(name)), mlrun_code(loaded, name)
    if DECLARED.functions[name].kind == "serving":
        ours += model_server.entry_points()
    assert theirs == ours


@pytest.mark.parametrize("name", DECLARED.functions)
def test_function_has_its_kind_entry_point_and_environment(loaded: Any, name: str) -> None:
    declared, function = DECLARED.functions[name], loaded.get_function(name)
    stem = Path(declared.url).stem
    if declared.kind == "job":
        assert (function.kind, function.spec.default_handler) == ("job", declared.handler)
    else:
        assert function.kind == {"nuclio": "remote", "serving": "serving"}[declared.kind]
        assert function.spec.function_handler == f"{stem}-nuclio:handler"
    environment = {each["name"]: each["value"] for each in function.to_dict()["spec"]["env"]}
    assert DECLARED.settings(name).environment().items() <= environment.items()


@pytest.mark.parametrize("name", [n for n, f in DECLARED.functions.items() if f.kind != "serving"])
def test_entry_points_stand_in_mlruns_text(loaded: Any, name: str) -> None:
    module = types.ModuleType(name)
    exec(compile(mlrun_code(loaded, name), name, "exec"), module.__dict__)
    declared = DECLARED.functions[name]
    if declared.kind == "job":
        assert next(iter(inspect.signature(getattr(module, declared.handler)).parameters)) == "context"
    else:
        assert inspect.iscoroutinefunction(module.init_context)
        assert list(inspect.signature(module.handler).parameters) == ["context", "event"]


def test_graph_is_the_one_that_mlrun_would_send(loaded: Any) -> None:
    theirs, ours = json.loads(loaded.get_function("model-server").serving_spec), DECLARED.serving_spec("model-server")
    for key, value in json.loads(ours).items():
        if key != "graph":
            assert theirs[key] == value
    graph = json.loads(ours)["graph"]
    assert {key: theirs["graph"][key] for key in graph} == graph


def test_model_directory_is_one_for_mlrun(loaded: Any) -> None:
    import mlrun

    assert isinstance(loaded, mlrun.projects.MlrunProject)
    file, artifact, _ = mlrun.artifacts.get_model(str(SHIPPED), ".onnx")
    assert Path(file) == SHIPPED / "model.onnx"
    assert [feature.name for feature in artifact.inputs] == list(CHURN.features)
    assert [feature.name for feature in artifact.outputs] == [CHURN.prediction]
    assert read_spec(artifact.to_dict(), "it") == load_model(SHIPPED).spec
    assert set(artifact.feature_stats) == set(CHURN.features)


# The model server, through the entry points that MLRun generates, in MLRun's graph server.


class Platform:
    """Nuclio's side of a worker: keeps the callbacks and the last acknowledged offset of each shard."""

    def __init__(self) -> None:
        self.acked: dict[int, int] = {}
        self.callbacks: dict[str, Callable[[], Any]] = {}

    async def explicit_ack(self, offset: Any) -> None:
        self.acked[offset.partition] = offset.offset

    def set_drain_callback(self, callback: Callable[[], Any]) -> None:
        self.callbacks["drain"] = callback

    def set_termination_callback(self, callback: Callable[[], Any]) -> None:
        self.callbacks["terminate"] = callback


Worker = SimpleNamespace


@pytest.fixture
def in_worker(loaded: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what runs `use(worker)` with a worker that has begun, given the text of the function and its spec."""
    urls = {name: f"sqlite://{tmp_path}/{name}" for name in ("streams", "tables")}
    streams = open_streams(urls["streams"])
    epoch = open_tables(urls["tables"]).epoch()
    for name in DECLARED.params.streams:
        streams.create(name, DECLARED.params.shards, epoch)
    environment = DECLARED.settings("model-server").environment()
    environment |= {f"MODELSTREAM_{name.upper()}": url for name, url in urls.items()}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)

    def run(use: Callable[[Worker], Any], spec: str, code: str = "") -> None:
        monkeypatch.setenv("SERVING_SPEC_ENV", spec)
        module = types.ModuleType("model_server")
        exec(compile(code or mlrun_code(loaded, "model-server"), "model-server", "exec"), module.__dict__)

        async def begun() -> None:
            logger = nuclio_sdk.Logger("ERROR")
            logger.set_handler("default", io.StringIO(), nuclio_sdk.logger.HumanReadableFormatter())
            trigger = nuclio_sdk.TriggerInfo("kafka-cluster", "in")
            context = nuclio_sdk.Context(logger, Platform(), "0", trigger)
            module.init_context(context)
            await use(Worker(context=context, handler=module.handler, streams=streams))

        asyncio.run(asyncio.wait_for(begun(), 60))

    return run


def stream_event(shard: int, offset: int, body: bytes) -> Any:
    trigger = nuclio_sdk.TriggerInfo("kafka-cluster", "in")
    event = nuclio_sdk.Event(body=body, trigger=trigger, path="serving", shard_id=shard, offset=offset)
    event.topic = "serving"
    return event


def request(body: Any, path: str = "/v2/models/churn/infer", method: str = "POST") -> Any:
    trigger = nuclio_sdk.TriggerInfo("http", "http")
    kind = "application/json" if isinstance(body, dict) else "text/plain"
    return nuclio_sdk.Event(body=body, content_type=kind, trigger=trigger, path=path, method=method, shard_id=-1)


def vectors() -> pa.RecordBatch:
    table = pq.read_table(ROOT / "tests" / "golden" / "expected_vectors.parquet").slice(0, 1000)
    columns = {name: table[name].combine_chunks() for name in (CHURN.key, CHURN.type, *CHURN.features)}
    counted = pa.array(range(len(table)))
    columns |= {"position": counted, CHURN.time: counted, "ingested_at": counted}
    return pa.RecordBatch.from_arrays(
        [columns[field.name].cast(field.type) for field in CHURN.vector_schema], schema=CHURN.vector_schema
    )


def specs(loaded: Any) -> dict[str, str]:
    return {
        "MLRun's": loaded.get_function("model-server").serving_spec,
        "ours": DECLARED.serving_spec("model-server"),
    }


@pytest.mark.parametrize("whose", ["MLRun's", "ours"])
def test_messages_pass_through_mlruns_graph_server(loaded: Any, in_worker: Callable[..., None], whose: str) -> None:
    batch = vectors()

    async def use(worker: Worker) -> None:
        for offset in range(10):
            body = codec.encode("vectors", "file", batch.slice(offset * 100, 100))
            assert await worker.handler(worker.context, stream_event(5, offset, body)) is None
        await worker.context.platform.callbacks["drain"]()
        found = [codec.decode(message.body) for message in worker.streams.read("inference", 5, 0, 100, 10**9)]
        assert {(rows.kind, rows.origin) for rows in found} == {("predictions", "file")}
        table = pa.Table.from_batches([rows.batch.replace_schema_metadata() for rows in found])
        assert table.select(batch.schema.names).equals(pa.Table.from_batches([batch]))
        model = load_model(SHIPPED)
        expected = model.predict(as_input([batch.column(name).to_numpy() for name in CHURN.features]))
        assert table[CHURN.probability].to_pylist() == expected.tolist()
        assert worker.context.platform.acked == {5: 9}
        assert set(worker.context.platform.callbacks) == {"drain", "terminate"}

    in_worker(use, specs(loaded)[whose])


def test_requests_are_answered_by_mlruns_graph_server(loaded: Any, in_worker: Callable[..., None]) -> None:
    row = [vectors().column(name)[7].as_py() for name in CHURN.features]
    expected = load_model(SHIPPED).predict(as_input([np.array([value]) for value in row]))[0]

    async def use(worker: Worker) -> None:
        async def ask(*args: Any, **kwargs: Any) -> tuple[int, Any]:
            response = await worker.handler(worker.context, request(*args, **kwargs))
            body = response.body.decode() if isinstance(response.body, bytes) else response.body
            return response.status_code, json.loads(body) if body.startswith("{") else body

        for body in ({"inputs": [row, row]}, json.dumps({"inputs": [row, row]}).encode()):
            status, answer = await ask(body)
            assert (status, answer["model_name"], answer["model_version"]) == (200, "churn", "1")
            assert answer["outputs"] == [int(expected >= CHURN.threshold)] * 2
            assert answer["probabilities"] == [expected] * 2
        for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/churn/ready"):
            assert (await ask(None, path, "GET"))[0] == 200
        status, answer = await ask(None, "/v2/models/churn", "GET")
        assert (status, [feature["name"] for feature in answer["inputs"]]) == (200, list(CHURN.features))
        tensor = {"name": "x", "shape": [2, len(row)], "datatype": "FP64", "data": [row, row]}
        _, path, _, written = shlex.split(in_docs("curl"))
        status, answer = await ask(written, path.removeprefix("localhost:8080"))
        assert (status, [one["name"] for one in answer["outputs"]]) == (200, [CHURN.prediction, CHURN.probability])
        for asked in ({"id": "7", "inputs": [tensor]}, json.dumps({"id": "7", "inputs": [tensor]}).encode()):
            status, answer = await ask(asked)
            assert (status, answer.pop("id"), answer.pop("model_name"), answer.pop("model_version")) == (
                *(200, "7", "churn", "1"),
            )
            assert answer == {
                "outputs": [
                    {"name": CHURN.prediction, "shape": [2], "datatype": "INT8", "data": [int(expected >= 0.5)] * 2},
                    {"name": CHURN.probability, "shape": [2], "datatype": "FP64", "data": [expected] * 2},
                ]
            }
        assert (await ask({"inputs": [row]}, "/v2/models/churn/versions/1/infer"))[0] == 200
        for wrong, path, code, reason in [
            ({"inputs": [row[1:]]}, "/v2/models/churn/infer", 400, "inputs[0] has 12 values"),
            ({"inputs": [[*row[1:], "1"]]}, "/v2/models/churn/infer", 400, "Expected float, got str"),
            ({"inputs": [[*row[1:], float("nan")]]}, "/v2/models/churn/infer", 400, "is not a finite number"),
            ({"inputs": [{**tensor, "shape": [2, 1]}]}, "/v2/models/churn/infer", 400, "data has shape [2, 13]"),
            (None, "/v2/models/churn/ready", 405, "takes GET, not POST"),
            ({}, "/v2/models/churn/infer", 400, "missing required field inputs"),
            (b'{"inputs": [[1,', "/v2/models/churn/infer", 400, "truncated"),
            ({"inputs": [row]}, "/v2/models/chum/infer", 404, "no such model"),
            ({"inputs": [row]}, "/v2/models/churn/versions/2/infer", 404, "no such model"),
            ({"inputs": [row]}, "/v2/models/churn/explain", 404, "no such operation"),
        ]:
            status, answer = await ask(wrong, path)
            assert (status, reason in answer["error"]) == (code, True), answer

    in_worker(use, specs(loaded)["MLRun's"])


def in_docs(beginning: str) -> str:
    """Return the block of docs/operations.md that begins so."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", (ROOT / "docs" / "operations.md").read_text(), re.DOTALL | re.MULTILINE)
    (block,) = [each for each in blocks if each.startswith(beginning)]
    return str(block)


def test_tritons_client_is_answered(loaded: Any, in_worker: Callable[..., None], tmp_path: Path) -> None:
    """The public client, over HTTP and the worker's socket as in `serve`, with the function in MLRun's graph server."""
    python = required_python("triton")
    seen: dict[str, Any] = {}
    rows = np.array([vectors().column(name).to_numpy()[[7, 400]] for name in CHURN.features]).T
    probabilities = load_model(SHIPPED).predict(as_input(list(rows.T)))
    decided, probable = (probabilities >= CHURN.threshold).astype(int).tolist(), pytest.approx(probabilities.tolist())

    async def use(worker: Worker) -> None:
        async def handle(event: Any) -> Any:
            return await worker.handler(worker.context, event)

        socket = Path(short) / "socket"
        edge = Edge(Intake(lambda: worker.streams, "generated", ""), partial(rpc.ask, socket), Exporter(), str)
        with bind(0) as listener:
            server = HttpServer(create_app(edge), listener, tmp_path / "http.log")
            server.start()
            async with await rpc.serve(socket, handle):
                command = [python, str(ROOT / "tests" / "triton_client.py"), server.url.removeprefix("http://")]
                client = await asyncio.create_subprocess_exec(
                    *command, CHURN.model_name, json.dumps(rows.tolist()), stdout=asyncio.subprocess.PIPE
                )
                seen.update(json.loads((await client.communicate())[0]))
                example = in_docs("import numpy").replace("localhost:8080", command[-1])
                shown = await asyncio.create_subprocess_exec(python, "-c", example, stdout=asyncio.subprocess.PIPE)
                seen["docs"] = (await shown.communicate())[0].decode()
            assert server.stop()

    with tempfile.TemporaryDirectory() as short:  # a socket's path has at most 104 bytes
        in_worker(use, specs(loaded)["ours"])
    ready = ("live", "ready", "model ready", "version ready", "other ready")
    assert [seen[name] for name in ready] == [True, True, True, True, False]
    assert seen["server"] == {"name": "modelstream", "version": __version__, "extensions": []}
    assert seen["version"] == seen["model"]
    assert (seen["model"]["name"], seen["model"]["versions"]) == ("churn", ["1"])
    assert [each["name"] for each in seen["model"]["inputs"]] == list(CHURN.features)
    for binary in (False, True):
        answer = seen[f"one tensor, binary {binary}"]
        assert answer == {
            "model_name": "churn",
            "model_version": "1",
            "outputs": {CHURN.prediction: decided, CHURN.probability: probable},
        }
        answer = seen[f"columns, binary {binary}"]
        assert (answer["id"], answer["outputs"]) == ("7", {CHURN.probability: probable})
    assert re.fullmatch(r"\[[01]\] \[0\.\d+\]\n", seen["docs"])
    status, reason = seen["error"]
    assert (status, reason.startswith("inputs[0] (vectors) of shape [2, 13] is no feature")) == ("400", True)


def test_mistake_in_a_hook_is_the_servers_error(loaded: Any, in_worker: Callable[..., None]) -> None:
    code = mlrun_code(loaded, "model-server").replace("return probability\n", "return probability + 1\n")

    async def use(worker: Worker) -> None:
        response = await worker.handler(worker.context, request({"inputs": [[0.0] * len(CHURN.features)]}))
        assert response.status_code == 500
        assert "calibrate(probability, vectors) did not return a probability" in response.body

    in_worker(use, specs(loaded)["MLRun's"], code)


def test_threshold_in_the_notebook_wins_over_the_use_cases(loaded: Any, in_worker: Callable[..., None]) -> None:
    code = mlrun_code(loaded, "model-server")
    assert code.count("threshold: float | None = None") == 1
    row = [0.0] * len(CHURN.features)

    def expecting(decision: int) -> Callable[[Worker], Any]:
        async def use(worker: Worker) -> None:
            response = await worker.handler(worker.context, request({"inputs": [row]}))
            assert json.loads(response.body)["outputs"] == [decision]

        return use

    for threshold, decision in ((0.0, 1), (1.1, 0)):
        edited = code.replace("threshold: float | None = None", f"threshold: float | None = {threshold}")
        in_worker(expecting(decision), specs(loaded)["ours"], edited)


def test_model_that_cannot_be_used_ends_the_start_with_its_reason(
    loaded: Any, in_worker: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use(_: Worker) -> None:
        raise AssertionError("it began")

    empty = tmp_path / "model"
    empty.mkdir()
    shutil.copy(SHIPPED / "model.onnx", empty)
    changed_model = Path(shutil.copytree(SHIPPED, tmp_path / "changed"))
    (changed_model / "model.onnx").write_bytes(b"something else")
    for path, reason in ((empty, "model_spec.yaml"), (changed_model, "sha256 is")):
        monkeypatch.setenv("MODELSTREAM_MODEL", str(path))
        with pytest.raises(RuntimeError, match="failed to load model churn") as raised:
            in_worker(use, specs(loaded)["ours"])
        assert isinstance(raised.value.__cause__, ConfigurationError)
        assert reason in str(raised.value.__cause__)


def test_promoted_version_serves_messages_and_requests_without_a_restart(
    loaded: Any, in_worker: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSTREAM_REGISTRY", str(tmp_path / "models"))
    monkeypatch.setattr(model_watch, "LOOK_EVERY", 0.01)
    registry = Registry(tmp_path / "models", CHURN.model_name, CHURN.features, shipped=SHIPPED)
    for _ in range(3):
        registry.register(directory)
    registry.promote("2")
    batch = vectors()

    async def use(worker: Worker) -> None:
        async def version() -> str:
            response = await worker.handler(worker.context, request({"inputs": [[0.0] * len(CHURN.features)]}))
            answer = json.loads(response.body)
            assert answer["probabilities"] == [pytest.approx(probability_of(answer["model_version"]), rel=1e-5)]
            found: str = answer["model_version"]
            return found

        async def serving(wanted: str) -> None:
            while await version() != wanted:
                await asyncio.sleep(0.01)

        async def send(offset: int) -> None:
            body = codec.encode("vectors", "file", batch.slice(offset * 100, 100))
            await worker.handler(worker.context, stream_event(5, offset, body))

        assert await version() == "2", "what it begins with"
        await send(0)
        registry.promote("3")
        await serving("3")
        await send(1)
        description = await worker.handler(
            worker.context, request(None, f"/v2/models/{CHURN.model_name}", method="GET")
        )
        assert json.loads(description.body)["versions"] == ["3"]
        stage = worker.context.platform.stage
        assert stage.model == ServedModel("3")
        # Refused: the file is changed before the server looks.
        (folder_of(registry) / "2" / "model.onnx").write_bytes(directory("77")["model.onnx"])
        with pytest.raises(ConfigurationError):
            registry.rollback()
        alias = folder_of(registry) / "current.json"
        changed = alias.with_name("changed.json")
        changed.write_text(alias.read_text().replace('"version": "3"', '"version": "2"', 1))
        changed.replace(alias)
        while not stage.model.refused:
            await asyncio.sleep(0.01)
        assert "sha256 is" in stage.model.refused
        assert (stage.model.version, await version()) == ("3", "3")
        await send(2)
        await worker.context.platform.callbacks["drain"]()
        found = [codec.decode(message.body).batch for message in worker.streams.read("inference", 5, 0, 100, 10**9)]
        table = pa.Table.from_batches([one.replace_schema_metadata() for one in found])
        assert table["model_version"].to_pylist() == ["2"] * 100 + ["3"] * 200
        expected = [probability_of(one) for one in table["model_version"].to_pylist()]
        assert table[CHURN.probability].to_pylist() == pytest.approx(expected, rel=1e-5)

    in_worker(use, specs(loaded)["ours"])


def test_server_without_a_model_keeps_vectors_and_refuses_requests_until_one_is_promoted(
    loaded: Any, in_worker: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSTREAM_REGISTRY", str(tmp_path / "models"))
    monkeypatch.setattr(model_watch, "LOOK_EVERY", 0.01)
    foreign = directory("1", features=("celsius",), change=lambda data: data["metadata"].update(key="frost"))
    for name, content in foreign.items():
        (tmp_path / name).write_bytes(content)
    registry = Registry(tmp_path / "models", CHURN.model_name, CHURN.features)
    registry.register(directory)
    batch = vectors()
    row = {"inputs": [[0.0] * len(CHURN.features)]}

    def used(model: str) -> Callable[[Worker], Any]:
        async def use(worker: Worker) -> None:
            async def ask(*args: Any, **kwargs: Any) -> tuple[int, str]:
                response = await worker.handler(worker.context, request(*args, **kwargs))
                return response.status_code, str(response.body)

            refused = [("models/churn/infer", "POST"), ("models/churn", "POST"), ("models/churn/ready", "GET")]
            for path, method in (*refused, ("health/ready", "GET")):
                status, said = await ask(row, f"/v2/{path}", method)
                assert (status, "churn has no model yet" in said, "train --promote" in said) == (503, True, True)
            assert (await ask(None, "/v2/health/live", "GET"))[0] == 200
            response = await worker.handler(worker.context, request(None, "/v2/models/churn", method="GET"))
            assert json.loads(response.body)["versions"] == []
            stage = worker.context.platform.stage
            assert stage.model == ServedModel("")
            await worker.handler(worker.context, stream_event(5, 0, codec.encode("vectors", "file", batch)))
            registry.promote("1")
            while (await ask(row))[0] == 503:
                await asyncio.sleep(0.01)
            await worker.handler(worker.context, stream_event(5, 1, codec.encode("vectors", "file", batch)))
            await worker.context.platform.callbacks["drain"]()
            before, after = worker.streams.read("inference", 5, 0, 100, 10**9)[-2:]
            unanswered = codec.decode(before.body).batch
            assert unanswered.column("position").equals(batch.column("position"))
            assert not {CHURN.prediction, CHURN.probability, "model_version"} & {*unanswered.schema.names}
            assert set(codec.decode(after.body).batch.column("model_version").to_pylist()) == {"1"}
            assert stage.model == ServedModel("1")

        return use

    for model in ("", str(tmp_path)):
        (folder_of(registry) / "current.json").unlink(missing_ok=True)
        monkeypatch.setenv("MODELSTREAM_MODEL", model)
        in_worker(used(model), specs(loaded)["ours"])

    async def promoted(worker: Worker) -> None:
        assert (await worker.handler(worker.context, request(row))).status_code == 200

    monkeypatch.setenv("MODELSTREAM_MODEL", str(tmp_path / "nowhere"))
    in_worker(promoted, specs(loaded)["ours"])  # what is promoted serves, whatever model the project names
