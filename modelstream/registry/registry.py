"""The model registry: versions of a model in a folder or a bucket, and which of them serves.

Below the registry's place each model has a folder of its own, and in it each version an MLRun model directory:

    artifacts/models/NAME/2/     model_spec.yaml, model.onnx, …
    artifacts/models/NAME/current.json     which version serves, and which ones did before

A version is complete or absent, and never changes. `current.json` is replaced as a whole, so a reader sees the old file
or the new one. There may be many writers, and they may be killed at any moment: `folder` and `bucket` say how each
keeps this promise. Files are read as plain data, and only from the version's own place: no pickle, no symbolic link.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from modelstream.base.durable import outages
from modelstream.base.urls import folder_of
from modelstream.errors import ConfigurationError, ModelstreamError, UnavailableError
from modelstream.model.spec import SPEC_FILE, ModelSpec, check_features, parse_spec
from modelstream.registry import artifact
from modelstream.registry.current import ALIAS, ALIAS_BYTES, Alias, Promotion, parse_alias
from modelstream.registry.folder import Folder, FolderStore
from modelstream.registry.shipped import foreign
from modelstream.registry.store import Files, ModelStore, Stamp, TakenError

if TYPE_CHECKING:  # onnxruntime is imported where a model is loaded
    from modelstream.model.onnx import OnnxModel
    from modelstream.project import Project
    from modelstream.settings import Settings
from modelstream.use_case.declared import UseCase

KEPT = 100
"""Earlier promotions that `current.json` remembers for rollback: 15 kB, still one read."""
TRIES = 100
"""How often `register` tries the next free version when other writers are faster."""
SPEC_BYTES, MODEL_BYTES = 4 << 20, 512 << 20
"""The largest files that are read, so that a huge one can't fill a server's memory."""
_LIST = "`python pipeline.py models list` lists all versions"


@dataclass(frozen=True)
class Registered:
    """A version, as its model_spec.yaml describes it.

    `Registry.versions` gives them.
    """

    version: str
    sha256: str = ""
    created: str = ""
    """When it was registered, ISO 8601 in UTC; "" for the model that comes with the project."""
    algorithm: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    folder: str = ""
    """Its folder, or its URL in a bucket."""
    current: bool = False
    """Whether this is the version that should serve."""
    shipped: bool = False
    """Whether it comes with the project."""
    problem: str = ""
    """Why its description can't be read, if so."""


