"""REPLAY: an empty engine learns a log of 10,000,000 events; how soon, beside the mere reading of the same file.

The log takes 3 GB of the disk until the end.
"""

import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from measure import Row, require

from core_rs import Engine
from server.adapters.log_rows import INSERT, row_of
from server.adapters.log_rows import Row as LogRow
from server.adapters.sqlite_log import SqliteLog
from server.ports import NewRecord
from server.settings import Settings
from server.workers.replica import CHUNK_ROWS, Replica
from shopkeeper.v1 import event_pb2
from shopkeeper.v1.common_pb2 import Context
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.record_pb2 import RECORD_KIND_DECISION, RECORD_KIND_EVENT, RECORD_KIND_ITEM, ItemChange

_EVENTS: Final = 10_000_000
_VISITORS: Final = 1_000_000
_ITEMS: Final = 100_000
_BATCH: Final = 20_000
_TYPES: Final = (event_pb2.EVENT_TYPE_VIEW,) * 8 + (event_pb2.EVENT_TYPE_ADD_TO_CART, event_pb2.EVENT_TYPE_PURCHASE)
_START_S: Final = 1_767_225_600


def measure(note: Callable[[str], None]) -> list[Row]:
    """Return the rows of REPLAY after the engine's offset and counts were compared with the log's."""
    root = Path(__file__).parents[2] / "data"
    root.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as name:
        settings = Settings(data_dir=Path(name))
        _fill(settings.log_path, note)
        with closing(SqliteLog(settings.log_path)) as log:
            megabytes = settings.log_path.stat().st_size / 1e6
            engine, before = Engine(), _resident()
            started, cpu_s = time.perf_counter(), time.process_time()
            offset = Replica(engine, log, settings).restore()
            seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
            memory = _resident() - before
            note(f"replayed in {seconds:.0f} s")
            require(offset == log.last_offset() == _EVENTS + _ITEMS, f"the engine is at {offset:,}")
            counts = engine.stats()
            require(counts["visitors"] == _VISITORS, f"the engine knows {counts['visitors']:,} visitors")
            read_s = _read(log)
    rates = [_EVENTS / seconds, _EVENTS / read_s]
    detail = {
        "events": _EVENTS,
        "visitors": _VISITORS,
        "items": _ITEMS,
        "s": seconds,
        "cpu_s": cpu_s,
        "log MB": megabytes,
    }
    return [
        Row("REPLAY", rates[0], "events/s", "reading the log alone", rates[1], rates[0] / rates[1], detail=detail),
        Row("REPLAY memory", memory / 2**20, "MiB"),
    ]


def _fill(path: Path, note: Callable[[str], None]) -> None:
    """Write the log, sooner than through its own commits: at once, its indexes last."""
    SqliteLog(path).close()
    started = time.perf_counter()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript("PRAGMA synchronous = OFF; DROP INDEX records_by_id; DROP INDEX records_by_key; BEGIN")
        names = [f"item-{number:06}" for number in range(_ITEMS)]
        connection.executemany(INSERT, _items(names))
        for start in range(0, _EVENTS, _BATCH):
            connection.executemany(INSERT, _events(start, names))
            if start % 1_000_000 == 0:
                note(f"{start:,} events after {time.perf_counter() - started:.0f} s")
        connection.execute("COMMIT")
    SqliteLog(path).close()
    note(f"{_EVENTS:,} events written in {time.perf_counter() - started:.0f} s")


def _items(names: list[str]) -> Iterator[LogRow]:
    for name in names:
        change = ItemChange(item=Item(item_id=name))
        yield row_of(NewRecord(RECORD_KIND_ITEM, "", "", change.SerializeToString()), 1_000)


def _events(start: int, names: list[str]) -> Iterator[LogRow]:
    """Yield the rows of one second of events; ids fill the gaps of a message that was serialised once."""
    templates = [_template(kind, _START_S + start // _BATCH) for kind in _TYPES]
    for number in range(start, start + _BATCH):
        before, between, after, end = templates[number * 7 % len(_TYPES)]
        event_id, visitor_id = f"{number:032x}", f"visitor-{number * 7_919 % _VISITORS:07}"
        item_id = names[number * 104_729 % _ITEMS]
        payload = b"".join((before, event_id.encode(), between, visitor_id.encode(), after, item_id.encode(), end))
        yield row_of(NewRecord(RECORD_KIND_EVENT, visitor_id, event_id, payload), 1_000)


def _template(kind: event_pb2.EventType.ValueType, second: int) -> tuple[bytes, ...]:
    """Return the bytes of an event around its id, its visitor and its item."""
    gaps = ("E" * 32, "V" * len("visitor-0000000"), "I" * len("item-000000"))
    event = event_pb2.Event(event_id=gaps[0], event_type=kind, context=Context(visitor_id=gaps[1]))
    event.event_time.seconds = second
    event.items.add(item_id=gaps[2])
    return tuple(re.split("|".join(gaps).encode(), event.SerializeToString()))


def _read(log: SqliteLog) -> float:
    """Return the seconds that a replica's reads take, without the engine."""
    started, after = time.perf_counter(), 0
    while records := log.read(after, CHUNK_ROWS, skip_kinds=(RECORD_KIND_DECISION,)):
        after = records[-1].offset
    return time.perf_counter() - started


def _resident() -> int:
    """Return the bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
