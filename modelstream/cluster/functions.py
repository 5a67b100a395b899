"""Configures the project's functions, as MLRun objects, for a cluster: triggers, environment, secrets, sizes.

MLRun's own loader has made them from the notebooks, and `project_setup.py` has given them what `project.yaml` says;
here they get what the cluster's file says. `project.yaml` is never changed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from modelstream.base.process_environment import ONE_THREAD
from modelstream.cluster import kafka_login, triggers
from modelstream.cluster.config import Cluster
from modelstream.project import Function, Project
from modelstream.settings import PREFIX, StoreUrls
from modelstream.streams.kafka_address import KafkaAddress
from modelstream.use_case.file import load_use_case
from modelstream.use_case.meaning import digest, meaning_of

JOBS = {
    "prepare": "Make the streams and tables that are not there yet.",
    "drained": "Wait until every function has acknowledged all that was sent.",
    "promote": "Let a version of the model serve.",
    "trim": "Delete messages that every function has acknowledged and that are old (every hour, on Kafka).",
    "drift": "Compare what was served with what the model was made of (every hour, with `monitoring: true`).",
    "remove": "Delete streams, tables and logs (`undeploy --delete-data`).",
}
"""Jobs that only a cluster has (see `jobs`): code of the library, in the project's image."""
TRIM_AT = "17 * * * *"
"""When the job `trim` runs: every hour, but not at minute 0, when everybody else's jobs run."""
DRIFT_AT = "47 * * * *"
"""When the job `drift` runs; it looks at the last day, since a user's features grow during a day."""
TRIGGER = {
    "explicit_ack_mode": "explicitOnly",
    "worker_allocation_mode": "static",
    "session_timeout": "10s",
    "heartbeat_interval": "3s",
    "worker_termination_timeout": "2s",
}
"""What triggers of Kafka and V3IO have in common. The last is the time that a worker has for its drain or
termination callback, which needs at most 2 s, after the message in hand: what is not flushed by then is repeated
elsewhere. Nuclio always waits the whole time. In a rebalance under load it does so for one partition of a worker after
the other, 17 s for eight; a member that joins gives up after 30 s, and is in the group twice until it is missed."""
REBALANCE = {"maxWaitHandlerDuringRebalance": "5s", "rebalanceTimeout": "60s"}
"""How long a Kafka trigger waits for the message that a worker has in hand when partitions move, and Kafka for all
members of the group. A worker that is not ready by then is killed: so the first must be longer than the time for a
drain, which is counted in."""
RUNTIME = "python:3.11"
"""What Nuclio runs the functions in: the Python of the project's image. A server may have another by default."""
FETCH_BYTES = 4 << 20
"""Bytes that Nuclio asks of a Kafka partition at once: some messages of 1 MB."""


def in_image(project: Project, cluster: Cluster) -> Project:
    """Return the project with paths as they are in the image."""
    params, folder = project.params, Path(cluster.folder)
    model = str(folder / params.model) if params.model else ""
    params = msgspec.structs.replace(params, use_case=str(folder / params.use_case), model=model)
    return msgspec.structs.replace(project, params=params)


def environment(project: Project, cluster: Cluster, function: str) -> dict[str, str]:
    """Return the environment of a function on the cluster, without secrets."""
    settings = project.settings(
        function,
        StoreUrls(cluster.streams, cluster.tables, cluster.logs),
        folder=cluster.folder,
        registry=cluster.registry_url(),
    )
    settings = msgspec.structs.replace(settings, meaning=digest(meaning_of(load_use_case(project.use_case_file))))
    own = {PREFIX + "MONITORING": "true"} if cluster.monitoring and function == project.server else {}
    if function not in project.functions:
        own = {
            PREFIX + "PROJECT": str(Path(cluster.folder) / "project.yaml"),
            PREFIX + "EPOCH": str(cluster.epoch),
            PREFIX + "REGISTRY": cluster.registry_url(),
        }
    return {
        **settings.environment(),
        **own,
        **(cluster.kafka.variables() if cluster.kafka else {}),
        **ONE_THREAD,
        **cluster.env,
        **cluster.size(function).env,
    }


def configure(mlrun_project: Any, project: Project, cluster: Cluster) -> dict[str, Any]:
    """Configure all functions of an `mlrun.projects.MlrunProject`, and add the workflow's jobs; return them by name.

    The project object then holds them whole; `whole` writes them down so.
    """
    import mlrun

    # Not by set_source: it would make every function anew, and each takes MLRun's loader a process.
    mlrun_project.spec.source = cluster.source
    mlrun_project.spec.load_source_on_run = False
    mlrun_project.set_default_image(cluster.image)
    runtimes = {name: mlrun_project.get_function(name) for name in project.functions}
    for name in JOBS:
        handler = f"modelstream.cluster.jobs.{name}"
        runtimes[name] = mlrun.new_function(
            name, project=project.name, kind="job", image=cluster.image, handler=handler
        )
    for name, runtime in runtimes.items():
        runtime.spec.image = cluster.image
        _set_environment(runtime, environment(project, cluster, name), cluster)
        _mount(runtime, cluster)
        _resize(runtime, cluster, name)
        declared = project.functions.get(name)
        if declared is not None and project.params.wiring[name].reads:
            runtime.spec.nuclio_runtime = RUNTIME
            # A worker of its own in every pod, whose requests no stage of a stream would answer.
            runtime.spec.disable_default_http_trigger = True
            _connect(runtime, project, cluster, declared)
        mlrun_project.set_function(runtime, name=name)
    return runtimes


