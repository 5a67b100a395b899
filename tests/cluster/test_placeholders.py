"""What a cluster's file still has from the shipped one is found with its line; a real address is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelstream.cluster.placeholders import placeholders


def found(tmp_path: Path, value: str, *, name: str = "image", remote: bool = False) -> list[str]:
    file = tmp_path / "mine.yaml"
    file.write_text(f"# mine\n{name}: {value}\n")
    return placeholders(file, remote=remote)


@pytest.mark.parametrize(
    "value",
    [
        "registry.example.com/modelstream:1",
        "kafka://kafka.example.org:9092/churn",
        "redis://redis.example:6379/0",
        "kafka://HOST:9092/churn",
        "kafka://kafka:PORT/churn",
        "s3://…/models",
        "{A: {b: [x.example.net]}}",
    ],
)
def test_placeholder_is_told_with_its_line(tmp_path: Path, value: str) -> None:
    (told,) = found(tmp_path, value)
    assert told.startswith(f"{tmp_path / 'mine.yaml'}, line 2, image")


@pytest.mark.parametrize(
    "value",
    [
        "registry.local:5000/modelstream:1",
        "ghcr.io/example/modelstream:1",
        "kafka://kafka-bootstrap.kafka.svc.cluster.local:9092/churn",
        "redis://example-redis:6379/0?prefix=HOST",
        "myexample.com.my.org/x",
        "s3://host/org/repo",
        "8",
    ],
)
def test_real_address_is_none(tmp_path: Path, value: str) -> None:
    assert found(tmp_path, value) == []


def test_source_counts_only_where_it_is_read(tmp_path: Path) -> None:
    source = "git://github.com/ORG/REPO.git#main"
    assert found(tmp_path, source, name="source") == []
    assert len(found(tmp_path, source, name="source", remote=True)) == 1
