"""Turns vectors into predictions, with the model and the notebook's hooks. No stream, no MLRun."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelstream.base.hooks import call_hook, defined_at, row_text
from modelstream.base.timestamps import rows_of
from modelstream.errors import ConfigurationError, HookError
from modelstream.messages.codec import check_columns
from modelstream.model.onnx import Floats, OnnxModel, Probabilities, as_input
from modelstream.use_case.columns import INGESTED_AT
from modelstream.use_case.declared import UseCase

Decisions = npt.NDArray[np.int8]
NO_MODEL = "no model yet"
TRAIN = "train and promote one: python pipeline.py train --promote"
"""What to do about it."""


@dataclass(frozen=True)
class Scores:
    """The decisions and probabilities for n vectors.

    `Scorer` has an example.
    """

    prediction: Decisions
    probability: Probabilities


class Hooks(Protocol):
    """The hooks: how the model's probabilities are adjusted and turned into decisions. A notebook may change them.

    `AtThreshold` has an example.
    """

    def calibrate(self, probability: Probabilities, vectors: Floats) -> Probabilities:
        """Return the probabilities to report, float64[n], 0 to 1."""

    def decide(self, probability: Probabilities, vectors: Floats) -> Decisions:
        """Return 0 or 1 for each vector, int8[n]."""


@dataclass
class AtThreshold:
    """The default hooks: probabilities unchanged, and the decision 1 at and above the threshold.

    >>> hooks, vectors = AtThreshold(0.5), np.zeros((2, 1), np.float32)
    >>> hooks.decide(np.array([0.2, 0.5]), vectors).tolist()
    [0, 1]
    """

    threshold: float

    def calibrate(self, probability: Probabilities, vectors: Floats) -> Probabilities:  # noqa: ARG002
        """Return the probabilities as they are."""
        return probability

    def decide(self, probability: Probabilities, vectors: Floats) -> Decisions:  # noqa: ARG002
        """Return 1 at and above the threshold."""
        return (probability >= self.threshold).astype(np.int8)


class Scorer:
    """Vectors in, predictions out: no stream, no MLRun.

    >>> from types import SimpleNamespace
    >>> from modelstream.use_case.file import parse_use_case
    >>> use_case = parse_use_case('''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count],
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {reading: {value: celsius}}, predict_on: [reading],
    ...  model: {name: frost, prediction: will_freeze}}''')
    >>> model = SimpleNamespace(features=2, predict=lambda vectors: (vectors[:, 0] < 3).astype(np.float64))
    >>> Scorer(use_case, model).scores(np.array([[20, 1], [2.5, 2]], np.float32))  # in place of an ONNX file's
    Scores(prediction=array([0, 1], dtype=int8), probability=array([0., 1.]))
    """

    def __init__(
        self,
        use_case: UseCase,
        model: OnnxModel | None,
        hooks: Hooks | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Take the model of a use case, None for none yet; `clock` gives nanoseconds since 1970 for `predicted_at`."""
        self.use_case = use_case
        self.model = model
        self._hooks = hooks or AtThreshold(use_case.threshold)
        self._clock = clock
        self._features = len(use_case.features)
        self._vectors = use_case.vector_schema
        self._predictions = use_case.prediction_schema
        self._constants: dict[int, tuple[pa.Array, pa.Array]] = {}

    @property
    def version(self) -> str:
        """The model's version, "" without a model."""
        return self.model.spec.version if self.model else ""

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch of vectors (`UseCase.vector_schema`) with the prediction for each; null without a model.

        The result has `UseCase.prediction_schema`, rows in the same order. Raises UnreadableError for a batch
        that isn't this use case's vectors.
        """
        batch = self.checked(batch)
        return self.predictions(batch, self.scores(self.vectors(batch), batch) if self.model else None)

    def checked(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch in `UseCase.vector_schema`. Raises UnreadableError if it isn't this use case's vectors.

        Columns of nulls, which messages leave out, are restored; features must not be null.
        """
        wanted = self._vectors
        check_columns(batch, wanted, self.use_case.needed_of_vector)
        if batch.schema.equals(wanted):
            return batch
        return pa.RecordBatch.from_arrays([_column(batch, field) for field in wanted], schema=wanted)

    def vectors(self, batch: pa.RecordBatch) -> Floats:
        """Return the features of a checked batch as the model takes them, float32[n, features]."""
        return as_input([column.to_numpy() for column in batch.columns[-self._features :]])

    def scores(self, vectors: Floats, batch: pa.RecordBatch | None = None) -> Scores:
        """Return what the model and the hooks say of vectors float32[n, features]. There must be a model.

        `batch` has the rows that they were made of, if they came from a stream: an error in a hook names the row.
        Raises HookError.
        """
        if self.model is None:
            raise ConfigurationError(NO_MODEL, remedy=TRAIN)
        count = len(vectors)
        if not count:
            return Scores(np.empty(0, np.int8), np.empty(0))
        probability = self._hooked(self._hooks.calibrate, self.model.predict(vectors), vectors, batch)
        if not ((probability >= 0) & (probability <= 1)).all():
            raise _hook_error(self._hooks.calibrate, "a probability from 0 to 1")
        prediction = self._hooked(self._hooks.decide, probability, vectors, batch)
        if not ((prediction == 0) | (prediction == 1)).all():
            raise _hook_error(self._hooks.decide, "0 or 1")
        return Scores(prediction.astype(np.int8), probability)

    def _hooked(
        self,
        hook: Callable[[Probabilities, Floats], object],
        probability: Probabilities,
        vectors: Floats,
        batch: pa.RecordBatch | None,
    ) -> Probabilities:
        """Return what a hook says of probabilities and their vectors, as float64[n]. Raises HookError."""
        count = len(vectors)

        def row(place: int) -> str:
            if batch is None:
                told = dict(zip(self.use_case.features, vectors[place].tolist(), strict=True))
            else:
                told = rows_of(batch.slice(place, 1).drop_columns([INGESTED_AT]))[0]
            return row_text({"probability": float(probability[place]), **told})

        result = call_hook(
            f"{_name(hook)}(probability, vectors)",
            lambda first, last: hook(probability[first:last], vectors[first:last]),
            count,
            row,
        )
        try:
            values = np.asarray(result, np.float64)
        except (TypeError, ValueError):
            values = np.empty(0)
        if values.shape != (count,):
            raise _hook_error(hook, "one number")
        return values

    def predictions(self, batch: pa.RecordBatch, scores: Scores | None) -> pa.RecordBatch:
        """Return a checked batch with its scores, in `UseCase.prediction_schema`; None: with no answers."""
        count = batch.num_rows
        name, version = self._constant(count)
        now = np.full(count, self._clock() // 1000, np.int64)
        prediction = pa.array(scores.prediction) if scores else pa.nulls(count, pa.int8())
        probability = pa.array(scores.probability) if scores else pa.nulls(count, pa.float64())
        columns = [*batch.columns, prediction, probability, name, version]
        columns.append(pa.array(now).view(self._predictions.field(-1).type))
        return pa.RecordBatch.from_arrays(columns, schema=self._predictions)

    def _constant(self, count: int) -> tuple[pa.Array, pa.Array]:
        """Return columns of the model's name and version. Messages often have the same size."""
        if count not in self._constants:
            if len(self._constants) >= 64:
                self._constants.clear()
            self._constants[count] = (
                pa.repeat(self.use_case.model_name, count),
                pa.repeat(pa.scalar(self.version or None, pa.string()), count),
            )
        return self._constants[count]


def _name(hook: Callable[..., object]) -> str:
    return getattr(hook, "__name__", type(hook).__name__)


def _hook_error(hook: Callable[..., object], wanted: str) -> HookError:
    return HookError(
        f"{defined_at(hook)}{_name(hook)}(probability, vectors) did not return {wanted} for each vector",
        remedy="fix it in the model server's notebook",
    )


def _column(batch: pa.RecordBatch, wanted: pa.Field) -> pa.Array:
    """Return a column; one that was left out because every row is null comes back as nulls."""
    index = batch.schema.get_field_index(wanted.name)
    return batch.column(index) if index >= 0 else pa.nulls(batch.num_rows, wanted.type)
