"""The model server's model endpoint in MLRun, and the stream of MLRun's model monitoring.

An endpoint stands for a version of the model: MLRun takes the statistics to compare with from the version's artifact.
Many workers start at the same moment; all end up with the same endpoint. MLRun is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from modelstream.errors import ConfigurationError
from modelstream.registry.artifact import VERSION, store_uri, tag_of
from modelstream.stages.monitoring import Connection
from modelstream.streams.foreign import open_foreign

_NO_STREAM = (
    "let MLRun's model monitoring be set up for the project (set_model_monitoring_credentials, then "
    "enable_model_monitoring); or remove `monitoring: true` from the cluster's file"
)


@dataclass(frozen=True)
class Endpoint:
    """What the endpoint of a model server is. Every method may raise what MLRun's client raises.

    `tests/stages/test_endpoint.py` has an example, with a stand-in for MLRun's API.
    """

    project: str
    function: str
    model: str
    features: Sequence[str]
    outputs: Sequence[str]
    class_name: str = ""

    def connect(self, version: str, sha256: str = "") -> Connection:
        """Register the version's endpoint, unless it is there; return where its records go."""
        database = api()
        endpoint = self.registered(database, version, sha256)
        streams, stream = monitoring_stream(self.project)
        return Connection(endpoint, streams, stream)

    def registered(self, database: Any, version: str, sha256: str = "") -> str:
        """Return the uid of the version's endpoint, which is made if there is none."""
        if found := self.find(database, version):
            return found
        from mlrun.common.schemas import ModelEndpointCreationStrategy

        described = self._described(version, self._artifact(database, version, sha256))
        # "archive" keeps the endpoints of other versions, of which MLRun keeps five.
        made = database.create_model_endpoint(described, ModelEndpointCreationStrategy.ARCHIVE)
        ours = str(made.metadata.uid)
        first = self.find(database, version) or ours
        if first != ours:  # another worker was faster
            database.delete_model_endpoint(self.model, self.project, endpoint_id=ours)
        return first

    def find(self, database: Any, version: str) -> str:
        """Return the uid of the version's first endpoint, "" if there is none."""
        found = database.list_model_endpoints(
            self.project, names=[self.model], function_name=self.function, labels=[f"{VERSION}={version}"]
        ).endpoints
        fitting = [one for one in found if list(one.spec.feature_names or []) == list(self.features)]
        first = min(fitting, key=lambda one: (str(one.metadata.created), str(one.metadata.uid)), default=None)
        return str(first.metadata.uid) if first else ""

    def _described(self, version: str, artifact: str) -> Any:
        import mlrun.common.schemas as schemas

        return schemas.ModelEndpoint(
            metadata=schemas.ModelEndpointMetadata(
                project=self.project,
                name=self.model,
                labels={VERSION: version},
                endpoint_type=schemas.EndpointType.NODE_EP,
            ),
            spec=schemas.ModelEndpointSpec(
                function_name=self.function,
                function_tag="latest",
                model_class=self.class_name,
                model_path=artifact,
                feature_names=[*self.features],
                label_names=[*self.outputs],
            ),
            status=schemas.ModelEndpointStatus(monitoring_mode=schemas.model_monitoring.ModelMonitoringMode.enabled),
        )

    def _artifact(self, database: Any, version: str, sha256: str) -> str:
        """Return the URI of the version's artifact; "" if MLRun has none, or one with another file."""
        import mlrun

        try:
            found = database.read_artifact(self.model, tag=tag_of(version), project=self.project)
        except mlrun.errors.MLRunNotFoundError:
            return ""
        same = found["spec"].get("parameters", {}).get("sha256") == sha256
        return store_uri(self.project, self.model, version) if same else ""


def api() -> Any:
    """Return MLRun's client. Raises ConfigurationError if this process has no API. See `Endpoint` for an example."""
    import mlrun

    if not mlrun.mlconf.dbpath:
        raise ConfigurationError(
            "no address for MLRun's API: MLRUN_DBPATH is not set",
            remedy="MLRun sets it in functions that it deploys; without an API there is nobody to tell",
        )
    return mlrun.get_run_db()


def monitoring_stream(project: str) -> tuple[Any, str]:
    """Return the stream of MLRun's model monitoring, and its name. Raises ConfigurationError if the project has none.

    See `Endpoint` for an example.

    The project's stream profile says where it is. Without a login there, Kafka gets the function's own.
    """
    import mlrun
    from mlrun.datastore.datastore_profile import datastore_profile_read

    try:
        url = urlsplit(mlrun.model_monitoring.get_stream_path(project))  # ds://PROFILE/TOPIC or /container/path
        profile = datastore_profile_read(f"ds://{url.hostname}", project)
    except mlrun.errors.MLRunNotFoundError as error:
        raise ConfigurationError(f"MLRun has no monitoring stream for {project}: {error}", remedy=_NO_STREAM) from error
    path = url.path.strip("/")
    if profile.type == "v3io":
        return open_foreign(f"v3io://{path}")
    brokers = [profile.brokers] if isinstance(profile.brokers, str) else profile.brokers
    servers = ",".join(broker.split("://")[-1] for broker in brokers)
    return open_foreign(f"kafka://{servers}/{path}", _login(profile))


def _login(profile: Any) -> dict[str, str] | None:
    """Return the variables of a login in a Kafka profile, None if it has none.

    Its own `attributes()` would need kafka-python, which the image has not.
    """
    told = {**(profile.kwargs_public or {}), **(profile.kwargs_private or {})}
    sasl = told.get("sasl") or {}
    user = profile.sasl_user or sasl.get("user") or told.get("sasl_plain_username")
    if not user:
        return None
    tls = told.get("tls_enable") or (told.get("tls") or {}).get("enable")
    found = {
        "security.protocol": told.get("security_protocol") or ("SASL_SSL" if tls else "SASL_PLAINTEXT"),
        "sasl.mechanism": sasl.get("mechanism") or told.get("sasl_mechanism") or "PLAIN",
        "sasl.username": user,
        "sasl.password": profile.sasl_pass or sasl.get("password") or told.get("sasl_plain_password") or "",
    }
    from modelstream.streams.kafka_address import variable_of

    return {variable_of(name): str(value) for name, value in found.items()}
