"""The job `drift`: the drift report as an MLRun run, and an event for MLRun's alerts on a breach."""

from __future__ import annotations

from typing import Any

from modelstream.base.times import time_given
from modelstream.project import Project
from modelstream.registry.registry import Registry
from modelstream.stages.endpoint import Endpoint
from modelstream.stores import Stores
from modelstream.training.drift.drift import JUDGED, Drift, Verdict
from modelstream.training.drift.drift import drift as compared
from modelstream.training.drift.drift_page import page
from modelstream.training.drift.reference import reference

APPLICATION, RESULT = "modelstream-drift", "drift"
"""The names under which MLRun knows the result: an alert's entity is `ENDPOINT.modelstream-drift.result.drift`."""


def report(context: Any, project: Project, stores: Stores, since: str) -> Drift:
    """Compare what the version that serves was asked since then, and log it to MLRun; return what was found."""
    card = reference(Registry.of_project(project, stores.use_case))
    found = compared(card, stores, time_given(since, "since"))
    context.log_result("verdict", str(found.verdict))
    results = {"version": card.version, "vectors": found.vectors, "users": found.users, "mean_drift": found.mean}
    results["dead_letter_share"] = found.dead_letters.now
    results |= {f"drift_{one.name}": one.value for one in (*found.features, found.prediction)} if found.vectors else {}
    for name, value in results.items():
        context.log_result(name, value)
    if found.vectors:
        context.log_artifact("drift-report", body=page(found, card), local_path="drift.html", format="html")
    context.logger.info(f"{found.verdict}: {'; '.join(found.reasons) or 'nothing stands out'}")
    if found.verdict in JUDGED:
        context.logger.info(_raise_event(project, stores, found))
    return found


def _raise_event(project: Project, stores: Stores, found: Drift) -> str:
    """Raise the event that MLRun's own drift application raises; return in words what became of it.

    MLRun ties it to a result of a model endpoint, so there is none without an endpoint (`monitoring: true`).
    """
    import mlrun
    from mlrun.common.schemas import alert as alerts
    from mlrun.model_monitoring.helpers import get_result_instance_fqn

    if not mlrun.mlconf.dbpath:
        return "no event is raised: this run has no MLRun API"
    database = mlrun.get_run_db()
    use_case = stores.use_case
    endpoint = Endpoint(project.name, project.server, use_case.model_name, use_case.features, ())
    uid = endpoint.find(database, found.version)
    if not uid:
        return f"no event is raised: MLRun has no endpoint of version {found.version} yet"
    kinds = {Verdict.DRIFT: alerts.EventKind.DATA_DRIFT_DETECTED}
    kind = kinds.get(found.verdict, alerts.EventKind.DATA_DRIFT_SUSPECTED)
    value = max(one.value for one in (*found.features, found.prediction)) if found.vectors else found.dead_letters.now
    event = alerts.Event(
        kind=kind,
        entity=alerts.EventEntities(
            kind=alerts.EventEntityKind.MODEL_ENDPOINT_RESULT,
            project=project.name,
            ids=[get_result_instance_fqn(uid, APPLICATION, RESULT)],
        ),
        value_dict={
            "app_name": APPLICATION,
            "model": use_case.model_name,
            "model_endpoint_id": uid,
            "result_name": RESULT,
            "result_value": value,
            "version": found.version,
            "reasons": "; ".join(found.reasons),
        },
    )
    try:
        database.generate_event(kind, event, project.name)
    except mlrun.errors.MLRunNotFoundError:
        return "no event is raised: this MLRun has no alerts"
    return f"the event {kind} is raised"