class Registry:
    """The versions of one model. Every method may be called by many processes at the same time.

    >>> import hashlib, json, onnx.parser, tempfile
    >>> graph = '''<ir_version: 8, opset_import: ["": 17]> frost (float[n, 1] vectors) => (float[n, 1] probabilities)
    ... {probabilities = Sigmoid(vectors)}'''
    >>> content = onnx.parser.parse_model(graph).SerializeToString()
    >>> def files(version):
    ...     said = {"version": version, "sha256": hashlib.sha256(content).hexdigest()}
    ...     spec = {"model_file": "model.onnx", "inputs": [{"name": "celsius"}], "parameters": said}
    ...     spec = {"kind": "model", "metadata": {"key": "frost"}, "spec": spec}  # JSON is YAML too
    ...     return {"model.onnx": content, "model_spec.yaml": json.dumps(spec).encode()}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     registry = Registry(folder, "frost", features=["celsius"])
    ...     registry.register(files), registry.register(files)
    ...     registry.promote("1")
    ...     registry.promote("2")
    ...     registry.current(), registry.rollback(), registry.current()
    ('1', '2')
    ('2', '1', '1')
    """

    def __init__(
        self,
        place: str | Path,
        name: str,
        features: Sequence[str],
        *,
        shipped: Path | None = None,
        mlrun_project: str = "",
    ) -> None:
        """Take the registry's place, a model's name, and the features it is asked with.

        The place is a folder, which need not exist yet, as a path or `file://`, or `s3://bucket/prefix`.

        `shipped` is the directory of the model that comes with the project. It serves while nothing is promoted,
        and the numbers of registered versions continue from its version.

        `mlrun_project` is where a promotion looks for the version's artifact, if this process has an API of MLRun's.
        """
        self.name = name
        self.features = tuple(features)
        self.shipped = shipped
        self.mlrun_project = mlrun_project
        self.aside = ""
        """Why the model that `project.yaml` names is not used, if so: it belongs to another use case."""
        self._store = open_store(place, name)

    @classmethod
    def of(cls, settings: Settings, use_case: UseCase, name: str = "") -> Registry:
        """Return the registry that a function's settings name, of the use case's model or of another one by name.

        The settings' model is left aside if it is another use case's: if both its name and its features differ.
        """
        name = name or use_case.model_name
        shipped = Path(settings.model) if settings.model and name == use_case.model_name else None
        aside = foreign(shipped, use_case) if shipped else ""
        made = cls(settings.registry, name, use_case.features, shipped=None if aside else shipped)
        made.aside = aside
        return made

    @classmethod
    def of_project(cls, project: Project, use_case: UseCase, name: str = "") -> Registry:
        """Return the registry of a project's model, or of another one by name, asked with the use case's features.

        >>> from modelstream.project import load_project
        >>> from modelstream.use_case.file import load_use_case
        >>> project = load_project()
        >>> use_case = load_use_case(project.use_case_file)
        >>> Registry.of_project(project, use_case).features == use_case.features
        True
        """
        settings = project.settings(project.server, folder=project.folder, registry=project.registry())
        made = cls.of(settings, use_case, name)
        made.mlrun_project = project.name
        return made

    def place(self, *names: str) -> str:
        """Return where the versions of this model are, or one of them, or a file: a path or a URL."""
        return self._store.place(*names)

    # Versions.

    def versions(self) -> list[Registered]:
        """Return all versions, the shipped one first, then as they were counted."""
        alias = self.alias()
        serves = alias.current.version if alias else ""
        found = [self._described(version, serves) for version in self._numbers()]
        if self.shipped is None:
            return found
        spec = self._shipped_spec
        known = (spec.version, spec.sha256, "", spec.algorithm, spec.metrics, str(self.shipped))
        return [Registered(*known, current=not serves, shipped=True), *found]

    def next_version(self) -> str:
        """Return the first free version. Another writer may take it before you do: see `register`."""
        taken = [*self._store.taken(), self.shipped_version()]
        return str(1 + max((int(version) for version in taken if _is_number(version)), default=0))

    def check_writable(self) -> None:
        """Raise an error that says why no version can be added here, if so. Nothing is left behind."""
        self.next_version()
        self._store.check_writable()

    def add(self, content: Mapping[str, bytes], *, version: str) -> None:
        """Register a version: the files of an MLRun model directory by name, durable when this returns.

        The model is checked as `load` does. Raises ConfigurationError for one that could not serve, TakenError when
        the version is there already, and UnavailableError when it can't be written.
        """
        self._check_number(version)
        if version == self.shipped_version():
            raise TakenError(f"{self.name} {version} comes with the project", remedy="use the next version")
        self._checked(version, lambda name, _: _of(content, name), "the new version")
        self._store.write(version, content)

    def register(self, make: Callable[[str], Mapping[str, bytes]]) -> str:
        """Register the files that `make(version)` gives under the next free version; return it.

        Other writers may do the same at the same time: `make` is asked again when one of them was first.
        """
        for _ in range(TRIES):
            version = self.next_version()
            try:
                self.add(make(version), version=version)
            except TakenError:
                continue
            return version
        raise UnavailableError(
            f"{self.place()}: other writers were faster {TRIES} times in a row", remedy="try again later"
        )

    def load(self, version: str) -> OnnxModel:
        """Return a version's model, checked: hash, name, features, operators, nothing outside of its file.

        Raises ConfigurationError for a version that must not serve, UnavailableError when it can't be read just now.
        """
        if self._is_shipped(version):
            return self._load_shipped()
        self._check_number(version)
        return self._load(version)

    def read(self, version: str, name: str, limit: int = SPEC_BYTES) -> bytes:
        """Return a file of a version, such as its card. Raises ConfigurationError when it is not there."""
        self.place_of(version)
        files: AbstractContextManager[Files] = self._store.files(version)
        if self._is_shipped(version):
            assert self.shipped is not None
            files = Folder(self.shipped)
        with files as found:
            return found.read(name, limit)

    def place_of(self, version: str) -> str:
        """Return the folder or URL of a version. Raises ConfigurationError when there is none."""
        if self._is_shipped(version):
            return str(self.shipped)
        self._check_number(version)
        if version not in self._numbers():
            raise ConfigurationError(f"{self.place()} has no version {version}", remedy=_LIST)
        return self.place(version)

    # Which one serves.

    def current(self) -> str | None:
        """Return the version that is promoted, None if none is: then the shipped one serves."""
        alias = self.alias()
        return alias.current.version or None if alias else None

    def promote(self, version: str) -> None:
        """Make a version serve, from now on and after every restart. Running servers switch to it within 5 s.

        Where there is an API of MLRun's, they load it from its artifact, which is tried first. Promoting the version
        that already serves makes servers read its files again. Raises as `load` does.
        """
        self.place_of(version)
        sha256 = self.load(version).spec.sha256
        chosen = Promotion("") if self._is_shipped(version) else Promotion(version, sha256)
        if chosen.version and self.mlrun_project and artifact.has_api():
            uri = artifact.find(self.mlrun_project, self.name, version, sha256)
            chosen = msgspec.structs.replace(chosen, artifact=uri)
            self.open(chosen)

        def promoted(alias: Alias | None) -> Alias:
            served, before = (alias.current, alias.before) if alias else (Promotion(""), ())
            if served.version != chosen.version and (served.version or self.shipped is not None):
                before = (*before, served)[-KEPT:]
            return _now(chosen, before)

        self._change(promoted)

    def rollback(self) -> str:
        """Let the version serve that did before the current one; return it.

        Raises ConfigurationError when there is none, or when it must not serve.
        """

        def back(alias: Alias | None) -> Alias:
            if alias is None or not alias.before:
                raise ConfigurationError(f"{self.name}: no version served before the current one", remedy=_LIST)
            *before, chosen = alias.before
            self.open(chosen)
            return _now(chosen, tuple(before))

        return self._change(back).current.version or self.shipped_version()

    def alias(self) -> Alias | None:
        """Return what `current.json` says, None if there is none. Raises ConfigurationError if it is broken."""
        return self._alias(self._store.read(ALIAS, ALIAS_BYTES))

    def open(self, promotion: Promotion) -> OnnxModel:
        """Return the model of a promotion: checked as `load` does, and the very file that was promoted.

        It is loaded from its artifact in MLRun, if it has one and this process has an API.
        """
        if not promotion.version:
            return self._load_shipped()
        self._check_number(promotion.version)
        if promotion.artifact and artifact.has_api():
            place = promotion.artifact
            model = artifact.load(place, self.name, promotion.version, self.features, MODEL_BYTES)
        else:
            place, model = self.place(promotion.version), self._load(promotion.version)
        if model.spec.sha256 != promotion.sha256:
            raise ConfigurationError(
                f"{place} has changed since it was promoted: "
                f"sha256 is {model.spec.sha256}, not {promotion.sha256 or 'none'}",
                remedy="restore the file that was promoted, or promote what is there now",
            )
        return model

    def shipped_version(self) -> str:
        """Return the version of the model that comes with the project, "" without one."""
        return self._shipped_spec.version if self.shipped is not None else ""

    # By which a server notices changes.

    def stamp(self) -> Stamp:
        """Return a stamp that changes when `current.json` does; it costs one stat of a small file, or one HEAD.

        Raises UnavailableError when a bucket can't be asked.
        """
        return self._store.stamp(ALIAS)

    def stamps_of(self, promotion: Promotion) -> tuple[Stamp, ...]:
        """Return what changes when the files of a promoted version do; raises as `stamp`."""
        version = promotion.version
        return tuple(self._store.stamp(version, *file) for file in ((), (SPEC_FILE,), ("model.onnx",)))

    # Inside.

    def _change(self, change: Callable[[Alias | None], Alias]) -> Alias:
        """Replace `current.json` by what `change` makes of it; `change` may be called again. Return the new content."""
        made: list[Alias] = []

        def content(found: bytes | None) -> bytes:
            made.append(change(self._alias(found)))
            return made[-1].text()

        self._store.change(ALIAS, ALIAS_BYTES, content)
        return made[-1]

    def _alias(self, content: bytes | None) -> Alias | None:
        return None if content is None else parse_alias(content, self.place(ALIAS))

    def _numbers(self) -> list[str]:
        """Return the registered versions, lowest first."""
        return sorted(filter(_is_number, self._store.names()), key=int)

    def _check_number(self, version: str) -> None:
        if not _is_number(version):
            raise ConfigurationError(f"{version!r} is not a version: versions are whole numbers", remedy=_LIST)

    def _described(self, version: str, serves: str) -> Registered:
        place, current = self.place(version), version == serves
        try:
            with self._store.files(version) as files:
                spec = parse_spec(files.read(SPEC_FILE, SPEC_BYTES), self.place(version, SPEC_FILE))
            written = self._store.written(version, SPEC_FILE).isoformat(timespec="seconds")
        except ModelstreamError as error:
            return Registered(version, folder=place, current=current, problem=str(error))
        return Registered(version, spec.sha256, written, spec.algorithm, spec.metrics, place, current=current)

    def _load(self, version: str) -> OnnxModel:
        with self._store.files(version) as files:
            return self._checked(version, files.read, files.place)

    def _checked(self, version: str, read: Callable[[str, int], bytes], source: str) -> OnnxModel:
        """Return the model of a directory's files."""
        from modelstream.model.onnx import OnnxModel

        spec = parse_spec(read(SPEC_FILE, SPEC_BYTES), f"{source}/{SPEC_FILE}")
        if (spec.name, spec.version) != (self.name, version):
            raise ConfigurationError(
                f"{source}: {SPEC_FILE} describes {spec.name} {spec.version}, not {self.name} {version}",
                remedy="register the model instead of copying its folder: a copy keeps its old version",
            )
        check_features(spec, self.features, source)
        return OnnxModel(spec, read(spec.file, MODEL_BYTES), f"{source}/{spec.file}")

    def _is_shipped(self, version: str) -> bool:
        """Return whether a version is the shipped one; a registered version with the same number takes precedence."""
        return self.shipped is not None and version == self.shipped_version() and version not in self._numbers()

    def _load_shipped(self) -> OnnxModel:
        from modelstream.model.onnx import load_model

        if self.shipped is None:
            raise ConfigurationError(f"no version of {self.name} is promoted", remedy=_LIST)
        return load_model(self.shipped, self.features)

    @cached_property
    def _shipped_spec(self) -> ModelSpec:
        assert self.shipped is not None
        path = self.shipped / SPEC_FILE
        with outages(path):
            return parse_spec(path.read_bytes(), str(path))


