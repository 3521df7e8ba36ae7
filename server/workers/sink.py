"""The table view follows the log: at least once by position, exactly once by the keys of the tables.

Positions are kept after the rows, so a crash repeats a batch and never loses one.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeVar

import pyarrow as pa
import structlog
from google.protobuf.message import DecodeError, Message

from core_rs import EngineError, event_columns
from server import telemetry
from server.ports import (
    Batch,
    Erasure,
    EventStore,
    Feed,
    LogRecord,
    LogUnavailableError,
    StoreError,
    StoreRowsError,
    StreamUnavailableError,
)
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
SWEEP_S: Final = 3_600.0
"""Seconds between two sweeps of what was erased lately."""
SWEPT_MS: Final = 86_400_000
"""Time before the newest erasure from which on a sweep repeats erasures, in the shop's own time."""
_KINDS: Final = frozenset(RecordKind.values())
_LOOKUP_ROWS: Final = 1_000
_ERASED_BY_OFFSET: Final = frozenset({RECORD_KIND_EVENT, RECORD_KIND_PROFILE})
_UNFIT: Final = (DecodeError, ValueError, OverflowError, pa.ArrowException)
"""What makes a record unfit for a row."""
_LATER: Final = (StoreError, LogUnavailableError, StreamUnavailableError)
"""After which the same is tried again."""

MessageType = TypeVar("MessageType", bound=Message)

_logger = structlog.get_logger(__name__)


