"""A file is read on from where it was, or refused; standard input is taken as it comes."""

from __future__ import annotations

import os
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstream.errors import ConfigurationError, UnavailableError, UnreadableInputError
from modelstream.source import readers as sources
from modelstream.source.lines import Chunk, Progress
from modelstream.source.readers import FileSource, PipeSource, Source, chunk_bytes, open_file, open_stdin
from modelstream.tables import InputTable, open_tables


@pytest.fixture
def inputs(tmp_path: Path) -> Iterator[InputTable]:
    with open_tables(f"sqlite://{tmp_path}/tables") as tables:
        yield tables.inputs()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "events.ndjson"


def event(number: int) -> bytes:
    return b'{"id": %d}' % number


def never() -> bool:
    return False


def drain(source: Source) -> list[tuple[int, bytes]]:
    return [row for chunk in source.chunks(never) for row in rows(chunk)]


def rows(chunk: Chunk) -> list[tuple[int, bytes]]:
    return list(zip(chunk.lines.positions.tolist(), chunk.lines.texts(), strict=True))


def take(file: Path, inputs: InputTable) -> list[tuple[int, bytes]]:
    """Read a file to its end as a run does: registered, and its progress saved."""
    source = open_file(file, "id", inputs)
    taken = []
    for chunk in source.chunks(never):
        taken += rows(chunk)
        end = chunk.progress_at(len(chunk.lines))
        inputs.save_progress(source.origin, end.lines, end.bytes, end.digest, end.finished)
    return taken


def test_a_file_is_read_in_blocks_to_its_end(file: Path) -> None:
    content = b"\n".join(event(i) for i in range(1000))
    file.write_bytes(content)
    for block in (7, 100, 1 << 20):
        source = FileSource(file, "id", block=block)
        assert drain(source) == [(i, event(i)) for i in range(1000)]
    *_, last = FileSource(file, "id", block=100).chunks(never)
    assert last.progress_at(len(last.lines)) == Progress(1000, len(content), xxhash.xxh3_128_hexdigest(content), True)


def test_an_empty_file_is_finished_at_once(file: Path) -> None:
    file.write_bytes(b"")
    (chunk,) = FileSource(file, "id").chunks(never)
    assert len(chunk.lines) == 0
    assert chunk.progress_at(0).finished


def test_a_file_goes_on_where_it_was_read_to(file: Path, inputs: InputTable) -> None:
    file.write_bytes(event(0) + b"\n\n" + event(2) + b"\n")
    assert take(file, inputs) == [(0, event(0)), (2, event(2))]
    assert take(file, inputs) == []
    with file.open("ab") as more:
        more.write(event(3) + b"\n" + event(4))
    assert take(file, inputs) == [(3, event(3)), (4, event(4))]
    known = inputs.get(str(file))
    assert known is not None
    assert (known.lines, known.bytes, known.finished) == (5, file.stat().st_size, True)


def test_the_same_file_under_two_names_is_one_input(
    file: Path, inputs: InputTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_bytes(event(0) + b"\n")
    link = file.with_name("link.ndjson")
    link.symlink_to(file)
    monkeypatch.chdir(file.parent)
    assert take(link, inputs) == [(0, event(0))]
    assert take(Path("events.ndjson"), inputs) == []


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(event(0) + b"\n", id="shorter"),
        pytest.param(event(0) + b"\n" + event(9) + b"\n", id="other content"),
        pytest.param(b"", id="empty"),
        pytest.param(event(9) + b"\n" + event(1) + b"\n" + event(2) + b"\n", id="other content and longer"),
    ],
)
def test_a_file_whose_read_part_changed_is_refused(file: Path, inputs: InputTable, changed: bytes) -> None:
    file.write_bytes(event(0) + b"\n" + event(1) + b"\n")
    take(file, inputs)
    file.write_bytes(changed)
    with pytest.raises(ConfigurationError, match=r"events\.ndjson (is shorter|has changed)") as refused:
        take(file, inputs)
    assert "--fresh" in refused.value.remedy


@pytest.mark.parametrize("growth", [b"\n", b"\r\n"])
def test_a_last_line_without_its_break_may_get_it_later(file: Path, inputs: InputTable, growth: bytes) -> None:
    file.write_bytes(event(0))
    assert take(file, inputs) == [(0, event(0))]
    for piece in (growth[:1], growth[1:]):
        with file.open("ab") as more:
            more.write(piece)
        assert take(file, inputs) == []
    with file.open("ab") as more:
        more.write(event(1) + b"\n")
    assert take(file, inputs) == [(1, event(1))]


