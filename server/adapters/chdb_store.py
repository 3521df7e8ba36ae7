"""The table view in chDB: ClickHouse inside this process, which then owns the folder."""

import importlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pyarrow as pa

from server.adapters.migrations import FLOOR, Migration, migrations
from server.lockfile import FileLock, LockHeldError
from server.ports import StoreBusyError, StoreError

_VISITOR_TABLES: Final = ("events", "profiles", "decisions", "bad_events")
_EVENT_COLUMNS: Final = (
    "event_id, line, visitor_id, anonymous_id, session_id, event_type, item_id, time_ms, quantity, price, currency, "
    "position, store_id, country_code, device, campaign_id, query, attribution_token"
)
_ITEM_COLUMNS: Final = (
    "item_id, title, category_path, brand, price, sale_price, currency, availability, stock_quantity, release_ms, "
    "promotion_kinds, promotion_start_ms, promotion_end_ms, promotion_shares"
)
_PROFILE_COLUMNS: Final = "visitor_id, trait_names, trait_values, personalization, training, marketing"
_DENIED: Final = "SELECT visitor_id FROM profiles FINAL WHERE NOT training"
_GRANTED: Final = "SELECT visitor_id FROM profiles FINAL WHERE training"
_META: Final = """
SELECT count() AS line_count, uniqExact(event_id) AS event_count, uniqExact(visitor_id) AS visitor_count,
    min(time_ms) AS start_ms, max(time_ms) AS end_ms
FROM file({path:String}, Parquet)
"""


