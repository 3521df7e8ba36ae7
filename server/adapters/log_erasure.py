"""What the log's file has to know of visitors for longer than it keeps records, and forgetting them.

Kept beside the records, which trimming removes, are: when each visitor was forgotten, who is a user and which
anonymous ids were found to be whose, and what was stated about visitors.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final

from server import kinds
from server.adapters.log_rows import COLUMNS, Row, records_of, row_of
from server.ports import LogRecord, NewRecord
from shopkeeper.v1.common_pb2 import Context
from shopkeeper.v1.record_pb2 import RECORD_KIND_ERASURE, RECORD_KIND_EVENT


def _among(found: Iterable[int]) -> str:
    return f"kind IN ({', '.join(map(str, sorted(found)))})"


STATEMENTS: Final = f"""
SELECT {COLUMNS} FROM (
    SELECT {COLUMNS} FROM trimmed_profiles WHERE "offset" > :after
    UNION ALL SELECT {COLUMNS} FROM records WHERE {_among(kinds.STATING)} AND "offset" > :after
) ORDER BY "offset" LIMIT :limit
"""  # noqa: S608
"""What was stated about visitors, trimmed or not, in order."""
_IS_OF: Final = "key = :key AND key != '' AND \"offset\" > :after AND time_ms > :after_ms"
RECORDS_OF: Final = f"""
SELECT {COLUMNS} FROM trimmed_profiles WHERE {_IS_OF} UNION ALL SELECT {COLUMNS} FROM records WHERE {_IS_OF}
ORDER BY "offset" LIMIT 1000
"""  # noqa: S608
"""What is kept of one visitor and was taken after a time, in order."""
SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS erasure_times (key TEXT PRIMARY KEY, time_ms INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS erasure_times_by_time ON erasure_times (time_ms);
INSERT OR IGNORE INTO erasure_times
    SELECT key, max(time_ms) FROM records WHERE kind = {RECORD_KIND_ERASURE} GROUP BY key;
CREATE TABLE IF NOT EXISTS erasures_lost (one INTEGER PRIMARY KEY, until_ms INTEGER NOT NULL) STRICT;
INSERT OR IGNORE INTO erasures_lost SELECT 1, time_ms FROM erasure_times ORDER BY time_ms DESC LIMIT 1;
CREATE TABLE IF NOT EXISTS aliases (
    key TEXT, anonymous_id TEXT, time_ms INTEGER NOT NULL, PRIMARY KEY (key, anonymous_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trimmed_profiles (
    "offset" INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    key TEXT NOT NULL,
    record_id TEXT NOT NULL,
    payload BLOB NOT NULL,
    checksum INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS trimmed_profiles_by_key ON trimmed_profiles (key);
"""  # noqa: S608
"""Of a file that has records; what its erasures say already is taken over."""

_IS_OLD: Final = "time_ms <= (SELECT time_ms FROM erasure_times WHERE key = :key)"
_IS_BEFORE: Final = f"""
"offset" < (SELECT max("offset") FROM records WHERE key = :key AND key != '' AND kind = {RECORD_KIND_ERASURE})
"""  # noqa: S608
_ERASED: Final = f"""
key = :key AND key != '' AND {_among(kinds.ERASED)} AND {_IS_OLD} AND ({_among(kinds.QUEUED)} OR {_IS_BEFORE})
"""
_ERASE: Final = (
    f"""
    UPDATE records SET kind = 0, time_ms = 0, key = '', record_id = '', payload = x'', checksum = NULL
    WHERE "offset" = (SELECT max("offset") FROM records) AND {_ERASED}
    """,  # noqa: S608
    f"DELETE FROM records WHERE {_ERASED}",  # noqa: S608
)
"""The newest record is emptied and not deleted, for SQLite would give its offset to the next."""
_LEFT: Final = f"SELECT 1 FROM records WHERE {_ERASED} LIMIT 1"  # noqa: S608
_ERASE_ALIASES: Final = f"DELETE FROM aliases WHERE key = :key AND {_IS_OLD}"  # noqa: S608
_ERASE_PROFILES: Final = f"DELETE FROM trimmed_profiles WHERE key = :key AND {_IS_OLD} AND {_IS_BEFORE}"  # noqa: S608
_KEEP_TIME: Final = """
INSERT INTO erasure_times VALUES (?, ?) ON CONFLICT DO UPDATE SET time_ms = max(time_ms, excluded.time_ms)
"""
_KEEP_ALIAS: Final = """
INSERT INTO aliases VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET time_ms = max(time_ms, excluded.time_ms)
"""
_KEEP_PROFILES: Final = f"""
INSERT INTO trimmed_profiles SELECT {COLUMNS} FROM records WHERE "offset" <= ? AND {_among(kinds.STATING)}
"""  # noqa: S608
_KEEP_LOST: Final = f"""
INSERT INTO erasures_lost
    SELECT 1, max(time_ms) FROM records WHERE "offset" <= ? AND kind = {RECORD_KIND_ERASURE} GROUP BY kind
    ON CONFLICT DO UPDATE SET until_ms = max(until_ms, excluded.until_ms)
"""  # noqa: S608
_EVENTS: Final = f"""
SELECT {COLUMNS} FROM records WHERE "offset" <= ? AND kind = {RECORD_KIND_EVENT} ORDER BY "offset"
"""  # noqa: S608
_ERASED_SINCE: Final = f"""
FROM records WHERE key = :key AND key != '' AND kind = {RECORD_KIND_ERASURE} AND time_ms >= :time_ms
"""
"""Of which an answer is selected: the erasures of a visitor from a time on."""
_TOLD: Final = f"SELECT 1 {_ERASED_SINCE} AND payload = :payload"
_FIRST_ERASED: Final = f"""
SELECT min(time_ms) {_ERASED_SINCE}
    AND NOT EXISTS (SELECT 1 FROM erasures_lost WHERE until_ms >= :time_ms)
"""  # noqa: S608
_ALIASES: Final = "SELECT anonymous_id FROM aliases WHERE key = :key"
_SHOWN: Final = f"""
SELECT {COLUMNS} FROM records WHERE key = :key AND key != '' AND kind = {RECORD_KIND_EVENT}
"""  # noqa: S608
_IS_FOREIGN: Final = '"offset" IN (SELECT "offset" FROM foreign_records)'


