"""What training and drift say of a log in a bucket names its URL, which a person can look up."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelstream.errors import ConfigurationError
from modelstream.settings import StoreNames, StoreUrls
from modelstream.stores import Stores
from modelstream.training.drift.drift import drift
from modelstream.training.snapshot.data import Data
from modelstream.training.snapshot.selection import Selection
from modelstream.training.snapshot.users import read_users
from tests.contract.s3_places import environment, new_url, server
from tests.training.drift.test_drift import REFERENCE
from tests.training.synthetic import USE_CASE

__all__ = ["environment", "server"]


def test_a_log_without_rows_is_named_by_its_url(tmp_path: Path) -> None:
    url = new_url("logs")
    with Stores(StoreUrls(logs=url).within(tmp_path), StoreNames(), USE_CASE) as stores:
        with pytest.raises(ConfigurationError, match=f"^{url}/events holds nothing to learn from"):
            read_users(Data(stores, 8), None, Selection(), lambda *_: None)
        assert drift(REFERENCE, stores, None).vectors == 0
