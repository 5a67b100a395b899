"""Processes that don't use pandas don't import it, and those that do still can. Each case is a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

CONVERT = "import pyarrow as pa; pa.array([1]).to_pylist(); pa.array(['a'])"
START = "from modelstream.base.without_pandas import start_without_pandas as start; start()"


@pytest.mark.parametrize(
    ("code", "imported"),
    [
        (f"{START}; {CONVERT}", False),
        (f"{START}; {CONVERT}; import pandas; assert pandas.DataFrame({{'a': [1]}}).a.sum() == 1", True),
        (f"{START}; {CONVERT}; assert pa.table({{'a': [1]}}).to_pandas().a[0] == 1", True),
        (f"import pandas; {START}; {CONVERT}; assert pa.array(pandas.Series([1])).to_pylist() == [1]", True),
    ],
    ids=["never", "later", "by pyarrow", "before"],
)
def test_pandas_is_imported_only_where_it_is_used(code: str, imported: bool) -> None:
    tell = "import sys; print('pandas' in sys.modules, [one for one in sys.meta_path if 'Without' in repr(one)])"
    found = subprocess.run([sys.executable, "-c", f"{code}; {tell}"], capture_output=True, text=True, check=False)
    assert found.stdout == f"{imported} []\n", found.stderr


def test_without_it_pyarrow_would_import_pandas() -> None:
    """Should a later pyarrow not do that any more, the module can go."""
    code = f"import sys; {CONVERT}; pa.array([1.5, None]); print('pandas' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "True\n"
