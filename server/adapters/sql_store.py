"""The table view in SQL: one dialect, whichever connection carries it."""

import json
import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
import structlog

from server.adapters.migrations import FLOOR, Migration, migrations
from server.ports import Erasure, StoreError, StoreOutdatedError

ROW_FAULTS: Final = frozenset({6, 26, 27, 38, 41, 53, 69, 70, 72, 117, 407, 469})
"""Codes of ClickHouse for a row that does not fit: what cannot be parsed or converted, is out of bounds, or violates a
constraint."""

RETAINED_TABLES: Final = ("events", "decisions", "bad_events", "statements")
"""Tables whose rows may end by age; the others hold what is true now."""

_NEW: Final = "new"
_RETAINED: Final = "retention"
"""Names among the migrations that tell that the tables were begun, and that the age at which rows end was settled."""
_TTL: Final = re.compile(r"\nTTL toDateTime\(fromUnixTimestamp64Milli\(time_ms\) \+ toIntervalDay\((\d+)\)\)(\n|$)")

_logger = structlog.get_logger(__name__)

_EVENT_COLUMNS: Final = (
    "event_id, line, visitor_id, anonymous_id, session_id, event_type, item_id, time_ms, quantity, price, currency, "
    "position, store_id, country_code, device, campaign_id, query, attribution_token"
)
_COUNTED_COLUMNS: Final = "event_id, visitor_id, item_id, event_type, time_ms"
_ITEM_COLUMNS: Final = (
    "item_id, title, category_path, brand, price, sale_price, currency, availability, stock_quantity, release_ms, "
    "promotion_kinds, promotion_start_ms, promotion_end_ms, promotion_shares"
)
_PROFILE_COLUMNS: Final = "visitor_id, trait_names, trait_values, personalization, training, marketing"
_DENIED: Final = "SELECT visitor_id FROM profiles FINAL WHERE NOT training"
_LOGIN: Final = "FROM events WHERE anonymous_id != visitor_id AND"
_BOUND: Final = f"SELECT DISTINCT visitor_id {_LOGIN} anonymous_id IN ({_DENIED})"
"""Who logged in where somebody had denied."""
_ASKED_AGAIN: Final = f"SELECT DISTINCT anonymous_id {_LOGIN} anonymous_id != ''"
"""Browsers in which somebody logged in: what they granted went to the user."""
_GRANTED: Final = "SELECT visitor_id FROM profiles FINAL WHERE training"
_MIGRATIONS_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS migrations (name String, checksum String, apply_ms Int64) "
    "ENGINE = MergeTree ORDER BY name SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"
)
_IS_BEFORE: Final = "log_offset < transform(visitor_id, {visitors:Array(String)}, {offsets:Array(Int64)}, toInt64(-1))"
_IS_AS_OLD: Final = "<= transform(visitor_id, {visitors:Array(String)}, {times:Array(Int64)}, toInt64(-1))"
_ERASED: Final[Mapping[str, str]] = {
    "events": f"if(arrive_ms > 0, arrive_ms {_IS_AS_OLD}, {_IS_BEFORE})",
    "profiles": _IS_BEFORE,
    "statements": f"time_ms {_IS_AS_OLD}",
    "decisions": f"time_ms {_IS_AS_OLD}",
    "bad_events": f"time_ms {_IS_AS_OLD}",
}
"""Rows of each table that the erasures are about, among those of their visitors: what a log took by their time.

A row of `profiles` is made of statements, and of those since an erasure a new one is, of the erasure's place.
"""


