"""Poison messages: those that end the process which takes them, again and again.

Nothing that a message can hold should do that (see `messages.untrusted`); this is the last resort. A stage notes, in a
file that outlives its process, which messages it is taking. A message on which two processes ended is a suspect: it is
taken by a child process first, and if that ends too, it becomes a dead letter. Other messages, which were only taken
beside it or while somebody killed the process, pass the child and go on as usual.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import xxhash

from modelstream.messages.codec import UnreadableError, check_columns, decode, is_framed
from modelstream.messages.json_text import split_body
from modelstream.settings import Settings
from modelstream.use_case.declared import UseCase

DEATHS = 2
"""So many processes end on a message before it is a suspect; a `run` gives up after more of them in a row."""
PATIENCE = 60.0
"""Seconds for a child process. One that needs more proves nothing, and its messages go on as usual."""
KEPT_SECONDS = 3600.0
"""For this long the notes of processes that have ended are kept: a function is restarted within seconds."""

Ranges = dict[int, tuple[int, int]]
"""By shard, the first offset of the messages that a process was taking, and the one after the last."""

_RANGES = msgspec.json.Decoder(Ranges)
_BODIES = msgspec.msgpack.Decoder(list[bytes])


class PoisonWatch:
    """The notes of a function's processes on this machine about what they are taking.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for _ in range(2):
    ...         process = PoisonWatch(Path(folder))
    ...         process.taking({3: (10, 13)})
    ...         process.close()  # as the kernel does when it ends
    ...     again = PoisonWatch(Path(folder))
    ...     sorted(again.suspects(3))
    [10, 11, 12]
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        """Keep the notes in a folder, those of one function under one name."""
        self._folder, self._name = folder, name
        self._own = -1
        self._end: Callable[[], None] = lambda: None
        with contextlib.suppress(OSError):  # a last resort that can't be had must not stop a function
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._own, path = tempfile.mkstemp(prefix=f"{name}-", dir=folder)
            fcntl.flock(self._own, fcntl.LOCK_EX)  # until this process ends, however that happens
            self._end = partial(_end, self._own, Path(path))

    @classmethod
    def of(cls, settings: Settings) -> PoisonWatch:
        """Return the watch of a function, which its processes on this machine share."""
        return _watch("\0".join((settings.streams, settings.tables, settings.logs, settings.function)))

    def taking(self, ranges: Ranges) -> None:
        """Note what is being taken; nothing, once it is taken."""
        content = msgspec.json.encode(ranges) if ranges else b""
        with contextlib.suppress(OSError):
            os.pwrite(self._own, len(content).to_bytes(4, "little") + content, 0)

    def suspects(self, shard: int) -> set[int]:
        """Return the offsets of a shard on which so many processes have ended."""
        deaths = Counter(at for ended in self._ended() if shard in ended for at in range(*ended[shard]))
        return {offset for offset, count in deaths.items() if count >= DEATHS}

    def _ended(self) -> Iterable[Ranges]:
        """Yield what processes were taking when they ended."""
        for path in self._folder.glob(f"{self._name}-*"):
            try:
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # fails while the process lives
                    content = file.read()
                    size = int.from_bytes(content[:4], "little")
                    if not size or time.time() - path.stat().st_mtime > KEPT_SECONDS:
                        path.unlink()
                    else:
                        yield _RANGES.decode(content[4 : 4 + size])
            except (OSError, msgspec.DecodeError):
                continue

    def close(self) -> None:
        """End as a process does: what it was taking stays noted."""
        self._end()


@cache
def _watch(what: str) -> PoisonWatch:
    """Return the only watch that a process has of a function."""
    folder = Path(tempfile.gettempdir()) / f"modelstream-taking-{os.getuid()}"
    watch = PoisonWatch(folder, xxhash.xxh3_64_hexdigest(what.encode()))
    atexit.register(watch.close)
    return watch


def _end(descriptor: int, path: Path) -> None:
    if not any(os.pread(descriptor, 4, 0)):
        path.unlink(missing_ok=True)
    os.close(descriptor)


def deadly(bodies: Sequence[bytes], use_case: str) -> list[int]:
    """Return which of some messages end a process that takes them: each is taken alone, by a child process.

    `use_case` is the path of the use case's file.

    >>> deadly([], "heating.yaml")
    []
    """
    found: list[int] = []
    first = 0
    while first < len(bodies):
        command = [sys.executable, "-m", "modelstream.stages.poison", use_case]
        content = msgspec.msgpack.encode(list(bodies[first:]))
        try:
            child = subprocess.run(command, input=content, stdout=subprocess.PIPE, timeout=PATIENCE)
        except (OSError, subprocess.TimeoutExpired):
            break
        if child.returncode >= 0 or not child.stdout:  # it has taken them all, or could not begin
            break
        first += child.stdout.count(b"\n")  # a line before each message: the last was the one
        found.append(first - 1)
    return found


def take_alone(body: bytes, use_case: UseCase) -> None:
    """Do to a message what a stage may do to it, without effects: read it, check it, use each of its values.

    Raises UnreadableError or ValueError for a message that is not of the use case; `deadly` has an example.
    """
    from modelstream.events.checking import EventChecker, MessageLines
    from modelstream.features.engine import FeatureEngine, no_lookup, no_rows

    def check(texts: pa.BinaryArray) -> None:
        EventChecker(use_case).check([MessageLines("", texts, np.arange(len(texts), dtype=np.int64), 0)])

    if not is_framed(body):
        check(pa.array(split_body(body), pa.binary()))
        return
    rows = decode(body)
    batch = rows.batch
    if rows.kind == "lines":
        check(batch.column("line"))
    elif rows.kind == "events":
        check_columns(batch, use_case.event_schema, use_case.needed_of_event)
        engine = FeatureEngine(use_case)
        keys = batch.column(use_case.key).unique().to_pylist()
        engine.load(engine.missing(keys), no_rows(use_case))
        engine.apply(batch, np.arange(batch.num_rows), no_lookup)
    else:
        check_columns(batch, use_case.prediction_schema, use_case.needed_of_vector)
    with pa.BufferOutputStream() as sink, pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch.take(pa.array(np.arange(batch.num_rows))))


def main() -> None:
    """Take the messages on standard input, and print a line before each. `deadly` has an example."""
    from modelstream.use_case.file import load_use_case

    use_case = load_use_case(sys.argv[1])
    for body in _BODIES.decode(sys.stdin.buffer.read()):
        os.write(1, b"\n")
        try:
            take_alone(body, use_case)
        except (UnreadableError, ValueError):
            continue  # the stage will say so


if __name__ == "__main__":
    main()
