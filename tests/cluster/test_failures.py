"""What MLRun, Kubernetes and the network say is told with what to do; what nobody knows is told as it is."""

from __future__ import annotations

import pytest

from modelstream.cluster.failures import explained
from modelstream.errors import ConfigurationError, ModelstreamError, UnavailableError


@pytest.mark.parametrize(
    ("said", "kind", "remedy"),
    [
        ('Back-off pulling image "registry/x:1": ImagePullBackOff', ConfigurationError, "push the image"),
        ("manifest unknown: x", ConfigurationError, "push the image"),
        ("Failed to build: image registry/x not found", ConfigurationError, "push the image"),
        ("Cannot run a remote pipeline locally", ConfigurationError, "--engine local"),
        ("Kubeflow pipelines is not available", ConfigurationError, "--engine local"),
        ("compiled pipe file is empty", ConfigurationError, "--engine kfp"),
        ("error: 401 {'detail': {'reason': '…'}}", ConfigurationError, "V3IO_ACCESS_KEY"),
        ("access key must be set, session is required", ConfigurationError, "V3IO_ACCESS_KEY"),
        ("403 Client Error: Forbidden for url", ConfigurationError, "role editor"),
        ("PERMISSION DENIED", ConfigurationError, "role editor"),
        ('MountVolume failed: secret "kafka-login" not found', ConfigurationError, "make the Kubernetes secret"),
        ('persistentvolumeclaim "models" not found', ConfigurationError, "make the volume claim"),
        (
            "kafka://x:1/churn: can't list topics: no broker",
            ConfigurationError,
            "pods can reach the address",
        ),
        ("HTTPConnectionPool(host='x'): Max retries exceeded", UnavailableError, "curl $MLRUN_DBPATH"),
        ("[Errno -2] Name or service not known", UnavailableError, "curl $MLRUN_DBPATH"),
        ("Read timed out.", UnavailableError, "curl $MLRUN_DBPATH"),
        ("Connection refused", UnavailableError, "curl $MLRUN_DBPATH"),
    ],
)
def test_known_failure_is_told_with_what_to_do(said: str, kind: type[ModelstreamError], remedy: str) -> None:
    told = explained(RuntimeError(said), "deploying")
    assert type(told) is kind
    assert str(told) == f"deploying: {said}"
    assert remedy in told.remedy


@pytest.mark.parametrize("said", ["port 14010 is taken", "a tokenizer", "timeline", "1403 rows", "401kB"])
def test_what_only_looks_like_a_known_failure_is_told_as_it_is(said: str) -> None:
    told = explained(RuntimeError(said), "deploying")
    assert type(told) is ModelstreamError
    assert str(told) == f"deploying: {said}"
    assert "MLRun's or Nuclio's dashboard" in told.remedy


def test_errors_of_ours_stay_as_they_are() -> None:
    ours = UnavailableError("401", remedy="wait")
    assert explained(ours, "deploying") is ours


def raised(outer: Exception, inner: Exception, *, explicit: bool) -> Exception:
    try:
        try:
            raise inner
        except Exception as error:
            if explicit:
                raise outer from error
            raise outer  # noqa: B904
    except Exception as error:
        return error


@pytest.mark.parametrize("explicit", [True, False])
def test_the_cause_is_looked_at_and_what_was_said_last_is_told(explicit: bool) -> None:
    told = explained(raised(RuntimeError("deployment failed"), OSError("Connection refused"), explicit=explicit), "run")
    assert (type(told), str(told)) == (UnavailableError, "run: deployment failed")


def test_what_comes_first_in_the_list_is_more_exact_than_what_follows() -> None:
    both = raised(RuntimeError("ErrImagePull"), OSError("timed out"), explicit=True)
    assert "push the image" in explained(both, "run").remedy


def test_the_type_of_an_error_without_a_text_is_told() -> None:
    assert str(explained(RuntimeError(), "run")) == "run: RuntimeError"
    assert str(explained(RuntimeError("  \n"), "run")) == "run: RuntimeError"


def test_a_long_text_is_cut_and_a_ring_of_causes_comes_to_an_end() -> None:
    assert str(explained(RuntimeError("x" * 500), "run")) == "run: " + "x" * 500
    error = RuntimeError("x" * 501)
    error.__cause__, error.__context__ = None, error
    assert str(explained(error, "run")) == "run: " + "x" * 500 + "…"
