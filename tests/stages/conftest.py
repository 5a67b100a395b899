"""What a stage needs, for the tests of every stage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stages.harness import Harness


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    made = Harness(monkeypatch)
    yield made
    made.close()
