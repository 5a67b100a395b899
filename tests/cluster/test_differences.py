"""What `deploy --diff` tells of two functions, and what it doesn't: what MLRun adds by itself."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from modelstream.cluster.differences import MOST_LINES, differences


def function(code: str = "a\nb\n", **spec: Any) -> dict[str, Any]:
    build = {"functionSourceCode": base64.b64encode(code.encode()).decode()}
    return {"kind": "nuclio", "spec": {"image": "i:1", "max_replicas": 1, "build": build} | spec}


def changed(there: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    return [line.strip() for line in differences({"f": there}, {"f": asked})]


def env(**values: str) -> dict[str, Any]:
    return {"env": [{"name": name, "value": value} for name, value in values.items()]}


TRIGGER: dict[str, Any] = {
    "config": {"spec.triggers.in": {"kind": "kafka-cluster", "attributes": {"topics": ["a"]}, "password": "s1"}}
}
MORE = {"config": {"spec.triggers.in": TRIGGER["config"]["spec.triggers.in"] | {"name": "in"}}}
SECRET = {"env": [{"name": "P", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}


@pytest.mark.parametrize(
    ("there", "asked", "told"),
    [
        ({}, {"image": "i:2"}, "image: i:1 → i:2"),
        ({}, {"max_replicas": 3}, "replicas: 1 → 3"),
        (env(A="1"), env(A="2"), "variable A: 1 → 2"),
        ({}, env(A="2"), "variable A: new, 2"),
        (env(A="1"), {}, "variable A: 1 → gone"),
        (env(P="x"), SECRET, "variable P: x → from the secret s, key k"),
        ({"resources": {"limits": {"memory": "1Gi"}}}, {}, "memory, limit: 1Gi → gone"),
        (TRIGGER, MORE, "trigger in, name: new, in"),
        ({}, {"volume_mounts": [{"mountPath": "/mnt", "name": "claim"}]}, "volume at /mnt: new, claim"),
    ],
)
def test_field_that_differs_is_told(there: dict[str, Any], asked: dict[str, Any], told: str) -> None:
    assert changed(function(**there), function(**asked)) == ["f:", told]


@pytest.mark.parametrize("there", [env(MLRUN_DEFAULT_PROJECT="p"), {"status": "ready"}, MORE])
def test_what_mlrun_adds_is_no_difference(there: dict[str, Any]) -> None:
    asked = TRIGGER if there is MORE else {}
    assert changed(function(**there), function(**asked)) == ["no difference: f"]


def test_passwords_are_not_shown() -> None:
    other: dict[str, Any] = {"config": {"spec.triggers.in": {**TRIGGER["config"]["spec.triggers.in"], "kind": "other"}}}
    lines = changed(function(**env(PASSWORD="s3")), function(**other, **env(PASSWORD="s4")))
    assert "s1" not in str(lines) and "s3" not in str(lines) and "s4" not in str(lines)


def test_lines_of_code_that_differ_are_shown_and_of_many_only_the_first() -> None:
    assert changed(function(), function("a\nc\n"))[1:] == ["lines of code: 1 added, 1 removed", "-b", "+c"]
    many = changed(function(), function("x\n" * 100))
    assert len(many) == 2 + MOST_LINES + 1
    assert many[-1] == "… and 82 more"


def test_function_that_is_not_there_and_one_that_is_left_are_told() -> None:
    told = differences({"f": None, "g": None, "old": function()}, {"f": function(), "g": {**function(), "kind": "job"}})
    assert told[:2] == ["f: not there yet", "jobs that have not run yet: g"]
    assert told[2].endswith("leaves them as they are: old")
