"""Drift: how far the vectors that were served are from the model's training data.

The log of predictions is read in batches, its vectors are counted in the bins of the model's card, and the distances
between the two histograms are those of MLRun's model monitoring. MLRun judges by the mean of (total variation +
Hellinger) / 2 over all features: "possible" from 0.5, "detected" from 0.7. The mean hides one broken feature among
many, so here the same bounds also hold for each feature and for the prediction.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelstream.errors import ConfigurationError
from modelstream.logs import Log
from modelstream.model.onnx import as_input
from modelstream.model.spec import difference
from modelstream.stores import Stores
from modelstream.training.drift.distances import (
    hellinger,
    kullback_leibler,
    population_stability_index,
    total_variation,
)
from modelstream.training.report.card import ModelCard
from modelstream.training.snapshot.histograms import Counts, Histogram, shares
from modelstream.use_case.columns import INGESTED_AT, MODEL_VERSION, PREDICTED_AT, TIME
from modelstream.use_case.declared import UseCase

POSSIBLE, DETECTED = 0.5, 0.7
"""MLRun's bounds (`DataDriftClassifier` of its histogram data drift application)."""
LETTERS_POSSIBLE, LETTERS_DETECTED = 0.01, 0.05
"""By how much the share of dead letters may exceed the share in the card's data."""
NO_MODEL = "none"
"""Stands for the version of vectors that were kept without an answer, before there was a model."""
FEW = 1000
"""With fewer vectors, or rows for the dead letters, distances are large by chance: nothing is judged."""
FEW_USERS = 30
"""The same for vectors of fewer users, because the vectors of a user are alike."""


class Verdict(enum.StrEnum):
    """The verdict on a distance; the later, the worse."""

    NONE = "no drift"
    FEW = "too few to tell"
    POSSIBLE = "possible drift"
    DRIFT = "drift"


JUDGED = (Verdict.POSSIBLE, Verdict.DRIFT)
"""Verdicts that give a reason."""


class Distance(msgspec.Struct, frozen=True):
    """The distance between a served column and the card's."""

    name: str
    psi: float
    """Population stability index."""
    total_variation: float
    hellinger: float
    kullback_leibler: float
    """The sum of both directions."""
    value: float
    """(total variation + Hellinger) / 2, which MLRun judges by."""
    verdict: Verdict
    then: list[float]
    """Share of the card's vectors in each bin."""
    now: list[float]


class Letters(msgspec.Struct, frozen=True):
    """The share of dead letters among all rows that came in."""

    letters: int
    rows: int
    """Events and letters."""
    then: float
    """Share in the data of the card."""
    now: float
    verdict: Verdict


class Drift(msgspec.Struct, frozen=True):
    """What `drift` finds."""

    model: str
    version: str
    since: str | None
    first: str | None
    last: str | None
    """When the first and the last of the predictions were made, ISO 8601."""
    vectors: int
    users: int
    """The users whose vectors they are; counted up to `FEW_USERS`."""
    other_versions: dict[str, int]
    """Predictions of the same time by other versions, which are left out."""
    features: list[Distance]
    """In the order of the vector."""
    mean: float
    """The mean of `value` over all features: MLRun's general drift."""
    prediction: Distance
    dead_letters: Letters
    verdict: Verdict
    reasons: list[str]
    """The reasons for the verdict, the worst first."""
    few: bool
    """Too few vectors or users to judge the features and the prediction."""


