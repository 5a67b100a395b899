"""What a model card says, section by section: the README of a model's folder and the text of its report."""

from __future__ import annotations

from collections.abc import Sequence

from modelstream.training.judge.bootstrap import Estimate
from modelstream.training.judge.evaluation import EarlyPoint, Evaluation, Metrics
from modelstream.training.report.card import CARD_FILE, README_FILE, DataFacts, ModelCard
from modelstream.training.report.document import (
    Block,
    Document,
    Facts,
    Plot,
    Points,
    Section,
    Table,
    moment,
    number,
    percent,
)


def card_files(card: ModelCard) -> dict[str, bytes]:
    """Return the contents of card.json and README.md, by name."""
    return {CARD_FILE: card.json(), README_FILE: markdown(card).encode()}


def markdown(card: ModelCard) -> str:
    """Return the card as Markdown."""
    return document(card).markdown()


def document(card: ModelCard, more: Sequence[Plot] = ()) -> Document:
    """Return the card as a page; `more` are further plots of the data."""
    found = card.evaluation
    lead: list[Block] = [
        f"{card.title or card.name}: version {card.version}, {card.algorithm}, made {moment(card.created)} from "
        f"{card.data.vectors:,} vectors of {card.data.users:,} users. Judged on {found.metrics.vectors:,} vectors, "
        f"as they were served, of {found.metrics.users:,} users it has never seen.",
        _headline(found.metrics),
    ]
    sections = [
        Section("Use and limits", _use(card)),
        Section("How early", _early(found)),
        Section("Trained on what", _skew(card)),
        Section("Calibration", _calibration(card)),
        Section("Decisions", _decisions(card)),
        Section("Who is misjudged", _misjudged(found)),
        Section("What the model leans on", _importance(card)),
        Section("Data", [*_data(card.data), *more]),
        Section("Features", _features(card)),
        Section("Candidates", _candidates(card)),
        Section("How to make it again", _origin(card)),
    ]
    return Document(f"Model card: {card.name}, version {card.version}", lead, sections)


def _headline(metrics: Metrics) -> Facts:
    names = {"AUC": metrics.auc, "Accuracy": metrics.accuracy, "Log loss": metrics.log_loss}
    names |= {"Calibration error": metrics.ece, "Recall": metrics.recall, "Precision": metrics.precision}
    return Facts([(name, _value(one), _interval(one)) for name, one in names.items()])


def _use(card: ModelCard) -> list[Block]:
    blocks: list[Block] = []
    if card.intended_use:
        blocks += ["What it is for:", Points(card.intended_use)]
    if card.limits:
        blocks += ["What it is not for, and what is not known:", Points(card.limits)]
    return blocks


def _early(found: Evaluation) -> list[Block]:
    if not found.by_events and not found.by_hours:
        return []
    text = "How soon is a positive user recognised? One vector of each user stands behind every point: by events, the "
    text += "one right after the event of that number (users who never have so many are not in it); by hours, the last "
    text += "one until then. Intervals (95 %) are over users."
    blocks: list[Block] = [text, Plot("early", "Bands: 95 % intervals by bootstrap over users.")]
    if found.by_events:
        blocks.append(_early_table(f"number of {found.event} events", found.by_events))
    if found.by_hours:
        blocks.append(_early_table("hours since the window opened", found.by_hours, "The same by hours, as a table"))
    return blocks


def _early_table(unit: str, points: Sequence[EarlyPoint], folded: str = "") -> Table:
    columns = [unit, "users", "AUC", "recall", "precision", "accuracy"]
    rows = []
    for point in points:
        metrics = point.metrics
        values = [str(one) for one in (metrics.auc, metrics.recall, metrics.precision)]
        rows.append([f"{point.at:g}", f"{metrics.users:,}", *values, _value(metrics.accuracy)])
    return Table(columns, rows, folded=folded)


