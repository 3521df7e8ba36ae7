"""What does not fit on a real Kafka is told soon, with the setting or the command that mends it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiokafka.conn import AIOKafkaConnection

from server.adapters import kafka_check, kafka_topics
from server.adapters.kafka_check import Topic
from server.adapters.kafka_feed import KafkaFeed
from server.adapters.kafka_topics import differences, make_topics
from server.ports import StreamOutdatedError, StreamSettingsError, StreamUnavailableError
from server.settings import KafkaSettings
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
        assert time.monotonic() - begin < 60
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
    """Is out of service for some seconds of each twenty, as one that starts or had hung is until its next heartbeat."""

    def properties(self) -> dict[str, object]:
        return super().properties() | {"broker.heartbeat.interval.ms": 20_000, "broker.session.timeout.ms": 8_000}


Late = tuple[KafkaSettings, LateKafka]


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Late]:
    """Return a Kafka that has just left service, for which commands are patient."""
    monkeypatch.setattr(kafka_check, "SERVICE_S", 120.0)
    monkeypatch.setattr(kafka_topics, "_ADMIN_S", 240.0)
    with LateKafka(tmp_path / "kafka") as server:
        wait_until(lambda: not server.is_serving())
        yield kafka_settings(server.address), server


def test_broker_that_is_not_in_service_yet_is_waited_for(late: Late, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, _ = late
    with monkeypatch.context() as patch:
        patch.setattr(kafka_check, "SERVICE_S", 0.5)
        with pytest.raises(StreamUnavailableError, match="has no broker in service"):
            make_topics(settings)
    assert make_topics(settings) == [f"{settings.prefix}.{topic}" for topic in TOPICS]


def test_client_without_a_controller_waits_for_one(late: Late, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever leaves service after it was looked at is waited for as well."""

    async def none_yet(_: KafkaSettings) -> dict[str, Topic]:
        return {}

    settings, _ = late
    monkeypatch.setattr(kafka_topics, "known_topics", none_yet)
    with monkeypatch.context() as patch:
        patch.setattr(kafka_check, "SERVICE_S", 0.5)
        with pytest.raises(StreamUnavailableError, match="has no broker in service"):
            differences(settings)
    assert make_topics(settings) == [f"{settings.prefix}.{topic}" for topic in TOPICS]


def test_broker_that_ends_while_it_is_waited_for_is_no_fault_of_the_login(
    late: Late, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, server = late
    metadata = kafka_check._metadata

    async def last(connection: AIOKafkaConnection, names: Sequence[str]) -> dict[str, Any]:
        answer = await metadata(connection, names)
        server.kill()
        return answer

    monkeypatch.setattr(kafka_check, "_metadata", last)
    monkeypatch.setattr(kafka_check, "SERVICE_S", 1.0)
    with pytest.raises(StreamUnavailableError, match="has no broker in service"):
        make_topics(settings)