@pytest.mark.parametrize("line_break", [b"\n", b"\r\n"])
def test_a_last_line_may_get_its_break_together_with_the_next(
    file: Path, inputs: InputTable, line_break: bytes
) -> None:
    file.write_bytes(event(0) + b"\n" + event(1))
    take(file, inputs)
    with file.open("ab") as more:
        more.write(line_break + event(2) + line_break)
    assert take(file, inputs) == [(2, event(2))]


@pytest.mark.parametrize("growth", [b"0}\n", b" ", b"\r{", b"\rx\n"])
def test_a_last_line_that_goes_on_is_refused(file: Path, inputs: InputTable, growth: bytes) -> None:
    file.write_bytes(event(0) + b"\n" + event(1))
    take(file, inputs)
    with file.open("ab") as more:
        more.write(growth)
    with pytest.raises(ConfigurationError, match="has more in line 2"):
        take(file, inputs)


def test_a_file_that_is_only_a_byte_order_mark_may_grow(file: Path, inputs: InputTable) -> None:
    file.write_bytes(b"\xef\xbb\xbf")
    assert take(file, inputs) == []
    with file.open("ab") as more:
        more.write(event(0))
    assert take(file, inputs) == [(0, event(0))]


def test_reading_stops_when_asked(file: Path) -> None:
    file.write_bytes(b"".join(event(i) + b"\n" for i in range(100)))
    asked = iter([False, False, False, True])
    chunks = list(FileSource(file, "id", block=100).chunks(lambda: next(asked)))
    assert len(chunks) == 3
    assert not chunks[-1].progress_at(len(chunks[-1].lines)).finished


def test_a_huge_line_takes_no_memory(file: Path) -> None:
    line = b'{"id": 1, "x": "' + b"y" * 20_000_000 + b'"}'
    file.write_bytes(event(0) + b"\n" + line + b"\n" + event(2) + b"\n")
    drain(FileSource(file, "id", block=100_000))
    tracemalloc.start()
    chunks = [(rows(chunk), chunk.lines.truncated) for chunk in FileSource(file, "id", block=1_000_000).chunks(never)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [row for chunk, _ in chunks for row in chunk] == [(0, event(0)), (1, line[:4096]), (2, event(2))]
    assert {key: size for _, cut in chunks for key, size in cut.items()} == {1: len(line)}
    assert peak < 8_000_000


@pytest.mark.parametrize(
    ("name", "problem"), [("none.ndjson", "No such file"), ("folder", "a folder"), ("pipe", "not a plain file")]
)
def test_what_is_no_readable_file_is_refused(tmp_path: Path, inputs: InputTable, name: str, problem: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match=problem) as refused:
        open_file(tmp_path / name, "id", inputs)
    assert name in str(refused.value)
    assert refused.value.remedy
    assert inputs.all() == []


def test_a_file_without_permission_is_refused(file: Path, inputs: InputTable, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_bytes(b"")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)  # for root, whom no mode of a file keeps out
    with pytest.raises(ConfigurationError, match="Permission denied"):
        open_file(file, "id", inputs)


def test_a_disk_that_fails_is_an_outage(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_bytes(event(0))

    class Broken:
        def __init__(self, path: Path) -> None:
            self.path = path

        def __enter__(self) -> Broken:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def seek(self, _: int) -> None:
            pass

        def read(self, _: int) -> bytes:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sources, "open_input", Broken)
    with pytest.raises(UnavailableError, match=r"events\.ndjson: .* Input/output error"):
        drain(FileSource(file, "id"))


def test_standard_input_has_a_new_name_in_each_run(inputs: InputTable) -> None:
    assert [open_stdin("id", inputs).origin for _ in range(3)] == ["stdin:1", "stdin:2", "stdin:3"]
    assert [known.kind for known in inputs.all()] == ["stdin"] * 3


def test_lines_from_a_pipe_come_at_once_and_broken_ones_when_they_are_whole() -> None:
    receiving, sending = os.pipe()
    chunks = PipeSource("stdin:1", receiving, "id").chunks(never)
    os.write(sending, event(0) + b"\n" + b'{"id"')
    begun = time.monotonic()
    assert rows(next(chunks)) == [(0, event(0))]
    assert time.monotonic() - begun < 5
    os.write(sending, b": 1}\n")
    assert rows(next(chunks)) == [(1, event(1))]
    os.write(sending, event(2))
    os.close(sending)
    last = list(chunks)
    os.close(receiving)
    assert [row for chunk in last for row in rows(chunk)] == [(2, event(2))]
    assert last[-1].progress_at(len(last[-1].lines)).finished


@pytest.mark.parametrize(
    "half", [b'{"id": 1', b'\xef\xbb\xbf{"id"', b"1", b"nul", b'"x', b"\xff", b"[{}", b'{"a": "\xc3']
)
def test_a_last_line_that_is_being_written_waits_for_its_end(file: Path, inputs: InputTable, half: bytes) -> None:
    for before in (b"", event(0) + b"\n"):
        file.write_bytes(before + half)
        source = FileSource(file, "id")
        assert drain(source) == [(0, event(0))][: len(before)]
        assert source.unfinished == 1 + bool(before)
    assert take(file, inputs) == [(0, event(0))]
    known = inputs.get(str(file))
    assert known is not None and (known.lines, known.finished) == (1, False)
    file.write_bytes(before + half + b"}\n" + event(2))
    assert take(file, inputs) == [(1, half + b"}"), (2, event(2))]


def test_a_long_line_that_is_being_written_waits_and_blanks_are_no_line(file: Path, inputs: InputTable) -> None:
    for letter in (b"y", b" "):
        file.write_bytes(event(0) + b"\n" + letter * 100)
        source = FileSource(file, "id", block=7, max_line=50)
        assert (drain(source), source.unfinished) == ([(0, event(0))], 2)
    file.write_bytes(event(0) + b"\n  ")
    source = open_file(file, "id", inputs)
    assert (drain(source), source.unfinished) == ([(0, event(0))], 0)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.sampled_from([event(1), b'{"id": "a", "x": [1, {}]}', b"12", b"no json", b"", b" ", b'{"id": "\xc3\xa4"}'])
    ),
    st.sampled_from([b"\n", b"\r\n"]),
    st.sets(st.integers(0, 200)),
)
def test_a_file_that_is_read_while_it_is_written_gives_each_line_once(
    texts: list[bytes], line_break: bytes, looks: set[int]
) -> None:
    content = b"".join(text + line_break for text in texts)
    taken = []
    with tempfile.TemporaryDirectory() as folder, open_tables(f"sqlite://{folder}") as tables:
        file = Path(folder) / "events.ndjson"
        for size in [*sorted(place for place in looks if place < len(content)), len(content)]:
            file.write_bytes(content[:size])
            taken += take(file, tables.inputs())
    assert taken == [(i, text) for i, text in enumerate(texts) if text.strip()]


