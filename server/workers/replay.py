"""Rows of `bad_events` come back, tried again as they are or mended, or are dismissed.

Tried again, a record makes the rows that it would have made at its own place in the log, as a rebuild of the tables
would. Mended, it is a new record at the end of the log, from where it reaches every view, once whatever is repeated.
Dismissed, its row stays with the time, is counted apart, and is neither tried again nor written anew by a sink.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from hashlib import blake2b
from itertools import islice
from typing import Final, NamedTuple

import pyarrow as pa
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError, Message

from core_rs import (
    Engine,
    EngineError,
    InvalidRequestError,
    check_control,
    check_item,
    check_placement,
    check_profile,
    event_columns,
)
from server.ports import AppendStatus, Erasure, EventLog, LogRecord, NewRecord, RowStore
from server.workers.rows import rows_of
from server.workers.table_writer import TableWriter
from shopkeeper.v1.event_pb2 import Event
from shopkeeper.v1.event_service_pb2 import RecordEventsRequest, RecordEventsResponse
from shopkeeper.v1.profile_service_pb2 import Profile
from shopkeeper.v1.record_pb2 import (
    RECORD_KIND_DECISION,
    RECORD_KIND_DOCUMENT,
    RECORD_KIND_ERASURE,
    RECORD_KIND_EVENT,
    RECORD_KIND_ITEM,
    RECORD_KIND_PROFILE,
    RECORD_KIND_STATED,
    Decision,
    DocumentChange,
    ItemChange,
    Stated,
)

MESSAGES: Final[Mapping[int, type[Message]]] = {
    RECORD_KIND_EVENT: Event,
    RECORD_KIND_DECISION: Decision,
    RECORD_KIND_ITEM: ItemChange,
    RECORD_KIND_PROFILE: Profile,
    RECORD_KIND_STATED: Stated,
    RECORD_KIND_DOCUMENT: DocumentChange,
}
"""Message of each kind that can be mended."""

_CHUNK_ROWS: Final = 1_000
_COLUMNS: Final = "log_offset, kind, time_ms, visitor_id, record_id, reason, payload"
_NEXT: Final = (
    f"SELECT {_COLUMNS} FROM bad_events FINAL WHERE log_offset > {{after:Int64}} AND dismiss_ms = 0 "  # noqa: S608
    "ORDER BY log_offset LIMIT {limit:Int64}"
)
_NAMED: Final = f"SELECT {_COLUMNS} FROM bad_events FINAL WHERE log_offset IN {{offsets:Array(Int64)}}"  # noqa: S608
_KNOWN: Final = "SELECT DISTINCT event_id FROM events WHERE event_id IN {ids:Array(String)}"
_DISMISS: Final = (
    "ALTER TABLE bad_events UPDATE dismiss_ms = {now:Int64} "
    "WHERE log_offset IN {offsets:Array(Int64)} AND dismiss_ms = 0 SETTINGS mutations_sync = 1"
)
_REMOVE: Final = "ALTER TABLE bad_events DELETE WHERE log_offset IN {offsets:Array(Int64)} SETTINGS mutations_sync = 1"


class Fate(StrEnum):
    """What became of one row."""

    STORED = "stored"
    DUPLICATE = "known before"
    ERASED = "its visitor was forgotten"
    OUTDATED = "older than what the table has"
    BAD = "still bad"
    REFUSED = "refused"
    CONFLICT = "in conflict with the log"
    DISMISSED = "dismissed"
    ABSENT = "not in bad_events"


_DONE: Final = frozenset({Fate.STORED, Fate.DUPLICATE, Fate.ERASED})
"""After which the row is not in `bad_events` any more."""


class BadRow(NamedTuple):
    """Row of `bad_events`."""

    record: LogRecord
    reason: str


class Mended(NamedTuple):
    """What shall take the place of a row: its message, encoded or by the names of its fields."""

    log_offset: int
    payload: bytes | Mapping[str, object]
    kind: int = 0
    """`RecordKind` of a row whose own is not known; 0 keeps that of the row."""


class Outcome(NamedTuple):
    """Fate of one row."""

    log_offset: int
    fate: Fate
    reason: str = ""
    """Why it was not put back; of one that is dismissed, why it was in `bad_events`."""
    row: BadRow | None = None


class MendError(Exception):
    """A mended message cannot take the place of its row; the text says why."""


class Replay:
    """Puts rows of `bad_events` back, or dismisses them.

    Parameters
    ----------
    store : tables, up to date
    log : where mended records go
    rehearse : whether all is looked at and nothing is changed; what a table would refuse cannot be told then
    """

    def __init__(self, store: RowStore, log: EventLog, *, rehearse: bool = False) -> None:
        self._store = store
        self._log = log
        self._rehearse = rehearse
        self._event_ids: set[str] = set()

    def try_again(self) -> Iterator[Outcome]:
        """Yield the fate of every row that is not dismissed, tried once more as it is."""
        writer = TableWriter(_Rehearsal(self._store) if self._rehearse else self._store)
        after = -1
        while rows := self._rows(_NEXT, {"after": after, "limit": _CHUNK_ROWS}):
            after = rows[-1].record.offset
            writer.write([row.record for row in rows])
            bad = {row["log_offset"]: row["reason"] for row in writer.bad}
            yield from self._settled([_tried(row, bad, writer) for row in rows])

    def put_back(self, mended: Iterable[Mended]) -> Iterator[Outcome]:
        """Yield the fate of every row that a mended message was given for."""
        erasures = self._store.erasures()
        waiting = iter(mended)
        while chunk := list(islice(waiting, _CHUNK_ROWS)):
            rows = self._rows(_NAMED, {"offsets": [one.log_offset for one in chunk]})
            by_offset = {row.record.offset: row for row in rows}
            outcomes: list[Outcome] = []
            records: list[tuple[BadRow, NewRecord]] = []
            for one in chunk:
                row = by_offset.pop(one.log_offset, None)
                if row is None:
                    outcomes.append(Outcome(one.log_offset, Fate.ABSENT, "put back before, erased, or named twice"))
                    continue
                try:
                    record = record_of(row, one, erasures)
                    _check_since(self._log, row.record, record)
                    records.append((row, record))
                except MendError as error:
                    outcomes.append(Outcome(one.log_offset, Fate.REFUSED, str(error), row))
            yield from self._settled(outcomes + self._append(records))

    def dismiss(self, offsets: Iterable[int], now_ms: int) -> Iterator[Outcome]:
        """Yield the fate of every row that is named by its offset; one may still be mended later.

        Parameters
        ----------
        offsets : `log_offset` of each row
        now_ms : Unix milliseconds, kept with rows that were not dismissed before
        """
        waiting = iter(offsets)
        while chunk := list(dict.fromkeys(islice(waiting, _CHUNK_ROWS))):
            rows = {row.record.offset: row for row in self._rows(_NAMED, {"offsets": chunk})}
            if rows and not self._rehearse:
                self._store.query(_DISMISS, {"now": now_ms, "offsets": list(rows)})
            for offset in chunk:
                if row := rows.get(offset):
                    yield Outcome(offset, Fate.DISMISSED, row.reason, row)
                else:
                    yield Outcome(offset, Fate.ABSENT, "put back before, or erased")

    def _append(self, records: Sequence[tuple[BadRow, NewRecord]]) -> list[Outcome]:
        """Return the fates of records that are appended at the times of their rows, unless their event is known."""
        ids = [Event.FromString(record.payload).event_id if _is_event(record) else "" for _, record in records]
        self._event_ids |= self._known(sorted(set(ids) - {""}))
        fresh, outcomes = [], []
        for (row, record), event_id in zip(records, ids, strict=True):
            if event_id in self._event_ids:
                outcomes.append(Outcome(row.record.offset, Fate.DUPLICATE, "", row))
            else:
                fresh.append((row, record))
                self._event_ids |= {event_id} - {""}
        stored = [AppendStatus.STORED] * len(fresh) if self._rehearse else asyncio.run(_append(self._log, fresh))
        return outcomes + [_appended(row, status) for (row, _), status in zip(fresh, stored, strict=True)]

    def _settled(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Return the outcomes, once the rows that are put back are removed."""
        offsets = [one.log_offset for one in outcomes if one.fate in _DONE]
        if offsets and not self._rehearse:
            self._store.query(_REMOVE, {"offsets": offsets})
        return outcomes

    def _rows(self, sql: str, params: Mapping[str, object]) -> list[BadRow]:
        found = rows_of(self._store.query(sql, params))
        names = ("log_offset", "kind", "time_ms", "visitor_id", "record_id", "payload")
        return [BadRow(LogRecord(*(row[name] for name in names)), row["reason"]) for row in found]

    def _known(self, ids: list[str]) -> set[str]:
        found = self._store.query(_KNOWN, {"ids": ids}).column("event_id").to_pylist() if ids else []
        return set(found)


