"""The model server: scores feature vectors from a stream, and V2 requests, with one model.

It runs in MLRun's graph server. The class in its notebook is a `ModelServing` and a `V2ModelServer` of MLRun;
a message or request goes through that class's `preprocess`, `validate`, `predict` and `postprocess`.
MLRun is not imported here: only the notebook, and `entry_points`, do that (6 s).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from modelstream.errors import ConfigurationError
from modelstream.messages.codec import Decoded, UnreadableError, decode, encode, is_framed
from modelstream.messages.identity import Checkpoint
from modelstream.model.onnx import Floats, OnnxModel, Probabilities, load_model_file
from modelstream.model.scoring import NO_MODEL, TRAIN, Decisions, Scorer, Scores
from modelstream.model.spec import SPEC_FILE, read_spec
from modelstream.model.tensors import BadRequestError
from modelstream.model.v2 import (
    Operation,
    Query,
    answer,
    model_metadata,
    operation_of,
    read_request,
    server_metadata,
    split_body,
)
from modelstream.registry.registry import Registry
from modelstream.registry.watch import ModelWatch
from modelstream.settings import Settings, from_environment
from modelstream.stages.base import Stage
from modelstream.stages.counters import ServedModel
from modelstream.stages.endpoint import Endpoint
from modelstream.stages.joined import join
from modelstream.stages.monitoring import About, Connection, Monitor
from modelstream.stages.shard import Incoming, Shard
from modelstream.stores import Stores
from modelstream.streams import Streams
from modelstream.use_case.declared import UseCase
from modelstream.use_case.file import load_use_case


class ModelServerStage(Stage):
    """The stage between the streams: scores a message, sends the predictions to the same shard, keeps no state.

    A repeated message is scored again; the inference logger drops the second prediction.

    >>> import pyarrow as pa
    >>> def infer(rows):
    ...     return Decoded("predictions", rows.origin, rows.batch.append_column("will_freeze", pa.array([1, 0])), {})
    >>> settings = Settings(function="scorer", use_case="", reads="serving", writes="inference")
    >>> stage = ModelServerStage(None, settings, None, epoch=0, infer=infer)
    >>> shard = Shard(5, Checkpoint(), saved=-1)
    >>> stage.take(shard, Incoming(5, 0, encode("vectors", "file", pa.record_batch({"position": [7, 8]})), 0))
    2
    >>> [(to, batch.to_pydict()) for to, _, _, batch in shard.outbox]
    [(5, {'position': [7, 8], 'will_freeze': [1, 0]})]
    >>> stage.take(shard, Incoming(5, 1, encode("events", "file", pa.record_batch({"position": [9]})), 0))
    Traceback (most recent call last):
    modelstream.messages.codec.UnreadableError: a message of events in the stream serving, which is for vectors
    """

    def __init__(
        self, context: Any, settings: Settings, streams: Streams, epoch: int, infer: Callable[[Decoded], Decoded]
    ) -> None:
        """`infer` returns the predictions for vectors, and raises UnreadableError for vectors of another use case."""
        super().__init__(context, settings, streams, epoch)
        self._infer = infer

    def open(self, shard: int) -> Checkpoint | None:  # noqa: ARG002
        """Return None: there is no state, so what was acknowledged is done."""
        return None

    def take(self, shard: Shard, message: Incoming) -> int:
        """Score a message, and put the predictions into the outbox of the same shard. Raises UnreadableError."""
        rows = self.decoded(message, "vectors")
        predictions = self._infer(rows)
        shard.send(shard.number, predictions.kind, predictions.origin, predictions.batch)
        count: int = rows.batch.num_rows
        return count

    def take_all(self, groups: Sequence[tuple[Shard, list[Incoming]]]) -> list[int]:
        """Score many messages at once where they are small."""
        joined = join(groups, lambda message: self.decoded(message, "vectors"))
        if joined is None:
            return super().take_all(groups)
        try:
            predictions = self._infer(Decoded("vectors", "", joined.batch, {})).batch
        except UnreadableError:
            return super().take_all(groups)  # which finds the message that must be refused
        for shard, message, reason in joined.unreadable:
            self.refuse(shard, message, reason)
        for part, batch in joined.slices(predictions):
            part.shard.send(part.shard.number, "predictions", part.origin, batch)
        return joined.counts

    def save(self, shard: Shard) -> None:
        """Do nothing: the predictions that were sent are durable, and there is no other state."""

    def save_all(self, shards: Sequence[Shard]) -> Sequence[Shard]:
        """Do nothing, for all of them."""
        return shards


class ModelServing:
    """The base class of the model server's class in the notebook; it must come before `mlrun.serving.V2ModelServer`.

    Settings come from the environment (see `settings`); in a mock server, as in a notebook, from the step's
    arguments `model_path` and `use_case`.

    The example is `functions/model-server.ipynb`: importing MLRun takes 6 s, too long for one here.
    """

    threshold: float | None = None
    """`decide` returns 1 at and above this probability; None means the threshold of the use case."""

    # V2ModelServer's, whose constructor sets them.
    name: str
    """As the use case names the model; V2ModelServer sets the step's name."""
    context: Any
    model_path: str | None
    model_spec: Any
    get_model: Callable[..., Any]
    get_param: Callable[..., Any]

    _scorer: Scorer
    _monitor: Monitor | None = None
    stage: ModelServerStage | None = None

    def calibrate(self, probability: Probabilities, vectors: Floats) -> Probabilities:  # noqa: ARG002
        """Return the probabilities to report (float64[n], 0 to 1) for vectors float32[n, features]."""
        return probability

    def decide(self, probability: Probabilities, vectors: Floats) -> Decisions:  # noqa: ARG002
        """Return 1 for each vector of the positive class, else 0 (int8[n])."""
        assert self.threshold is not None  # load() has set it
        return (probability >= self.threshold).astype(np.int8)

    # What MLRun's graph server calls.

    def load(self) -> None:
        """Load the model, and join the streams unless this is a mock server. Raises ConfigurationError."""
        settings = None if self.context.is_mock else from_environment()
        stores = Stores.of(settings) if settings else None
        use_case = stores.use_case if stores else load_use_case(self.get_param("use_case"))
        self.name = use_case.model_name  # in URLs, whatever the graph calls its step
        if self.threshold is None:
            self.threshold = use_case.threshold
        if settings is None or stores is None:
            self._scorer = Scorer(use_case, self._shipped(use_case), self)
            return
        self.stage = ModelServerStage(self.context, settings, stores.streams, stores.epoch, self.infer)
        self._follow_registry(settings, use_case, self.stage)
        if settings.monitoring:
            self._monitor = self._monitored(settings, use_case)
            loop = asyncio.get_running_loop()
            self._monitor.start(lambda: not loop.is_closed())
        self.stage.start()

    def _shipped(self, use_case: UseCase) -> OnnxModel | None:
        """Return the model that comes with the project, None if there is none. Raises ConfigurationError."""
        if not self.model_path:
            return None
        if "://" not in self.model_path and not (Path(self.model_path) / SPEC_FILE).exists():
            raise ConfigurationError(
                f"{self.model_path}: no {SPEC_FILE}",
                remedy="as `model` in project.yaml give the folder of an MLRun model, or leave it out",
            )
        path, _ = self.get_model(".onnx")
        spec = read_spec(self.model_spec.to_dict(), str(self.model_path))
        return load_model_file(path, spec, use_case.features)

    def _follow_registry(self, settings: Settings, use_case: UseCase, stage: ModelServerStage) -> None:
        """Begin with the promoted version, and switch when another one is promoted.

        Until then the model that comes with the project serves, or none.
        """
        registry = Registry.of(settings, use_case)
        self.model_path = str(registry.shipped or "")
        if registry.aside:
            self._say(registry.aside, f"versions in {registry.place()} serve when they are promoted")
        shipped, broken = None, None
        try:
            shipped = self._shipped(use_case)
        except ConfigurationError as error:  # which a promoted version makes good
            broken, self.model_path = error, ""
        self._scorer = Scorer(use_case, shipped, self)
        loop = asyncio.get_running_loop()

        def soon(action: Callable[..., None], *args: object) -> None:
            """Run an action in the event loop, because the watch's thread must touch neither the model nor the log."""
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the server with it
                loop.call_soon_threadsafe(action, *args)

        watch = ModelWatch(registry, shipped, lambda what, why: soon(self._say, what, why))

        def take() -> None:
            """Switch to the watch's model.

            This happens between two messages or requests, since the loop handles each in one step.
            """
            if watch.model is not self._scorer.model:
                self._scorer = Scorer(use_case, watch.model, self)
            stage.model = ServedModel(self._scorer.version, watch.refused)

        if settings.registry:
            watch.begin()
        if watch.model is None and broken is not None:
            raise broken
        if settings.registry:
            watch.start(lambda: soon(take))
        take()

    def _monitored(self, settings: Settings, use_case: UseCase) -> Monitor:
        """Return what tells MLRun's model monitoring of the answers."""
        uri = self.context.stream.function_uri
        about = About(self.name, type(self).__name__, uri, str(self.context.worker_id))
        endpoint = Endpoint(
            project=uri.partition("/")[0],
            function=settings.function,
            model=self.name,
            features=use_case.features,
            outputs=(use_case.prediction, use_case.probability),
            class_name=about.class_name,
        )
        loop = asyncio.get_running_loop()

        def connect(version: str) -> Connection:
            model = self._scorer.model
            return endpoint.connect(version, model.spec.sha256 if model and model.spec.version == version else "")

        def say(what: str, why: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the server with it
                loop.call_soon_threadsafe(self._say, what, why)

        return Monitor(about, connect, say)

    def _initialize_model_logger(self) -> None:
        """Do nothing, where MLRun would begin to send records with its own stream pusher, or log that it doesn't."""

    def _say(self, what: str, why: str) -> None:
        self.context.logger.warn_with(f"Model {self.name}: {what}", why=why)

    def do_event(self, event: Any, *args: Any, **kwargs: Any) -> Any:
        """Take a message of a stream, or answer a request: V2 JSON, or an Arrow message with one."""
        if self.stage is not None and event.trigger.kind not in ("", "http"):
            return self._handle(self.stage, event)
        try:
            operation = operation_of(event.path, event.method, self.name, self._scorer.version)
            if self._scorer.model is None and operation not in ("server", "live", "model"):
                raise BadRequestError(f"{self.name} has {NO_MODEL}; {TRAIN}", 503)
            if operation != "infer":
                event.body = self._told(operation)
                return event
            event.path, event.body = operation, split_body(event.body, event.headers)
            event = super().do_event(event, *args, **kwargs)  # type: ignore[misc]
            if isinstance(event.body, dict) and isinstance(outputs := event.body.get("outputs"), Decoded):
                event.body = encode(outputs.kind, outputs.origin, outputs.batch)
        except (BadRequestError, UnreadableError) as error:
            event.body = self._refusal(error.status if isinstance(error, BadRequestError) else 400, str(error))
        except Exception as error:
            # The notebook's hooks or the model. MLRun would answer 400, as if it were the client's mistake. The log has
            # the place only, because the message may quote the request.
            trace = "".join(traceback.format_tb(error.__traceback__))
            self.context.logger.error(f"request failed: {type(error).__name__}\n{trace}")
            event.body = self._refusal(500, f"{type(error).__name__}: {error}")
        return event

    async def _handle(self, stage: ModelServerStage, event: Any) -> Any:
        """Take a message. MLRun's entry points await what its last step returns, so waits block nobody."""
        await stage.handle(event)
        event.body = None  # a response to a stream costs 10 ms a megabyte, and nobody reads it
        return event

    def _refusal(self, status: int, reason: str) -> Any:
        body = msgspec.json.encode({"error": reason}).decode()
        return self.context.Response(status_code=status, body=body, content_type="application/json")

    def preprocess(self, request: Any, operation: Any) -> dict[str, Any]:  # noqa: ARG002
        """Return {"inputs": vectors float32[n, features]}, and for an Arrow message its "batch" and "origin"."""
        if isinstance(request, bytes) and is_framed(request):
            request = decode(request)
        if isinstance(request, Decoded):
            batch = self._scorer.checked(request.batch)
            return {"inputs": self._scorer.vectors(batch), "batch": batch, "origin": request.origin}
        query = read_request(request, self._scorer.use_case.features, self._outputs)
        return {"inputs": query.vectors, "query": query}

    def validate(self, request: dict[str, Any], operation: Any) -> dict[str, Any]:  # noqa: ARG002
        """Return the request: `preprocess` has checked it."""
        return request

    def predict(self, request: dict[str, Any]) -> tuple[Query, Scores] | Decoded:
        """Return a request with its scores, or the predictions of an Arrow message."""
        started = time.time()
        scores = self._scorer.scores(request["inputs"], request.get("batch"))
        if self._monitor is not None:
            self._monitor.offer(self._scorer.version, request["inputs"], scores, started)
        if "batch" not in request:
            return request["query"], scores
        return Decoded("predictions", request["origin"], self._scorer.predictions(request["batch"], scores), {})

    def postprocess(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a V2 response: tensors to tensors, otherwise `outputs` (0 or 1) with `probabilities` beside them."""
        if isinstance(request["outputs"], tuple):
            query, scores = request["outputs"]
            if query.outputs is not None:  # the protocol's members, without those that MLRun adds
                request = {"model_name": self.name}
            if query.id is not None:
                request["id"] = query.id
            request |= answer(query, scores, self._outputs)
        request["model_version"] = self._scorer.version
        return request

    # The same steps for the stage.

    def infer(self, rows: Decoded) -> Decoded:
        """Return the predictions of a message of vectors, through the same steps as a request.

        Without a model the predictions are null.
        """
        if self._scorer.model is None:
            return Decoded("predictions", rows.origin, self._scorer.score(rows.batch), {})
        response = {"outputs": self.predict(self.validate(self.preprocess(rows, "infer"), "infer"))}
        predictions: Decoded = self.postprocess(response)["outputs"]
        return predictions

    @property
    def _outputs(self) -> tuple[str, str]:
        """The names of the tensors that answer a request: the decision, and its probability."""
        return self._scorer.use_case.prediction, self._scorer.use_case.probability

    def _told(self, operation: Operation) -> dict[str, Any]:
        """Return what a request is told that asks for no predictions."""
        if operation == "server":
            return server_metadata()
        if operation == "model":
            return model_metadata(self.name, self._scorer.version, self._scorer.use_case.features, self._outputs)
        if operation == "model ready":
            return {"name": self.name, "ready": True}
        return {"live": True} if operation == "live" else {"ready": True}


def entry_points() -> str:
    """Return the text that MLRun appends to a serving function: `init_context` and `handler`.

    A worker runs it after the notebook's block, with `SERVING_SPEC_ENV` set (see `Project.serving_spec`).

    >>> "def init_context(context):" in entry_points()
    True
    """
    from nuclio.build import mlrun_footer

    text: str = mlrun_footer.format("serving_v2")
    return text
