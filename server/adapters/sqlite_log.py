"""The log in one SQLite file that all processes of a machine share.

One writer thread a process commits what waits as one group, with one fsync, and only then answers its callers.
"""

import asyncio
import fcntl
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from server.adapters import log_erasure
from server.adapters.log_rows import (
    COLUMNS,
    INSERT,
    Row,
    columns_without_payload,
    last_offset,
    marks,
    read_records,
    row_of,
    statuses_of,
    translated,
)
from server.ports import AppendStatus, LogRecord, LogUnavailableError, NewRecord
from server.settings import Settings

BUSY_S: Final = 5.0
"""Seconds to wait for another process that commits."""
LATER_WAIT_S: Final = 0.05
"""Seconds that records nobody waits for hope for company, so that the disk is free for the others."""

_VERSION: Final = 4
"""Of the tables; a log that was begun before has less and gets what it lacks."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS records (
    "offset" INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    key TEXT NOT NULL,
    record_id TEXT NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS records_by_id ON records (record_id) WHERE record_id != '';
CREATE INDEX IF NOT EXISTS records_by_key ON records (key) WHERE key != '';
CREATE TABLE IF NOT EXISTS records_trimmed ("offset" INTEGER PRIMARY KEY) STRICT;
"""
_HAS_CHECKSUMS: Final = "SELECT count(*) FROM pragma_table_info('records') WHERE name = 'checksum'"
_PRAGMAS: Final = """
PRAGMA synchronous = FULL;
PRAGMA cache_size = -65536;
PRAGMA wal_autocheckpoint = 8000;
PRAGMA journal_size_limit = 67108864;
"""
_OVERWRITE_TRIES: Final = 5
_OVERWRITE_WAIT_MS: Final = 500

_logger = structlog.get_logger(__name__)


class _Call(NamedTuple):
    rows: list[Row]
    done: "Future[list[AppendStatus]]"


