"""Keeps pandas out of processes that don't use it: importing it takes 0.3 to 1 s of CPU in every worker.

pyarrow imports pandas at its first conversion, to learn its types. If there is no pandas, it works without.
`to_pandas()` still imports pandas later.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder


class _Without(MetaPathFinder):
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:  # noqa: ARG002
        if name == "pandas":
            raise ModuleNotFoundError(name)


def start_without_pandas() -> None:
    """Make pyarrow believe that there is no pandas, unless it has looked already.

    Call this before the first conversion.

    >>> start_without_pandas()
    >>> import pyarrow as pa
    >>> pa.array([1, None]).to_pylist()
    [1, None]
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    hidden = _Without()
    sys.meta_path.insert(0, hidden)
    try:
        pa.array([1])
    finally:
        sys.meta_path.remove(hidden)
