"""A real Kafka broker for tests: one process (KRaft), on 127.0.0.1, in a folder of its own.

    python -m servers.kafka fetch                   copy the broker's jars to build/ (needs mvn and a JDK)
    python -m servers.kafka run [--port 9092]       run a broker until Ctrl-C, to try things on

It has no password and syncs nothing to disk: it is no broker to keep data in.
"""

from __future__ import annotations

import argparse
import base64
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

VERSION = "3.9.2"
ROOT = Path(__file__).resolve().parents[1]
JARS = ROOT / "build" / f"kafka-{VERSION}"
PATIENCE = 90.0
"""Seconds that a broker may take to start: 4 to 11 were seen, the longer ones on a busy machine."""

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={folder}/log
# A typing error must not make a stream.
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
log.retention.ms=-1
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=4
"""
SECURED = """\
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},SECURED://127.0.0.1:{secured}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SECURED://127.0.0.1:{secured}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL
listener.name.secured.sasl.enabled.mechanisms=PLAIN
listener.name.secured.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
  user_{user}="{password}";
ssl.keystore.type=PKCS12
ssl.keystore.location={folder}/server.p12
ssl.keystore.password={password}
"""
"""A listener with TLS and a password: later lines hold."""
USER, PASSWORD = "somebody", "a secret"


class Broker:
    """A broker over a folder: started, stopped, killed, and started again at the same address."""

    def __init__(self, folder: Path, port: int | None = None, *, secured: bool = False) -> None:
        self.folder = folder
        self.port, self._controller = (port or free_port()), free_port()
        self._secured = free_port() if secured else 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """What clients connect to."""
        return f"127.0.0.1:{self.port}"

    @property
    def secured_address(self) -> str:
        """What clients connect to with TLS, as USER with PASSWORD; `certificate` is what they trust."""
        return f"127.0.0.1:{self._secured}"

    @property
    def certificate(self) -> Path:
        """The certificate of the secured listener."""
        return self.folder / "server.pem"

    def start(self) -> None:
        """Start, and wait until it answers."""
        properties = self.folder / "server.properties"
        if not properties.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            text = PROPERTIES.format(port=self.port, controller=self._controller, folder=self.folder)
            if self._secured:
                self._make_certificate()
                values = {"folder": self.folder, "secured": self._secured, "user": USER, "password": PASSWORD}
                text += SECURED.format(port=self.port, controller=self._controller, **values)
            properties.write_text(text)
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            name = f"--cluster-id={cluster}"  # as one word: one in 64 begins with a dash
            command = _java("128m", "kafka.tools.StorageTool", "format", name, "-c", str(properties))
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with (self.folder / "broker.out").open("ab") as output:
            self.process = subprocess.Popen(
                _java("512m", "kafka.Kafka", str(properties)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a Ctrl-C for the tests is none for the broker
                preexec_fn=_end_with_parent,  # tests that are killed leave none behind
            )
        deadline = time.monotonic() + PATIENCE
        while not _answers(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the broker did not start: {(self.folder / 'broker.out').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ask it to end, and wait: it closes its files in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._end(signal.SIGKILL)

    def suspend(self) -> None:
        """Make it stand still: connections stay open, and nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `suspend`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _make_certificate(self) -> None:
        store = ["-keystore", str(self.folder / "server.p12"), "-storepass", PASSWORD, "-alias", "server"]
        made = ["-genkeypair", "-keyalg", "EC", "-dname", "CN=127.0.0.1", "-ext", "SAN=ip:127.0.0.1"]
        for arguments in ([*made, "-storetype", "PKCS12"], ["-exportcert", "-rfc", "-file", str(self.certificate)]):
            subprocess.run(["keytool", *arguments, *store], check=True, capture_output=True)

    def _end(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def missing() -> str:
    """Return what is missing to run a broker, or nothing."""
    if shutil.which("java") is None:
        return "no Java: install a JRE, 17 or newer"
    if not any(JARS.glob("kafka_2.13-*.jar")):
        return "no Kafka: `python -m servers.kafka fetch` (needs mvn)"
    return ""


def in_ci() -> bool:
    """Tell whether a server that is missing is a failure."""
    return bool(os.environ.get("CI") or os.environ.get("MODELSTREAM_CI"))


def require() -> None:
    """Skip the test that runs if no broker can be started here; fail it in CI."""
    reason = missing()
    if reason and in_ci():
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker for the tests of this process; who stops it starts it again."""
    require()
    made = Broker(tmp_path_factory.mktemp("kafka"), secured=True)
    made.start()
    yield made
    made.kill()
    shutil.rmtree(made.folder, ignore_errors=True)


def fetch() -> None:
    """Copy the jars, 48 MB, by Maven."""
    if any(JARS.glob("kafka_2.13-*.jar")):
        return
    temporary = JARS.with_name(f".{JARS.name}.{os.getpid()}")
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={temporary}"]
    pom = str(ROOT / "servers" / "kafka-pom.xml")
    subprocess.run(["mvn", "-q", "-B", "-ntp", "-f", pom, f"-Dkafka.version={VERSION}", *goal], check=True)
    temporary.rename(JARS)


def _java(heap: str, *arguments: str) -> list[str]:
    memory = [f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:MaxDirectMemorySize=256m"]
    options = [*memory, "-Djava.awt.headless=true", "-Djava.net.preferIPv4Stack=true"]
    return ["java", *options, "-cp", f"{JARS}/*", *arguments]


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("fetch", "run"))
    parser.add_argument("--port", type=int, default=9092)
    arguments = parser.parse_args()
    if arguments.command == "fetch":
        fetch()
        return
    if missing():
        sys.exit(missing())
    with tempfile.TemporaryDirectory(prefix="kafka-") as folder:
        broker = Broker(Path(folder), arguments.port)
        broker.start()
        print(f"kafka://{broker.address}/churn answers; Ctrl-C ends it", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            pass
        finally:
            broker.stop()


if __name__ == "__main__":
    main()
