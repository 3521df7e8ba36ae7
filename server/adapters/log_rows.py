"""Rows of the log's table. Each has a checksum: SQLite believes whatever a disk gives back, and no answer may.

A row without one, of a log that was begun before there were any, is taken as it is.
"""

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from zlib import crc32

from server.ports import AppendStatus, LogRecord, LogUnavailableError, NewRecord

INSERT: Final = (
    "INSERT OR IGNORE INTO records (kind, key, record_id, payload, time_ms, checksum) VALUES (?, ?, ?, ?, ?, ?)"
)
"""Of one record, unless its id is there already."""
_HEAD: Final = '"offset", kind, time_ms, key, record_id'
COLUMNS: Final = f"{_HEAD}, payload, checksum"
"""What `records_of` reads."""

READ_BYTES: Final = 64 * 1_048_576
"""Payload after which a read returns what it has, so that a few large records do not fill the memory."""
_READ_ROWS: Final = 1_000
_LOOKUP_ROWS: Final = 500

_FIXES: Final = {
    "SQLITE_FULL": "free space on the disk",
    "SQLITE_BUSY": "another process keeps the log busy; retry",
    "SQLITE_READONLY": "make the file and its folder writable",
    "SQLITE_CANTOPEN": "create the folder and make it writable",
    "SQLITE_CORRUPT": "stop, then restore the file from a backup or move it away to begin a new log",
    "SQLITE_NOTADB": "stop, then restore the file from a backup or move it away to begin a new log",
}

Row = tuple[int, str, str, bytes, int, int]
"""What `INSERT` takes."""


def row_of(record: NewRecord, time_ms: int) -> Row:
    """Return the row of a record."""
    return (*record, time_ms, _checksum(time_ms, *record))


def records_of(rows: Iterable[Sequence[Any]], after: int) -> list[LogRecord]:
    """Return the records of rows of `COLUMNS` that were read in order, above the offset `after`.

    Raises
    ------
    sqlite3.DatabaseError : one is not what was written; SQLITE_CORRUPT
    """
    records = []
    for offset, kind, time_ms, key, record_id, payload, checksum in rows:
        record = LogRecord(offset, kind, time_ms, key, record_id, payload)
        if offset <= after or not _is_sound(record, checksum):
            error = sqlite3.DatabaseError(f"record {offset} is not what was written")
            error.sqlite_errorname = "SQLITE_CORRUPT"
            raise error
        records.append(record)
        after = offset
    return records


def read_records(cursor: sqlite3.Cursor, after: int) -> list[LogRecord]:
    """Return the next records of a cursor over rows of `COLUMNS`, as `records_of` does: all, or some `READ_BYTES`."""
    records: list[LogRecord] = []
    byte_count = 0
    while byte_count < READ_BYTES and (chunk := records_of(cursor.fetchmany(_READ_ROWS), after)):
        records += chunk
        after = chunk[-1].offset
        byte_count += sum(len(record.payload) for record in chunk)
    return records


def columns_without_payload(kinds: Collection[int]) -> str:
    """Return `COLUMNS` without the payload of some kinds, which stand for its place holders twice."""
    is_bare = f"kind IN ({marks(kinds)})"
    return f"{_HEAD}, iif({is_bare}, x'', payload), iif({is_bare}, NULL, checksum)"


def last_offset(connection: sqlite3.Connection) -> int:
    """Return the offset of the last record; 0 if there is none."""
    return int(connection.execute('SELECT ifnull(max("offset"), 0) FROM records').fetchone()[0])


def statuses_of(connection: sqlite3.Connection, rows: list[Row], before: int) -> list[AppendStatus]:
    """Tell stored rows from duplicates and conflicts, given the last offset before the rows were offered."""
    ids = list({row[2] for row in rows} - {""})
    known: dict[str, tuple[int, bytes]] = {}
    for start in range(0, len(ids), _LOOKUP_ROWS):
        chunk = ids[start : start + _LOOKUP_ROWS]
        sql = (
            'SELECT record_id, "offset", payload FROM records '  # noqa: S608
            f"WHERE record_id != '' AND record_id IN ({marks(chunk)})"
        )
        known |= {record_id: (offset, payload) for record_id, offset, payload in connection.execute(sql, chunk)}
    unseen = {record_id for record_id, (offset, _) in known.items() if offset > before}
    statuses = []
    for _, _, record_id, payload, *_ in rows:
        if not record_id or record_id in unseen:
            unseen.discard(record_id)
            statuses.append(AppendStatus.STORED)
        else:
            same = known[record_id][1] == payload
            statuses.append(AppendStatus.DUPLICATE if same else AppendStatus.CONFLICT)
    return statuses


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLite and the disk raise into LogUnavailableError, with what to do and nothing of a record."""
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
        unnamed = "SQLITE_CANTOPEN" if isinstance(error, OSError) else "SQLITE_CORRUPT"
        name = getattr(error, "sqlite_errorname", unnamed)
        fix = next((fix for code, fix in _FIXES.items() if name.startswith(code)), "look at the disk, then retry")
        why = str(error).partition(" with text ")[0]  # what follows is of a record, and somebody's
        raise LogUnavailableError(f"log {path} cannot be used ({why}); {fix}") from error


def marks(values: Collection[object]) -> str:
    """Return the place holders of values."""
    return ", ".join("?" * len(values))


def _is_sound(record: LogRecord, checksum: int | None) -> bool:
    offset, kind, time_ms, key, record_id, payload = record
    if not (isinstance(payload, bytes) and isinstance(kind, int)):  # a damaged header can make SQLite give text or NULL
        return False
    is_blank = record == LogRecord(offset, 0, 0, "", "", b"")  # versions before emptied a record and left its checksum
    return checksum is None or is_blank or checksum == _checksum(time_ms, kind, key, record_id, payload)


def _checksum(time_ms: int, kind: int, key: str, record_id: str, payload: bytes) -> int:
    return crc32(payload, crc32(f"{kind} {time_ms} {key} {record_id}".encode()))
