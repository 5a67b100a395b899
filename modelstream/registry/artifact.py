"""A version of a model as an artifact in MLRun: the URI by which it is found, and the model that is there.

Training logs each version to MLRun, with its number as a tag. Where there is an API (`MLRUN_DBPATH`), a promotion notes
the artifact's URI in `current.json`, and model servers load the version from it. MLRun is imported when it is asked.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from modelstream.errors import ConfigurationError, ModelstreamError, UnavailableError
from modelstream.model.spec import check_features, read_spec

if TYPE_CHECKING:  # onnxruntime is imported where a model is loaded
    from modelstream.model.onnx import OnnxModel

ADDRESS = "MLRUN_DBPATH"
"""The environment variable with the address of MLRun's API; MLRun sets it in functions and jobs."""
VERSION = "version"
"""The label of a model's artifact and endpoint that says which version it is."""
_REMEDY = (
    "log the model again (train), or take it from the registry: `unset MLRUN_DBPATH`, then "
    "`python pipeline.py models promote V`"
)


def store_uri(project: str, model: str, version: str) -> str:
    """Return the URI by which MLRun finds the artifact of a version: training gives it this tag.

    >>> store_uri("heating", "frost", "3")
    'store://models/heating/frost:v3'
    """
    return f"store://models/{project}/{model}:{tag_of(version)}"


def tag_of(version: str) -> str:
    """Return the tag of a version's artifact; MLRun has tags of its own, such as `latest`.

    >>> tag_of("3")
    'v3'
    """
    return f"v{version}"


def has_api() -> bool:
    """Tell whether this process has an API of MLRun's. On one machine, MLRun's client may have other addresses there.

    >>> os.environ.pop("MLRUN_DBPATH", None) and None
    >>> has_api()
    False
    """
    return os.environ.get(ADDRESS, "").startswith(("http://", "https://"))


def find(project: str, model: str, version: str, sha256: str) -> str:
    """Return the URI of the artifact of a version's very file; "" if MLRun has none that other machines can read.

    The URI names the artifact by its uid and the run that made it, so it never comes to mean another one, as one with
    a tag would. Raises UnavailableError if the API can't be asked, ConfigurationError if it refuses.

    `tests/registry/test_artifact.py` has an example, with a stand-in for MLRun's API.
    """
    import mlrun

    uri = store_uri(project, model, version)
    with _told(uri):
        try:
            found = mlrun.get_run_db().read_artifact(model, tag=tag_of(version), project=project)
        except mlrun.errors.MLRunNotFoundError:
            return ""
        same = found["spec"].get("parameters", {}).get("sha256") == sha256
        # A path without a scheme is on the disk of whoever trained it.
        if not same or "://" not in found["spec"].get("target_path", ""):
            return ""
        artifact = mlrun.artifacts.dict_to_artifact(found)
        return str(artifact.get_store_url(with_tag=False, project=project))


def load(uri: str, name: str, version: str, features: Sequence[str], limit: int) -> OnnxModel:
    """Return the model of an artifact, checked as one of the registry: hash, name, version, features, operators.

    The file has at most `limit` bytes. Raises as `find`; and ConfigurationError if the artifact or its file is gone, or
    is not this model.

    `tests/registry/test_artifact.py` has an example, with a stand-in for MLRun's API.
    """
    import mlrun

    from modelstream.model.onnx import OnnxModel

    with _told(uri):
        artifact: Any = mlrun.datastore.get_store_resource(uri)
        if artifact is None or artifact.kind != "model":
            raise ConfigurationError(f"{uri} is not a model", remedy=_REMEDY)
        spec = read_spec(artifact.to_dict(), uri)
        file = mlrun.get_dataitem(posixpath.join(artifact.target_path, spec.file))
        if (size := file.stat().size) > limit:
            raise ConfigurationError(f"{file.url} has {size:,} bytes; {limit:,} are allowed", remedy=_REMEDY)
        content: bytes = file.get()
    if (spec.name, spec.version) != (name, version):
        raise ConfigurationError(f"{uri} is {spec.name} {spec.version}, not {name} {version}", remedy=_REMEDY)
    check_features(spec, features, uri)
    return OnnxModel(spec, content, uri)


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """Raise what MLRun's client and its storage raise as errors of ours."""
    import mlrun.errors as theirs

    try:
        yield
    except ModelstreamError:
        raise
    except (theirs.MLRunNotFoundError, FileNotFoundError) as error:
        raise ConfigurationError(f"{uri}: the artifact or its file is gone: {_short(error)}", remedy=_REMEDY) from error
    except (theirs.MLRunUnauthorizedError, theirs.MLRunAccessDeniedError) as error:
        remedy = "export V3IO_USERNAME and V3IO_ACCESS_KEY, or ask for a role in the project that may read models"
        raise ConfigurationError(f"{uri}: MLRun refuses: {_short(error)}", remedy=remedy) from error
    except (theirs.MLRunMissingDependencyError, theirs.MLRunInvalidArgumentError, ValueError) as error:
        raise ConfigurationError(f"{uri}: MLRun can't load it: {_short(error)}", remedy=_REMEDY) from error
    except Exception as error:  # requests, urllib3, and the clients of any storage have exceptions of their own
        remedy = f"check that MLRun's API at ${ADDRESS}, and the storage of its artifacts, can be reached from here"
        raise UnavailableError(f"{uri}: can't be read now: {_short(error)}", remedy=remedy) from error


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}…"
