"""Events in, features and predictions out: the model deployment pipeline.

    source ─▶ event-handler ─▶ stream-to-features ─▶ model-server ─▶ inference-logger

`python pipeline.py` runs it on this machine, from generated events to stored predictions. The functions are the
notebooks under `functions/`, what connects them stands in `project.yaml`, and what the events, features and the
model are in `use_cases/churn.yaml`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

try:
    import typer
    from typer.core import TyperGroup
except ModuleNotFoundError:
    sys.exit("The environment is missing: run `make env`, then `. .venv/bin/activate` (or use `make run`).")


class Commands(TyperGroup):
    """The commands; a name may be two words."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the arguments begin with."""
        if (two := " ".join(args[:2])) in self.commands:
            return two, self.commands[two], args[2:]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    help="Run the model deployment pipeline. Without a command: `run` with its defaults.",
    epilog="The data of a run lie in its --data folder: Parquet in events/ and inference/, "
    "SQLite in streams/ and tables/.",
)

Data = Annotated[Path, typer.Option(help="Folder for everything that the pipeline keeps.", show_default=True)]
Shards = Annotated[
    int | None,
    typer.Option(min=1, max=64, help="Shards of every stream; fixed once the folder is made (default: 8)."),
]
Workers = Annotated[int, typer.Option(min=1, max=64, help="Processes of each function; shards are spread over them.")]
Streams = Annotated[
    str,
    typer.Option(
        metavar="URL",
        help="Where streams are, such as kafka://127.0.0.1:9092/churn (default: in the folder). "
        "It is kept: give it once.",
        show_default=False,
    ),
]
Tables = Annotated[
    str,
    typer.Option(
        metavar="URL", help="Where tables are, such as redis://127.0.0.1:6379/0?prefix=churn.", show_default=False
    ),
]
Logs = Annotated[
    str,
    typer.Option(
        metavar="URL", help="Where the Parquet logs are: another folder, or s3://bucket/prefix.", show_default=False
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No live table.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on standard output.")]


@app.callback()
def _commands() -> None:
    """Run the model deployment pipeline. Without a command: `run` with its defaults."""


@app.command()
def run(
    input: Annotated[
        str | None,
        typer.Option(
            help="NDJSON file to read instead of generating events; - is standard input (what was taken in is kept, "
            "what was not yet read when the pipeline was killed is gone).",
            metavar="FILE|-",
        ),
    ] = None,
    enrichment: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with the table to look up, its columns named as in the use case, or key and value.",
            metavar="FILE",
        ),
    ] = None,
    users: Annotated[int, typer.Option(min=1, help="Users to generate.")] = 2000,
    events_per_user: Annotated[
        int, typer.Option(min=1, help="Events to generate for each, besides the registration.")
    ] = 1000,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the generator: the same seed and --end give the same events.")
    ] = 1,
    end: Annotated[
        str | None,
        typer.Option(help="Time at which the generated events end (default: now).", metavar="TIME"),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Send this many events a second, each by itself, instead of as fast as it goes.",
            metavar="EVENTS_PER_SECOND",
        ),
    ] = None,
    shards: Shards = None,
    workers: Workers = 1,
    data: Data = Path("data"),
    streams: Streams = "",
    tables: Tables = "",
    logs: Logs = "",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Remove what the folder holds of earlier runs, and begin anew.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run events through the pipeline until each has reached the end.

    Run again on the same folder it goes on where it stopped, whatever stopped it, and nothing is done twice.
    Ctrl-C saves what is in hand.
    """
    from modelstream.commands import shared as commands
    from modelstream.settings import StoreUrls

    source: dict[str, Any] = {"users": users, "events_per_user": events_per_user, "seed": seed, "end": end}
    if input is not None:
        if (users, events_per_user, seed, end) != (2000, 1000, 1, None):
            raise typer.BadParameter(
                "--users, --events-per-user, --seed and --end are for generated events, not --input"
            )
        source = {"input": input}
    raise typer.Exit(
        commands.run(
            source | {"enrichment": str(enrichment) if enrichment else None, "rate": rate},
            data,
            shards=shards,
            workers=workers,
            fresh=fresh,
            as_json=as_json,
            quiet=quiet,
            urls=StoreUrls(streams, tables, logs),
        )
    )


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes any that is free.")] = 8080,
    enrichment: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with the table to look up, its columns named as in the use case, or key and value.",
            metavar="FILE",
        ),
    ] = None,
    shards: Shards = None,
    workers: Workers = 1,
    data: Data = Path("data"),
    streams: Streams = "",
    tables: Tables = "",
    logs: Logs = "",
    quiet: Quiet = False,
) -> None:
    """Keep the functions up and take events by HTTP, until Ctrl-C.

    POST a JSON object, an array, or NDJSON to /events: 202 says that it is durable.
    GET / tells what else there is. Ctrl-C finishes what is in hand and saves it;
    the next start on the same folder goes on.
    """
    from modelstream.commands import shared as commands
    from modelstream.settings import StoreUrls

    raise typer.Exit(
        commands.serve(
            data,
            port=port,
            enrichment=enrichment,
            shards=shards,
            workers=workers,
            quiet=quiet,
            urls=StoreUrls(streams, tables, logs),
        )
    )


Last = Annotated[int, typer.Option(min=1, metavar="N", help="How many of the newest to show.")]


@app.command()
def peek(
    stream: Annotated[str, typer.Argument(help="generated, incoming-events, serving, inference, or dead-letters.")],
    last: Last = 5,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a row, on a terminal too.")] = False,
    data: Data = Path("data"),
) -> None:
    """Show the last messages of a stream, oldest first.

    On a terminal a table each; else a JSON object a row.
    Example: python pipeline.py peek dead-letters --last 100 | jq .reason
    """
    from modelstream.commands import shared as commands

    raise typer.Exit(commands.peek(data, stream, last=last, as_json=as_json))


@app.command()
def table(
    name: Annotated[str, typer.Argument(help="features or enrichment.")],
    key: Annotated[str | None, typer.Option(metavar="K", help="Only the row of this key.")] = None,
    format: Annotated[
        Literal["csv", "json", "parquet"] | None,
        typer.Option(help="By default what the name of --output says; else a table on a terminal, csv elsewhere."),
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to this file.")] = None,
    data: Data = Path("data"),
) -> None:
    """Show or write a table: features (a row for every registered user) or enrichment (what is looked up).

    Example: python pipeline.py table features --output features.parquet
    """
    from modelstream.commands import shared as commands

    raise typer.Exit(commands.table(data, name, key=key, form=format, output=output))


@app.command("table load")
def table_load(
    name: Annotated[str, typer.Argument(help="The table that the use case looks up: enrichment.")],
    file: Annotated[Path, typer.Argument(help="CSV file whose first line names the columns.", metavar="FILE")],
    tables: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Tables anywhere, such as redis://127.0.0.1:6379/0?prefix=churn (default: those of --data).",
            show_default=False,
        ),
    ] = "",
    data: Data = Path("data"),
) -> None:
    """Load a table to look up from a CSV file: all of it or, if a line is wrong, nothing.

    A key that is there already gets the new value; others stay. A pipeline that runs on it sees it within seconds.
    Generated events come with a table of their own.
    Example: python pipeline.py table load enrichment postcodes.csv
    """
    from modelstream.commands import shared as commands

    raise typer.Exit(commands.load_table(data, name, file, tables=tables))


@app.command()
def status(as_json: AsJson = False, data: Data = Path("data")) -> None:
    """Tell what the folder holds, what waits for which function, and whether a pipeline runs on it."""
    from modelstream.commands import shared as commands

    raise typer.Exit(commands.status(data, as_json=as_json))


@app.command()
def explain(
    user: Annotated[str, typer.Argument(help="The key of a user, such as a user_id.")],
    last: Last = 10,
    as_json: AsJson = False,
    data: Data = Path("data"),
) -> None:
    """Tell what is behind a user's prediction: the events, why each counted or not, the vector, and the row."""
    from modelstream.commands import shared as commands

    raise typer.Exit(commands.explain(data, user, last=last, as_json=as_json))


