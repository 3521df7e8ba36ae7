"""The log's file as an outbox: what of it was written here, and how far that is on its way."""

import uuid
from contextlib import closing
from pathlib import Path
from typing import Final

from server.adapters import log_erasure
from server.adapters.log_rows import COLUMNS, last_offset, read_records, translated
from server.adapters.sqlite_log import SqliteLog, connect, turn
from server.defaults import ID_PREFIX
from server.ports import Kept, LogRecord, OutboxSize
from shopkeeper.v1.record_pb2 import RECORD_KIND_DOCUMENT, RECORD_KIND_STATED

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS outbox (name TEXT PRIMARY KEY, value ANY) STRICT;
CREATE TABLE IF NOT EXISTS foreign_records ("offset" INTEGER PRIMARY KEY) STRICT;
"""
_OWN: Final = """
FROM records WHERE "offset" > ? AND kind IS NOT 0 AND "offset" NOT IN (SELECT "offset" FROM foreign_records)
"""
_READ: Final = f'SELECT {COLUMNS} {_OWN} ORDER BY "offset" LIMIT ?'
_NEWEST: Final = f'SELECT "offset" {_OWN} ORDER BY "offset" DESC LIMIT 1'
_SIZE: Final = f"""
SELECT count(*), ifnull(sum(length(payload)), 0), ifnull(min(iif(kind = {RECORD_KIND_STATED}, NULL, time_ms)), 0) {_OWN}
"""
_IS_DEFAULT: Final = f"(kind = {RECORD_KIND_DOCUMENT} AND record_id GLOB '{ID_PREFIX}*')"
"""Defaults stay for ever: a log that lost their ids would take them anew, over what was set since."""
_OLD: Final = f"""
WITH oldest AS MATERIALIZED (
    SELECT "offset", time_ms FROM records WHERE NOT {_IS_DEFAULT} ORDER BY "offset" LIMIT ?
)
SELECT max("offset") FROM oldest
WHERE "offset" <= ? AND "offset" < (SELECT max("offset") FROM records)
AND "offset" < ifnull((SELECT min("offset") FROM oldest WHERE time_ms >= ? AND time_ms < ?), {2**63 - 1})
"""  # noqa: S608
"""Offset of the last record before the first young one; times do not rise with offsets."""
_TRIM: Final = f'DELETE FROM records WHERE "offset" <= ? AND NOT {_IS_DEFAULT}'  # noqa: S608
_TRIM_ROWS: Final = 20_000
"""Records that are removed at once, so that the log is not kept busy for long."""


class SqliteOutbox:
    """`Outbox` in the file of a `SqliteLog`; one thread uses it.

    Raises
    ------
    LogUnavailableError : the file cannot be used
    """

    def __init__(self, path: Path) -> None:
        SqliteLog(path).close()  # makes the file, or says what is wrong with it
        self._path = path
        with translated(self._path):
            self._connection = connect(path)
            with turn(path):
                self._connection.executescript(_SCHEMA)
                self._connection.execute("INSERT OR IGNORE INTO outbox VALUES ('origin', ?)", (uuid.uuid4().hex,))

    @property
    def origin(self) -> str:
        """Name of this log among all logs."""
        return str(self._fact("origin", ""))

    def shipped(self) -> int:
        """Return the offset up to which own records are on their way; 0 at first."""
        return int(self._fact("shipped", 0))

    def last_offset(self) -> int:
        """Return the offset of the last record, whoever wrote it; 0 if there is none."""
        with translated(self._path):
            return last_offset(self._connection)

    def newest(self, after: int) -> int:
        """Return the offset of the newest own record above the offset `after`; `after` if there is none."""
        with translated(self._path):
            found = self._connection.execute(_NEWEST, (after,)).fetchone()
        return int(found[0]) if found else after

    def mark_shipped(self, offset: int) -> None:
        """Keep the offset; to be called after the records up to it are where they shall be."""
        with translated(self._path), turn(self._path):
            self._connection.execute("INSERT OR REPLACE INTO outbox VALUES ('shipped', ?)", (offset,))

    def read(self, after: int, limit: int) -> list[LogRecord]:
        """Return up to `limit` own records above the offset `after`, in order; fewer where they are large."""
        with translated(self._path), closing(self._connection.execute(_READ, (after, limit))) as cursor:
            return read_records(cursor, after)

    def size(self, after: int) -> OutboxSize:
        """Return how many own records are above the offset `after`."""
        with translated(self._path):
            return OutboxSize(*self._connection.execute(_SIZE, (after,)).fetchone())

    def trim(self, kept: Kept, until: int) -> int:
        """Delete the records up to the offset `until` that come before all that is kept; return how many."""
        count = 0
        with translated(self._path):
            limits = (_TRIM_ROWS, min(until, kept.after), kept.young.start, kept.young.stop)
            while (end := self._connection.execute(_OLD, limits).fetchone()[0]) is not None:
                with turn(self._path), self._connection as transaction:
                    transaction.execute("BEGIN IMMEDIATE")
                    log_erasure.keep_trimmed(transaction, end)
                    transaction.execute('DELETE FROM foreign_records WHERE "offset" <= ?', (end,))
                    count += transaction.execute(_TRIM, (end,)).rowcount
                    transaction.execute("DELETE FROM records_trimmed")
                    transaction.execute("INSERT INTO records_trimmed VALUES (?)", (end,))
        return count

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _fact(self, name: str, default: str | int) -> str | int:
        with translated(self._path):
            found = self._connection.execute("SELECT value FROM outbox WHERE name = ?", (name,)).fetchone()
        return found[0] if found else default
