"""An input is sent once, whatever interrupts it, and what can't be sent is said."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from modelstream import notebooks
from modelstream.errors import ConfigurationError, UnavailableError
from modelstream.events.parsing import LineParser
from modelstream.messages.codec import decode
from modelstream.messages.identity import Watermarks, buckets_of
from modelstream.source.sender import Sent
from modelstream.stages import data_generator
from modelstream.stages.data_generator import SourceOptions, send
from modelstream.streams import Streams, open_streams
from modelstream.streams.sqlite import SqliteStreams
from modelstream.tables import Tables, open_tables
from modelstream.use_case.file import load_use_case

ROOT = Path(__file__).parents[2]
NOTEBOOK = notebooks.load(ROOT / "functions" / "data-generator.ipynb")
USE_CASE = load_use_case(ROOT / "use_cases" / "churn.yaml")
END = "2026-11-20 12:00:00"
SHARDS = 8


class Job:
    """A job as a platform runs it: its context, and the folder with streams and tables."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results: dict[str, Any] = {}
        self.log: list[str] = []
        self.told: list[tuple[int, int, str]] = []
        self.stop_after = 1 << 60
        self.context = SimpleNamespace(
            logger=SimpleNamespace(info=self.log.append, warn=self.log.append),
            log_result=self.results.__setitem__,
            progress=self.progress,
            stopped=SimpleNamespace(is_set=lambda: bool(self.told and self.told[-1][0] >= self.stop_after)),
        )

    def progress(self, lines: int, total: int = 0, held: str = "") -> None:
        self.told.append((lines, total, held))

    @property
    def streams(self) -> Streams:
        return open_streams(f"sqlite://{self.folder}/streams")

    @property
    def tables(self) -> Tables:
        return open_tables(f"sqlite://{self.folder}/tables")

    def send(self, **options: Any) -> Sent:
        self.told.clear()
        return send(self.context, NOTEBOOK.DISTRIBUTIONS, SourceOptions(**options))

    def received(self) -> list[tuple[str, int, bytes]]:
        """What a consumer takes: shard by shard, each identity once."""
        taken = []
        with self.streams as streams:
            for shard in range(SHARDS):
                marks = Watermarks()
                for message in streams.read("generated", shard, 0, 10_000, 1 << 30):
                    rows = decode(message.body)
                    lines = rows.batch["line"].to_pylist()
                    positions = rows.batch["position"].to_numpy()
                    events = LineParser(USE_CASE).parse(lines, positions, 1_800_000_000_000_000).events
                    keep = marks.advance(rows.origin, positions, buckets_of(events["user_id"]))
                    taken += [(rows.origin, int(positions[i]), lines[i]) for i in np.flatnonzero(keep)]
        return sorted(taken)

    def messages(self) -> int:
        with self.streams as streams:
            return sum(streams.range("generated", shard)[1] for shard in range(SHARDS))


