"""The command line as a whole: its help, the command that may be left out, and what is told of a mistake in it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import pipeline as command_line
from modelstream.cluster import deploy as cluster
from modelstream.cluster.options import WorkflowOptions
from tests.command_line import pipeline

ROOT = Path(__file__).parents[2]
COMMANDS = typer.main.get_command(command_line.app)
HEAVY = ("numpy", "pyarrow", "pandas", "numba", "onnxruntime", "sklearn", "mlrun", "starlette", "rich", "yaml")


def commands(command: Any = COMMANDS, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command and group, by its words."""
    yield name, command
    for word, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {word}".strip())


EVERY = dict(commands())


def example_of(command: Any) -> list[str]:
    """Return the arguments of the example in a command's help."""
    (line,) = re.findall(r"^Example: \S*python pipeline\.py (.+)$", command.help, re.MULTILINE)
    return shlex.split(line)


def called_by(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Return the command that a command line runs, and with which values. Raises UsageError."""
    called: list[tuple[str, dict[str, Any]]] = []

    def note(words: str) -> Callable[..., None]:
        return lambda **values: called.append((words, values))

    for words, command in EVERY.items():
        monkeypatch.setattr(command, "callback", note(words))
    COMMANDS.main(command_line.completed(arguments), standalone_mode=False)
    return called[-1]


@pytest.mark.parametrize("name", EVERY)
def test_help_has_an_example_that_runs_the_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called, _ = called_by(example_of(EVERY[name]), monkeypatch)
    assert called == {"": "run", "table": "table show"}.get(name, name)


@pytest.mark.parametrize("name", EVERY)
def test_help_fits_a_narrow_terminal_and_is_printed_on_two_ways_of_asking(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert pipeline(*name.split(), "--help") == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert pipeline(*name.split(), "-h") == 0
    assert capsys.readouterr().out == printed
    options = [option for parameter in EVERY[name].params for option in parameter.opts if option.startswith("--")]
    assert [option for option in options if option not in printed] == []


def test_help_imports_no_more_than_it_prints() -> None:
    code = f"import sys, pipeline; print(*(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_missing_environment_is_told() -> None:
    done = subprocess.run([sys.executable, "-S", "pipeline.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "run `make env`" in done.stderr and "Traceback" not in done.stderr


# What may be left out.


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "run"),
        (["--users", "10"], "run"),
        (["-q"], "run"),
        (["table", "features"], "table show"),
        (["table", "--key", "7", "features"], "table show"),
        (["table", "show", "enrichment"], "table show"),
        (["table", "load", "enrichment", "postcodes.csv"], "table load"),
        (["models"], "models"),
        (["models", "list"], "models list"),
    ],
)
def test_command_that_is_left_out_is_known(
    arguments: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert called_by(arguments, monkeypatch)[0] == expected


def test_models_alone_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODELSTREAM_REGISTRY", str(tmp_path))
    assert pipeline("models") == 0
    alone = capsys.readouterr().out
    assert "with the project" in alone
    assert pipeline("models", "list") == 0
    assert capsys.readouterr().out == alone


# Mistakes.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stauts"], "No such command 'stauts'. Did you mean 'status'?"),
        (["table", "laod", "enrichment", "codes.csv"], "No such command 'laod'. Did you mean 'load'?"),
        (["models", "promot", "2"], "No such command 'promot'. Did you mean 'promote'?"),
        (["peek", "generated", "--lats", "3"], "No such option: --lats (Possible options: --data, --last)"),
        (["undeploy", "--config", "clusters/kafka.yaml", "--data"], "No such option: --data"),
        (["run", "--input", "x", "--seed", "1"], "--seed can't go with --input"),
        (["run", "--input", "x", "--users", "5", "--end", "2026-01-01"], "--users, --end can't go with --input"),
    ],
)
def test_mistake_in_the_command_line_is_told(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert pipeline(*arguments) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "--help' for help" in told


def test_options_of_generated_events_go_with_input_when_they_are_not_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pipeline("run", "--input", tmp_path / "none.ndjson", "--data", tmp_path / "data") == 1
    assert "none.ndjson" in capsys.readouterr().err


# Deploying and undeploying.

DEPLOYED: dict[str, Any] = {
    "file": Path("clusters/kafka.yaml"),
    "options": WorkflowOptions(),
    "engine": "kfp",
    "secrets_from_env": False,
    "dry_run": False,
    "output": Path("build"),
    "diff": False,
    "folder": ROOT,
}


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ([], {}),
        (["--dry-run", "--output", "here"], {"dry_run": True, "output": Path("here")}),
        (["--diff"], {"diff": True}),
        (["--engine", "local"], {"engine": "local"}),
        (
            ["--generate", "--train", "--model-version", "3"],
            {"options": WorkflowOptions(generate=True, train=True, model_version="3")},
        ),
    ],
)
def test_deploy_hands_on_what_it_is_told(
    options: list[str],
    changed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[dict[str, Any]] = []

    def deploy(file: Path, workflow_options: WorkflowOptions, **given: Any) -> list[str]:
        asked.append({"file": file, "options": workflow_options, **given})
        return ["first", "second"]

    monkeypatch.setattr(cluster, "deploy", deploy)
    assert pipeline("deploy", "--config", "clusters/kafka.yaml", *options) == 0
    assert asked == [DEPLOYED | changed]
    assert capsys.readouterr().out == "first\nsecond\n"


@pytest.mark.parametrize("options", [[], ["--delete-data"]])
def test_undeploy_deletes_data_when_it_is_told_to(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, Any]] = []

    def undeploy(file: Path, **given: Any) -> list[str]:
        asked.append({"file": file, **given})
        return ["gone"]

    monkeypatch.setattr(cluster, "undeploy", undeploy)
    assert pipeline("undeploy", "--config", "clusters/kafka.yaml", *options) == 0
    assert asked == [{"file": Path("clusters/kafka.yaml"), "delete_data": bool(options), "folder": ROOT}]
    assert capsys.readouterr().out == "gone\n"


@pytest.mark.parametrize("command", ["deploy", "undeploy"])
def test_ctrl_c_says_what_is_done_and_how_to_go_on(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: Any, **__: Any) -> list[str]:
        raise cluster.Interrupted("a is deployed", remedy="run the same command again")

    monkeypatch.setattr(cluster, command, stopped)
    assert pipeline(command, "--config", "clusters/kafka.yaml") == 130
    assert capsys.readouterr().err == "Interrupted: a is deployed.\n→ run the same command again\n"


def test_diff_needs_the_server_that_a_dry_run_does_without(capsys: pytest.CaptureFixture[str]) -> None:
    assert pipeline("deploy", "--config", "clusters/kafka.yaml", "--dry-run", "--diff") == 2
    assert "give one of" in capsys.readouterr().err
