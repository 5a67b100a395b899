"""A Kafka broker: one process (KRaft) that has no password and syncs nothing to disk.

Its jars lie in build/; Maven copies them there (`fetch`, or `python -m servers fetch`).
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

from servers.base import ROOT, Server, ServerError, free_port

VERSION = "3.9.2"
JARS = ROOT / "build" / f"kafka-{VERSION}"

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
"""A listener with TLS and a password; it overrides earlier lines."""
USER, PASSWORD = "somebody", "a secret"


class KafkaServer(Server):
    """A broker; `secured` gives it a second address, with TLS and a password."""

    name = "kafka"
    usual_port = 9092
    patience = 90.0  # 4 to 11 were seen, the longer ones on a busy machine

    def __init__(self, folder: Path | None = None, port: int = 0, *, secured: bool = False) -> None:
        super().__init__(folder, port)
        self._controller = free_port()
        self._secured = free_port() if secured else 0

    @classmethod
    def missing(cls) -> str:
        """Return what is missing: Java, or the jars."""
        if shutil.which("java") is None:
            return "java is not installed; get a JRE, 17 or newer (Debian: apt-get install default-jre-headless)"
        return "" if _is_fetched() else "its jars are not here; `python -m servers fetch` copies them, by Maven"

    def url(self, name: str) -> str:
        """Return a URL of streams."""
        return f"kafka://{self.address}/{name}"

    def options(self, name: str) -> dict[str, str]:
        """Return the option that puts the streams there."""
        return {"--streams": self.url(name)}

    @property
    def secured_address(self) -> str:
        """What clients connect to with TLS, as USER with PASSWORD; `certificate` is what they trust."""
        return f"127.0.0.1:{self._secured}"

    @property
    def certificate(self) -> Path:
        """The certificate of the secured address."""
        return self.folder / "server.pem"

    def _command(self) -> list[str]:
        return _java("512m", "kafka.Kafka", str(self._properties))

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _prepare(self) -> None:
        if (self.folder / "log" / "meta.properties").exists():
            return
        text = PROPERTIES.format(port=self.port, controller=self._controller, folder=self.folder)
        if self._secured:
            self._make_certificate()
            values = {"folder": self.folder, "secured": self._secured, "user": USER, "password": PASSWORD}
            text += SECURED.format(port=self.port, controller=self._controller, **values)
        self._properties.write_text(text)
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        name = f"--cluster-id={cluster}"  # as one word: one in 64 begins with a dash
        command = _java("128m", "kafka.tools.StorageTool", "format", name, "-c", str(self._properties))
        with self.log.open("ab") as log:
            done = subprocess.run(command, stdout=log, stderr=log, check=False)
        if done.returncode:
            raise ServerError(f"kafka can't be started, because its folder could not be made: {self.words()}")

    def _make_certificate(self) -> None:
        store = ["-keystore", str(self.folder / "server.p12"), "-storepass", PASSWORD, "-alias", "server"]
        made = ["-genkeypair", "-keyalg", "EC", "-dname", "CN=127.0.0.1", "-ext", "SAN=ip:127.0.0.1"]
        for arguments in ([*made, "-storetype", "PKCS12"], ["-exportcert", "-rfc", "-file", str(self.certificate)]):
            subprocess.run(["keytool", *arguments, *store], check=True, capture_output=True)


def fetch() -> None:
    """Copy the jars by Maven unless they are here, 48 MB; raises ServerError if that fails."""
    if _is_fetched():
        return
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise ServerError(
                f"kafka can't be fetched: {program} is not installed "
                "(Debian: apt-get install default-jre-headless maven)"
            )
    print(f"Fetching Kafka {VERSION} by Maven (48 MB, once) ...", file=sys.stderr, flush=True)
    temporary = JARS.with_name(f".{JARS.name}.{os.getpid()}")
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={temporary}"]
    quietly = ["-q", "-B", "-ntp", "-Dstyle.color=never"]
    command = ["mvn", *quietly, "-f", str(ROOT / "servers" / "kafka-pom.xml"), f"-Dkafka.version={VERSION}", *goal]
    if subprocess.run(command, check=False).returncode:
        raise ServerError(
            "kafka can't be fetched: Maven failed, for the reason above. Run the same command to try again"
        )
    temporary.rename(JARS)


def _is_fetched() -> bool:
    return any(JARS.glob("kafka_2.13-*.jar"))


def _java(heap: str, *arguments: str) -> list[str]:
    memory = [f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:MaxDirectMemorySize=256m"]
    # A broker that runs for a minute never earns back the 2 s of CPU that the second compiler takes.
    options = [*memory, "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true", "-Djava.net.preferIPv4Stack=true"]
    return ["java", *options, "-cp", f"{JARS}/*", *arguments]
