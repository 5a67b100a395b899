"""The model card: what a model was trained on, how good it is and at what, and what it is not for.

`card.json` holds everything that the report, the plots and the drift check need; `README.md` says it to a person.
Both are written by code from the same structure, into the folder of the model.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path

import msgspec

from modelstream.errors import ConfigurationError
from modelstream.training.judge.evaluation import Evaluation, Importance, SkewRow
from modelstream.training.snapshot.histograms import Histogram

CARD_FILE = "card.json"
README_FILE = "README.md"
FORMAT = 1
"""Version of card.json."""
NO_CARD = "a model made by `python pipeline.py train` has a card: train it again"

LIBRARIES = ("numpy", "pyarrow", "scikit-learn", "skl2onnx", "onnx", "onnxruntime", "mlrun")


class DataFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The data that the model was trained on. Times are ISO 8601 text, UTC."""

    source: str
    """In words: replay of the log of events, or the inference log; generated or real."""
    labels_from: str
    seed: int
    """The seed of the sample, of the split into learning and test users, and of the candidates."""
    generator_seed: int | None = None
    """The seed of the generated events, if all data are generated."""
    first_event: str
    last_event: str
    cut_off: str | None = None
    """The time after which no vector was used."""
    users: int
    training_users: int
    test_users: int
    vectors: int
    """The number of vectors as served, before sampling."""
    training_vectors: int
    test_vectors: int
    vectors_per_user: int | None = None
    """The most vectors of any one user that were learned from."""
    log_end: str | None = None
    """The end of the log, where labels come from later events: until then outcomes are known."""
    future_events: int = 0
    """Events that are dated later than they arrived."""
    simulated: bool = False
    """Most events are, so their times are taken as simulated, and all of them count."""
    dead_letter_share: float = 0.0
    """The share of incoming rows that became dead letters; the reference for drift."""

    @property
    def told_of_future(self) -> str:
        """What to say of events that are dated later than they arrived; "" if there are none."""
        if not self.future_events:
            return ""
        one = self.future_events == 1
        dated = (
            f"{self.future_events:,} {'event is' if one else 'events are'} dated later than {'it' if one else 'they'}"
        )
        if self.simulated:
            return f"{dated} arrived: as most are, the times are taken as simulated, and all count"
        return f"{dated} arrived: such events don't move the end of the log, and bring no label"


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A model that was tried, judged by cross-validation with whole users left out."""

    name: str
    parameters: dict[str, str | int | float | bool | None] = {}
    log_loss: float
    log_loss_std: float = 0.0
    """Between the folds."""
    auc: float
    accuracy: float | None = None
    vectors_per_second: float | None = None
    """Scored in batches of 1,000 on one core."""
    fit_seconds: float | None = None
    chosen: bool = False


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """The calibration of the probabilities, and their expected calibration error."""

    method: str
    """"none" or the method's name."""
    before: float
    after: float
    why: str = ""


class Threshold(msgspec.Struct, frozen=True, kw_only=True):
    """The probability at and above which the decision is 1, and how it was chosen."""

    value: float
    how: str


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known about a model.

    `features` and `prediction` are histograms of vectors as served, not of the sample; see `histograms`.
    """

    format: int = FORMAT
    name: str
    version: str
    title: str = ""
    sha256: str
    """Of model.onnx."""
    algorithm: str
    created: str
    """ISO 8601, UTC."""
    data: DataFacts
    features: dict[str, Histogram]
    """Histograms by feature, in the order of the vector."""
    prediction: Histogram
    """The histogram of the probabilities for all vectors as served, or for all vectors of users that were not learned
    from."""
    candidates: list[Candidate]
    chosen_because: str
    calibration: Calibration
    threshold: Threshold
    evaluation: Evaluation
    """The evaluation on users that the model has never seen."""
    skew: list[SkewRow] = []
    importance: list[Importance] = []
    conversion: str = ""
    """How the ONNX file compares with the trained model: rows, differing classes, greatest difference."""
    intended_use: list[str] = []
    limits: list[str] = []
    libraries: dict[str, str] = {}
    python: str = ""

    def json(self) -> bytes:
        """Return card.json: numbers to full precision, one value a line but for short lists."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def read_card(folder: Path) -> ModelCard:
    """Return the card of a model's folder. Raises ConfigurationError: which file, what is wrong, and a remedy."""
    path = folder / CARD_FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}", remedy=NO_CARD) from None
    return parse_card(content, str(path))


def parse_card(content: bytes, source: str) -> ModelCard:
    """Return the card in the content of a card.json; `source` is what errors call it. Raises ConfigurationError."""
    try:
        found = msgspec.json.decode(content, type=_CardFormat)
        if found.format > FORMAT:
            raise ConfigurationError(
                f"{source} is of format {found.format}; this program reads up to {FORMAT}",
                remedy="use the newer program that wrote it",
            )
        return msgspec.json.decode(content, type=ModelCard)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{source}: {error}", remedy="train the model again") from None


def library_versions(names: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """Return the versions of the libraries that a model depends on, of those that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def python_version() -> str:
    """Return the version of Python."""
    return platform.python_version()


class _CardFormat(msgspec.Struct):
    format: int
