"""Two versions of a model on the same users: is the one that is to serve worse than the one that serves?

The users are those that the newer version was tested on (`held_out`). The log loss decides, as between candidates; its
difference has an interval over users, who are drawn for both versions alike. So two models that err on the same users
are told apart by few of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelstream.errors import ConfigurationError, ModelstreamError
from modelstream.registry.registry import Registry
from modelstream.training.judge.bootstrap import Estimate, Metrics, log_losses, mean_over_users, measure
from modelstream.training.judge.held_out import HELD_OUT_FILE, MOST_BYTES, HeldOut, parse_held_out
from modelstream.training.report.card import CARD_FILE, parse_card

SEED = 1
CARD_BYTES = 16 << 20


@dataclass(frozen=True)
class Comparison:
    """How the version that is to serve, and the one that serves, do on the same vectors."""

    version: str
    serving: str
    tested: str
    """The version whose held-out users these are."""
    seen: str
    """The version that may have learned from some of these users, "" for none."""
    metrics: Metrics
    of_serving: Metrics
    difference: Estimate
    """The log loss of the version minus that of the one that serves."""

    @property
    def worse(self) -> bool:
        """Whether the version is worse, beyond what the choice of users explains."""
        return self.difference.low is not None and self.difference.low > 0

    def told(self) -> str:
        """Return the verdict in a sentence."""
        low, high = self.difference.low, self.difference.high
        if self.difference.value is None or low is None or high is None:
            return f"Versions {self.version} and {self.serving} can't be told apart."
        if max(abs(low), abs(high)) < 5e-5:
            return f"Version {self.version} is as good as version {self.serving}: their log loss is the same."
        if low <= 0 <= high:
            return (
                f"Nothing shows that version {self.version} is better or worse than version {self.serving}: "
                f"the difference of their log loss, {self.difference.value:+.4f}, may be chance "
                f"({low:+.4f} to {high:+.4f})."
            )
        sizes = sorted(abs(bound) for bound in (low, high))
        return (
            f"Version {self.version} is {'worse' if low > 0 else 'better'} than version {self.serving}: its log loss "
            f"is {abs(self.difference.value):.4f} ({sizes[0]:.4f} to {sizes[1]:.4f}) "
            f"{'higher' if low > 0 else 'lower'}."
        )


def compare_versions(registry: Registry, version: str, serving: str, threshold: float) -> Comparison:
    """Compare two versions on the held-out users of the newer one. Raises ModelstreamError if that can't be done."""
    newer, older = sorted((version, serving), key=int, reverse=True)
    tested, users = _held_out(registry, newer, older)
    models = {one: registry.load(one) for one in (version, serving)}
    width = len(registry.features)
    if users.vectors.shape[1] != width:
        raise ConfigurationError(
            f"{HELD_OUT_FILE} of version {tested} has vectors of {users.vectors.shape[1]} features, not {width}",
            remedy="train the model again",
        )
    answers = {one: model.predict(users.vectors) for one, model in models.items()}
    metrics = {
        one: measure(users.labels, found, users.users, threshold=threshold, seed=SEED).metrics
        for one, found in answers.items()
    }
    lost = {one: log_losses(users.labels, found) for one, found in answers.items()}
    other = serving if tested == version else version
    return Comparison(
        version=version,
        serving=serving,
        tested=tested,
        seen="" if _seed(registry, other) == _seed(registry, tested) else other,
        metrics=metrics[version],
        of_serving=metrics[serving],
        difference=mean_over_users(lost[version] - lost[serving], users.users, seed=SEED),
    )


@dataclass(frozen=True)
class Decision:
    """Whether a version may be promoted without a further word."""

    comparison: Comparison | None
    doubt: str = ""
    """Why not, "" if it may."""
    unknown: str = ""
    """Why it can't be compared, "" if it was, or if there is nothing to compare it with."""


def decide(registry: Registry, version: str, threshold: float) -> Decision:
    """Compare a version with the one that serves. Raises ConfigurationError if there is no such version.

    A version that is worse is in doubt; so is one that can't be compared, unless nothing was promoted before.
    """
    registry.place_of(version)
    promoted = registry.current()
    serving = promoted or registry.shipped_version()
    if not serving or serving == version:
        return Decision(None)
    try:
        found = compare_versions(registry, version, serving, threshold)
    except ModelstreamError as error:
        why = f"version {version} can't be compared with version {serving}, which serves: {error}"
        return Decision(None, why if promoted else "", why)
    return Decision(found, found.told().rstrip(".") if found.worse else "")


def promote_unless_worse(registry: Registry, version: str, threshold: float) -> Decision:
    """Promote a version, unless it is in doubt (`decide`). Raises ModelstreamError if it is, or can't serve."""
    found = decide(registry, version, threshold)
    if found.doubt:
        raise in_doubt(version, found)
    registry.promote(version)
    return found


def in_doubt(version: str, found: Decision) -> ModelstreamError:
    """Return the error that says why a version is not promoted."""
    return ModelstreamError(
        f"version {version} is not promoted: {found.doubt[0].lower()}{found.doubt[1:]}",
        remedy=f"if it is to serve all the same: python pipeline.py models promote {version} --force",
    )


def _held_out(registry: Registry, *versions: str) -> tuple[str, HeldOut]:
    """Return the held-out vectors of the first version that has some."""
    for version in versions:
        try:
            content = registry.read(version, HELD_OUT_FILE, MOST_BYTES)
        except ConfigurationError:
            continue
        return version, parse_held_out(content, f"{registry.place_of(version)}/{HELD_OUT_FILE}")
    raise ConfigurationError(
        f"neither has a {HELD_OUT_FILE}, the vectors that it was tested on",
        remedy="a version made by `python pipeline.py train` has one",
    )


def _seed(registry: Registry, version: str) -> int | None:
    """Return the seed by which a version's users were split, None if it has no card."""
    try:
        content = registry.read(version, CARD_FILE, CARD_BYTES)
        return parse_card(content, CARD_FILE).data.seed
    except ConfigurationError:
        return None
