"""Every block of the README and the docs is executed as it is written, or compared, or says below why not.

A command line that is new in the docs is executed without a word here. Files and figures are small: what `make run`
processes is replaced by some hundred users, and the lines find the files that they name.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "tests" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GOLDEN = ROOT / "tests" / "golden"

SUMMARY = "2,002,000 events"
"""The beginning of what a run prints at its end."""
COMPARED = {
    ("README.md", SUMMARY): "here, with the summary of a small run",
    ("use-case.md", '{"customer": "c43"'): "tests/end_to_end/test_new_use_case.py",
    ("use-case.md", "key: user_id"): "tests/stages/test_envelopes.py",
    ("cluster-plans.md", "The project modelstream"): "tests/cluster/test_plan.py",
    ("cluster-plans.md", "project: modelstream"): "tests/cluster/test_plan.py",
    ("vocabulary.md", "features:"): "tests/use_case/test_vocabulary_page.py",
    ("vocabulary.md", "time:"): "tests/use_case/test_vocabulary_page.py",
    ("vocabulary.md", "window:"): "tests/use_case/test_vocabulary_page.py",
    ("vocabulary.md", "category,value"): "a small table; tests/use_case/test_version_2.py reads one",
    ("vocabulary.md", "event "): "times on a clock, in words",
}
"""Blocks that are no commands, by their page and the beginning of their text, and where they are compared."""
MINUTES = "minutes; it is what CI does"
REASONS = {
    ("README.md", "make run"): "two million events; the other lines here work on a smaller run",
    ("README.md", "make test"): MINUTES,
    ("tests/README.md", "make test"): MINUTES,
    ("tests/README.md", ".venv/bin/python -m pytest"): "tests in a test",
    ("README.md", "python pipeline.py run --fresh"): "two million events, which --fresh lets begin anew",
    (
        "README.md",
        "python pipeline.py serve",
    ): "on its usual port; tests/end_to_end/test_serve.py does it on a free one",
    ("README.md", "curl localhost:8080"): "the same",
    ("README.md", "python pipeline.py run --data data-kafka"): "Kafka and Redis: tests/end_to_end/test_kafka_run.py",
    ("operations.md", "curl localhost:8080/v2"): "tests/test_project.py sends its text",
    ("operations.md", "import numpy as np\nimport tritonclient"): "tests/test_project.py runs it in .venv-triton",
    ("architecture.md", "modelstream/"): "a list of folders: tests/test_imports.py",
}
"""Lines and blocks that are neither, by their page and the beginning of their text, and why."""
STATUS = {"drift": (0, 1, 2)}
"""Exit statuses that are right, of commands whose status is a verdict."""

COMMAND = re.compile(r"(python|make|curl|export|uv|\.venv/bin/python)\b")


@dataclass(frozen=True)
class Piece:
    """A command line of a block, or a block that is something else."""

    page: str
    language: str
    text: str

    def is_command(self) -> bool:
        return self.language == "" and bool(COMMAND.match(self.text))

    def within(self, known: dict[tuple[str, str], str]) -> bool:
        """Tell whether a table has an entry for it."""
        return any(self.page == page and self.text.startswith(beginning) for page, beginning in known)


def pieces(page: str, text: str) -> list[Piece]:
    found = []
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        lines = [re.sub(r"\s+#.*", "", line) for line in block.splitlines() if line.strip()]
        if language == "" and all(COMMAND.match(line) for line in lines):
            found += [Piece(page, "", line) for line in lines]
        else:
            found.append(Piece(page, language, block.strip()))
    return found


def named(page: Path) -> str:
    """Return the name of a page in the tables."""
    return page.name if page.parent != ROOT / "tests" else "tests/README.md"


EVERY = [piece for page in PAGES for piece in pieces(named(page), page.read_text("utf-8"))]
EXECUTED = {
    piece.text: piece
    for piece in EVERY
    if (piece.text.startswith("python pipeline.py ") or piece.language == "python") and not piece.within(REASONS)
}
"""What several pages say is executed once."""


def test_every_block_is_executed_or_compared_or_has_a_reason() -> None:
    told = [piece for piece in EVERY if piece.within(REASONS) or piece.within(COMPARED) or piece.text in EXECUTED]
    assert [piece for piece in EVERY if piece not in told] == [], "give it a reason, if it can't be executed"
    unused = [key for key in [*REASONS, *COMPARED] if not any(piece.within({key: ""}) for piece in EVERY)]
    assert unused == [], "it is no longer in the docs"


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line as in an activated environment."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    told = os.environ | {"PATH": path, "MODELSTREAM_REGISTRY": str(folder / "artifacts" / "models"), "COLUMNS": "120"}
    return subprocess.run(command, shell=True, cwd=folder, env=told, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the repository, with the files that README's lines name."""
    folder = tmp_path_factory.mktemp("project")
    for path in ("pipeline.py", "modelstream", "functions", "use_cases", "clusters", "docs"):
        (folder / path).symlink_to(ROOT / path)
    lines = (GOLDEN / "reference_events.ndjson").read_bytes().splitlines(keepends=True)
    (folder / "events.ndjson").write_bytes(b"".join(lines[:500]))
    shutil.copy(GOLDEN / "enrichment.csv", folder / "postcodes.csv")
    return folder


def test_blocks_do_what_the_docs_say(folder: Path) -> None:
    first = shell("python pipeline.py run --users 300 --events-per-user 60 --quiet", folder)
    assert first.returncode == 0, first.stderr
    assert_same_lines(first.stdout, next(piece.text for piece in EVERY if piece.text.startswith(SUMMARY)))
    listed = shell("python pipeline.py table features --format json", folder)
    user = json.loads(listed.stdout)[0]["user_id"]
    failed = []
    for piece in EXECUTED.values():
        command = piece.text if piece.is_command() else f"python - <<'END'\n{piece.text}\nEND"
        done = shell(re.sub(r"\bUSER\b", user, command), folder)
        right = next((status for name, status in STATUS.items() if f"pipeline.py {name}" in command), (0,))
        if done.returncode not in right or "Traceback" in done.stderr:
            failed.append(f"{piece.page}: {piece.text}\n{done.returncode}: {done.stdout[-500:]}{done.stderr[-1500:]}")
    assert failed == [], "\n\n".join(failed)
    assert_hints_work(first.stdout, folder)


def assert_same_lines(printed: str, written: str) -> None:
    """Compare what a run prints with the docs, whatever the figures."""

    def shapes(text: str) -> list[str]:
        return [re.sub(r"[\d,.]*\d", "N", line).strip() for line in text.splitlines() if line.strip()]

    expected = shapes(written)
    assert shapes(printed)[: len(expected)] == expected


def assert_hints_work(printed: str, folder: Path) -> None:
    """Type what a run says at its end."""
    hints = [line.strip() for line in printed.splitlines() if line.startswith("  python ")]
    assert len(hints) >= 3
    for hint in hints:
        done = shell(hint, folder)
        assert done.returncode == 0, hint + done.stderr


def test_pieces_are_command_lines_or_whole_blocks() -> None:
    text = "a\n```\npython x.py   # why\nmake y\n```\nb\n```python\nimport z\n```\n```\n12 events\nc\n```\n"
    expected = [("", "python x.py"), ("", "make y"), ("python", "import z"), ("", "12 events\nc")]
    assert [(piece.language, piece.text) for piece in pieces("p", text)] == expected
    assert [piece.is_command() for piece in pieces("p", text)] == [True, True, False, False]
