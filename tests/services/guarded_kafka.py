"""Run a broker that lets in only whom it knows: by password, by TLS, by a client's certificate, and by rights."""

from __future__ import annotations

import datetime as dt
import ipaddress
from typing import TYPE_CHECKING

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, though not listed
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from operations.services import processes
from operations.services.kafka import LocalKafka

if TYPE_CHECKING:
    from pathlib import Path

PASSWORDS = {"ann": "open-sesame", "bob": "let-me-in"}

PROPERTIES = """\
listeners=PLAINTEXT://{host}:{broker},CONTROLLER://{host}:{controller},SASL://{host}:{sasl},TLS://{host}:{tls},\
MUTUAL://{host}:{mutual}
advertised.listeners=PLAINTEXT://{host}:{broker},SASL://{host}:{sasl},TLS://{host}:{tls},MUTUAL://{host}:{mutual}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL,MUTUAL:SSL
sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required {users};
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.mutual.ssl.client.auth=required
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""


class GuardedKafka(LocalKafka):
    """Run one broker with a listener of each kind; who comes without a name, as the tests' own client, may do all."""

    roles = ("broker", "controller", "sasl", "tls", "mutual")  # type: ignore[assignment]  # more ports

    def __init__(self, home: Path) -> None:
        """Take the home's folder, and make an authority and what it vouches for there."""
        super().__init__(home)
        self._ports: dict[str, int] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        authority = Authority("the test's authority")
        Authority("somebody else's").write(self.folder / "other-ca.pem")
        authority.write(self.folder / "ca.pem")
        authority.vouch_for(processes.HOST, self.folder / "broker.pem")

    def _command(self, ports: dict[str, int]) -> list[str]:
        command = super()._command(ports)
        self._ports = ports
        users = " ".join(f'user_{name}="{password}"' for name, password in PASSWORDS.items())
        with self._properties.open("a") as file:
            file.write(PROPERTIES.format(host=processes.HOST, folder=self.folder, users=users, **ports))
        return command

    def at(self, listener: str) -> str:
        """Return the address of a listener: broker (plain), sasl, tls or mutual."""
        return f"{processes.HOST}:{self._ports[listener]}"

    def allow(self, user: str, kind: ResourceType, name: str, *operations: AclOperation) -> None:
        """Let a user do something with what is called `name`, or begins so."""
        admin = AdminClient({"bootstrap.servers": self.at("broker"), "log_level": 0})
        rights = [
            AclBinding(
                kind, name, ResourcePatternType.PREFIXED, f"User:{user}", "*", operation, AclPermissionType.ALLOW
            )
            for operation in operations
        ]
        for done in admin.create_acls(rights).values():
            done.result(10)


class Authority:
    """Make certificates."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = self._signed(
            self._name, self._key.public_key(), x509.BasicConstraints(ca=True, path_length=None)
        )

    def write(self, path: Path) -> None:
        """Write the certificate by which others trust this authority."""
        path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def vouch_for(self, host: str, path: Path) -> None:
        """Write a key and a certificate for `host`."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        certificate = self._signed(name, key.public_key(), x509.BasicConstraints(ca=False, path_length=None))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))

    def _signed(
        self, name: x509.Name, public: ec.EllipticCurvePublicKey, constraints: x509.BasicConstraints
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=2))
            .add_extension(constraints, critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(processes.HOST))]), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
