"""The table view follows the log: at least once by offset, exactly once by the keys of the tables.

The offset is kept after the rows, so a crash repeats a batch and never loses one.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import pyarrow as pa
import structlog
from google.protobuf.message import DecodeError, Message

from core_rs import EngineError, event_columns
from server.ports import EventLog, EventStore, LogRecord, LogUnavailableError, StoreError
from server.settings import SinkSettings
from server.workers import rows
from server.workers.rows import Row
from shopkeeper.v1.profile_service_pb2 import Profile
from shopkeeper.v1.record_pb2 import (
    RECORD_KIND_DECISION,
    RECORD_KIND_DOCUMENT,
    RECORD_KIND_ERASURE,
    RECORD_KIND_EVENT,
    RECORD_KIND_ITEM,
    RECORD_KIND_PROFILE,
    Decision,
    DocumentChange,
    ItemChange,
    RecordKind,
)

POLL_S: Final = 0.05
RETRY_S: Final = 1.0
_LOOKUP_ROWS: Final = 1_000
_LATE_ROWS: Final = 100_000
"""Records before the sink's start in which erasures are looked for whose decisions may still come."""
_OTHER_KINDS: Final = frozenset(RecordKind.values()) - {RECORD_KIND_ERASURE}
_UNFIT: Final = (DecodeError, ValueError, OverflowError, pa.ArrowException)
"""What makes a record unfit for a row."""

MessageType = TypeVar("MessageType", bound=Message)

_logger = structlog.get_logger(__name__)


