"""What served vectors are compared with: the card of a version."""

from __future__ import annotations

from modelstream.errors import ConfigurationError
from modelstream.model.scoring import NO_MODEL, TRAIN
from modelstream.registry.registry import Registry
from modelstream.training.report.card import CARD_FILE, NO_CARD, ModelCard, parse_card

MOST_BYTES = 16 << 20
"""The largest card that is read; one with 13 features has 0.05 MB."""


def reference(registry: Registry, version: str | None = None) -> ModelCard:
    """Return the card of a version, or of the one that serves. Raises ConfigurationError if there is none."""
    version = version or registry.current() or registry.shipped_version()
    if not version:
        raise ConfigurationError(f"there is {NO_MODEL} of {registry.name}", remedy=TRAIN)
    place = registry.place_of(version)
    try:
        content = registry.read(version, CARD_FILE, MOST_BYTES)
    except ConfigurationError as error:
        raise ConfigurationError(str(error), remedy=NO_CARD) from error
    return parse_card(content, f"{place}/{CARD_FILE}")