def test_a_pipe_has_no_later_so_its_last_line_is_read_as_it_is() -> None:
    receiving, sending = os.pipe()
    os.write(sending, event(0) + b'\n{"id": 1')
    os.close(sending)
    source = PipeSource("stdin:1", receiving, "id")
    assert (drain(source), source.unfinished) == ([(0, event(0)), (1, b'{"id": 1')], 0)
    os.close(receiving)


def test_input_of_another_format_is_refused_before_anything_is_registered(file: Path, inputs: InputTable) -> None:
    file.write_bytes(b"PAR1")
    with pytest.raises(UnreadableInputError, match=r"events\.ndjson is Parquet"):
        open_file(file, "id", inputs)
    assert inputs.all() == []
    receiving, sending = os.pipe()
    os.write(sending, b'[{"id": 1}]')
    os.close(sending)
    with pytest.raises(UnreadableInputError, match="standard input is a JSON array") as refused:
        drain(PipeSource("stdin:1", receiving, "id"))
    assert "jq -c '.[]' FILE | python pipeline.py run --input -" in refused.value.remedy
    os.close(receiving)


def test_much_input_comes_in_blocks() -> None:
    receiving, sending = os.pipe()
    content = b"".join(event(i) + b"\n" for i in range(100_000))

    def write() -> None:
        with os.fdopen(sending, "wb") as out:
            out.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    chunks = [rows(chunk) for chunk in PipeSource("stdin:1", receiving, "id", block=200_000).chunks(never)]
    writer.join()
    os.close(receiving)
    assert [row for chunk in chunks for row in chunk] == [(i, event(i)) for i in range(100_000)]
    assert len(chunks) > 3


def test_waiting_for_input_ends_when_asked() -> None:
    receiving, sending = os.pipe()
    asked = iter([False, True])
    assert list(PipeSource("stdin:1", receiving, "id").chunks(lambda: next(asked))) == []
    os.close(sending)
    os.close(receiving)


def test_a_chunk_fits_the_messages_of_its_shards() -> None:
    assert [chunk_bytes(shards) for shards in (1, 8, 64)] == [750_000, 6_000_000, 8_000_000]
