"""The versions of a model in a bucket: `s3://bucket/prefix/NAME/VERSION/…`, on any store that speaks S3.

A writer first claims the number: it puts `.claim` with `If-None-Match: *`, which fails if another was first. The last
object that it puts is model_spec.yaml, and a version counts only with it. A killed writer leaves a number that is never
used again, and objects that nobody reads. `current.json` is replaced on its ETag (`If-Match`); a writer that was
overtaken reads it again. A store that ignores these conditions is refused before anything is written.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

from modelstream.clients.s3 import Bucket
from modelstream.errors import ConfigurationError, UnavailableError
from modelstream.model.spec import SPEC_FILE
from modelstream.registry.store import WAIT_SECONDS, Files, ModelStore, Stamp, TakenError, check_names

CLAIM = ".claim"
TRIED = ".conditions"
"""The object with which a writer tests whether the store honours conditions."""
NOT_ITS_ETAG = '"00000000000000000000000000000000"'
PAUSE = 0.05
"""Longest pause, in seconds, before another attempt to change a file that others are changing; an attempt takes some
hundredths of a second."""
_HARM = "two promotions, or two new versions, would overwrite each other"


class BucketStore(ModelStore):
    """Versions below a URL in a bucket.

    An example would need a bucket: `tests/contract/test_registry_in_s3.py` has one.
    """

    def __init__(self, url: str) -> None:
        self._bucket = Bucket(url, "`registry` in project.yaml, or MODELSTREAM_REGISTRY")
        self._tried = False

    def place(self, *names: str) -> str:
        return self._bucket.place(*names)

    def names(self) -> list[str]:
        return [name for name, _, file in self._parts() if file == SPEC_FILE]

    def taken(self) -> list[str]:
        return list({name for name, slash, _ in self._parts() if slash})

    @contextmanager
    def files(self, name: str) -> Iterator[Files]:
        yield _Objects(self._bucket, name)

    def written(self, name: str, file: str) -> datetime:
        found = self._bucket.head(name, file)
        if found is None:
            raise _gone(self.place(name, file))
        moment: datetime = found["last_modified"]
        return moment

    def write(self, name: str, content: Mapping[str, bytes]) -> None:
        check_names(content)
        self._try_conditions()
        if name in self.taken():
            raise TakenError(f"{self.place(name)} is there already", remedy="choose another name")
        self._create(secrets.token_hex(16).encode(), name, CLAIM)
        for file in sorted(content, key=lambda file: file == SPEC_FILE):
            self._create(content[file], name, file)

    def check_writable(self) -> None:
        if self._bucket.may_replace(b"", NOT_ITS_ETAG, TRIED):
            raise self._bucket.no_conditions("If-Match", _HARM)

    def read(self, name: str, limit: int) -> bytes | None:
        found = self._bucket.get(limit, name)
        return found and found[0]

    def change(self, name: str, limit: int, change: Callable[[bytes | None], bytes]) -> None:
        self._try_conditions()
        deadline, after = time.monotonic() + WAIT_SECONDS, None
        while True:
            found = self._bucket.get(limit, name)
            if found and found[0] == after:  # see `_holds`
                return
            after = change(found and found[0])
            if self._bucket.replace(after, found[1], name) if found else self._bucket.create(after, name):
                return
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"{self.place(name)}: other processes have been changing it for {WAIT_SECONDS:.0f} s",
                    remedy="try again",
                )
            time.sleep(random.random() * PAUSE)

    def stamp(self, *names: str) -> Stamp:
        found = self._bucket.head(*names)
        return None if found is None else (found["e_tag"], found["size"], found["last_modified"].timestamp())

    # Inside.

    def _parts(self) -> list[tuple[str, str, str]]:
        return [found["path"].partition("/") for found in self._bucket.objects()]

    def _create(self, content: bytes, *names: str) -> None:
        if not self._bucket.create(content, *names) and not self._holds(content, *names):
            raise TakenError(f"{self.place(*names)} is there already", remedy="take another name")

    def _holds(self, content: bytes, *names: str) -> bool:
        """Return whether an object has this content.

        The client repeats a PUT whose answer was lost, and then finds its own object in the way.
        """
        found = self._bucket.head(*names)
        if found is None or found["size"] != len(content):
            return False
        stored = self._bucket.get(len(content), *names)
        return stored is not None and stored[0] == content

    def _try_conditions(self) -> None:
        """Raise ConfigurationError if the store ignores conditions. Tested once per instance."""
        if self._tried:
            return
        said = b"Here it is tried whether the store keeps If-None-Match and If-Match.\n"
        self._bucket.create(said, TRIED)
        if self._bucket.create(said, TRIED):
            raise self._bucket.no_conditions("If-None-Match: *", _HARM)
        if self._bucket.replace(said, NOT_ITS_ETAG, TRIED):
            raise self._bucket.no_conditions("If-Match", _HARM)
        self._tried = True


class _Objects:
    """The objects of a version."""

    def __init__(self, bucket: Bucket, name: str) -> None:
        self._bucket = bucket
        self._name = name
        self.place = bucket.place(name)

    def read(self, name: str, limit: int) -> bytes:
        found = self._bucket.get(limit, self._name, name)
        if found is None:
            raise _gone(self._bucket.place(self._name, name))
        return found[0]


def _gone(place: str) -> ConfigurationError:
    return ConfigurationError(
        f"{place}: No such file",
        remedy="restore the files of this version from a copy, or promote another version",
    )