def open_store(url: str | Path, model: str) -> ModelStore:
    """Return where the versions of a model lie, below a folder (a path or `file://`) or `s3://bucket/prefix`.

    Raises ConfigurationError for a URL of another kind.

    >>> open_store("models", "mine").place("2"), open_store("s3://bucket/models/", "mine").place("2")
    ('models/mine/2', 's3://bucket/models/mine/2')
    >>> open_store("tape://reel", "mine")
    Traceback (most recent call last):
    modelstream.errors.ConfigurationError: tape://reel is not a folder
    """
    url = str(url)
    if url.startswith("s3://"):
        from modelstream.registry.bucket import BucketStore

        return BucketStore(f"{url.rstrip('/')}/{model}")
    return FolderStore(folder_of(url) / model)


def _now(chosen: Promotion, before: tuple[Promotion, ...]) -> Alias:
    at = datetime.now(UTC).isoformat(timespec="microseconds")
    return Alias(current=msgspec.structs.replace(chosen, at=at), before=before)


def _of(content: Mapping[str, bytes], name: str) -> bytes:
    if name not in content:
        raise ConfigurationError(f"the new version has no file {name}", remedy=f"it needs {SPEC_FILE} and its model")
    return content[name]


def _is_number(text: str) -> bool:
    """Tell whether a text is a version: 1 to 999999999, without leading zeros."""
    return text.isascii() and text.isdecimal() and text[0] != "0" and len(text) <= 9
