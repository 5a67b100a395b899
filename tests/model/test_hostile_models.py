"""Model files that must not serve: each is refused with a reason, by whoever would load it, and the old one goes on."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from modelstream.errors import ConfigurationError
from modelstream.registry import registry as module
from modelstream.registry.current import ALIAS, ALIAS_BYTES, Alias, Promotion
from modelstream.registry.registry import Registry
from modelstream.registry.watch import ModelWatch
from tests.model_files import CHURN, SHIPPED, constant_model, directory, edited, folder_of, probability_of

WIDTH = len(CHURN.features)
GOOD = constant_model(probability_of("3"))


class Payload:
    """Pickled: makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self._path),))


def put(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


Make = Callable[[Path], None]
"""Makes the folder of version 3 hostile, or anything around it."""


def with_model(content: bytes, **options: Any) -> Make:
    return lambda folder: put(folder, directory("3", content, **options))


def with_spec(change: Callable[[dict[str, Any]], Any]) -> Make:
    return lambda folder: put(folder, directory("3", change=change))


def with_spec_text(text: bytes) -> Make:
    return lambda folder: put(folder, directory("3") | {"model_spec.yaml": text})


def with_change(change: Callable[[onnx.ModelProto], Any]) -> Make:
    return with_model(edited(GOOD, change))


def graph_model(
    nodes: Sequence[Any],
    inputs: Sequence[tuple[int, list[Any]]] = ((TensorProto.FLOAT, [None, WIDTH]),),
    output: tuple[str, int, Any] = ("probabilities", TensorProto.FLOAT, [None, 1]),
    initializers: Sequence[Any] = (),
) -> bytes:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(f"x{i or ''}", kind, shape) for i, (kind, shape) in enumerate(inputs)],
        [helper.make_tensor_value_info(*output)],
        list(initializers),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def external(model: onnx.ModelProto) -> None:
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "/etc/passwd")


def hidden_external(model: onnx.ModelProto) -> None:
    """Weights in another file, inside of a constant of a branch."""
    tensor = numpy_helper.from_array(np.zeros((1, 1), np.float32), "inner")
    onnx.external_data_helper.set_external_data(tensor, "../4/model.onnx")
    constant = helper.make_node("Constant", [], ["y"], value=tensor)
    branch = helper.make_graph([constant], "branch", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    condition = numpy_helper.from_array(np.array(True), "c")
    model.graph.initializer.append(condition)
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch))


def foreign_function(model: onnx.ModelProto) -> None:
    """A function in the file itself, which hides an operator of another domain."""
    inner = helper.make_node("Evil", ["a"], ["b"], domain="com.example")
    function = helper.make_function("", "Harmless", ["a"], ["b"], [inner], [helper.make_opsetid("com.example", 1)], [])
    model.functions.append(function)


