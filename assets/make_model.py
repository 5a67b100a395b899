"""Make the model that is shipped: `python assets/make_model.py` writes `assets/models/churn/1`.

It learns from generated users (the distributions of the data-generator's notebook), on vectors as they are when
the model is asked, a sample of each user's, and is measured on users of another seed. The same seed gives the
same file, to the byte. It is a logistic regression with scaled inputs, and the scaling folded into its weights.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.preprocessing import StandardScaler

from modelstream import features, notebooks
from modelstream.errors import ConfigurationError
from modelstream.generator import GeneratorSource, Order, enrichment_table
from modelstream.models import SPEC_FILE, Model, ModelSpec, as_input
from modelstream.parsing import LineParser
from modelstream.use_case import UseCase, load

ROOT = Path(__file__).parent.parent
USE_CASE = ROOT / "use_cases" / "churn.yaml"
MODEL = ROOT / "assets" / "models" / "churn" / "1"
GENERATOR = ROOT / "functions" / "data-generator.ipynb"
END = 1_767_225_600_000_000
"""Microseconds at which the generated events end: 2026-01-01."""
VERSION = "1"
DIGITS = 4
"""Significant digits kept of a weight: processors differ in the last bits of a sum, and the file must not."""
SHARE = 0.25
"""Share of a user's vectors to learn from, about 200: neighbours differ little."""
OPSET = {"": 17, "ai.onnx.ml": 1}


@dataclass(frozen=True)
class Examples:
    """Vectors with what became of their users."""

    vectors: npt.NDArray[np.float64]
    """float64[n, features], as served."""
    labels: npt.NDArray[np.int64]
    """int64[n]: 1 for the positive class."""
    users: int


def generate(use_case: UseCase, users: int, seed: int, share: float = 1.0) -> Examples:
    """Return a random share of the vectors of generated users, as stream-to-features would send them."""
    if use_case.label is None:
        raise ConfigurationError(f"the use case {use_case.name} declares no label", remedy="add `label:`")
    label = use_case.label
    distributions = notebooks.load(GENERATOR).DISTRIBUTIONS
    known = dict(zip(*enrichment_table(distributions.enrichment, seed).to_pydict().values(), strict=True))
    source = GeneratorSource(use_case, distributions, Order(users, 1000, seed, END))
    parser, engine = LineParser(use_case), features.FeatureEngine(use_case)
    draw = np.random.default_rng(seed)
    labels: dict[str, int] = {}
    vectors, keys = [], []
    for chunk in source.chunks(lambda: False):
        events = parser.parse(chunk.lines.texts(), chunk.lines.positions, END).events
        new = events.filter(events.column(label.field).is_valid())
        values = new.column(label.field).to_pylist()
        labels |= zip(new.column(use_case.key).to_pylist(), (v == label.positive for v in values), strict=True)
        engine.load(engine.missing(events.column(use_case.key).unique().to_pylist()), features.no_rows(use_case))
        applied = engine.apply(events, chunk.lines.positions, lambda asked: [known.get(key) for key in asked])
        kept = draw.random(len(applied.indices)) < share
        vectors.append(applied.vectors[kept])
        keys += events.column(use_case.key).take(applied.indices[kept]).to_pylist()
    became = np.fromiter((labels[key] for key in keys), np.int64)
    return Examples(np.concatenate(vectors), became, users)


def train(examples: Examples) -> LogisticRegression:
    """Return a logistic regression on unscaled inputs."""
    inputs = as_input(list(examples.vectors.T)).astype(np.float64)
    scaler = StandardScaler().fit(inputs)
    scaled = LogisticRegression(solver="newton-cholesky", tol=1e-12).fit(scaler.transform(inputs), examples.labels)
    weights = _rounded(scaled.coef_ / scaler.scale_)
    folded = LogisticRegression()
    folded.classes_ = scaled.classes_
    folded.coef_ = weights
    folded.intercept_ = _rounded(scaled.intercept_ - (scaled.coef_ / scaler.scale_) @ scaler.mean_)
    folded.n_features_in_ = inputs.shape[1]
    return folded


