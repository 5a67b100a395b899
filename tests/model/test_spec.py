"""Whatever a model_spec.yaml holds, it is read as what it says or refused; it names no file outside of its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modelstream.errors import ConfigurationError
from modelstream.model.spec import DEPTH, ModelSpec, check_features, parse_spec, read_spec

SPEC: dict[str, Any] = {
    "kind": "model",
    "metadata": {"key": "frost", "project": "heating"},
    "spec": {
        "model_file": "model.onnx",
        "inputs": [{"name": "celsius", "value_type": "float"}, {"name": "bar"}],
        "parameters": {"version": 3, "sha256": "ab12", "seed": 1},
        "metrics": {"auc": 0.9, "users": 12, "note": "good"},
        "algorithm": "boosting",
    },
    "status": {"state": "created"},
}


def changed(*path: str, to: object) -> bytes:
    """Return the file with one value changed; None takes it away."""
    data = yaml.safe_load(yaml.safe_dump(SPEC))
    part = data
    for key in path[:-1]:
        part = part[key]
    part.pop(path[-1], None)
    if to is not None:
        part[path[-1]] = to
    return yaml.safe_dump(data).encode()


def test_what_a_file_says_is_read() -> None:
    assert parse_spec(yaml.safe_dump(SPEC).encode(), "it") == ModelSpec(
        name="frost",
        version="3",
        file="model.onnx",
        sha256="ab12",
        features=("celsius", "bar"),
        algorithm="boosting",
        metrics={"auc": 0.9, "users": 12.0},
    )


def test_metrics_and_algorithm_may_be_missing() -> None:
    data = {**SPEC, "spec": {key: SPEC["spec"][key] for key in ("model_file", "inputs", "parameters")}}
    found = read_spec(data, "it")
    assert (found.metrics, found.algorithm) == ({}, "")


def test_a_model_may_have_many_features() -> None:
    names = [f"f{number}" for number in range(3 * DEPTH)]
    assert parse_spec(changed("spec", "inputs", to=[{"name": name} for name in names]), "it").features == tuple(names)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (changed("kind", to="dataset"), "does not describe a model"),
        (changed("metadata", "key", to=None), "missing required field `key`"),
        (changed("metadata", "key", to=3), "Expected `str`, got `int` - at `$.metadata.key`"),
        (changed("spec", "inputs", to=["celsius"]), "at `$.spec.inputs[0]`"),
        (changed("spec", "parameters", "version", to=None), "lacks spec.parameters.version"),
        (changed("spec", "parameters", "version", to=""), "lacks spec.parameters.version"),
        (changed("spec", "parameters", "version", to=[3]), "lacks spec.parameters.version"),
        (changed("spec", "parameters", "version", to=10**30), "lacks spec.parameters.version"),
        (changed("spec", "parameters", "sha256", to=None), "or spec.parameters.sha256"),
        (changed("spec", "parameters", "sha256", to=12), "or spec.parameters.sha256"),
        (b"kind: [", "it: can't be read: "),
        (b"kind: 2026-99-99", "it: can't be read: month must be in"),
        (b"\xff", "it: can't be read: "),
        (b"- 1", "it: Expected `object`, got `array`"),
        (b"", "it: Expected `object`, got `null`"),
        (b"[" * (DEPTH + 1), f"nested more than {DEPTH} levels deep"),
        (b"!!python/name:os.system", "could not determine a constructor"),
    ],
)
def test_what_is_no_spec_is_told_with_a_remedy(content: bytes, problem: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        parse_spec(content, "it")
    assert problem in str(told.value)
    assert told.value.remedy


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../model.onnx",
            "/etc/model.onnx",
            "a/b.onnx",
            "./model.onnx",
            "model.pkl",
            "model.onnx.pkl",
            "",
            "..",
            "model",
        ),
        *("a\0.onnx", "a\n.onnx", "\ud800.onnx"),
    ],
)
def test_a_model_is_an_onnx_file_of_the_same_folder(name: str) -> None:
    data = {**SPEC, "spec": {**SPEC["spec"], "model_file": name}}
    with pytest.raises(ConfigurationError, match=r"only an \.onnx file in the same folder is loaded"):
        read_spec(data, "it")


def test_a_file_that_would_be_endless_as_text_is_refused_at_once() -> None:
    lists = "\n".join(
        ["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)), ""]
    ).encode()
    for endless in (b"*a29", b"0x" + b"F" * 20_000):
        version = changed("spec", "parameters", "version", to="ENDLESS").replace(b"ENDLESS", endless)
        with pytest.raises(ConfigurationError, match=r"lacks spec\.parameters\.version"):
            parse_spec(lists + version, "it")
        metric = changed("spec", "metrics", "auc", to="ENDLESS").replace(b"ENDLESS", endless)
        assert parse_spec(lists + metric, "it").metrics == {"users": 12.0}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
)
PLACES = st.sampled_from(
    [("kind",), ("metadata",), ("metadata", "key"), ("spec",)]
    + [("spec", key) for key in SPEC["spec"]]
    + [("spec", "parameters", key) for key in ("version", "sha256")]
)


@given(PLACES, ANYTHING)
def test_whatever_stands_in_it_a_spec_is_read_or_refused(place: tuple[str, ...], value: object) -> None:
    data: dict[str, Any] = yaml.safe_load(yaml.safe_dump(SPEC))
    part = data
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    try:
        found = read_spec(data, "it")
    except ConfigurationError as error:
        assert str(error).startswith("it: ") and error.remedy
    else:
        assert Path(found.file).name == found.file
        assert found.version and isinstance(found.sha256, str)
        assert all(isinstance(metric, float) for metric in found.metrics.values())


# Features.

NAMES = st.lists(st.sampled_from("abcd"), unique=True)


@given(NAMES, NAMES)
def test_a_model_takes_just_the_features_of_the_use_case_in_their_order(ours: list[str], theirs: list[str]) -> None:
    spec = ModelSpec("frost", "3", "model.onnx", "ab12", tuple(theirs))
    if ours == theirs:
        check_features(spec, ours, "it")
        return
    with pytest.raises(ConfigurationError, match=r"^it: the model's features are not those of the use case") as told:
        check_features(spec, ours, "it")
    lacks, wants = ", ".join(n for n in ours if n not in theirs), ", ".join(n for n in theirs if n not in ours)
    parts = [f"it lacks {lacks}"] * bool(lacks) + [f"it wants {wants}"] * bool(wants)
    assert str(told.value).endswith(f"use case: {'; '.join(parts) or 'the order differs'}")