@dataclass
class ServedCounts:
    """Counts served vectors in the bins of a card, batch by batch."""

    card: ModelCard
    use_case: UseCase
    since: int | None = None
    """Microseconds since 1970: only predictions made from then on."""
    vectors: int = 0
    users: set[str] = field(default_factory=set)
    """At most about as many as a batch has: no more are taken in once they are enough."""
    first: int | None = None
    last: int | None = None
    others: Counter[str] = field(default_factory=Counter)
    counts: dict[str, Counts] = field(default_factory=dict)
    prediction: Counts = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        """Begin with nothing."""
        self.counts = {name: np.zeros(len(one.counts)) for name, one in self.card.features.items()}
        self.prediction = np.zeros(len(self.card.prediction.counts))

    @property
    def columns(self) -> list[str]:
        """The columns of the log that are needed."""
        use_case = self.use_case
        return [use_case.key, *use_case.features, use_case.probability, MODEL_VERSION, PREDICTED_AT]

    @property
    def few(self) -> bool:
        """Whether they are too few to judge."""
        return self.vectors < FEW or len(self.users) < FEW_USERS

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a batch of the log of predictions."""
        if self.since is not None:
            batch = batch.filter(pc.greater_equal(batch.column(PREDICTED_AT), pa.scalar(self.since, TIME)))
        versions = pc.value_counts(batch.column(MODEL_VERSION)).to_pylist()
        known = {one["values"] or NO_MODEL: one["counts"] for one in versions}
        self.others.update({version: count for version, count in known.items() if version != self.card.version})
        batch = batch.filter(pc.equal(batch.column(MODEL_VERSION), self.card.version))
        if not batch.num_rows:
            return
        ends = pc.min_max(batch.column(PREDICTED_AT).cast(pa.int64())).as_py()
        self.first = ends["min"] if self.first is None else min(self.first, ends["min"])
        self.last = ends["max"] if self.last is None else max(self.last, ends["max"])
        self.vectors += batch.num_rows
        if len(self.users) < FEW_USERS:
            self.users.update(batch.column(self.use_case.key).unique().to_pylist())
        vectors = as_input([batch.column(name).to_numpy() for name in self.use_case.features])
        for i, name in enumerate(self.use_case.features):
            self.counts[name] += self.card.features[name].count(vectors[:, i])
        self.prediction += self.card.prediction.count(batch.column(self.use_case.probability).to_numpy())


def drift(card: ModelCard, stores: Stores, since: int | None) -> Drift:
    """Compare the vectors served since a time (microseconds since 1970; None: all of them) with a card.

    Raises ConfigurationError if the card has other features.
    """
    use_case, predictions = stores.use_case, stores.inference_log
    if differs := difference([*card.features], use_case.features):
        raise ConfigurationError(
            f"the card of {card.name} {card.version} has other features than the use case: {differs}",
            remedy="train the model again",
        )
    served = ServedCounts(card, use_case, since)
    for batch in predictions.scan(served.columns):
        served.add(batch)
    letters = sum(1 for _ in stores.dead_letters(since))
    return judge(served, letters, _rows_since(stores.events_log, since) + letters)


def told(others: Mapping[str, int]) -> str:
    """Return in words how many vectors other versions answered, or none did.

    >>> told({"2": 1200, NO_MODEL: 7})
    '1,200 by version 2, 7 without a model'
    """
    by = {version: "without a model" if version == NO_MODEL else f"by version {version}" for version in others}
    return ", ".join(f"{number:,} {by[version]}" for version, number in others.items())


def judge(served: ServedCounts, letters: int, rows: int) -> Drift:
    """Return the verdict on what was served; `letters` of `rows` taken in were dead letters."""
    card = served.card
    few, use_case = served.few, served.use_case
    features = [distance(name, card.features[name], served.counts[name], few=few) for name in use_case.features]
    prediction = distance(use_case.probability, card.prediction, served.prediction, few=few)
    mean = float(np.mean([one.value for one in features])) if features else 0.0
    dead = _letters(letters, rows, card.data.dead_letter_share)
    found = [(one.verdict, f"{one.name}: {one.value:.2f}") for one in sorted(features, key=lambda one: -one.value)]
    found.append((prediction.verdict, f"the prediction: {prediction.value:.2f}"))
    found.append((_verdict(mean, few=few), f"the mean of all features: {mean:.2f}"))
    letters_verdict = dead.verdict if dead.verdict in JUDGED else Verdict.NONE
    found.append(
        (letters_verdict, f"dead letters: {dead.now:.1%} of the rows, {dead.then:.1%} in the data of the card")
    )
    order = list(Verdict)
    worst = max((verdict for verdict, _ in found), key=order.index)
    reasons = sorted((one for one in found if one[0] in JUDGED), key=lambda one: -order.index(one[0]))
    return Drift(
        model=card.name,
        version=card.version,
        since=iso_second(served.since),
        first=iso_second(served.first),
        last=iso_second(served.last),
        vectors=served.vectors,
        users=min(len(served.users), FEW_USERS),
        other_versions=dict(served.others),
        features=features,
        mean=mean,
        prediction=prediction,
        dead_letters=dead,
        verdict=worst,
        reasons=[reason for _, reason in reasons],
        few=few,
    )


def distance(name: str, reference: Histogram, counts: Counts, *, few: bool) -> Distance:
    """Return how far counts, float64[bins], lie from a histogram of the card; if they are few, it isn't judged."""
    now, then = shares(counts), reference.shares
    apart, value = total_variation(now, then), hellinger(now, then)
    mean = (apart + value) / 2
    return Distance(
        name=name,
        psi=population_stability_index(now, then),
        total_variation=apart,
        hellinger=value,
        kullback_leibler=kullback_leibler(now, then),
        value=mean,
        verdict=_verdict(mean, few=few),
        then=then.tolist(),
        now=now.tolist(),
    )


def iso_second(microseconds: int | None) -> str | None:
    """Return a time as ISO 8601 text, to the second."""
    if microseconds is None:
        return None
    text: str = np.datetime_as_string(np.datetime64(microseconds, "us"), unit="s")
    return f"{text}Z"


def _rows_since(events: Log, since: int | None) -> int:
    if since is None:
        return events.count()
    start = pa.scalar(since, TIME)
    taken = (pc.sum(pc.greater_equal(batch.column(INGESTED_AT), start)).as_py() for batch in events.scan([INGESTED_AT]))
    return sum(number or 0 for number in taken)


def _letters(letters: int, rows: int, then: float) -> Letters:
    now = letters / rows if rows else 0.0
    more = now - then
    verdict = Verdict.DRIFT if more >= LETTERS_DETECTED else Verdict.POSSIBLE
    verdict = verdict if more >= LETTERS_POSSIBLE else Verdict.NONE
    return Letters(letters, rows, then, now, Verdict.FEW if rows < FEW else verdict)


def _verdict(value: float, *, few: bool) -> Verdict:
    if few:
        return Verdict.FEW
    if value >= DETECTED:
        return Verdict.DRIFT
    return Verdict.POSSIBLE if value >= POSSIBLE else Verdict.NONE