def convert(model: LogisticRegression, features: int) -> bytes:
    """Return the model as ONNX: input float32[n, features], output `probabilities` float32[n, 2]."""
    sample = np.zeros((1, features), np.float32)
    converted = to_onnx(model, sample, options={"zipmap": False}, target_opset=OPSET)
    converted.producer_name, converted.producer_version = "modelstream", VERSION
    content: bytes = converted.SerializeToString(deterministic=True)
    return content


def write(folder: Path, use_case: UseCase, content: bytes, training: Examples, unseen: Examples) -> dict[str, float]:
    """Write an MLRun model directory; return what the model reaches on unseen users."""
    sha256 = hashlib.sha256(content).hexdigest()
    spec = ModelSpec(use_case.model_name, VERSION, "model.onnx", sha256, use_case.features)
    metrics = measure(Model(spec, content, str(folder)), unseen, use_case.threshold)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / spec.file).write_bytes(content)
    described = {
        "kind": "model",
        "metadata": {"key": spec.name, "project": "modelstream", "labels": {"version": VERSION}},
        "spec": {
            "model_file": spec.file,
            "framework": "onnx",
            "algorithm": "LogisticRegression",
            "parameters": {
                "version": VERSION,
                "sha256": sha256,
                "training_users": training.users,
                "training_vectors": len(training.labels),
            },
            "metrics": metrics,
            "inputs": [{"name": name, "value_type": "float"} for name in use_case.features],
            "outputs": [{"name": use_case.prediction, "value_type": "int"}],
            "feature_stats": {name: _statistics(training.vectors[:, i]) for i, name in enumerate(use_case.features)},
        },
    }
    text = yaml.safe_dump(described, sort_keys=False, width=110, default_flow_style=None)
    (folder / SPEC_FILE).write_text(f"# Written by assets/make_model.py\n{text}")
    return metrics


def measure(model: Model, unseen: Examples, threshold: float) -> dict[str, float]:
    """Return AUC, accuracy and log loss, to four digits."""
    probability = model.predict(as_input(list(unseen.vectors.T)))
    clipped = np.clip(probability, 1e-7, 1 - 1e-7)
    measured = {
        "auc": roc_auc_score(unseen.labels, probability),
        "accuracy": accuracy_score(unseen.labels, probability >= threshold),
        "log_loss": log_loss(unseen.labels, clipped),
    }
    return {name: round(float(value), 4) for name, value in measured.items()}


def _rounded(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.array([float(f"{value:.{DIGITS - 1}e}") for value in values.flat]).reshape(values.shape)


def _statistics(values: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Return what MLRun keeps of a feature, for drift: moments, quartiles and a histogram of 20 bins."""
    counts, edges = np.histogram(values, bins=20)
    numbers = {
        "count": len(values),
        "mean": values.mean(),
        "std": values.std(ddof=1),
        "min": values.min(),
        "25%": np.quantile(values, 0.25),
        "50%": np.quantile(values, 0.5),
        "75%": np.quantile(values, 0.75),
        "max": values.max(),
    }
    short = {name: float(f"{value:.6g}") for name, value in numbers.items()}
    return {**short, "hist": [counts.tolist(), [float(f"{edge:.6g}") for edge in edges]]}


def main() -> None:
    """Make the model, and say what it reaches."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    arguments.add_argument("--folder", type=Path, default=MODEL)
    arguments.add_argument("--users", type=int, default=1500)
    arguments.add_argument("--unseen-users", type=int, default=500)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    use_case = load(USE_CASE)
    training = generate(use_case, given.users, given.seed, SHARE)
    unseen = generate(use_case, given.unseen_users, given.seed + 1_000_000)
    content = convert(train(training), len(use_case.features))
    metrics = write(given.folder, use_case, content, training, unseen)
    print(f"{given.folder}: {len(training.labels):,} vectors of {training.users:,} users learned from")
    print(f"{len(unseen.labels):,} vectors of {unseen.users:,} unseen users: {metrics}")


if __name__ == "__main__":
    main()
