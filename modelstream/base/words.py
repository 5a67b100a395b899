"""Numbers of things in words, as texts for people have them."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """Return a number and its thing, in the plural unless it is one.

    >>> counted(1, "dead letter"), counted(0, "dead letter"), counted(12345, "feature vector")
    ('1 dead letter', '0 dead letters', '12,345 feature vectors')
    """
    return f"{number:,} {things(number, thing)}"


def things(number: int, thing: str) -> str:
    """Return the word for one thing or for several, without their number.

    >>> things(1, "event"), things(2, "event")
    ('event', 'events')
    """
    return thing if number == 1 else f"{thing}s"
