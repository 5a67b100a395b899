"""The page at `GET /`, for someone who has just started the pipeline: the paths, and commands to try."""

from __future__ import annotations

import shlex
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from modelstream.base.command_line import pipeline
from modelstream.use_case.declared import UseCase
from modelstream.use_case.vocabulary import Category, Number

EXAMPLE_KEY = "somebody"

_PAGE = """\
{title}: events in, predictions out. The data are in {data}.

{paths}

Try:

  curl -d '{events}' {url}/events

  curl -d '{{"inputs": [{zeros}]}}' {url}{model}/infer

  {explain}     # events and predictions are in Parquet within 5 s
  {help}
"""
_WIDTH = 34


def about(use_case: UseCase, data: Path, url: str) -> str:
    """Return the page, for a server at `url`."""
    model = f"/v2/models/{use_case.model_name}"
    features = f"{len(use_case.features)} features: {', '.join(use_case.features)}"
    paths = {
        "POST /events": "a JSON object, an array of objects, or one object per line: 202 when all events are "
        "durable; 4xx with the reason if nothing was taken; 503: send it again later" + _retries(use_case),
        f"POST {model}/infer": f"predictions for vectors of {features}",
        f"GET  {model}": "its inputs and outputs; this and all of /v2 is the Open Inference Protocol",
        f"GET  {model}/ready": "tells whether the model server is ready",
        "GET  /healthz": "200, or 503 when rows wait and nothing was committed for 30 s",
        "GET  /metrics": "for Prometheus",
    }
    return _PAGE.format(
        title=use_case.title or use_case.name,
        data=data,
        url=url.rstrip("/"),
        model=model,
        paths="\n".join(_described(path, text) for path, text in paths.items()),
        zeros=[0.0] * len(use_case.features),
        events=msgspec.json.encode(example_events(use_case)).decode().replace("},{", "},\n           {"),
        explain=pipeline("explain", EXAMPLE_KEY, "--data", shlex.quote(str(data))),
        help=pipeline("--help"),
    )


def _retries(use_case: UseCase) -> str:
    if not use_case.id:
        return ""
    return (
        f". What has the {use_case.id} of one of the last 64 events of a {use_case.key} that counted doesn't count "
        "again, so a request without an answer may be sent again"
    )


def _described(path: str, text: str) -> str:
    return textwrap.fill(text, 116, initial_indent=f"  {path}".ljust(_WIDTH), subsequent_indent=" " * _WIDTH)


def example_events(use_case: UseCase) -> list[dict[str, Any]]:
    """Return the fewest events that lead to a prediction."""
    names = [use_case.profile.event] if use_case.profile else []
    names += [use_case.window.opens] if use_case.window else []
    names += [name for name in use_case.predict_on[:1] if name not in names]
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(" ", "seconds")
    events: list[dict[str, Any]] = []
    for name in names:
        event: dict[str, Any] = {use_case.key: EXAMPLE_KEY, use_case.type: name, use_case.time: now}
        for field in _fields_of(name, use_case):
            event.setdefault(field, _EXAMPLES.get(use_case.fields[field], now))
        events.append(enveloped(event | _met_by(name, use_case), use_case))
    if use_case.id and use_case.id not in (use_case.key, use_case.type, use_case.time):
        for number, event in enumerate(events, 1):
            event |= enveloped({use_case.id: str(number)}, use_case)
    return events


_EXAMPLES: dict[str, Any] = {
    "number": 10,
    "integer": 1,
    "boolean": True,
    "identifier": "20000",
    "key": "20000",
    "text": "a",
}
"""A value for a field of each type but time."""


def _fields_of(name: str, use_case: UseCase) -> list[str]:
    """Return the fields of an event that a feature is made of, with those that it must have."""
    fields = list(use_case.needs(name))
    if use_case.profile and name == use_case.profile.event:
        fields += [lookup.by for lookup in use_case.profile_lookups.values()]
    if name in use_case.predict_on:
        fields += [lookup.by for lookup in use_case.event_lookups.values()]
        for form in use_case.forms.values():
            if isinstance(form, Number):
                fields.append(form.number)
            elif isinstance(form, Category):
                fields.append(form.category)
    return fields + [group.value for group in use_case.groups.values() if group.value and name in group.of]


def _met_by(name: str, use_case: UseCase) -> dict[str, Any]:
    """Return the fields with which an event meets the first conditions of the groups that take it."""
    met: dict[str, Any] = {}
    for group in use_case.groups.values():
        for field, condition in group.where.items() if name in group.of else ():
            if field in (use_case.key, use_case.type, use_case.time):
                continue
            if condition.is_ is not None:
                met.setdefault(field, condition.is_)
            elif condition.in_:
                met.setdefault(field, condition.in_[0])
            elif condition.above is not None:
                met.setdefault(field, condition.above + 1)
            elif condition.below is not None:
                met.setdefault(field, condition.below - 1)
    return met


def enveloped(event: dict[str, Any], use_case: UseCase) -> dict[str, Any]:
    """Return an event with each field where the use case reads it."""
    placed: dict[str, Any] = {}
    for name, value in event.items():
        *envelopes, last = use_case.paths[name]
        holder = placed
        for envelope in envelopes:
            holder = holder.setdefault(envelope, {})
        holder[last] = value
    return placed