def _skew(card: ModelCard) -> list[Block]:
    if not card.skew:
        return []
    text = "A snapshot of users' final rows is not what the model sees when it serves. The same algorithm, trained on "
    text += "one or the other, judged on users it has never seen:"
    rows = [
        [row.trained_on, row.judged_on, str(row.metrics.auc), str(row.metrics.accuracy), str(row.metrics.log_loss)]
        for row in card.skew
    ]
    table = Table(["trained on", "judged on", "AUC", "accuracy", "log loss"], rows, left=2)
    return [text, Plot("skew", "Whiskers: 95 % intervals by bootstrap over users."), table]


def _calibration(card: ModelCard) -> list[Block]:
    done, metrics = card.calibration, card.evaluation.metrics
    method = "Not calibrated" if done.method == "none" else f"Calibrated ({done.method})"
    was = f"{done.before:.4f}" if done.method == "none" else f"{done.before:.4f} before, {done.after:.4f} after"
    text = f"{method}. Expected calibration error in cross-validation: {was}; on the test users: {metrics.ece}. "
    text += f"Brier score: {metrics.brier}."
    caption = "Above: what was predicted against what happened. Below: how often each probability is given "
    caption += "(logarithmic axis)."
    return [text, done.why, Plot("reliability", caption)] if done.why else [text, Plot("reliability", caption)]


def _decisions(card: ModelCard) -> list[Block]:
    found = card.evaluation.confusion
    text = f"The decision is 1 at a probability of {card.threshold.value:g} and above. {card.threshold.how}"
    rows = [
        ["truly negative", f"{found.true_negatives:,}", f"{found.false_positives:,}"],
        ["truly positive", f"{found.false_negatives:,}", f"{found.true_positives:,}"],
    ]
    blocks: list[Block] = [text, Table(["vectors", "said negative", "said positive"], rows), Plot("confusion", "")]
    if card.evaluation.gains:
        caption = "If the users ranked highest are approached: left, how many of the positives that reaches; right, "
        caption += "how many times as many as among users taken at random."
        blocks.append(Plot("gain", caption))
        columns = ["ranked", "how many", "positives", "in the highest 10 %", "20 %", "40 %"]
        blocks.append(
            Table(
                columns,
                [
                    [one.moment, f"{one.count:,}", f"{one.positives:,}"]
                    + [percent(one.found[round(share * (len(one.found) - 1))]) for share in (0.1, 0.2, 0.4)]
                    for one in card.evaluation.gains
                ],
            )
        )
    return blocks


def _misjudged(found: Evaluation) -> list[Block]:
    steady = found.steadiness
    errors = None if found.metrics.accuracy.value is None else 1 - found.metrics.accuracy.value
    text = f"At their last vector {percent(steady.right_at_end)} of the {steady.users:,} users are judged rightly, "
    text += f"{percent(steady.always_right)} at every vector, {percent(steady.never_right)} at none. For half of those "
    text += "who are judged rightly in the end the decision is right for good "
    text += f"{_after(steady.settled_median)}, for nine in ten {_after(steady.settled_p90)}."
    if not found.segments:
        return [text]
    more = f"Groups of vectors with clearly more errors than all ({percent(errors)}), the worst of each feature:"
    columns = ["group", "vectors", "users", "errors", "said positive, wrongly", "said negative, wrongly", "log loss"]
    rows = [
        (
            *(one.name, f"{one.vectors:,}", f"{one.users:,}", percent(one.errors)),
            *(percent(one.false_positives), percent(one.false_negatives), f"{one.log_loss:.3f}"),
        )
        for one in found.segments
    ]
    return [text, more, Table(columns, rows)]


def _after(vectors: float) -> str:
    return f"after {vectors:,.0f} vectors" if vectors >= 1 else "from the first vector on"


