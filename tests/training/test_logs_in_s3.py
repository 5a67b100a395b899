"""What training and drift say of a log in a bucket names its URL, which a person can look up."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelstream.errors import ConfigurationError
from modelstream.logs import open_log
from modelstream.streams import open_streams
from modelstream.tables import open_tables
from modelstream.training.drift.drift import drift
from modelstream.training.snapshot import users
from modelstream.training.snapshot.data import Data
from modelstream.training.snapshot.selection import Selection
from tests.contract.s3_places import environment, new_url, port
from tests.training.drift.test_drift import REFERENCE, USE_CASE

__all__ = ["environment", "port"]


def test_a_log_without_rows_is_named_by_its_url(tmp_path: Path) -> None:
    url = new_url("logs")
    events = open_log(url, "events", USE_CASE.events_log_schema, 0)
    inference = open_log(url, "inference", USE_CASE.inference_log_schema, 0)
    with open_tables(f"sqlite://{tmp_path}") as tables, open_streams(f"sqlite://{tmp_path}") as streams:
        with pytest.raises(ConfigurationError, match=f"^{url}/events holds nothing to learn from"):
            users.read(Data(USE_CASE, events, inference, tables, 8), None, Selection(seed=1), lambda *_: None)
        with pytest.raises(ConfigurationError, match=f"no prediction in {url}/inference$"):
            drift(REFERENCE, USE_CASE, inference, events, streams, None)
