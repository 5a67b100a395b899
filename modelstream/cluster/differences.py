"""What `deploy` would change: the functions that MLRun's API holds, compared with those that would be sent.

Only what is sent is compared. What MLRun adds by itself (states, hashes, defaults) is no difference.
"""

from __future__ import annotations

import base64
import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from modelstream.cluster import plan

MOST_LINES = 20
"""Of changed code that are shown for a function."""
_GONE = ("variable ", "volume ", "annotation ", "cpu, ", "memory, ")
"""Beginnings of fields that are a difference when they are there and not sent. Triggers and steps get more by MLRun."""
_BY_MLRUN = ("variable MLRUN_", "variable V3IO_")
"""Beginnings of variables that MLRun gives functions by itself."""

Function = Mapping[str, Any]
"""A function as MLRun writes it (`to_dict`)."""


def differences(deployed: Mapping[str, Function | None], asked: Mapping[str, Function]) -> list[str]:
    """Return the lines to print: for each function that is asked for, what MLRun holds and what would be sent.

    `deployed` has None for a function that MLRun doesn't know, and may have others, which `deploy` leaves alone.
    """
    lines: list[str] = []
    same, jobs = [], []
    for name, function in asked.items():
        there = deployed.get(name)
        if there is None and function["kind"] == "job":
            jobs.append(name)
        elif there is None:
            lines.append(f"{name}: not there yet")
        elif changes := [*_changes(there, function)]:
            lines += [f"{name}:", *(f"  {change}" for change in changes)]
        else:
            same.append(name)
    if same:
        lines.append(f"no difference: {', '.join(same)}")
    if jobs:
        lines.append(f"jobs that have not run yet: {', '.join(jobs)}")
    if others := sorted(deployed.keys() - asked.keys()):
        lines.append(f"in MLRun, but not in project.yaml; `deploy` leaves them as they are: {', '.join(others)}")
    return lines


def _changes(there: Function, asked: Function) -> Iterator[str]:
    before, after = fields(there), fields(asked)
    for name in dict.fromkeys([*after, *before]):
        old, new = before.get(name), after.get(name)
        if old == new or (new is None and (name.startswith(_BY_MLRUN) or not name.startswith(_GONE))):
            continue
        if old is None:
            yield f"{name}: new, {new}"
        elif new is None:
            yield f"{name}: {old} → gone"
        else:
            yield f"{name}: {old} → {new}"
    yield from _code_changes(_code(there), _code(asked))


def fields(function: Function) -> dict[str, str]:
    """Return what is compared of a function but for its code, under names that a person reads.

    >>> fields({"spec": {"image": "i:1", "env": [{"name": "A", "value": "1"}], "max_replicas": 2}})
    {'image': 'i:1', 'replicas': '2', 'variable A': '1'}
    """
    spec = function["spec"]
    found: dict[str, Any] = {
        "image": spec.get("image"),
        "handler": spec.get("function_handler") or spec.get("default_handler"),
        "runtime": spec.get("nuclio_runtime"),
        "default HTTP trigger": {True: "off", False: "on"}.get(spec.get("disable_default_http_trigger")),
        "replicas": spec.get("max_replicas"),
    }
    found |= {f"variable {name}": value for name, value in plan.variables(spec.get("env") or []).items()}
    for kind, values in (spec.get("resources") or {}).items():
        found |= {f"{resource}, {kind.removesuffix('s')}": value for resource, value in (values or {}).items()}
    for key, trigger in (spec.get("config") or {}).items():
        if key.startswith("spec.triggers."):
            found |= _flat(plan.masked(trigger), f"trigger {key.removeprefix('spec.triggers.')}")
    for mount in spec.get("volume_mounts") or []:
        found[f"volume at {mount['mountPath']}"] = mount["name"]
    annotations = ((spec.get("base_spec") or {}).get("metadata") or {}).get("annotations") or {}
    found |= {f"annotation {name}": value for name, value in plan.masked(dict(annotations)).items()}
    steps = (spec.get("graph") or {}).get("steps") or {}
    for step, details in steps.items():
        found |= _flat(plan.masked(details), f"step {step}")
    return {name: str(value) for name, value in found.items() if value not in (None, "", {}, [])}


def _flat(value: Any, name: str) -> dict[str, Any]:
    """Return the values within mappings, each with the way to it."""
    if not isinstance(value, Mapping):
        return {name: value}
    return {way: each for key, inner in value.items() for way, each in _flat(inner, f"{name}, {key}").items()}


def _code(function: Function) -> list[str]:
    encoded = (function["spec"].get("build") or {}).get("functionSourceCode") or ""
    return base64.b64decode(encoded).decode().splitlines()


def _code_changes(before: list[str], after: list[str]) -> Iterator[str]:
    changed = [line for line in difflib.unified_diff(before, after, n=0, lineterm="") if line[:1] in "+-"][2:]
    if not changed:
        return
    added = sum(line.startswith("+") for line in changed)
    yield f"lines of code: {added} added, {len(changed) - added} removed"
    yield from (f"  {line}" for line in changed[:MOST_LINES])
    if len(changed) > MOST_LINES:
        yield f"  … and {len(changed) - MOST_LINES} more"