class SqlStore(ABC):
    """`EventStore` over something that runs SQL.

    Parameters
    ----------
    consent_default : whether training is allowed while a visitor has not answered
    retention_days : days after which events and decisions end; 0 keeps them
    time_zone : of the shop; exports tell trainers
    """

    def __init__(self, *, consent_default: bool = True, retention_days: int = 0, time_zone: str = "UTC") -> None:
        self._consent_default = consent_default
        self._retention_days = retention_days
        self._time_zone = time_zone

    @abstractmethod
    def query(self, sql: str, params: Mapping[str, object] | None = None) -> pa.Table:
        """Return the result of `sql`, in which `{name:Type}` stands for a parameter; empty where it has none."""

    @abstractmethod
    def insert(self, table: str, rows: pa.Table) -> None:
        """Add rows; a row with a known key replaces the old one."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the tables."""

    @abstractmethod
    def write(self, path: Path, select: str) -> None:
        """Write the result of `select` as a Parquet file, without keeping it in memory."""

    def migrate(self, *, retain: bool = True) -> list[str]:
        """Bring the tables up to date; return the names of the migrations applied.

        Rows then end as the settings say, unless that was settled before and is not to be changed.
        """
        self.check_version()
        self.query(_MIGRATIONS_TABLE)
        applied = dict(rows_of(self.query("SELECT name, checksum FROM migrations ORDER BY name")))
        if not applied:
            self._note(_NEW, "")
            applied[_NEW] = ""
        names = [one.name for one in migrations() if self._apply(one, applied.get(one.name))]
        if retain or (_NEW in applied and _RETAINED not in applied):
            is_known = _RETAINED in applied
            if is_known and (fault := self.retention_fault()):
                _logger.warning("retention_changes", reason=fault)
            self._retain()
            if not is_known:
                self._note(_RETAINED, "")
        return names

    def retention_fault(self) -> str:
        """Say which rows end otherwise than the settings have it; empty where none do."""
        found = {table: days for table, days in self._retained().items() if days != self._retention_days}
        ends = {0: "never", None: "by another rule"}
        said = ", ".join(f"{table} {ends.get(days, f'after {days} days')}" for table, days in found.items())
        return f"rows end otherwise than sink.retention_days = {self._retention_days} says: {said}" if found else ""

    def applied(self) -> list[str]:
        """Return the names of the migrations that the tables have."""
        return [name for name in self._noted() if name not in {_NEW, _RETAINED}]

    def _noted(self) -> list[str]:
        return [name for (name,) in rows_of(self.query("SELECT DISTINCT name FROM migrations ORDER BY name"))]

    def check(self) -> None:
        """Raise StoreError if the database is too old, and StoreOutdatedError if the tables are; change nothing."""
        self.check_version()
        ((is_made,),) = rows_of(self.query("EXISTS TABLE migrations"))
        noted = self._noted() if is_made else []
        wanted = [*(one.name for one in migrations()), *([_RETAINED] if _NEW in noted else [])]
        if missing := [name for name in wanted if name not in noted]:
            raise StoreOutdatedError(f"the tables lack the migration {missing[0]}; run `shopkeeper migrate`")

    def check_version(self) -> None:
        """Raise StoreError if the database is too old."""
        found = self.version()
        if found < FLOOR:
            raise StoreError("ClickHouse {}.{} is too old; take {}.{} or newer".format(*found, *FLOOR))

    def positions(self) -> dict[str, int]:
        """Return the offset up to which each part of the log is in the tables."""
        return dict(rows_of(self.query("SELECT name, max(log_offset) FROM sink_offsets GROUP BY name ORDER BY name")))

    def save_positions(self, positions: Mapping[str, int]) -> None:
        """Keep the positions; to be called after the rows up to them are inserted."""
        self.insert("sink_offsets", pa.table({"name": list(positions), "log_offset": list(positions.values())}))

    def erasures(self) -> dict[str, Erasure]:
        """Return the newest erasure of each visitor who was forgotten."""
        found = rows_of(self.query("SELECT visitor_id, log_offset, time_ms FROM erasures FINAL"))
        return {visitor_id: Erasure(offset, time_ms) for visitor_id, offset, time_ms in found}

    def erase(self, erasures: Mapping[str, Erasure]) -> None:
        """Delete all rows that the erasures are about, and keep the erasures; wait until the rows are gone."""
        if not erasures:
            return
        visitors = list(erasures)
        offsets, times = map(list, zip(*erasures.values(), strict=True))
        self.insert("erasures", pa.table({"visitor_id": visitors, "log_offset": offsets, "time_ms": times}))
        params = {"visitors": visitors, "offsets": offsets, "times": times}
        for table, condition in _ERASED.items():
            where = f"visitor_id IN {{visitors:Array(String)}} AND ({condition})"
            self.query(f"ALTER TABLE {table} DELETE WHERE {where} SETTINGS mutations_sync = 1", params)

    def export(self, folder: Path) -> None:
        """Write `events`, `items`, `profiles`, `placements` as Parquet files and `meta.json` to a new folder.

        Visitors who deny training are left out, with what they did before they were known.
        """
        beside = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        positions = self.positions()
        for name, select in self.exports().items():
            self.write(beside / f"{name}.parquet", select)
        facts = {"positions": positions, "consent_default": self._consent_default, "time_zone": self._time_zone}
        meta = {**_meta(beside), **facts}
        (beside / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
        beside.replace(folder)

    def exports(self) -> dict[str, str]:
        """Return the query of each file of an export."""
        trainable = self._trainable()
        return {
            "events": f"SELECT {_EVENT_COLUMNS} {self._trainable_lines()} ORDER BY time_ms, event_id, line",
            "items": f"SELECT {_ITEM_COLUMNS} FROM items FINAL WHERE NOT deleted ORDER BY item_id",  # noqa: S608
            "profiles": f"SELECT {_PROFILE_COLUMNS} FROM profiles FINAL WHERE {trainable} ORDER BY visitor_id",  # noqa: S608
            "placements": "SELECT document_id AS placement_id, base64Encode(payload) AS payload FROM documents FINAL "
            "WHERE kind = 'placement' AND NOT deleted ORDER BY placement_id",
        }

    def shard_queries(self) -> dict[str, str]:
        """Return the queries of trainers that read the tables themselves.

        `events` gives the lines of the visitors whose hash is `shard` modulo `shards`, `items` the ids of the items.
        """
        return {
            "events": f"SELECT {_COUNTED_COLUMNS} {self._trainable_lines()} AND item_id != '' "
            "AND cityHash64(visitor_id) % {shards:UInt64} = {shard:UInt64}",
            "items": "SELECT item_id FROM items FINAL WHERE NOT deleted ORDER BY item_id",
        }

    def version(self) -> tuple[int, int]:
        """Return major and minor version of the database."""
        ((text,),) = rows_of(self.query("SELECT version()"))
        major, minor = text.split(".")[:2]
        return int(major), int(minor)

    def _apply(self, migration: Migration, checksum: str | None) -> bool:
        if checksum is None:
            for statement in migration.statements:
                self.query(statement)
            self._note(migration.name, migration.checksum)
        elif checksum != migration.checksum:
            raise StoreError(f"migration {migration.name} was changed after it was applied; undo that, add a new one")
        return checksum is None

    def _note(self, name: str, checksum: str) -> None:
        row = {"name": name, "checksum": checksum, "apply_ms": time.time_ns() // 1_000_000}
        self.insert("migrations", pa.Table.from_pylist([row]))

    def _retain(self) -> None:
        """Let rows end by age, as the settings say; a table that says so already is left alone."""
        for table, days in self._retained().items():
            if days == self._retention_days:
                continue
            if self._retention_days:
                end = f"fromUnixTimestamp64Milli(time_ms) + toIntervalDay({self._retention_days})"
                self.query(f"ALTER TABLE {table} MODIFY TTL toDateTime({end})")
            else:
                self.query(f"ALTER TABLE {table} REMOVE TTL")

    def _retained(self) -> dict[str, int | None]:
        """Return the days after which the rows of each table end: 0 where they stay, None by a rule not of ours."""
        found: dict[str, int | None] = {}
        for table in RETAINED_TABLES:
            ((definition,),) = rows_of(self.query(f"SHOW CREATE TABLE {table}"))
            days = _TTL.search(definition)
            found[table] = int(days[1]) if days else None if "\nTTL " in definition else 0
        return found

    def _trainable_lines(self) -> str:
        """Return where the event lines are that trainers may read."""
        return f"FROM events FINAL WHERE {self._trainable()} AND anonymous_id NOT IN ({_DENIED})"

    def _trainable(self) -> str:
        aliases = [f"SELECT DISTINCT anonymous_id {_LOGIN} visitor_id IN ({who})" for who in (_DENIED, _BOUND)]
        answered = f"NOT IN ({_DENIED})" if self._consent_default else f"IN ({_GRANTED})"
        others = [_BOUND, *aliases, *([] if self._consent_default else [_ASKED_AGAIN])]
        return " AND ".join([f"visitor_id {answered}", *(f"visitor_id NOT IN ({who})" for who in others)])


def rows_of(table: pa.Table) -> list[tuple[Any, ...]]:
    """Return a result row by row."""
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def array_text(values: Iterable[object]) -> str:
    """Return an array as ClickHouse reads a parameter."""
    return "[" + ", ".join(f"'{escaped(one)}'" if isinstance(one, str) else str(one) for one in values) + "]"


def escaped(text: str) -> str:
    """Return text as it stands between quotes."""
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _meta(folder: Path) -> dict[str, object]:
    lines = pl.scan_parquet(folder / "events.parquet").select(
        line_count=pl.len(),
        event_count=pl.col("event_id").n_unique(),
        visitor_count=pl.col("visitor_id").n_unique(),
        start_ms=pl.col("time_ms").min().fill_null(0),
        end_ms=pl.col("time_ms").max().fill_null(0),
    )
    meta: dict[str, object] = lines.collect().row(0, named=True)
    for name in ("item", "profile"):
        meta[f"{name}_count"] = pl.scan_parquet(folder / f"{name}s.parquet").select(pl.len()).collect().item()
    return meta
