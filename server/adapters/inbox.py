"""The log's file as an inbox: what other machines wrote, taken over from Kafka, each record once.

Records and places are kept in one transaction. Every machine sees the changes of an item, a document or a profile end
in the order of Kafka, whatever it saw first: a change of its own that Kafka has after one of another machine is made
again when it comes back. What a machine took of a visitor before another forgot it is left out, however late it comes,
and it forgets, for all, the anonymous ids that the other could not know to be the visitor's.

A file that is an older copy is found out by records of its own in Kafka that it never had: see `part_from`.
"""

import sqlite3
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from server import telemetry
from server.adapters import log_erasure
from server.adapters.log_rows import INSERT, Row, last_offset, row_of, translated
from server.adapters.outbox import SqliteOutbox
from server.adapters.sqlite_log import SqliteLog, connect, turn
from server.defaults import is_default
from server.ports import Arrival, LogRecord, LogWentBackError, NewRecord
from server.streams import key_of
from shopkeeper.v1.record_pb2 import (
    RECORD_KIND_ACTIVATION,
    RECORD_KIND_DOCUMENT,
    RECORD_KIND_ERASURE,
    RECORD_KIND_EVENT,
    RECORD_KIND_ITEM,
    RECORD_KIND_PROFILE,
)

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS inbox_places (name TEXT PRIMARY KEY, "offset" INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS foreign_changes (key TEXT PRIMARY KEY, "offset" INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS foreign_erasures (key TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS former_origins (origin TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT;
"""
_NAMES: Final = f"""
SELECT origin, last FROM former_origins UNION ALL SELECT value, {2**63 - 1} FROM outbox WHERE name = 'origin'
"""  # noqa: S608
_CHANGES: Final = frozenset({RECORD_KIND_ITEM, RECORD_KIND_PROFILE, RECORD_KIND_DOCUMENT, RECORD_KIND_ACTIVATION})


class SqliteInbox:
    """`Inbox` in the file of a `SqliteLog`; one thread uses it.

    Raises
    ------
    LogUnavailableError : the file cannot be used
    """

    def __init__(self, path: Path) -> None:
        outbox = SqliteOutbox(path)
        self._unsure = range(outbox.shipped() + 1, outbox.last_offset() + 1)
        outbox.close()
        self._path = path
        self._log = SqliteLog(path)
        with translated(self._path):
            self._connection = connect(path)
            with turn(path):
                self._connection.executescript(_SCHEMA)
            self._names: dict[str, int] = dict(self._connection.execute(_NAMES))
        self._erase()

    def places(self) -> dict[str, int]:
        """Return the place reached in each part of the stream."""
        with translated(self._path):
            return _places(self._connection)

    def take(self, arrivals: Sequence[Arrival], places: Mapping[str, int]) -> int:
        """Append what others wrote and the log has not, and keep the places; return how many were appended.

        Raises
        ------
        LogWentBackError : one is our own and not in our log; nothing was appended or kept
        """
        own = [arrival for arrival in arrivals if self._is_own(arrival)]
        with translated(self._path), turn(self._path), self._connection as transaction:
            transaction.execute("BEGIN IMMEDIATE")
            before = last_offset(transaction)
            if strange := [arrival for arrival in own if _is_strange(transaction, arrival, before)]:
                first = min(strange, key=lambda arrival: arrival.origin_offset)
                raise LogWentBackError(first.origin, first.origin_offset)
            told = _newest_erasures(arrivals)
            count = sum(self._append(transaction, arrival, told) for arrival in arrivals)
            transaction.executemany(
                "INSERT OR IGNORE INTO foreign_records VALUES (?)",  # Kafka has them, so the outbox need not bring them
                [(arrival.origin_offset,) for arrival in own if arrival.origin_offset in self._unsure],
            )
            transaction.executemany("INSERT OR REPLACE INTO inbox_places VALUES (?, ?)", places.items())
        self._erase()
        return count

    def part_from(self, origin: str, offset: int) -> None:
        """Take what `origin`, a name of this log, wrote from `offset` on for another log's, and go on under a new name.

        What this log itself has from `offset` on is shipped again, for others took it for repeats.
        """
        with translated(self._path), turn(self._path), self._connection as transaction:
            transaction.execute("BEGIN IMMEDIATE")
            transaction.execute("INSERT OR REPLACE INTO former_origins VALUES (?, ?)", (origin, offset - 1))
            transaction.execute(
                "UPDATE outbox SET value = ? WHERE name = 'origin' AND value = ?", (uuid.uuid4().hex, origin)
            )
            transaction.execute("UPDATE outbox SET value = min(value, ?) WHERE name = 'shipped'", (offset - 1,))
            self._names = dict(transaction.execute(_NAMES))

    def rename(self) -> None:
        """Go on under a new name; what was written under the old one stays our own."""
        self.part_from(max(self._names, key=self._names.__getitem__), self._log.last_offset() + 1)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
        self._log.close()

    def _is_own(self, arrival: Arrival) -> bool:
        return arrival.origin_offset <= self._names.get(arrival.origin, -1)

    def _append(self, transaction: sqlite3.Connection, arrival: Arrival, told: Mapping[bytes, int]) -> int:
        """Append what is not there; return how many records. `told` has the erasures that arrive, with their times."""
        record, is_change = arrival.record, arrival.record.kind in _CHANGES
        if log_erasure.is_forgotten(transaction, record):
            _forget_shown(transaction, record)
            return 0
        if record.kind == RECORD_KIND_ERASURE:
            _forget_linked(transaction, record, told)
        key = f"{record.kind}/{key_of(record)}" if is_change else ""
        is_own = self._is_own(arrival)
        if is_change and record.record_id and not is_default(record):
            offset = arrival.origin_offset if is_own else _offset_of(transaction, record.record_id)
            if offset is not None and not _mark(transaction, offset):
                return 0  # Kafka had one of this id before
            record = record if offset is None else record._replace(record_id="")
        if is_own and not (is_change and _is_outdone(transaction, key, arrival.origin_offset)):
            return 0
        cursor = transaction.execute(INSERT, _row(record))
        if not cursor.rowcount:
            _count_conflict(transaction, record)
            return 0
        _mark(transaction, cursor.lastrowid)
        if is_change:
            transaction.execute("INSERT OR REPLACE INTO foreign_changes VALUES (?, ?)", (key, cursor.lastrowid))
        if record.kind == RECORD_KIND_ERASURE:
            _forget(transaction, record)
        return 1

    def _erase(self) -> None:
        """Delete from the log what the erasures are about that came in."""
        with translated(self._path):
            keys = [key for (key,) in self._connection.execute("SELECT key FROM foreign_erasures")]
            for key in keys:
                self._log.erase(key)
                with turn(self._path):
                    self._connection.execute("DELETE FROM foreign_erasures WHERE key = ?", (key,))


def places_of(path: Path) -> dict[str, int]:
    """Return the places that the inbox of a log has reached, for who is not that inbox; empty where it has none.

    Raises
    ------
    LogUnavailableError : the file cannot be used
    """
    with translated(path), closing(connect(path)) as connection:
        is_made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'inbox_places'").fetchone()
        return _places(connection) if is_made else {}


def _places(connection: sqlite3.Connection) -> dict[str, int]:
    return dict(connection.execute('SELECT name, "offset" FROM inbox_places'))


def _row(record: LogRecord) -> Row:
    return row_of(NewRecord(record.kind, record.key, record.record_id, record.payload), record.time_ms)


def _is_strange(transaction: sqlite3.Connection, arrival: Arrival, last: int) -> bool:
    """Return whether our log, which ends at `last`, never had this record of its own; it may have erased it."""
    sql = 'SELECT checksum FROM records WHERE "offset" = ? AND kind != 0'
    found = transaction.execute(sql, (arrival.origin_offset,)).fetchone()
    if found is None:
        return arrival.origin_offset > last
    return found[0] is not None and found[0] != _row(arrival.record)[-1]


def _offset_of(transaction: sqlite3.Connection, record_id: str) -> int | None:
    sql = """SELECT "offset" FROM records WHERE record_id = ? AND record_id != ''"""
    found = transaction.execute(sql, (record_id,)).fetchone()
    return None if found is None else int(found[0])


def _count_conflict(transaction: sqlite3.Connection, record: LogRecord) -> None:
    """Count an event that this log has with another content: each machine keeps what it took first."""
    sql = "SELECT payload FROM records WHERE record_id = ? AND record_id != '' AND kind = ?"
    found = transaction.execute(sql, (record.record_id, RECORD_KIND_EVENT)).fetchone()
    if record.kind == RECORD_KIND_EVENT and found is not None and found[0] != record.payload:
        telemetry.CONFLICTING_EVENTS.inc()


def _mark(transaction: sqlite3.Connection, offset: int | None) -> bool:
    """Note that Kafka has the record at `offset`, so that it is not shipped; return whether that is new."""
    return bool(transaction.execute("INSERT OR IGNORE INTO foreign_records VALUES (?)", (offset,)).rowcount)


def _forget(transaction: sqlite3.Connection, erasure: LogRecord) -> None:
    log_erasure.keep_times(transaction, [_row(erasure)])
    transaction.execute("INSERT OR IGNORE INTO foreign_erasures VALUES (?)", (erasure.key,))


def _newest_erasures(arrivals: Iterable[Arrival]) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    for record, *_ in arrivals:
        if record.kind == RECORD_KIND_ERASURE:
            found[record.payload] = max(record.time_ms, found.get(record.payload, record.time_ms))
    return found


def _forget_linked(transaction: sqlite3.Connection, erasure: LogRecord, told: Mapping[bytes, int]) -> None:
    """Append erasures of the anonymous ids that who erased a visitor may not have known, before that of the visitor.

    They are our own where this log was the first to have what shows them: that log tells the others.
    """
    for one, is_ours in log_erasure.linked(transaction, erasure).items():
        if told.get(one.payload, -1) < one.time_ms:
            _forget_too(transaction, one, is_ours=is_ours)


def _forget_shown(transaction: sqlite3.Connection, forgotten: LogRecord) -> None:
    """Append the erasure of the anonymous id that an event, which is left out, shows to be its visitor's.

    It is our own: the log that the event is from may know other erasures of the visitor, or be gone.
    """
    if erasure := log_erasure.shown_by(transaction, forgotten):
        _forget_too(transaction, erasure, is_ours=True)


def _forget_too(transaction: sqlite3.Connection, erasure: LogRecord, *, is_ours: bool) -> None:
    cursor = transaction.execute(INSERT, _row(erasure))
    _forget(transaction, erasure)
    if not is_ours:
        _mark(transaction, cursor.lastrowid)


def _is_outdone(transaction: sqlite3.Connection, key: str, offset: int) -> bool:
    """Return whether another machine changed the same after our change at `offset` was made here."""
    found = transaction.execute('SELECT "offset" FROM foreign_changes WHERE key = ?', (key,)).fetchone()
    return found is not None and found[0] > offset
