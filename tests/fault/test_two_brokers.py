"""Of two brokers one hangs for a while, or starts late: order holds, and nothing is lost."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from server.adapters import kafka_check, kafka_feed, kafka_topics
from server.adapters.inbox import SqliteInbox
from server.adapters.kafka_feed import KafkaFeed
from server.adapters.kafka_topics import make_topics
from server.adapters.sqlite_log import SqliteLog
from server.ports import StreamSettingsError
from server.settings import KafkaSettings
from server.streams import FOLLOWED, TOPICS
from server.workers.follower import Follower
from tests.kafka_shop import Machine, kafka_settings, topics, walk, written
from tests.running import running
from tests.servers import KafkaServer, SecondKafka
from tests.table_shop import wait_until

_PARTITIONS = 8
_ROUNDS, _VISITORS, _PAUSE_S = 10, 20, 0.5


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[tuple[KafkaServer, KafkaServer]]:
    with KafkaServer(tmp_path / "one") as one, SecondKafka(tmp_path / "two", one) as two:
        yield one, two


def test_broker_that_hangs_changes_no_order_and_loses_nothing(
    brokers: tuple[KafkaServer, KafkaServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_feed, "_PATIENCE_S", 200.0)
    one, two = brokers
    settings = topics(kafka_settings(f"{one.address},{two.address}", partitions=_PARTITIONS))
    wait_until(lambda: asyncio.run(leaders(settings)) == {1, 2})
    with (
        Machine(tmp_path / "here", settings) as here,
        closing(SqliteInbox(tmp_path / "there.sqlite")) as inbox,
        closing(KafkaFeed(settings, topics=FOLLOWED)) as feed,
        running(here.shipper),
        running(Follower(feed, inbox)),
        closing(SqliteLog(tmp_path / "there.sqlite")) as there,
    ):
        for turn in range(_ROUNDS):
            if turn in {2, 6}:
                two.pause()
            for number in range(_VISITORS):
                here.add(*walk(turn * _VISITORS + number))
            time.sleep(_PAUSE_S)
            if turn in {5, 9}:
                assert len(written(there)) < len(written(here.log)), "what the other broker has is waited for"
                two.resume()
        wait_until(lambda: len(written(there)) == len(written(here.log)))
        assert written(there) == written(here.log)


def test_topics_wait_for_brokers_that_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with KafkaServer(tmp_path / "one") as one, ThreadPoolExecutor(1) as pool:
        settings = kafka_settings(one.address, replication=2)
        with pytest.raises(StreamSettingsError, match=r"1 broker.*set kafka\.replication"):
            make_topics(settings)
        monkeypatch.setattr(kafka_check, "SERVICE_S", 200.0)
        monkeypatch.setattr(kafka_topics, "_ADMIN_S", 240.0)
        made = pool.submit(make_topics, settings)
        with SecondKafka(tmp_path / "two", one):
            assert made.result() == [f"{settings.prefix}.{topic}" for topic in TOPICS]


async def leaders(settings: KafkaSettings) -> set[int]:
    """Return the brokers that have partitions of the events."""
    topic = f"{settings.prefix}.events"
    async with AIOKafkaConsumer(topic, bootstrap_servers=settings.servers.split(",")) as consumer:
        parts = (TopicPartition(topic, number) for number in range(_PARTITIONS))
        return {consumer._client.cluster.leader_for_partition(part) for part in parts}
