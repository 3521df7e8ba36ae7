"""A machine that catches up sees what others wrote in their order, though it lies in several partitions."""

import asyncio
import functools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event as Flag

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from server.adapters import kafka_feed
from server.adapters.inbox import SqliteInbox
from server.adapters.kafka_feed import KafkaFeed
from server.adapters.sqlite_log import SqliteLog
from server.ports import LogRecord, NewRecord
from server.settings import KafkaSettings
from server.streams import FOLLOWED, headers_of, partition_of
from server.workers.follower import Follower
from tests.kafka_shop import Machine, kafka_settings, topics, walk, written
from tests.table_shop import event, wait_until


@pytest.fixture
def settings(kafka_address: str) -> KafkaSettings:
    return topics(kafka_settings(kafka_address))


@pytest.fixture
def machines(settings: KafkaSettings, tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    with Machine(tmp_path / "a", settings) as here, Machine(tmp_path / "b", settings) as there:
        yield here, there


def followed(settings: KafkaSettings, folder: Path) -> list[tuple[int, str, bytes]]:
    """Return the log of a new machine."""
    with closing(SqliteInbox(folder / "log.sqlite")) as inbox, closing(KafkaFeed(settings, topics=FOLLOWED)) as feed:
        Follower(feed, inbox).catch_up(Flag())
    with closing(SqliteLog(folder / "log.sqlite")) as log:
        return written(log)


def test_what_one_machine_wrote_at_once_keeps_its_order(
    machines: tuple[Machine, Machine], settings: KafkaSettings, tmp_path: Path
) -> None:
    here, _ = machines
    here.add(*(record for number in range(400) for record in walk(number)))
    here.ship()
    assert followed(settings, tmp_path / "new") == written(here.log)


def test_partitions_of_which_much_is_to_read_keep_their_order(
    machines: tuple[Machine, Machine], settings: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer of Kafka has a part of each partition, and one partition has most of all."""
    small = functools.partial(AIOKafkaConsumer, max_partition_fetch_bytes=3_000)
    monkeypatch.setattr(kafka_feed, "AIOKafkaConsumer", small)
    monkeypatch.setattr(kafka_feed, "_QUEUE_RECORDS", 30)
    here, _ = machines
    for number in range(60):
        here.add(*(event(f"much{number}-{turn}", "a", visitor_id="busy") for turn in range(50)))
        here.add(*walk(number))
        here.ship()
    assert followed(settings, tmp_path / "new") == written(here.log)


def test_what_machines_wrote_in_turn_keeps_its_order(
    machines: tuple[Machine, Machine], settings: KafkaSettings, tmp_path: Path
) -> None:
    """The visitor is seen by one machine, and the other is told who it is."""
    sent = []
    for number in range(20):
        for turn, record in enumerate(walk(number)):
            machine = machines[turn % 2]
            machine.add(record)
            machine.ship()
            sent.append((record.kind, record.record_id, record.payload))
    assert followed(settings, tmp_path / "new") == sent


async def test_record_is_told_after_the_one_that_was_sent_before_it(
    settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka may show us a login, and later the view that it took in the same moment."""
    phone = next(f"phone{number}" for number in range(9) if partition_of(f"phone{number}", 3) == 0)
    user = next(f"user{number}" for number in range(9) if partition_of(f"user{number}", 3) == 1)
    view, login = event("view", "a", visitor_id=phone), event("login", "a", visitor_id=phone, user_id=user)

    monkeypatch.setattr(kafka_feed, "_PATIENCE_S", 200.0)
    records: list[str] = []

    def read() -> list[str]:
        records.extend(arrival.record.record_id for arrival in feed.read_arrivals(1_000)[0])
        return records

    with closing(KafkaFeed(settings, topics=FOLLOWED)) as feed:
        feed.begin(dict)
        async with AIOKafkaProducer(bootstrap_servers=settings.servers) as producer:

            async def send(record: NewRecord, offset: int, partition: int) -> None:
                headers = headers_of(LogRecord(offset, time_ms=1, **record._asdict()), "there", 1, offset - 1)
                await producer.send_and_wait(
                    f"{settings.prefix}.events", record.payload, partition=partition, headers=headers
                )

            await send(event("first", "a"), 1, 2)
            await asyncio.to_thread(wait_until, lambda: read() == ["first"])
            await send(login, 3, 1)
            for _ in range(10):
                assert await asyncio.to_thread(read) == ["first"]
            await send(view, 2, 0)
            await asyncio.to_thread(wait_until, lambda: read() == ["first", "view", "login"])


def test_partition_that_gives_nothing_is_not_waited_for_in_vain(
    machines: tuple[Machine, Machine], settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its broker may be away for long, and those of the others are there."""
    monkeypatch.setattr(kafka_feed, "_PATIENCE_S", 3.0)
    here, _ = machines
    for number in range(60):
        here.add(event(f"e{number}", "a", visitor_id=f"v{number}"))
        here.ship()
    with closing(KafkaFeed(settings, topics=FOLLOWED)) as feed:
        feed.begin(dict)
        feed.ends()
        away = TopicPartition(f"{settings.prefix}.events", 0)
        running = feed._running

        async def call(what: str) -> None:
            getattr(running, what)(away)

        feed._run(call("pause"))
        records: list[str] = []

        def read() -> int:
            records.extend(arrival.record.record_id for arrival in feed.read_arrivals(1_000)[0])
            return len(records)

        assert read() == 0
        others = [f"e{number}" for number in range(60) if partition_of(f"v{number}", 3) != 0]
        wait_until(lambda: read() == len(others))
        assert records == others, "in their order"
        feed._run(call("resume"))
        wait_until(lambda: read() == 60)
        assert sorted(records) == sorted(f"e{number}" for number in range(60))
