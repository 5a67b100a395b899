"""`pipeline.py deploy` and `undeploy`: the functions on a cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from modelstream.commands.options import FLAG

BESIDES = "What the workflow does besides"
"""The panel of options for steps before and after the deployment."""

Config = Annotated[
    Path, typer.Option(metavar="FILE", help="The cluster's file: clusters/kafka.yaml, clusters/v3io.yaml, or a copy.")
]


def deploy(
    config: Config,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", metavar=FLAG, help="Say what would be done; write the details to files. Needs no cluster."
        ),
    ] = False,
    diff: Annotated[
        bool,
        typer.Option("--diff", metavar=FLAG, help="Say how that differs from what MLRun holds now. Changes nothing."),
    ] = False,
    output: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Where --dry-run writes plan.yaml and, after make kfp, workflow.yaml."),
    ] = Path("build"),
    engine: Annotated[
        Literal["local", "kfp", "remote"],
        typer.Option(
            metavar="ENGINE",
            help="Who runs the workflow. kfp: Kubeflow; it is compiled here. remote: Kubeflow; it is compiled "
            "on the cluster, from `source` in the cluster's file. local: this machine, one step after the other.",
        ),
    ] = "kfp",
    secrets_from_env: Annotated[
        bool,
        typer.Option(
            "--secrets-from-env",
            metavar=FLAG,
            help="Put the `project_secrets` of the cluster's file, as your environment has them, into MLRun's secrets "
            "of the project.",
        ),
    ] = False,
    generate: Annotated[
        bool,
        typer.Option(
            "--generate",
            metavar=FLAG,
            help="Generate events when all functions are deployed, as `generator` in the cluster's file says.",
            rich_help_panel=BESIDES,
        ),
    ] = False,
    train: Annotated[
        bool,
        typer.Option(
            "--train",
            metavar=FLAG,
            help="When the events are processed, train a model and promote it.",
            rich_help_panel=BESIDES,
        ),
    ] = False,
    model_version: Annotated[
        str,
        typer.Option(
            metavar="VERSION",
            help="Promote this registered version of the model (default: keep the one that serves).",
            show_default=False,
            rich_help_panel=BESIDES,
        ),
    ] = "",
) -> None:
    """Deploy the functions to a cluster with MLRun and Nuclio.

    Copy a file of clusters/, let it say where your streams, tables and logs are,
    and look with --dry-run. Then export MLRUN_DBPATH with the address of MLRun's
    API, look with --diff, and deploy. If it is interrupted, run it again: it goes
    on. docs/cluster.md says what to prepare.

    Example: python pipeline.py deploy --config clusters/kafka.yaml --dry-run
    """
    from modelstream.cluster import deploy as cluster
    from modelstream.cluster.options import WorkflowOptions
    from modelstream.project import default_file

    if dry_run and diff:
        raise typer.BadParameter("--diff asks MLRun, which --dry-run does without: give one of the two")
    options = WorkflowOptions(generate=generate, train=train, model_version=model_version)
    folder = default_file().parent
    with _interruption():
        lines = cluster.deploy(
            config,
            options,
            engine=engine,
            secrets_from_env=secrets_from_env,
            dry_run=dry_run,
            diff=diff,
            output=output,
            folder=folder,
        )
    print(*lines, sep="\n")


def undeploy(
    config: Config,
    delete_data: Annotated[
        bool,
        typer.Option(
            "--delete-data", metavar=FLAG, help="Also delete streams, tables and logs. Registered models are kept."
        ),
    ] = False,
) -> None:
    """Take the functions off the cluster, the first one first.

    Streams, tables, logs and models are kept: after another deploy, the pipeline
    continues. If it is interrupted, run it again: it does the rest.

    Example: python pipeline.py undeploy --config clusters/kafka.yaml
    """
    from modelstream.cluster import deploy as cluster
    from modelstream.project import default_file

    with _interruption():
        lines = cluster.undeploy(config, delete_data=delete_data, folder=default_file().parent)
    print(*lines, sep="\n")


@contextmanager
def _interruption() -> Iterator[None]:
    """After Ctrl-C, tell what has been done and how to go on."""
    from modelstream.cluster.deploy import Interrupted

    try:
        yield
    except Interrupted as stop:
        print(f"Interrupted: {stop}.\n→ {stop.remedy}", file=sys.stderr)
        raise typer.Exit(130) from None
