"""The environment of the peers scores with what the pipeline scores with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", ["numpy", "onnxruntime"])
def test_both_environments_have_the_same_version(package: str) -> None:
    named = [
        re.findall(rf"^{package}==(\S+)", (ROOT / name).read_text("utf-8"), re.MULTILINE)
        for name in ("requirements.txt", "requirements-bench.txt")
    ]
    assert named[0] == named[1]
    assert len(named[0]) == 1
