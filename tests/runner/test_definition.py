"""A data folder remembers what its data mean: a change of that is refused in words, and nothing else is."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import msgspec
import pytest

from modelstream.commands.view import View
from modelstream.errors import ConfigurationError
from modelstream.project import Project
from modelstream.runner.data_folder import open_folder, read_marker, require, settings_in
from modelstream.runner.definition import definition_of
from modelstream.runner.entries import MARKER
from modelstream.runner.training import training_environment
from modelstream.settings import from_environment
from modelstream.stores import Stores
from tests.runner.folders import PROJECT
from tests.runner.test_data_folder import changed, opened

ROOT = Path(__file__).parents[2]
USE_CASE, WIRING = "use_cases/churn.yaml", "project.yaml"
SAID = [
    (
        USE_CASE,
        [("for: 24h", "for: 48h")],
        "window: 24h before, 48h now (use_cases/churn.yaml: line {for: 24h}})",
    ),
    (
        USE_CASE,
        [("at: profile}", "at: profile, otherwise: 5}")],
        "features.socioeconomic_idx.otherwise: 0 before, 5 now (use_cases/churn.yaml: line {at: profile}})",
    ),
    (USE_CASE, [("predict_on: [bet, win]", "predict_on: [win]")], "predict_on: bet, win before, win now"),
    (USE_CASE, [("positive: 1", "positive: 2")], "label.positive: 1 before, 2 now"),
    (USE_CASE, [("  city: text\n", "")], "fields.city: text before, none now (use_cases/churn.yaml: line {fields:})"),
    (WIRING, [("log: events}", "log: raw}"), ("[events, inf", "[raw, inf")], "wiring.event-handler.log: events before"),
    (WIRING, [("serving", "vectors"), ("kind: vectors", "kind: serving")], "wiring.model-server.reads: serving before"),
    (WIRING, [("table: features", "table: rows"), ("nt, features]", "nt, rows]")], "table: features before, rows now"),
]


@pytest.mark.parametrize(("file", "replaced", "said"), SAID, ids=[said for *_, said in SAID])
def test_another_meaning_is_refused_with_the_difference_and_its_line(
    tmp_path: Path, file: str, replaced: list[tuple[str, str]], said: str
) -> None:
    data, project = tmp_path / "data", changed(tmp_path / "project", file, *replaced)
    said = re.sub(r"\{(.*)\}", lambda found: str(line_of(found[1])), said)
    made = opened(data)
    for look in (
        lambda: opened(data, project=project),
        lambda: require(data, project),
        lambda: View(data, project),  # replay, explain, drift, table, peek, status
        lambda: training_environment(project, data),
    ):
        with pytest.raises(ConfigurationError) as told:
            look()
        assert f"the data in {data} were made with another definition:" in str(told.value)
        assert said in str(told.value)
        for way in ("put it back", "another --data", "run --fresh"):
            assert way in told.value.remedy
    assert read_marker(data) == made
    assert opened(data) == made, "put back"
    assert opened(data, project=project, fresh=True).definition == definition_of(project)


def line_of(text: str) -> int:
    """Return the line of the use-case file that has a text."""
    lines = (ROOT / USE_CASE).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.split("#")[0].rstrip().endswith(text))


TIME = "time: {field: event_time, ahead: unlimited}\n"
SAME = [
    (USE_CASE, [("title: Churn", "title: Leaving"), ("  A player registers", "  A gambler registers")]),
    (USE_CASE, [("# After each counted event", "# Whenever an event counts")]),
    (USE_CASE, [(f"key: user_id\n{TIME}", f"{TIME}key: user_id\n")]),
    (WIRING, [("shards: 8 ", "shards: 4 ")]),
    (WIRING, [("description: Events", "description: Some events")]),
    (
        WIRING,
        [("      training: {}\n", ""), ("      data-generator: {w", "      training: {}\n      data-generator: {w")],
    ),
    (WIRING, [("[enrichment, features]", "[features, enrichment]")]),
]


@pytest.mark.parametrize(("file", "replaced"), SAME, ids=str)
def test_what_has_no_meaning_may_change(tmp_path: Path, file: str, replaced: list[tuple[str, str]]) -> None:
    data = tmp_path / "data"
    made = opened(data)
    assert opened(data, project=changed(tmp_path / "project", file, *replaced)) == made


def test_all_differences_are_listed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    opened(data)
    project = changed(tmp_path / "project", USE_CASE, ("for: 24h", "for: 48h"), ("threshold: 0.5", "threshold: 0.6"))
    with pytest.raises(ConfigurationError) as told:
        opened(data, project=project)
    first, *lines = str(told.value).splitlines()
    assert first.endswith("another definition:")
    assert [line.split(" (")[0].strip() for line in lines] == [
        "model.threshold: 0.5 before, 0.6 now",
        "window: 24h before, 48h now",
    ]


def older(data: Path) -> None:
    """Make a folder what an earlier version would have made."""
    opened(data)
    marker = json.loads((data / MARKER).read_text())
    del marker["definition"]
    (data / MARKER).write_text(json.dumps(marker))


def test_folder_of_an_earlier_version_is_taken_over_once_with_a_note(tmp_path: Path) -> None:
    data = tmp_path / "data"
    older(data)
    assert require(data, PROJECT).definition is None, "looking changes nothing"
    notes = []
    for _ in range(2):
        folder = open_folder(data, PROJECT)
        os.close(folder.lock)
        notes.append(folder.note)
    assert "was made by an earlier version" in notes[0] and notes[1] == ""
    found = read_marker(data)
    assert found is not None and found.definition == definition_of(PROJECT)
    with pytest.raises(ConfigurationError, match="window: 24h before, 48h now"):
        opened(data, project=changed(tmp_path / "project", USE_CASE, ("for: 24h", "for: 48h")))


def test_folder_of_an_earlier_version_that_is_refused_is_not_taken_over(tmp_path: Path) -> None:
    older(tmp_path)
    with pytest.raises(ConfigurationError, match="made with 8 shards"):
        opened(tmp_path, shards=4)
    assert require(tmp_path, PROJECT).definition is None


def test_function_that_starts_after_the_use_case_has_changed_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "data")
    project = changed(tmp_path / "project", USE_CASE, ("title: Churn", "title: Leaving"))
    settings = settings_in(tmp_path / "data", require(tmp_path / "data", project), project, "stream-to-features")
    with Stores.of(from_environment(settings.environment())) as stores:
        assert stores.use_case.title.startswith("Leaving"), "the title may change"
    project.use_case_file.write_text(project.use_case_file.read_text().replace("for: 24h", "for: 48h"))
    with (
        Stores.of(settings) as stores,
        pytest.raises(ConfigurationError, match="has changed its meaning since") as told,
    ):
        _ = stores.use_case
    assert "start it again" in told.value.remedy


def test_definition_that_a_newer_version_stored_is_told(tmp_path: Path) -> None:
    opened(tmp_path)
    marker = json.loads((tmp_path / MARKER).read_text())
    marker["definition"]["hash"] = "0"
    marker["definition"]["use_case"]["clock"] = "arrival"
    (tmp_path / MARKER).write_text(json.dumps(marker))
    with pytest.raises(ConfigurationError, match="stored by another version of modelstream"):
        opened(tmp_path)


def named(project: Project) -> dict[str, set[str]]:
    return definition_of(project).names


def test_names_of_what_the_functions_use_are_known() -> None:
    params = PROJECT.params
    assert named(PROJECT) == {kind: {*getattr(params, kind)} for kind in ("streams", "tables", "logs")}
    encoded = msgspec.json.encode(definition_of(PROJECT))
    assert msgspec.json.decode(encoded, type=type(definition_of(PROJECT))) == definition_of(PROJECT)