class Sink:
    """Writer of the table view.

    Parameters
    ----------
    log : log to follow
    store : tables to fill, up to date
    settings : size and wait of a batch

    Raises
    ------
    StoreError : the tables belong to another log
    """

    def __init__(self, log: EventLog, store: EventStore, settings: SinkSettings) -> None:
        self._log = log
        self._store = store
        self._settings = settings
        self._offset = store.offset()
        if self._offset > (last := log.last_offset()):
            raise StoreError(
                f"the tables hold offset {self._offset} and the log ends at {last}, so they belong to another log; "
                "move the folder of the tables away, and they are made again"
            )
        self._bad: list[Row] = []
        start = max(0, self._offset - _LATE_ROWS)
        self._erasures = _erasures(log.read(start, _LATE_ROWS, skip_kinds=_OTHER_KINDS))

    @property
    def offset(self) -> int:
        """Offset up to which the log is in the tables."""
        return self._offset

    def step(self) -> int:
        """Write the next batch; return its number of records."""
        records = self._log.read(self._offset, self._settings.batch_rows)
        if records:
            self._write(records)
            self._store.save_offset(records[-1].offset)
            self._offset = records[-1].offset
        return len(records)

    def drain(self, until_offset: int | None = None) -> int:
        """Write all records up to `until_offset`, or all there are now; return the offset reached."""
        goal = self._log.last_offset() if until_offset is None else until_offset
        while self._offset < goal and self.step():
            pass
        return self._offset

    def run(self, stopping: threading.Event, meanwhile: Callable[[], object]) -> None:
        """Write batches as they fill or age, and call `meanwhile` often, until `stopping`; then write the rest.

        A batch that the store refuses is tried again until it is taken.
        """
        behind_since: float | None = None
        while not stopping.wait(POLL_S):
            try:
                meanwhile()
                waiting = self._log.last_offset() - self._offset
                behind_since = (behind_since or time.monotonic()) if waiting else None
                if waiting >= self._settings.batch_rows or (behind_since and self._aged(behind_since)):
                    self.drain()
                    behind_since = None
            except (StoreError, LogUnavailableError):
                _logger.exception("batch_not_stored", offset=self._offset)
                stopping.wait(RETRY_S)
        self.drain()

    def _aged(self, since: float) -> bool:
        return time.monotonic() - since >= self._settings.batch_ms / 1000

    def _write(self, records: list[LogRecord]) -> None:
        self._bad = []
        for table in self._event_tables([record for record in records if record.kind == RECORD_KIND_EVENT]):
            self._store.insert("events", table)
        erasures = _erasures(records)
        self._erasures |= erasures
        late = [record for record in records if self._is_late(record)]
        found: tuple[tuple[str, Iterable[Row], pa.Schema], ...] = (
            ("items", self._latest_items(records), rows.ITEM_SCHEMA),
            ("profiles", self._latest_profiles(records), rows.PROFILE_SCHEMA),
            ("decisions", self._slates(records), rows.DECISION_SCHEMA),
            ("documents", self._documents(records), rows.DOCUMENT_SCHEMA),
        )
        for name, made, schema in found:
            self._store.insert(name, self._table_of(list(made), schema, records))
        self._store.insert("bad_events", rows.table_of(self._bad, rows.BAD_SCHEMA))
        if erasures:
            self._store.erase({key: record.offset for key, record in erasures.items()})
        for key in {record.key for record in late}:
            self._log.erase(key)

    def _is_late(self, record: LogRecord) -> bool:
        """Return whether a decision was made before its visitor was erased, and came into the log after."""
        erasure = self._erasures.get(record.key) if record.kind == RECORD_KIND_DECISION else None
        return erasure is not None and record.time_ms <= erasure.time_ms

    def _table_of(self, made: list[Row], schema: pa.Schema, records: list[LogRecord]) -> pa.Table:
        """Return the rows as a table, without those that do not fit the schema."""
        try:
            return rows.table_of(made, schema)
        except _UNFIT:
            by_offset = {record.offset: record for record in records}
            fit = []
            for row in made:
                with self._setting_aside(by_offset[row["log_offset"]]):
                    rows.table_of([row], schema)
                    fit.append(row)
            return rows.table_of(fit, schema)

    def _event_tables(self, events: list[LogRecord]) -> Iterator[pa.Table]:
        """Yield the tables of the events, halving a batch that fails until the record at fault is alone."""
        if not events:
            return
        try:
            columns = event_columns([(event.offset, event.time_ms, event.payload) for event in events])
        except EngineError as error:
            if len(events) == 1:
                self._set_aside(events[0], error)
                return
            middle = len(events) // 2
            yield from self._event_tables(events[:middle])
            yield from self._event_tables(events[middle:])
        else:
            yield rows.event_table(columns)

    def _latest_items(self, records: list[LogRecord]) -> Iterable[Row]:
        changes = list(self._parsed(records, RECORD_KIND_ITEM, ItemChange))
        known = self._known("items", "item_id", {change.item.item_id for _, change in changes})
        latest: dict[str, Row] = {}
        for record, change in changes:
            item_id = change.item.item_id
            with self._setting_aside(record):
                row = rows.item_row(record, change, latest.get(item_id) or known.get(item_id))
                if row is not None:
                    latest[item_id] = row
        return latest.values()

    def _latest_profiles(self, records: list[LogRecord]) -> Iterable[Row]:
        changes = {record.offset: change for record, change in self._parsed(records, RECORD_KIND_PROFILE, Profile)}
        known = self._known("profiles", "visitor_id", {change.visitor_id for change in changes.values()})
        latest: dict[str, Row] = {}
        for record in records:
            if record.kind == RECORD_KIND_ERASURE:
                known.pop(record.key, None)
                latest.pop(record.key, None)
            elif record.offset in changes:
                change = changes[record.offset]
                visitor_id = change.visitor_id
                with self._setting_aside(record):
                    row = rows.profile_row(record, change, latest.get(visitor_id) or known.get(visitor_id))
                    if row is not None:
                        latest[visitor_id] = row
        return latest.values()

    def _slates(self, records: list[LogRecord]) -> list[Row]:
        slates: list[Row] = []
        for record, decision in self._parsed(records, RECORD_KIND_DECISION, Decision):
            if not self._is_late(record):
                with self._setting_aside(record):
                    slates += rows.decision_rows(record, decision)
        return slates

    def _documents(self, records: list[LogRecord]) -> list[Row]:
        documents = []
        for record, change in self._parsed(records, RECORD_KIND_DOCUMENT, DocumentChange):
            with self._setting_aside(record):
                documents.append(rows.document_row(record, change))
        return documents

    def _known(self, table: str, key: str, values: set[str]) -> dict[str, Row]:
        sql = f"SELECT * FROM {table} FINAL WHERE {key} IN {{keys:Array(String)}}"  # noqa: S608
        known: dict[str, Row] = {}
        ordered = sorted(values)
        for start in range(0, len(ordered), _LOOKUP_ROWS):
            found = self._store.query(sql, {"keys": ordered[start : start + _LOOKUP_ROWS]})
            known |= {row[key]: row for row in rows.rows_of(found)}
        return known

    def _parsed(
        self, records: list[LogRecord], kind: int, message_type: type[MessageType]
    ) -> Iterator[tuple[LogRecord, MessageType]]:
        for record in records:
            if record.kind == kind:
                try:
                    yield record, message_type.FromString(record.payload)
                except DecodeError as error:
                    self._set_aside(record, error)

    @contextmanager
    def _setting_aside(self, record: LogRecord) -> Iterator[None]:
        """Set the record aside where no row can be made of it, so that one record never stops the tables."""
        try:
            yield
        except _UNFIT as error:
            self._set_aside(record, error)

    def _set_aside(self, record: LogRecord, error: Exception) -> None:
        _logger.warning(
            "record_set_aside", offset=record.offset, kind=record.kind, reason=str(error), table="bad_events"
        )
        self._bad.append(rows.bad_row(record, str(error)))


def _erasures(records: Iterable[LogRecord]) -> dict[str, LogRecord]:
    """Return the newest erasure of each visitor."""
    return {record.key: record for record in records if record.kind == RECORD_KIND_ERASURE}