@app.command()
def replay(as_json: AsJson = False, data: Data = Path("data")) -> None:
    """Compute all features again from the log of events, and compare them with those stored and served, bit for bit.

    Exits 1 with the first differences.
    """
    from modelstream.commands import shared as commands

    raise typer.Exit(commands.replay(data, as_json=as_json))


@app.command()
def drift(
    since: Annotated[
        str | None,
        typer.Option(metavar="T", help="Only predictions made since: ISO 8601, or so long ago (15m, 6h, 7d)."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="VERSION", help="The version whose predictions and card to take.")
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write a page with plots too.")] = None,
    as_json: AsJson = False,
    data: Data = Path("data"),
) -> None:
    """Compare what was served with what the model that serves was made of.

    Exits 0 when there is no drift or it is merely possible, 1 when there is, 2 after an error.
    """
    from modelstream.commands import shared as commands

    raise typer.Exit(commands.drift(data, since=since, model=model, as_json=as_json, output=output))


@app.command()
def train(
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What became of users: CSV, Parquet or NDJSON, key and label. Default: the log."
        ),
    ] = None,
    candidates: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Which to try, with commas (default: all of the notebook's).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample, the split and the candidates.")] = 1,
    name: Annotated[str, typer.Option(metavar="NAME", help="The model (default: the use case's).")] = "",
    promote: Annotated[bool, typer.Option("--promote", help="Let the new version serve.")] = False,
    source: Annotated[
        str,
        typer.Option(
            metavar="events|inference",
            help="Replay the log of events, and compare it with what was served; or take what was served.",
        ),
    ] = "events",
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Only vectors of this event time or later.")] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only vectors of this event time or before.")
    ] = None,
    as_json: AsJson = False,
    data: Data = Path("data"),
) -> None:
    """Train a model on what the pipeline has kept, test it on users it has never seen, and register it.

    Runs the function of functions/optional-training.ipynb. Prints where the report is.
    """
    from modelstream.commands import shared as commands

    parameters = {
        "labels": str(labels) if labels else None,
        "source": source,
        "since": since,
        "until": until,
        "candidates": candidates,
        "seed": seed,
        "name": name,
        "promote": promote,
    }
    raise typer.Exit(commands.train(data, parameters, as_json=as_json))


