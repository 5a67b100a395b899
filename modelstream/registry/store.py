"""The storage of a model's versions: a contract with two implementations, a folder and a bucket.

The contents of the files don't matter here. A version is complete or absent, and a file that is being changed is the
old one or the new at every moment, no matter how many processes write or are killed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from modelstream.errors import ConfigurationError, ModelstreamError

WAIT_SECONDS = 10.0
"""How long `change` keeps trying while others are faster; each of them needs a few milliseconds."""

Stamp = tuple[object, ...] | None
"""A value that changes when a file does; None while the file does not exist."""


class TakenError(ModelstreamError):
    """The name is taken: another writer was faster.

    `ModelStore.write` raises it.
    """


class Files(Protocol):
    """The files of a version, to be read.

    `folder.FolderStore` has an example.
    """

    place: str
    """Where they are: for messages."""

    def read(self, name: str, limit: int) -> bytes:
        """Return the content of a file of at most `limit` bytes.

        Raises ConfigurationError when it is missing, larger, or something else than a file, and UnavailableError
        when it can't be read just now.
        """
        ...


class ModelStore(ABC):
    """The versions of a model, by name, and files beside them that may change.

    Every method may raise UnavailableError for an outage, and ConfigurationError for something that a person has to
    fix.

    `folder.FolderStore` has an example.
    """

    @abstractmethod
    def place(self, *names: str) -> str:
        """Return the location of the store, a version or a file, for messages."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of what is there whole, in any order; none if nothing was written yet."""

    def taken(self) -> list[str]:
        """Return the names that are taken: of complete versions, and of those that were begun."""
        return self.names()

    @abstractmethod
    def files(self, name: str) -> AbstractContextManager[Files]:
        """Open a version to read its files. Raises ConfigurationError when there is none."""

    @abstractmethod
    def written(self, name: str, file: str) -> datetime:
        """Return when a file of a version was written."""

    @abstractmethod
    def write(self, name: str, content: Mapping[str, bytes]) -> None:
        """Write a version, a model_spec.yaml among its files: durable when this returns.

        Raises TakenError when there is something of that name, and ConfigurationError for a file's name that is none.
        """

    @abstractmethod
    def check_writable(self) -> None:
        """Try whether something could be written here, and leave nothing behind.

        Raises UnavailableError or ConfigurationError if not.
        """

    @abstractmethod
    def read(self, name: str, limit: int) -> bytes | None:
        """Return the content of a file beside the versions, None if it is not there; otherwise as `Files.read`."""

    @abstractmethod
    def change(self, name: str, limit: int, change: Callable[[bytes | None], bytes]) -> None:
        """Replace the content of a file beside the versions by what `change` makes of it.

        Nothing that others wrote meanwhile is lost: `change` may be called again. Durable when this returns.
        """

    @abstractmethod
    def stamp(self, *names: str) -> Stamp:
        """Return the stamp of a file, beside the versions or in one."""


def check_names(content: Mapping[str, bytes]) -> None:
    """Raise ConfigurationError for a file name with a path in it, or that the store needs itself.

    >>> check_names({"model.onnx": b"", "../model.onnx": b""})
    Traceback (most recent call last):
    modelstream.errors.ConfigurationError: '../model.onnx' is not the name of a file in a folder
    """
    for file in content:
        if Path(file).name != file or file.startswith(".") or not file.isprintable():
            raise ConfigurationError(f"{file!r} is not the name of a file in a folder", remedy="give plain names")