class Sink:
    """Writer of the table view.

    Parameters
    ----------
    feed : log to follow
    store : tables to fill, up to date
    settings : size and wait of a batch

    Raises
    ------
    StoreError : the tables belong to another log
    """

    def __init__(self, feed: Feed, store: EventStore, settings: SinkSettings) -> None:
        self._feed = feed
        self._store = store
        self._settings = settings
        self._batch: Batch | None = None
        self._bad: list[Row] = []
        self._swept = time.monotonic()
        self._erasures = store.erasures()
        feed.begin(store.positions)

    def step(self) -> int:
        """Write the next batch; return its number of records. One that failed is tried again, as it was."""
        batch = self._batch or self._feed.read(self._settings.batch_rows)
        if batch.positions:
            self._batch = batch
            if batch.records:
                self._write(batch.records)
                telemetry.SINK_BATCH_RECORDS.observe(len(batch.records))
            self._store.save_positions(batch.positions)
            self._batch = None
        return len(batch.records)

    def drain(self) -> int:
        """Write all records there are; return how many."""
        count = 0
        while (self._batch or self._feed.lag()) and (written := self.step()):
            count += written
        return count

    def run(self, stopping: threading.Event, meanwhile: Callable[[], object]) -> None:
        """Write batches as they fill or age, and call `meanwhile` often, until `stopping`; then write the rest.

        A batch that the store refuses is tried again until it is taken.
        """
        behind_since: float | None = None
        while not stopping.wait(POLL_S):
            try:
                meanwhile()
                self._sweep()
                waiting = self._feed.lag() + (len(self._batch.records) if self._batch else 0)
                telemetry.SINK_LAG_RECORDS.set(waiting)
                behind_since = (behind_since or time.monotonic()) if waiting else None
                if waiting >= self._settings.batch_rows or (behind_since and self._aged(behind_since)):
                    self.drain()
                    behind_since = None
            except _LATER as error:
                telemetry.SINK_RETRIES.inc()
                _logger.warning("batch_not_stored", reason=str(error), fix="none: it is kept and tried again")
                stopping.wait(RETRY_S)
        self._write_rest()

    def _write_rest(self) -> None:
        try:
            self.drain()
        except _LATER as error:
            _logger.warning("batch_left", reason=str(error), fix="none: the log has it for the next start")

    def _aged(self, since: float) -> bool:
        return time.monotonic() - since >= self._settings.batch_ms / 1000

    def _sweep(self) -> None:
        """Erase once more what was erased lately: another sink may have written old records since."""
        if time.monotonic() - self._swept >= SWEEP_S:
            self._erasures = self._store.erasures()
            since_ms = max((one.time_ms for one in self._erasures.values()), default=0) - SWEPT_MS
            self._store.erase({key: one for key, one in self._erasures.items() if one.time_ms >= since_ms})
            self._swept = time.monotonic()

    def _write(self, records: list[LogRecord]) -> None:
        self._bad = []
        erasures = _erasures(records)
        self._erasures |= erasures
        late = {record.key for record in records if self._is_late(record)}
        records = [record for record in records if not self._is_erased(record)]
        by_offset = {record.offset: record for record in records}
        for record in records:
            if record.kind not in _KINDS:
                self._set_aside(record, ValueError(f"kind {record.kind} is not known; a newer sink may read it"))
        for table in self._event_tables([record for record in records if record.kind == RECORD_KIND_EVENT]):
            self._insert("events", table, by_offset)
        found: tuple[tuple[str, Iterable[Row], pa.Schema], ...] = (
            ("items", self._latest_items(records), rows.ITEM_SCHEMA),
            ("profiles", self._latest_profiles(records), rows.PROFILE_SCHEMA),
            ("decisions", self._slates(records), rows.DECISION_SCHEMA),
            ("documents", self._documents(records), rows.DOCUMENT_SCHEMA),
        )
        for name, made, schema in found:
            self._insert(name, self._table_of(list(made), schema, by_offset), by_offset)
        self._store.insert("bad_events", rows.table_of(self._bad, rows.BAD_SCHEMA))
        self._store.erase(erasures)
        self._feed.forget(late)

    def _is_erased(self, record: LogRecord) -> bool:
        """Return whether the record came before its visitor was forgotten."""
        erasure = self._erasures.get(record.key) if record.key else None
        if erasure is None:
            return False
        is_before = record.kind in _ERASED_BY_OFFSET and record.offset < erasure.offset
        return is_before or (record.kind == RECORD_KIND_DECISION and record.time_ms <= erasure.time_ms)

    def _is_late(self, record: LogRecord) -> bool:
        """Return whether a decision was made before its visitor was forgotten, and came into the log after."""
        return record.kind == RECORD_KIND_DECISION and self._is_erased(record)

    def _insert(self, name: str, table: pa.Table, by_offset: Mapping[int, LogRecord]) -> None:
        """Insert rows, halving a table that is refused until the rows at fault are alone."""
        try:
            self._store.insert(name, table)
        except StoreRowsError as error:
            if table.num_rows == 1:
                self._set_aside(by_offset[table.column("log_offset")[0].as_py()], error)
                return
            middle = table.num_rows // 2
            self._insert(name, table.slice(0, middle), by_offset)
            self._insert(name, table.slice(middle), by_offset)

    def _table_of(self, made: list[Row], schema: pa.Schema, by_offset: Mapping[int, LogRecord]) -> pa.Table:
        """Return the rows as a table, without those that do not fit the schema."""
        try:
            return rows.table_of(made, schema)
        except _UNFIT:
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
            with self._setting_aside(record):
                slates += rows.decision_rows(record, decision)
        return slates

    def _documents(self, records: list[LogRecord]) -> list[Row]:
        """Return the rows of documents; one with a record id is a default, and gives way to what is there."""
        made: list[tuple[bool, Row]] = []
        for record, change in self._parsed(records, RECORD_KIND_DOCUMENT, DocumentChange):
            with self._setting_aside(record):
                made.append((bool(record.record_id), rows.document_row(record, change)))
        known = self._documents_of({row["document_id"] for is_default, row in made if is_default})
        documents = []
        for is_default, row in made:
            name = (row["kind"], row["document_id"])
            if not (is_default and name in known):
                documents.append(row)
                known.add(name)
        return documents

    def _documents_of(self, ids: set[str]) -> set[tuple[str, str]]:
        sql = "SELECT kind, document_id FROM documents FINAL WHERE document_id IN {ids:Array(String)}"
        found = self._store.query(sql, {"ids": sorted(ids)}).to_pylist() if ids else []
        return {(row["kind"], row["document_id"]) for row in found}

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
        reason = getattr(error, "reason", type(error).__name__)
        telemetry.BAD_RECORDS.labels(str(record.kind), reason).inc()
        self._bad.append(rows.bad_row(record, str(error)))


def _erasures(records: Iterable[LogRecord]) -> dict[str, Erasure]:
    """Return the newest erasure of each visitor."""
    return {
        record.key: Erasure(record.offset, record.time_ms) for record in records if record.kind == RECORD_KIND_ERASURE
    }
