"""Profiles that Kafka keeps no longer, for the tables that it fills: each machine states once what its log knows."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple
from zlib import crc32

from google.protobuf.message import DecodeError

from server.ports import EventLog, EventStore, LogRecord
from server.workers.rows import rows_of
from server.workers.table_writer import TableWriter
from shopkeeper.v1.common_pb2 import ConsentPurpose
from shopkeeper.v1.profile_service_pb2 import Profile
from shopkeeper.v1.record_pb2 import RECORD_KIND_PROFILE

BEFORE_ALL: Final = -(2**62)
"""Added to offsets of the log, so that whatever Kafka has is newer."""
_READ_ROWS: Final = 20_000
_WRITE_ROWS: Final = 1_000
_CHANGES_AT_ONCE: Final = 500_000
_FILLED: Final = """
SELECT visitor_id, log_offset, payload FROM profiles FINAL
WHERE visitor_id IN {visitors:Array(String)} AND log_offset < 0
"""


class _Stated(NamedTuple):
    """What a log, or a fill, says of a visitor."""

    offset: int
    time_ms: int
    traits: Mapping[str, str]
    consents: Mapping[ConsentPurpose.ValueType, bool]


def fill_profiles(log: EventLog, store: EventStore, name: str, stopping: threading.Event) -> int:
    """Bring the profiles of a log into tables that have not had them from it; return of how many visitors it has some.

    What Kafka brought of a visitor stays, and what it has comes again from there after this, newer than all of it. Of
    a visitor whom the fill of another log brought, who is denied in either stays denied: their offsets do not tell
    which answer is newer, for a log may be an old backup. Of a trait that both have, the last fill's value stays. A
    long log is read several times, for a part of its visitors each, which are in memory meanwhile.

    Parameters
    ----------
    log : of this machine
    store : tables, up to date
    name : of the position that says that it was done
    stopping : ends it early; the next start does it again
    """
    if name in store.positions():
        return 0
    writer = TableWriter(store)
    parts = 1 + sum(1 for _ in _profiles(log, stopping)) // _CHANGES_AT_ONCE
    count = 0
    for part in range(parts):
        stated = _stated(one for one in _profiles(log, stopping) if crc32(one.key.encode()) % parts == part)
        visitors = list(stated)
        for start in range(0, len(visitors), _WRITE_ROWS):
            if stopping.is_set():
                return count
            batch = visitors[start : start + _WRITE_ROWS]
            filled = _filled(store, batch)
            writer.write([_record(visitor_id, stated[visitor_id], filled.get(visitor_id)) for visitor_id in batch])
            count += len(batch)
    if not stopping.is_set():
        store.save_positions({name: 1})
    return count


def _profiles(log: EventLog, stopping: threading.Event) -> Iterator[LogRecord]:
    """Yield the changes of profiles of the log, in order."""
    after = 0
    while not stopping.is_set() and (records := log.profiles(after, _READ_ROWS)):
        after = records[-1].offset
        yield from records


def _stated(records: Iterable[LogRecord]) -> dict[str, _Stated]:
    """Return what the records say in the end of each visitor."""
    found: dict[str, _Stated] = {}
    for record in records:
        with suppress(DecodeError):
            change = Profile.FromString(record.payload)
            found[change.visitor_id] = _changed(found.get(change.visitor_id), record.offset, record.time_ms, change)
    return found


def _filled(store: EventStore, visitors: Sequence[str]) -> dict[str, _Stated]:
    """Return what fills brought of visitors of whom Kafka brought nothing."""
    rows = rows_of(store.query(_FILLED, {"visitors": [*visitors]}))
    return {row["visitor_id"]: _changed(None, row["log_offset"], 0, Profile.FromString(row["payload"])) for row in rows}


def _changed(old: _Stated | None, offset: int, time_ms: int, change: Profile) -> _Stated:
    traits = {trait.name: trait.value for trait in change.traits}
    consents = {consent.purpose: consent.granted for consent in change.consents}
    if old is None:
        return _Stated(offset, time_ms, traits, consents)
    return _Stated(offset, time_ms, {**old.traits, **traits}, {**old.consents, **consents})


def _record(visitor_id: str, stated: _Stated, filled: _Stated | None) -> LogRecord:
    """Return the change that makes the visitor's row what it shall be."""
    offset, consents = stated.offset + BEFORE_ALL, dict(stated.consents)
    if filled is not None:
        offset = max(offset, filled.offset + 1)
        consents |= {purpose: False for purpose, granted in filled.consents.items() if not granted}
    change = Profile(visitor_id=visitor_id)
    for name, value in stated.traits.items():
        change.traits.add(name=name, value=value)
    for purpose, granted in consents.items():
        change.consents.add(purpose=purpose, granted=granted)
    payload = change.SerializeToString()
    return LogRecord(offset, RECORD_KIND_PROFILE, stated.time_ms, visitor_id, "", payload)
