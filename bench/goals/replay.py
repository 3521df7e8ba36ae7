"""REPLAY: an empty engine learns a log of 10,000,000 events; how soon, beside the mere reading of the same file.

The log takes 3 GB of the disk until the end.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from measure import Row, require

from core_rs import Engine
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
_STEP_MS: Final = 250


def measure(note: Callable[[str], None]) -> list[Row]:
    """Return the rows of REPLAY after the engine's offset and counts were compared with the log's."""
    root = Path(__file__).parents[2] / "data"
    root.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as name:
        settings = Settings(data_dir=Path(name))
        with closing(SqliteLog(settings.log_path)) as log:
            started = time.perf_counter()
            for _ in log.import_records(_batches(note), 1_000):
                pass
            note(f"{_EVENTS:,} events written in {time.perf_counter() - started:.0f} s")
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


def _batches(note: Callable[[str], None]) -> Iterator[list[NewRecord]]:
    """Yield the items, then the events, in pieces of one commit."""
    names = [f"item-{number}" for number in range(_ITEMS)]
    yield [
        NewRecord(RECORD_KIND_ITEM, "", "", ItemChange(item=Item(item_id=name)).SerializeToString()) for name in names
    ]
    event = event_pb2.Event(context=Context(), items=[event_pb2.EventItem()])
    line, context, moment = event.items[0], event.context, event.event_time
    for start in range(0, _EVENTS, _BATCH):
        batch = []
        for number in range(start, start + _BATCH):
            event.event_id = f"{number:032x}"
            event.event_type = _TYPES[number * 7 % 10]
            context.visitor_id = f"visitor-{number * 7_919 % _VISITORS}"
            line.item_id = names[number * 104_729 % _ITEMS]
            moment.seconds = _START_S + number * _STEP_MS // 1_000
            batch.append(NewRecord(RECORD_KIND_EVENT, context.visitor_id, event.event_id, event.SerializeToString()))
        yield batch
        if start % 1_000_000 == 0:
            note(f"{start:,} events")


def _read(log: SqliteLog) -> float:
    """Return the seconds that a replica's reads take, without the engine."""
    started, after = time.perf_counter(), 0
    while records := log.read(after, CHUNK_ROWS, skip_kinds=(RECORD_KIND_DECISION,)):
        after = records[-1].offset
    return time.perf_counter() - started


def _resident() -> int:
    """Return the bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
