"""Records of the log become rows of the table view, each at its own place, whatever came before.

Exactly once by the keys of the tables: the same record makes the same row, and a row with a known key replaces the old
one. What no row can be made of, or what a table refuses, goes to `bad_events`, and the rest goes on; what somebody
dismissed there stays dismissed.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeVar

import pyarrow as pa
import structlog
from google.protobuf.message import DecodeError, Message

from core_rs import EngineError, event_columns
from server import kinds, telemetry
from server.defaults import is_default
from server.ports import NO_RECORD, Erasure, LogRecord, RowStore, StoreRowsError
from server.workers import rows
from server.workers.rows import Row
from shopkeeper.v1.record_pb2 import (
    RECORD_KIND_DECISION,
    RECORD_KIND_DOCUMENT,
    RECORD_KIND_ERASURE,
    RECORD_KIND_EVENT,
    RECORD_KIND_ITEM,
    Decision,
    DocumentChange,
    ItemChange,
    RecordKind,
)

_KINDS: Final = frozenset(RecordKind.values())
_LOOKUP_ROWS: Final = 1_000
_DISMISSED: Final = (
    "SELECT log_offset FROM bad_events "
    "WHERE dismiss_ms > 0 AND log_offset BETWEEN {first:Int64} AND {last:Int64} ORDER BY log_offset"
)
_UNFIT: Final = (EngineError, DecodeError, ValueError, OverflowError, pa.ArrowException)
"""What makes a record unfit for a row."""

MessageType = TypeVar("MessageType", bound=Message)

_logger = structlog.get_logger(__name__)


class TableWriter:
    """Writes records into the tables of `store`.

    Parameters
    ----------
    store : tables to fill, up to date

    Attributes
    ----------
    erasures : newest erasure of each visitor who was forgotten
    bad : rows of `bad_events` that the last batch made
    outdated : offsets of the last batch's changes that came after newer ones of the same item or profile
    """

    erasures: Mapping[str, Erasure]
    bad: list[Row]
    outdated: set[int]

    def __init__(self, store: RowStore) -> None:
        self._store = store
        self.bad = []
        self.outdated = set()
        self.learn_erasures()

    def learn_erasures(self) -> None:
        """Take the erasures that the tables know: another writer may have met some."""
        self.erasures = self._store.erasures()

    def write(self, records: list[LogRecord]) -> None:
        """Write the rows of the records, in the order of their offsets, and delete what erasures are about."""
        self.bad = []
        self.outdated = set()
        erasures = _erasures(records, self.erasures)
        self.erasures = {**self.erasures, **erasures}
        if self.erasures:
            records = [record for record in records if not self.is_erased(record)]
        by_offset = {record.offset: record for record in records}
        for record in records:
            if record.kind not in _KINDS:
                self._set_aside(record, ValueError(_unread(record.kind)))
        for table in self._event_tables([record for record in records if record.kind == RECORD_KIND_EVENT]):
            self._insert("events", table, by_offset)
        found: tuple[tuple[str, Iterable[Row], pa.Schema], ...] = (
            ("items", self._latest_items(records), rows.ITEM_SCHEMA),
            ("profiles", self._latest_profiles(records, by_offset), rows.PROFILE_SCHEMA),
            ("statements", self._statements(records), rows.STATEMENT_SCHEMA),
            ("decisions", self._slates(records), rows.DECISION_SCHEMA),
            ("documents", self._documents(records), rows.DOCUMENT_SCHEMA),
        )
        for name, made, schema in found:
            self._insert(name, self._table_of(list(made), schema, by_offset), by_offset)
        self._store.insert("bad_events", rows.table_of(self._not_dismissed(), rows.BAD_SCHEMA))
        self._store.erase(erasures)

    def _not_dismissed(self) -> list[Row]:
        """Return the rows of `bad_events` that the last batch made, without those that the table has as dismissed."""
        if not self.bad:
            return []
        offsets = [row["log_offset"] for row in self.bad]
        found = self._store.query(_DISMISSED, {"first": min(offsets), "last": max(offsets)})
        dismissed = set(found.column("log_offset").to_pylist())
        return [row for row in self.bad if row["log_offset"] not in dismissed]

    def is_erased(self, record: LogRecord) -> bool:
        """Return whether a log took the record before its visitor was forgotten, or may have: what was filled in."""
        erasure = self.erasures.get(record.key) if record.kind in kinds.ERASED else None
        return erasure is not None and (record.time_ms <= erasure.time_ms or record.offset < 0)

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
            yield rows.event_table(columns, {event.offset: event.time_ms for event in events})

    def _latest_items(self, records: list[LogRecord]) -> Iterable[Row]:
        changes = list(self._parsed(records, RECORD_KIND_ITEM, ItemChange))
        known = self._known("items", "item_id", {change.item.item_id for _, change in changes})
        latest: dict[str, Row] = {}
        for record, change in changes:
            item_id = change.item.item_id
            with self._setting_aside(record):
                row = rows.item_row(record, change, latest.get(item_id) or known.get(item_id))
                if row is None:
                    self.outdated.add(record.offset)
                else:
                    latest[item_id] = row
        return latest.values()

    def _latest_profiles(self, records: list[LogRecord], by_offset: dict[int, LogRecord]) -> Iterable[Row]:
        about = [record for record in records if record.kind in kinds.STATING or record.kind == RECORD_KIND_ERASURE]
        known = self._known_profiles({record.key for record in about})
        latest: dict[str, Row] = {}
        for record in about:
            before = latest.get(record.key) or known.get(record.key)
            if record.kind == RECORD_KIND_ERASURE:
                latest |= {record.key: before} if before else {}
                continue
            with self._setting_aside(record):
                row = rows.profile_row(record, before)
                if row is None:
                    self.outdated.add(record.offset)
                else:
                    latest[record.key] = row
                    by_offset[self._place(row)] = record  # it may be the place of the row that was there, or an erasure
        return [{**row, "log_offset": self._place(row)} for row in latest.values()]

    def _place(self, row: Row) -> int:
        """Return the place of a profile's row: not before that of an erasure, which deletes what is."""
        offset: int = row["log_offset"]
        erasure = self.erasures.get(row["visitor_id"])
        return offset if erasure is None else max(offset, erasure.offset)

    def _known_profiles(self, visitors: set[str]) -> dict[str, Row]:
        """Return the rows of profiles; one of before an erasure, which a replica may still have, is made anew."""
        known = self._known("profiles", "visitor_id", visitors)
        old = {visitor_id for visitor_id, row in known.items() if self._place(row) > row["log_offset"]}
        for visitor_id in old:
            del known[visitor_id]
        stated = map(rows.statement_of, self._found("statements", "visitor_id", old))
        for record in sorted(stated, key=lambda record: record.offset):
            if not self.is_erased(record):
                with self._setting_aside(record):
                    if row := rows.profile_row(record, known.get(record.key)):
                        known[record.key] = row
        return known

    def _statements(self, records: list[LogRecord]) -> list[Row]:
        """Return the rows of what was stated and can be read; what a log knew before Kafka is not of one time."""
        bad = {row["log_offset"] for row in self.bad}
        stated = (record for record in records if record.kind in kinds.STATING and record.offset > 0)
        return [rows.statement_row(record) for record in stated if record.offset not in bad]

    def _slates(self, records: list[LogRecord]) -> list[Row]:
        slates: list[Row] = []
        for record, decision in self._parsed(records, RECORD_KIND_DECISION, Decision):
            with self._setting_aside(record):
                slates += rows.decision_rows(record, decision)
        return slates

    def _documents(self, records: list[LogRecord]) -> list[Row]:
        """Return the rows of documents; a default gives way to what is there."""
        made: list[tuple[bool, Row]] = []
        for record, change in self._parsed(records, RECORD_KIND_DOCUMENT, DocumentChange):
            with self._setting_aside(record):
                made.append((is_default(record), rows.document_row(record, change)))
        known = self._documents_of({row["document_id"] for gives_way, row in made if gives_way})
        documents = []
        for gives_way, row in made:
            name = (row["kind"], row["document_id"])
            if not (gives_way and name in known):
                documents.append(row)
                known.add(name)
        return documents

    def _documents_of(self, ids: set[str]) -> set[tuple[str, str]]:
        sql = "SELECT kind, document_id FROM documents FINAL WHERE document_id IN {ids:Array(String)}"
        found = self._store.query(sql, {"ids": sorted(ids)}).to_pylist() if ids else []
        return {(row["kind"], row["document_id"]) for row in found}

    def _known(self, table: str, key: str, values: set[str]) -> dict[str, Row]:
        return {row[key]: row for row in self._found(table, key, values)}

    def _found(self, table: str, key: str, values: set[str]) -> Iterator[Row]:
        sql = f"SELECT * FROM {table} FINAL WHERE {key} IN {{keys:Array(String)}}"  # noqa: S608
        ordered = sorted(values)
        for start in range(0, len(ordered), _LOOKUP_ROWS):
            yield from rows.rows_of(self._store.query(sql, {"keys": ordered[start : start + _LOOKUP_ROWS]}))

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
        self.bad.append(rows.bad_row(record, str(error)))


def _unread(kind: int) -> str:
    if kind == NO_RECORD:
        return "it is no record of ours: headers are missing, or its kind belongs to another topic"
    return f"kind {kind} is not known; a newer sink may read it"


def _erasures(records: Iterable[LogRecord], known: Mapping[str, Erasure]) -> dict[str, Erasure]:
    """Return the erasure of each visitor whom records say to forget; none covers less than one that was known."""
    found: dict[str, Erasure] = {}
    for record in records:
        if record.kind == RECORD_KIND_ERASURE:
            before = found.get(record.key) or known.get(record.key) or Erasure(0, 0)
            found[record.key] = Erasure(max(record.offset, before.offset), max(record.time_ms, before.time_ms))
    return found
