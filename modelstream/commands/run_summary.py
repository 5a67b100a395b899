"""Prints what a run did, what its folder holds, and how to look at both, for a person."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from modelstream.base.command_line import pipeline, python
from modelstream.base.words import counted, things
from modelstream.commands.output import no_model_yet, short_path, warned
from modelstream.project import Project
from modelstream.runner.summary import Summary
from modelstream.use_case.declared import UseCase
from modelstream.use_case.file import load_use_case
from modelstream.use_case.reasons import explained


def print_summary(summary: Summary, project: Project) -> None:
    """Print what came of a run, what the folder holds if that is more, and how to look at it, for a person."""
    use_case = load_use_case(project.use_case_file)
    Console(soft_wrap=True, highlight=False).print(
        "\n".join([*_did(summary, use_case), *_folder(summary), *_hints(summary, project)])
    )


def _did(summary: Summary, use_case: UseCase) -> list[str]:
    """Return what the run did."""
    not_counted = ", ".join(f"{number:,} {reason}" for reason, number in summary.not_counted.items())
    versions = [f"{number:,} by version {version}" for version, number in summary.predictions_by_version.items()]
    if len(versions) == 1:
        versions = [f"by version {next(iter(summary.predictions_by_version))}"]
    by = [f"{', '.join(versions)} of the model"] if versions else []
    if summary.unanswered:
        before = "from before there was a model"
        why = f", {before}" if summary.model_version else f": {escape(no_model_yet())}"
        by.append(f"{counted(summary.unanswered, 'vector')} kept without one{why}")
    lines = [
        _line(summary.events, "event", f"{not_counted}: no vector" if not_counted else ""),
        *(f"{'':15}{line}" for line in explained(summary.not_counted, use_case)),
        _line(summary.vectors, "feature vector"),
        _line(summary.predictions, "prediction", "; ".join(by)),
        _line(summary.dead_letters, "dead letter", _reason(summary)),
        *([_line(summary.lookups, "lookup", _found(summary))] if summary.lookups else []),
        f"[bold]{summary.seconds:>12,.1f}[/] seconds"
        + (f", {summary.events_per_second:,.0f} events a second" if summary.events_per_second else ": nothing new")
        + f", after {summary.startup_seconds:.1f} to start; {summary.peak_rss_mb:,.0f} MB in all processes",
    ]
    if isinstance(summary.delay_ms, dict) and summary.delay_ms:
        p50, p99 = summary.delay_ms["p50"], summary.delay_ms["p99"]
        lines.append(f"[bold]{p50:>12,.1f}[/] ms from event to stored prediction (median; p99 {p99:,.1f} ms)")
    if summary.unfinished_line:
        lines.append(
            f"Line {summary.unfinished_line} is unfinished: it has no line break, and is not whole JSON. "
            "Run again when it is complete."
        )
    elif summary.input_is_empty:
        lines.append("[bold]Nothing could be read[/]: the input is empty, or has only blank lines.")
    if summary.nothing_read and summary.dead_letters:
        lines.append("[bold]Nothing could be read[/]: there is no event in the input.")
    return lines


def _line(number: int, thing: str, told: str = "") -> str:
    """Return a line of numbers that stand below each other, and what is told of one in brackets."""
    return f"[bold]{number:>12,}[/] {things(number, thing)}" + (f"  ({told})" if told else "")


def _reason(summary: Summary) -> str:
    """Return the most frequent reason of dead letters."""
    if not summary.dead_letter_reasons:
        return ""
    reason, number = next(iter(summary.dead_letter_reasons.items()))
    often = f"{counted(number, 'time')}: " if number < summary.dead_letters else ""
    return escape(f"{often}{reason}")


def _folder(summary: Summary) -> list[str]:
    """Return what the folder holds, if it holds more than what the run did."""
    held = summary.folder
    if (held.events, held.predictions, held.dead_letters) == (
        summary.events,
        summary.predictions,
        summary.dead_letters,
    ):
        return []
    without = f" ({counted(held.unanswered, 'vector')} without one)" if held.unanswered else ""
    return [
        f"{escape(short_path(summary.data))} now holds {counted(held.events, 'event')}, "
        f"{counted(held.vectors, 'feature vector')}, {counted(held.predictions, 'prediction')}{without} and "
        f"{counted(held.dead_letters, 'dead letter')}, of all runs."
    ]


def _hints(summary: Summary, project: Project) -> list[str]:
    """Return how to look at what there is."""
    logs = escape(short_path(summary.logs))
    names, predictions = project.names, project.predictions
    look = f'import pandas; print(pandas.read_parquet("{logs}/{names.inference_log}").tail())'
    lines = [part for warning in summary.warnings for part in ("", warned(warning))] + [""]
    if summary.dead_letters:
        lines += ["See why lines became dead letters:", f"  {escape(pipeline(f'peek {names.dead_letters}'))}"]
    if summary.folder.events and not summary.nothing_read:
        lines += [
            f"The results are Parquet files in {logs}/{names.events_log} and {logs}/{names.inference_log}. "
            "Look at them:",
            f"  {escape(python())} -c '{look}'",
            f"  {escape(pipeline(f'table {names.features}'))}",
            f"  {escape(pipeline(f'peek {predictions}'))}",
        ]
    return lines if len(lines) > 1 else []


def _found(summary: Summary) -> str:
    return f"{summary.lookup_misses:,} found nothing" if summary.lookup_misses else "all found a value"
