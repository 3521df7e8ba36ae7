"""The table view on a ClickHouse server, over its native protocol."""

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Final

import pyarrow as pa
import pyarrow.parquet as pq
from clickhouse_driver import Client
from clickhouse_driver import errors as faults

from server.adapters.clickhouse_faults import AWAY, away, explained, refused
from server.adapters.endpoints import host_and_port
from server.adapters.sql_store import ROW_FAULTS, SqlStore, rows_of
from server.ports import StoreError, StoreOutdatedError, StoreRowsError, StoreUnavailableError
from server.settings import ClickHouseSettings

_Columns = list[tuple[str, str]]

_TYPES: Final = {
    "String": pa.string(),
    "Bool": pa.bool_(),
    "Float32": pa.float32(),
    "Float64": pa.float64(),
    **{f"{sign}Int{bits}": getattr(pa, f"{sign.lower()}int{bits}")() for sign in ("", "U") for bits in (8, 16, 32, 64)},
}
_WRAPPER: Final = re.compile(r"(?:LowCardinality|Nullable)\((.*)\)")
_SETTINGS: Final = {
    "server_side_params": True,
    "async_insert": 0,
    "low_cardinality_allow_in_native_format": 0,  # the server makes dictionaries; the driver would, in Python
}
_BYTES: Final = {"strings_as_bytes": True}
_EXPORT_ROWS: Final = 65_536


