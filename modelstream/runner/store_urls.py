"""Checks the URLs of stores on the command line: makes them absolute, tries them, compares them with those of the data
folder."""

from __future__ import annotations

from pathlib import Path

from modelstream.base.urls import folder_of
from modelstream.clients.sqlite import folder_of as sqlite_folder_of
from modelstream.errors import ConfigurationError, UnavailableError
from modelstream.project import Project
from modelstream.settings import KINDS_OF_STORES, StoreUrls
from modelstream.stores import Stores


def checked(urls: StoreUrls, project: Project, made_with: tuple[Path, StoreUrls] | None = None) -> StoreUrls:
    """Return the URLs in a form that doesn't depend on the working folder, once the stores behind them answer.

    Where one is empty, it is that which a data folder was made with, if it is given. Raises ConfigurationError for a
    malformed one, and UnavailableError for a server that doesn't answer; both say where the URL comes from.
    """
    folder, kept = made_with or (Path(), StoreUrls())
    given = StoreUrls(**{kind: _absolute(kind, getattr(urls, kind)) for kind in KINDS_OF_STORES})
    found = given.or_else(kept)
    for kind in KINDS_OF_STORES:
        try:
            with Stores.of_project(project, StoreUrls(**{kind: getattr(found, kind)})) as stores:
                stores.answer(project)
        except (ConfigurationError, UnavailableError) as error:
            whose = f"given with --{kind}" if getattr(given, kind) else f"that of --{kind} when {folder} was made"
            raise type(error)(str(error), remedy=f"{error.remedy}; the URL is {whose}") from error
    return found


def _absolute(kind: str, url: str) -> str:
    if url.startswith("sqlite://") and url != "sqlite://":
        return f"sqlite://{sqlite_folder_of(url).expanduser().resolve()}"
    if url and kind == "logs" and ("://" not in url or url.startswith("file://")):
        return str(folder_of(url).expanduser().resolve())
    return url


def differing(given: StoreUrls, kept: StoreUrls, folder: Path) -> None:
    """Raise ConfigurationError if a URL differs from the one that the data folder was made with."""
    filled = kept.within(folder)
    for kind in KINDS_OF_STORES:
        url = getattr(given, kind)
        if url and url != getattr(filled, kind):
            raise ConfigurationError(
                f"{folder} has its {kind} at {getattr(filled, kind)}, not at {url}",
                remedy=f"leave out --{kind}, give another --data, or delete the data and start over:"
                f" --fresh --{kind} {url}",
            )


def check_own(urls: StoreUrls, made_with: StoreUrls, project: Project) -> None:
    """Raise ConfigurationError for a URL with data of another pipeline, unless this folder was made with it."""
    with Stores.of_project(project, urls) as stores:
        for kind in KINDS_OF_STORES:
            url = getattr(urls, kind)
            if url and url != getattr(made_with, kind) and _is_used(kind, stores, project):
                raise ConfigurationError(
                    f"{url} has {kind} of another pipeline, which --fresh would delete",
                    remedy="give another prefix, or the --data folder that they belong to",
                )


def _is_used(kind: str, stores: Stores, project: Project) -> bool:
    if kind == "logs":
        return any(log.files() for log in stores.logs(project))
    if kind == "streams":
        streams = stores.streams
        return any(end > streams.first_offset for each in streams.names() for _, end in streams.ranges(each).values())
    url = stores.urls.tables
    if url.startswith("sqlite://") and not sqlite_folder_of(url).exists():
        return False
    return bool(stores.tables.inputs().all())


def clear(urls: StoreUrls, project: Project) -> None:
    """Delete what lies behind URLs: the streams and logs of the project, and all tables."""
    with Stores.of_project(project, urls) as stores:
        for _ in stores.remove(project):
            pass
