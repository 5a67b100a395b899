"""What a cluster's file still has from the shipped one and must be replaced, such as `registry.example.com`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from modelstream.base.yamlfile import Place, YamlFile
from modelstream.errors import ConfigurationError

_PLACEHOLDER = re.compile(
    r"\bexample\.(com|net|org)\b|\.(example|invalid)\b(?=$|[:/])"  # names that nobody can have: RFC 2606
    r"|(?<=[/:@])(HOST|PORT|ORG|REPO|REGISTRY)\b|…"
)
_FOR = {
    "image": "the image that you have built and pushed (docs/cluster.md, step 1)",
    "source": "the address of your repository, which --engine remote needs",
}


def placeholders(file: Path, *, remote: bool) -> list[str]:
    """Return what is to be replaced in a file that `load_cluster` takes: where it stands, and by what.

    `source` counts only with `remote`: nothing else reads it.
    """
    read = YamlFile(file.read_text("utf-8"), str(file))
    return [
        f"{read.error(place, value, '')} → {_FOR.get(str(place[0]), 'what holds on your cluster')}"
        for place, value in _texts((), read.data)
        if _PLACEHOLDER.search(value) and (remote or place[0] != "source")
    ]


def refuse(found: list[str]) -> None:
    """Raise ConfigurationError if anything is to be replaced."""
    if found:
        are = "is a placeholder" if len(found) == 1 else "are placeholders"
        raise ConfigurationError(
            "\n".join([f"there {are} in the cluster's file, and nothing was deployed:", *found]),
            remedy="change " + ("this line" if len(found) == 1 else "these lines") + " and run the command again",
        )


def _texts(place: Place, value: object) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts((*place, str(name)), inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts((*place, index), inner)
