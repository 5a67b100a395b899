"""What a deployment does, for a person: what is made, which functions are deployed, and in which order."""

from __future__ import annotations

from modelstream.cluster.config import Cluster
from modelstream.cluster.functions import DRIFT_AT, TRIM_AT
from modelstream.cluster.options import WorkflowOptions
from modelstream.project import Project


def summary(project: Project, cluster: Cluster, options: WorkflowOptions) -> str:
    """Return the lines to print."""
    lines = [f"The project {project.name}, in the image {cluster.image}"]
    lines += ["", "Made where it is missing:", *_stores(project, cluster)]
    lines += ["", "Then, in this order:"]
    lines += [f"{number:>3}  {step}" for number, step in enumerate(_steps(project, cluster, options), 1)]
    if cluster.on_kafka:
        hours = cluster.retention_hours
        lines += ["", f"Every hour ({TRIM_AT}):"]
        lines += ["     " + _row("run", "trim", f"deletes acknowledged messages older than {hours} hours")]
    if cluster.monitoring:
        lines += ["", f"Every hour ({DRIFT_AT}):"]
        lines += ["     " + _row("run", "drift", "compares what was served with what the model was made of")]
    if left := _left_out(project, options):
        lines += ["", "Not asked for:", *left]
    return "\n".join(lines)


def _stores(project: Project, cluster: Cluster) -> list[str]:
    params = project.params
    epoch = f", epoch {cluster.epoch}" if cluster.epoch else ""
    found = {
        "streams": (cluster.streams, f"{', '.join(params.streams)} ({params.shards} shards each{epoch})"),
        "tables": (cluster.tables, ", ".join(params.tables)),
        "logs": (cluster.logs, ", ".join(params.logs)),
        "models": (cluster.registry_url(), ""),
    }
    lines = []
    for kind, (url, names) in found.items():
        lines += [f"  {kind:<9}{url}", *([f"{'':11}{names}"] if names else [])]
    return lines


def _steps(project: Project, cluster: Cluster, options: WorkflowOptions) -> list[str]:
    chain = project.chain
    steps = [_row("run", "prepare", "makes streams and tables")]
    if options.model_version:
        steps += [_row("run", "promote", f"lets version {options.model_version} of the model serve")]
    steps += [_row("deploy", name, _function(project, cluster, name)) for name in reversed(chain.consumers)]
    if options.generate:
        asked = ", ".join(f"{name} {value}" for name, value in cluster.generator.items())
        steps += [_row("run", chain.source, f"generates events{': ' if asked else ''}{asked}")]
    if options.train and chain.trainer:
        steps += [_row("run", "drained", "waits until every function has processed all events")]
        steps += [_row("run", chain.trainer, "trains a model"), _row("run", "promote", "lets it serve")]
    return steps


def _left_out(project: Project, options: WorkflowOptions) -> list[str]:
    chain = project.chain
    left = [] if options.generate else [_row("", chain.source, "generates events: --generate")]
    if chain.trainer and not options.train:
        left += [_row("", chain.trainer, "trains a model, which then serves: --train")]
    return [f"     {row}" for row in left]


def _function(project: Project, cluster: Cluster, name: str) -> str:
    """Return a function's size, what it reads, and what it writes."""
    size, wiring = cluster.size(name), project.params.wiring[name]
    pods = "1 pod" if size.replicas == 1 else f"{size.replicas} pods"
    workers = "1 worker" if size.workers == 1 else f"{size.workers} workers"
    kept = (wiring.writes, f"table {wiring.table}" if wiring.table else "", f"log {wiring.log}" if wiring.log else "")
    return f"{pods} × {workers}: {wiring.reads} → {', '.join(filter(None, kept))}"


def _row(what: str, name: str, text: str) -> str:
    return f"{what:<8}{name:<20}{text}"
