"""An S3 server: moto's, in memory, with a bucket `bucket`.

moto brings a web framework and the AWS SDK, so it has an environment of its own: `make s3` builds it (`.venv-s3`);
another one's Python is named by MODELSTREAM_S3_PYTHON. That Python runs this module.
"""

from __future__ import annotations

import argparse
import os
import threading
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from servers.base import HOST, ROOT, Server

BUCKET = "bucket"
REGION, KEY, SECRET = "us-east-1", "tester", "secret"


class S3Server(Server):
    """An S3 server, empty at every start.

    `careless` names a condition of requests that it ignores, as some servers do.
    """

    name = "s3"
    usual_port = 9000

    def __init__(self, folder: Path | None = None, port: int = 0, *, careless: str = "") -> None:
        super().__init__(folder, port)
        self._careless = careless

    @classmethod
    def missing(cls) -> str:
        """Return what is missing: moto."""
        return "" if Path(_python()).exists() else "moto is not installed; run `make s3`"

    @property
    def endpoint(self) -> str:
        """Where its API is."""
        return f"http://{self.address}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make a client use the server, whatever proxy this machine has."""
        login = {"AWS_REGION": REGION, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        return {"AWS_ENDPOINT_URL": self.endpoint, **login, "NO_PROXY": HOST}

    def options(self, name: str) -> dict[str, str]:
        """Return the option that puts the logs there."""
        return {"--logs": f"s3://{BUCKET}/{name}"}

    def _command(self) -> list[str]:
        careless = ["--careless", self._careless] if self._careless else []
        return [_python(), "-m", "servers.s3", "--port", str(self.port), *careless]

    def _answers(self) -> bool:
        connection = HTTPConnection(HOST, self.port, timeout=1)
        with closing(connection), suppress(OSError, HTTPException):
            connection.request("HEAD", f"/{BUCKET}")
            return connection.getresponse().status == 200
        return False


def _python() -> str:
    return os.environ.get("MODELSTREAM_S3_PYTHON") or str(ROOT / ".venv-s3" / "bin" / "python")


def _serve(port: int, careless: str) -> None:
    import boto3
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    WSGIRequestHandler.log_request = lambda *_: None
    moto, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()
    ignored = f"HTTP_{careless.upper().replace('-', '_')}"

    def app(environ: dict[str, Any], start: Any) -> Any:
        # moto looks whether an object exists and stores it in two steps; S3 does that in one.
        with lock:
            environ.pop(ignored, None)
            return moto(environ, start)

    server = make_server(HOST, port, app, threaded=True)
    worker = threading.Thread(target=server.serve_forever, daemon=True)
    worker.start()
    login = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": REGION}
    boto3.client("s3", endpoint_url=f"http://{HOST}:{port}", **login).create_bucket(Bucket=BUCKET)
    worker.join()


def main() -> None:
    """Be the server; for a Python that has moto."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--careless", default="", help="ignore if-none-match or if-match")
    given = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    _serve(given.port, given.careless)


if __name__ == "__main__":
    main()
