"""A log with its tables and their sink, and the records that tests write."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from server.adapters.chdb_store import ChdbStore
from server.adapters.clickhouse_store import ClickHouseStore
from server.adapters.memory_log import MemoryLog
from server.adapters.sql_store import SqlStore
from server.ports import NewRecord
from server.settings import ClickHouseSettings, SinkSettings
from server.workers.log_feed import LogFeed
from server.workers.sink import Sink
from shopkeeper.v1.common_pb2 import Consent, ConsentPurpose, Context, Money
from shopkeeper.v1.event_pb2 import Event, EventItem, EventType
from shopkeeper.v1.profile_service_pb2 import Profile, Trait
from shopkeeper.v1.record_pb2 import Erasure, ItemChange, RecordKind

KINDS = ("chdb", "clickhouse")
TRAINING = ConsentPurpose.CONSENT_PURPOSE_TRAINING


class Shop:
    """Log, tables and sink of one test."""

    def __init__(self, store: SqlStore) -> None:
        self.log = MemoryLog()
        self.store = store
        self.store.migrate()
        self.sink = self.another_sink()

    def another_sink(self) -> Sink:
        return Sink(LogFeed(self.log), self.store, SinkSettings())

    def add(self, *records: NewRecord, time_ms: int = 1_000) -> None:
        self.log.append_later(records, time_ms)

    def offset(self) -> int:
        return self.store.positions().get("log", 0)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        table = self.store.query(sql)
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def either_shop(request: pytest.FixtureRequest, folder: Path) -> Iterator[Shop]:
    """Yield a shop in the tables that the fixture's parameter names, of `KINDS`; chDB's are in `folder`."""
    if request.param == "chdb":
        shop = Shop(ChdbStore(folder))
    else:
        shop = Shop(clickhouse_store(request.getfixturevalue("clickhouse_address")))
    yield shop
    shop.store.close()


def clickhouse_store(address: str, **options: Any) -> ClickHouseStore:
    """Return tables in a database of their own, unless `options` name one."""
    return ClickHouseStore(ClickHouseSettings(server=address, **{"database": f"test_{uuid.uuid4().hex}"} | options))


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Return once the condition holds; it is asked once at least after `seconds`, however long it takes."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"nothing happened within {seconds:g} s")
        time.sleep(0.01)


def event(
    event_id: str,
    *item_ids: str,
    visitor_id: str = "v",
    user_id: str = "",
    price: float | None = None,
    time_ms: int = 5,
) -> NewRecord:
    money = None if price is None else Money(currency_code="USD", units=int(price), nanos=round(price % 1 * 1e9))
    message = Event(
        event_id=event_id,
        event_type=EventType.EVENT_TYPE_PURCHASE if item_ids else EventType.EVENT_TYPE_SEARCH,
        event_time=Timestamp(seconds=time_ms // 1000, nanos=time_ms % 1000 * 1_000_000),
        context=Context(visitor_id=visitor_id, user_id=user_id, query="" if item_ids else "cheese"),
        items=[EventItem(item_id=item_id, quantity=2, price=money) for item_id in item_ids],
    )
    key = user_id or visitor_id
    return NewRecord(RecordKind.RECORD_KIND_EVENT, key, event_id, message.SerializeToString())


def item(change: ItemChange) -> NewRecord:
    return NewRecord(RecordKind.RECORD_KIND_ITEM, "", "", change.SerializeToString())


def profile(visitor_id: str, traits: Mapping[str, str] | None = None, *, training: bool | None = None) -> NewRecord:
    message = Profile(
        visitor_id=visitor_id,
        traits=[Trait(name=name, value=value) for name, value in (traits or {}).items()],
        consents=[] if training is None else [Consent(purpose=TRAINING, granted=training)],
    )
    return NewRecord(RecordKind.RECORD_KIND_PROFILE, visitor_id, "", message.SerializeToString())


def erasure(visitor_id: str, user_id: str = "") -> NewRecord:
    payload = Erasure(visitor_id=visitor_id, user_id=user_id).SerializeToString()
    return NewRecord(RecordKind.RECORD_KIND_ERASURE, visitor_id, "", payload)