class ClickHouseStore(SqlStore):
    """`EventStore` in one database of a server; threads take turns on its connection.

    Parameters
    ----------
    settings : where the server is, who we are, how long an answer may take
    consent_default : whether training is allowed while a visitor has not answered
    retention_days : days after which events and decisions end; 0 keeps them
    time_zone : of the shop; exports tell trainers

    Raises
    ------
    StoreUnavailableError : the server is not reached
    StoreError : it refuses us, or is too old; the text has its version and ours
    """

    query_settings: ClassVar[Mapping[str, object]] = {}
    """What every query has to be asked with beside what all are."""

    def __init__(
        self,
        settings: ClickHouseSettings,
        *,
        consent_default: bool = True,
        retention_days: int = 0,
        time_zone: str = "UTC",
    ) -> None:
        super().__init__(consent_default=consent_default, retention_days=retention_days, time_zone=time_zone)
        self._settings = settings
        self._turn = threading.Lock()
        try:
            with self._outside():
                self.check_version()
        except StoreUnavailableError as fault:
            raise explained(settings, fault) from fault.__cause__

    def reach(self) -> dict[str, object]:
        """Return how another process reaches the tables; the password is not among it."""
        settings = self._settings
        where = settings.model_dump(mode="json", include={"server", "database", "user", "tls", "ca"})
        return {**where, "ca": where["ca"] or "", "settings": self._query_settings()}

    def migrate(self, *, retain: bool = True) -> list[str]:
        """Bring database and tables up to date; return the names of the migrations applied now."""
        self.make_database()
        return super().migrate(retain=retain)

    def check(self) -> None:
        """Raise StoreError if the database is too old, and StoreOutdatedError if the tables are; change nothing."""
        server, database = self._settings.server, self._settings.database
        self.close()
        with self._outside():
            ((is_made,),) = rows_of(self.query(f"EXISTS DATABASE {database}"))
        if not is_made:
            raise StoreOutdatedError(f"ClickHouse {server} has no database {database}; run `shopkeeper migrate`")
        super().check()

    def make_database(self) -> None:
        """Make the database of the tables where there is none."""
        self.close()
        with self._outside():
            self.query(f"CREATE DATABASE IF NOT EXISTS {self._settings.database}")

    def insert(self, table: str, rows: pa.Table) -> None:
        """Add rows in one block; a row with a known key replaces the old one."""
        if not rows.num_rows:
            return
        sql = f"INSERT INTO {table} ({', '.join(rows.column_names)}) VALUES"
        columns = [column.to_pylist() for column in rows.columns]
        self._run(lambda: self._client.execute(sql, columns, columnar=True))

    def query(self, sql: str, params: Mapping[str, object] | None = None) -> pa.Table:
        """Return the result of `sql`, in which `{name:Type}` stands for a parameter; empty where it has none."""
        options = {"with_column_types": True, "columnar": True, "settings": _BYTES}
        found = self._run(lambda: self._client.execute(sql, dict(params or {}), **options))
        if not isinstance(found, tuple):
            return pa.table({})
        values, columns = found
        return _table(values or [[] for _ in columns], columns)

    def close(self) -> None:
        """Close the connection."""
        self._client.disconnect()

    def write(self, path: Path, select: str) -> None:
        """Write the result of `select` as a Parquet file, without keeping it in memory.

        Raises
        ------
        StoreError : the file cannot be written
        """
        with self._turn:
            rows = self._rows(select)
            columns, *first = next(rows)
            schema = pa.schema([(name, _arrow_type(kind)) for name, kind in columns])
            try:
                with pq.ParquetWriter(path, schema) as writer:
                    for chunk in chain([first], rows):
                        values = list(zip(*chunk, strict=True)) or [()] * len(columns)
                        writer.write_table(_table(values, columns))
            except OSError as error:
                self._client.disconnect()  # the rest of the answer is on its way
                raise StoreError(f"{path} cannot be written ({error}); free space on its disk") from error

    def _rows(self, select: str) -> Iterator[Any]:
        """Yield the result chunk by chunk, before the first row its columns."""
        options = {"with_column_types": True, "chunk_size": _EXPORT_ROWS, "settings": _BYTES}
        with self._translated():
            yield from self._client.execute_iter(select, **options)

    @contextmanager
    def _outside(self) -> Iterator[None]:
        """Be outside of our database, which may not be there; afterwards inside."""
        self._client = self._connect("default")
        try:
            yield
        finally:
            self._client.disconnect()
            self._client = self._connect(self._settings.database)

    def _connect(self, database: str) -> Client:
        settings = self._settings
        host, port = host_and_port(settings.server)
        client = Client(
            host,
            port=port,
            database=database,
            user=settings.user,
            password=settings.password.get_secret_value(),
            client_name="shopkeeper",
            compression="lz4",
            secure=settings.tls,
            ca_certs=str(settings.ca) if settings.ca else None,
            connect_timeout=settings.connect_s,
            send_receive_timeout=settings.answer_s,
            tcp_keepalive=True,
            settings=self._query_settings(),
        )
        connection, greet = client.connection, client.connection.receive_hello

        def greeted() -> None:
            with connection.timeout_setter(settings.connect_s):
                greet()

        connection.receive_hello = greeted  # the driver would wait for it as long as for any answer
        return client

    def _query_settings(self) -> dict[str, object]:
        return {**_SETTINGS, **self.query_settings}

    def _run(self, statement: Callable[[], Any]) -> Any:
        with self._turn, self._translated():
            return statement()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        server = self._settings.server
        try:
            yield
        except AWAY as error:
            self._client.disconnect()
            raise away(self._settings, error) from error
        except faults.ServerException as error:
            raise refused(server, error, ROW_FAULTS) from error
        except faults.TypeMismatchError as error:
            self._client.disconnect()
            raise StoreRowsError(f"a value does not fit its column ({error})") from error
        except faults.Error as error:
            self._client.disconnect()
            raise StoreError(f"ClickHouse {server} was not understood ({error}); look at its version") from error


def _table(values: Sequence[Sequence[Any]], columns: _Columns) -> pa.Table:
    pairs = zip(values, columns, strict=True)
    return pa.table({name: _array(column, _arrow_type(kind)) for column, (name, kind) in pairs})


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return values as Arrow; text is not checked to be UTF-8, for payloads are none."""
    if kind == pa.string():
        return pa.array(values, pa.binary()).view(kind)
    if kind == pa.bool_():
        return pa.array([None if value is None else bool(value) for value in values], kind)
    return pa.array(values, kind)


def _arrow_type(kind: str) -> pa.DataType:
    while wrapped := _WRAPPER.fullmatch(kind):
        kind = wrapped[1]
    if kind.startswith("Array("):
        return pa.list_(_arrow_type(kind[6:-1]))
    if kind not in _TYPES:
        raise StoreError(f"ClickHouse answered with the type {kind}, which no query of ours needs")
    return _TYPES[kind]