def custom_operator(domain: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[-1].domain = domain
        model.opset_import.append(helper.make_opsetid(domain, 1))

    return change


def add_bias(value: float) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        bias = model.graph.initializer[1]
        bias.CopyFrom(numpy_helper.from_array(np.array([value], np.float32), bias.name))

    return change


def linked(name: str) -> Make:
    """A file of the folder is a link to an equal one outside of it."""

    def make(folder: Path) -> None:
        put(folder, directory("3"))
        outside = folder.parent.parent / "outside"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return make


def linked_folder(folder: Path) -> None:
    put(folder.parent.parent / "outside", directory("3"))
    folder.symlink_to(folder.parent.parent / "outside")


def pipe(folder: Path) -> None:
    put(folder, directory("3"))
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")


def folder_as_file(folder: Path) -> None:
    put(folder, directory("3"))
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()


def endless(folder: Path) -> None:
    put(folder, directory("3"))
    os.truncate(folder / "model.onnx", module.MODEL_BYTES + 1)


def without(name: str) -> Make:
    def make(folder: Path) -> None:
        put(folder, directory("3"))
        (folder / name).unlink()

    return make


def pickled(folder: Path) -> None:
    put(folder, directory("3", pickle.dumps(Payload(folder.parent / "9"))))


def pickled_beside(folder: Path) -> None:
    """The model file that the spec names is a pickle by its name too."""
    files = directory("3", change=lambda data: data["spec"].update(model_file="model.pkl"))
    put(folder, files | {"model.pkl": pickle.dumps(Payload(folder.parent / "9"))})


def unhashed(folder: Path) -> None:
    put(folder, directory("3") | {"model.onnx": constant_model(0.9)})


SIGMOID = helper.make_node("Sigmoid", ["x"], ["probabilities"])
PICK = [
    helper.make_node("MatMul", ["x", "w"], ["s"]),
    helper.make_node("Sigmoid", ["s"], ["probabilities"]),
]
COLUMN = numpy_helper.from_array(np.zeros((WIDTH, 1), np.float32), "w")

HOSTILE: dict[str, tuple[Make, str]] = {
    # The file.
    "pickle renamed": (pickled, "not an ONNX file"),
    "pickle": (pickled_beside, r"only an \.onnx file"),
    "zip archive": (with_model(b"PK\x03\x04" + bytes(200)), "not an ONNX file|can't load"),
    "empty": (with_model(b""), "can't load"),
    "text": (with_model(b"not a model"), "not an ONNX file"),
    "truncated": (with_model(GOOD[: len(GOOD) // 2]), "not an ONNX file|can't load"),
    "truncated by a byte": (with_model(GOOD[:-1]), "not an ONNX file|can't load"),
    "other hash": (unhashed, "sha256 is"),
    "no hash": (with_spec(lambda data: data["spec"]["parameters"].pop("sha256")), "sha256"),
    "endless": (endless, "more than"),
    # Where it lies.
    "model linked out": (linked("model.onnx"), "symbolic link"),
    "spec linked out": (linked("model_spec.yaml"), "symbolic link"),
    "folder linked out": (linked_folder, "symbolic link"),
    "pipe": (pipe, "is not a file"),
    "folder": (folder_as_file, "is not a file"),
    "no model": (without("model.onnx"), "No such file"),
    "no spec": (without("model_spec.yaml"), "No such file"),
    "file above": (with_spec(lambda data: data["spec"].update(model_file="../2/model.onnx")), "in the same folder"),
    "absolute file": (with_spec(lambda data: data["spec"].update(model_file="/etc/model.onnx")), "in the same folder"),
    # What it would do.
    "weights elsewhere": (with_change(external), "in another file"),
    "weights of a branch elsewhere": (with_change(hidden_external), "in another file"),
    "custom operator": (with_change(custom_operator("com.example")), r"operators of com\.example"),
    "contributed operator": (with_change(custom_operator("com.microsoft")), r"operators of com\.microsoft"),
    "custom operator whose name is no text": (
        with_model(edited(GOOD, custom_operator("com.example")).replace(b"com.example", b"com.ex\xffmple")),
        "operators of b'com",
    ),
    "custom operator in a function": (with_change(foreign_function), r"operators of com\.example"),
    # What it takes and gives.
    "other features": (with_model(GOOD, features=(*CHURN.features[:-1], "frost")), "it wants frost"),
    "other order": (with_model(GOOD, features=CHURN.features[::-1]), "the order differs"),
    "fewer features": (with_model(constant_model(0.5, WIDTH - 1)), "takes x"),
    "two inputs": (
        with_model(
            graph_model(
                PICK, [(TensorProto.FLOAT, [None, WIDTH]), (TensorProto.FLOAT, [None, 1])], initializers=[COLUMN]
            )
        ),
        "takes x",
    ),
    "text input": (
        with_model(
            graph_model(
                [
                    helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
                    helper.make_node("MatMul", ["f", "w"], ["s"]),
                    helper.make_node("Sigmoid", ["s"], ["probabilities"]),
                ],
                [(TensorProto.STRING, [None, WIDTH])],
                initializers=[COLUMN],
            )
        ),
        "takes x: tensor",
    ),
    "batches of one size": (
        with_model(
            graph_model(PICK, [(TensorProto.FLOAT, [4, WIDTH])], ("probabilities", TensorProto.FLOAT, [4, 1]), [COLUMN])
        ),
        "takes x",
    ),
    "other output": (
        with_model(
            graph_model(
                [PICK[0], helper.make_node("Sigmoid", ["s"], ["score"])],
                output=("score", TensorProto.FLOAT, [None, 1]),
                initializers=[COLUMN],
            )
        ),
        "it needs an output",
    ),
    "three classes": (
        with_model(graph_model([SIGMOID], output=("probabilities", TensorProto.FLOAT, [None, WIDTH]))),
        "it needs an output",
    ),
    "no probabilities": (
        with_change(lambda model: setattr(model.graph.node[-1], "op_type", "Identity")),
        "something other than probabilities",
    ),
    "never a number": (with_change(add_bias(float("nan"))), "something other than probabilities"),
    # What it says of itself.
    "other name": (with_spec(lambda data: data["metadata"].update(key="other")), "not churn 3"),
    "other version": (with_spec(lambda data: data["spec"]["parameters"].update(version="4")), "not churn 3"),
    "no model kind": (with_spec(lambda data: data.update(kind="dataset")), "does not describe a model"),
    "no inputs": (with_spec(lambda data: data["spec"].pop("inputs")), "missing required field"),
    "list": (with_spec_text(b"- 1\n- 2\n"), "Expected `object`"),
    "no YAML": (with_spec_text(b"{"), "can't be read"),
    "bytes": (with_spec_text(b"\xff\xfe\x00\x01"), "can't be read|Expected"),
    "bad date": (with_spec_text(b"kind: 2026-99-99\n"), "can't be read"),
    "YAML that calls": (
        with_spec_text(b"kind: !!python/object/apply:os.mkdir ['/tmp/should-not-be-there']\n"),
        "could not determine a constructor",
    ),
    "YAML in itself": (with_spec_text(b"&a {kind: *a, metadata: *a, spec: *a}\n"), "Expected|missing"),
    "deep YAML": (with_spec_text(b"[" * 100_000 + b"]" * 100_000), "nested more than"),
    "deep YAML cut off": (with_spec_text(b"[" * 100_000), "can't be read"),
    "endless YAML": (with_spec_text(b"#" * (module.SPEC_BYTES + 1)), "more than"),
}


def point_at(registry: Registry, version: str) -> None:
    """Let the alias say a version as if it had been promoted, with the hash of what is there."""
    path = folder_of(registry) / version / "model.onnx"
    content = path.read_bytes() if path.is_file() and path.stat().st_size < 1 << 20 else b""
    current = Promotion(version, hashlib.sha256(content).hexdigest())
    written = folder_of(registry) / ".alias"
    written.write_bytes(json.dumps({"format": 1, "current": {"version": version, "sha256": current.sha256}}).encode())
    written.replace(folder_of(registry) / ALIAS)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(tmp_path / "models", CHURN.model_name, CHURN.features, shipped=SHIPPED)
    assert made.register(directory) == "2"
    made.promote("2")
    return made


def test_the_corpus_itself_would_serve_without_what_makes_it_hostile(registry: Registry) -> None:
    put(folder_of(registry) / "3", directory("3", graph_model(PICK, initializers=[COLUMN])))
    registry.load("3")
    put(folder_of(registry) / "4", directory("4", edited(GOOD, lambda model: None)))
    registry.promote("4")
    assert registry.current() == "4"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_version_is_refused_and_the_old_one_goes_on(registry: Registry, name: str) -> None:
    make, expected = HOSTILE[name]
    make(folder_of(registry) / "3")
    for attempt in (registry.load, registry.promote):
        with pytest.raises(ConfigurationError, match=expected) as raised:
            attempt("3")
        assert raised.value.remedy
    assert registry.current() == "2"
    # And where it was promoted in spite of that, or changed afterwards.
    said: list[str] = []
    shipped = registry.load("1")
    server = Registry(folder_of(registry).parent, registry.name, registry.features)
    watch = ModelWatch(server, shipped, lambda what, why: said.append(what))
    watch.begin()
    assert watch.version == "2"
    point_at(registry, "3")
    assert watch.look()
    assert watch.version == "2"
    assert not watch.look()
    assert [what for what in said if "refused" in what] == [watch.refused]
    assert watch.refused.startswith("version 3 is refused: ")
    assert not (folder_of(registry) / "9").exists(), "the pickle was read"
    assert not Path("/tmp/should-not-be-there").exists()
    # A server that starts then takes what comes with the project.
    restarted = ModelWatch(server, shipped, lambda what, why: None)
    assert restarted.begin() is shipped
    assert restarted.refused == watch.refused
    # Back to what was good.
    registry.promote("2")
    assert watch.look()
    assert (watch.version, watch.refused) == ("2", "")


ALIASES: dict[str, Callable[[Path], Any]] = {
    "broken": lambda path: path.write_bytes(b"{"),
    "empty": lambda path: path.write_bytes(b""),
    "newer": lambda path: path.write_bytes(b'{"format": 99}'),
    "deep": lambda path: path.write_bytes(b'{"current": ' * 50_000),
    "endless": lambda path: path.write_bytes(b" " * (ALIAS_BYTES + 1)),
    "version above": lambda path: path.write_bytes(b'{"current": {"version": "../../outside"}}'),
    "absolute version": lambda path: path.write_bytes(b'{"current": {"version": "/tmp"}}'),
    "folder": lambda path: path.mkdir(),
    "pipe": lambda path: os.mkfifo(path),
    "linked": lambda path: path.symlink_to(path.parent / "2" / "model_spec.yaml"),
}


@pytest.mark.parametrize("name", ALIASES)
def test_alias_that_cannot_be_followed_changes_nothing_and_is_said_once(registry: Registry, name: str) -> None:
    said: list[str] = []
    watch = ModelWatch(registry, registry.load("1"), lambda what, why: said.append(what))
    watch.begin()
    said.clear()
    (folder_of(registry) / ALIAS).unlink()
    ALIASES[name](folder_of(registry) / ALIAS)
    assert watch.look()
    assert not watch.look()
    assert not watch.look()
    assert (watch.version, said) == ("2", [watch.refused])
    alias = folder_of(registry) / ALIAS
    alias.rmdir() if alias.is_dir() and not alias.is_symlink() else alias.unlink()
    registry.promote("2")
    assert watch.look()
    assert watch.refused == ""


def test_folder_of_the_registry_may_itself_be_a_link(tmp_path: Path) -> None:
    """It is the operator who says where it lies: on storage that several machines share, for instance."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "models").symlink_to(tmp_path / "shared")
    registry = Registry(tmp_path / "models", CHURN.model_name, CHURN.features)
    assert registry.register(directory) == "1"
    registry.promote("1")
    assert registry.open(Alias(current=Promotion("1", registry.load("1").spec.sha256)).current).spec.version == "1"


def test_random_changes_of_a_file_are_never_served(registry: Registry) -> None:
    """Whatever byte is flipped, the hash says so before anything reads the file."""
    rng = np.random.default_rng(1)
    put(folder_of(registry) / "3", directory("3"))
    path = folder_of(registry) / "3" / "model.onnx"
    for _ in range(50):
        content = bytearray(GOOD)
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match="sha256 is"):
            registry.load("3")


def test_random_changes_with_a_hash_that_fits_are_refused_or_give_probabilities(tmp_path: Path) -> None:
    """Nothing but our own errors comes out of a file that someone registered by hand."""
    rng = np.random.default_rng(2)
    vectors = rng.normal(0, 1e6, (50, WIDTH)).astype(np.float32)
    registry = Registry(tmp_path, CHURN.model_name, CHURN.features)
    refused = 0
    for version in range(1, 301):
        content = bytearray(GOOD)
        for place in rng.integers(len(content), size=rng.integers(1, 4)):
            content[place] = rng.integers(256)
        put(folder_of(registry) / str(version), directory(str(version), bytes(content)))
        try:
            probability = registry.load(str(version)).predict(vectors)
        except ConfigurationError:
            refused += 1
        else:
            assert ((probability >= 0) & (probability <= 1)).all()
    assert 50 < refused < 300


def test_yaml_that_multiplies_is_read_without_multiplying(registry: Registry) -> None:
    levels = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9) if i else 'x'}]" for i in range(20))
    text = f"{levels}\n{yaml.safe_dump(yaml.safe_load(directory('3')['model_spec.yaml']))}"
    put(folder_of(registry) / "3", directory("3") | {"model_spec.yaml": text.encode()})
    assert registry.load("3").spec.version == "3"