class _Rehearsal:
    """`RowStore` that is read and never changed."""

    def __init__(self, store: RowStore) -> None:
        self.query = store.query
        self.erasures = store.erasures

    def insert(self, table: str, rows: pa.Table) -> None:
        """Do nothing."""

    def erase(self, erasures: Mapping[str, Erasure]) -> None:
        """Do nothing."""


def record_of(row: BadRow, mended: Mended, erasures: Mapping[str, Erasure]) -> NewRecord:
    """Return the record that takes the place of a row, checked as a service would check it.

    Raises
    ------
    MendError : it may not
    """
    kind = mended.kind or row.record.kind
    message = _message(kind, mended.payload)
    if isinstance(message, Event):
        record = _event_record(row, message)
    else:
        if isinstance(message, Stated):
            _check_times(message, row.record.time_ms)
        key = _checked(message) or (row.record.key if kind == RECORD_KIND_DECISION else "")
        record = NewRecord(kind, key, _record_id(row), message.SerializeToString(deterministic=True))
    for key in {record.key, row.record.key} - {""}:
        if row.record.time_ms <= erasures.get(key, Erasure(0, -1)).time_ms:
            raise MendError(f"visitor {key} was forgotten since")
    return record


def _check_times(stated: Stated, time_ms: int) -> None:
    """Raise MendError where answers are of after the record: they would outlast every other."""
    if any(max(denial.time_ms - 1, denial.bound_ms) > time_ms for denial in stated.denials):
        raise MendError(f"a denial has a time after the record's, {time_ms}; give the time at which it was denied")
    if any(max(answer.first_ms, answer.last_ms) - 1 > time_ms for answer in stated.answers):
        raise MendError(f"an answer has a time after the record's, {time_ms}; give the time at which it was given")


