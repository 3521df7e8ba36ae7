"""SINK: rows a second from the log into ClickHouse, against clickhouse-driver that inserts the same rows as dicts.

The peer is handed its rows. The sink reads and parses them first; `SINK insert` is what it does after that.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from clickhouse_driver import Client
from measure import Comparison, Row, require, turns

from server.adapters.clickhouse_store import ClickHouseStore
from server.adapters.memory_log import MemoryLog
from server.ports import NewRecord
from server.settings import ClickHouseSettings, SinkSettings
from server.workers.log_feed import LogFeed
from server.workers.sink import Sink
from shopkeeper.v1.common_pb2 import Context, Money
from shopkeeper.v1.event_pb2 import EVENT_TYPE_PURCHASE, Event, EventItem
from shopkeeper.v1.record_pb2 import RECORD_KIND_EVENT
from tests.servers import ClickHouseServer

_RUNS: Final = 5
_EVENTS: Final = 100_000
_LINES: Final = 2
_BATCH: Final = SinkSettings().batch_rows


def measure(note: Callable[[str], None]) -> list[Row]:
    """Return the row of SINK after the rows in both tables were counted and compared."""
    root = Path(__file__).parents[2] / "data"
    root.mkdir(exist_ok=True)
    log = MemoryLog()
    for start in range(0, _EVENTS, _BATCH):
        log.append_later([_record(number) for number in range(start, min(start + _BATCH, _EVENTS))], 1_000)
    with tempfile.TemporaryDirectory(dir=root) as name, ClickHouseServer(Path(name)) as server:
        store = ClickHouseStore(ClickHouseSettings(server=server.address, database="ours"))
        store.migrate()
        client = Client(server.address.split(":")[0], port=server.port, compression="lz4")
        client.execute("CREATE DATABASE peer")
        client.execute("CREATE TABLE peer.events AS ours.events")

        def ours() -> float:
            _empty(store)
            started = time.perf_counter()
            Sink(LogFeed(log), store, SinkSettings()).drain()
            return _EVENTS * _LINES / (time.perf_counter() - started)

        ours()
        batches = _batches(_rows(client))

        def peer() -> float:
            client.execute("TRUNCATE TABLE peer.events")
            started = time.perf_counter()
            for batch in batches:
                client.execute("INSERT INTO peer.events VALUES", batch)
            return _EVENTS * _LINES / (time.perf_counter() - started)

        columns = store.query("SELECT * FROM events")

        def insert_alone() -> float:
            _empty(store)
            started = time.perf_counter()
            for start in range(0, columns.num_rows, _BATCH):
                store.insert("events", columns.slice(start, _BATCH))
            return columns.num_rows / (time.perf_counter() - started)

        found = turns({"ours": ours, "insert": insert_alone, "peer": peer}, _RUNS, note)
        _check(client)
        store.close()
    detail = {"batch": _BATCH, "rows": _EVENTS * _LINES}
    rows = (("SINK", found["ours"]), ("SINK insert", found["insert"]))
    return [
        Comparison(values, found["peer"]).row(name, "rows/s", "clickhouse-driver, rows as dicts", **detail)
        for name, values in rows
    ]


def _record(number: int) -> NewRecord:
    price = Money(currency_code="USD", units=number % 90, nanos=990_000_000)
    event = Event(
        event_id=f"{number:032x}",
        event_type=EVENT_TYPE_PURCHASE,
        context=Context(visitor_id=f"visitor-{number % 20_000}", session_id=f"session-{number // 10}"),
        items=[EventItem(item_id=f"item-{(number * 7 + line) % 10_000}", quantity=1, price=price)
               for line in range(_LINES)],
    )  # fmt: skip
    event.event_time.FromMilliseconds(1_700_000_000_000 + number)
    return NewRecord(RECORD_KIND_EVENT, event.context.visitor_id, event.event_id, event.SerializeToString())


def _empty(store: ClickHouseStore) -> None:
    for table in ("events", "sink_offsets"):
        store.query(f"TRUNCATE TABLE {table}")


def _rows(client: Client) -> list[dict[str, Any]]:
    """Return what our sink wrote as dicts, so that the peer has nothing to parse."""
    rows, columns = client.execute("SELECT * FROM ours.events", with_column_types=True)
    names = [name for name, _ in columns]
    return [dict(zip(names, row, strict=True)) for row in rows]


def _batches(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]


def _check(client: Client) -> None:
    """Require that both tables hold every line once."""
    for database in ("ours", "peer"):
        sql = f"SELECT count(), uniqExact(event_id, line) FROM {database}.events FINAL"  # noqa: S608
        counts = client.execute(sql)
        require(counts == [(_EVENTS * _LINES,) * 2], f"{database} has {counts}, not {_EVENTS * _LINES} rows")
