"""How functions and their triggers log in to Kafka; one entry of the cluster's file configures both.

Nuclio's trigger takes annotations, with the names of files of a secret; the functions' own client takes variables
(`streams.kafka_address`), the password by reference.
"""

from __future__ import annotations

import msgspec

from modelstream.streams.kafka_address import variable_of

PATH = "/etc/modelstream/kafka"
"""Where the secret is mounted, in every pod."""
PASSWORD = variable_of("sasl.password")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
"""SASL mechanisms with user and password that both Nuclio and the client support."""


class KafkaLogin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The login.

    The secret is mounted as files; the names here are those of the files, which are the keys of the secret.
    """

    secret: str = ""
    user: str = ""
    password_file: str = ""
    mechanism: str = "SCRAM-SHA-512"
    tls: bool = False
    ca_file: str = ""

    def variables(self) -> dict[str, str]:
        """Return the environment of the functions' client, but for the password.

        >>> KafkaLogin("login", user="me", password_file="password").variables()["MODELSTREAM_KAFKA_SECURITY_PROTOCOL"]
        'SASL_PLAINTEXT'
        """
        found = {"security.protocol": f"SASL_{'SSL' if self.tls else 'PLAINTEXT'}" if self.user else "SSL"}
        if self.user:
            found |= {"sasl.mechanism": self.mechanism, "sasl.username": self.user}
        if self.ca_file:
            found["ssl.ca.location"] = f"{PATH}/{self.ca_file}"
        return {variable_of(name): value for name, value in found.items()}

    def files(self) -> list[str]:
        """Return the secret's entries that are mounted; a project's secret has others too."""
        return [name for name in (self.password_file, self.ca_file) if name]

    def annotations(self) -> dict[str, str]:
        """Return the annotations of a function. Only there does Nuclio take a name for a file of the secret."""
        found = {"secret-path": PATH}
        if self.user:
            found |= {
                "sasl-enabled": "true",
                "sasl-handshake": "true",
                "sasl-user": self.user,
                "sasl-password": self.password_file,
                "sasl-mechanism": self.mechanism,
            }
        if self.tls:
            found["tls-enabled"] = "true"
        if self.ca_file:
            found["ca-cert"] = self.ca_file
        return {f"nuclio.io/kafka-{name}": value for name, value in found.items()}