def _check_since(log: EventLog, old: LogRecord, record: NewRecord) -> None:
    """Raise MendError where the log of this machine knows what a record of the time of `old` must not undo."""
    for later in log.records_of(record.key) if record.key else ():
        if later.kind == RECORD_KIND_ERASURE and later.time_ms >= old.time_ms:
            raise MendError(f"visitor {record.key} was forgotten since")
        is_other = later.time_ms >= old.time_ms and later.payload != old.payload
        if later.kind == record.kind == RECORD_KIND_PROFILE and is_other:
            raise MendError("the profile was changed since; send what of it still holds by UpsertProfile")


def _message(kind: int, payload: bytes | Mapping[str, object]) -> Message:
    if kind not in MESSAGES:
        raise MendError(f"records of kind {kind} cannot be mended; name the kind, e.g. event")
    try:
        if isinstance(payload, bytes):
            return MESSAGES[kind].FromString(payload)
        return ParseDict(dict(payload), MESSAGES[kind]())
    except (DecodeError, ParseError) as error:
        raise MendError(f"it is no {MESSAGES[kind].DESCRIPTOR.name} ({error})") from error


def _event_record(row: BadRow, event: Event) -> NewRecord:
    """Return the record of an event. One that could be read before is in the live state, and would count twice."""
    if row.record.kind == RECORD_KIND_EVENT and _can_be_read(row.record):
        raise MendError("the event can be read and counts in serving; mend the table, then try again without a file")
    request = RecordEventsRequest(events=[event]).SerializeToString()
    batch = Engine().prepare_events(request, row.record.time_ms, history=True)
    if not batch.rows:
        (result,) = RecordEventsResponse.FromString(batch.reply([])).results
        raise MendError(result.message)
    ((event_id, key, payload),) = batch.rows
    return NewRecord(RECORD_KIND_EVENT, key, _record_id(row) if row.record.record_id else event_id, payload)


def _checked(message: Message) -> str:
    """Return the key of a record with this message, once it is within its limits."""
    try:
        if isinstance(message, ItemChange):
            check_item(message.item.SerializeToString(), 0)
        elif isinstance(message, Profile):
            check_profile(message.SerializeToString())
            return message.visitor_id
        elif isinstance(message, Stated):
            consents = [answer.consent for answer in message.answers]
            return _checked(Profile(visitor_id=message.visitor_id, traits=message.traits, consents=consents))
        elif isinstance(message, DocumentChange):
            if message.HasField("control"):
                check_control(message.control.SerializeToString())
            else:
                check_placement(message.placement.SerializeToString())
    except InvalidRequestError as error:
        raise MendError(str(error)) from error
    return ""


def _record_id(row: BadRow) -> str:
    """Return the id under which what takes the place of a row is in the log once; the row's own id is taken there."""
    record = row.record
    digest = blake2b(f"{record.offset} {record.kind} {record.record_id} ".encode() + record.payload, digest_size=16)
    return f"replay-{digest.hexdigest()}"


def _can_be_read(record: LogRecord) -> bool:
    try:
        event_columns([(record.offset, record.time_ms, record.payload)])
    except EngineError:
        return False
    return True


def _is_event(record: NewRecord) -> bool:
    return record.kind == RECORD_KIND_EVENT


def _tried(row: BadRow, bad: Mapping[int, str], writer: TableWriter) -> Outcome:
    offset = row.record.offset
    if offset in bad:
        return Outcome(offset, Fate.BAD, bad[offset], row)
    if offset in writer.outdated:
        return Outcome(offset, Fate.OUTDATED, "a newer change is in the table; mend it into a new one", row)
    return Outcome(offset, Fate.ERASED if writer.is_erased(row.record) else Fate.STORED, "", row)


def _appended(row: BadRow, status: AppendStatus) -> Outcome:
    match status:
        case AppendStatus.STORED:
            return Outcome(row.record.offset, Fate.STORED, "", row)
        case AppendStatus.DUPLICATE:
            return Outcome(row.record.offset, Fate.DUPLICATE, "", row)
    return Outcome(row.record.offset, Fate.CONFLICT, "the log has its id, or what was put back, with other bytes", row)


async def _append(log: EventLog, records: Sequence[tuple[BadRow, NewRecord]]) -> list[AppendStatus]:
    """Return the status of each record, once all are on disk; each has the time of its row."""
    calls = [log.append([record], row.record.time_ms) for row, record in records]
    return [status for (status,) in await asyncio.gather(*calls)]