def _importance(card: ModelCard) -> list[Block]:
    if not card.importance:
        return []
    text = "What becomes of the metrics when a feature is shuffled among vectors. Features of one group tell nearly "
    text += "the same, so that each alone looks dispensable; they are shuffled together as well."
    rows = [
        [_shuffled(one.name, one.features), f"{one.log_loss_rise:.4f}", f"{one.auc_drop:.4f}"]
        for one in card.importance
    ]
    caption = "Orange: all features of a group together. Blue: each feature alone."
    table = Table(["shuffled", "rise of log loss", "drop of AUC"], rows, folded="The same as a table")
    return [text, Plot("importance", caption), table]


def _shuffled(name: str, features: Sequence[str]) -> str:
    return name if len(features) == 1 else f"all of {name.removesuffix('_*')}"


def _data(data: DataFacts) -> list[Block]:
    of_generator = "" if data.generator_seed is None else f"; of the generator {data.generator_seed}"
    seeds = f"{data.seed}{of_generator}"
    rows = [
        ["source", data.source],
        ["labels", data.labels_from],
        ["events", f"{moment(data.first_event)} to {moment(data.last_event)}"],
        *([["events of the future", data.told_of_future]] if data.future_events else []),
        *([["outcomes known until", moment(data.log_end)]] if data.log_end else []),
        ["cut-off", moment(data.cut_off or "none")],
        ["users", f"{data.users:,}: {data.training_users:,} learned from, {data.test_users:,} tested on, none in both"],
        ["vectors", f"{data.vectors:,}: {data.training_vectors:,} learned from, {data.test_vectors:,} tested on"],
        ["sample", f"at most {data.vectors_per_user:,} vectors a user" if data.vectors_per_user else "all vectors"],
        ["seed", seeds],
        ["dead letters", percent(data.dead_letter_share, 3)],
    ]
    return [Table(["", ""], rows, left=2)]


def _features(card: ModelCard) -> list[Block]:
    rows = []
    for name, one in card.features.items():
        low, middle, high = one.quartiles or (None, None, None)
        values = [one.minimum, low, middle, high, one.maximum, one.mean, one.std]
        rows.append([name, *(number(value) for value in values)])
    text = "All vectors as served (not the sample that was learned from): what drift is measured against."
    columns = ["feature", "minimum", "25 %", "median", "75 %", "maximum", "mean", "standard deviation"]
    return [
        text,
        Table(columns, rows),
        Plot("features", "The lowest and the highest 2.5 % of the vectors lie beyond the axes."),
    ]


def _candidates(card: ModelCard) -> list[Block]:
    if not card.candidates:
        return []
    tried = sorted(card.candidates, key=lambda one: one.log_loss)
    columns = ["candidate", "log loss", "AUC", "vectors a second", "seconds to fit", ""]
    rows = [
        (
            *(one.name, f"{one.log_loss:.4f} ± {one.log_loss_std:.4f}", f"{one.auc:.4f}"),
            *(number(one.vectors_per_second), number(one.fit_seconds, 3), "chosen" if one.chosen else ""),
        )
        for one in tried
    ]
    text = "Cross-validation with whole users left out; ± is the standard deviation between folds."
    blocks: list[Block] = [text, Table(columns, rows)]
    if card.chosen_because:
        blocks.append(card.chosen_because)
    given = [(one.name, ", ".join(f"`{name}={value}`" for name, value in one.parameters.items())) for one in tried]
    if any(parameters for _, parameters in given):
        blocks.append(Table(["candidate", "parameters"], given, left=2, folded="Parameters"))
    return blocks


def _origin(card: ModelCard) -> list[Block]:
    rows = [["sha256 of model.onnx", f"`{card.sha256}`"], ["Python", card.python or "–"]]
    rows += [[name, version] for name, version in card.libraries.items()]
    text = "The same seed, data, libraries and machine give the same file."
    blocks: list[Block] = [text, Table(["", ""], rows, left=2)]
    return [card.conversion, *blocks] if card.conversion else blocks


def _value(one: Estimate) -> str:
    return "–" if one.value is None else f"{one.value:.3f}"


def _interval(one: Estimate) -> str:
    return "" if one.low is None or one.high is None else f"{one.low:.3f} to {one.high:.3f}"
