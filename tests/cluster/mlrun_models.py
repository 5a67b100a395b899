"""The stand-in for MLRun's API with what models need: artifacts, model endpoints, stream profiles, and events.

Bodies are read by MLRun's own schemas, as its API does; endpoints behave as in its `ModelEndpoints` (1.10's source).
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from datetime import UTC, datetime
from typing import Any

import mlrun.common.schemas as schemas

from tests.cluster.mlrun_api import StandIn

Answer = tuple[int, Any, dict[str, str]]


class ModelsStandIn(StandIn):
    """Also answers about models: `artifacts`, `endpoints`, `profiles` and `events` are what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.artifacts: dict[tuple[str, str], dict[str, Any]] = {}
        """By key and tag."""
        self.by_uid: dict[str, dict[str, Any]] = {}
        """The same, and those whose tag has moved, by uid."""
        self.removed: list[str] = []
        """The uids of those that somebody has deleted."""
        self.endpoints: dict[str, schemas.ModelEndpoint] = {}
        """By uid."""
        self.profiles: dict[str, str] = {}
        """Public parts of profiles, as JSON."""
        self.events: list[tuple[str, schemas.Event]] = []
        self.has_events = True

    def answer(self, method: str, path: str, body: Any) -> Answer:
        for pattern, answer in _ANSWERS if self.status == 200 else ():
            if found := re.fullmatch(pattern, f"{method} {path}"):
                return answer(self, body, *found.groups())  # type: ignore[no-any-return]
        return super().answer(method, path, body)

    def _asked(self, name: str) -> str:
        return self.query.get(name, [""])[0]

    def _store_artifact(self, body: Any, key: str) -> Answer:
        uid = hashlib.sha1(json.dumps(body, sort_keys=True).encode(), usedforsecurity=False).hexdigest()
        body = body | {"metadata": body["metadata"] | {"uid": uid}}
        self.by_uid[uid] = body
        for tag in {"latest", self._asked("tag") or body["metadata"].get("tag") or "latest"}:
            self.artifacts[key, tag] = body
        return 200, body, {}

    def _create_artifact(self, body: Any) -> Answer:
        return self._store_artifact(body, body["metadata"]["key"])

    def _get_artifact(self, body: Any, key: str) -> Answer:
        if uid := self._asked("object-uid"):  # then the client's tag "latest" means nothing
            found = self.by_uid.get(uid)
            assert found is None or found["metadata"]["tree"] == self._asked("tree")
        else:
            found = self.artifacts.get((key, self._asked("tag") or "latest"))
        if found is not None and found["metadata"].get("uid") in self.removed:
            found = None
        return (200, found, {}) if found else (404, {"detail": "no such artifact"}, {})

    def _create_endpoint(self, body: Any) -> Answer:
        endpoint = schemas.ModelEndpoint(**body)
        assert self._asked("creation-strategy") in {"archive", "inplace", "overwrite"}
        endpoint.metadata.uid = uuid.uuid4().hex
        endpoint.metadata.created = datetime.now(UTC)
        self.endpoints[endpoint.metadata.uid] = endpoint
        return 200, endpoint.json().encode(), {}

    def _list_endpoints(self, body: Any) -> Answer:
        labels = dict(label.split("=", 1) for label in self.query.get("label", []))
        found = [
            one
            for one in self.endpoints.values()
            if one.metadata.name in self.query.get("name", [one.metadata.name])
            and one.spec.function_name == (self._asked("function-name") or one.spec.function_name)
            and labels.items() <= (one.metadata.labels or {}).items()
        ]
        return 200, schemas.ModelEndpointList(endpoints=found).json().encode(), {}

    def _delete_endpoint(self, body: Any, name: str) -> Answer:
        assert self.endpoints[self._asked("endpoint-id")].metadata.name == name
        del self.endpoints[self._asked("endpoint-id")]
        return 204, b"", {}

    def _get_profile(self, body: Any, name: str) -> Answer:
        if name not in self.profiles:
            return 404, {"detail": "no such profile"}, {}
        return 200, {"name": name, "type": "any", "object": self.profiles[name], "project": "modelstream"}, {}

    def _event(self, body: Any, name: str) -> Answer:
        if not self.has_events:
            return 404, {"detail": "Not Found"}, {}
        event = schemas.Event(**body)
        if not event.is_valid():
            return 400, {"detail": "event kind and entity kind don't fit"}, {}
        self.events.append((name, event))
        return 200, {}, {}


_P = r"/api/v[12]/projects/[\w-]+"
_ANSWERS: tuple[tuple[str, Any], ...] = (
    (rf"PUT {_P}/artifacts/([\w-]+)", ModelsStandIn._store_artifact),
    (rf"POST {_P}/artifacts", ModelsStandIn._create_artifact),
    (rf"GET {_P}/artifacts/([\w-]+)", ModelsStandIn._get_artifact),
    (rf"POST {_P}/model-endpoints", ModelsStandIn._create_endpoint),
    (rf"GET {_P}/model-endpoints", ModelsStandIn._list_endpoints),
    (rf"DELETE {_P}/model-endpoints/([\w-]+)", ModelsStandIn._delete_endpoint),
    (rf"GET {_P}/datastore-profiles/([\w-]+)", ModelsStandIn._get_profile),
    (rf"(?:POST|PUT) {_P}/logs/(\w+)", StandIn._nothing),
    (rf"POST {_P}/events/([\w-]+)", ModelsStandIn._event),
)
