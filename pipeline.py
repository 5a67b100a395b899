"""Events come in, a prediction goes out for every event that can change it, and everything is kept for retraining.

    source ──▶ event-handler ──▶ stream-to-features ──▶ model-server ──▶ inference-logger
                    │                 ▲      ▲                ▲                 │
                    ▼                 │      ▼                │                 ▼
                 events       enrichment    features       registry         inference
                    │                                         ▲                 │
                    └─────────────────────────────────────▶ training ◀──────────┘

That is the picture in README.md. A box of the upper row is a function, in processes of its own; an arrow between two of
them is a stream of messages. What a box does is a notebook, for you to edit; how it does it is a file of the library:

    source               functions/data-generator.ipynb        modelstream/stages/data_generator.py
    event-handler        functions/event-handler.ipynb         modelstream/stages/event_handler.py
    stream-to-features   functions/stream-to-features.ipynb    modelstream/stages/stream_to_features.py
    model-server         functions/model-server.ipynb          modelstream/stages/model_server.py
    inference-logger     functions/event-handler.ipynb         modelstream/stages/event_handler.py, with other settings
    training             functions/optional-training.ipynb     modelstream/training/train.py

    the arrows           modelstream/streams/, and what a message is: modelstream/messages/
    events, inference    modelstream/logs/
    enrichment, features modelstream/tables/
    registry             modelstream/registry/

`project.yaml` says which notebook is which box, and connects them. `use_cases/churn.yaml` says what the events, the
features and the model are. All folders of the library, in the order of the picture: `modelstream/__init__.py`.

This file is the command line. `python pipeline.py` runs the picture from the left to the right on this machine; the
other commands look at what it keeps, train a new model, or deploy the same functions to a cluster.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

from modelstream.base import command_line, installed

if stale := installed.problem(command_line.FOLDER):
    sys.exit(stale)

import typer

from modelstream.commands import models, table
from modelstream.commands.check import check
from modelstream.commands.deploy import deploy, undeploy
from modelstream.commands.drift import drift
from modelstream.commands.endings import errors_in_words
from modelstream.commands.explain import explain
from modelstream.commands.options import DATA
from modelstream.commands.peek import peek
from modelstream.commands.process import prepare
from modelstream.commands.replay import replay
from modelstream.commands.run import run
from modelstream.commands.serve import serve
from modelstream.commands.status import status
from modelstream.commands.train import train

HELP = ("--help", "-h")

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": list(HELP)},
)


@app.callback()
def pipeline() -> None:
    """Events in, features and predictions out: the model deployment pipeline.

    `run` may be left out: pipeline.py --users 100 is pipeline.py run --users 100.

    Example: python pipeline.py --users 100 --data data-try
    """


# Run it. `modelstream/runner/supervisor.py` starts the processes, `worker.py` beside it is what one of them does.
RUN = "Run the pipeline"
app.command(rich_help_panel=RUN)(run)
app.command(rich_help_panel=RUN)(serve)

# Look at what it keeps, also while it runs: streams, tables and Parquet files, in the folder `data`.
LOOK = "Look at what it keeps"
app.command(rich_help_panel=LOOK)(status)
app.command(rich_help_panel=LOOK)(peek)
app.add_typer(table.app, name="table", rich_help_panel=LOOK)
app.command(rich_help_panel=LOOK)(explain)
app.command(rich_help_panel=LOOK)(replay)

# Bring your own case: a file says what the events, the features and the model are.
app.command(rich_help_panel="Bring another use case")(check)

# Learn from it. A version that is promoted serves within seconds: `modelstream/registry/watch.py`.
TRAIN = "Train the model anew"
app.command(rich_help_panel=TRAIN)(train)
app.add_typer(models.app, name="models", rich_help_panel=TRAIN)
app.command(rich_help_panel=TRAIN)(drift)

# Bring it to a cluster: the same notebooks, with the triggers that `modelstream/cluster/functions.py` gives them.
CLUSTER = "Bring it to a cluster"
app.command(rich_help_panel=CLUSTER)(deploy)
app.command(rich_help_panel=CLUSTER)(undeploy)


def completed(arguments: list[str]) -> list[str]:
    """Return the arguments with the command that may be left out.

    >>> completed([]), completed(["--users", "100"]), completed(["table", "features"])
    (['run'], ['run', '--users', '100'], ['table', 'show', 'features'])

    Two words after `table` are a command and a name, even if the command is misspelt: Typer says which was meant.

    >>> completed(["table", "laod", "enrichment", "postcodes.csv"])
    ['table', 'laod', 'enrichment', 'postcodes.csv']
    """
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in HELP):
        return ["run", *arguments]
    words = [word.startswith("-") for word in arguments[1:3]]
    if arguments[0] == "table" and words and words != [False, False] and arguments[1] not in ("show", "load", *HELP):
        return ["table", "show", *arguments[1:]]
    return arguments


def main(arguments: list[str] | None = None) -> None:
    """Run the command line, and end the process with its exit status."""
    try:
        with errors_in_words():
            for each in (app, table.app, models.app):
                registered: list[Any] = [*each.registered_commands, *filter(None, [each.registered_callback])]
                for told in registered:
                    told.help = command_line.as_typed_here(inspect.getdoc(told.callback) or "")
            app(completed(sys.argv[1:] if arguments is None else arguments), prog_name=command_line.pipeline())
    finally:
        command_line.work_on(DATA)


if __name__ == "__main__":
    with errors_in_words():
        prepare()
    main()
