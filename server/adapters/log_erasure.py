"""Forgetting a visitor in the log's file. When that was is kept beside the records, which trimming removes."""

import sqlite3
from collections.abc import Iterable
from typing import Final

from server.adapters.log_rows import Row
from server.ports import LogRecord
from shopkeeper.v1.record_pb2 import (
    RECORD_KIND_DECISION,
    RECORD_KIND_ERASURE,
    RECORD_KIND_EVENT,
    RECORD_KIND_PROFILE,
)

SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS erasure_times (key TEXT PRIMARY KEY, time_ms INTEGER NOT NULL) STRICT;
INSERT OR IGNORE INTO erasure_times
    SELECT key, max(time_ms) FROM records WHERE kind = {RECORD_KIND_ERASURE} GROUP BY key;
"""  # noqa: S608
"""Of a file that has records; what its erasures say already is taken over."""

_ERASED_KINDS: Final = (RECORD_KIND_EVENT, RECORD_KIND_DECISION, RECORD_KIND_PROFILE)
_ERASED: Final = f"""
key = :key AND key != '' AND EXISTS (
    SELECT 1 FROM (
        SELECT "offset" AS erasure_offset, time_ms AS erasure_ms FROM records
        WHERE key = :key AND kind = {RECORD_KIND_ERASURE} ORDER BY "offset" DESC LIMIT 1
    )
    WHERE kind IN ({", ".join(map(str, _ERASED_KINDS))}) AND "offset" < erasure_offset
        OR kind = {RECORD_KIND_DECISION} AND time_ms <= erasure_ms
)
"""  # noqa: S608
_ERASE: Final = (
    f"""
    UPDATE records SET kind = 0, time_ms = 0, key = '', record_id = '', payload = x'', checksum = NULL
    WHERE "offset" = (SELECT max("offset") FROM records) AND {_ERASED}
    """,  # noqa: S608
    f"DELETE FROM records WHERE {_ERASED}",  # noqa: S608
)
"""The newest record is emptied and not deleted, for SQLite would give its offset to the next."""
_KEEP_TIME: Final = """
INSERT INTO erasure_times VALUES (?, ?) ON CONFLICT DO UPDATE SET time_ms = max(time_ms, excluded.time_ms)
"""


def erase(connection: sqlite3.Connection, key: str) -> int:
    """Delete what the visitor's newest erasure record is about; return how many records."""
    return sum(connection.execute(sql, {"key": key}).rowcount for sql in _ERASE)


def keep_times(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Remember when visitors were forgotten, as the erasures among the rows say."""
    times = [(row[1], row[4]) for row in rows if row[0] == RECORD_KIND_ERASURE]
    if times:
        connection.executemany(_KEEP_TIME, times)


def is_forgotten(connection: sqlite3.Connection, record: LogRecord) -> bool:
    """Return whether the record's visitor was forgotten after a log took the record, wherever that was."""
    if record.kind not in _ERASED_KINDS:
        return False
    found = connection.execute("SELECT time_ms FROM erasure_times WHERE key = ?", (record.key,)).fetchone()
    return found is not None and record.time_ms <= found[0]
