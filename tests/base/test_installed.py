"""An environment that is stale, incomplete or of another Python is told before anything is imported from it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.base import installed

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "requirements.in").write_text("# ours\nmlrun==1.12.1\nnuclio-sdk  # why\nPyYAML>=6\n\n")
    (tmp_path / "requirements.txt").write_text("a lock\n")
    packages = tmp_path / ".venv" / "lib" / "site-packages"
    for name in ("mlrun-1.12.1.dist-info", "nuclio_sdk-0.5.dist-info", "pyyaml-6.0.dist-info"):
        (packages / name).mkdir(parents=True)
    made_from = subprocess.run("cksum < requirements.txt", shell=True, cwd=tmp_path, capture_output=True, text=True)
    (tmp_path / ".venv" / "made-from").write_text(f"{made_from.stdout.strip()} {tmp_path}\n")
    return tmp_path


def told(project: Path, python: tuple[int, int] = (3, 11), environment: str = ".venv") -> str:
    path = [str(project / ".venv" / "lib" / "site-packages"), "/nowhere", "/a.zip"]
    return installed.problem(project, environment=str(project / environment), python=python, path=path)


def test_environment_as_make_builds_it_is_right(project: Path) -> None:
    assert told(project) == ""


def test_stale_environment_is_told_with_the_remedy(project: Path) -> None:
    (project / "requirements.txt").write_text("another lock\n")
    assert told(project).startswith("requirements.txt is not the one that .venv was made from.\n→ run `make env`")
    assert told(project, environment="elsewhere") == "", "an environment of one's own has no lock"


def test_other_python_is_told(project: Path) -> None:
    assert "is Python 3.12.\n→ run `make env`" in told(project, python=(3, 12))


def test_missing_packages_are_named(project: Path) -> None:
    (project / ".venv" / "lib" / "site-packages" / "nuclio_sdk-0.5.dist-info").rmdir()
    assert told(project).startswith("Not installed: nuclio-sdk (")
    (project / ".venv" / "lib" / "site-packages" / "mlrun-1.12.1.dist-info").rmdir()
    assert told(project).startswith("Not installed: mlrun, nuclio-sdk (")
    (project / ".venv" / "lib" / "site-packages" / "pyyaml-6.0.dist-info").rmdir()
    assert told(project).startswith("The environment is missing (")


def test_library_without_its_project_asks_nothing(tmp_path: Path) -> None:
    assert told(tmp_path) == ""


@given(st.binary(max_size=300))
def test_checksum_is_that_of_the_makefile(content: bytes) -> None:
    assert installed.cksum(content) == plain_cksum(content)


def test_checksum_of_the_lock_is_that_of_the_command() -> None:
    lock = (ROOT / "requirements.txt").read_bytes()
    done = subprocess.run(["cksum"], input=lock, capture_output=True, check=True)
    assert done.stdout.split()[:2] == [str(part).encode() for part in installed.cksum(lock)]


def plain_cksum(content: bytes) -> tuple[int, int]:
    """Return the checksum as POSIX describes it, bit by bit."""
    size = len(content)
    length = b""
    while size:
        length += bytes([size & 255])
        size >>= 8
    found = 0
    for byte in content + length:
        found ^= byte << 24
        for _ in range(8):
            found = ((found << 1) ^ (0x04C11DB7 if found & 0x80000000 else 0)) & 0xFFFFFFFF
    return found ^ 0xFFFFFFFF, len(content)
