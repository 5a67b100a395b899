"""`pipeline.py explain`: the events and features behind a user's prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelstream.base.words import counted
from modelstream.commands.endings import looking
from modelstream.commands.options import DATA, AsJson, Data, Last
from modelstream.errors import ConfigurationError

if TYPE_CHECKING:
    from modelstream.commands.output import Row
    from modelstream.replay.explain import Explanation
    from modelstream.use_case.declared import UseCase


def explain(
    user: Annotated[str, typer.Argument(metavar="USER", help="The key of a user, as `table features` shows it.")],
    last: Last = 10,
    as_json: AsJson = False,
    data: Data = DATA,
) -> None:
    """Explain a user's prediction: the events, which of them counted, and the features.

    For each event it shows that it counted, or why not. The features are recomputed
    from the events, and shown beside the stored row.

    Example: python pipeline.py explain 006bda54-757f-470d-84b6-8c9c5ee69f2e
    """
    from modelstream.commands.output import print_json
    from modelstream.replay import explain as replayed

    with looking(data) as view:
        found = replayed.explain(view, view.project, view.marker.shards, user, last)
        if not found.events and found.row is None:
            raise ConfigurationError(
                f"the log has no event with {view.use_case.key} {user!r}",
                remedy=f"`python pipeline.py table {view.names.features}` lists users; "
                "an event of the last 5 s may not be there yet",
            )
        if as_json:
            print_json(found)
        else:
            print_explanation(found, view.use_case, view.names.features)


def print_explanation(found: Explanation, use_case: UseCase, table: str) -> None:
    """Print an explanation for a person."""
    from modelstream.commands.output import console, fitting_table, readable
    from modelstream.use_case.reasons import explained

    out = console()
    reasons = "".join(f", {number:,} {reason}" for reason, number in found.not_counted.items())
    out.print(
        f"{use_case.key} {found.user} (shard {found.shard}): {counted(found.events, 'event')}, "
        f"{found.counted:,} counted{reasons}; {counted(found.vectors, 'vector')}, "
        f"{counted(found.predictions, 'prediction')}"
    )
    for line in explained(found.not_counted, use_case):
        out.print(f"  {line}")
    if found.on_the_way:
        out.print(f"{counted(found.on_the_way, 'row')} still on the way: not in the log yet")
    rows = [_row(event, use_case) for event in found.last_events]
    out.print(fitting_table(rows, out.width, f"the last {counted(len(rows), 'event')}"))
    if found.vector is None:
        out.print("no event of this user has led to a feature vector")
    if found.row is None:
        out.print(f"no row in the table {table}: a user gets one with the profile event")
    if found.vector is not None or found.row is not None:
        sent = "vector sent last" if found.vector is None else f"vector sent at {readable(found.vector[use_case.time])}"
        names = [name for name in use_case.features_schema.names if name != use_case.key]
        pairs: list[Row] = [
            {"": name, sent: (found.vector or {}).get(name), f"row in {table}": (found.row or {}).get(name)}
            for name in names
        ]
        out.print(fitting_table(pairs, out.width, "features"))


def _row(event: dict[str, Any], use_case: UseCase) -> Row:
    """Return an event's cells, the most important first: its value, whether it counted, and the prediction."""
    from modelstream.replay.explain import COUNTED
    from modelstream.source.distributions import value_field
    from modelstream.use_case.columns import PREDICTED_AT

    code = use_case.event_codes.get(event.get(use_case.type, ""))
    field = None if code is None else value_field(use_case, use_case.event_names[code])
    predicted = event.get(use_case.prediction)
    answer = None if predicted is None else f"{predicted} ({event[use_case.probability]:.3f})"
    if predicted is None and event.get(PREDICTED_AT) is not None:
        answer = "no model yet"
    cells = {
        use_case.time: event[use_case.time],
        use_case.type: event.get(use_case.type),
        "value": event.get(field) if field else None,
        COUNTED: event[COUNTED],
        use_case.prediction: answer,
    }
    return cells | {name: other for name, other in event.items() if name not in {use_case.key, field, *cells}}
