"""Profiles that Kafka keeps no longer, for the tables that it fills: each machine states once what its log knows."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final
from zlib import crc32

from core_rs import EngineError, stated_after
from server.ports import EventLog, EventStore, LogRecord
from server.workers.table_writer import TableWriter
from shopkeeper.v1.record_pb2 import RECORD_KIND_STATED

BEFORE_ALL: Final = -(2**62)
"""Added to offsets of the log, so that whatever Kafka has is newer."""
_READ_ROWS: Final = 20_000
_WRITE_ROWS: Final = 1_000
_CHANGES_AT_ONCE: Final = 500_000


def fill_profiles(log: EventLog, store: EventStore, name: str, stopping: threading.Event) -> int:
    """Bring what a log has stated into tables that have not had it from there; return about how many visitors it was.

    What Kafka brings of a visitor counts as newer than all of it, and an erasure takes all of it along. With what other
    logs brought it is merged by the times of the answers, for a log may be an old backup; of a trait that two have, the
    value of the longer log stays. A long log is read several times, for a part of its visitors each, which are in
    memory meanwhile.

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
    parts = 1 + sum(1 for _ in _statements(log, stopping)) // _CHANGES_AT_ONCE
    count = 0
    for part in range(parts):
        stated = _stated(one for one in _statements(log, stopping) if crc32(one.key.encode()) % parts == part)
        visitors = list(stated)
        for start in range(0, len(visitors), _WRITE_ROWS):
            if stopping.is_set():
                return count
            batch = visitors[start : start + _WRITE_ROWS]
            writer.learn_erasures()  # others forget visitors meanwhile
            writer.write([stated[visitor_id] for visitor_id in batch])
            count += len(batch)
    if not stopping.is_set():
        store.save_positions({name: 1})
    return count


def _statements(log: EventLog, stopping: threading.Event) -> Iterator[LogRecord]:
    """Yield the records of what was stated, in order."""
    after = 0
    while not stopping.is_set() and (records := log.statements(after, _READ_ROWS)):
        after = records[-1].offset
        yield from records


def _stated(records: Iterable[LogRecord]) -> dict[str, LogRecord]:
    """Return one record for each visitor, before all that Kafka has, that says what the records say in the end.

    Damaged ones say nothing.
    """
    found: dict[str, LogRecord] = {}
    for record in records:
        known = found[record.key].payload if record.key in found else b""
        with suppress(EngineError):
            stated, _ = stated_after(known, record.kind, record.time_ms, record.payload)
            offset = record.offset + BEFORE_ALL
            found[record.key] = record._replace(offset=offset, kind=RECORD_KIND_STATED, record_id="", payload=stated)
    return found
