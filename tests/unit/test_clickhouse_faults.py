"""What stands at `clickhouse.server` is found out soon where it is no ClickHouse as the settings have it."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from server.adapters.clickhouse_store import ClickHouseStore
from server.ports import StoreSettingsError, StoreUnavailableError
from server.settings import ClickHouseSettings

TLS_HELLO = 0x16


@contextmanager
def listener(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """Give the address of a server that does `answer` with each connection."""

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                connections.append(connection)
                answer(connection)

    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept)
        thread.start()
        yield "{}:{}".format(*server.getsockname())
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in connections:
        connection.close()


def silence(_: socket.socket) -> None:
    """Wait for more, as Kafka does."""


def plain_clickhouse(connection: socket.socket) -> None:
    """Refuse who logs in, and end the connection of who begins with TLS."""
    if connection.recv(4096)[0] != TLS_HELLO:
        texts = b"".join(bytes([len(text)]) + text for text in (b"DB::Exception", b"no such user", b""))
        connection.sendall(b"\x02" + struct.pack("<i", 516) + texts + b"\x00")
    connection.close()


def web_server(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    connection.shutdown(socket.SHUT_WR)


def settings(address: str, **options: object) -> ClickHouseSettings:
    return ClickHouseSettings.model_validate({"server": address, "connect_s": 1.0, "answer_s": 120.0, **options})


def test_server_that_greets_nobody_is_given_up_soon() -> None:
    begin = time.monotonic()
    with (
        listener(silence) as address,
        pytest.raises(StoreUnavailableError, match=r"set clickhouse\.server to its") as told,
    ):
        ClickHouseStore(settings(address))
    assert time.monotonic() - begin < 10
    assert not isinstance(told.value, StoreSettingsError)


def test_tls_with_a_server_that_has_none_names_the_setting() -> None:
    with listener(plain_clickhouse) as address, pytest.raises(StoreSettingsError, match=r"set clickhouse\.tls=false"):
        ClickHouseStore(settings(address, tls=True))


def test_another_protocol_names_the_setting() -> None:
    with listener(web_server) as address, pytest.raises(StoreSettingsError, match=r"set clickhouse\.server to its"):
        ClickHouseStore(settings(address))


def test_refused_login_names_user_and_password() -> None:
    with (
        listener(plain_clickhouse) as address,
        pytest.raises(StoreSettingsError, match=r"clickhouse\.user and .* SHOPKEEPER__CLICKHOUSE__PASSWORD"),
    ):
        ClickHouseStore(settings(address))