class ChdbStore:
    """`EventStore` in the folder `folder`; one process at a time has it open.

    Parameters
    ----------
    folder : folder of the tables, made if need be
    consent_default : whether training is allowed while a visitor has not answered
    time_zone : of the shop; exports tell trainers

    Raises
    ------
    StoreBusyError : another process owns the folder; the text names it
    StoreError : chDB is not installed, or cannot open the folder
    """

    def __init__(self, folder: Path, *, consent_default: bool = True, time_zone: str = "UTC") -> None:
        self._consent_default = consent_default
        self._time_zone = time_zone
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

    def migrate(self) -> list[str]:
        """Bring the tables up to date; return the names of the migrations applied now."""
        found = self.version()
        if found < FLOOR:
            raise StoreError("ClickHouse {}.{} is too old; take {}.{} or newer".format(*found, *FLOOR))
        self.query(
            "CREATE TABLE IF NOT EXISTS migrations (name String, checksum String, apply_ms Int64) "
            "ENGINE = MergeTree ORDER BY name SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"
        )
        applied = dict(_rows(self.query("SELECT name, checksum FROM migrations")))
        return [one.name for one in migrations() if self._apply(one, applied.get(one.name))]

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
            raise StoreError(f"chDB refused a statement ({error}); look at the disk and at the version") from error
        return pa.ipc.open_stream(data).read_all() if data else pa.table({})

    def offset(self) -> int:
        """Return the offset up to which the log is in the tables; 0 at first."""
        return self._number("SELECT max(log_offset) FROM sink_offsets WHERE name = 'log'")

    def save_offset(self, offset: int) -> None:
        """Keep the offset; to be called after the rows up to it are inserted."""
        self.insert("sink_offsets", pa.table({"name": ["log"], "log_offset": [offset]}))

    def erase(self, erasures: Mapping[str, int]) -> None:
        """Delete all rows of each visitor that came from records before the given offset; wait until they are gone."""
        params = {"visitors": list(erasures), "offsets": list(erasures.values())}
        for table in _VISITOR_TABLES:
            self.query(
                f"ALTER TABLE {table} DELETE WHERE visitor_id IN {{visitors:Array(String)}} AND log_offset < "
                "transform(visitor_id, {visitors:Array(String)}, {offsets:Array(Int64)}, toInt64(0)) "
                "SETTINGS mutations_sync = 2",
                params,
            )

    def export(self, folder: Path) -> None:
        """Write `events`, `items`, `profiles`, `placements` as Parquet files and `meta.json` to a new folder.

        Visitors who deny training are left out, with what they did before they were known.
        """
        beside = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        trainable = self._trainable()
        self._write(
            beside / "events.parquet",
            f"SELECT {_EVENT_COLUMNS} FROM events FINAL WHERE {trainable} AND anonymous_id NOT IN ({_DENIED}) "  # noqa: S608
            "ORDER BY time_ms, event_id, line",
        )
        self._write(
            beside / "items.parquet",
            f"SELECT {_ITEM_COLUMNS} FROM items FINAL WHERE NOT deleted ORDER BY item_id",  # noqa: S608
        )
        self._write(
            beside / "profiles.parquet",
            f"SELECT {_PROFILE_COLUMNS} FROM profiles FINAL WHERE {trainable} ORDER BY visitor_id",  # noqa: S608
        )
        self._write(
            beside / "placements.parquet",
            "SELECT document_id AS placement_id, base64Encode(payload) AS payload FROM documents FINAL "
            "WHERE kind = 'placement' AND NOT deleted ORDER BY placement_id",
        )
        (beside / "meta.json").write_text(json.dumps(self._meta(beside), indent=2) + "\n", encoding="utf-8")
        beside.replace(folder)

    def version(self) -> tuple[int, int]:
        """Return major and minor version of the database."""
        ((text,),) = _rows(self.query("SELECT version()"))
        major, minor = text.split(".")[:2]
        return int(major), int(minor)

    def close(self) -> None:
        """Let go of the tables, so that another process may open them."""
        self._session.close()
        self._lock.release()

    def _apply(self, migration: Migration, checksum: str | None) -> bool:
        if checksum is None:
            for statement in migration.statements:
                self.query(statement)
            row = {"name": migration.name, "checksum": migration.checksum, "apply_ms": time.time_ns() // 1_000_000}
            self.insert("migrations", pa.Table.from_pylist([row]))
        elif checksum != migration.checksum:
            raise StoreError(f"migration {migration.name} was changed after it was applied; undo that, add a new one")
        return checksum is None

    def _trainable(self) -> str:
        answered = f"NOT IN ({_DENIED})" if self._consent_default else f"IN ({_GRANTED})"
        aliases = f"SELECT anonymous_id FROM events WHERE visitor_id IN ({_DENIED})"  # noqa: S608
        return f"visitor_id {answered} AND visitor_id NOT IN ({aliases})"

    def _write(self, path: Path, select: str) -> None:
        self.query(f"{select} INTO OUTFILE '{_escaped(str(path))}' FORMAT Parquet")

    def _meta(self, folder: Path) -> dict[str, object]:
        (meta,) = self.query(_META, {"path": str(folder / "events.parquet")}).to_pylist()
        for name in ("item", "profile"):
            path = str(folder / f"{name}s.parquet")
            meta[f"{name}_count"] = self._number("SELECT count() FROM file({path:String}, Parquet)", {"path": path})
        facts = {"consent_default": self._consent_default, "time_zone": self._time_zone}
        return {"offset": self.offset(), **facts, **meta}

    def _number(self, sql: str, params: Mapping[str, object] | None = None) -> int:
        ((number,),) = _rows(self.query(sql, params))
        return int(number)


def _open_session(folder: Path) -> Any:
    try:
        return importlib.import_module("chdb.session").Session(str(folder))
    except ModuleNotFoundError as error:
        raise StoreError("chDB is not installed; run `pip install 'shopkeeper[embedded]'`") from error
    except RuntimeError as error:
        raise StoreError(f"tables {folder} cannot be opened ({error}); look at the folder's owner and disk") from error


def _rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def _parameter(value: object) -> str:
    """Return a value as ClickHouse reads a parameter: an array of quoted values, or one escaped value."""
    if not isinstance(value, list):
        return _escaped(str(value)).replace("\t", "\\t").replace("\n", "\\n")
    return "[" + ", ".join(f"'{_escaped(one)}'" if isinstance(one, str) else str(one) for one in value) + "]"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
