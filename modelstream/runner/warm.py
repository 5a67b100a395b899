"""Does once what every first run would have to wait for: compiles the kernels, and the modules of large libraries.

`make env` runs `python -m modelstream.runner.warm`. Everything works without it, but the first run then takes half a
minute longer: numba compiles a kernel in 1 to 8 s, and Python compiles MLRun's two thousand modules in about 6 s.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa

from modelstream.base.process_environment import on_this_machine
from modelstream.project import Project, load_project

LIBRARIES = ("mlrun.serving", "nuclio.build", "onnxruntime", "uvicorn", "starlette.applications", "typer", "faker")


def of_lines(project: Project) -> None:
    """Compile every kernel that makes or reads lines, for the types that the pipeline calls it with, by a few lines."""
    from modelstream import notebooks
    from modelstream.events.parsing import LineParser
    from modelstream.source.generator import GeneratorOptions, GeneratorSource
    from modelstream.source.lines import LineSplitter
    from modelstream.use_case.file import load_use_case

    use_case = load_use_case(project.use_case_file)
    generator = notebooks.load(project.notebook(project.chain.source))
    source = GeneratorSource(use_case, generator.DISTRIBUTIONS, GeneratorOptions(3, 5, 1, 1_700_000_000_000_000))
    lines = [line for chunk in source.chunks(lambda: False) for line in chunk.lines.texts()]
    lines.append(lines[0].rstrip()[:-1] + rb', "note": "\n"}')  # with an escape it is read the slow way
    LineSplitter(use_case.key_path).feed(b"\n".join(lines) + b"\n", last=True)
    LineParser(use_case).parse(lines, np.arange(len(lines), dtype=np.int64), 0)


def of_features(project: Project) -> None:
    """Compile every kernel of features."""
    from modelstream.features.engine import FeatureEngine, features_of, no_lookup
    from modelstream.use_case.file import load_use_case

    use_case = load_use_case(project.use_case_file)
    engine = FeatureEngine(use_case)
    none = pa.RecordBatch.from_pylist([], use_case.event_schema)
    engine.apply(none, np.empty(0, np.int64), no_lookup)
    features_of(engine.changed(), use_case)


def libraries(_: Project) -> None:
    """Import what takes long when it was never imported."""
    for name in LIBRARIES:
        importlib.import_module(name)


PARTS: Mapping[str, Callable[[Project], None]] = {"lines": of_lines, "features": of_features, "libraries": libraries}
"""They take about as long as each other, and are done at once."""


def main() -> None:
    """Warm up, saying what takes time."""
    if len(sys.argv) > 1:
        pa.set_cpu_count(1)
        PARTS[sys.argv[1]](load_project())
        return
    begun = time.monotonic()
    print("Compiling kernels and libraries, once ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "modelstream.runner.warm"]
    running = [subprocess.Popen([*command, part], env=on_this_machine(os.environ)) for part in PARTS]
    if any([process.wait() for process in running]):  # noqa: C419 (all are waited for)
        sys.exit(1)
    print(f"... done in {time.monotonic() - begun:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
