"""What does not fit on a real Kafka is told soon, with the setting or the command that mends it."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from aiokafka.conn import create_conn
from aiokafka.protocol.metadata import MetadataRequest

from server.adapters import kafka_check
from server.adapters.kafka_feed import KafkaFeed
from server.adapters.kafka_topics import make_topics
from server.ports import StreamOutdatedError, StreamSettingsError, StreamUnavailableError
from server.streams import TOPICS
from tests.kafka_shop import Machine, drained, ids, kafka_settings, topics
from tests.servers import KafkaServer
from tests.table_shop import event, wait_until


def test_copies_beyond_the_brokers_name_their_setting(kafka_address: str) -> None:
    with pytest.raises(StreamSettingsError, match=r"1 broker.*set kafka\.replication"):
        make_topics(kafka_settings(kafka_address, replication=2))


@pytest.mark.parametrize("group", ["", "sink"])
def test_readers_and_shippers_say_soon_that_topics_are_missing(kafka_address: str, group: str, tmp_path: Path) -> None:
    settings = kafka_settings(kafka_address)
    begin = time.monotonic()
    with closing(KafkaFeed(settings, group)) as feed, Machine(tmp_path, settings) as machine:
        feed.begin(dict)
        machine.add(event("e1", "a"))
        for work in (lambda: feed.read(1), machine.ship):
            with pytest.raises(StreamOutdatedError, match=r"lacks the topics .*\.events.*; run `shopkeeper migrate`"):
                work()
        assert time.monotonic() - begin < 15
        make_topics(settings)
        machine.ship()
        assert ids(drained(feed, 1)) == ["e1"]


def test_readers_and_shippers_name_the_setting_of_partitions(kafka_address: str, tmp_path: Path) -> None:
    settings = topics(kafka_settings(kafka_address))
    another = settings.model_copy(update={"partitions": 4})
    with closing(KafkaFeed(another)) as feed, Machine(tmp_path, another) as machine:
        feed.begin(dict)
        machine.add(event("e1", "a"))
        for work in (lambda: feed.read(1), machine.ship):
            with pytest.raises(StreamSettingsError, match=r"events has 3 partitions; set kafka\.partitions=3"):
                work()


class LateKafka(KafkaServer):
    """Is out of service for half of each six seconds, as one that starts or had hung is until its next heartbeat."""

    def properties(self) -> dict[str, object]:
        return super().properties() | {"broker.heartbeat.interval.ms": 6_000, "broker.session.timeout.ms": 3_000}

    def is_in_service(self) -> bool:
        return asyncio.run(self._has_brokers())

    async def _has_brokers(self) -> bool:
        connection = await create_conn("127.0.0.1", self._ports[0])
        try:
            return bool((await connection.send(MetadataRequest([]))).brokers)
        finally:
            connection.close()


@pytest.fixture
def late_kafka(tmp_path: Path) -> Iterator[LateKafka]:
    with LateKafka(tmp_path / "kafka") as server:
        wait_until(server.is_in_service)
        yield server


def test_broker_that_is_not_in_service_yet_is_waited_for(
    late_kafka: LateKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = kafka_settings(late_kafka.address)
    wait_until(lambda: not late_kafka.is_in_service())
    with monkeypatch.context() as patch:
        patch.setattr(kafka_check, "_ASK_S", 0.5)
        with pytest.raises(StreamUnavailableError, match="has no broker in service"):
            make_topics(settings)
    assert not late_kafka.is_in_service()
    assert make_topics(settings) == [f"{settings.prefix}.{topic}" for topic in TOPICS]
