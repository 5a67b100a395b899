"""A use case of someone else's, from a file of events to served predictions: the steps of docs/use-case.md, as written.

It is also where a second use case is run to the end, so what is printed and written is searched for words of the one
that comes with the project.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import pandas as pd
import pytest

from modelstream.use_case.file import load_use_case, parse_use_case
from tests.end_to_end.test_run import ROOT, run
from tests.end_to_end.test_serve import serving, until
from tests.test_no_use_case_names import names_of, pattern

PAGE = (ROOT / "docs" / "use-case.md").read_text("utf-8")
EVENTS = ROOT / "tests" / "cases" / "new-use-case" / "loans.ndjson"
IN_SERVICE_SECONDS = 5.0
ANSWER = ["will_default", "will_default_probability", "model_version"]


def blocks(kind: str) -> list[str]:
    """Return the blocks of code of the section that the test walks."""
    section = PAGE[PAGE.index("## From a file of events") : PAGE.index("## What else you can change")]
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```", section, re.DOTALL | re.MULTILINE)
    return [dedent(text) for _, name, text in found if name == kind]


def commands() -> list[list[str]]:
    """Return the commands of the section, in their order."""
    lines = [line for block in blocks("") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


@dataclass
class Walked:
    """What came of the steps."""

    root: Path
    said: dict[str, str] = field(default_factory=dict)
    """What each command printed."""
    unanswered: pd.DataFrame = field(default_factory=pd.DataFrame)
    """The log of predictions before the first model."""
    refused: tuple[int, Any] = (0, "")
    answered: tuple[int, Any] = (0, "")
    seconds: float = 0.0
    """From the end of the training to the first answer."""

    @property
    def data(self) -> Path:
        return self.root / "data-loans"

    def run(self, name: str, *arguments: str) -> None:
        done = run(*arguments, root=self.root)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        self.said[name] = done.stdout + done.stderr


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walked]:
    """Walk the steps in a copy of the project; `serve` runs while the first model is trained, as the page says."""
    root = tmp_path_factory.mktemp("project")
    for name in ("functions", "use_cases", "assets/models"):
        shutil.copytree(ROOT / name, root / name)
    for name in ("pipeline.py", "project.yaml"):
        shutil.copy(ROOT / name, root)
    shutil.copy(EVENTS, root / "loans.ndjson")
    (root / "use_cases" / "loans.yaml").write_text(blocks("yaml")[0])
    project = (root / "project.yaml").read_text()
    assert project.count("use_case: use_cases/churn.yaml") == 1
    (root / "project.yaml").write_text(project.replace("use_cases/churn.yaml", "use_cases/loans.yaml"))
    walk = Walked(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("MODELSTREAM_REGISTRY", raising=False)
        steps = [step[2:] if step[0] == "python" else step for step in commands()]
        assert [step[0] for step in steps] == ["run", "peek", "explain", "serve", "train", "curl"]
        for step in steps[:3]:
            walk.run(step[0], *step)
        walk.run("status", "status", "--data", "data-loans")
        walk.unanswered = pd.read_parquet(walk.data / "inference")
        served, trained, curl = steps[3:]
        path, body = curl[1].removeprefix("localhost:8080"), curl[3].encode()
        with serving(walk.data, *served[1:], root=root) as service:
            until(lambda: "starting" not in str(service.ask(path, body)[1]), 90)
            walk.refused = service.ask(path, body)
            walk.run("train", *trained)
            begun = time.monotonic()
            until(lambda: service.ask(path, body)[0] == 200, IN_SERVICE_SECONDS)
            walk.seconds = time.monotonic() - begun
            walk.answered = service.ask(path, body)
            event = {"customer": "c43", "kind": "payment", "at": "2026-02-10T10:36:52", "amount": 57.65}
            assert service.ask("/events", json.dumps(event).encode())[0] == 202
            walk.said["http"] = str([service.ask(one)[1] for one in ("/", "/healthz", "/metrics", "/v2/models/loans")])
            service.stop()
        walk.run("explained", "explain", "c43", "--data", "data-loans")
        drift = run("drift", "--data", "data-loans", "--output", "drift.html", root=root)
        walk.said["drift"] = drift.stdout + drift.stderr
    yield walk


def test_events_on_the_page_are_of_the_use_case_on_the_page() -> None:
    use_case = parse_use_case(blocks("yaml")[0])
    for line in blocks("json")[0].splitlines():
        assert {*json.loads(line)} <= {*use_case.fields}


def test_profile_on_the_page_fits_the_use_case_on_the_page() -> None:
    small, profile = blocks("yaml")
    events = "events:\n  payment: {needs: [amount]}\n  closed: {}\n"
    fields = "defaulted: boolean}"
    assert events in small
    assert fields in small
    use_case = parse_use_case(small.replace(events, profile).replace(fields, "defaulted: boolean, country: text}"))
    assert use_case.profile is not None
    assert "signed_up" in use_case.row_schema.names


def test_first_run_keeps_every_vector_without_an_answer_and_says_what_to_do(walked: Walked) -> None:
    rows = walked.unanswered
    payments = sum(json.loads(line)["kind"] == "payment" for line in EVENTS.read_text().splitlines())
    assert len(rows) == payments
    assert rows[ANSWER].isna().all(axis=None)
    assert not rows[["payment_sum", "payment_count", "predicted_at"]].isna().any(axis=None)
    assert f"0 predictions  ({payments:,} vectors kept without one: no model yet → " in walked.said["run"]
    for command in ("run", "status"):
        assert "pipeline.py train --promote --data data-loans" in " ".join(walked.said[command].split())
    assert "assets/models/churn/1 is not used: it is the model churn, for other features" in walked.said["run"]


def test_request_without_a_model_is_told_to_wait_for_one(walked: Walked) -> None:
    status, answer = walked.refused
    assert status == 503
    assert "loans has no model yet" in answer["error"]


def test_running_pipeline_answers_with_the_first_model_that_is_promoted(walked: Walked) -> None:
    status, answer = walked.answered
    assert (status, answer["model_name"], answer["model_version"]) == (200, "loans", "1")
    assert walked.seconds <= IN_SERVICE_SECONDS
    rows = pd.read_parquet(walked.data / "inference")
    assert rows["model_version"].value_counts(dropna=False).to_dict() == {None: len(walked.unanswered), "1": 1}
    assert "no model yet" in walked.said["explain"]
    assert ", 1 prediction" in walked.said["explained"]
    assert f"Left out: {len(walked.unanswered):,} without a model." in " ".join(walked.said["drift"].split())


def test_no_word_of_the_shipped_use_case_is_in_what_another_prints_and_writes(walked: Walked) -> None:
    shipped, own = load_use_case(ROOT / "use_cases" / "churn.yaml"), parse_use_case(blocks("yaml")[0])
    words = (names_of(shipped) | {"player", "churner", "stayer", "game", "postcode"}) - names_of(own)
    forbidden = pattern(words)
    pages = {path.name: path for path in [*(walked.root / "artifacts").rglob("*"), walked.root / "drift.html"]}
    texts = walked.said | {
        name: path.read_text("utf-8")
        for name, path in pages.items()
        if path.suffix in (".md", ".html", ".json", ".yaml")
    }
    assert {"README.md", "report.html", "card.json", "model_spec.yaml", "drift.html"} <= {*texts}
    found = {
        f"{name}: {line.strip()[:200]}"
        for name, text in texts.items()
        for line in re.sub(r"data:image/[^\"')]*", "", text).splitlines()
        if forbidden.search(line) and "is not used: it is the model churn" not in line
    }
    assert not found, "\n".join(sorted(found))
    assert forbidden.search("after each of a player's bets")
    assert "Loan default" in texts["README.md"]
    assert "To say after each payment how likely it is that defaulted is true" in texts["README.md"]