models = typer.Typer(invoke_without_command=True, help="The versions of the model, and which of them serves.")
app.add_typer(models, name="models")
ModelName = Annotated[str, typer.Option(metavar="NAME", help="The model (default: the use case's).")]
Version = Annotated[str, typer.Argument(metavar="V", help="A version, as `models list` shows it.")]


@models.callback()
def _models(context: typer.Context) -> None:
    """List the versions of the model, show or promote one, or go back. Without a command: `list`."""
    if context.invoked_subcommand is None:
        models_list()


@models.command("list")
def models_list(name: ModelName = "", as_json: AsJson = False) -> None:
    """List all versions: the one that came with the project, and those that were registered."""
    from modelstream.commands import shared as commands

    raise typer.Exit(commands.models("list", "", name=name, as_json=as_json))


@models.command("show")
def models_show(version: Version, name: ModelName = "", as_json: AsJson = False) -> None:
    """Show a version and its card."""
    from modelstream.commands import shared as commands

    raise typer.Exit(commands.models("show", version, name=name, as_json=as_json))


@models.command("promote")
def models_promote(version: Version, name: ModelName = "") -> None:
    """Let a version serve, from now on: a pipeline that runs takes it within 5 s, and nothing is lost."""
    from modelstream.commands import shared as commands

    raise typer.Exit(commands.models("promote", version, name=name, as_json=False))


@models.command("rollback")
def models_rollback(name: ModelName = "") -> None:
    """Let the version serve that did before the current one."""
    from modelstream.commands import shared as commands

    raise typer.Exit(commands.models("rollback", "", name=name, as_json=False))


Config = Annotated[
    Path, typer.Option(metavar="FILE", help="The cluster's file: clusters/kafka.yaml, clusters/v3io.yaml, or a copy.")
]


@app.command()
def deploy(
    config: Config,
    engine: Annotated[
        Literal["local", "kfp", "remote"],
        typer.Option(help="Who runs the workflow: this machine, step by step; Kubeflow; or MLRun, from `source`."),
    ] = "kfp",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only print what would be deployed, and write the workflow. Needs no cluster."),
    ] = False,
    generate: Annotated[
        bool, typer.Option("--generate/--no-generate", help="Run the data generator when all is deployed.")
    ] = True,
    train: Annotated[
        bool, typer.Option("--train", help="When all is drained, train a model and let it serve.")
    ] = False,
    model_version: Annotated[str, typer.Option(metavar="V", help="A registered version of the model to serve.")] = "",
    workflow: Annotated[
        Path, typer.Option(metavar="FILE", help="Where --dry-run writes the workflow as Argo's YAML.")
    ] = Path("build/workflow.yaml"),
) -> None:
    """Deploy the functions to a cluster: MLRun and Nuclio, with V3IO or Kafka and Redis (docs/cluster.md).

    Example: python pipeline.py deploy --config clusters/kafka.yaml --dry-run
    """
    from modelstream.cluster.deploy import Order
    from modelstream.commands import deploy as commands

    order = Order(generate=generate, train=train, model_version=model_version)
    folder = Path(__file__).parent
    raise typer.Exit(commands.deploy(config, order, engine=engine, dry_run=dry_run, workflow=workflow, folder=folder))


@app.command()
def undeploy(
    config: Config,
    data: Annotated[
        bool, typer.Option("--data", help="Delete streams, tables and logs too. Registered models stay.")
    ] = False,
) -> None:
    """Take the functions down, the first one first; streams, tables and logs stay."""
    from modelstream.commands import deploy as commands

    raise typer.Exit(commands.undeploy(config, data=data, folder=Path(__file__).parent))


def main() -> None:
    """Run the command line; options without a command are those of `run`."""
    arguments = sys.argv[1:]
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("--help", "-h")):
        arguments.insert(0, "run")
    app(arguments)


if __name__ == "__main__":
    main()
