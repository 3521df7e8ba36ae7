"""What hinders a connection with ClickHouse, and the setting that is to blame."""

import errno
import os
import socket
from typing import Final

from clickhouse_driver import errors as faults
from clickhouse_driver.connection import Connection

from server.adapters.endpoints import host_and_port, unverified_context
from server.ports import StoreError, StoreRowsError, StoreSettingsError, StoreUnavailableError
from server.settings import ClickHouseSettings

AWAY: Final = (
    faults.NetworkError,
    faults.SocketTimeoutError,
    faults.UnexpectedPacketFromServerError,
    OSError,
    EOFError,
)
"""Errors after which the connection is of no use."""
LATER: Final = frozenset(
    {
        faults.ErrorCodes.TOO_MANY_PARTS,
        faults.ErrorCodes.TABLE_IS_READ_ONLY,
        faults.ErrorCodes.READONLY,
        faults.ErrorCodes.NOT_ENOUGH_SPACE,
        faults.ErrorCodes.MEMORY_LIMIT_EXCEEDED,
        faults.ErrorCodes.TIMEOUT_EXCEEDED,
        faults.ErrorCodes.TOO_MANY_SIMULTANEOUS_QUERIES,
        faults.ErrorCodes.ALL_CONNECTION_TRIES_FAILED,
        faults.ErrorCodes.NETWORK_ERROR,
        faults.ErrorCodes.SOCKET_TIMEOUT,
        faults.ErrorCodes.UNKNOWN_STATUS_OF_INSERT,
        faults.ErrorCodes.UNFINISHED,
        faults.ErrorCodes.KEEPER_EXCEPTION,
    }
)
"""Codes of a server that may take the same statement later."""
_ACCESS_DENIED: Final = 497
_AUTHENTICATION_FAILED: Final = 516
LOGIN: Final = frozenset(
    {
        faults.ErrorCodes.UNKNOWN_USER,
        faults.ErrorCodes.WRONG_PASSWORD,
        faults.ErrorCodes.REQUIRED_PASSWORD,
        faults.ErrorCodes.IP_ADDRESS_NOT_ALLOWED,
        faults.ErrorCodes.DATABASE_ACCESS_DENIED,
        _ACCESS_DENIED,
        _AUTHENTICATION_FAILED,
    }
)
"""Codes of a server that does not want us."""


def refused(server: str, error: faults.ServerException, row_faults: frozenset[int]) -> StoreError:
    """Return what a server's refusal means."""
    text = f"code {error.code}: {error.message.partition(chr(10))[0].removeprefix('DB::Exception: ')}"
    if error.code in LOGIN:
        return StoreSettingsError(
            f"ClickHouse {server} refuses us ({text}); set clickhouse.user and the environment variable "
            "SHOPKEEPER__CLICKHOUSE__PASSWORD, or grant the user what it lacks"
        )
    kind = StoreRowsError if error.code in row_faults else StoreError
    return (StoreUnavailableError if error.code in LATER else kind)(f"ClickHouse {server} refused a statement ({text})")


def away(settings: ClickHouseSettings, error: Exception) -> StoreUnavailableError:
    """Return what an error of `AWAY` means."""
    if settings.tls and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StoreSettingsError(
            f"the certificate of ClickHouse {settings.server} is not trusted ({error}); set clickhouse.ca to the file "
            "of its authority, or clickhouse.server to a name that it has"
        )
    why = "timed out" if isinstance(error, faults.SocketTimeoutError) else error
    return StoreUnavailableError(
        f"ClickHouse {settings.server} does not answer ({why}); start it, or set clickhouse.server to its native port, "
        "9000 or with clickhouse.tls 9440; if it is slow to greet, lengthen clickhouse.connect_s"
    )


def explained(settings: ClickHouseSettings, fault: StoreUnavailableError) -> StoreUnavailableError:
    """Return the fault of a first connection, with the setting that is to blame where another would do."""
    cause, server = fault.__cause__, settings.server
    if settings.tls and settings.ca and not settings.ca.is_file():
        return StoreSettingsError(f"clickhouse.ca {settings.ca} is no file; name that of the server's authority, PEM")
    if isinstance(fault, StoreSettingsError) or not _is_answer(cause):
        return fault
    if settings.tls and _answers_plainly(settings):
        return StoreSettingsError(f"ClickHouse {server} speaks no TLS; set clickhouse.tls=false, or its TLS port")
    if not settings.tls and _speaks_tls(settings):
        return StoreSettingsError(f"{server} speaks TLS; set clickhouse.tls=true, or clickhouse.server to another port")
    if isinstance(cause, faults.UnexpectedPacketFromServerError):
        return StoreSettingsError(f"{server} is no ClickHouse ({cause}); set clickhouse.server to its native port")
    return fault


def _is_answer(error: BaseException | None) -> bool:
    """Return whether somebody is there who does not speak as we do."""
    signs = ("[SSL", os.strerror(errno.ECONNRESET))  # the driver keeps no more of an error than its text
    is_sign = isinstance(error, faults.NetworkError) and any(sign in str(error) for sign in signs)
    return is_sign or isinstance(error, (EOFError, ConnectionResetError, faults.UnexpectedPacketFromServerError))


def _answers_plainly(settings: ClickHouseSettings) -> bool:
    """Return whether ClickHouse answers nobody, who shows no password, without TLS."""
    timeouts = {"connect_timeout": settings.connect_s, "send_receive_timeout": settings.connect_s}
    connection = Connection(*host_and_port(settings.server), user="", password="", **timeouts)
    try:
        connection.connect()
    except faults.ServerException:
        return True
    except (faults.Error, OSError, EOFError):
        return False
    finally:
        connection.disconnect()
    return True


def _speaks_tls(settings: ClickHouseSettings) -> bool:
    address = host_and_port(settings.server)
    try:
        with socket.create_connection(address, settings.connect_s) as plain, unverified_context().wrap_socket(plain):
            return True
    except OSError:
        return False
