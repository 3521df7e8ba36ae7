"""Kafka and ClickHouse that want TLS and a login, and the authority that signed what they show."""

import selectors
import socket
import ssl
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final, Self

import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from tests.servers import ClickHouseServer, KafkaServer

USER: Final = "shop"
PASSWORD: Final = "only-of-tests"  # noqa: S105 - of servers that live for a test

_CHUNK: Final = 1 << 16
_USERS: Final = """
<clickhouse>
  <profiles><default/></profiles><quotas><default/></quotas>
  <users>
    <default><password/><profile>default</profile><quota>default</quota><networks><ip>::1</ip></networks></default>
    <{user}>
      <password>{password}</password><profile>default</profile><quota>default</quota><networks><ip>::/0</ip></networks>
    </{user}>
  </users>
</clickhouse>
"""


class Authority:
    """Signs a certificate of `127.0.0.1`; `ca`, `cert` and `key` are PEM files in `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        signed = authority.issue_cert("127.0.0.1", "localhost")
        self.ca, self.cert, self.key, self.both = (folder / f"{name}.pem" for name in ("ca", "cert", "key", "both"))
        authority.cert_pem.write_to_path(self.ca)
        chain = b"".join(pem.bytes() for pem in signed.cert_chain_pems)
        private = load_pem_private_key(signed.private_key_pem.bytes(), password=None)
        key = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # Kafka reads no other
        self.cert.write_bytes(chain)
        self.key.write_bytes(key)
        self.both.write_bytes(key + chain)


class SecureKafka(KafkaServer):
    """Kafka whose clients need TLS, and a password by PLAIN or SCRAM; its own traffic has a listener of its own."""

    format_flags: ClassVar[Sequence[str]] = [
        flag
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
        for flag in ("--add-scram", f'{mechanism}=[name={USER},password="{PASSWORD}"]')
    ]

    def __init__(self, folder: Path, authority: Authority) -> None:
        super().__init__(folder)
        self._authority = authority
        self.plain_port = self._ports[2]

    def properties(self) -> dict[str, object]:
        within = f"127.0.0.1:{self.plain_port}"
        modules = "org.apache.kafka.common.security"
        plain = f'{modules}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        scram = f"{modules}.scram.ScramLoginModule required;"
        listener = "listener.name.sasl_ssl"
        return super().properties() | {
            "listeners": f"SASL_SSL://{self.address},PLAINTEXT://{within},CONTROLLER://{self.controller}",
            "advertised.listeners": f"SASL_SSL://{self.address},PLAINTEXT://{within}",
            "listener.security.protocol.map": "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            f"{listener}.plain.sasl.jaas.config": plain,
            f"{listener}.scram-sha-256.sasl.jaas.config": scram,
            f"{listener}.scram-sha-512.sasl.jaas.config": scram,
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self._authority.both,
        }


class SecureClickHouse(ClickHouseServer):
    """ClickHouse with a user and a password; its TLS ends at a `TlsFront`, for the library listens without."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        users = folder / "users.xml"
        users.write_text(_USERS.format(user=USER, password=PASSWORD), encoding="utf-8")
        self.config = folder / "config.xml"
        self.config.write_text(f"<clickhouse><users_config>{users}</users_config></clickhouse>", encoding="utf-8")


class TlsFront:
    """TLS before a server that has none, as a load balancer's; leave it to let go of its port."""

    def __init__(self, backend: str, authority: Authority) -> None:
        host, _, port = backend.rpartition(":")
        self._backend = (host, int(port))
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(authority.cert, authority.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def address(self) -> str:
        return "{}:{}".format(*self._listener.getsockname())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                accepted, _ = self._listener.accept()
                threading.Thread(target=self._relay, args=(accepted,), daemon=True).start()

    def _relay(self, accepted: socket.socket) -> None:
        with suppress(OSError), accepted, socket.create_connection(self._backend) as behind:
            client = self._context.wrap_socket(accepted, server_side=True)
            with client, selectors.DefaultSelector() as waiting:  # `select` takes no file beyond the 1,024th
                others = {client: behind, behind: client}
                for one in others:
                    waiting.register(one, selectors.EVENT_READ)
                while True:
                    ready = [client] if client.pending() else [key.fileobj for key, _ in waiting.select()]
                    for one in ready:
                        if not (data := one.recv(_CHUNK)):
                            return
                        others[one].sendall(data)