class SqliteLog:
    """`EventLog` in the file `path`, which is made if need be.

    Parameters
    ----------
    path : file of the log; its folder is made if need be
    commit_wait_ms : how long a commit waits for company
    group_rows : records a commit takes, unless one call brings more
    queue_rows : records that `append_later` lets wait

    Raises
    ------
    LogUnavailableError : the file cannot be opened or is not a log
    """

    def __init__(
        self, path: Path, *, commit_wait_ms: float = 2.0, group_rows: int = 20_000, queue_rows: int = 50_000
    ) -> None:
        self._path = path
        self._commit_wait_s = commit_wait_ms / 1000
        self._group_rows = group_rows
        self._queue_rows = queue_rows
        self._hooks: list[Callable[[int], object]] = []
        self._calls: deque[_Call] = deque()
        self._later: deque[Row] = deque()
        self._dropped_count = 0
        self._closing = False
        self._wake = threading.Condition()
        self._reading = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        with translated(self._path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._reader = connect(path)
            self._file = _identity(path)
        self._writer = threading.Thread(target=self._write_groups, name="log-writer", daemon=True)
        self._writer.start()

    async def append(self, records: Sequence[NewRecord], time_ms: int) -> list[AppendStatus]:
        """Return one status a record, once all are on disk and the commit hooks have run."""
        return await asyncio.wrap_future(self._enqueue(records, time_ms))

    def append_later(self, records: Sequence[NewRecord], time_ms: int) -> bool:
        """Return whether the records were queued for a coming commit."""
        with self._wake:
            fits = not self._closing and len(self._later) + len(records) <= self._queue_rows
            if fits:
                if not self._later:  # else the writer waits for the commit that takes these along
                    self._wake.notify()
                self._later.extend(row_of(record, time_ms) for record in records)
            else:
                self._dropped_count += len(records)
        return fits

    def import_records(self, batches: Iterable[Sequence[NewRecord]], time_ms: int) -> Iterator[list[AppendStatus]]:
        """Yield the statuses of each batch; the next batch is made while one is written."""
        waiting: deque[Future[list[AppendStatus]]] = deque()
        for batch in batches:
            waiting.append(self._enqueue(batch, time_ms))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    @property
    def dropped_count(self) -> int:
        """Records that `append_later` took or was offered and that are not in the log."""
        return self._dropped_count

    def read(
        self, after: int, limit: int, *, bare_kinds: Collection[int] = (), skip_kinds: Collection[int] = ()
    ) -> list[LogRecord]:
        """Return up to `limit` records above the offset `after`, in order."""
        # A damaged kind can be NULL, which NOT IN would pass over.
        columns = columns_without_payload(bare_kinds) if bare_kinds else COLUMNS
        wanted = f"AND (kind IN ({marks(skip_kinds)})) IS NOT TRUE" if skip_kinds else ""
        sql = f'SELECT {columns} FROM records WHERE "offset" > ? {wanted} ORDER BY "offset" LIMIT ?'  # noqa: S608
        return self._select(sql, (*bare_kinds, *bare_kinds, after, *skip_kinds, limit), after)

    def last_offset(self) -> int:
        """Return the offset of the last record; 0 if there is none."""
        with translated(self._path), self._reading:
            return last_offset(self._reader)

    def trimmed_offset(self) -> int:
        """Return the offset up to which an outbox removed records; 0 if none did."""
        with translated(self._path), self._reading:
            return int(self._reader.execute('SELECT ifnull(max("offset"), 0) FROM records_trimmed').fetchone()[0])

    def records_of(self, key: str, *, after_ms: int = -1) -> Iterator[LogRecord]:
        """Yield the records of one visitor that a log took after a time, in order; what was stated also if trimmed."""
        after = 0
        while records := self._select(
            log_erasure.RECORDS_OF, {"key": key, "after": after, "after_ms": after_ms}, after
        ):
            yield from records
            after = records[-1].offset

    def anonymous_ids(self, key: str) -> set[str]:
        """Return the anonymous ids that became the visitor, as its events show, those that an outbox removed too."""
        with translated(self._path), self._reading:
            return log_erasure.anonymous_ids(self._reader, key)

    def statements(self, after: int, limit: int) -> list[LogRecord]:
        """Return up to `limit` records of what was stated above the offset `after`, also those that were trimmed."""
        return self._select(log_erasure.STATEMENTS, {"after": after, "limit": limit}, after)

    def finish_erasures(self) -> int:
        """Delete what erasures are about that nobody deleted, as after a crash; return how many records."""
        with translated(self._path), self._reading:
            keys = log_erasure.unfinished(self._reader)
        return sum(self.erase(key) for key in keys)

    def erase(self, key: str) -> int:
        """Delete what the visitor's erasures are about, and overwrite its bytes; return how many.

        A reader that goes on for long keeps old bytes in use; a log line says so then.
        """
        with translated(self._path), closing(connect(self._path)) as connection:
            connection.execute("PRAGMA secure_delete = ON")
            with turn(self._path), connection:
                connection.execute("BEGIN IMMEDIATE")
                count = log_erasure.erase(connection, key)
            self._overwrite(connection)
        return count

    def on_commit(self, hook: Callable[[int], object]) -> None:
        """Call `hook(last offset)` after each commit of this process and before its callers learn of it."""
        self._hooks.append(hook)

    def close(self) -> None:
        """Write what is queued and close; may be repeated."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._writer.join()
        with self._reading:
            self._reader.close()

    def _enqueue(self, records: Sequence[NewRecord], time_ms: int) -> "Future[list[AppendStatus]]":
        call = _Call([row_of(record, time_ms) for record in records], Future())
        with self._wake:
            if self._closing:
                raise LogUnavailableError(f"log {self._path} is closed; the server is stopping, retry elsewhere")
            self._calls.append(call)
            self._wake.notify()
        return call.done

    def _write_groups(self) -> None:
        while self._await_work():
            calls, later = self._take()
            self._commit(calls, later)
        self._drop_connection()

    def _await_work(self) -> bool:
        with self._wake:
            self._wake.wait_for(lambda: self._calls or self._later or self._closing)
            if not self._calls:
                self._wake.wait_for(lambda: self._calls or self._closing, LATER_WAIT_S)
            full = sum(len(call.rows) for call in islice(self._calls, self._group_rows)) >= self._group_rows
            idle = not (self._calls or self._later)
            closing = self._closing
        if not (full or closing):
            time.sleep(self._commit_wait_s)
        return not (idle and closing)

    def _take(self) -> tuple[list[_Call], list[Row]]:
        calls: list[_Call] = []
        count = 0
        with self._wake:
            while self._calls and count < self._group_rows:
                call = self._calls.popleft()
                if call.done.set_running_or_notify_cancel():
                    calls.append(call)
                    count += len(call.rows)
            later = [self._later.popleft() for _ in range(min(len(self._later), self._group_rows))]
        return calls, later

    def _commit(self, calls: list[_Call], later: list[Row]) -> None:
        rows = [row for call in calls for row in call.rows]
        try:
            with translated(self._path), turn(self._path):
                statuses, offset = self._write(rows, later)
        except Exception as error:
            _logger.exception("log_unavailable", path=str(self._path), record_count=len(rows) + len(later))
            self._drop_connection()
            self._dropped_count += len(later)
            for call in calls:
                call.done.set_exception(error)
            return
        self._run_hooks(offset)
        taken = iter(statuses)
        for call in calls:
            call.done.set_result(list(islice(taken, len(call.rows))))

    def _overwrite(self, connection: sqlite3.Connection) -> None:
        """Move what was erased out of the write-ahead file too, which has to wait for readers."""
        connection.execute(f"PRAGMA busy_timeout = {_OVERWRITE_WAIT_MS}")
        for _ in range(_OVERWRITE_TRIES):
            is_busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not is_busy:
                return
        _logger.warning("erased_bytes_linger", path=str(self._path), fix="erase again while nobody reads the whole log")

    def _write(self, rows: list[Row], later: list[Row]) -> tuple[list[AppendStatus], int]:
        if _identity(self._path) != self._file:
            raise OSError("it was removed or replaced while it was in use")
        if self._connection is None:
            self._connection = connect(self._path)
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(INSERT, log_erasure.without_late(connection, later))
            before = last_offset(connection)
            rows = log_erasure.after_erasures(connection, rows)
            stored_count = connection.executemany(INSERT, rows).rowcount if rows else 0
            log_erasure.keep_times(connection, (*later, *rows))
            statuses = (
                [AppendStatus.STORED] * len(rows)
                if stored_count == len(rows)
                else statuses_of(connection, rows, before)
            )
            offset = last_offset(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return statuses, offset

    def _run_hooks(self, offset: int) -> None:
        for hook in self._hooks:
            try:
                hook(offset)
            except Exception:
                _logger.exception("commit_hook_failed", offset=offset)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _select(self, sql: str, params: Sequence[object] | Mapping[str, object], after: int) -> list[LogRecord]:
        with translated(self._path), self._reading, closing(self._reader.execute(sql, params)) as cursor:
            return read_records(cursor, after)


def open_log(settings: Settings) -> SqliteLog:
    """Return the log of the deployment."""
    log = settings.log
    return SqliteLog(
        settings.log_path, commit_wait_ms=log.commit_wait_ms, group_rows=log.group_rows, queue_rows=log.queue_rows
    )


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Wait in line with the other processes: SQLite's own wait is a backoff, which starves some of them."""
    with path.with_suffix(".lock").open("w") as line:
        fcntl.flock(line, fcntl.LOCK_EX)
        yield


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection that syncs every commit, to a file that has its tables."""
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.executescript(_PRAGMAS)
        if _version(connection) < _VERSION:
            _make_tables(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _make_tables(connection: sqlite3.Connection) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        if _version(connection) < _VERSION:  # else another process was faster
            for statement in (_SCHEMA + log_erasure.SCHEMA).split(";"):
                connection.execute(statement)
            if not connection.execute(_HAS_CHECKSUMS).fetchone()[0]:
                connection.execute("ALTER TABLE records ADD COLUMN checksum INTEGER")
            connection.execute(f"PRAGMA user_version = {_VERSION}")


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