def _set_environment(runtime: Any, values: dict[str, str], cluster: Cluster) -> None:
    runtime.set_envs(values)
    for name, secret in cluster.secrets.items():
        runtime.set_env_from_secret(name, secret=secret.secret, secret_key=secret.key)
    login = cluster.kafka
    if login is not None and login.user:
        runtime.set_env_from_secret(kafka_login.PASSWORD, secret=login.secret, secret_key=login.password_file)


def _mount(runtime: Any, cluster: Cluster) -> None:
    import mlrun.runtimes.mounts as mounts

    for volume in cluster.volumes:
        runtime.apply(mounts.mount_pvc(volume.claim, volume.claim, volume.path))
    login = cluster.kafka
    if login is not None and login.secret:
        items = [{"key": name, "path": name} for name in login.files()]
        runtime.apply(mounts.mount_secret(login.secret, kafka_login.PATH, "kafka-login", items))


def _resize(runtime: Any, cluster: Cluster, name: str) -> None:
    size = cluster.size(name)
    if size.cpu or size.memory:
        runtime.with_requests(cpu=size.cpu or None, mem=size.memory or None)
    if size.cpu_limit or size.memory_limit:
        runtime.with_limits(cpu=size.cpu_limit or None, mem=size.memory_limit or None)


def _connect(runtime: Any, project: Project, cluster: Cluster, function: Function) -> None:
    """Give a function its trigger: explicit acknowledgements, static allocation, from the beginning."""
    size, wiring = cluster.size(function.name), project.params.wiring[function.name]
    address = triggers.of(cluster.streams)
    with quiet_nuclio():
        if isinstance(address, KafkaAddress):
            _add_kafka(runtime, address, cluster.epoch, wiring.reads, function.name, size.workers)
            if cluster.kafka is not None:
                _annotate(runtime, cluster.kafka.annotations())
        else:
            _add_v3io(runtime, address, wiring.reads, function.name, size.workers, cluster.v3io_api)
        if wiring.class_name:
            set_graph(runtime, in_image(project, cluster), function.name)
            if size.http_workers:
                runtime.with_http(workers=size.http_workers)
    # MLRun sets 1 to 4 replicas for Kafka, and as many as shards for V3IO. A number that changes by itself would
    # move shards all the time.
    runtime.spec.min_replicas = runtime.spec.max_replicas = size.replicas


def _annotate(runtime: Any, annotations: dict[str, str]) -> None:
    """Give a function annotations, and with them all else that a `base_spec` needs.

    That is where MLRun keeps annotations, and its server gives a function its handler only where it has no `base_spec`.
    """
    from nuclio.config import new_config

    runtime.spec.base_spec = new_config()
    runtime.spec.base_spec["spec"]["handler"] = runtime.spec.function_handler
    runtime.with_annotations(annotations)


def _add_kafka(runtime: Any, address: KafkaAddress, epoch: int, stream: str, function: str, workers: int) -> None:
    from nuclio.triggers import KafkaTrigger

    trigger = KafkaTrigger(
        brokers=address.servers.split(","),
        topics=[address.topic(stream, epoch)],
        consumer_group=address.group(function),
        initial_offset="earliest",
        fetch_default=FETCH_BYTES,
        max_workers=workers,
        **TRIGGER,
    )
    runtime.add_trigger(stream, trigger)
    runtime.spec.config[f"spec.triggers.{stream}"]["attributes"] |= REBALANCE


def _add_v3io(runtime: Any, path: triggers.V3ioPath, stream: str, function: str, workers: int, api: str) -> None:
    runtime.add_v3io_stream_trigger(
        f"v3io:///{path.container}/{path.stream_path(stream)}",
        name=stream,
        group=path.group(function),
        seek_to="earliest",
        max_workers=workers,
        **TRIGGER,
        # By reference: Nuclio puts V3IO_ACCESS_KEY of the function's environment in its place.
        access_key="$generate",
    )
    runtime.spec.config[f"spec.triggers.{stream}"]["url"] = api


def set_graph(runtime: Any, project: Project, function: str) -> None:
    """Give a serving function its graph."""
    graph = project.graph(function)
    flow = runtime.set_topology("flow", engine=graph["engine"], exist_ok=True)
    for step, details in graph["steps"].items():
        flow.to(details["class_name"], name=step, **details["class_args"]).respond()


@contextmanager
def quiet_nuclio() -> Iterator[None]:
    """Hide warnings of MLRun and nuclio-jupyter about what is intended: static allocation, our number of replicas."""
    loggers = [logging.getLogger(name) for name in ("nuclio", "nuclio.triggers", "mlrun")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
