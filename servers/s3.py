"""An S3 server for tests: moto's, on 127.0.0.1 and a free port, in memory, with a bucket `bucket`.

    python -m servers.s3 [--port 9000]       run a server until Ctrl-C, to try things on

moto brings a web framework and the AWS SDK, so it has an environment of its own: `make s3` builds it (`.venv-s3`);
another one's Python is named by MODELSTREAM_S3_PYTHON. That Python runs this file with `--serve`.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUCKET = "bucket"


def python() -> str:
    """Return the Python that has moto; "" if there is none."""
    found = os.environ.get("MODELSTREAM_S3_PYTHON") or str(ROOT / ".venv-s3" / "bin" / "python")
    return found if Path(found).exists() else ""


def environment(port: int) -> dict[str, str]:
    """Return the variables that make a client use the server."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }


def require() -> None:
    """Skip the test where there is no server: on a laptop. In CI that is a failure."""
    import pytest

    if not python():
        lacking = "moto is missing: run `make s3`"
        if os.environ.get("CI") or os.environ.get("MODELSTREAM_CI"):
            pytest.fail(lacking)
        pytest.skip(lacking)


@contextmanager
def running(port: int = 0, *options: str) -> Iterator[int]:
    """Run a server; give its port."""
    command = [python(), "-m", "servers.s3", "--serve", "--port", str(port), *options]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=clean, cwd=ROOT)
    assert process.stdout is not None
    try:
        said = process.stdout.readline()  # it ends where the server fails to start
        assert said.strip().isdecimal(), "the server did not start"
        yield int(said)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _serve(port: int, careless: list[str]) -> None:
    import boto3
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, *_: object) -> None:
            """Say nothing."""

    moto, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def app(environ: dict[str, object], start: object) -> object:
        # moto looks whether an object exists and stores it in two steps; S3 does that in one.
        with lock:
            for condition in careless:
                environ.pop(f"HTTP_{condition.upper().replace('-', '_')}", None)
            return moto(environ, start)

    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=Quiet)
    worker = threading.Thread(target=server.serve_forever, daemon=True)
    worker.start()
    keys = {"aws_access_key_id": "tester", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=f"http://127.0.0.1:{server.port}", **keys).create_bucket(Bucket=BUCKET)
    print(server.port, flush=True)
    worker.join()


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--serve", action="store_true", help="be the server; for a Python that has moto")
    parser.add_argument("--careless", action="append", default=[], help="ignore if-none-match or if-match: some do")
    given = parser.parse_args()
    if given.serve:
        _serve(given.port, given.careless)
    elif not python():
        sys.exit("moto is missing: run `make s3`")
    else:
        with running(given.port) as port, suppress(KeyboardInterrupt):
            print(*(f"export {name}={value}" for name, value in environment(port).items()), sep="\n")
            print(f"--logs s3://{BUCKET}/churn", flush=True)
            signal.pause()


if __name__ == "__main__":
    _main()