def erase(connection: sqlite3.Connection, key: str) -> int:
    """Delete what the visitor's erasures are about; return how many records.

    That is what any log took up to the time of the newest of them, and this log has before the last.
    """
    for sql in (_ERASE_ALIASES, _ERASE_PROFILES):
        connection.execute(sql, {"key": key})
    return sum(connection.execute(sql, {"key": key}).rowcount for sql in _ERASE)


def unfinished(connection: sqlite3.Connection) -> list[str]:
    """Return the visitors that were to be forgotten and of whom there are records still."""
    keys = [key for (key,) in connection.execute("SELECT key FROM erasure_times")]
    return [key for key in keys if connection.execute(_LEFT, {"key": key}).fetchone()]


def keep_times(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Remember when visitors were forgotten, as the erasures among the rows say."""
    times = [(row[1], row[4]) for row in rows if row[0] == RECORD_KIND_ERASURE]
    if times:
        connection.executemany(_KEEP_TIME, times)


def is_forgotten(connection: sqlite3.Connection, record: LogRecord) -> bool:
    """Return whether the record's visitor was forgotten after a log took the record, wherever that was.

    So it is nothing that the log lacks; of an erasure, whether the log has to know no other.
    """
    if record.kind == RECORD_KIND_ERASURE:
        return _is_told(connection, record)
    return record.kind in kinds.ERASED and record.time_ms <= _erased_ms(connection, record.key)


def _is_told(connection: sqlite3.Connection, erasure: LogRecord) -> bool:
    """Return whether an erasure of the visitor as of this time or later is known.

    One that names a user is known by a record of the same payload only, so not once that is trimmed.
    """
    is_known = erasure.time_ms <= _erased_ms(connection, erasure.key)
    if is_known and kinds.erased_user(erasure.payload):
        return connection.execute(_TOLD, erasure._asdict()).fetchone() is not None
    return is_known


def _erased_ms(connection: sqlite3.Connection, key: str) -> int:
    """Return when a visitor was forgotten, Unix milliseconds; -1 for never."""
    found = connection.execute("SELECT time_ms FROM erasure_times WHERE key = ?", (key,)).fetchone()
    return found[0] if found else -1


def after_erasures(connection: sqlite3.Connection, rows: list[Row]) -> list[Row]:
    """Return the rows of what comes now; a visitor who is back has a time after its erasure, whatever the clock says.

    Other machines and the tables go by the time. What was queued has the time at which it was made.
    """
    (newest_ms,) = connection.execute("SELECT ifnull(max(time_ms), -1) FROM erasure_times").fetchone()
    if all(row[4] > newest_ms and row[0] != RECORD_KIND_ERASURE for row in rows):
        return rows
    told: dict[str, int] = {}
    made = []
    for kind, key, record_id, payload, time_ms, checksum in rows:
        erased_ms = max(_erased_ms(connection, key), told.get(key, -1))
        if kind == RECORD_KIND_ERASURE:
            told[key] = max(time_ms, erased_ms)
        if kind in kinds.ACTS and time_ms <= erased_ms:
            made.append(row_of(NewRecord(kind, key, record_id, payload), erased_ms + 1))
        else:
            made.append((kind, key, record_id, payload, time_ms, checksum))
    return made


def without_late(connection: sqlite3.Connection, rows: Iterable[Row]) -> list[Row]:
    """Return the rows without those that were made before their visitor was forgotten, and waited meanwhile."""

    def is_late(row: Row) -> bool:
        kind, key, record_id, payload, time_ms, _ = row
        record = LogRecord(0, kind, time_ms, key, record_id, payload)
        return kind in kinds.QUEUED and is_forgotten(connection, record)

    return [row for row in rows if not is_late(row)]


def anonymous_ids(connection: sqlite3.Connection, key: str) -> set[str]:
    """Return the anonymous ids that became the visitor, as events show that are here or were trimmed."""
    return _anonymous_ids(connection, _ALIASES, _SHOWN, {"key": key})


def linked(connection: sqlite3.Connection, erasure: LogRecord) -> dict[LogRecord, bool]:
    """Return erasures of the anonymous ids that became the visitor before its own, but for those that are known.

    Each has whether this log was the first to have an event that shows it; of what was trimmed that is not known.
    """
    at = {"key": erasure.key, "erased_ms": _erased_ms(connection, erasure.key), "until_ms": erasure.time_ms}
    is_about = "time_ms > :erased_ms AND time_ms <= :until_ms"  # what was forgotten before may be there still
    shown = f"{_SHOWN} AND {is_about}"
    found = _anonymous_ids(connection, f"{_ALIASES} AND {is_about}", shown, at)
    erasures = [_with_user(key, erasure.key, erasure.time_ms) for key in sorted(found)]
    left = [one for one in erasures if not _is_told(connection, one)]
    if not left:
        return {}
    elsewhere = {context.visitor_id for context in _contexts(connection, f"{shown} AND {_IS_FOREIGN}", at)}
    here = {context.visitor_id for context in _contexts(connection, f"{shown} AND NOT {_IS_FOREIGN}", at)}
    return {one: one.key in here or one.key not in elsewhere for one in left}


def shown_by(connection: sqlite3.Connection, forgotten: LogRecord) -> LogRecord | None:
    """Return the erasure of the anonymous id that an event shows to be its visitor's; None where it is known.

    It is as of when the visitor was forgotten first after the event, or of the event itself where this log may lack
    that: a later erasure would take along what the browser did between the two. Then any later one of the browser will
    do as well.
    """
    context = kinds.context_of(forgotten.payload) if forgotten.kind == RECORD_KIND_EVENT else Context()
    key = context.visitor_id
    if not context.user_id or key in {"", context.user_id}:
        return None
    (first_ms,) = connection.execute(_FIRST_ERASED, forgotten._asdict()).fetchone()
    if first_ms is None and forgotten.time_ms <= _erased_ms(connection, key):
        return None
    erasure = _with_user(key, forgotten.key, forgotten.time_ms if first_ms is None else first_ms)
    return None if _is_told(connection, erasure) or _is_user(connection, key) else erasure


def _with_user(key: str, user_id: str, time_ms: int) -> LogRecord:
    return LogRecord(0, RECORD_KIND_ERASURE, time_ms, key, "", kinds.erasure(key, user_id))


def keep_trimmed(connection: sqlite3.Connection, until: int) -> None:
    """Keep profiles, users and whose anonymous ids are in events of what is trimmed next, up to the offset `until`."""
    connection.execute(_KEEP_PROFILES, (until,))
    keep_lost(connection, until)
    found: dict[tuple[str, str], int] = {}
    for event in records_of(connection.execute(_EVENTS, (until,)), 0):
        context = kinds.context_of(event.payload)
        if context.user_id:
            pair = (event.key, context.visitor_id or event.key)
            found[pair] = max(event.time_ms, found.get(pair, event.time_ms))
    connection.executemany(_KEEP_ALIAS, ((*pair, time_ms) for pair, time_ms in found.items()))


def keep_lost(connection: sqlite3.Connection, until: int) -> None:
    """Remember up to which time the log may lack erasures: to the newest of those up to the offset `until`."""
    connection.execute(_KEEP_LOST, (until,))


def _anonymous_ids(connection: sqlite3.Connection, trimmed: str, shown: str, at: Mapping[str, object]) -> set[str]:
    found = {anonymous_id for (anonymous_id,) in connection.execute(trimmed, at)}
    found |= {context.visitor_id for context in _contexts(connection, shown, at)}
    return {one for one in found - {at["key"], ""} if not _is_user(connection, one)}


def _is_user(connection: sqlite3.Connection, key: str) -> bool:
    """Return whether an event, trimmed or not, says that the key is a user's, whom no login of another takes over."""
    if connection.execute(_ALIASES, {"key": key}).fetchone():
        return True
    return any(context.user_id for context in _contexts(connection, _SHOWN, {"key": key}))


def _contexts(connection: sqlite3.Connection, sql: str, at: Mapping[str, object]) -> list[Context]:
    records = records_of(connection.execute(f'{sql} ORDER BY "offset"', at), 0)
    return [kinds.context_of(record.payload) for record in records]
