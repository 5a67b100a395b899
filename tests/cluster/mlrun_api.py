"""A stand-in for the MLRun API, for tests: it answers what the client asks when a project is deployed, and notes it.

Real functions are deployed by nobody here. A function is ready at once, a run completed, unless told otherwise.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

NOW = "2026-01-01T00:00:00+00:00"


class StandIn:
    """The server, and what it was asked: `steps` are deploys, runs and deletions in their order."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, str]] = []
        self.functions: dict[str, dict[str, Any]] = {}
        """As they were deployed."""
        self.stored: dict[str, dict[str, Any]] = {}
        """As they were stored."""
        self.versions: dict[str, dict[str, Any]] = {}
        """As they were stored, by the hash that a step of a workflow asks for."""
        self.runs: dict[str, dict[str, Any]] = {}
        self.project: dict[str, Any] = {}
        self.workflow: dict[str, Any] = {}
        """What was submitted to be run in the cluster."""
        self.pipeline = ""
        """Argo's YAML, as it was submitted."""
        self.failing: dict[str, str] = {}
        """What goes wrong: the name of a function or job, and the words of its error."""
        self.schedules: dict[str, dict[str, Any]] = {}
        """Jobs that run by a schedule: what was asked for."""
        self.project_secrets: dict[str, str] = {}
        self.failures_left: dict[str, int] = {}
        """How often one of `failing` still fails; without a number, always."""
        self.interrupting = ""
        """The function whose deployment or deletion is interrupted by Ctrl-C."""
        self.status = 200
        """What every call is answered with, if it isn't 200."""
        self.query: dict[str, list[str]] = {}
        """Of the call in hand."""
        self.unknown: list[str] = []
        self._own_runs: dict[str, Any] = {}
        """Of clients, which tell of a run of their own."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any, dict[str, str]]:
        """Return status, JSON (or bytes) and headers."""
        if self.status != 200:
            return self.status, {"detail": {"reason": "Unauthorized: no valid session"}}, {}
        for pattern, answer in _ANSWERS:
            if found := re.fullmatch(pattern, f"{method} {path}"):
                return answer(self, body, *found.groups())  # type: ignore[no-any-return]
        self.unknown.append(f"{method} {path}")
        return 404, {"detail": f"not in this stand-in: {method} {path}"}, {}

    # The answers.

    def _spec(self, body: Any) -> Any:
        return (
            200,
            {
                "version": "1.12.1",
                "namespace": "mlrun",
                "kfp_url": "http://nowhere",
                "nuclio_version": "1.14.1",
                "artifact_path": "s3://mlrun/projects",
            },
            {},
        )

    def _names(self, body: Any) -> Any:
        return 200, {"projects": []}, {}

    def _store_project(self, body: Any, name: str) -> Any:
        self.project = body
        return 200, body, {}

    def _get_project(self, body: Any, name: str) -> Any:
        return (200, self.project, {}) if self.project else (404, {"detail": "no such project"}, {})

    def _store_function(self, body: Any, name: str) -> Any:
        self.stored[name] = body
        key = hashlib.sha1(json.dumps(body, sort_keys=True).encode(), usedforsecurity=False).hexdigest()
        self.versions[key] = copy.deepcopy(body)
        return 200, {"hash_key": key}, {}

    def _list_functions(self, body: Any) -> Any:
        return 200, {"funcs": [*self.stored.values()]}, {}

    def _get_function(self, body: Any, name: str) -> Any:
        key = self.query.get("hash_key", [None])[0]
        found = self.versions.get(key) if key else self.stored.get(name)
        return (200, {"func": found}, {}) if found is not None else (404, {"detail": "none"}, {})

    def _deploy(self, body: Any, name: str) -> Any:
        self.steps.append(("deploy", name))
        self.functions[name] = function = body["function"]
        self.stored[name] = copy.deepcopy(function)
        if name == self.interrupting:
            os.kill(os.getpid(), signal.SIGINT)
        function["status"] = {"state": "building", "nuclio_name": name}
        return 200, {"data": function, "background_tasks": {"background_tasks": []}}, {}

    def _deploy_status(self, body: Any, name: str) -> Any:
        state = "error" if name in self.failing else "ready"
        headers = {
            "x-mlrun-function-status": state,
            "x-mlrun-last-log-timestamp": "0.0",
            "x-mlrun-name": name,
            "x-mlrun-internal-invocation-urls": f"{name}.cluster.local:8080",
        }
        return 200, self.failing.get(name, "").encode(), headers

    def _submit(self, body: Any) -> Any:
        task = body["task"]
        name, uid = task["metadata"]["name"], task["metadata"].get("uid") or f"{len(self.runs):032x}"
        if body.get("schedule"):
            if name in self.failing:
                return 403, {"detail": self.failing[name]}, {}
            self.schedules[name] = body
            return 200, {"data": {"action": "created", "name": name, "project": "modelstream"}}, {}
        self.steps.append(("run", name))
        task["metadata"]["uid"] = uid
        failed = self.failing.get(name)
        if failed and name in self.failures_left:
            self.failures_left[name] -= 1
            failed = failed if self.failures_left[name] >= 0 else None
        task["status"] = {"state": "error" if failed else "completed", "start_time": NOW, "last_update": NOW}
        task["status"] |= {"error": failed} if failed else {"results": {"version": "2"}}
        self.runs[uid] = task
        return 200, {"data": task}, {}

    def _run(self, body: Any, uid: str) -> Any:
        return 200, {"data": self.runs.get(uid) or self._own_runs[uid]}, {}

    def _store_run(self, body: Any, uid: str) -> Any:
        self._own_runs[uid] = body
        return 200, {}, {}

    def _nothing(self, body: Any, *_: str) -> Any:
        return 200, {}, {}

    def _log(self, body: Any, uid: str) -> Any:
        return 200, b"", {"x-mlrun-run-state": self.runs[uid]["status"]["state"]}

    def _delete(self, body: Any, name: str) -> Any:
        self.steps.append(("delete", name))
        if name == self.interrupting:
            os.kill(os.getpid(), signal.SIGINT)
        if name in self.failing:
            return 202, self._task("running"), {}
        self.stored.pop(name, None)
        return 204, b"", {}

    def _task(self, state: str, error: str = "") -> dict[str, Any]:
        times = {"created": NOW, "updated": NOW}
        metadata = {"name": "task", "kind": "function.deletion", "project": "modelstream", "timeout": 600, **times}
        return {"kind": "BackgroundTask", "metadata": metadata, "spec": {}, "status": {"state": state, "error": error}}

    def _push(self, body: Any, uid: str) -> Any:
        return 200, self._task("succeeded"), {}

    def _deletion(self, body: Any) -> Any:
        return 200, self._task("failed", next(iter(self.failing.values()))), {}

    def _get_schedule(self, body: Any, name: str) -> Any:
        if name not in self.schedules:
            return 404, {"detail": "no such schedule"}, {}
        found = {"name": name, "kind": "job", "project": "modelstream", "creation_time": NOW, "scheduled_object": {}}
        return 200, found | {"cron_trigger": {"minute": "17"}}, {}

    def _unschedule(self, body: Any, name: str) -> Any:
        if name not in self.schedules:
            return 404, {"detail": "no such schedule"}, {}
        self.steps.append(("unschedule", name))
        del self.schedules[name]
        return 204, b"", {}

    def _store_secrets(self, body: Any) -> Any:
        if "secrets" in self.failing:
            return 422, {"detail": f"{self.failing['secrets']}: {body['secrets']}"}, {}
        assert body["provider"] == "kubernetes"
        self.project_secrets |= body["secrets"]
        return 201, b"", {}

    def _submit_workflow(self, body: Any, name: str) -> Any:
        self.workflow = body | {"name": name}
        return 202, {"project": "modelstream", "name": name, "status": "running", "run_id": "1" * 32}, {}

    def _workflow_id(self, body: Any) -> Any:
        return 200, {"workflow_id": "kfp-1"}, {}

    def _submit_pipeline(self, body: Any) -> Any:
        self.pipeline = body
        return 200, {"id": "kfp-2", "name": "main"}, {}

    def _pipeline_state(self, body: Any) -> Any:
        return 200, {"run": {"id": "kfp", "name": "main", "status": "Running"}}, {}


_P = r"/api/v[12]/projects/[\w-]+"
_ANSWERS: tuple[tuple[str, Any], ...] = (
    (r"GET /api/v1/client-spec", StandIn._spec),
    (r"GET /api/v1/projects", StandIn._names),
    (r"PUT /api/v1/projects/([\w-]+)", StandIn._store_project),
    (r"GET /api/v1/projects/([\w-]+)", StandIn._get_project),
    (rf"GET {_P}/functions", StandIn._list_functions),
    (rf"POST {_P}/functions/([\w-]+)", StandIn._store_function),
    (rf"GET {_P}/functions/([\w-]+)", StandIn._get_function),
    (rf"POST {_P}/nuclio/([\w-]+)/deploy", StandIn._deploy),
    (rf"GET {_P}/nuclio/([\w-]+)/deploy", StandIn._deploy_status),
    (r"POST /api/v1/submit_job", StandIn._submit),
    (rf"GET {_P}/runs/(\w+)", StandIn._run),
    (rf"POST {_P}/runs/(\w+)", StandIn._store_run),
    (rf"POST {_P}/runs/(\w+)/push-notifications", StandIn._push),
    (rf"PATCH {_P}/runs/(\w+)", StandIn._nothing),
    (rf"GET {_P}/logs/(\w+)", StandIn._log),
    (rf"DELETE {_P}/functions/([\w-]+)", StandIn._delete),
    (rf"GET {_P}/background-tasks/task", StandIn._deletion),
    (rf"GET {_P}/schedules/([\w-]+)", StandIn._get_schedule),
    (rf"DELETE {_P}/schedules/([\w-]+)", StandIn._unschedule),
    (rf"POST {_P}/secrets", StandIn._store_secrets),
    (rf"POST {_P}/workflows/([\w-]+)/submit", StandIn._submit_workflow),
    (rf"GET {_P}/workflows/[\w-]+/runs/\w+", StandIn._workflow_id),
    (rf"POST {_P}/pipelines/([\w-]+)/push-notifications", StandIn._nothing),
    (rf"POST {_P}/pipelines", StandIn._submit_pipeline),
    (rf"GET {_P}/pipelines/[\w-]+", StandIn._pipeline_state),
)


def _handler(server: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            is_json = raw and "json" in (self.headers.get("Content-Type") or "json") and raw[:1] in b"{["
            body = json.loads(raw) if is_json else raw.decode()
            path, _, query = self.path.partition("?")
            server.query = parse_qs(query)
            status, answer, headers = server.answer(self.command, path, body)
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if status != 204:
                self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
