"""Reads the `model_spec.yaml` of an MLRun model directory: the model's file, its hash, and its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import yaml

from modelstream.errors import ConfigurationError

SPEC_FILE = "model_spec.yaml"
SHOWN = 4
"""How many names of features an error lists."""
DEPTH = 50
"""Most levels of a model_spec.yaml; MLRun's has 6. YAML's C loader is recursive, and about 10,000 levels would end the
process."""


class _Feature(msgspec.Struct):
    name: str


class _SpecPart(msgspec.Struct):
    model_file: str
    inputs: list[_Feature]
    parameters: dict[str, Any]
    metrics: dict[str, Any] = {}
    algorithm: str = ""


class _SpecMetadata(msgspec.Struct):
    key: str


class _SpecFile(msgspec.Struct):
    """What is read of a model_spec.yaml."""

    kind: str
    metadata: _SpecMetadata
    spec: _SpecPart


@dataclass(frozen=True)
class ModelSpec:
    """What a model directory says about its model.

    `parse_spec` has an example.
    """

    name: str
    version: str
    file: str
    """Name of the ONNX file in the directory."""
    sha256: str
    features: tuple[str, ...]
    algorithm: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Its metrics on users that it had not seen."""


def parse_spec(content: bytes, source: str) -> ModelSpec:
    """Return what the text of a model_spec.yaml says; `source` is what errors call it. Raises ConfigurationError.

    >>> text = b'''{kind: model, metadata: {key: frost}, spec: {model_file: model.onnx, inputs: [{name: celsius}],
    ... parameters: {version: 3, sha256: ab12}}}'''
    >>> spec = parse_spec(text, "model_spec.yaml")
    >>> spec.name, spec.version, spec.features
    ('frost', '3', ('celsius',))
    >>> parse_spec(text.replace(b"model.onnx", b"model.pkl"), "model_spec.yaml")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    modelstream.errors.ConfigurationError: model_spec.yaml: spec.model_file is 'model.pkl'; only an .onnx file ...
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        depth = 0
        for event in yaml.parse(content, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH:
                raise ValueError(f"nested more than {DEPTH} levels deep")
        data = yaml.load(content, Loader=loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:  # ValueError: 2026-99-99
        raise ConfigurationError(
            f"{source}: can't be read: {' '.join(str(error).split())}",
            remedy=f"a model is a folder with {SPEC_FILE} and an ONNX file",
        ) from None
    return read_spec(data, source)


def read_spec(data: object, source: str) -> ModelSpec:
    """Return what a model_spec.yaml says, read as plain data. Raises ConfigurationError.

    `parse_spec` has an example.
    """
    try:
        file = msgspec.convert(data, _SpecFile)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ConfigurationError(f"{source}: {error}", remedy="write it with MLRun's log_model") from None
    parameters = file.spec.parameters
    version, sha256 = parameters.get("version"), parameters.get("sha256")
    is_version = version and (isinstance(version, str) or _is_number(version))
    if file.kind != "model" or not is_version or not isinstance(sha256, str):
        raise ConfigurationError(
            f"{source}: does not describe a model, or lacks spec.parameters.version or spec.parameters.sha256",
            remedy="log the model with both parameters",
        )
    name = file.spec.model_file
    if Path(name).name != name or not name.endswith(".onnx") or not name.isprintable():
        raise ConfigurationError(
            f"{source}: spec.model_file is {name!r}; only an .onnx file in the same folder is loaded",
            remedy="convert the model to ONNX (skl2onnx)",
        )
    features = tuple(one.name for one in file.spec.inputs)
    metrics = {key: float(value) for key, value in file.spec.metrics.items() if _is_number(value)}
    return ModelSpec(file.metadata.key, str(version), name, sha256, features, file.spec.algorithm, metrics)


def _is_number(value: object) -> bool:
    """Tell whether a value is a number that fits 64 bits: of a longer one neither a float nor text can be made."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


def check_features(spec: ModelSpec, features: Sequence[str], source: str) -> None:
    """Raise ConfigurationError unless a model takes just these features, in this order.

    >>> check_features(ModelSpec("frost", "3", "model.onnx", "ab12", ("celsius",)), ["celsius", "bar"], "frost 3")
    Traceback (most recent call last):
    modelstream.errors.ConfigurationError: frost 3: the model's features are not those of the use case: it lacks bar
    """
    if spec.features != tuple(features):
        raise ConfigurationError(
            f"{source}: the model's features are not those of the use case: {difference(spec.features, features)}",
            remedy="restore the features that it was trained on; or give the model another `name` in the use case, "
            "and the pipeline runs without one until you train and promote it",
        )


def difference(theirs: Sequence[str], features: Sequence[str]) -> str:
    """Return in words how a model's features differ from others; "" if they don't.

    >>> difference(["celsius"], ["bar", "kelvin"])
    'it lacks bar, kelvin; it wants celsius'
    """
    if tuple(theirs) == tuple(features):
        return ""
    missing = [name for name in features if name not in theirs]
    surplus = [name for name in theirs if name not in features]
    parts = []
    if missing:
        parts.append(f"it lacks {_some(missing)}")
    if surplus:
        parts.append(f"it wants {_some(surplus)}")
    return "; ".join(parts) or "the order differs"


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
