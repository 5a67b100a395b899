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
        "durable; 4xx with the reason if nothing was taken; 503: send it again later",
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
        if value := use_case.value_field(name):
            event[value] = 10
        if use_case.lookup and use_case.profile and name == use_case.profile.event:
            event[use_case.lookup.by] = "20000"
        events.append(enveloped(event, use_case))
    return events


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
