"""The table view in chDB: ClickHouse inside this process, which then owns the folder."""

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pyarrow as pa

from server.adapters.sql_store import ROW_FAULTS, SqlStore, array_text, escaped
from server.lockfile import FileLock, LockHeldError
from server.ports import StoreBusyError, StoreError, StoreRowsError

_CODE: Final = re.compile(r"Code: (\d+)")


class ChdbStore(SqlStore):
    """`EventStore` in the folder `folder`; one process at a time has it open.

    Parameters
    ----------
    folder : folder of the tables, made if need be
    consent_default : whether training is allowed while a visitor has not answered
    retention_days : days after which events and decisions end; 0 keeps them
    time_zone : of the shop; exports tell trainers

    Raises
    ------
    StoreBusyError : another process owns the folder; the text names it
    StoreError : chDB is not installed, or cannot open the folder
    """

    def __init__(
        self, folder: Path, *, consent_default: bool = True, retention_days: int = 0, time_zone: str = "UTC"
    ) -> None:
        super().__init__(consent_default=consent_default, retention_days=retention_days, time_zone=time_zone)
        try:
            self._lock = FileLock(folder.with_suffix(".lock"))
        except LockHeldError as error:
            raise StoreBusyError(
                f"tables {folder} are owned by process {error.owner}; stop it, or ask it for an export"
            ) from error
        try:
            self._session = _open_session(folder)
            self.query("CREATE DATABASE IF NOT EXISTS shopkeeper")
            self.query("USE shopkeeper")
        except BaseException:
            self._lock.release()
            raise

    def insert(self, table: str, rows: pa.Table) -> None:
        """Add rows; a row with a known key replaces the old one."""
        if not rows.num_rows:
            return
        columns = ", ".join(rows.column_names)
        with TemporaryDirectory(prefix="shopkeeper-") as folder:
            path = f"{folder}/rows.arrow"
            with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
                writer.write_table(rows)
            sql = f"INSERT INTO {table} ({columns}) SELECT {columns} FROM file({{path:String}}, Arrow)"  # noqa: S608
            self.query(sql, {"path": path})

    def query(self, sql: str, params: Mapping[str, object] | None = None) -> pa.Table:
        """Return the result of `sql`, in which `{name:Type}` stands for a parameter; empty where it has none."""
        bound = {name: _parameter(value) for name, value in (params or {}).items()}
        try:
            data = self._session.query(sql, "ArrowStream", params=bound).bytes()
        except Exception as error:
            code = _CODE.search(str(error))
            kind = StoreRowsError if code and int(code[1]) in ROW_FAULTS else StoreError
            raise kind(f"chDB refused a statement ({error}); look at the disk and at the version") from error
        return pa.ipc.open_stream(data).read_all() if data else pa.table({})

    def close(self) -> None:
        """Let go of the tables, so that another process may open them."""
        self._session.close()
        self._lock.release()

    def write(self, path: Path, select: str) -> None:
        """Write the result of `select` as a Parquet file, without keeping it in memory."""
        self.query(f"{select} INTO OUTFILE '{escaped(str(path))}' FORMAT Parquet")


def _open_session(folder: Path) -> Any:
    try:
        return importlib.import_module("chdb.session").Session(str(folder))
    except ModuleNotFoundError as error:
        raise StoreError("chDB is not installed; run `pip install 'shopkeeper[embedded]'`") from error
    except RuntimeError as error:
        raise StoreError(f"tables {folder} cannot be opened ({error}); look at the folder's owner and disk") from error


def _parameter(value: object) -> str:
    """Return a value as ClickHouse reads a parameter: an array of quoted values, or one escaped value."""
    if isinstance(value, list):
        return array_text(value)
    return escaped(str(value)).replace("\t", "\\t").replace("\n", "\\n")
