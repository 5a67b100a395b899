"""What `GET /` tells someone who has just started the pipeline: what is there, and commands to try."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from modelstream.use_case import UseCase

EXAMPLE_KEY = "somebody"

_PAGE = """\
{title}: events in, predictions out. The data are in {data}.

  POST /events                    a JSON object, an array of objects, or one object a line: 202 when all of them
                                  are durable; 4xx with the reason when nothing was taken; 503: send it again
  POST /v2/models/{model}/infer   a prediction for vectors of {width} features (V2 protocol):
{features}
  GET  /v2/models/{model}/ready   whether the model server answers
  GET  /healthz                   200, or 503 when messages wait and nothing was committed for 30 s
  GET  /metrics                   for Prometheus

Try:

  curl -d '{events}' {url}/events

  curl -d '{{"inputs": [{zeros}]}}' {url}/v2/models/{model}/infer

  python pipeline.py explain {key} --data {data}      (predictions are in Parquet within 5 s)
  python pipeline.py --help
"""


def about(use_case: UseCase, data: Path, url: str) -> str:
    """Return the page, for a server at `url`."""
    return _PAGE.format(
        title=use_case.title or use_case.name,
        data=data,
        url=url.rstrip("/"),
        model=use_case.model_name,
        width=len(use_case.features),
        features=textwrap.fill(", ".join(use_case.features), 110, initial_indent=" " * 34, subsequent_indent=" " * 34),
        zeros=[0.0] * len(use_case.features),
        events=msgspec.json.encode(example_events(use_case)).decode().replace("},{", "},\n           {"),
        key=EXAMPLE_KEY,
    )


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
        events.append(event)
    return events
