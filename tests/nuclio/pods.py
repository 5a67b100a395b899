"""Pods with Nuclio's own processor, as Kubernetes keeps them: one that ends is started again.

A function comes as `deploy` sends it to MLRun's API; `configuration` does what the API does with it before Nuclio gets
it.
"""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from modelstream.base.process_environment import QUIET_MLRUN, on_this_machine
from servers.base import end_with_parent, free_port
from tests.nuclio import parts

ROOT = Path(__file__).parents[2]
SECONDS = 240.0
"""Within which a pod must be ready, or gone, on a busy machine too."""
_PREFIX = "spec.triggers."


def configuration(sent: dict[str, Any], http_port: int) -> dict[str, Any]:
    """Return the processor's configuration of a function: what Kubernetes mounts as processor.yaml.

    The port is for the model server's HTTP trigger, which would take 8080. Without its line the others would, too.
    """
    spec = sent["spec"]
    triggers = {name.removeprefix(_PREFIX): dict(t) for name, t in spec["config"].items() if name.startswith(_PREFIX)}
    for trigger in triggers.values():
        trigger["numWorkers"] = trigger["maxWorkers"]
        if trigger["kind"] == "http":
            trigger["url"] = f"127.0.0.1:{http_port}"
    labels = {"nuclio.io/project-name": sent["metadata"]["project"]}
    annotations = ((spec.get("base_spec") or {}).get("metadata") or {}).get("annotations") or {}
    return {
        "metadata": {
            "name": sent["metadata"]["name"],
            "namespace": "tests",
            "labels": labels,
            "annotations": annotations,
        },
        "spec": {
            "handler": spec["function_handler"],
            "runtime": spec.get("nuclio_runtime") or "python:3.11",
            "minReplicas": spec["min_replicas"],
            "maxReplicas": spec["max_replicas"],
            "triggers": triggers,
        },
    }


def environment(sent: dict[str, Any]) -> dict[str, str]:
    """Return the variables of a function's pod, but secrets; MLRun's API adds the graph of a serving function."""
    found = {each["name"]: str(each["value"]) for each in sent["spec"]["env"] if "value" in each}
    if sent["kind"] == "serving":
        import mlrun

        runtime = mlrun.runtimes.nuclio.serving.ServingRuntime.from_dict(sent)
        found["SERVING_SPEC_ENV"] = runtime._get_serving_spec()
    return found


@dataclass
class Pod:
    """A processor with its workers."""

    sent: dict[str, Any]
    folder: Path
    secrets: Mapping[str, str]
    """The variables that Kubernetes fills from secrets."""
    process: subprocess.Popen[bytes] | None = None
    port: int = field(default_factory=free_port)
    """Where it tells whether it is ready."""
    starts: int = 0

    @property
    def name(self) -> str:
        """The name of its function."""
        return str(self.sent["metadata"]["name"])

    @property
    def log(self) -> Path:
        """What the processor and its workers have said."""
        return self.folder / "log"

    def start(self) -> None:
        """Start the processor in a process group of its own."""
        code = self.folder / "code"
        code.mkdir(parents=True, exist_ok=True)
        module = self.sent["spec"]["function_handler"].partition(":")[0]
        (code / f"{module}.py").write_bytes(base64.b64decode(self.sent["spec"]["build"]["functionSourceCode"]))
        config, platform = self.folder / "processor.yaml", self.folder / "platform.yaml"
        config.write_text(yaml.safe_dump(configuration(self.sent, free_port())))
        platform.write_text(yaml.safe_dump(_platform(self.port)))
        own = {
            "NUCLIO_PYTHON_EXE_PATH": sys.executable,
            "NUCLIO_PYTHON_WRAPPER_PATH": str(parts.wrapper() / "_nuclio_wrapper.py"),
            "NUCLIO_PYTHON_PATH": f"{code}:{parts.wrapper()}",
            "PYTHONPATH": str(ROOT),
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",  # by these two it knows that it is in a pod
            "KUBERNETES_SERVICE_PORT": "443",
        }
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("MODELSTREAM_")}
        command = [str(parts.processor()), "--config", str(config), "--platform-config", str(platform)]
        self.starts += 1
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=on_this_machine(inherited) | QUIET_MLRUN | environment(self.sent) | own | dict(self.secrets),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def tend(self) -> None:
        """Start it again if it has ended, as Kubernetes does."""
        if self.process is not None and self.process.poll() is not None:
            self._end_group()
            self.start()

    def is_ready(self) -> bool:
        """Tell whether the processor says that all its workers are ready."""
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    def kill(self) -> None:
        """Lose the pod: everything in it ends at once."""
        self._end_group()
        assert self.process is not None
        self.process.wait(SECONDS)

    def kill_a_worker(self, number: int) -> bool:
        """Kill one of the Python processes, which makes the processor give up; tell whether there was one."""
        workers = self._workers()
        if not workers:
            return False
        worker = workers[number % len(workers)]
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(worker)
            try:
                if worker in self._workers():  # the number still means the same process
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    return True
            finally:
                os.close(handle)
        return False

    def terminate(self) -> None:
        """Ask it to end, as when a pod is deleted; after 30 s Kubernetes kills it."""
        process, self.process = self.process, None
        assert process is not None
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.process = process
            self._end_group()
            process.wait(SECONDS)

    def words(self) -> str:
        """Return the end of its log."""
        return f"--- {self.folder.name}\n{self.log.read_text(errors='replace')[-2500:]}" if self.log.exists() else ""

    def _workers(self) -> list[int]:
        assert self.process is not None
        found: list[int] = []
        with suppress(OSError):
            for path in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
                found += [int(pid) for pid in path.read_text().split()]
        return sorted(found)

    def _end_group(self) -> None:
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def _platform(port: int) -> dict[str, Any]:
    """Return the platform's configuration, with the port of the health check and without debugging lines."""
    logs = [{"level": "info", "sink": "stdout"}]
    return {
        "webAdmin": {"enabled": False},
        "healthCheck": {"enabled": True, "listenAddress": f"127.0.0.1:{port}"},
        "logger": {"sinks": {"stdout": {"kind": "stdout"}}, "system": logs, "functions": logs},
    }


def warnings_of(pods: list[Pod]) -> dict[str, int]:
    """Return how often the processors have told what a person would ask about."""
    told = ("Timed out waiting for handler", "exited unexpectedly", "Cancelling event handling")
    texts = [pod.log.read_text(errors="replace") for pod in pods if pod.log.exists()]
    return {words: sum(text.count(words) for text in texts) for words in told}


def sessions_of(pods: list[Pod]) -> dict[str, list[str]]:
    """Return what each pod has consumed, one rebalance after the other: its partitions, as in "0 2 4"."""
    return {pod.folder.name: [" ".join(found) for found in _claims(pod)] for pod in pods}


def _claims(pod: Pod) -> Iterator[list[str]]:
    for line in pod.log.read_text(errors="replace").splitlines():
        if "Starting consumer session" in line:
            yield re.findall(r"\d+", line.partition('":[')[2].partition("]")[0])


def until_all(pods: list[Pod], seconds: float = SECONDS) -> None:
    """Wait until all pods are ready."""
    deadline = time.monotonic() + seconds
    while not all(pod.is_ready() for pod in pods):
        for pod in pods:
            pod.tend()
        words = "\n".join(pod.words() for pod in pods if not pod.is_ready())
        assert time.monotonic() < deadline, f"not ready: {words}"
        assert all(pod.starts < 20 for pod in pods), f"ends again and again: {words}"
        time.sleep(0.2)
