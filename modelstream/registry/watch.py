"""Keeps a running server on the promoted version of the registry.

A thread checks one small file once a second, and loads a newly promoted version while the server works. A version that
must not serve, or an outage of the registry's storage, is reported once and changes nothing: the version that served
still serves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec

from modelstream.errors import ConfigurationError, ModelstreamError, UnavailableError
from modelstream.model.onnx import OnnxModel
from modelstream.registry.current import ALIAS, Promotion
from modelstream.registry.registry import Registry
from modelstream.registry.store import Stamp

LOOK_EVERY = 1.0
"""Seconds between two checks: a promoted version must serve within 5 s, and loading a model takes some hundredths of a
second."""

Say = Callable[[str, str], None]
"""Called with what happened and why: a new version serves, or one was refused."""


class ModelWatch:
    """The model that should serve, if there is one yet. Call `begin`, then `start`; or call `look` yourself.

    >>> import tempfile
    >>> from types import SimpleNamespace
    >>> shipped = SimpleNamespace(spec=SimpleNamespace(version="1", sha256="ab12"))  # in place of a model
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     watch = ModelWatch(Registry(folder, "frost", features=["celsius"]), shipped, say=print)
    ...     watch.begin() is shipped, watch.look()  # nothing is promoted, and nothing changes
    (True, False)
    """

    def __init__(self, registry: Registry, shipped: OnnxModel | None, say: Say) -> None:
        """Take the registry of a model, and the model that serves while no version is promoted, if there is one."""
        self.model = shipped
        """What serves, None for nothing yet."""
        self.refused = ""
        """Why the promoted version does not serve; empty if it does."""
        self._registry = registry
        self._shipped = shipped
        self._say = say
        self._seen: tuple[Stamp, ...] | None = None
        self._suspect: Promotion | None = None

    @property
    def version(self) -> str:
        """The version that serves, "" for none yet."""
        return self.model.spec.version if self.model else ""

    def begin(self) -> OnnxModel | None:
        """Return the model to begin with: the promoted version, or if that must not serve, the last one before it that
        may. None while no version was ever promoted, and no model comes with the project.

        Raises ConfigurationError when the registry can't say which version that is, or when versions were promoted and
        none may serve; UnavailableError when they can't be read.
        """
        stamp = self._registry.stamp()
        alias = self._registry.alias()
        if alias is None:
            self._seen = (stamp,)
        elif error := self._follow(alias.current, stamp):
            refused = self.refused
            before = [one for one in reversed(alias.before) if one.version]
            others = before if self._shipped is None else [*before, Promotion("")]
            if not any(self._try(one) is None for one in others) and self.model is None:
                # Not the same as no model yet: the rows of this time would stay without an answer.
                if isinstance(error, UnavailableError):
                    raise error
                raise ConfigurationError(refused, remedy=getattr(error, "remedy", "")) from error
            self.refused = refused
        return self.model

    def look(self) -> bool:
        """Check once; return whether `model` or `refused` has changed."""
        before = self.model, self.refused
        seen, self._seen = self._seen, None
        try:
            stamp = self._registry.stamp()
            if (stamp, *self._stamps_of(self._suspect)) == seen:
                self._seen = seen
                return False
            self._suspect = None
            self._follow(self._promoted(stamp), stamp)
        except Exception as error:  # the thread must go on, whatever it meets
            self._refuse("the promoted version", error)
        return (self.model, self.refused) != before

    def start(self, changed: Callable[[], None]) -> None:
        """Look in a thread of its own, which calls `changed` when `look` found something."""

        def watch() -> None:
            pause = threading.Event()
            while not pause.wait(LOOK_EVERY):
                if self.look():
                    changed()

        threading.Thread(target=watch, name="model-watch", daemon=True).start()

    def _promoted(self, stamp: Stamp) -> Promotion:
        try:
            alias = self._registry.alias()
        except ConfigurationError:  # look again when the file has changed
            self._seen = (stamp,)
            raise
        if alias is None:
            raise UnavailableError(f"{self._registry.place(ALIAS)} is gone", remedy="promote a version again")
        return alias.current

    def _follow(self, promotion: Promotion, stamp: Stamp) -> Exception | None:
        """Let the promoted version serve, and note when to look at it again; return the error if it must not."""
        stamps = self._stamps_of(promotion)
        error = self._try(promotion)
        if error is None:
            self._seen, self.refused = (stamp,), ""
        elif not isinstance(error, UnavailableError):  # look again when one of its files has changed
            self._suspect, self._seen = promotion, (stamp, *stamps)
        return error

    def _try(self, promotion: Promotion) -> Exception | None:
        """Make a version serve. If it must not, report the error and return it."""
        try:
            model = self._opened(promotion) if promotion.version else self._shipped
            if model is None and self.model is not None:
                raise ConfigurationError(f"no model of {self._registry.name} comes with the project any more")
        except Exception as error:  # whatever a hostile file makes a library raise
            self._refuse(f"version {promotion.version}", error)
            return error
        if model is not None and _identity(model) != _identity(self.model):
            self.model = model
            self._say(f"serving version {model.spec.version} from now on", f"sha256 {model.spec.sha256}")
        return None

    def _opened(self, promotion: Promotion) -> OnnxModel:
        """Return the model of a promotion. While MLRun is away, the registry has the same file."""
        try:
            return self._registry.open(promotion)
        except UnavailableError as error:
            if not promotion.artifact:
                raise
            model = self._registry.open(msgspec.structs.replace(promotion, artifact=""))
            place = self._registry.place(promotion.version)
            self._say(f"version {promotion.version} is taken from {place}, not from MLRun: {error}", error.remedy)
            return model

    def _refuse(self, what: str, error: Exception) -> None:
        away = f"{what} can't be read at the moment"
        if isinstance(error, UnavailableError):
            if self.refused.startswith(away):  # it was said; a client's messages differ in how long it tried
                return
            reason = f"{away}: {error}"
        else:
            told = isinstance(error, ModelstreamError)
            reason = f"{what} is refused: {error}" if told else f"{what} is refused: {type(error).__name__}: {error}"
        if reason != self.refused:
            self.refused = reason
            self._say(reason, getattr(error, "remedy", ""))

    def _stamps_of(self, promotion: Promotion | None) -> tuple[Stamp, ...]:
        return self._registry.stamps_of(promotion) if promotion is not None else ()


def _identity(model: OnnxModel | None) -> tuple[str, str] | None:
    return (model.spec.version, model.spec.sha256) if model else None
