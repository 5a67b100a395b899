"""Does once what every first run would have to wait for: compiles the kernels, and the modules of large libraries.

`make env` runs `python -m modelstream.runner.warm`. Everything works without it, but the first run then takes half a
minute longer: numba compiles a kernel in 1 to 4 s, and Python compiles MLRun's two thousand modules in about 6 s.
"""

from __future__ import annotations

import importlib
import os
import sys
import time

import numpy as np
import pyarrow as pa

from modelstream.base.process_environment import on_this_machine
from modelstream.project import Project, load_project

LIBRARIES = ("mlrun.serving", "nuclio.build", "onnxruntime", "uvicorn", "starlette.applications", "typer", "faker")


def kernels(project: Project) -> None:
    """Compile every kernel for the types that the pipeline calls it with, by a small run over generated lines."""
    from modelstream import notebooks
    from modelstream.events.parsing import LineParser
    from modelstream.features.engine import FeatureEngine, features_of, no_rows
    from modelstream.source.generator import GeneratorOptions, GeneratorSource
    from modelstream.source.lines import LineSplitter
    from modelstream.use_case.file import load_use_case

    use_case = load_use_case(project.use_case_file)
    generator = notebooks.load(project.notebook(project.chain.source))
    source = GeneratorSource(use_case, generator.DISTRIBUTIONS, GeneratorOptions(3, 5, 1, 1_700_000_000_000_000))
    lines = [line for chunk in source.chunks(lambda: False) for line in chunk.lines.texts()]
    lines.append(lines[0].rstrip()[:-1] + rb', "note": "\n"}')  # with an escape it is read the slow way
    LineSplitter(use_case.key_path).feed(b"\n".join(lines) + b"\n", last=True)
    positions = np.arange(len(lines), dtype=np.int64)
    events = LineParser(use_case).parse(lines, positions, 0).events
    keys = events.column(use_case.key)
    engine = FeatureEngine(use_case)
    engine.load(engine.missing(keys.unique().to_pylist()), no_rows(use_case))
    engine.apply(events, positions, lambda _, keys: [1.0] * len(keys))
    features_of(engine.changed(), use_case)


def main() -> None:
    """Warm up, saying what takes time."""
    begun = time.monotonic()
    print("Compiling kernels and libraries, once ...", file=sys.stderr, flush=True)
    pa.set_cpu_count(1)
    environment = on_this_machine(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    project = load_project()
    kernels(project)
    for name in LIBRARIES:
        importlib.import_module(name)
    print(f"... done in {time.monotonic() - begun:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
