"""A log that is shipped to topics of its own, and the tables that follow them."""

import asyncio
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from server.adapters.kafka_feed import KafkaFeed
from server.adapters.kafka_stream import KafkaStream
from server.adapters.kafka_topics import make_topics, missing_topics
from server.adapters.outbox import SqliteOutbox
from server.adapters.sqlite_log import SqliteLog
from server.clock import clock_of
from server.ports import EventStore, LogRecord, NewRecord
from server.settings import ClockSettings, KafkaSettings, SinkSettings
from server.streams import TOPICS
from server.workers.shipper import Shipper
from server.workers.sink import Sink
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.record_pb2 import ItemChange
from tests.table_shop import event, item, profile

_PATIENCE_S, _PAUSE_S = 60.0, 0.01
"""While a group deals its partitions anew, reads give nothing at once."""


def kafka_settings(address: str, **options: Any) -> KafkaSettings:
    """Return settings with topics of their own, which are not made yet."""
    return KafkaSettings(
        **{"servers": address, "prefix": f"test-{uuid.uuid4().hex}", "partitions": 3, "replication": 1} | options
    )


class Machine:
    """Log of one machine and its shipper."""

    def __init__(self, folder: Path, settings: KafkaSettings) -> None:
        self.log = SqliteLog(folder / "log.sqlite")
        self.outbox = SqliteOutbox(folder / "log.sqlite")
        self.stream = KafkaStream(settings)
        self.shipper = self.another_shipper()

    def another_shipper(self) -> Shipper:
        return Shipper(self.outbox, self.stream, clock_of(ClockSettings()))

    def add(self, *records: NewRecord, time_ms: int = 1_000) -> None:
        list(self.log.import_records([records], time_ms))

    def ship(self) -> int:
        count = 0
        while shipped := self.shipper.step():
            count += shipped
        return count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self.outbox.close()
        self.log.close()


def drained(feed: KafkaFeed, count: int) -> list[LogRecord]:
    """Return what the feed gives until there are `count` records, and what comes with them."""
    records: list[LogRecord] = []
    deadline = time.monotonic() + _PATIENCE_S
    while len(records) < count and time.monotonic() < deadline:
        records += feed.read(1_000).records
        time.sleep(_PAUSE_S)
    return records


@contextmanager
def sink_of(settings: KafkaSettings, store: EventStore) -> Iterable[Sink]:  # type: ignore[misc]
    feed = KafkaFeed(settings, "sink")
    try:
        yield Sink(feed, store, SinkSettings())
    finally:
        feed.close()


def drain(sink: Sink, count: int) -> int:
    """Return how many records the sink wrote, once there are `count`."""
    written = 0
    deadline = time.monotonic() + _PATIENCE_S
    while written < count and time.monotonic() < deadline:
        written += sink.step()
        time.sleep(_PAUSE_S)
    return written


def topics(settings: KafkaSettings) -> KafkaSettings:
    make_topics(settings)
    return settings


async def forget_all(settings: KafkaSettings) -> None:
    """Let Kafka drop the events it has, as its retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.servers)
    await admin.start()
    parts = [TopicPartition(f"{settings.prefix}.events", number) for number in range(settings.partitions)]
    await admin.delete_records({part: RecordsToDelete(-1) for part in parts})
    await admin.close()


def make_anew(settings: KafkaSettings) -> None:
    """Let Kafka have the topics, and nothing in them, as one that was built anew."""
    asyncio.run(_remove(settings))
    while missing_topics(settings) != list(TOPICS):
        time.sleep(0.05)
    make_topics(settings)


async def _remove(settings: KafkaSettings) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.servers)
    await admin.start()
    await admin.delete_topics([f"{settings.prefix}.{topic}" for topic in TOPICS])
    await admin.close()


def ids(records: Sequence[LogRecord]) -> list[str]:
    return [record.record_id for record in records]


def walk(number: int) -> list[NewRecord]:
    """Return what a visitor does before and after it says who it is, with an item of its own."""
    phone, user, brie = f"phone{number}", f"user{number}", f"brie{number}"
    return [
        item(ItemChange(item=Item(item_id=brie))),
        event(f"view{number}", brie, visitor_id=phone),
        profile(phone, {"size": "M"}, training=False),
        event(f"login{number}", brie, visitor_id=phone, user_id=user),
        event(f"after{number}", brie, visitor_id=phone, user_id=user),
    ]


def written(log: SqliteLog) -> list[tuple[int, str, bytes]]:
    """Return what machines that follow each other have in common: all but offsets and times."""
    return [(record.kind, record.record_id, record.payload) for record in log.read(0, 100_000)]
