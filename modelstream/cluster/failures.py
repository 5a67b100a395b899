"""Known failures of a deployment, and what to do about each."""

from __future__ import annotations

import re

from modelstream.errors import ConfigurationError, ModelstreamError, UnavailableError

_KNOWN: tuple[tuple[str, type[ModelstreamError], str], ...] = (
    (
        r"ImagePullBackOff|ErrImagePull|manifest unknown|pull access denied|image.*not found|no such image",
        ConfigurationError,
        "push the image that the cluster's file names, and let the cluster's nodes log in to its registry "
        "(docs/cluster.md)",
    ),
    (
        r"Cannot run a remote pipeline locally|kubeflow pipelines? .*not (available|configured)|kfp_url",
        ConfigurationError,
        "this MLRun has no Kubeflow pipelines: use --engine local",
    ),
    (
        r"compiled pipe file is empty|No module named '?kfp",
        ConfigurationError,
        "the pod that compiles the workflow has no Kubeflow: MLRun's server must have the image mlrun/mlrun-kfp "
        "(its setting kfp_image). Or use --engine kfp, which compiles it here",
    ),
    (
        r"\b401\b|Unauthorized|authentication failed|access key|session.*(expired|required)",
        ConfigurationError,
        "export V3IO_USERNAME and V3IO_ACCESS_KEY (Iguazio: user settings, access keys), or log in again",
    ),
    (
        r"\b403\b|Forbidden|permission denied",
        ConfigurationError,
        "ask for the project's role editor, or use another project name in project.yaml",
    ),
    (
        r"secrets? .*not found",
        ConfigurationError,
        "make the Kubernetes secret that the cluster's file names, in MLRun's namespace",
    ),
    (
        r"persistentvolumeclaim.*not found",
        ConfigurationError,
        "make the volume claim that the cluster's file names, in MLRun's namespace",
    ),
    (
        r"can't (list topics|ask|append|make the stream)|kafka|broker",
        ConfigurationError,
        "check that pods can reach the address under `streams` in the cluster's file: the HOST:PORT of a "
        "listener that answers with addresses inside the cluster",
    ),
    (
        r"Failed to (resolve|establish)|Name or service not known|Connection refused|Max retries|timed? ?out|"
        r"cannot connect|NameResolution|Connection aborted|could not (connect|reach)",
        UnavailableError,
        "check that MLRUN_DBPATH is right and can be reached from here, for example: curl $MLRUN_DBPATH/api/v1/healthz",
    ),
)


def explained(error: BaseException, what: str) -> ModelstreamError:
    """Return an error that says what failed and what to do. Errors of ours are returned unchanged.

    >>> explained(RuntimeError("pod has ErrImagePull"), "deploying").remedy.partition(",")[0]
    "push the image that the cluster's file names"
    """
    if isinstance(error, ModelstreamError):
        return error
    text = _chain(error)
    for pattern, kind, remedy in _KNOWN:
        if re.search(pattern, text, re.IGNORECASE):
            return kind(f"{what}: {_first_line(error)}", remedy=remedy)
    remedy = "look at the function in MLRun's or Nuclio's dashboard; the same command goes on"
    return ModelstreamError(f"{what}: {_first_line(error)}", remedy=remedy)


def _chain(error: BaseException | None) -> str:
    """Return the texts of an error and of what caused it."""
    texts: list[str] = []
    while error is not None and len(texts) < 10:
        texts.append(f"{type(error).__name__}: {error}")
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text if len(text) <= 500 else f"{text[:500]}…"
