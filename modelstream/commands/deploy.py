"""`pipeline.py deploy` and `undeploy`: the functions on a cluster."""

from __future__ import annotations

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
            "--dry-run", metavar=FLAG, help="Print what would be deployed and write the workflow. Needs no cluster."
        ),
    ] = False,
    workflow: Annotated[Path, typer.Option(metavar="FILE", help="Where --dry-run writes the workflow.")] = Path(
        "build/workflow.yaml"
    ),
    engine: Annotated[
        Literal["local", "kfp", "remote"],
        typer.Option(
            metavar="ENGINE",
            help="Who runs the workflow. kfp: Kubeflow; it is compiled here. remote: Kubeflow; it is compiled "
            "on the cluster, from `source` in the cluster's file. local: this machine, one step after the other.",
        ),
    ] = "kfp",
    generate: Annotated[
        bool,
        typer.Option(
            "--generate/--no-generate",
            metavar=FLAG,
            help="Generate events when all functions are deployed.",
            rich_help_panel=BESIDES,
        ),
    ] = True,
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

    Streams are in Kafka or V3IO, tables in Redis or V3IO, logs on S3 or a shared
    folder. docs/cluster.md says what to prepare.

    Example: python pipeline.py deploy --config clusters/kafka.yaml --dry-run
    """
    from modelstream.cluster import deploy as cluster
    from modelstream.project import default_file

    options = cluster.WorkflowOptions(generate=generate, train=train, model_version=model_version)
    folder = default_file().parent
    for line in cluster.deploy(config, options, engine=engine, dry_run=dry_run, workflow=workflow, folder=folder):
        print(line)


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
    continues.

    Example: python pipeline.py undeploy --config clusters/kafka.yaml
    """
    from modelstream.cluster import deploy as cluster
    from modelstream.project import default_file

    for line in cluster.undeploy(config, delete_data=delete_data, folder=default_file().parent):
        print(line)