def begun(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Return a job on a new folder, which the environment names from now on."""
    values = {
        "FUNCTION": "data-generator",
        "USE_CASE": str(ROOT / "use_cases" / "churn.yaml"),
        "STREAMS": f"sqlite://{folder}/streams",
        "TABLES": f"sqlite://{folder}/tables",
        "WRITES": "generated",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"MODELSTREAM_{name}", value)
    monkeypatch.delenv("MODELSTREAM_READS", raising=False)
    job = Job(folder)
    with job.streams as streams:
        streams.create("generated", SHARDS)
    return job


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    return begun(tmp_path, monkeypatch)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "events.ndjson"


def event(number: int) -> bytes:
    return b'{"user_id": "u%d", "event_type": "bet", "event_time": "2026-01-01 00:00:00", "bet_amount": 1}' % number


def origins(rows: list[tuple[str, int, bytes]]) -> dict[str, list[int]]:
    result: dict[str, list[int]] = {}
    for origin, position, _ in rows:
        result.setdefault(origin, []).append(position)
    return result


SOME: dict[str, Any] = {"users": 20, "events_per_user": 30, "end": END}
ORIGIN = "generator:seed=1,users=20,events_per_user=30"


# Generated events.


def test_generated_events_and_their_table_are_sent(job: Job) -> None:
    sent = job.send(**SOME)
    assert origins(job.received()) == {ORIGIN: list(range(620))}
    assert (sent.lines, sent.finished) == (620, True)
    assert job.results == {"lines": 620, "messages": job.messages(), "read": 620, "finished": 1}
    assert job.told[-1] == (620, 620, "")
    with job.tables as tables:
        assert tables.lookup("enrichment").count() == 89_999
        (known,) = tables.inputs().all()
    assert (known.kind, known.lines, known.finished) == ("generator", 620, True)
    assert known.options["end"] == END


def test_the_notebook_runs_the_same(job: Job) -> None:
    NOTEBOOK.main(job.context, **SOME)
    assert len(job.received()) == 620


def test_generating_again_sends_nothing_more(job: Job) -> None:
    job.send(**SOME)
    before = job.messages()
    assert job.send(**SOME) == Sent(0, 0, True, read=620)
    assert job.send(**{**SOME, "end": None}) == Sent(0, 0, True, read=620)
    assert job.messages() == before


@pytest.mark.parametrize(("option", "value"), [("seed", 2), ("users", 30), ("events_per_user", 31)])
def test_generating_other_events_into_the_same_folder_is_refused_and_sends_nothing(
    job: Job, option: str, value: int
) -> None:
    job.send(**SOME)
    before = job.messages()
    shown = option.replace("_", "-")
    with pytest.raises(ConfigurationError, match=f"were generated with --{shown} .*, not --{shown} {value}") as told:
        job.send(**{**SOME, option: value})
    assert "give --users 20 --events-per-user 30 --seed 1 to go on with them" in told.value.remedy
    assert job.messages() == before
    with job.tables as tables:
        assert [one.origin for one in tables.inputs().all()] == [ORIGIN]


def test_generated_events_and_those_of_a_file_are_not_mixed(
    job: Job, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_bytes(event(0))
    job.send(**SOME)
    before = job.messages()
    for source in (str(file), "-"):
        with pytest.raises(
            ConfigurationError, match=r"were generated \(--users 20 .*your own would be mixed with them"
        ):
            job.send(input=source)
    assert job.messages() == before
    other = begun(file.parent / "other", monkeypatch)
    other.send(input=str(file))
    with pytest.raises(ConfigurationError, match=f"came from {file}: generated ones would be mixed") as told:
        other.send(**SOME)
    assert "--input" in told.value.remedy
    assert other.messages() == 1
    with other.tables as tables:
        assert tables.lookup("enrichment").count() == 0, "refused before the table was loaded"


def test_a_stopped_run_goes_on_with_the_same_events(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_generator, "_now", lambda: datetime(2026, 11, 20, 12, tzinfo=UTC))
    monkeypatch.setattr("modelstream.source.sender.MOST_BEHIND", 0.01)
    job.stop_after = 100
    sent = job.send(**{**SOME, "end": None}, rate=6000.0)
    assert 100 <= sent.lines < 620
    assert not sent.finished
    monkeypatch.setattr(data_generator, "_now", lambda: datetime(2027, 1, 1, tzinfo=UTC))
    job.stop_after = 1 << 60
    rest = job.send(**{**SOME, "end": None})
    assert rest.lines == 620 - sent.lines
    interrupted = job.received()
    other = tmp_path / "other"
    monkeypatch.setenv("MODELSTREAM_STREAMS", f"sqlite://{other}/streams")
    monkeypatch.setenv("MODELSTREAM_TABLES", f"sqlite://{other}/tables")
    whole = Job(other)
    with whole.streams as streams:
        streams.create("generated", SHARDS)
    whole.send(**SOME)
    assert interrupted == whole.received()


def test_another_end_is_refused(job: Job) -> None:
    job.send(**SOME)
    with pytest.raises(ConfigurationError, match=f"end at {END}, not at 2026-11-21 00:00:00") as refused:
        job.send(**{**SOME, "end": "2026-11-21T00:00"})
    assert "--fresh" in refused.value.remedy


def test_changed_distributions_are_refused(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.send(**SOME)
    monkeypatch.setattr("modelstream.source.generator.POOL", 900)
    with pytest.raises(ConfigurationError, match="distributions have changed"):
        job.send(**SOME)


@pytest.mark.parametrize("end", ["yesterday", "2026-13-01 00:00:00", "1969-01-01 00:00:00", ""])
def test_an_end_that_is_no_time_is_refused(job: Job, end: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a time"):
        job.send(**{**SOME, "end": end})


def test_generated_events_end_now_at_a_whole_second(job: Job) -> None:
    before = datetime.now(UTC).replace(microsecond=0, tzinfo=None)
    job.send(**{**SOME, "end": None})
    with job.tables as tables:
        end = datetime.fromisoformat(tables.inputs().all()[0].options["end"])
    assert before <= end <= datetime.now(UTC).replace(tzinfo=None)
    assert end.microsecond == 0


# Files.


@pytest.mark.parametrize("blank", [b"", b"\n\n", b" \r\n\t\n"])
def test_nothing_is_read_of_blank_lines_until_there_is_an_event(job: Job, tmp_path: Path, blank: bytes) -> None:
    path = tmp_path / "blank.ndjson"
    path.write_bytes(blank)
    job.send(input=str(path))
    assert job.results["read"] == 0
    path.write_bytes(blank + event(1) + b"\n")
    for _ in range(2):
        job.send(input=str(path))
        assert job.results["read"] == blank.count(b"\n") + 1


def test_a_file_is_sent_and_when_it_grew_the_rest(job: Job, file: Path) -> None:
    file.write_bytes(b"\n".join(event(i) for i in range(500)) + b"\n")
    assert job.send(input=str(file)).lines == 500
    with file.open("ab") as more:
        more.write(b"\n" + event(501))
    assert job.send(input=str(file)).lines == 1
    assert [(position, line) for _, position, line in job.received()] == [
        *((i, event(i)) for i in range(500)),
        (501, event(501)),
    ]
    assert set(origins(job.received())) == {str(file)}
    assert job.told[-1] == (1, 1, ""), "of a file it is estimated how many lines are to come, and known at its end"
    with file.open("ab") as more:
        more.write(b'\n{"user_id": "u')
    sent = job.send(input=str(file))
    assert (sent.lines, sent.finished, sent.unfinished) == (0, False, 503)
    assert job.results["unfinished"] == 503


def killed(when: str, call: int, method: Callable[..., Any]) -> Callable[..., Any]:
    """A method whose process is gone before its call number `call` did anything, or right after it did."""
    calls = iter(range(1 << 60))

    def called(*arguments: Any) -> Any:
        number = next(calls)
        if number == call and when == "before":
            raise KeyboardInterrupt
        result = method(*arguments)
        if number == call:
            raise KeyboardInterrupt
        return result

    return called


@pytest.mark.parametrize("step", ["append", "save_progress"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", [0, 1, 5])
def test_a_kill_between_any_two_steps_loses_and_doubles_nothing(
    job: Job, file: Path, monkeypatch: pytest.MonkeyPatch, step: str, when: str, call: int
) -> None:
    monkeypatch.setattr(data_generator, "chunk_bytes", lambda _: 10_000)
    monkeypatch.setattr("modelstream.source.sender.SAVE_SECONDS", 0.0)
    file.write_bytes(b"\n".join(event(i) for i in range(1500)))
    with job.tables as tables:
        owner = SqliteStreams if step == "append" else type(tables.inputs())
    real = getattr(owner, step)
    kills = 0
    for attempt in range(2):
        monkeypatch.setattr(owner, step, killed(when, call, real) if not attempt else real)
        try:
            finished = job.send(input=str(file)).finished
        except KeyboardInterrupt:
            kills += 1
    assert (kills, finished) == (1, True)
    assert [(position, line) for _, position, line in job.received()] == list(enumerate(map(event, range(1500))))


def test_an_outage_is_told_and_waited_for(job: Job, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_bytes(event(0))
    append = SqliteStreams.append
    failures = iter([UnavailableError("no space left"), None])

    def flaky(*arguments: Any) -> Any:
        if (failure := next(failures)) is not None:
            raise failure
        return append(*arguments)

    monkeypatch.setattr(SqliteStreams, "append", flaky)
    assert job.send(input=str(file)).finished
    assert len(job.received()) == 1
    assert any("no space left" in line for line in job.log)
    assert any("no space left" in held for _, _, held in job.told)
    assert job.told[-1][2] == ""


def test_a_store_that_is_away_at_the_start_is_told_and_waited_for_on_a_cluster(
    job: Job, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_bytes(event(0))
    describe = SqliteStreams.describe
    failures = iter([UnavailableError("no broker"), UnavailableError("no broker"), None, None])

    def flaky(*arguments: Any) -> Any:
        if (failure := next(failures)) is not None:
            raise failure
        return describe(*arguments)

    monkeypatch.setattr(SqliteStreams, "describe", flaky)
    del job.context.progress, job.context.stopped  # as MLRun's context
    assert job.send(input=str(file)).finished
    assert any("can't begin: no broker; trying again" in line for line in job.log)
    monkeypatch.undo()
    assert len(job.received()) == 1


def test_a_platform_without_progress_and_stop_will_do(job: Job, file: Path) -> None:
    file.write_bytes(event(0))
    del job.context.progress, job.context.stopped
    assert job.send(input=str(file)).finished


def test_an_enrichment_file_is_loaded_first(job: Job, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = file.with_name("postcodes.csv")
    table.write_text("postcode,socioeconomic_idx\n12345,4\n")
    file.write_bytes(event(0))
    append = SqliteStreams.append

    def checked(*arguments: Any) -> Any:
        with job.tables as tables:
            assert tables.lookup("enrichment").get_many(["12345"]) == [4.0]
        return append(*arguments)

    monkeypatch.setattr(SqliteStreams, "append", checked)
    assert job.send(input=str(file), enrichment=str(table)).lines == 1
    job = begun(file.parent / "other", monkeypatch)
    assert job.send(**SOME, enrichment=str(table)).lines == 620
    with job.tables as tables:
        assert tables.lookup("enrichment").count() == 1


def test_a_broken_enrichment_file_leaves_nothing_behind(job: Job, file: Path) -> None:
    table = file.with_name("postcodes.csv")
    table.write_text("postcode,socioeconomic_idx\n12345,much\n")
    file.write_bytes(event(0))
    for options in ({"input": str(file)}, SOME):
        with pytest.raises(ConfigurationError, match=r"postcodes\.csv, line 2: 'much'"):
            job.send(**options, enrichment=str(table))
    with job.tables as tables:
        assert tables.inputs().all() == []
    assert job.messages() == 0


def test_an_enrichment_file_for_a_use_case_without_lookup_is_refused(
    job: Job, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = file.with_name("bare.yaml")
    bare.write_text(
        "{version: 1, name: bare, key: k, time: t, type: e, fields: {k: key, t: time, e: text, x: number},"
        " events: {tick: {value: x}}, predict_on: [tick], model: {name: m, prediction: p}}"
    )
    monkeypatch.setenv("MODELSTREAM_USE_CASE", str(bare))
    file.write_bytes(b'{"k": "a"}')
    with pytest.raises(ConfigurationError, match="bare has no lookup"):
        job.send(input=str(file), enrichment="any.csv")
    assert job.send(input=str(file)).lines == 1


def test_standard_input_is_sent_to_its_end(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    for run in (1, 2):
        receiving, sending = os.pipe()
        os.write(sending, event(run) + b"\n" + event(run))
        os.close(sending)
        monkeypatch.setattr(data_generator, "STDIN", receiving)
        assert job.send(input="-") == Sent(2, 1, True, read=2)
        os.close(receiving)
    assert origins(job.received()) == {"stdin:1": [0, 1], "stdin:2": [0, 1]}


def test_a_missing_stream_is_said(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSTREAM_WRITES", "nowhere")
    with pytest.raises(ConfigurationError, match="nowhere"):
        job.send(**SOME)


def test_generated_lines_have_the_identity_of_the_same_lines_in_a_file(
    job: Job, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.send(**SOME)
    lines = [line for _, _, line in job.received()]
    file.write_bytes(b"\n".join(lines))
    other = begun(file.parent / "other", monkeypatch)
    other.send(input=str(file))
    for shard in range(SHARDS):
        found: dict[str, list[tuple[int, bytes]]] = {}
        for one in (job, other):
            with one.streams as streams:
                for message in streams.read("generated", shard, 0, 100, 1 << 30):
                    rows = decode(message.body)
                    assert set(rows.metadata) == {"ingested_at"}
                    columns = rows.batch.to_pydict()
                    found.setdefault(rows.origin, []).extend(zip(columns["position"], columns["line"], strict=True))
        assert found.get(ORIGIN) == found.get(str(file))
    assert json.loads(lines[0])["event_type"] == "registration"
